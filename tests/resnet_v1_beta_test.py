"""nets/resnet_v1_beta.py: a residual unit by hand."""
import unittest

import numpy as np

from nets import resnet_v1_beta
from tests.support import run_unit

ONE = [[[[-3], [2], [5]]]]
FOUR = [[[[-1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 1, 2]]]]


def unit(stride):
  return lambda inputs, norm: resnet_v1_beta._bottleneck(inputs, 1, stride, 1, norm)


class BottleneckTest(unittest.TestCase):

  def test_sum_is_activated_and_the_residual_offered_is_not(self):
    outputs, residual = run_unit(unit(1), FOUR, conv3__BatchNorm__beta=-3)
    np.testing.assert_array_equal(residual, np.full((1, 1, 3, 4), -3))
    np.testing.assert_array_equal(outputs, [[[[0, 0, 0, 1], [2, 3, 4, 5], [6, 0, 0, 0]]]])

  def test_shortcut_of_equal_depth_is_the_input_at_the_stride(self):
    outputs, residual = run_unit(unit(2), FOUR, conv3__BatchNorm__beta=1)
    np.testing.assert_array_equal(residual, np.ones((1, 1, 2, 4)))
    np.testing.assert_array_equal(outputs, [[[[0, 3, 4, 5], [10, 1, 2, 3]]]])

  def test_other_shortcut_is_of_the_input_itself(self):
    outputs, _ = run_unit(unit(1), ONE, shortcut__weights=[-1, 0, 1, 2], conv3__BatchNorm__beta=1)
    # No activation but that of the sum: of -3 + 1 and -6 + 1 it makes 0.
    np.testing.assert_allclose(outputs, [[[[4, 1, 0, 0], [0, 1, 3, 5], [0, 1, 6, 11]]]], rtol=1e-4)

  def test_residual_is_of_three_convolutions(self):
    middle = np.reshape([0, 0, 0, -1, 1, 0, 0, 0, 0], (3, 3, 1, 1))  # the pixel less that to the left
    _, residual = run_unit(unit(1), ONE, conv1__weights=2, conv1__BatchNorm__beta=-3, conv2__weights=middle,
                           conv2__BatchNorm__beta=-2, conv3__weights=[1, 0, 0, -1])
    # 2 * (-3, 2, 5) - 3 is 0, 1, 7 above 0; less the left one and 2 that is 0, 0, 4.
    np.testing.assert_allclose(residual, [[[[0] * 4, [0] * 4, [4, 0, 0, -4]]]], rtol=1e-4)


if __name__ == '__main__':
  unittest.main()
