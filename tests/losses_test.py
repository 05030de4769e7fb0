"""Losses and learning rates against numbers worked out by hand."""
import contextlib
import functools
import io
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import train
from tests import support
from training import losses, optimizers
from utils import settings
from utils.settings import Settings

pytestmark = [pytest.mark.compat, pytest.mark.slow]


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

  def test_smoothed_labels_are_shared_by_all_classes(self):
    rng = np.random.RandomState(0)
    logits, labels = (3 * rng.randn(2, 3, 5, 4)).astype('f'), rng.choice([0, 1, 3, 255], (2, 3, 5, 1))
    labels[0, 0, :2, 0] = 1, 255
    weights, valid = np.array([3., 1, 5, .5]), labels[..., 0] != 255

    def by_numpy(logits):
      target = np.where(np.arange(4) == labels, 0.7 + 0.3 / 4, 0.3 / 4)
      per_pixel = -(target * np.log(softmax(logits.astype('d')))).sum(-1)
      return np.average(per_pixel[valid], weights=weights[labels[..., 0][valid]])

    def build():
      inputs, truth = tf.constant(logits), tf.constant(labels)
      loss = losses.cross_entropy(inputs, truth, 255, list(weights), label_smoothing=0.3)
      given = Settings(label_smoothing=0.3, weight_of_class=list(weights))
      parts = [losses.parts(inputs, truth, given, training)['cross_entropy'] for training in (True, False)]
      return loss, tf.gradients(loss, inputs)[0], parts, losses.cross_entropy(inputs, truth, 255)

    loss, gradient, (in_training, in_evaluation), plain = evaluate(build)
    self.assertAlmostEqual(loss, by_numpy(logits), places=5)
    np.testing.assert_allclose(gradient, differences(by_numpy, logits), atol=1e-6)
    self.assertEqual((in_training, in_evaluation), (loss, plain))

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
    self.assertEqual(offered['learning_rate_policy'], tuple(optimizers.POLICIES))
    self.assertEqual(offered['weight_decay_scope'], tuple(losses.DECAY_SCOPES))

  def test_median_frequency_weighs_rare_classes_up(self):
    # The median of 10, 40 and 400 is 40; the class that never occurs is left alone.
    found = losses.median_frequency_weights([400, 10, 0, 40], [800, 800, 0, 800], 10.)
    self.assertEqual(found, [0.1, 4, 1, 1])
    # Frequencies 1/2, 1/4 and, in the one image that has it, 1/40.
    found = losses.median_frequency_weights([400, 10, 50, 0], [800, 400, 200, 0], 100.)
    np.testing.assert_allclose(found, [0.5, 10, 1, 1])

  def test_median_frequency_weights_are_bounded(self):
    # The median of 1, 300, 30,000 and 9,000,000 is 15,150; all are shares of as many pixels.
    for limit, expected in ((10., [0.1, 10, 0.505, 10, 1]), (100., [0.01, 100, 0.505, 50.5, 1]),
                            (1., [1] * 5)):
      found = losses.median_frequency_weights([9_000_000, 1, 30_000, 300, 0], [1 << 24] * 4 + [0], limit)
      self.assertEqual(found, expected)
    self.assertEqual(losses.median_frequency_weights([0, 0], [0, 0], 10.), [1, 1])

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

  def test_weight_decay_of_weights_leaves_out_depthwise_ones_biases_and_batch_norm(self):
    with tf.Graph().as_default(), tf.Session() as session:
      variables = [tf.get_variable(f'unit/{name}', initializer=value) for name, value in (
          ('weights', [[[[3., 4.]]]]), ('depthwise_weights', [[[[5.]]]]), ('biases', [7.]),
          ('BatchNorm/gamma', [11.]), ('BatchNorm/beta', [13.]), ('pointwise/weights', [[[[1.]]]]))]
      sums = [losses.weight_decay(variables, 0.1, scope) for scope in ('all', 'weights')]
      session.run(tf.global_variables_initializer())
      of_all, of_weights = session.run(sums)
    self.assertAlmostEqual(of_weights, 0.1 * (9 + 16 + 1) / 2, places=6)
    self.assertAlmostEqual(of_all, 0.1 * (9 + 16 + 25 + 49 + 121 + 169 + 1) / 2, places=4)

  def test_weight_decay_halves_the_squared_norm(self):
    loss = evaluate(lambda: losses.weight_decay([tf.constant([3., 4.]), tf.constant([[1.]])], 0.1))
    self.assertAlmostEqual(loss, 1.3, places=6)


