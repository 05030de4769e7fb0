"""What a GPU would make of the graphs: kernels on the device, no copies but the batch, the right layout."""
import os
import subprocess
import sys
import unittest

import pytest
import tensorflow.compat.v1 as tf

from benchmarks import gpu_graph, graph_analysis
from tests import tiny_net

pytestmark = pytest.mark.laboratory
_SCRIPT = os.path.abspath(gpu_graph.__file__)


class PlacementTest(unittest.TestCase):
  """The check itself, on graphs of a few operations."""

  def test_int32_is_computed_by_the_host_and_copied_there_and_back(self):
    with tf.Graph().as_default() as graph:
      pixels = tf.placeholder(tf.uint8, [4, 33, 49, 1])
      valid = tf.cast(tf.not_equal(tf.cast(pixels, tf.int32), 255), tf.float32)
      found = graph_analysis.placement(graph, [valid])
    self.assertEqual(found.on_host, {'NotEqual [bool int32]': 1})
    self.assertEqual(found.on_cpu, {})
    count = 4 * 33 * 49
    self.assertEqual(sorted(found.up.values()), [count, count])  # uint8, and bool after the comparison
    self.assertEqual(list(found.down.values()), [4 * count])
    self.assertEqual(found.kernels, 2)  # both casts

  def test_int64_stays_on_the_device(self):
    with tf.Graph().as_default() as graph:
      pixels = tf.placeholder(tf.uint8, [4, 33, 49, 1])
      valid = tf.cast(tf.not_equal(tf.cast(pixels, tf.int64), 255), tf.float32)
      found = graph_analysis.placement(graph, [valid])
    self.assertEqual((found.on_host, found.down, list(found.up.values())), ({}, {}, [4 * 33 * 49]))
    self.assertEqual(found.kernels, 3)

  def test_operation_without_a_kernel_is_on_the_cpu(self):
    with tf.Graph().as_default() as graph:
      picture = tf.cast(tf.placeholder(tf.float32, [1, 60, 70, 3]), tf.uint8)
      found = graph_analysis.placement(graph, [tf.summary.image('a', picture)])
    self.assertEqual(found.on_cpu, {'ImageSummary [string uint8]': 1})
    self.assertEqual(list(found.down.values()), [60 * 70 * 3])

  def test_branches_of_a_condition_are_looked_into(self):
    with tf.Graph().as_default() as graph:
      values = tf.placeholder(tf.float32, [1, 60, 70, 3])
      large = tf.cast(values, tf.int32)
      result = tf.cond(tf.placeholder(tf.bool, []), lambda: large + 1, lambda: large)
      self.assertIn('StatelessIf', [op.type for op in graph.get_operations()])
      found = graph_analysis.placement(graph, [result])
    self.assertEqual(found.on_host['AddV2 [int32]'], 1)

  def test_unknown_sizes_count_as_large(self):
    with tf.Graph().as_default() as graph:
      pixels = tf.placeholder(tf.uint8, [1, None, None, 1])
      found = graph_analysis.placement(graph, [tf.cast(pixels, tf.float32)])
    self.assertEqual(list(found.up.values()), [None])


