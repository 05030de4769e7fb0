"""Architecture: everything that decides a model's variables and geometry, as one record.

It says how `deeplab_model.network` is built; training, evaluation, inference and export pass it around
whole. Free of TensorFlow, so that flags can be checked against a stored model at once.
"""
import dataclasses
import typing

from nets import backbones
from utils.flag_types import flag, on_off, positive_int


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A DeepLabv3+ model. None stands for the default of the backbone's row in nets/backbones.py."""
  base_architecture: str     # a row of nets/backbones.py
  num_classes: int           # K
  output_stride: int = flag(
      16, 'input size over feature size; the same weights serve all', group='model', type=int,
      choices=backbones.OUTPUT_STRIDES)
  atrous_rates: tuple[int, ...] | None = flag(
      None, "three rates of the ASPP, or none at all for an ASPP without atrous convolutions (default: the "
      "backbone's, 6 12 18 at output stride 16, scaled to the output stride)", group='model',
      type=positive_int, nargs='*', metavar='RATE')
  multi_grid: tuple[int, ...] | None = flag(  # DeepLabv3 sec. 3.2
      None, "factors of the rates in the backbone's last three units (default: the backbone's)",
      group='model', type=positive_int, nargs=3, metavar='FACTOR')
  image_level_feature: bool = flag(
      True, "the ASPP's branch of the whole image's mean", group='model', type=on_off, metavar='on|off')
  separable_head: bool | None = flag(  # DeepLabv3+ sec. 3.1
      None, 'depthwise separable convolutions in ASPP and decoder (default: as published for the backbone)',
      group='model', type=on_off, metavar='on|off')
  decoder: bool | None = flag(  # without, the logits come from the ASPP
      None, 'off is DeepLabv3 (default: as published for the backbone)', group='model', type=on_off,
      metavar='on|off')
  decoder_channels: int = flag(  # DeepLabv3+ table 1
      48, 'channels to which low-level features are reduced', group='model', type=positive_int)
  decoder_convs: int = flag(  # these three: DeepLabv3+ table 2, after each concatenation
      2, 'convolutions of the decoder', group='model', type=positive_int)
  decoder_filters: int = flag(256, 'their channels', group='model', type=positive_int)
  decoder_kernel: int = flag(3, 'their size', group='model', type=int, choices=(1, 3))
  decoder_output_stride: tuple[int, ...] = flag(
      (4,), 'strides of the low-level features that the decoder merges in, falling, such as 8 4',
      group='model', type=int, choices=(8, 4, 2), nargs='+')
  # The images are padded on the right and the bottom, and the logits cut back: the padding takes part in the
  # image-level feature. A view at another scale is padded to this size at that scale.
  eval_crop_size: tuple[int, int] | None = flag(
      None, "pad images to at least this size before evaluation, as Google's models are evaluated",
      group='model', type=positive_int, nargs=2, metavar=('H', 'W'))

  @classmethod
  def from_dict(cls, values: dict[str, typing.Any]) -> 'Architecture':
    """Returns the Architecture in a dict that may hold much else, such as an Estimator's params or JSON."""
    known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return cls(**{**known, **lists})


def problem(architecture: Architecture) -> str | None:
  """Returns a few words on the first value that no model can have, or None: for what a file says."""
  for field in dataclasses.fields(architecture):
    value, largest = getattr(architecture, field.name), _LARGEST.get(field.name, 1 << 14)
    row = {'type': field.type, **field.metadata}
    if not (value is None is field.default or _is_allowed(value, largest, **row)):
      return f'{field.name} {value!r:.60} is not allowed'
  return None


# Far beyond any model; they keep a file from asking for all of the memory.
_LARGEST = {'num_classes': 256, 'atrous_rates': 1 << 10, 'multi_grid': 1 << 10, 'decoder_convs': 1 << 6,
            'eval_crop_size': 1 << 15}


def _is_allowed(value, largest, nargs=None, choices=None, type=int, **_):
  """Returns whether a value, or each of `nargs`, is one that the flag would take, and at most the largest."""
  if nargs:
    lengths = {'*': (0, 3), '+': (1, 2, 3)}.get(nargs, (nargs,))
    return isinstance(value, tuple) and len(value) in lengths and all(
        _is_allowed(each, largest, choices=choices, type=type) for each in value)
  if type in (on_off, str):
    return isinstance(value, str if type is str else bool)
  return isinstance(value, int) and not isinstance(value, bool) and (
      value in choices if choices else 1 <= value <= largest)


# What may differ between training and the use of the same variables.
GEOMETRY = ('output_stride', 'atrous_rates', 'eval_crop_size')
