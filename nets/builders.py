"""Builds the backbone of a row of nets/backbones.py.

The feature maps are what the decoder works on (DeepLabv3+ sec. 3.1):
  high: float32 [B, ceil(H/output_stride), ceil(W/output_stride), C], the encoder's output;
  low:  dict of stride s in (2, 4, 8) -> float32 [B, ceil(H/s), ceil(W/s), C'], the last features at that
        stride. The published models use stride 4;
  middle: float32 [B, h', w', C''], what the backbone's last stage works on, for the auxiliary head: at the
        output stride, of Xception and MobileNetV2 at 16 at most.
"""
from nets import mobilenet_v2, resnet_v1_beta, resnet_v2, xception

_BUILDERS = {'mobilenet_v2': mobilenet_v2.build, 'resnet_v1_beta': resnet_v1_beta.build,
             'resnet_v2': resnet_v2.build, 'xception': xception.build}


def build(row, images, output_stride, norm, multi_grid=None):
  """Returns (high, low, middle), the feature maps of a row's backbone; the module says of what shapes.

  Args:
    row: Backbone.
    images: float32 [B, H, W, 3], scaled as the row says, any H and W of at least output_stride.
    output_stride: int, 8, 16 or 32; strides beyond it become atrous rates.
    norm: layers.BatchNorm.
    multi_grid: three ints by which the rates of the last three units are multiplied (DeepLabv3 sec. 3.2), or
      None. MobileNetV2 has no such units and takes None alone.
  """
  build = row.family if callable(row.family) else _BUILDERS[row.family]
  return build(row, images, output_stride, norm, multi_grid or (1, 1, 1))
