"""Losses and learning rates against numbers worked out by hand."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from utils import losses, optimizers

pytestmark = pytest.mark.compat


def evaluate(build):
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(build())


class CrossEntropyTest(unittest.TestCase):

  def test_ignored_pixels_do_not_count(self):
    logits = np.log(np.array([[[[.5, .5], [.2, .8], [.9, .1]]]], 'f'))  # [1, 1, 3, 2]
    labels = np.array([[[[0], [1], [255]]]], 'i')
    loss = evaluate(lambda: losses.cross_entropy(tf.constant(logits), tf.constant(labels), 255))
    self.assertAlmostEqual(loss, -(np.log(.5) + np.log(.8)) / 2, places=6)

  def test_ignore_label_inside_the_classes_does_not_count(self):
    logits = np.log(np.array([[[[.5, .5], [.2, .8]]]], 'f'))
    labels = np.array([[[[0], [1]]]], 'i')
    loss = evaluate(lambda: losses.cross_entropy(tf.constant(logits), tf.constant(labels), 0))
    self.assertAlmostEqual(loss, -np.log(.8), places=6)

  def test_class_weights_make_a_weighted_mean(self):
    logits = np.log(np.array([[[[.5, .5], [.2, .8], [.9, .1]]]], 'f'))
    labels = np.array([[[[0], [1], [255]]]], 'i')
    loss = evaluate(lambda: losses.cross_entropy(tf.constant(logits), tf.constant(labels), 255, [3, 1]))
    self.assertAlmostEqual(loss, -(3 * np.log(.5) + np.log(.8)) / 4, places=6)

  def test_median_frequency_weighs_rare_classes_up(self):
    # The median of 10, 40 and 400 is 40; the class that never occurs is left alone.
    self.assertEqual(losses.median_frequency_weights([400, 10, 0, 40]), [0.1, 4, 1, 1])

  def test_batch_without_valid_pixels_gives_zero_loss_and_gradient(self):
    def build():
      logits = tf.constant(np.ones((2, 3, 5, 4), 'f'))
      loss = losses.cross_entropy(logits, tf.fill([2, 3, 5, 1], 255), 255)
      return loss, tf.gradients(loss, logits)[0]
    loss, gradient = evaluate(build)
    self.assertEqual(loss, 0)
    np.testing.assert_array_equal(gradient, np.zeros((2, 3, 5, 4)))

  def test_weight_decay_halves_the_squared_norm(self):
    loss = evaluate(lambda: losses.weight_decay([tf.constant([3., 4.]), tf.constant([[1.]])], 0.1))
    self.assertAlmostEqual(loss, 1.3, places=6)


class LearningRateTest(unittest.TestCase):

  def _rate(self, step, **params):
    with tf.Graph().as_default(), tf.Session() as session:
      rate = optimizers.learning_rate(params)
      session.run(tf.global_variables_initializer())
      tf.train.get_global_step().load(step, session)
      return session.run(rate)

  def test_poly_counts_from_the_initial_step_and_stays_at_the_end_rate(self):
    params = dict(learning_rate_policy='poly', initial_learning_rate=1e-2, end_learning_rate=1e-4, power=0.9,
                  max_iter=200, initial_global_step=1000)
    self.assertAlmostEqual(self._rate(1000, **params), 1e-2, places=8)
    self.assertAlmostEqual(self._rate(1050, **params), 9.9e-3 * 0.75**0.9 + 1e-4, places=8)
    self.assertAlmostEqual(self._rate(1358, **params), 1e-4, places=8)

  def test_piecewise_falls_to_a_tenth_at_epochs_100_150_and_200(self):
    params = dict(learning_rate_policy='piecewise', batch_size=10, num_train=25)  # 2.5 steps an epoch
    for step, factor in ((250, 1), (251, .1), (376, .01), (501, .001)):
      self.assertAlmostEqual(self._rate(step, **params) / (0.1 * 10 / 128), factor, places=5)


if __name__ == '__main__':
  unittest.main()
