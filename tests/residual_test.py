"""The order, depths, strides and rates in which the blocks of residual units are built, against Table 1."""
import unittest

import tensorflow.compat.v1 as tf

from nets import layers, residual


def built(blocks, output_stride, multi_grid=(1, 1, 1)):
  """Returns (scope, depth, stride, rate) of each unit, and what `stack` returns; a net is a count here."""
  units = []

  def unit(net, depth, stride, rate):
    units.append((tf.get_variable_scope().name, depth, stride, rate))
    return net + 1, -net

  strides = layers.AtrousStrides(output_stride)
  with tf.Graph().as_default():
    return units, residual.stack(0, blocks, strides, multi_grid, 'bottleneck', unit)


class StackTest(unittest.TestCase):

  def test_a_blocks_stride_is_its_last_units(self):
    units, _ = built(((64, 2, 2), (128, 1, 2), (256, 3, 1)), 32)
    self.assertEqual(units, [
        ('block1/unit_1/bottleneck', 64, 1, 1), ('block1/unit_2/bottleneck', 64, 2, 1),
        ('block2/unit_1/bottleneck', 128, 2, 1),
        *((f'block3/unit_{number}/bottleneck', 256, 1, 1) for number in (1, 2, 3))])

  def test_units_work_on_one_another_and_offer_features_by_block(self):
    _, (net, middle, offered) = built(((64, 2, 2), (128, 1, 2), (256, 3, 1)), 32)
    self.assertEqual((net, middle), (6, 3))
    self.assertEqual(offered, [[0, -1], [-2], [-3, -4, -5]])

  def test_strides_beyond_become_rates_and_the_grid_multiplies_those_of_the_last_block(self):
    units, _ = built(((64, 2, 2), (128, 2, 2), (256, 3, 1)), 2, (1, 2, 4))
    self.assertEqual([unit[2:] for unit in units], [(1, 1), (2, 1), (1, 1), (1, 1), (1, 2), (1, 4), (1, 8)])

  def test_depths_and_numbers_of_units(self):
    for layers_, total in ((50, 3 + 4 + 6 + 3), (101, 3 + 4 + 23 + 3)):  # arXiv 1512.03385, Table 1
      units, _ = built(residual.BLOCKS[layers_], 32)
      self.assertEqual(len(units), total)
      self.assertEqual([unit[1] for unit in units if '/unit_1/' in unit[0]], [64, 128, 256, 512])
      self.assertEqual([unit[0].split('/')[0] for unit in units if unit[2] == 2],
                       ['block1', 'block2', 'block3'])


if __name__ == '__main__':
  unittest.main()