def softmax(logits):
  values = np.exp(logits - logits.max(-1, keepdims=True))
  return values / values.sum(-1, keepdims=True)


def dice_by_numpy(logits, labels, ignore_label, weights=None):
  """The definition, class by class, in float64."""
  probabilities, valid, labels = softmax(logits.astype('d')), labels[..., 0] != ignore_label, labels[..., 0]
  total = weight = 0
  for number in range(logits.shape[-1]):
    of_class, probability = (labels == number)[valid], probabilities[..., number][valid]
    if of_class.any():
      share = 2 * probability[of_class].sum() / ((probability ** 2).sum() + of_class.sum())
      total += (weights[number] if weights else 1) * (1 - share)
      weight += weights[number] if weights else 1
  return total / weight if weight else 0.


def lovasz_by_numpy(logits, labels, ignore_label, weights=None):
  """The sum of the paper's eq. 7 over sets: the pixels of the k largest errors are wrong, k = 1, 2, ..."""
  probabilities, valid, labels = softmax(logits.astype('d')), labels[..., 0] != ignore_label, labels[..., 0]
  total = weight = 0
  for number in range(logits.shape[-1]):
    of_class, probability = (labels == number)[valid], probabilities[..., number][valid]
    if not of_class.any():
      continue
    errors = np.where(of_class, 1 - probability, probability)
    order, wrong, before, value = np.argsort(-errors), np.zeros(len(errors), bool), 0., 0.
    for pixel in order:
      wrong[pixel] = True
      predicted = of_class ^ wrong
      after = 1 - (predicted & of_class).sum() / (predicted | of_class).sum()
      value += errors[pixel] * (after - before)
      before = after
    total += (weights[number] if weights else 1) * value
    weight += weights[number] if weights else 1
  return total / weight if weight else 0.


def differences(function, logits):
  """Returns the gradient of a function of float64 logits by central differences."""
  found, step = np.zeros(logits.shape), 1e-6
  for index in np.ndindex(logits.shape):
    values = []
    for sign in (1, -1):
      moved = logits.astype('d')
      moved[index] += sign * step
      values.append(function(moved))
    found[index] = (values[0] - values[1]) / (2 * step)
  return found


