"""The benchmark: what it measures, and that reference and PyTorch build the same network."""
import contextlib
import importlib.util
import io
import json
import os
import re
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

import deeplab_model
from benchmarks import command, complexity, measure, project, reference
from dataset import descriptors, inputs
from nets.architecture import Architecture
from tests import support, tiny_net
from tests.golden import formula
from tools import benchmark
from utils.errors import DataError, UsageError

pytestmark = [pytest.mark.compat, pytest.mark.laboratory]
_SCRIPT = os.path.abspath(benchmark.__file__)
_SMALL = ('--base_architecture', 'mobilenet_v2_dm05', '--crop_size', '33', '49', '--image_size', '41',
          '35', '--steps', '1', '--warmup', '1', '--repeats', '2')
_RESNET = ('--base_architecture', 'resnet_v2_50', *_SMALL[2:])  # which is all that PyTorch's variant builds


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
      writer.write(support.encode_example(image, label, descriptors.get_dataset('voc')))
  return path


def multiply_adds_of_one_image(height, width):
  """Returns those of a forward pass of the network of _SMALL."""
  with tf.Graph().as_default() as graph:
    deeplab_model.network(tf.zeros([1, height, width, 3]), Architecture(_SMALL[1], 21), False)
    return complexity.multiply_adds(graph)


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
    measured = {name: values for name, values in results[mode].items() if name != 'faster'}
    lines = output.splitlines()
    self.assertTrue(lines[0].startswith(f'{mode}: {_SMALL[1]}, '), output)
    self.assertEqual(lines[1].split(), list(measured))
    rates = '  '.join(measure.shown(values['images_per_s']) for values in measured.values())
    self.assertEqual(re.sub(' +', ' ', lines[3]), re.sub(' +', ' ', f'  images/s  {rates}'))
    for values in measured.values():
      self.assertIn(values['framework'].split()[0], ('TensorFlow', 'PyTorch'))
      for name in ('images_per_s', 's_per_step', 'cpu_s_per_step', 'peak_host_mib'):
        self.assertLess(0, values[name]['min'], name)
        self.assertLessEqual(values[name]['min'], values[name]['median'], name)
        self.assertLessEqual(values[name]['median'], values[name]['max'], name)
      self.assertAlmostEqual(values['images_per_s']['max'] * values['s_per_step']['min'],
                             values['images_per_step'], 6)
      self.assertGreater(values['peak_host_mib']['min'], 100)  # TensorFlow alone takes as much
    return results[mode]

  def _check_flops(self, values, flop_per_step):
    """Checks that the rates of a variant follow from its time and the given work, and the peak's share."""
    self.assertEqual(values['flop_per_step'], flop_per_step)
    self.assertAlmostEqual(values['tflop_per_s']['max'] * values['s_per_step']['min'] * 1e12 / flop_per_step,
                           1, 6)
    peaks = [values[f'{name}_tflop_per_s'] for name in ('matrix_product', 'convolution')]
    self.assertGreater(min(peak['min'] for peak in peaks), 0)
    self.assertLessEqual(values['share_of_peak']['max'],
                         1.001 * values['tflop_per_s']['max'] / max(peak['min'] for peak in peaks))
    self.assertLess(values['share_of_peak']['max'], 1)

  def test_train_measures_steps_on_records(self):
    results = self._measured('train', '--data_dir', self.folder, '--batch_size', 3)
    self.assertEqual(list(results), ['ours'])
    self.assertEqual(results['ours']['images_per_step'], 3)
    self.assertLess(results['ours']['input_wait_share']['median'], 0.9)
    # Two for a multiply-add, three passes, three images.
    self._check_flops(results['ours'], 2 * 3 * 3 * multiply_adds_of_one_image(33, 49))

  def test_infer_measures_single_images_and_compares_precisions(self):
    results = self._measured('infer', '--precision', 'bf16', '--vs', 'fp32')
    self.assertEqual(list(results), ['ours', 'fp32', 'faster'])
    self.assertEqual(list(results['faster']), ['fp32'])
    for variant in ('ours', 'fp32'):
      self.assertEqual(results[variant]['images_per_step'], 1)
      self._check_flops(results[variant], 2 * multiply_adds_of_one_image(41, 35))

  def test_input_waits_all_the_time_and_is_compared_with_the_reference(self):
    results = self._measured('input', '--data_dir', self.folder, '--reference')
    self.assertEqual(list(results), ['ours', 'reference', 'faster'])
    self.assertGreater(results['ours']['input_wait_share']['min'], 0.5)
    ours, theirs = (results[name]['s_per_step'] for name in ('ours', 'reference'))
    faster = results['faster']['reference']
    self.assertLessEqual(faster['max'], 1.001 * theirs['max'] / ours['min'])
    self.assertGreaterEqual(faster['min'], 0.999 * theirs['min'] / ours['max'])
    self.assertNotIn('tflop_per_s', results['ours'])

  def test_blocks_of_the_variants_alternate(self):
    calls = []

    class Process:  # in place of a workers.Pool

      def __init__(self, _):
        self.name = None

      def __enter__(self):
        return self

      def __exit__(self, *_):
        pass

      def submit(self, function, *args):
        if function is measure.prepare:
          self.name = args[1]
          return mock.Mock(result=lambda: {'multiply_adds': 0})
        calls.append((self.name, *args))
        seconds = {'ours': 0.5, 'reference': 0.75}[self.name]
        return mock.Mock(result=lambda: {'s_per_step': seconds})

    with mock.patch.object(measure.workers, 'Pool', Process):
      results = measure.measure(
          'input', parse('input', '--reference', '--steps', 3, '--repeats', 2), None)
    self.assertEqual(calls, 2 * [('ours', 200), ('ours', 300), ('reference', 200),
                                 ('reference', 300)])
    self.assertEqual(results['faster'], {'reference': {'median': 1.5, 'min': 1.5, 'max': 1.5}})

  def test_input_without_records_is_an_error_and_all_leaves_it_out(self):
    with self.assertRaisesRegex(UsageError, 'give --data_dir'):
      run('input', *_SMALL)
    with self.assertRaisesRegex(UsageError, '--vs would change nothing in input'):
      run('input', *_SMALL, '--data_dir', self.folder, '--vs', 'fp32')
    with mock.patch.object(measure, 'measure') as measured, \
        mock.patch.object(measure, 'report', return_value=''):
      self.assertIn('input is left out', run('all', *_SMALL))
    self.assertEqual([call.args[0] for call in measured.call_args_list], ['train', 'infer'])

  def test_script_runs_from_any_folder_and_helps_at_once(self):
    start = time.time()
    done = subprocess.run([sys.executable, _SCRIPT, '--help'], cwd=self.folder, check=True,
                          capture_output=True, text=True)
    self.assertLess(time.time() - start, 2)
    self.assertIn('--reference', done.stdout)


