"""The table of backbones: a name, the family that builds it, and the facts that go with its weights.

A new backbone is a row here and, if it is of a new family, a file in nets/ that nets/builders.py lists; the
tests then demand its expected shapes and parameter count. Free of TensorFlow, so that `--help` can read it.
"""
import dataclasses
import typing

from utils.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Backbone:
  """One row of the table.

  The last five are defaults of the head: what the published models of this backbone use. resnet_v2 follows
  the original DeepLabv3+ scripts, all others Google's models.
  """
  name: str
  family: str | typing.Callable  # a name in nets/builders.py, or a function such as those there
  scope: str                    # variable scope, the first part of every variable name
  batch_norm_decay: float       # the default of --batch_norm_decay
  batch_norm_epsilon: float = 1.001e-5  # 1e-5, as the fused kernel rounds it
  channel_means: tuple[float, ...] | None = None  # RGB mean subtracted from 0..255; None scales to [-1, 1]
  depth_multiplier: float = 1.0
  align_corners: bool = True    # how features and logits are resized
  image_level_first: bool = True  # the place of the image-level features among the ASPP's branches
  projection_dropout: float = 0.1  # after the ASPP's projection, in training
  decoder: bool = True
  separable_head: bool = True
  atrous_rates: tuple[int, ...] = (6, 12, 18)  # at output stride 16
  multi_grid: tuple[int, ...] | None = None

  @property
  def padding_color(self) -> tuple[float, ...]:
    """RGB 0..255 that becomes 0 in the network: what training pads with."""
    return self.channel_means or (127.5, 127.5, 127.5)


def _resnet_v2(name):
  # TF-Slim trained these weights on [-1, 1]; the original DeepLabv3+ scripts feed mean-subtracted 0..255, and
  # their checkpoints expect it.
  return Backbone(name, 'resnet_v2', name, 0.9997, channel_means=(123.68, 116.78, 103.94),
                  align_corners=False, image_level_first=False, projection_dropout=0.0, separable_head=False)


BACKBONES = {row.name: row for row in (
    _resnet_v2('resnet_v2_50'),
    _resnet_v2('resnet_v2_101'),
    Backbone('resnet_v1_50_beta', 'resnet_v1_beta', 'resnet_v1_50', 0.95, multi_grid=(1, 2, 4)),
    Backbone('resnet_v1_101_beta', 'resnet_v1_beta', 'resnet_v1_101', 0.95, multi_grid=(1, 2, 4)),
    Backbone('xception_41', 'xception', 'xception_41', 0.9997, 1e-3),
    Backbone('xception_65', 'xception', 'xception_65', 0.9997, 1e-3),
    Backbone('xception_71', 'xception', 'xception_71', 0.9997, 1e-3),
    Backbone('mobilenet_v2', 'mobilenet_v2', 'MobilenetV2', 0.997, 1e-3, decoder=False, atrous_rates=()),
    Backbone('mobilenet_v2_dm05', 'mobilenet_v2', 'MobilenetV2', 0.997, 1e-3, decoder=False, atrous_rates=(),
             depth_multiplier=0.5),
)}
OUTPUT_STRIDES = (8, 16, 32)


def names() -> tuple[str, ...]:
  """Returns the names of all backbones, in the table's order."""
  return tuple(BACKBONES)


def get(name: str) -> Backbone:
  """Returns the Backbone called `name`; raises UsageError, naming all, if there is none."""
  if name not in BACKBONES:
    raise UsageError(f'base_architecture {name} is not known; use one of {", ".join(BACKBONES)}')
  return BACKBONES[name]
