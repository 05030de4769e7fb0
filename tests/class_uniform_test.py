"""Class-uniform sampling: what an epoch is filled with, by count and in the mean, and what it needs."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dataset import class_uniform
from utils.errors import DataError

pytestmark = pytest.mark.compat

# Class 0 is in all of 8 examples, class 1 in none, class 2 in two of them, class 3 in one.
INDEX = {'dataset': {'class_names': ['all', 'none', 'two', 'one']}, 'classes_of_examples': '1 1 5 1 9 5 1 1',
         'shards': [{'examples': 5}, {'examples': 3}]}


class CountsTest(unittest.TestCase):

  def counts(self, share, number=1, seed=7):
    """Returns int64 [number of epochs, 8]."""
    plan = class_uniform.plan(INDEX, share, 'data/train.json')
    epochs = tf.data.Dataset.range(number).map(
        lambda epoch: class_uniform.counts(plan, tf.stack([tf.constant(seed, tf.int64), -1 - epoch])))
    return np.stack([counts.numpy() for counts in epochs])

  def test_plan_is_read_from_the_index(self):
    plan = class_uniform.plan(INDEX, .5, 'data/train.json')
    self.assertEqual(plan.members, [list(range(8)), [2, 5], [4]])
    self.assertEqual((plan.file_sizes, plan.num_examples, plan.num_uniform), ([5, 3], 8, 4))
    self.assertIsNone(class_uniform.plan(INDEX, 0., 'data/train.json'))
    self.assertIsNone(class_uniform.plan(None, 0., 'data/train.json'))

  def test_epoch_keeps_its_length_and_the_rest_are_different_examples(self):
    for share, least in ((.25, 6), (.5, 4), (.6, 3), (1., 1)):
      counts = self.counts(share, 40)
      self.assertEqual(set(counts.sum(1)), {8})
      self.assertTrue(((counts > 0).sum(1) >= least).all())

  def test_small_share_draws_nothing(self):
    np.testing.assert_array_equal(self.counts(.05, 3), np.ones((3, 8)))

  def test_classes_and_then_examples_are_as_likely(self):
    epochs = 1500
    mean = self.counts(.5, epochs).mean(0)
    # Of 4 places a third each for class 0, which all have, 2, which two have, and 3; half of the other 4.
    expected = .5 + 4 / 3 * (np.full(8, 1 / 8) + np.array([0, 0, .5, 0, 0, .5, 0, 0]) + np.eye(8)[4])
    np.testing.assert_allclose(mean, expected, atol=4 * (4 / epochs) ** .5 / 2)

  def test_epochs_and_seeds_differ_and_repeat(self):
    counts = self.counts(.5, 20)
    self.assertGreater(len(np.unique(counts, axis=0)), 15)
    np.testing.assert_array_equal(self.counts(.5, 20), counts)
    self.assertFalse((self.counts(.5, 20, seed=8) == counts).all())


class IndexTest(unittest.TestCase):

  def test_index_that_does_not_tell_is_refused(self):
    before = {name: value for name, value in INDEX.items() if name != 'classes_of_examples'}
    for index in (None, before, {**before, 'classes_of_examples': None}):
      with self.assertRaisesRegex(DataError, '--class_uniform needs the classes of each example in data/train'
                                  '.json.*; convert the data again, or give --class_uniform 0$'):
        class_uniform.plan(index, .5, 'data/train.json')

  def test_records_without_a_class_are_refused(self):
    with self.assertRaisesRegex(DataError, 'finds no class in the records of data/train.json'):
      class_uniform.plan({**INDEX, 'classes_of_examples': '0 0 0 0 0 0 0 0'}, .5, 'data/train.json')


if __name__ == '__main__':
  unittest.main()
