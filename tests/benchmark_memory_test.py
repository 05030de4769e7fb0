"""The memory of a training step as told from its graph: against sums by hand and against steps that ran."""
import contextlib
import io
import json
import os
import tempfile
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from benchmarks import graph_analysis, memory
from dataset import descriptors
from deeplab_model import deeplabv3_plus_model_fn
from tests import tiny_net
from tools import benchmark
from training import run_config
from training.tf_estimator import ModeKeys
from utils.errors import UsageError

pytestmark = pytest.mark.laboratory
_CROP = ('--crop_size', '97', '65')
_TINY = ('--base_architecture', tiny_net.LEAN, *_CROP)
_REAL = ('--base_architecture', 'mobilenet_v2_dm05', *_CROP)  # what it saves depends on the network
_VOC = descriptors.get_dataset('voc')


def flags(*argv):
  return vars(benchmark.make_parser().parse(['memory', *map(str, argv)]))


def traced_peak(params, images):
  """Returns the most bytes that TensorFlow's allocator had given out at one time of a step on the CPU."""
  def noise(limit, channels):
    shape = (images, *params['crop_size'], channels)
    return np.random.RandomState(3).randint(0, limit, shape).astype(np.uint8)

  params = {**params, 'num_classes': _VOC.num_classes, 'class_names': _VOC.class_names,
            'palette': _VOC.palette, 'batch_size': images, 'data_format': 'channels_last'}
  with graph_analysis.as_on_gpu(), tf.Graph().as_default():
    tf.train.get_or_create_global_step()
    batch = [tf.placeholder(tf.uint8, [images, *params['crop_size'], channels]) for channels in (3, 1)]
    spec = deeplabv3_plus_model_fn(*batch, ModeKeys.TRAIN, params)
    with tf.Session(config=run_config.run_config().session_config) as session:
      session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
      record = tf.RunMetadata()
      session.run([spec.train_op, spec.loss], dict(zip(batch, (noise(256, 3), noise(21, 1)), strict=True)),
                  options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), run_metadata=record)
  changes = sorted((change.alloc_micros, change.alloc_bytes) for device in record.step_stats.dev_stats
                   for node in device.node_stats for memory in node.memory
                   for change in memory.allocation_records)
  return int(np.cumsum([bytes_ for _, bytes_ in changes]).max())


class StepTest(unittest.TestCase):

  def test_two_layers_keep_what_is_computed_by_hand(self):
    prime, height, width = 211, 13, 7
    with tf.Graph().as_default():
      images = tf.placeholder(tf.float32, [prime, height, width, 3])
      first, second = (tf.get_variable(name, shape) for name, shape in (('first', [3, 3, 3, 5]),
                                                                        ('second', [1, 1, 5, 2])))
      net = tf.nn.relu(tf.nn.conv2d(images, first, 1, 'SAME'))     # kept: for itself, and for the weights
      net = tf.nn.conv2d(tf.identity(net), second, 1, 'SAME')      # a view; the product is for the square
      loss = tf.reduce_sum(tf.square(net))
      gradients = tf.gradients(loss, [first, second])
      step = memory.step_of([*gradients, loss], loss, prime)
    pixels = height * width
    self.assertEqual(sorted(buffer.per_image for buffer in step.kept),
                     [pixels * 2 * 4, pixels * 3 * 4, pixels * 5 * 4])
    self.assertEqual(sum(buffer.fixed for buffer in step.kept), 0)
    self.assertEqual(step.unknown, [])
    # The peak is in the first layer's backward pass: images, activations, their gradient, into which ReLU's
    # goes; and the gradient of the second weights. 4 and 4 bytes are the loss and its gradient.
    most, _, _ = memory.peak(step, 17)
    self.assertLess(abs(most - 17 * pixels * (3 + 5 + 5 + 2) * 4), 1000)

  def test_a_buffer_dies_with_its_last_reader(self):
    with tf.Graph().as_default():
      net = tf.placeholder(tf.float32, [211, 10])
      for width in (30, 20, 7):
        net = tf.tile(net[:, :1], [1, width])
      loss = tf.reduce_sum(net)
      step = memory.step_of([loss], loss, 211)
    self.assertEqual(step.kept, set())
    most, op, _ = memory.peak(step, 3)
    self.assertEqual(op.type, 'Tile')  # the widest: [3, 30] out of [3, 1]; the placeholder is gone by then
    self.assertEqual(most, 3 * (30 + 1) * 4)

  def test_largest_batch_is_the_last_that_fits(self):
    with tf.Graph().as_default():
      net = tf.tile(tf.placeholder(tf.float32, [211, 10]), [1, 5])
      step = memory.step_of([net], net, 211)
    per_image = (10 + 50) * 4
    self.assertEqual(memory.total(step, 7), 7 * per_image)
    self.assertEqual(memory.largest_batch(step, 7 * per_image), 7)
    self.assertEqual(memory.largest_batch(step, 7 * per_image - 1), 6)
    self.assertEqual(memory.largest_batch(step, per_image - 1), 0)

  def test_a_card_keeps_a_tenth_and_at_least_a_gibibyte_free(self):
    self.assertEqual(memory.usable(8), 7 * 2**30)
    self.assertEqual(memory.usable(40), 36 * 2**30)


