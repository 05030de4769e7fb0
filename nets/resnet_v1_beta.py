"""ResNet-v1-50 and -101 (arXiv 1512.03385) with a stem of three 3x3 convolutions, as published for DeepLab.

The stride of a block sits on its last unit; the rates of the last block's units are multiplied by the
multi-grid (DeepLabv3 sec. 3.2), which is 1, 2, 4 for the published weights.
"""
import functools

import tensorflow.compat.v1 as tf

from nets import layers, residual

_BLOCKS = {'resnet_v1_50_beta': residual.BLOCKS[50], 'resnet_v1_101_beta': residual.BLOCKS[101]}


def build(row, images, output_stride, norm, multi_grid):
  """Returns (high, low, middle) of a ResNet-v1; see nets/builders.py for the arguments.

  high: float32 [B, h, w, 2048]; low: 128 channels of the stem at stride 2, and at strides 4 and 8 the last
  residual before its sum and ReLU, 256 and 512 channels; middle: the third block's 1024.
  """
  with tf.variable_scope(row.scope):
    net = layers.conv2d(images, 64, 3, 'conv1_1', norm, tf.nn.relu, stride=2)
    net = layers.conv2d(net, 64, 3, 'conv1_2', norm, tf.nn.relu)
    net = layers.conv2d(net, 128, 3, 'conv1_3', norm, tf.nn.relu)
    low = {2: net}
    net = layers.max_pool2d(net, 3, 2, 'SAME')  # [B, ceil(H/4), ceil(W/4), 128]
    net, middle, offered = residual.stack(
        net, _BLOCKS[row.name], layers.AtrousStrides(output_stride // 4),  # the stem takes 4
        multi_grid, 'bottleneck_v1', functools.partial(_bottleneck, norm=norm))
    # Of the last unit but one: the last is the one with the stride.
    low.update({4 * index: offered[index - 1][-2] for index in (1, 2)})
  return net, low, middle


@layers.recomputable
def _bottleneck(inputs, depth, stride, rate, norm):
  """One residual unit: returns its output and the residual before the sum, both [B, h, w, 4 * depth]."""
  if layers.channels(inputs) == 4 * depth:
    shortcut = inputs if stride == 1 else layers.max_pool2d(inputs, 1, stride, 'VALID')
  else:
    shortcut = layers.conv2d(inputs, 4 * depth, 1, 'shortcut', norm, stride=stride)
  net = layers.conv2d(inputs, depth, 1, 'conv1', norm, tf.nn.relu)
  net = layers.conv2d(net, depth, 3, 'conv2', norm, tf.nn.relu, stride=stride, rate=rate)
  residual = layers.conv2d(net, 4 * depth, 1, 'conv3', norm)
  return tf.nn.relu(shortcut + residual), residual