class OverlapTest(unittest.TestCase):
  """Dice and Lovasz."""

  def setUp(self):
    rng = np.random.RandomState(0)
    self.logits = (2 * rng.randn(2, 3, 5, 4)).astype('f')
    self.labels = rng.choice([0, 1, 3, 255], (2, 3, 5, 1))  # none of class 2

  def found(self, loss, labels, ignore_label=255, weights=None):
    def build():
      logits = tf.constant(self.logits)
      value = loss(logits, tf.constant(labels, tf.int64), ignore_label, weights)
      return value, tf.gradients(value, logits)[0]
    return evaluate(build)

  def test_values_and_gradients_are_those_of_the_definition(self):
    for loss, by_numpy in ((losses.dice, dice_by_numpy), (losses.lovasz, lovasz_by_numpy)):
      for weights in (None, [3., 1, 5, .5]):
        for labels, ignore_label in ((self.labels, 255), (np.where(self.labels == 255, 1, self.labels), 1),
                                     (np.full_like(self.labels, 3), 255)):
          with self.subTest(loss=loss.__name__, weights=weights, ignore_label=ignore_label):
            value, gradient = self.found(loss, labels, ignore_label, weights)
            expected = [labels, ignore_label, weights]
            self.assertAlmostEqual(value, by_numpy(self.logits, *expected), places=5)
            self.assertGreater(value, 0.1)
            slope = differences(lambda logits: by_numpy(logits, *expected), self.logits)  # noqa: B023
            np.testing.assert_allclose(gradient, slope, atol=1e-6)
            self.assertGreater(np.abs(gradient).max(), 1e-3)

  def test_by_hand(self):
    # Of class 0 one pixel has 0.5; of class 1 one has 0.8, and one of class 0 has 0.5.
    self.logits = np.log(np.array([[[[.5, .5], [.2, .8], [.9, .1]]]], 'f'))
    labels = np.array([[[[0], [1], [255]]]])
    expected = (1 - 2 * .5 / (.25 + .04 + 1) + 1 - 2 * .8 / (.25 + .64 + 1)) / 2
    self.assertAlmostEqual(self.found(losses.dice, labels)[0], expected, places=6)
    # Class 0: the miss by 0.5 makes the IoU 0. Class 1: the false pixel by 0.5 makes it 1/2, the miss by 0.2
    # then 0.
    self.assertAlmostEqual(self.found(losses.lovasz, labels)[0], (.5 + .5 / 2 + .2 / 2) / 2, places=6)

  def test_perfect_and_ignored_batches_cost_nothing(self):
    right = self.labels.copy()
    self.logits = np.where(np.arange(4) == right, 200, -200).astype('f')
    for loss in (losses.dice, losses.lovasz):
      for labels, tolerance in ((right, 1e-6), (np.full_like(right, 255), 0)):
        value, gradient = self.found(loss, labels)
        self.assertLessEqual(abs(value), tolerance)
        np.testing.assert_allclose(gradient, np.zeros(gradient.shape), atol=tolerance)

  def test_sums_keep_their_digits_among_many_pixels(self):
    rng = np.random.RandomState(1)
    self.logits = rng.randn(1, 500, 600, 2).astype('f')
    labels = (rng.rand(1, 500, 600, 1) < 0.1).astype(int)
    probabilities = softmax(self.logits.astype('d')).reshape(-1, 2)
    expected = dice_by_numpy(self.logits, labels, 255)
    self.assertLess(abs(self.found(losses.dice, labels)[0] / expected - 1), 1e-6)
    losses_of_class = []
    for number in (0, 1):
      truth = labels.ravel() == number
      errors = np.abs(truth - probabilities[:, number])
      order = np.argsort(-errors)
      missed, false = np.cumsum(truth[order]), np.cumsum(~truth[order])
      iou = (truth.sum() - missed) / (truth.sum() + false)
      losses_of_class.append((errors[order] * -np.diff(iou, prepend=1)).sum())
    self.assertLess(abs(self.found(losses.lovasz, labels)[0] / np.mean(losses_of_class) - 1), 1e-6)

  def test_pixels_of_large_batches_are_not_counted_by_float32(self):
    with tf.Graph().as_default() as graph:  # of 2^24 pixels, where its whole numbers end; none is computed
      logits, labels = (tf.placeholder(dtype, [16, 1024, 1024, depth])
                        for dtype, depth in ((tf.float32, 2), (tf.int64, 1)))
      tf.gradients(losses.lovasz(logits, labels, 255), logits)
      nodes = [node for function in graph.as_graph_def().library.function for node in function.node_def]
    kinds = {node.attr['T'].type for node in nodes if node.op == 'Cumsum'}
    self.assertEqual(kinds, {tf.float64.as_datatype_enum})
    self.assertFalse([node for node in nodes if node.op == 'Range'])

  def test_two_replicas_have_one_loss_if_it_is_of_sums(self):
    code = """
      import numpy as np
      from training import losses
      rng = np.random.RandomState(0)
      logits, labels = rng.randn(4, 3, 5, 4).astype('f'), rng.choice([0, 1, 255], (4, 3, 5, 1))
      labels[2:][labels[2:] == 1] = 3  # which classes there are differs
      labels[2, :2] = 255
      def computed(logits, labels, loss):
        value = loss(logits, labels, 255, [3., 1, 5, .5])
        return value, tf.gradients(value, logits)[0]
      def run(fetches):
        with tf.Session(config=tf.ConfigProto(device_count={'CPU': 2})) as session:
          return session.run(fetches)
      for loss, joint in ((losses.cross_entropy, True), (losses.dice, True), (losses.lovasz, False)):
        with tf.Graph().as_default():
          inputs = [tf.constant(logits), tf.constant(labels)]
          whole, slope = run(computed(*inputs, loss))
          halves = run([computed(tf.constant(logits[part]), tf.constant(labels[part]), loss)
                        for part in (slice(0, 2), slice(2, 4))])
        strategy = two_replicas()
        def replica():
          number = tf.distribute.get_replica_context().replica_id_in_sync_group
          return computed(*(tf.gather(values.reshape(2, 2, *values.shape[1:]), number)
                            for values in (logits, labels)), loss)
        with tf.Graph().as_default(), strategy.scope():
          results = map(strategy.experimental_local_results, strategy.extended.call_for_each_replica(replica))
          values, slopes = run([list(result) for result in results])
        if joint:
          np.testing.assert_allclose(np.mean(values), whole, rtol=1e-6)
          np.testing.assert_allclose(np.concatenate(slopes) / 2, slope, atol=1e-7)
        else:
          np.testing.assert_allclose(values, [value for value, _ in halves], rtol=1e-6)
          np.testing.assert_allclose(slopes, [half for _, half in halves], atol=1e-7)
    """
    support.run_on_two_cpus(code)


