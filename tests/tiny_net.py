"""A tiny network beside the real backbones, for tests of anything but the networks.

Within `rows()` the table of backbones and the flags know it. `python -m tests.tiny_net train.py FLAGS...`
runs a script in a process of its own that knows it too, and is otherwise as `python train.py FLAGS...`.
"""
import contextlib
import os
import runpy
import sys
from unittest import mock

from commands import flags
from nets import backbones

# Two rows, whose networks are the same: with the head of resnet_v2, and with that of mobilenet_v2.
TINY = 'tiny_net'
LEAN = 'lean_net'
_WIDTHS = (4, 8, 12, 16, 20)


def build(row, images, output_stride, norm, multi_grid):
  """Returns (high, low, middle) of five units of stride 2; see nets/builders.py.

  high: float32 [B, h, w, 20]; low: 4, 8 and 12 channels at strides 2, 4 and 8; middle: 16. The last two
  convolutions are separable.
  """
  import tensorflow.compat.v1 as tf  # not above: scripts silence TensorFlow before they import it

  from nets import layers

  @layers.recomputable
  def unit(inputs, number, stride, rate):
    depth, scope = _WIDTHS[number - 1], f'conv{number}'
    if number > 3:
      return layers.separable_conv2d(inputs, depth, scope, norm, tf.nn.relu, stride=stride, rate=rate)
    return layers.conv2d(inputs, depth, 3, scope, norm, tf.nn.relu, stride=stride, rate=rate)

  assert multi_grid == (1, 1, 1)
  strides = layers.AtrousStrides(output_stride)
  net, low = images, {}
  with tf.variable_scope(row.scope):
    for number in range(1, 6):
      net = unit(net, number, *strides(2))
      low[2 ** number] = net
  return net, {stride: low[stride] for stride in (2, 4, 8)}, low[16]


@contextlib.contextmanager
def rows():
  """Within it the table of backbones has two rows more, and the scripts take their names."""
  added = {row.name: row for row in (
      backbones.Backbone(TINY, build, TINY, 0.9997, channel_means=(123.68, 116.78, 103.94),
                         align_corners=False, image_level_first=False, projection_dropout=0.0,
                         separable_head=False),
      backbones.Backbone(LEAN, build, LEAN, 0.997, 1e-3, decoder=False, atrous_rates=()))}
  with (mock.patch.dict(backbones.BACKBONES, added),
        mock.patch.dict(flags.SHARED['base_architecture'], choices=(*backbones.names(), *added))):
    yield


if __name__ == '__main__':
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  sys.argv = sys.argv[1:]
  with rows():
    runpy.run_path(os.path.join(root, sys.argv[0]), run_name='__main__')