class TrainingTest(unittest.TestCase):

  def setUp(self):
    stack = contextlib.ExitStack()
    self.addCleanup(stack.close)
    stack.enter_context(tiny_net.rows())

  def test_memory_is_linear_in_the_batch(self):
    _, step = memory.training_step(flags(*_TINY), _VOC)
    self.assertEqual(step.unknown, [])
    five, ten, fifteen = (memory.total(step, images) for images in (50, 100, 150))
    self.assertLess(abs((fifteen - ten) / (ten - five) - 1), 0.02)

  def test_recompute_and_half_precision_keep_less(self):
    kept = {}
    for argv in ((), ('--recompute',), ('--precision', 'bf16')):
      results = memory.measure(flags(*_REAL, *argv), _VOC)
      kept[argv] = results['kept_bytes_per_image']
      self.assertEqual(results['data_format'], 'channels_last' if 'bf16' in argv else 'channels_first')
    self.assertLess(kept['--recompute',], 0.6 * kept[()])
    self.assertLess(kept['--precision', 'bf16'], 0.65 * kept[()])  # logits and loss stay in float32

  def test_it_agrees_with_steps_that_ran(self):
    # When parts are computed again hangs on the executor, which may need less than the order assumed.
    for argv, least, most in (((), 0.88, 1.12), (('--recompute',), 0.88, 1.4)):
      params = flags(*_REAL, '--data_format', 'channels_last', *argv)
      _, step = memory.training_step(params, _VOC, device='CPU')
      few, many = 5, 19
      predicted = memory.peak(step, many)[0] - memory.peak(step, few)[0]
      measured = traced_peak(params, many) - traced_peak(params, few)
      with self.subTest(argv=argv):
        self.assertGreater(predicted / measured, least)
        self.assertLess(predicted / measured, most)

  def test_report_and_json_have_the_table(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'memory.json')
      output = io.StringIO()
      with contextlib.redirect_stdout(output):
        benchmark.main(benchmark.make_parser().parse(['memory', *_TINY, '--json', path]))
      with open(path) as file:
        results = json.load(file)['memory']
    self.assertIn('memory: lean_net, height 97, width 65, batch 2, fp32, channels_first',
                  output.getvalue())
    self.assertIn(f'8 GB: {results["largest_batch"]["8"]}, 11 GB: ', output.getvalue())
    self.assertEqual(sum(results['kept'].values()), results['kept_bytes'])

  def test_what_is_not_ours_is_not_compared(self):
    with self.assertRaisesRegex(UsageError, '--reference would change nothing in memory'):
      benchmark.main(benchmark.make_parser().parse(['memory', '--reference']))


if __name__ == '__main__':
  unittest.main()