class HardPixelsTest(unittest.TestCase):

  def setUp(self):
    rng = np.random.RandomState(0)
    self.logits = (2 * rng.randn(2, 5, 7, 4)).astype('f')
    self.labels = rng.choice([0, 1, 3, 255], (2, 5, 7, 1))

  def by_numpy(self, logits, share, power, weights):
    """The mean over the hardest, in float64; the pixels are sorted."""
    valid = self.labels[..., 0] != 255
    labels = self.labels[..., 0][valid]
    true = softmax(logits.astype('d'))[valid][np.arange(len(labels)), labels]
    values, weight = (1 - true) ** power * -np.log(true), np.array(weights or [1.] * 4)[labels]
    number = max(1, round(share * len(labels)))
    hardest = np.argsort(-values * weight)[:number]
    return (values * weight)[hardest].sum() / weight[hardest].sum()

  def found(self, loss, labels, share, weights=None):
    def build():
      logits = tf.constant(self.logits)
      value = loss(logits, tf.constant(labels), 255, weights, hard_pixels=share)
      return value, tf.gradients(value, logits)[0]
    return evaluate(build)

  def test_values_and_gradients_are_those_of_the_hardest(self):
    for loss, power in ((losses.cross_entropy, 0), (losses.focal, 2)):
      for share in (1e-9, 0.2, 0.77, 1):
        for weights in (None, [3., 1, 5, .5]):
          with self.subTest(loss=loss.__name__, share=share, weights=weights):
            value, gradient = self.found(loss, self.labels, share, weights)
            expected = [share, power, weights]
            self.assertAlmostEqual(value, self.by_numpy(self.logits, *expected), places=5)
            slope = differences(lambda logits: self.by_numpy(logits, *expected), self.logits)  # noqa: B023
            np.testing.assert_allclose(gradient, slope, atol=1e-6)

  def test_pixels_as_hard_as_the_last_share_its_place(self):
    self.logits = np.log([[[[.5, .5], [.5, .5], [.9, .1], [.1, .9]]]]).astype('f')
    labels = np.array([[[[0], [1], [0], [255]]]])
    value, gradient = self.found(losses.cross_entropy, labels, 0.3)
    self.assertAlmostEqual(value, np.log(2), places=6)
    np.testing.assert_allclose(gradient, [[[[-.25, .25], [.25, -.25], [0, 0], [0, 0]]]], atol=1e-6)
    weights = evaluate(lambda: losses._of_hardest(
        tf.constant([[[7., 3, 3], [3, 1, 9]]]), tf.constant([[[1., 1, 2], [1, 3, 0]]]), 0.6))
    # 7, 6 and one of three 3s.
    np.testing.assert_allclose(weights, [[[1, 1 / 3, 2], [1 / 3, 1, 0]]], rtol=1e-6)

  def test_mean_is_that_of_the_share_however_easy_the_others_are(self):
    rng, labels = np.random.RandomState(3), np.random.RandomState(4).choice([0, 1, 3, 255], (1, 30, 37, 1))
    self.labels, is_easy = labels, rng.rand(1, 30, 37, 1) > .15
    for margin in (12, 20, 60, 200):  # the last 5 % of the 20 % are easy, and their loss 0 at last
      self.logits = np.float32(np.where(is_easy, margin * (np.arange(4) == labels), rng.randn(1, 30, 37, 4)))
      for loss, power in ((losses.cross_entropy, 0), (losses.focal, 2)):
        value, gradient = self.found(loss, labels, 0.2)
        self.assertAlmostEqual(value / self.by_numpy(self.logits, 0.2, power, None), 1, places=5)
        np.testing.assert_allclose(gradient[is_easy[..., 0]], 0, atol=1e-7)

  def test_threshold_is_exact_among_many_pixels_of_all_sizes(self):
    spread = (10. ** np.random.RandomState(2).uniform(-37, 38, (1, 300, 401))).astype('f')
    zeros = np.where(np.random.RandomState(3).rand(*spread.shape) < .6, 0, spread)
    for values in (spread, zeros, np.minimum(zeros, 1), np.where(spread > 1e30, np.inf, zeros),
                   np.zeros_like(spread), np.full_like(spread, np.inf)):
      for share in (1e-9, 0.03, 0.5, 0.9, 0.9999999):
        kept = evaluate(lambda: losses._of_hardest(tf.constant(values), tf.ones(values.shape), share))  # noqa: B023
        number = max(1, round(share * values.size))
        last = np.sort(values.ravel())[-number]
        np.testing.assert_array_equal(kept[values > last], 1)
        np.testing.assert_array_equal(kept[values < last], 0)
        part = (number - (values > last).sum()) / (values == last).sum()
        np.testing.assert_allclose(kept[values == last], part, rtol=1e-6)

  def test_batch_without_valid_pixels_gives_zero_loss_and_gradient(self):
    value, gradient = self.found(losses.cross_entropy, np.full_like(self.labels, 255), 0.2)
    self.assertEqual(value, 0)
    np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))

  def test_share_falls_over_the_first_steps_of_training_alone(self):
    given = Settings(hard_pixels=0.2, hard_pixels_steps=40, initial_global_step=100)
    with tf.Graph().as_default(), tf.Session() as session:
      step = tf.train.get_or_create_global_step()
      logits, labels = tf.constant(self.logits), tf.constant(self.labels)
      share = losses.hard_share(given)
      parts = [losses.parts(logits, labels, given, training)['cross_entropy'] for training in (True, False)]
      session.run(tf.global_variables_initializer())
      for number, expected in ((100, 1), (110, 0.8), (140, 0.2), (999, 0.2)):
        step.load(number, session)
        found, in_training, in_evaluation = session.run([share, *parts])
        self.assertAlmostEqual(found, expected, places=6)
        self.assertAlmostEqual(in_training, self.by_numpy(self.logits, expected, 0, None), places=5)
        self.assertAlmostEqual(in_evaluation, self.by_numpy(self.logits, 1, 0, None), places=5)
    self.assertEqual(losses.hard_share(Settings(hard_pixels=0.3)), 0.3)


