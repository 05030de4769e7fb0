"""Settings: what a model_fn is told beside the Architecture, as one record.

A field made by `flag` is the home of the flag of its name: its default, type, choices and help
(commands/flags.py). Free of TensorFlow.
"""
import argparse
import dataclasses
import typing

from utils.flag_types import (
  flag,
  fraction,
  non_negative_float,
  non_negative_int,
  on_off,
  positive_float,
  positive_int,
  share,
)

# What a loss is made of (training/losses.py), and the flags that change such a part.
FLAGS_OF_LOSS: dict[str, tuple[str, ...]] = {
    'cross_entropy': ('hard_pixels', 'label_smoothing'), 'focal': ('hard_pixels',), 'dice': (), 'lovasz': ()}
_LARGEST_WEIGHT = 3.4e38  # of float32


def weight_of_loss(text: str) -> dict[str, float]:
  """Returns name -> weight of each part of a loss, such as 'cross_entropy,dice:0.5'.

  Args:
    text: names of FLAGS_OF_LOSS, each once and perhaps with a weight above 0, which is 1 if it is left out.

  Raises:
    ValueError: it is none, with what is allowed.
  """
  allowed = f'give one or several of {", ".join(FLAGS_OF_LOSS)}, each with a weight if not 1: focal,dice:0.5'
  weights: dict[str, float] = {}
  for part in text.split(','):
    name, colon, number = part.partition(':')
    if name not in FLAGS_OF_LOSS:
      raise ValueError(f"'{name[:40]}' is no loss; {allowed}")
    if name in weights:
      raise ValueError(f'{name} is named twice; {allowed}')
    try:
      weights[name] = float(number) if colon else 1.0
    except ValueError:
      weights[name] = 0.0
    if not 0 < weights[name] <= _LARGEST_WEIGHT:
      raise ValueError(f"{name} has the weight '{number[:40]}', which is no number above 0; {allowed}")
  return weights


