"""Architecture: everything that decides a model's variables and geometry, as one record.

It says how `deeplab_model.network` is built; training, evaluation, inference and export pass it around
whole. Free of TensorFlow, so that flags can be checked against a stored model at once.
"""
import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A DeepLabv3+ model. None stands for the default of the backbone's row in nets/backbones.py.

  Attributes:
    base_architecture: str, a row of nets/backbones.py.
    num_classes: int, K.
    output_stride: int, input size over the size of the encoder's features; the same weights serve all.
    atrous_rates: three ints, of the ASPP, () for an ASPP without atrous convolutions, or None: the backbone's
      rates, scaled to the output stride.
    multi_grid: three ints, factors of the rates in the last three units (DeepLabv3 sec. 3.2), or None.
    image_level_feature: bool, the ASPP's branch of the whole image's mean.
    separable_head: bool or None, depthwise separable convolutions in ASPP and decoder (DeepLabv3+ sec. 3.1).
    decoder: bool or None; False is DeepLabv3, whose logits come from the ASPP.
    decoder_channels: int, to which low-level features are reduced (Table 1).
    decoder_convs, decoder_filters, decoder_kernel: ints, the convolutions after each concatenation (Table 2).
    decoder_output_stride: falling ints of 8, 4, 2: the strides whose low-level features are merged in.
    eval_crop_size: (height, width) or None. In evaluation images are padded to at least this size on the
      right and the bottom, and the logits cut back: the padding takes part in the image-level feature, as
      in the evaluation of Google's models. A view at another scale is padded to this size at that scale.
  """
  base_architecture: str
  num_classes: int
  output_stride: int = 16
  atrous_rates: tuple[int, ...] | None = None
  multi_grid: tuple[int, ...] | None = None
  image_level_feature: bool = True
  separable_head: bool | None = None
  decoder: bool | None = None
  decoder_channels: int = 48
  decoder_convs: int = 2
  decoder_filters: int = 256
  decoder_kernel: int = 3
  decoder_output_stride: tuple[int, ...] = (4,)
  eval_crop_size: tuple[int, int] | None = None

  @classmethod
  def from_dict(cls, values: dict[str, typing.Any]) -> 'Architecture':
    """Returns the Architecture in a dict that may hold much else, such as an Estimator's params or JSON."""
    known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return cls(**{**known, **lists})


def problem(architecture: Architecture) -> str | None:
  """Returns a few words on the first value that no model can have, or None: for what a file says.

  The largest numbers are far beyond any model, and keep a file from asking for all of the memory.
  """
  for name, is_allowed in _ALLOWED.items():
    value = getattr(architecture, name)
    if not is_allowed(value):
      return f'{name} {value!r:.60} is not allowed'
  return None


def _number(most, least=1):
  return lambda value: type(value) is int and least <= value <= most


def _one_of(*choices):
  return lambda value: any(type(value) is type(choice) and value == choice for choice in choices)


def _numbers(is_allowed, *lengths):
  return lambda values: isinstance(values, tuple) and len(values) in lengths and all(map(is_allowed, values))


def _or_none(is_allowed):
  return lambda value: value is None or is_allowed(value)


_ALLOWED = {
    'base_architecture': lambda value: isinstance(value, str),  # nets/backbones.py knows which there are
    'num_classes': _number(256, least=2),
    'output_stride': _number(32),  # and which of these
    'atrous_rates': _or_none(_numbers(_number(1 << 10), 0, 3)),
    'multi_grid': _or_none(_numbers(_number(1 << 10), 3)),
    'image_level_feature': _one_of(True, False),
    'separable_head': _one_of(True, False, None),
    'decoder': _one_of(True, False, None),
    'decoder_channels': _number(1 << 14),
    'decoder_convs': _number(1 << 6),
    'decoder_filters': _number(1 << 14),
    'decoder_kernel': _one_of(1, 3),
    'decoder_output_stride': _numbers(_one_of(8, 4, 2), 1, 2, 3),
    'eval_crop_size': _or_none(_numbers(_number(1 << 15), 2)),
}

# What may differ between training and the use of the same variables.
GEOMETRY = ('output_stride', 'atrous_rates', 'eval_crop_size')