class PeakTest(unittest.TestCase):

  def test_plain_products_count_every_repetition(self):
    plain = measure.Plain(size=5, batch=2, side=7, channels=3, chain=4)
    self.assertEqual(plain.multiply_adds(),
                     {'matrix_product': 4 * 125, 'convolution': 4 * 9 * (2 * 7 * 7 * 3) * 3})

  def test_plain_products_run_in_every_precision_and_count_as_the_graph_does(self):
    plain = measure.Plain(size=5, batch=2, side=7, channels=3, chain=2)
    for precision in ('fp32', 'bf16'):
      with project.plain_products(precision, plain) as products:
        self.assertEqual(complexity.multiply_adds(tf.get_default_graph()),
                         sum(plain.multiply_adds().values()))
        self.assertEqual(list(products), list(plain.multiply_adds()))
        for run_product in products.values():
          run_product()

  def test_share_is_of_the_faster_product(self):
    plain = measure.Plain()

    @contextlib.contextmanager
    def products(_):
      yield {'matrix_product': 'slow', 'convolution': 'fast'}

    seconds = {'slow': 2 * plain.multiply_adds()['matrix_product'] / 0.5e12,
               'fast': 2 * plain.multiply_adds()['convolution'] / 0.8e12}
    bench = mock.Mock(plain_products=products, on_gpu=False)
    with mock.patch.object(measure, '_bench', bench), \
        mock.patch.object(measure, 'fastest', seconds.get):
      result = measure.compare_with_peak(0.2)
    self.assertEqual({name: round(value, 9) for name, value in result.items()}, {
        'matrix_product_tflop_per_s': 0.5, 'convolution_tflop_per_s': 0.8, 'share_of_peak': 0.25})

  def test_other_work_in_the_same_step_is_noticed(self):
    with self.assertRaisesRegex(AssertionError, 'not the same network'):
      measure.check_same_work({'ours': {'multiply_adds': 1000}, 'pytorch': {'multiply_adds': 1006}})


class PyTorchTest(unittest.TestCase):

  def test_missing_pytorch_is_a_sentence(self):
    with mock.patch.object(importlib.util, 'find_spec', return_value=None), \
        self.assertRaisesRegex(UsageError, 'needs PyTorch, which is not installed here'):
      run('train', *_RESNET, '--vs', 'pytorch')

  def test_what_pytorch_cannot_build_is_an_error(self):
    with mock.patch.object(importlib.util, 'find_spec', return_value=mock.Mock()):
      with self.assertRaisesRegex(UsageError, 'has no xception_65'):
        run('train', *_RESNET, '--vs', 'pytorch', '--base_architecture', 'xception_65')


