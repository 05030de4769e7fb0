"""ResNet-v2-50 and -101 (Identity Mappings in Deep Residual Networks, arXiv 1603.05027) with atrous rates.

Names and geometry are TF-Slim's, so that its checkpoints and those of the original DeepLabv3+ scripts load:
the stride of a block sits on its last unit, and `postnorm` exists although the decoder takes the sum
before it. The layers are in nets/layers.py, the table of backbones in nets/backbones.py.
"""
import functools

import tensorflow.compat.v1 as tf

from nets import layers, residual

_BLOCKS = {'resnet_v2_50': residual.BLOCKS[50], 'resnet_v2_101': residual.BLOCKS[101]}


def build(row, images, output_stride, norm, multi_grid):
  """Returns (high, low, middle) of a ResNet-v2; see nets/builders.py for the arguments.

  high: float32 [B, h, w, 2048], the sum before `postnorm`; low: 64, 64 and 128 channels at strides 2, 4
  and 8; middle: the third block's sum of 1024 channels.
  """
  with tf.variable_scope(row.scope):
    net = layers.conv2d(images, 64, 7, 'conv1', stride=2)
    low = {2: net}
    net = layers.max_pool2d(net, 3, 2, 'SAME')  # [B, ceil(H/4), ceil(W/4), 64]
    net, middle, offered = residual.stack(
        net, _BLOCKS[row.name], layers.AtrousStrides(output_stride // 4),  # the root takes 4
        multi_grid, 'bottleneck_v2', functools.partial(_bottleneck, norm=norm))
    low.update({4 * index: offered[index - 1][-1] for index in (1, 2)})  # of the last unit, before its stride
    layers.batch_norm(net, norm, 'postnorm')  # unused; checkpoints hold it and its averages move
  return net, low, middle


@layers.recomputable
def _bottleneck(inputs, depth, stride, rate, norm):
  """One residual unit: returns its output [B, h, w, 4 * depth] and its reduced input [B, H, W, depth]."""
  preact = tf.nn.relu(layers.batch_norm(inputs, norm, 'preact'))
  if layers.channels(inputs) == 4 * depth:
    shortcut = inputs if stride == 1 else layers.max_pool2d(inputs, 1, stride, 'VALID')
  else:
    shortcut = layers.conv2d(preact, 4 * depth, 1, 'shortcut')
  reduced = layers.conv2d(preact, depth, 1, 'conv1', norm, tf.nn.relu)
  net = layers.conv2d(reduced, depth, 3, 'conv2', norm, tf.nn.relu, stride=stride, rate=rate)
  return shortcut + layers.conv2d(net, 4 * depth, 1, 'conv3'), reduced
