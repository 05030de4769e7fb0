"""Multiply-adds of every backbone: against published counts, and against counts by hand."""
import functools
import unittest

import pytest
import tensorflow.compat.v1 as tf

import deeplab_model
from benchmarks import complexity
from nets.architecture import Architecture

pytestmark = pytest.mark.laboratory


@functools.cache
def built(backbone, **options):
  """Returns the multiply-adds of a model of 21 classes for one image of 513x513."""
  with tf.Graph().as_default() as graph:
    deeplab_model.network(tf.zeros([1, 513, 513, 3]), Architecture(backbone, 21, **options), False)
    return complexity.multiply_adds(graph)


def conv(size, depth_in, depth, kernel=1):
  """A convolution with an output of size x size."""
  return size**2 * kernel**2 * depth_in * depth


def separable(size, depth_in, depth):
  return size**2 * 9 * depth_in + conv(size, depth_in, depth)


def space_to_batch_padding(size, rate, depth_in, depth):
  """What a 3x3 atrous convolution computes beyond its output when it goes through space-to-batch."""
  padded = -(-size // rate) * rate
  return (padded**2 - size**2) * 9 * depth_in * depth


def full_head(depth_in, low_depth, size=33, low_size=129):
  """ASPP and decoder of ordinary convolutions; the image-level features are one pixel."""
  aspp = (conv(size, depth_in, 256) + 3 * conv(size, depth_in, 256, 3) + conv(1, depth_in, 256)
          + conv(size, 5 * 256, 256))
  return aspp + (conv(low_size, low_depth, 48) + conv(low_size, 304, 256, 3) + conv(low_size, 256, 256, 3)
                 + conv(low_size, 256, 21))


def resnet_v2(units_per_block):
  """At output stride 16: the last units of blocks 1 and 2 halve the size in their 3x3 convolution."""
  total, size, depth_in = conv(257, 3, 64, 7), 129, 64
  for units, depth, out in zip(units_per_block, (64, 128, 256, 512), (65, 33, 33, 33)):
    total += conv(size, depth_in, 4 * depth)  # shortcut
    for unit in range(units):
      after = out if unit == units - 1 else size
      total += conv(size, depth_in, depth) + conv(after, depth, depth, 3) + conv(after, depth, 4 * depth)
      depth_in = 4 * depth
    size = out
  return total


class MultiplyAddsTest(unittest.TestCase):

  def test_every_kind_of_operation_counts_its_kernel_once_per_output(self):
    with tf.Graph().as_default() as graph:
      images = tf.zeros([2, 7, 9, 3])
      tf.nn.conv2d(images, tf.zeros([3, 3, 3, 5]), 2, 'SAME')                        # to [2, 4, 5, 5]
      tf.nn.conv2d(images, tf.zeros([3, 3, 3, 4]), 1, 'SAME', dilations=2)           # to [2, 7, 9, 4]
      tf.nn.atrous_conv2d(images, tf.zeros([3, 3, 3, 4]), 2, 'SAME')                 # the same
      tf.nn.depthwise_conv2d(images, tf.zeros([3, 3, 3, 1]), [1] * 4, 'SAME', dilations=[4, 4])
      tf.matmul(tf.zeros([6, 2]), tf.zeros([6, 5]), transpose_a=True)
      self.assertEqual(complexity.multiply_adds(graph),
                       27 * 200 + 27 * 504 + 27 * 504 + 9 * 378 + 6 * 10)

  def assert_close(self, actual, expected):
    self.assertLess(abs(actual / expected - 1), 0.005, f'{actual:.5g} for {expected:.5g}')

  def test_xception_agrees_with_the_published_models(self):
    for output_stride, expected in ((16, 54.05e9), (8, 176.96e9)):
      with self.subTest(output_stride=output_stride):
        self.assert_close(built('xception_65', output_stride=output_stride), expected)

  def test_other_xceptions_differ_by_their_units(self):
    of_65 = built('xception_65', output_stride=16)
    unit = 3 * separable(33, 728, 728)
    self.assertEqual(of_65 - built('xception_41'), 8 * unit)
    # Blocks 2 and 4 of the entry flow come in, and block 3 has 256 channels where 65's block 2 had 128.
    block2 = separable(129, 128, 256) + 2 * separable(129, 256, 256) + conv(129, 128, 256)
    block4 = separable(65, 256, 728) + 2 * separable(65, 728, 728) + conv(65, 256, 728)
    wider = (separable(129, 256, 256) - separable(129, 128, 256) + conv(65, 256, 256) - conv(65, 128, 256)
             + separable(65, 728, 728) - separable(65, 256, 728) + conv(33, 728, 728) - conv(33, 256, 728))
    self.assertEqual(built('xception_71') - of_65, block2 + block4 + wider)

  def test_mobilenet_v2_agrees_with_the_published_model(self):
    self.assert_close(built('mobilenet_v2'), 2.74e9)

  def test_narrow_mobilenet_v2_equals_a_count_by_hand(self):
    total, size, depth_in = conv(257, 3, 16, 3), 257, 16
    rows = ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 1),
            (6, 160, 1, 1))  # expansion, channels, units, stride of the first at output stride 16
    for expansion, depth, units, stride in rows:
      for unit in range(units):
        wide = expansion * depth_in
        total += conv(size, depth_in, wide) if expansion > 1 else 0
        size = (size + 1) // 2 if stride == 2 and unit == 0 else size
        total += size**2 * 9 * wide + conv(size, wide, depth)
        depth_in = depth
    total += conv(33, 160, 256) + conv(1, 160, 256) + conv(33, 512, 256) + conv(33, 256, 21)
    self.assertEqual(built('mobilenet_v2_dm05'), total)

  def test_resnet_v1_beta_agrees_with_the_published_models(self):
    # Published are counts through space-to-batch, padding included; built here are native convolutions.
    padding = (sum(space_to_batch_padding(33, rate, 2048, 256) for rate in (6, 12, 18))
               + 3 * space_to_batch_padding(33, 2, 512, 512))
    for decoder, expected in ((True, 101.22e9), (False, 79.46e9)):
      with self.subTest(decoder=decoder):
        actual = built('resnet_v1_101_beta', separable_head=False, decoder=decoder)
        self.assert_close(actual + padding, expected)
        if decoder:
          unit = conv(33, 1024, 256) + conv(33, 256, 256, 3) + conv(33, 256, 1024)
          self.assertEqual(actual - built('resnet_v1_50_beta', separable_head=False), 17 * unit)

  def test_resnet_v2_equals_a_count_by_hand(self):
    for name, units in (('resnet_v2_50', (3, 4, 6, 3)), ('resnet_v2_101', (3, 4, 23, 3))):
      with self.subTest(name=name):
        self.assertEqual(built(name), resnet_v2(units) + full_head(2048, 64))


if __name__ == '__main__':
  unittest.main()
