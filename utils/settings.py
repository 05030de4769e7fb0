"""Settings: what a model_fn is told beside the Architecture, as one record; the home of the defaults.

Flags take their defaults from here (commands/flags.py). Free of TensorFlow.
"""
import dataclasses
import typing

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


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a model is trained, evaluated or used; the defaults are those of the original scripts.

  Attributes:
    class_names: K str. palette: K (red, green, blue). ignore_label: int, of pixels that do not count.
    loss: str, names in losses.LOSSES, perhaps with weights; see weight_of_loss.
    hard_pixels: float, the share of the valid pixels, the hardest, that the training loss is the mean of.
    hard_pixels_steps: int, steps over which it falls from 1, from initial_global_step on.
    label_smoothing: float, the part of a label that all classes share in the cross entropy of training.
    auxiliary_head: float, the weight of the loss of a second head in training, or 0 for none.
    weight_of_class: K floats by which the pixels of each class count in the training loss, or None.
    batch_norm_decay: float, or None for the backbone's own.
    freeze_batch_norm: bool, use the moving averages, and train neither them nor gamma and beta.
    sync_batch_norm: bool, normalise by the statistics of all replicas' batches.
    precision: str, fp32, bf16 or fp16: what convolutions compute in.
    data_format: str, channels_last, or channels_first, which only GPUs compute.
    recompute: bool, compute activations of residual units again in the backward pass.
    portable: bool, for export: nothing that is fast on this machine alone.
    deterministic: bool, the same bits in every run also on GPUs.
    pre_trained_model: str, the prefix of a checkpoint to start from, or None.
    seed: int, of dropout.
    images_per_step: int; `batch_size` in a dict.
    accumulate_steps: int, batches whose mean gradient makes a step.
    last_step: int, at which training ends, for the time left, or None; `max_steps` in a dict.
    num_train: int, the training examples, for the piecewise policy, or None.
    weight_decay, momentum: floats.
    weight_decay_scope: str, a name in losses.DECAY_SCOPES.
    ema: float, the decay of moving averages of the trained variables; 0 keeps none.
    weights: str, raw, or ema for these averages: what evaluation, prediction and export use.
    clip_gradients: float, the norm to which longer gradients are scaled; 0 leaves them.
    learning_rate_policy: str, a name in optimizers.POLICIES; the following are those of poly and cosine.
    initial_learning_rate, end_learning_rate: floats; power is poly's alone.
    max_iter: int, steps over which the rate falls.
    initial_global_step: int, the step from which it falls.
    warmup_steps: int, steps from that one on over which the rate of any policy rises; 0 is none.
    last_layers_lr_multiplier: float, factor of the rate of all that is not the backbone.
    tensorboard_images_max_outputs: int, pictures of an image summary.
  """
  class_names: tuple[str, ...] = ()
  palette: tuple[tuple[int, int, int], ...] = ()
  ignore_label: int = 255
  loss: str = 'cross_entropy'
  hard_pixels: float = 1.0
  hard_pixels_steps: int = 0
  label_smoothing: float = 0.0
  auxiliary_head: float = 0.0
  weight_of_class: tuple[float, ...] | None = None
  batch_norm_decay: float | None = None
  freeze_batch_norm: bool = False
  sync_batch_norm: bool = True
  precision: str = 'fp32'
  data_format: str = 'channels_last'
  recompute: bool = False
  portable: bool = False
  deterministic: bool = False
  pre_trained_model: str | None = None
  seed: int = 0
  images_per_step: int = 10
  accumulate_steps: int = 1
  last_step: int | None = None
  num_train: int | None = None
  weight_decay: float = 2e-4
  weight_decay_scope: str = 'all'
  momentum: float = 0.9
  clip_gradients: float = 0.0
  ema: float = 0.0
  weights: str = 'raw'
  learning_rate_policy: str = 'poly'
  initial_learning_rate: float = 7e-3
  end_learning_rate: float = 1e-6
  power: float = 0.9
  max_iter: int = 30000
  initial_global_step: int = 0
  warmup_steps: int = 0
  last_layers_lr_multiplier: float = 1.0
  tensorboard_images_max_outputs: int = 6

  @classmethod
  def from_params(cls, params: dict[str, typing.Any]) -> 'Settings':
    """Returns the Settings in an Estimator's params, a dict that may hold much else.

    Its keys are the attributes, or what the original scripts called them: batch_size and max_steps.
    """
    names = (('batch_size', 'images_per_step'), ('max_steps', 'last_step'))
    renamed = {ours: params[theirs] for theirs, ours in names if theirs in params}
    known = {field.name: params[field.name] for field in dataclasses.fields(cls) if field.name in params}
    return cls(**renamed, **known)
