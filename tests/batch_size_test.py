"""--batch_size auto: the search, and the steps that are tried."""
import contextlib
import functools
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

pytestmark = [pytest.mark.compat, pytest.mark.slow]
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


class LargestOnGpuTest(unittest.TestCase):

  def test_it_is_found_in_another_process(self):
    with mock.patch.object(batch_size, 'fits', at_most):
      self.assertEqual(batch_size.largest_on_gpu(5, {}, None), 4)  # 5, less a tenth

  def test_process_that_is_killed_is_an_error(self):
    with (mock.patch.object(batch_size, 'fits', killed),
          self.assertRaisesRegex(UsageError, "was killed, maybe for want of the machine's own memory")):
      batch_size.largest_on_gpu(None, {}, None)


def at_most(limit, params, make_batches, size):
  return size <= limit


def killed(model_fn, params, make_batches, size):
  os._exit(9)


class FitsTest(unittest.TestCase):
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
      self.assertTrue(batch_size.fits(deeplabv3_plus_model_fn, {**self.PARAMS, **policy}, BATCHES, 2))

  def test_step_that_does_not_fit(self):
    error = tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor')
    run = tf.Session.run

    def exhausted(session, fetches, *args, **kwargs):
      if isinstance(fetches, tf.Operation):
        raise error
      return run(session, fetches, *args, **kwargs)

    with mock.patch.object(tf.Session, 'run', exhausted):
      self.assertFalse(batch_size.fits(deeplabv3_plus_model_fn, self.PARAMS, BATCHES, 2))

  def test_variables_that_do_not_fit(self):
    error = tf.errors.InternalError(None, None, 'failed to alloc 9 bytes: CUDA_ERROR_OUT_OF_MEMORY')
    with mock.patch.object(tf.Session, 'run', side_effect=error):
      self.assertFalse(batch_size.fits(deeplabv3_plus_model_fn, self.PARAMS, BATCHES, 2))

  def test_other_errors_are_raised(self):
    with mock.patch.object(tf.Session, 'run', side_effect=tf.errors.InternalError(None, None, 'x')):
      with self.assertRaises(tf.errors.InternalError):
        batch_size.fits(deeplabv3_plus_model_fn, self.PARAMS, BATCHES, 2)


if __name__ == '__main__':
  unittest.main()
