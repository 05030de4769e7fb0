"""--batch_size auto: the line through two measurements, the search, and the steps that are tried."""
import contextlib
import functools
import io
import os
import unittest
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import config

from dataset import inputs
from deeplab_model import deeplabv3_plus_model_fn
from tests import tiny_net
from training import batch_size
from utils.errors import UsageError

pytestmark = pytest.mark.compat
BATCHES = functools.partial(inputs.synthetic_dataset, crop_size=(33, 33), num_classes=3)


class LargestTest(unittest.TestCase):

  def test_it_is_found_to_an_eighth_and_a_tenth_is_left(self):
    for limit in (2, 3, 9, 40, 100, 999):
      with self.subTest(limit):
        tried = []
        found = batch_size.largest(lambda n, limit=limit, tried=tried: tried.append(n) or n <= limit)
        self.assertLessEqual(found, limit)
        self.assertGreaterEqual(found, max(2, int(0.9 * limit * 8 / 9) - 1))
        self.assertLess(len(tried), 16)
    self.assertEqual(batch_size.largest(lambda n: True), int(0.9 * 1024))

  def test_too_little_memory_for_two_is_an_error(self):
    with self.assertRaisesRegex(UsageError, 'not even 2 images fit .*nvidia-smi .*--recompute'):
      batch_size.largest(lambda n: n < 2)


class PredictedTest(unittest.TestCase):

  def test_the_line_reaches_the_limit(self):
    for used, memory, expected in (
        ({2: 3, 4: 4}, 10, 14),      # an image takes 0.5: 2 + 7 / 0.5 = 16, less a tenth 14.4
        ({2: 3, 4: 5}, 11, 9),       # 2 + 8 / 1 = 10, less a tenth
        ({2: 300, 4: 500}, 500, 3),  # 4 fit exactly, less a tenth 3.6
        ({2: 300, 4: 500}, 310, 2),  # 2.1 fit
        ({2: 1, 4: 3}, 10000, 1024)):
      self.assertEqual(batch_size.predicted(batch_size.Measured(used, memory)), expected)

  def test_memory_that_does_not_grow_predicts_nothing(self):
    self.assertIsNone(batch_size.predicted(batch_size.Measured({2: 5, 4: 5}, 10)))
    self.assertIsNone(batch_size.predicted(batch_size.Measured({2: 5, 4: 4}, 10)))


class LargestOnGpuTest(unittest.TestCase):

  def find(self, measured, limit):
    """Returns what is found, and the sizes that were tried, where `limit` images fit."""
    tried = []

    def in_child(function, model_fn, params, make_batches, size=None):
      self.assertEqual((model_fn, params, make_batches), ('model_fn', 'params', 'batches'))
      if function is batch_size.measure:
        return measured
      tried.append(size)
      return size <= limit or None  # a process that was killed answers None

    with (mock.patch.object(batch_size, '_in_child', in_child),
          contextlib.redirect_stdout(io.StringIO()) as self.printed):
      return batch_size.largest_on_gpu('model_fn', 'params', 'batches'), tried

  def test_what_the_line_says_is_checked_once(self):
    gib = 2**30
    self.assertEqual(self.find(batch_size.Measured({2: 3 * gib, 4: 4 * gib}, 10 * gib), 99), (14, [14]))
    self.assertIn('2 images take 3.00 GiB, 4 images take 4.00 GiB; there are 10.00 GiB',
                  self.printed.getvalue())

  def test_an_eighth_less_is_tried_where_it_does_not_fit(self):
    self.assertEqual(self.find(batch_size.Measured({2: 3, 4: 4}, 10), 10), (9, [14, 12, 10]))
    self.assertEqual(self.find(batch_size.Measured({2: 3, 4: 4}, 10), 12), (10, [14, 12]))

  def test_all_sizes_are_searched_where_the_line_misleads_or_nothing_is_measured(self):
    for measured, first in ((batch_size.Measured({2: 3, 4: 4}, 10), [14, 12, 10]), (None, []),
                            (batch_size.Measured({2: 4, 4: 4}, 10), [])):
      self.assertEqual(self.find(measured, 5), (4, [*first, 2, 4, 8, 6, 5]))  # 5, less a tenth

  def test_what_was_measured_is_not_checked_again(self):
    self.assertEqual(self.find(batch_size.Measured({2: 300, 4: 500}, 310), 0), (2, []))
    self.assertEqual(self.find(batch_size.Measured({2: 300}, 310), 0), (2, []))

  def test_too_little_memory_for_two_is_an_error(self):
    with self.assertRaisesRegex(UsageError, 'not even 2 images fit .*nvidia-smi'):
      self.find(batch_size.Measured({}, None), 0)


