"""Every backbone of the table: shapes at all strides, and parameter count."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from nets import backbones, builders, layers
from utils.errors import UsageError

pytestmark = pytest.mark.slow

# name -> channels of high, channels of low at strides 2, 4, 8, parameters of the backbone.
EXPECTED = {
    'resnet_v2_50': (2048, (64, 64, 128), lambda: _resnet_v2_parameters((3, 4, 6, 3))),
    'resnet_v2_101': (2048, (64, 64, 128), lambda: _resnet_v2_parameters((3, 4, 23, 3))),
    'resnet_v1_50_beta': (2048, (128, 256, 512), lambda: _resnet_v1_beta_parameters((3, 4, 6, 3))),
    'resnet_v1_101_beta': (2048, (128, 256, 512), lambda: _resnet_v1_beta_parameters((3, 4, 23, 3))),
    'xception_41': (2048, (128, 256, 728), lambda: _xception_parameters(_ENTRY_65, 8)),
    'xception_65': (2048, (128, 256, 728), lambda: _xception_parameters(_ENTRY_65, 16)),
    'xception_71': (2048, (128, 256, 728), lambda: _xception_parameters(_ENTRY_71, 16)),
    'mobilenet_v2': (320, (32, 144, 192), lambda: _mobilenet_v2_parameters(1)),
    'mobilenet_v2_dm05': (160, (16, 72, 96), lambda: _mobilenet_v2_parameters(0.5)),
}
_ENTRY_65 = (128, 256, 728)
_ENTRY_71 = (128, 256, 256, 728, 728)


def _conv(depth_in, depth, kernel=1):
  """Parameters of a convolution with batch norm's gamma and beta."""
  return kernel * kernel * depth_in * depth + 2 * depth


def _separable(depth_in, depth):
  return 9 * depth_in + 2 * depth_in + _conv(depth_in, depth)


def _resnet_v1_beta_parameters(units_per_block):
  total, depth_in = _conv(3, 64, 3) + _conv(64, 64, 3) + _conv(64, 128, 3), 128
  for units, depth in zip(units_per_block, (64, 128, 256, 512)):
    total += _conv(depth_in, 4 * depth)  # shortcut of the first unit
    for _ in range(units):
      total += _conv(depth_in, depth) + _conv(depth, depth, 3) + _conv(depth, 4 * depth)
      depth_in = 4 * depth
  return total


def _xception_parameters(entry, middle_units):
  total, depth_in = _conv(3, 32, 3) + _conv(32, 64, 3), 64
  blocks = [((depth,) * 3, True) for depth in entry] + [((728,) * 3, False)] * middle_units
  for depths, shortcut in (*blocks, ((728, 1024, 1024), True), ((1536, 1536, 2048), False)):
    total += _conv(depth_in, depths[-1]) if shortcut else 0
    for depth in depths:
      total += _separable(depth_in, depth)
      depth_in = depth
  return total


def _mobilenet_v2_parameters(multiplier):
  table = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
  depth_in = int(32 * multiplier)
  total = _conv(3, depth_in, 3)
  for expansion, channels, units in table:  # arXiv 1801.04381, Table 2
    for _ in range(units):
      wide, depth = expansion * depth_in, int(channels * multiplier)
      total += (_conv(depth_in, wide) if expansion > 1 else 0) + 11 * wide + _conv(wide, depth)
      depth_in = depth
  return total


def _resnet_v2_parameters(units_per_block):
  """Sums weights, biases, gammas and betas of the bottleneck table of arXiv 1512.03385, Table 1."""
  total = 7 * 7 * 3 * 64 + 64
  depth_in = 64
  for units, depth in zip(units_per_block, (64, 128, 256, 512)):
    for unit in range(units):
      total += 2 * depth_in                                  # preact
      total += depth_in * depth + 2 * depth                  # conv1
      total += 9 * depth * depth + 2 * depth                 # conv2
      total += depth * 4 * depth + 4 * depth                 # conv3, with bias
      if unit == 0:
        total += depth_in * 4 * depth + 4 * depth            # shortcut, with bias
      depth_in = 4 * depth
  return total + 2 * depth_in                                # postnorm


# name -> scope of the unit that makes `middle`, the last before the last stage, and its channels.
_MIDDLE = {'resnet_v2_50': ('block3/unit_6/', 1024), 'resnet_v2_101': ('block3/unit_23/', 1024),
           'resnet_v1_50_beta': ('block3/unit_6/', 1024), 'resnet_v1_101_beta': ('block3/unit_23/', 1024),
           'xception_41': ('middle_flow/block1/unit_8/', 728),
           'xception_65': ('middle_flow/block1/unit_16/', 728),
           'xception_71': ('middle_flow/block1/unit_16/', 728),
           'mobilenet_v2': ('expanded_conv_12/', 96), 'mobilenet_v2_dm05': ('expanded_conv_12/', 48)}
# One of each family with its strides, which its other members share but for their number of units.
_FAMILIES = ('resnet_v2_50', 'resnet_v1_50_beta', 'xception_41', 'xception_71', 'mobilenet_v2_dm05')


class BackbonesTest(unittest.TestCase):

  def test_every_row_of_the_table_has_expectations(self):
    self.assertEqual(set(backbones.names()), set(EXPECTED))

  def _build(self, name, images, output_stride):
    row = backbones.get(name)
    norm = layers.BatchNorm(False, row.batch_norm_decay, row.batch_norm_epsilon)
    return builders.build(row, images, output_stride, norm)

  def _check_shapes(self, name, output_stride, size, middle_size):
    """Builds a backbone in the default graph and checks the shapes of what it returns for 45x71."""
    high_channels, low_channels, _ = EXPECTED[name]
    high, low, middle = self._build(name, tf.zeros([2, 45, 71, 3]), output_stride)
    self.assertEqual(high.shape.as_list(), [2, *size, high_channels])
    for stride, size, channels in zip((2, 4, 8), ((23, 36), (12, 18), (6, 9)), low_channels):
      self.assertEqual(low[stride].shape.as_list(), [2, *size, channels])
    scope, channels = _MIDDLE[name]
    self.assertIn(f'/{scope}', middle.op.name)
    self.assertEqual(middle.shape.as_list(), [2, *middle_size, channels])

  def test_shapes_at_odd_sizes_are_rounded_up_and_parameters_counted(self):
    for name, (_, _, parameters) in EXPECTED.items():
      with self.subTest(name=name), tf.Graph().as_default() as graph:
        self._check_shapes(name, 32, (2, 3), (2, 3) if 'resnet' in name else (3, 5))
        count = sum(int(np.prod(v.shape.as_list())) for v in tf.trainable_variables())
        self.assertEqual(count, parameters())
        # All strides are there, and none beyond them, which would have become a rate.
        rates = {tuple(op.get_attr('dilations')) for op in graph.get_operations() if 'onv2' in op.type}
        self.assertEqual(rates, {(1, 1, 1, 1)})

  def test_shapes_at_smaller_output_strides(self):
    for name in _FAMILIES:
      for output_stride, size in ((8, (6, 9)), (16, (3, 5))):
        with self.subTest(name=name, output_stride=output_stride), tf.Graph().as_default():
          self._check_shapes(name, output_stride, size, size)

  def test_unknown_backbone_names_the_known_ones(self):
    with self.assertRaisesRegex(UsageError, 'vgg_16 is not known; use one of resnet_v2_50'):
      backbones.get('vgg_16')


if __name__ == '__main__':
  unittest.main()
