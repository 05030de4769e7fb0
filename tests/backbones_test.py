"""Every backbone of the table: shapes at all strides, parameter count, and strides against atrous rates."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from nets import backbones
from tests.golden import formula
from utils.errors import UsageError

pytestmark = pytest.mark.compat

# name -> (channels of high, channels of low, units per block).
EXPECTED = {
    'resnet_v2_50': (2048, 64, (3, 4, 6, 3)),
    'resnet_v2_101': (2048, 64, (3, 4, 23, 3)),
}


def _resnet_parameters(units_per_block):
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


class BackbonesTest(unittest.TestCase):

  def test_every_row_of_the_table_has_expectations(self):
    self.assertEqual(set(backbones.names()), set(EXPECTED))

  def test_shapes_at_odd_sizes_are_rounded_up(self):
    for name, (high_channels, low_channels, _) in EXPECTED.items():
      for output_stride, size in ((8, (6, 9)), (16, (3, 5)), (32, (2, 3))):
        with self.subTest(name=name, output_stride=output_stride), tf.Graph().as_default():
          high, low = backbones.build(name, tf.zeros([2, 45, 71, 3]), output_stride, False)
          self.assertEqual(high.shape.as_list(), [2, *size, high_channels])
          self.assertEqual(low.shape.as_list(), [2, 12, 18, low_channels])

  def test_parameter_counts(self):
    for name, (_, _, units) in EXPECTED.items():
      with self.subTest(name=name), tf.Graph().as_default():
        backbones.build(name, tf.zeros([1, 33, 33, 3]), 16, False)
        count = sum(int(np.prod(v.shape.as_list())) for v in tf.trainable_variables())
        self.assertEqual(count, _resnet_parameters(units))

  def test_dense_features_subsampled_equal_strided_ones(self):
    images = formula.photo(65, 97, 5)[None]
    features = {}
    for output_stride in (8, 16, 32):
      with tf.Graph().as_default(), tf.Session() as session:
        high, _ = backbones.build('resnet_v2_50', tf.constant(images), output_stride, False)
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
          variable.load(formula.fill(variable.op.name, variable.shape.as_list()), session)
        features[output_stride] = session.run(high)
    for coarse, step in ((16, 2), (32, 4)):
      np.testing.assert_allclose(features[8][:, ::step, ::step], features[coarse], rtol=1e-3, atol=1e-2)

  def test_unknown_backbone_names_the_known_ones(self):
    with self.assertRaisesRegex(UsageError, 'vgg_16 is not known; use one of resnet_v2_50'):
      backbones.get('vgg_16')

  def test_output_stride_12_names_the_allowed_ones(self):
    with tf.Graph().as_default(), self.assertRaisesRegex(UsageError, '12 is not supported.*8, 16, 32'):
      backbones.build('resnet_v2_50', tf.zeros([1, 33, 33, 3]), 12, False)


if __name__ == '__main__':
  unittest.main()