class TrainsTest(unittest.TestCase):
  PARAMS = dict(base_architecture=tiny_net.LEAN, num_classes=3, class_names='abc',
                palette=[(0, 0, 0)] * 3, crop_size=(33, 33), seed=0, xla=False, batch_size=None)

  def setUp(self):
    stack = contextlib.ExitStack()
    self.addCleanup(stack.close)
    stack.enter_context(tiny_net.rows())

  def test_step_that_fits(self):
    config.enable_op_determinism()  # as --deterministic does; what is random has to have a seed
    self.addCleanup(config.disable_op_determinism)
    for policy in ({}, {'learning_rate_policy': 'piecewise', 'num_train': 5}):
      self.assertTrue(batch_size.trains(deeplabv3_plus_model_fn, {**self.PARAMS, **policy}, BATCHES, 2))

  def test_step_that_does_not_fit(self):
    error = tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor')
    run = tf.Session.run

    def exhausted(session, fetches, *args, **kwargs):
      if isinstance(fetches, tf.Operation):
        raise error
      return run(session, fetches, *args, **kwargs)

    with mock.patch.object(tf.Session, 'run', exhausted):
      self.assertFalse(batch_size.trains(deeplabv3_plus_model_fn, self.PARAMS, BATCHES, 2))

  def test_variables_that_do_not_fit(self):
    error = tf.errors.InternalError(None, None, 'failed to alloc 9 bytes: CUDA_ERROR_OUT_OF_MEMORY')
    with mock.patch.object(tf.Session, 'run', side_effect=error):
      self.assertFalse(batch_size.trains(deeplabv3_plus_model_fn, self.PARAMS, BATCHES, 2))

  def test_other_errors_are_raised(self):
    with mock.patch.object(tf.Session, 'run', side_effect=tf.errors.InternalError(None, None, 'x')):
      with self.assertRaises(tf.errors.InternalError):
        batch_size.trains(deeplabv3_plus_model_fn, self.PARAMS, BATCHES, 2)

  def test_memory_is_the_peak_after_the_first_step(self):
    sizes, session = [], mock.Mock()
    session.list_devices.return_value = [mock.Mock(device_type='CPU', memory_limit_bytes=1),
                                         mock.Mock(device_type='GPU', memory_limit_bytes=1000)]
    peaks = {2: [700, 300], 4: [900, 500]}  # of the first step, which times kernels; of the others

    @contextlib.contextmanager
    def training(model_fn, params, make_batches, size):
      sizes.append(size)
      if size > fitting:
        raise batch_size._NoMemory
      now = peaks[size]
      memory['peak'] = 0
      yield session, lambda: memory.update(peak=max(memory['peak'], now[memory['reset']]))
      memory['reset'] = 0

    for limit, expected in ((4, ({2: 300, 4: 500}, 1000)), (2, ({2: 300}, 1000)), (1, ({}, None))):
      fitting, memory = limit, {'peak': 0, 'reset': 0}
      with (mock.patch.object(batch_size, '_training', training),
            mock.patch.object(tf.config.experimental, 'get_memory_info', lambda _, memory=memory: memory),
            mock.patch.object(tf.config.experimental, 'reset_memory_stats',
                              lambda _, memory=memory: memory.update(peak=0, reset=1))):
        self.assertEqual(batch_size.measure(None, {}, None), batch_size.Measured(*expected))
    self.assertEqual(sizes, [2, 4, 2, 4, 2])

  def test_nothing_is_measured_without_a_gpu(self):
    self.assertIsNone(batch_size.measure(deeplabv3_plus_model_fn, self.PARAMS, BATCHES))

  def test_process_that_is_killed_gives_none(self):
    self.assertEqual(batch_size._in_child(abs, -3), 3)
    self.assertIsNone(batch_size._in_child(os._exit, 9))


if __name__ == '__main__':
  unittest.main()