class GraphTest(unittest.TestCase):
  """The graphs of this project."""

  def check(self, mode, name, batch_size=2, size=(65, 97), **options):
    """Builds a graph and checks where it is computed; returns the Placements, by what is run."""
    with graph_analysis.as_on_gpu():
      built = graph_analysis.build(mode, name, batch_size=batch_size, size=size, **options)
      found = {run: graph_analysis.placement(built.graph, fetches) for run, fetches in built.fetches.items()}
    kinds = {op.type for op in built.graph.get_operations()}
    self.assertFalse(kinds & {'MatMul', 'BatchMatMulV2'}, 'matrix products in place of convolutions')
    self.assertFalse([op.name for op in built.graph.get_operations()
                      if op.node_def.attr['_gradient_op_type'].s == b'Conv2DByProducts'])
    if mode == 'train':
      self.assertIn('a step that writes summaries', found)
    for placed in found.values():
      self.assertEqual((placed.on_cpu, placed.on_host, placed.down), ({}, {}, {}))
    if mode == 'train':  # the batch, as bytes: images and labels
      for placed in found.values():
        self.assertEqual(sorted(placed.up.values()),
                         [batch_size * size[0] * size[1], 3 * batch_size * size[0] * size[1]])
    return found

  def test_training_steps_are_the_devices_own(self):
    # A step in float32 is the next test's.
    for options in (dict(precision='bf16', recompute=True), dict(precision='fp16', accumulate_steps=2)):
      with self.subTest(**options), tiny_net.rows():
        self.check('train', tiny_net.TINY, **options)

  def test_a_step_takes_few_kernels(self):
    # 3 for each of 57 batch norms with ReLU, 3 for each convolution, 1 for each variable's update, ...
    self.assertLess(self.check('train', 'resnet_v2_50', precision='bf16')['a step'].kernels, 1150)
    self.assertLess(self.check('train', 'mobilenet_v2_dm05')['a step'].kernels, 830)
    # One more for each variable, the loss's scale, and two for each that is no vector: is it finite?
    self.assertLess(self.check('train', 'mobilenet_v2_dm05', precision='fp16')['a step'].kernels, 1220)

  def test_evaluation_prediction_and_export_are_the_devices_own(self):
    # An operation for each convolution, with its bias, and each ReLU; no weight decay, no folding of weights.
    for mode, most in (('evaluate', 210), ('predict', 185), ('export', 185)):
      for precision in ('fp32', 'fp16'):
        if mode == 'export' and precision == 'fp16':
          continue  # it is in float32
        with self.subTest(mode=mode, precision=precision):
          found = self.check(mode, 'mobilenet_v2_dm05', precision=precision)['an image']
          self.assertLess(found.kernels, most)
          self.assertEqual(len(found.up), 2 if mode == 'evaluate' else 1)


class LayoutTest(unittest.TestCase):
  """What grappler leaves of the layouts, by card and precision."""

  def setUp(self):
    # The check of an export, if one was made in this process, has turned it off.
    tf.config.experimental.enable_tensor_float_32_execution(True)

  def layouts(self, mode, name, compute_capability, **options):
    """Returns the data formats of the convolutions, and the number of transpositions, after grappler."""
    with tiny_net.rows(), graph_analysis.as_on_gpu(compute_capability):
      built = graph_analysis.build(mode, name, batch_size=2, size=(65, 97), **options)
      _, after = graph_analysis.layouts(built, compute_capability)
    return {kind.split()[1] for kind in after if 'Conv2D' in kind}, after['Transpose']

  def test_float32_trains_channels_first_on_every_card(self):
    for compute_capability in ('7.0', '8.0'):
      formats, _ = self.layouts('train', tiny_net.TINY, compute_capability)
      self.assertEqual(formats, {'NCHW'})

  def test_float32_predicts_channels_last_from_ampere_on(self):
    self.assertEqual(self.layouts('predict', tiny_net.TINY, '8.0'), ({'NHWC'}, 0))
    formats, count = self.layouts('predict', tiny_net.TINY, '7.5')
    self.assertEqual(formats, {'NCHW'})
    self.assertLess(count, 7)

  def test_half_precision_is_channels_last(self):
    for mode, precision in (('train', 'bf16'), ('train', 'fp16'), ('predict', 'bf16')):
      with self.subTest(mode=mode, precision=precision):
        self.assertEqual(self.layouts(mode, tiny_net.TINY, '8.0', precision=precision), ({'NHWC'}, 0))


class ScriptTest(unittest.TestCase):

  def test_it_prints_both_reports(self):
    run = subprocess.run([sys.executable, _SCRIPT, 'predict', '--base_architecture', 'mobilenet_v2_dm05'],
                         capture_output=True, text=True)
    self.assertEqual(run.returncode, 0, run.stderr)
    self.assertRegex(run.stdout, r'(?s)an image: \d+ operations, \d+ kernels\n  copied GPU to host: 0.0 MiB\n'
                                 r'.*grappler on compute capability 8.0:\n.* -> +\d+  Conv2D NHWC float32\n')


if __name__ == '__main__':
  unittest.main()
