"""nets/xception.py: a module of three separable convolutions by hand."""
import unittest

import numpy as np

from nets import xception
from tests.support import run_unit

ONE = [[[[-3], [2], [5]]]]
MIDDLE = np.reshape([0, 0, 0, 0, 1, 0, 0, 0, 0], (3, 3, 1, 1))


def module(shortcut, channels=(1, 1, 1), stride=1, rate=1, grid=(1, 1, 1)):
  return lambda inputs, norm: xception._module(
      inputs, 'block', channels, (stride, rate), norm, shortcut, grid)


class ModuleTest(unittest.TestCase):

  def test_shortcut_is_the_input_its_convolution_or_none(self):
    beta = {'separable_conv3_pointwise__BatchNorm__beta': -1}
    outputs, _ = run_unit(module('sum'), ONE, **beta)
    np.testing.assert_array_equal(outputs, [[[[-4], [1], [4]]]])
    outputs, second = run_unit(module('conv', (1, 1, 2), stride=2), ONE, shortcut__weights=[1, -2], **beta)
    np.testing.assert_allclose(outputs, [[[[-4, 5], [4, -11]]]], rtol=1e-4)
    self.assertEqual(second.shape, (1, 1, 3, 1))  # the third has the stride
    outputs, _ = run_unit(module(None), ONE, **beta)
    np.testing.assert_array_equal(outputs, np.zeros((1, 1, 3, 1)))  # an activation is last

  def test_activations_come_before_the_convolutions_and_the_second_is_offered(self):
    signs = {'depthwise_weights': MIDDLE, 'separable_conv1_pointwise__weights': -1,
             'separable_conv2_pointwise__weights': [2, 3], 'separable_conv2_pointwise__BatchNorm__beta': -4,
             'separable_conv1_pointwise__BatchNorm__beta': 3}
    _, second = run_unit(module('conv', (1, 2, 1)), ONE, **signs)
    # Of 0, 2 and 5 the first makes 3, 1 and -2; of 3, 1 and 0 the second twice and three times, less 4.
    np.testing.assert_allclose(second, [[[[2, 5], [-2, -1], [-4, -4]]]], rtol=1e-4)
    _, second = run_unit(module(None, (1, 2, 1)), ONE, **signs)
    # Without a shortcut the input is as it is, and each part ends with an activation; so -3 is 0 once more.
    np.testing.assert_allclose(second, [[[[2, 5], [0, 0], [0, 0]]]], rtol=1e-4)

  def test_rates_of_the_convolutions_are_multiplied_by_the_grid(self):
    left = np.reshape([0, 0, 0, 1, 0, 0, 0, 0, 0], (3, 3, 1, 1))  # moves all to the right by the rate
    inputs = np.zeros((1, 1, 16, 1))
    inputs[0, 0, 0] = 1
    outputs, second = run_unit(module(None, rate=2, grid=(1, 2, 4)), inputs, depthwise_weights=left,
                               pointwise__weights=1)
    self.assertEqual([int(np.argmax(features)) for features in (second, outputs)], [2 + 4, 2 + 4 + 8])


if __name__ == '__main__':
  unittest.main()
