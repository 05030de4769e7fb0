"""MobileNetV2 (arXiv 1801.04381) with atrous rates, up to its 320 channels of features.

Names and geometry are those of Google's checkpoints: SAME padding throughout, ReLU6, linear bottlenecks.
"""
import tensorflow.compat.v1 as tf

from nets import layers

# (channels, stride) of each inverted residual; all except the first widen their input sixfold.
_UNITS = ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1),
          (96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1))
_LAST_STAGE = 13  # the index of the first unit of the last stage


def build(row, images, output_stride, norm, multi_grid):
  """Returns (high, low, middle) of a MobileNetV2; see nets/builders.py for the arguments.

  high: float32 [B, h, w, 320 * multiplier]; low: the last depthwise output at strides 2, 4 and 8, of 32, 144
  and 192 channels times the multiplier; middle: 96 channels times it, before the last stride. multi_grid:
  (1, 1, 1), for there are no blocks of three units.
  """
  assert multi_grid == (1, 1, 1)
  strides = layers.AtrousStrides(output_stride)
  width = row.depth_multiplier
  low, total_stride = {}, 2
  with tf.variable_scope(row.scope):
    stride, _ = strides(2)
    net = layers.conv2d(images, round(32 * width), 3, 'Conv', norm, tf.nn.relu6, stride=stride,
                        explicit_padding=False)
    for index, (channels, stride) in enumerate(_UNITS):
      if index == _LAST_STAGE:
        middle = net
      scope = f'expanded_conv_{index}' if index else 'expanded_conv'
      total_stride *= stride
      net, depthwise = _inverted_residual(net, round(channels * width), 6 if index else 1, strides(stride),
                                          norm, scope)
      if total_stride in (2, 4, 8):
        low[total_stride] = depthwise
  return net, low, middle


@layers.recomputable
def _inverted_residual(inputs, channels, expansion, stride_and_rate, norm, scope):
  """Returns the unit's output [B, h, w, channels] and its depthwise one [B, h, w, expansion * C]."""
  stride, rate = stride_and_rate
  depth_in = layers.channels(inputs)
  net = inputs
  with tf.variable_scope(scope):
    if expansion > 1:
      net = layers.conv2d(net, expansion * depth_in, 1, 'expand', norm, tf.nn.relu6)
    depthwise = layers.depthwise_conv2d(net, 'depthwise', norm, tf.nn.relu6, stride=stride, rate=rate,
                                        explicit_padding=False)
    net = layers.conv2d(depthwise, channels, 1, 'project', norm)
    if stride == 1 and channels == depth_in:
      net += inputs
  return net, depthwise