@unittest.skipUnless(importlib.util.find_spec('torch'), 'PyTorch is not installed')
class PyTorchNetworkTest(unittest.TestCase):

  def _params(self, *argv):
    return {**vars(parse('train', *_RESNET, *argv)), 'ignore_label': 255}

  def test_it_has_our_parameters_and_multiply_adds(self):
    from benchmarks import pytorch

    voc = descriptors.get_dataset('voc')
    for name, output_stride in (('resnet_v2_101', 16), ('resnet_v2_50', 8)):
      params = self._params('--base_architecture', name, '--output_stride', output_stride)
      with tf.Graph().as_default():
        deeplab_model.network(tf.zeros([2, 65, 97, 3]), Architecture(name, 21, output_stride), True)
        shapes = [v.shape for v in tf.trainable_variables() if '/postnorm/' not in v.op.name]
      network = pytorch.deep_lab(params, voc)
      self.assertEqual(sum(values.numel() for values in network.parameters()),
                       sum(shape.num_elements() for shape in shapes))
      self.assertEqual(pytorch.multiply_adds((2, 65, 97, 3), params, voc),
                       project.multiply_adds((2, 65, 97, 3), params | {'num_classes': 21}))

  def test_it_learns_a_batch_and_predicts_classes(self):
    import torch

    from benchmarks import pytorch

    params, voc = self._params(), descriptors.get_dataset('voc')
    torch.manual_seed(3)
    network = pytorch.deep_lab(params, voc)
    images, labels = pytorch.noise('train', params, voc)
    labels[:, 5:] = 255  # ignored
    step = pytorch.train_step(network, params, torch.device('cpu'))
    losses = [step(images, labels).item() for _ in range(3)]
    self.assertLess(abs(losses[0] - np.log(21)), 1)
    self.assertLess(losses[-1], losses[0])
    classes = pytorch.predict(network, params, torch.device('cpu'))(images, None)
    self.assertEqual(tuple(classes.shape), (2, 33, 49))

  def test_it_is_measured_beside_ours(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'speed.json')
      run('infer', *_RESNET, '--vs', 'pytorch', '--precision', 'bf16', '--json', path)
      with open(path) as file:
        results = json.load(file)['infer']
    self.assertEqual(list(results), ['ours', 'pytorch', 'faster'])
    self.assertEqual(results['ours']['flop_per_step'], results['pytorch']['flop_per_step'])
    self.assertEqual(set(results['ours']), set(results['pytorch']))


class ReferenceTest(unittest.TestCase):

  def _loss_and_operations(self, train_step):
    """Returns the loss of a step from fixed weights, and the types of the graph's operations."""
    rng = np.random.RandomState(5)
    images = rng.randint(0, 256, (2, 33, 49, 3)).astype(np.uint8)
    labels = rng.randint(0, 21, (2, 33, 49, 1)).astype(np.uint8)
    labels[0, :7], labels[1, :, 40:] = 255, 255
    voc = descriptors.get_dataset('voc')
    params = {**vars(parse('train', *_SMALL)), 'base_architecture': tiny_net.TINY, 'num_classes': 21,
              'class_names': voc.class_names, 'palette': voc.palette}
    with tf.Graph().as_default() as graph, tf.Session() as session:
      fetches = train_step(tf.constant(images), tf.constant(labels), params)
      session.run(
          [tf.global_variables_initializer(), tf.local_variables_initializer()],
          {variable.initial_value: formula.fill(variable.op.name, variable.shape.as_list())
           for variable in tf.trainable_variables()})
      return session.run(fetches)[1], {op.type for op in graph.get_operations()}

  def test_reference_is_the_same_network_built_another_way(self):
    with tiny_net.rows():
      ours, our_operations = self._loss_and_operations(project.train_step)
      theirs, their_operations = self._loss_and_operations(reference.train_step)
    self.assertLess(abs(theirs / ours - 1), 1e-4)
    self.assertLessEqual({'SpaceToBatchND', 'DynamicPartition'}, their_operations)
    self.assertFalse({'SpaceToBatchND', 'DynamicPartition'} & our_operations)

  def test_reference_records_have_the_crop_size_and_true_labels(self):
    with tempfile.TemporaryDirectory() as folder:
      path = write_record(folder)
      options = inputs.TrainOptions((90, 71), 2, 0, (123., 116., 103.), 3)
      with tf.Graph().as_default(), tf.Session() as session:
        data = reference.records([path], None, options)
        images, labels = session.run(tf.data.make_one_shot_iterator(data).get_next())
    self.assertEqual((images.shape, images.dtype), ((2, 90, 71, 3), np.float32))
    self.assertEqual((labels.shape, labels.dtype), ((2, 90, 71, 1), np.int32))
    self.assertLessEqual(set(np.unique(labels)), {*range(21), 255})
    np.testing.assert_array_equal(images[(labels == 255)[..., 0]], 0)  # padding is black


class CommandTest(unittest.TestCase):

  def test_seconds_and_ratio_are_shown(self):
    self.assertEqual(command.report({'images': 3, 'ours': [2., 4.], 'reference': [4., 6.]}), (
        'command: inference.py on 3 images, start included, in seconds\n'
        '  ours       2.0 4.0\n  reference  4.0 6.0\n  ours is 1.75 times as fast (1.50 to 2.00)'))

  def test_what_is_missing_is_told(self):
    def measured(*argv):
      return command.measure(benchmark.make_parser().parse(['command', *argv]))

    with self.assertRaisesRegex(UsageError, 'command needs --model_dir'):
      measured()
    with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(DataError, 'holds no image'):
      measured('--model_dir', folder, '--images', folder)


if __name__ == '__main__':
  unittest.main()
