"""Losses and learning rates against numbers worked out by hand."""
import functools
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import train
from utils import losses, optimizers
from utils.settings import Settings

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

  def test_weight_of_class_make_a_weighted_mean(self):
    logits = np.log(np.array([[[[.5, .5], [.2, .8], [.9, .1]]]], 'f'))
    labels = np.array([[[[0], [1], [255]]]], 'i')
    loss = evaluate(lambda: losses.cross_entropy(tf.constant(logits), tf.constant(labels), 255, [3, 1]))
    self.assertAlmostEqual(loss, -(3 * np.log(.5) + np.log(.8)) / 4, places=6)

  def test_focal_loss_makes_easy_pixels_count_less(self):
    logits = np.log(np.array([[[[.5, .5], [.2, .8], [.9, .1]]]], 'f'))
    labels = np.array([[[[0], [1], [255]]]], 'i')
    hard, easy = .5**2 * np.log(.5), .2**2 * np.log(.8)
    loss = evaluate(lambda: losses.focal(tf.constant(logits), tf.constant(labels), 255))
    self.assertAlmostEqual(loss, -(hard + easy) / 2, places=6)
    loss = evaluate(lambda: losses.focal(tf.constant(logits), tf.constant(labels), 255, [3, 1]))
    self.assertAlmostEqual(loss, -(3 * hard + easy) / 4, places=6)

  def test_focal_loss_of_a_sure_pixel_has_no_gradient(self):
    def build():
      logits = tf.constant([[[[60., 0, -60], [0, 60, 0]]]])
      loss = losses.focal(logits, tf.constant([[[[0], [255]]]]), 255)
      return loss, tf.gradients(loss, logits)[0]

    loss, gradient = evaluate(build)
    self.assertEqual(loss, 0)
    np.testing.assert_array_equal(gradient, np.zeros((1, 1, 2, 3)))

  def test_flags_offer_what_the_tables_have(self):
    offered = {action.dest: action.choices for action in train.make_parser()._actions}
    self.assertEqual(offered['loss'], tuple(losses.LOSSES))
    self.assertEqual(offered['learning_rate_policy'], tuple(optimizers.POLICIES))

  def test_median_frequency_weighs_rare_classes_up(self):
    # The median of 10, 40 and 400 is 40; the class that never occurs is left alone.
    self.assertEqual(losses.median_frequency_weights([400, 10, 0, 40], 10.), [0.1, 4, 1, 1])

  def test_median_frequency_weights_are_bounded(self):
    # The median of 1, 300, 30,000 and 9,000,000 is 15,150.
    pixels = [9_000_000, 1, 30_000, 300, 0]
    self.assertEqual(losses.median_frequency_weights(pixels, 10.), [0.1, 10, 0.505, 10, 1])
    self.assertEqual(losses.median_frequency_weights(pixels, 100.), [0.01, 100, 0.505, 50.5, 1])
    self.assertEqual(losses.median_frequency_weights(pixels, 1.), [1, 1, 1, 1, 1])
    self.assertEqual(losses.median_frequency_weights([0, 0], 10.), [1, 1])

  def test_batch_without_valid_pixels_gives_zero_loss_and_gradient(self):
    def build(label, weights, dtype):
      features, kernel = tf.constant(np.ones((2, 3, 5, 4)), dtype), tf.eye(4, batch_shape=[1, 1])
      net = tf.cast(tf.nn.conv2d(features, tf.cast(kernel, dtype), 1, 'SAME'), tf.float32)
      loss = losses.cross_entropy(net, tf.fill([2, 3, 5, 1], label), 255, weights)
      return loss, *tf.gradients(loss, [features, kernel])

    for label, weights in ((255, None), (255, [3., 1, 1, .1]), (1, [3., 0, 1, 1])):  # or of no weight
      for dtype in (tf.float32, tf.float16, tf.bfloat16):
        with self.subTest(label=label, weights=weights, dtype=dtype.name):
          loss, *gradients = evaluate(functools.partial(build, label, weights, dtype))
          self.assertEqual(loss, 0)
          for gradient in gradients:
            np.testing.assert_array_equal(gradient.astype('f'), np.zeros(gradient.shape))

  def test_image_without_valid_pixels_leaves_the_others_gradient_alone(self):
    logits = np.random.RandomState(0).randn(2, 3, 5, 4).astype('f')
    labels = np.random.RandomState(1).randint(0, 4, (2, 3, 5, 1))
    labels[1] = 255

    def build(count):
      inputs = tf.constant(logits[:count])
      loss = losses.cross_entropy(inputs, tf.constant(labels[:count], tf.int32), 255, [3., 0, 1, 1])
      return loss, tf.gradients(loss, inputs)[0]
    alone, both = evaluate(lambda: build(1)), evaluate(lambda: build(2))
    self.assertAlmostEqual(alone[0], both[0], places=6)
    np.testing.assert_allclose(both[1][:1], alone[1], rtol=1e-5)
    self.assertGreater(np.abs(alone[1]).max(), 0)
    np.testing.assert_array_equal(both[1][1], np.zeros((3, 5, 4)))

  def test_weight_decay_adds_its_share_to_each_gradient(self):
    values = [[[1., 2.]], [3.], 4., [5., 6.]]  # a matrix, a scalar and vectors of two sizes
    gradients = [[[10., 20.]], None, 40., [50., 60.]]
    found = evaluate(lambda: losses.weight_decay_gradients(
        [value if value is None else tf.constant(value) for value in gradients],
        [tf.constant(value) for value in values], 0.5))
    for value, expected in zip(found, [[[10.5, 21]], [1.5], 42, [52.5, 63]], strict=True):
      np.testing.assert_array_equal(value, expected)
    of_matrices, = evaluate(lambda: losses.weight_decay_gradients([tf.ones([2, 1])], [tf.ones([2, 1])], 2.))
    np.testing.assert_array_equal(of_matrices, [[3.], [3]])

  def test_weight_decay_halves_the_squared_norm(self):
    loss = evaluate(lambda: losses.weight_decay([tf.constant([3., 4.]), tf.constant([[1.]])], 0.1))
    self.assertAlmostEqual(loss, 1.3, places=6)


class LearningRateTest(unittest.TestCase):

  def _rate(self, step, **params):
    with tf.Graph().as_default(), tf.Session() as session:
      rate = optimizers.learning_rate(Settings.from_params(params))
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
