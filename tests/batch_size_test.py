"""--batch_size auto: the search, and the step that it tries."""
import unittest
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf

import train
from deeplab_model import deeplabv3_plus_model_fn
from utils import batch_size
from utils.errors import UsageError

pytestmark = pytest.mark.compat


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
    with self.assertRaisesRegex(UsageError, 'not even 2 images fit .*--recompute'):
      batch_size.largest(lambda n: n < 2)


class TrainsTest(unittest.TestCase):
  PARAMS = dict(base_architecture='mobilenet_v2_dm05', num_classes=3, class_names='abc',
                palette=[(0, 0, 0)] * 3, crop_size=(33, 33), seed=0, xla=False, batch_size=None)

  def test_step_that_fits(self):
    self.assertTrue(batch_size.trains(deeplabv3_plus_model_fn, self.PARAMS, 2))

  def test_step_that_does_not_fit(self):
    error = tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor')
    run = tf.Session.run

    def exhausted(session, fetches, *args, **kwargs):
      if isinstance(fetches, tf.Operation):
        raise error
      return run(session, fetches, *args, **kwargs)

    with mock.patch.object(tf.Session, 'run', exhausted):
      self.assertFalse(batch_size.trains(deeplabv3_plus_model_fn, self.PARAMS, 2))

  def test_all_gpus_get_as_many_and_no_more_than_there_are_examples(self):
    for num_train, expected in ((1000, 48), (41, 40), (3, 4)):
      args = train.make_parser().parse(['--batch_size', 'auto', '--num_gpus', '4'])
      with mock.patch.object(batch_size, 'largest_on_gpu', return_value=12):
        self.assertEqual(train.find_batch_size(args, {'num_train': num_train}), expected)


if __name__ == '__main__':
  unittest.main()