def _loss(text):
  """An argparse type: one or several losses, as weight_of_loss reads them."""
  try:
    weight_of_loss(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error
  return text


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a model is trained, evaluated or used; the defaults are those of the original scripts."""
  class_names: tuple[str, ...] = ()                 # K of them
  palette: tuple[tuple[int, int, int], ...] = ()    # K times red, green and blue
  ignore_label: int = 255                           # of pixels that do not count
  num_train: int | None = None                      # training examples, for the piecewise policy
  weight_of_class: tuple[float, ...] | None = None  # K factors of the classes in the training loss
  pre_trained_model: str | None = None              # the prefix of a checkpoint to start from
  images_per_step: int = 10                         # `batch_size` in a dict
  last_step: int | None = None                      # `max_steps` in a dict: for the time left
  momentum: float = 0.9
  power: float = 0.9                                # of the policy poly
  portable: bool = False                            # for export: nothing that is fast on this machine alone
  # The loss.
  loss: str = flag(
      'cross_entropy', 'what is minimised: cross_entropy; focal, in which easy pixels count less; dice or '
      'lovasz, which measure the overlap of each class; or a weighted sum: cross_entropy,dice:0.5',
      group='loss', type=_loss, metavar='LOSS')
  auxiliary_head: float = flag(
      0.0, 'weight of the loss of a second, small head on the features before the backbone\'s last stage, '
      'such as 0.4; only training has it, and 0 has none', group='loss', type=non_negative_float,
      metavar='WEIGHT')
  hard_pixels: float = flag(
      1.0, 'take the mean of cross_entropy or focal over this share of the valid pixels, those of the '
      'largest loss', group='loss', type=share, metavar='SHARE')
  hard_pixels_steps: int = flag(
      0, 'steps over which --hard_pixels falls from 1 to its share, from --initial_global_step on; 0 has it '
      'at once', group='loss', type=non_negative_int, metavar='N')
  label_smoothing: float = flag(
      0.0, 'the part of a label that all classes share in cross_entropy', group='loss', type=fraction,
      metavar='X')
  weight_decay: float = flag(
      2e-4, 'L2 factor on the trained variables', group='loss', type=non_negative_float)
  weight_decay_scope: str = flag(
      'all', 'the variables that weight decay shrinks: all, or weights, those of convolutions that are not '
      'depthwise', group='loss', choices=('all', 'weights'))
  # Batch norm.
  batch_norm_decay: float | None = flag(
      None, "decay of batch norm's moving averages (default: the backbone's, 0.9997 for resnet_v2)",
      group='model', type=fraction)
  freeze_batch_norm: bool = flag(
      False, 'use the moving averages, and train neither them nor gamma and beta', group='model')
  sync_batch_norm: bool = flag(
      True, 'with several GPUs, normalise by the statistics of the whole batch', group='model', type=on_off,
      metavar='on|off')
  # The schedule.
  accumulate_steps: int = flag(
      1, 'batches whose mean gradient makes one step', group='schedule', type=positive_int, metavar='N')
  learning_rate_policy: str = flag(
      'poly', 'poly, cosine, or piecewise, which ignores the two rates below', group='schedule',
      choices=('poly', 'piecewise', 'cosine'))
  initial_learning_rate: float = flag(
      7e-3, 'first learning rate of poly and cosine', group='schedule', type=positive_float)
  end_learning_rate: float = flag(1e-6, 'their last learning rate', group='schedule', type=non_negative_float)
  max_iter: int = flag(
      30000, 'steps until the last learning rate', group='schedule', type=positive_int)
  initial_global_step: int = flag(
      0, 'the step at which schedule, warm-up and epochs begin', group='schedule', type=non_negative_int)
  warmup_steps: int = flag(
      0, 'linear warm-up of the learning rate over so many steps; 0 is none', group='schedule',
      type=non_negative_int, metavar='N')
  last_layers_lr_multiplier: float = flag(
      1.0, 'learning-rate factor of all that is not the backbone', group='schedule', type=positive_float)
  clip_gradients: float = flag(
      0.0, 'norm of the whole gradient, weight decay included, to which longer ones are scaled; 0 leaves '
      'them', group='schedule', type=non_negative_float, metavar='NORM')
  ema: float = flag(
      0.0, 'also keep moving averages of the weights with this decay, such as 0.9998, and score them too; 0 '
      'keeps none', group='schedule', type=fraction, metavar='DECAY')
  # What is computed, and how.
  weights: str = flag(
      'raw', 'which weights of the checkpoint to use: raw, or ema, the averages that train.py --ema keeps',
      group='model', choices=('raw', 'ema'))
  precision: str = flag(
      'fp32', 'what convolutions compute in: fp32, bf16 (fast on CPUs with AMX and GPUs from Ampere on), or '
      'fp16 (fast on GPUs); variables stay fp32', group='speed and memory', choices=('fp32', 'bf16', 'fp16'))
  data_format: str = 'channels_last'                # or channels_first, which only GPUs compute
  recompute: bool = flag(
      False, 'keep fewer activations, and compute the others again in the backward pass: less memory, a '
      'fifth more time', group='speed and memory')
  deterministic: bool = flag(
      False, 'the same bits in every run also on GPUs, where it is slower; CPUs always give them',
      group='speed and memory')
  seed: int = flag(
      0, 'of the order, the augmentation and new weights', group='data', type=non_negative_int)
  tensorboard_images_max_outputs: int = flag(
      6, 'pictures per image summary', group='output', type=positive_int)

  @classmethod
  def from_params(cls, params: dict[str, typing.Any]) -> 'Settings':
    """Returns the Settings in an Estimator's params, a dict that may hold much else.

    Its keys are the attributes, or what the original scripts called them: batch_size and max_steps.
    """
    names = (('batch_size', 'images_per_step'), ('max_steps', 'last_step'))
    renamed = {ours: params[theirs] for theirs, ours in names if theirs in params}
    known = {field.name: params[field.name] for field in dataclasses.fields(cls) if field.name in params}
    return cls(**{**known, **renamed})
