"""The table of backbones: a name, the function that builds it, and the facts that go with its weights.

A new backbone is a file in nets/ and a row here; the tests then demand its expected shapes and parameter
count. The builder's module is imported on first use, so that reading the table (for `--help`) costs no
TensorFlow import.

`build` returns the two feature maps that the decoder works on (DeepLabv3+ sec. 3.1):
  high: float32 [B, ceil(H/output_stride), ceil(W/output_stride), C], the encoder's output;
  low:  float32 [B, ceil(H/4), ceil(W/4), C'], the low-level features at stride 4.
"""
import dataclasses
import importlib

from utils.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Backbone:
  """One row of the table."""
  name: str
  module: str                # in nets/; holds a function called `name`
  channel_means: tuple       # RGB mean that is subtracted from images in 0..255
  batch_norm_decay: float    # of the published weights: the default of --batch_norm_decay
  scope: str                 # variable scope, the first part of every variable name
  output_strides: tuple = (8, 16, 32)


# RGB means of the VGG and ResNet weights. TF-Slim trained resnet_v2 on [-1, 1]; the original DeepLabv3+
# scripts feed mean-subtracted 0..255, and their checkpoints expect it.
_IMAGENET_MEANS = (123.68, 116.78, 103.94)

BACKBONES = {row.name: row for row in (
    Backbone('resnet_v2_50', 'resnet_v2', _IMAGENET_MEANS, 0.9997, 'resnet_v2_50'),
    Backbone('resnet_v2_101', 'resnet_v2', _IMAGENET_MEANS, 0.9997, 'resnet_v2_101'),
)}


def names():
  """Returns the names of all backbones, in the table's order."""
  return tuple(BACKBONES)


def get(name):
  """Returns the Backbone called `name`; raises UsageError, naming all, if there is none."""
  if name not in BACKBONES:
    raise UsageError(f'base_architecture {name} is not known; use one of {", ".join(BACKBONES)}')
  return BACKBONES[name]


def build(name, images, output_stride, is_training, batch_norm_decay=None):
  """Returns (high, low), the backbone's feature maps; see the module's docstring for the shapes.

  Args:
    name: str, a row of the table.
    images: uint8 or float32 [B, H, W, 3], RGB 0..255, any H and W of at least output_stride.
    output_stride: int, 8, 16 or 32; strides beyond it become atrous rates.
    is_training: bool, whether batch norm uses the batch's statistics and updates its averages.
    batch_norm_decay: float, or None for the table's.

  Raises:
    UsageError: the name or the output stride is not in the table.
  """
  row = get(name)
  if output_stride not in row.output_strides:
    raise UsageError(f'output_stride {output_stride} is not supported by {name}; '
                     f'use one of {", ".join(map(str, row.output_strides))}')
  builder = getattr(importlib.import_module('nets.' + row.module), name)
  return builder(images, row, output_stride, is_training, batch_norm_decay or row.batch_norm_decay)
