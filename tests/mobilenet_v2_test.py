"""nets/mobilenet_v2.py: an inverted residual by hand."""
import unittest

import numpy as np

from nets import mobilenet_v2
from tests.support import run_unit

ONE = [[[[-3], [2], [5]]]]
MIDDLE = np.reshape([0, 0, 0, 0, 1, 0, 0, 0, 0], (3, 3, 1, 1))


def unit(channels, expansion, stride=1):
  return lambda inputs, norm: mobilenet_v2._inverted_residual(
      inputs, channels, expansion, (stride, 1), norm, 'unit')


class InvertedResidualTest(unittest.TestCase):

  def test_input_is_added_where_it_has_the_same_shape(self):
    outputs, _ = run_unit(unit(1, 2), ONE, project__BatchNorm__beta=-1)
    np.testing.assert_array_equal(outputs, [[[[-4], [1], [4]]]])  # linear: no activation follows
    outputs, _ = run_unit(unit(2, 2), ONE, project__BatchNorm__beta=-1)
    np.testing.assert_array_equal(outputs, np.full((1, 1, 3, 2), -1))
    outputs, _ = run_unit(unit(1, 2, stride=2), ONE, project__BatchNorm__beta=-1)
    np.testing.assert_array_equal(outputs, np.full((1, 1, 2, 1), -1))

  def test_expansion_and_depthwise_convolution_end_at_6(self):
    outputs, depthwise = run_unit(
        unit(2, 3), ONE, expand__weights=[1, 2, -1], depthwise__depthwise_weights=MIDDLE / 2,
        depthwise__BatchNorm__beta=[4, 1, 1], project__weights=[[1, 0], [0, 1], [0, 0]])
    # Expanded: (0, 0, 3), (2, 4, 0) and (5, 6, 0), of 10 the 6. Then 5 / 2 + 4 is 6 as well.
    np.testing.assert_allclose(depthwise, [[[[4, 1, 2.5], [5, 3, 1], [6, 4, 1]]]], rtol=1e-4)
    np.testing.assert_allclose(outputs, [[[[4, 1], [5, 3], [6, 4]]]], rtol=1e-4)

  def test_first_unit_has_no_expansion(self):
    _, depthwise = run_unit(unit(1, 1), ONE, depthwise__depthwise_weights=MIDDLE)
    np.testing.assert_allclose(depthwise, [[[[0], [2], [5]]]], rtol=1e-4)
    with self.assertRaisesRegex(AssertionError, 'no variable ends in expand'):
      run_unit(unit(1, 1), ONE, expand__weights=1)


if __name__ == '__main__':
  unittest.main()
