"""The benchmark: what it measures, and that its reference is the same network."""
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from nets import layers
from tests.golden import formula
from tools import benchmark
from utils import datasets, inputs, tf_record
from utils.errors import UsageError

pytestmark = pytest.mark.compat
_SCRIPT = os.path.abspath(benchmark.__file__)
_SMALL = ('--base_architecture', 'resnet_v2_50', '--crop_size', '33', '49', '--image_size', '41',
          '35', '--steps', '1', '--warmup', '1', '--repeats', '2')


def parse(*argv):
  return benchmark.make_parser().parse([str(arg) for arg in argv])


def run(*argv):
  """Runs main in this process; returns what it printed."""
  output = io.StringIO()
  with contextlib.redirect_stdout(output):
    benchmark.main(parse(*argv))
  return output.getvalue()


def write_record(folder):
  """Writes a train.record of three images of 53x67 (height x width); returns its path."""
  path = os.path.join(folder, 'train.record')
  image, label = (os.path.join(folder, name) for name in ('a.jpg', 'a.png'))
  with tf.io.TFRecordWriter(path) as writer:
    for seed in range(3):
      rng = np.random.RandomState(seed)
      Image.fromarray(rng.randint(0, 256, (53, 67, 3)).astype(np.uint8)).save(image)
      Image.fromarray(rng.randint(0, 21, (53, 67)).astype(np.uint8)).save(label)
      writer.write(tf_record.encode_example(image, label, datasets.get_dataset('voc')))
  return path


class MeasureTest(unittest.TestCase):

  def setUp(self):
    scratch = tempfile.TemporaryDirectory()
    self.addCleanup(scratch.cleanup)
    self.folder = scratch.name
    self.json = os.path.join(self.folder, 'speed.json')
    write_record(self.folder)

  def _measured(self, mode, *argv):
    """Runs a mode, checks what all modes have in common and returns its results."""
    output = run(mode, *_SMALL, '--json', self.json, *argv)
    with open(self.json) as file:
      results = json.load(file)
    self.assertEqual(list(results), ['flags', mode])
    self.assertEqual(results['flags']['crop_size'], [33, 49])
    for variant in set(results[mode]) - {'ratio'}:
      measured = results[mode][variant]
      self.assertIn(f'  {variant}: {benchmark.shown(measured["images_per_s"])} images/s', output)
      self.assertEqual(measured['tensorflow'], tf.__version__)
      for name in ('images_per_s', 's_per_step', 'cpu_s_per_step', 'peak_host_mib'):
        values = measured[name]
        self.assertLess(0, values['min'], name)
        self.assertLessEqual(values['min'], values['median'], name)
        self.assertLessEqual(values['median'], values['max'], name)
      self.assertAlmostEqual(measured['images_per_s']['max'] * measured['s_per_step']['min'],
                             measured['images_per_step'], 6)
      self.assertGreater(measured['peak_host_mib']['min'], 100)  # TensorFlow alone takes as much
    return results[mode]

  def test_train_measures_steps_on_records(self):
    results = self._measured('train', '--data_dir', self.folder, '--batch_size', 3)
    self.assertEqual(list(results), ['ours'])
    self.assertEqual(results['ours']['images_per_step'], 3)
    self.assertLess(results['ours']['input_wait_share']['median'], 0.9)

  def test_infer_measures_single_images(self):
    results = self._measured('infer')
    self.assertEqual(list(results), ['ours'])
    self.assertEqual(results['ours']['images_per_step'], 1)

  def test_input_waits_all_the_time_and_reference_adds_the_ratio(self):
    results = self._measured('input', '--data_dir', self.folder, '--reference')
    self.assertEqual(list(results), ['ours', 'reference', 'ratio'])
    self.assertGreater(results['ours']['input_wait_share']['min'], 0.5)
    ours, theirs = (results[name]['s_per_step'] for name in ('ours', 'reference'))
    self.assertLessEqual(results['ratio']['max'], 1.001 * theirs['max'] / ours['min'])
    self.assertGreaterEqual(results['ratio']['min'], 0.999 * theirs['min'] / ours['max'])

  def test_blocks_of_the_variants_alternate(self):
    calls = []

    class Process:  # in place of a ProcessPoolExecutor

      def __init__(self, **_):
        self.name = None

      def __enter__(self):
        return self

      def __exit__(self, *_):
        pass

      def submit(self, function, *args):
        if function is benchmark.prepare:
          self.name = args[1]
          return mock.Mock(result=lambda: {'images_per_step': 2})
        calls.append((self.name, *args))
        seconds = {'ours': 0.5, 'reference': 0.75}[self.name]
        return mock.Mock(result=lambda: {'s_per_step': seconds})

    with mock.patch.object(benchmark.concurrent.futures, 'ProcessPoolExecutor', Process):
      results = benchmark.measure(
          'input', parse('input', '--reference', '--steps', 3, '--repeats', 2), None)
    self.assertEqual(calls, 2 * [('ours', 200), ('ours', 300), ('reference', 200),
                                 ('reference', 300)])
    self.assertEqual(results['ratio'], {'median': 1.5, 'min': 1.5, 'max': 1.5})

  def test_input_without_records_is_an_error_and_all_leaves_it_out(self):
    with self.assertRaisesRegex(UsageError, 'give --data_dir'):
      run('input', *_SMALL)
    with mock.patch.object(benchmark, 'measure') as measure, \
        mock.patch.object(benchmark, 'report', return_value=''):
      self.assertIn('input is left out', run('all', *_SMALL))
    self.assertEqual([call.args[0] for call in measure.call_args_list], ['train', 'infer'])

  def test_script_runs_from_any_folder_and_helps_at_once(self):
    start = time.time()
    done = subprocess.run([sys.executable, _SCRIPT, '--help'], cwd=self.folder, check=True,
                          capture_output=True, text=True)
    self.assertLess(time.time() - start, 2)
    self.assertIn('--reference', done.stdout)