class PartsTest(unittest.TestCase):

  def test_parts_are_summed_by_their_weights(self):
    rng = np.random.RandomState(0)
    logits, labels = rng.randn(2, 3, 5, 4).astype('f'), rng.choice([0, 1, 3, 255], (2, 3, 5, 1))
    weights = [3., 1, 5, .5]

    def build(loss, training):
      given = Settings(loss=loss, weight_of_class=weights)
      parts = losses.parts(tf.constant(logits), tf.constant(labels), given, training)
      alone = {name: function(tf.constant(logits), tf.constant(labels), 255, weights if training else None)
               for name, function in losses.LOSSES.items()}
      return parts, losses.total(parts, given), alone

    for training in (True, False):
      parts, total, alone = evaluate(lambda: build('dice:0.5,cross_entropy,lovasz:2e0', training))  # noqa: B023
      self.assertEqual(list(parts), ['dice', 'cross_entropy', 'lovasz'])
      self.assertEqual(parts, {name: alone[name] for name in parts})
      expected = .5 * parts['dice'] + parts['cross_entropy'] + 2 * parts['lovasz']
      self.assertAlmostEqual(total, expected, places=5)
    parts, total, alone = evaluate(lambda: build('focal', True))
    self.assertEqual((parts, total), ({'focal': alone['focal']}, alone['focal']))

  def test_every_loss_can_be_named_and_nothing_else(self):
    self.assertEqual(list(settings.FLAGS_OF_LOSS), list(losses.LOSSES))
    self.assertEqual(train.make_parser().parse(['--loss', 'lovasz,focal:.25']).loss, 'lovasz,focal:.25')
    self.assertEqual(settings.weight_of_loss('lovasz,focal:.25'), {'lovasz': 1, 'focal': 0.25})
    weighed = [(f'dice:{bad}', f"dice has the weight '{bad}', which is no number above 0")
               for bad in ('', '0', '-1', 'nan', 'inf', 'x', '1:2', '1e39')]
    for text, words in (('hinge', "'hinge' is no loss; give one or several of cross_entropy, focal, dice"),
                        ('', "'' is no loss"), ('dice,', "'' is no loss"),
                        ('dice, focal', "' focal' is no loss"), ('dice,focal,dice:2', 'dice is named twice'),
                        *weighed):
      error = io.StringIO()
      with self.subTest(text), contextlib.redirect_stderr(error), self.assertRaises(SystemExit):
        train.make_parser().parse(['--loss', text])
      self.assertIn('argument --loss: ', error.getvalue())
      self.assertIn(words, error.getvalue())


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

  def test_cosine_falls_as_half_a_cosine_to_the_end_rate(self):
    params = dict(learning_rate_policy='cosine', initial_learning_rate=0.05, end_learning_rate=0.01,
                  max_iter=120, initial_global_step=7)
    # At a third of the way the cosine is 1/2, at two thirds -1/2.
    for step, rate in ((7, 0.05), (47, 0.01 + 0.04 * 0.75), (67, 0.03), (87, 0.01 + 0.04 * 0.25),
                       (127, 0.01), (300, 0.01)):
      self.assertAlmostEqual(self._rate(step, **params), rate, places=7)

  def test_warmup_raises_every_policy_in_equal_steps_from_the_initial_step(self):
    for policy in optimizers.POLICIES:
      params = dict(learning_rate_policy=policy, initial_learning_rate=0.02, max_iter=50, batch_size=10,
                    num_train=25, initial_global_step=1000)
      steps = (1000, 1001, 1003, 1004, 1010)
      whole = optimizers.rates_at(steps, Settings.from_params(params))
      risen = optimizers.rates_at(steps, Settings.from_params({**params, 'warmup_steps': 4}))
      for before, rate, share in zip(whole, risen, (0.25, 0.5, 1, 1, 1), strict=True):
        self.assertAlmostEqual(rate / before, share, places=6)
      self.assertEqual(self._rate(1001, **params, warmup_steps=4), np.float32(risen[1]))


if __name__ == '__main__':
  unittest.main()
