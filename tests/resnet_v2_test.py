"""nets/resnet_v2.py: a residual unit by hand, and strides against atrous rates."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from nets import backbones, layers, resnet_v2
from tests.golden import formula
from tests.support import load_formula, run_unit

# A row of three pixels of one channel, and of four.
ONE = [[[[-3], [2], [5]]]]
FOUR = [[[[-1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 1, 2]]]]


def unit(depth, stride):
  return lambda inputs, norm: resnet_v2._bottleneck(inputs, depth, stride, 1, norm)


class BottleneckTest(unittest.TestCase):

  def test_shortcut_of_equal_depth_is_the_input_at_the_stride(self):
    outputs, _ = run_unit(unit(1, 1), FOUR)
    np.testing.assert_array_equal(outputs, FOUR)  # nothing follows the sum: -1 stays
    outputs, _ = run_unit(unit(1, 2), FOUR, conv3__biases=[10, 20, 30, 40])
    np.testing.assert_array_equal(outputs, [[[[9, 22, 33, 44], [19, 20, 31, 42]]]])

  def test_other_shortcut_is_of_the_preactivated_input(self):
    outputs, _ = run_unit(unit(1, 1), ONE, shortcut__weights=[1, 2, 3, 4], shortcut__biases=1)
    np.testing.assert_allclose(outputs, [[[[1, 1, 1, 1], [3, 5, 7, 9], [6, 11, 16, 21]]]], rtol=1e-4)

  def test_residual_is_of_three_convolutions_and_its_reduced_input_keeps_its_size(self):
    middle = np.reshape([0, 0, 0, 1, 1, 0, 0, 0, 0], (3, 3, 1, 1))  # the pixel to the left, and this one
    inputs = np.pad(ONE, [(0, 0), (0, 0), (0, 0), (0, 3)])
    outputs, reduced = run_unit(unit(1, 2), inputs, conv1__weights=-2, conv1__BatchNorm__beta=9,
                                conv2__weights=middle, conv3__weights=[1, 0, 0, -1])
    np.testing.assert_allclose(reduced, [[[[9], [5], [0]]]], rtol=1e-4)  # 9 - 2 * (0, 2, 5), not below 0
    np.testing.assert_allclose(outputs, [[[[-3 + 9, 0, 0, -9], [5 + 5, 0, 0, -5]]]], rtol=1e-4)


@pytest.mark.slow
class BackboneTest(unittest.TestCase):

  def test_dense_features_subsampled_equal_strided_ones(self):
    images = formula.photo(65, 97, 5)[None]
    row, norm, features = backbones.get('resnet_v2_50'), layers.BatchNorm(False, 0.9997), {}
    for output_stride in (8, 16, 32):
      with tf.Graph().as_default(), tf.Session() as session:
        high, *_ = resnet_v2.build(row, tf.constant(images, tf.float32), output_stride, norm, (1, 1, 1))
        load_formula(session)
        features[output_stride] = session.run(high)
    for coarse, step in ((16, 2), (32, 4)):
      np.testing.assert_allclose(features[8][:, ::step, ::step], features[coarse], rtol=1e-3, atol=1e-2)


if __name__ == '__main__':
  unittest.main()