class ReferenceTest(unittest.TestCase):

  def _loss_and_operations(self, train_step):
    """Returns the loss of a step from fixed weights, and the types of the graph's operations."""
    rng = np.random.RandomState(5)
    images = rng.randint(0, 256, (2, 33, 49, 3)).astype(np.uint8)
    labels = rng.randint(0, 21, (2, 33, 49, 1)).astype(np.uint8)
    labels[0, :7], labels[1, :, 40:] = 255, 255
    voc = datasets.get_dataset('voc')
    params = {**vars(parse('train', *_SMALL)), 'num_classes': 21, 'class_names': voc.class_names,
              'palette': voc.palette}
    with tf.Graph().as_default() as graph, tf.Session() as session:
      fetches = train_step(tf.constant(images), tf.constant(labels), params)
      session.run(
          [tf.global_variables_initializer(), tf.local_variables_initializer()],
          {variable.initial_value: formula.fill(variable.op.name, variable.shape.as_list())
           for variable in tf.trainable_variables()})
      return session.run(fetches)[1], {op.type for op in graph.get_operations()}

  def test_reference_is_the_same_network_built_another_way(self):
    ours, our_operations = self._loss_and_operations(benchmark.train_step)
    theirs, their_operations = self._loss_and_operations(benchmark.reference_train_step)
    self.assertLess(abs(theirs / ours - 1), 1e-4)
    self.assertLessEqual({'SpaceToBatchND', 'DynamicPartition'}, their_operations)
    self.assertNotIn('DynamicPartition', our_operations)
    self.assertEqual('SpaceToBatchND' not in our_operations, layers.native_dilation())

  def test_reference_records_have_the_crop_size_and_true_labels(self):
    with tempfile.TemporaryDirectory() as folder:
      path = write_record(folder)
      options = inputs.TrainOptions((90, 71), 2, 0, (123., 116., 103.), 3)
      with tf.Graph().as_default(), tf.Session() as session:
        data = benchmark.reference_records([path], None, options)
        images, labels = session.run(tf.data.make_one_shot_iterator(data).get_next())
    self.assertEqual((images.shape, images.dtype), ((2, 90, 71, 3), np.float32))
    self.assertEqual((labels.shape, labels.dtype), ((2, 90, 71, 1), np.int32))
    self.assertLessEqual(set(np.unique(labels)), {*range(21), 255})
    np.testing.assert_array_equal(images[(labels == 255)[..., 0]], 0)  # padding is black


if __name__ == '__main__':
  unittest.main()
