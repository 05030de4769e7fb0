"""Training steps out of several batches, and in float16, against numbers worked out by hand."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests import support
from training import optimizers
from utils.settings import Settings

pytestmark = [pytest.mark.compat, pytest.mark.slow]


SHAPES = {'net/conv/weights': (1, 1, 2, 3), 'net/depthwise_weights': (3, 3, 2, 1), 'net/conv/biases': (5,),
          'head/gamma': (3,)}


def numbers(seed):
  """Returns name -> float64 array of SHAPES."""
  rng = np.random.RandomState(seed)
  return {name: rng.randn(*shape) for name, shape in SHAPES.items()}


class ReferenceTest(unittest.TestCase):
  """Some steps on the loss factor * sum(slope * weight), beside the same in NumPy."""

  def trained(self, factors, multipliers=None, **settings):
    """Returns name -> value of all variables after a step for each row of factors, one of a batch each."""
    settings = Settings(accumulate_steps=len(factors[0]), weight_decay=0.1, **settings)
    with tf.Graph().as_default():
      factor = tf.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices(
          np.float32(factors).ravel())).get_next()
      tf.train.get_or_create_global_step()
      weights = [tf.get_variable(name, initializer=np.float32(value)) for name, value in numbers(0).items()]
      slopes = [np.float32(value) for value in numbers(1).values()]
      loss = factor * tf.add_n([tf.reduce_sum(s * w) for s, w in zip(slopes, weights, strict=True)])
      step = optimizers.train_op(loss, 0., tf.constant(0.5), weights, settings, multipliers)
      with tf.train.MonitoredSession(hooks=step.hooks) as session:
        for _ in factors:
          session.run(step.train_op)
        return session._tf_sess().run({v.op.name: v for v in tf.global_variables()})

  def check(self, factors, multipliers=None, **settings):
    found = self.trained(factors, multipliers, **settings)
    for name, value in reference(factors, multipliers or {}, **settings).items():
      np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)

  def test_gradients_longer_than_the_norm_are_scaled_to_it(self):
    # Their norms are about 5.8, 13.8 and 0.66: two are clipped.
    self.check([[1], [-2.5], [0.01]])
    self.check([[1], [-2.5], [0.01]], clip_gradients=4.)

  def test_the_mean_of_batches_is_clipped_before_its_rates_are_multiplied(self):
    multipliers = {'head/gamma': 10., 'net/conv/weights': 3.}
    self.check([[1, 5, -1], [2, -2, 4]], multipliers, clip_gradients=3.)

  def test_overflow_in_float16_is_skipped_with_clipping_too(self):
    for bad in (np.inf, np.nan):
      found = self.trained([[1], [bad], [2]], precision='fp16', clip_gradients=4.)
      self.assertEqual((found['loss_scale/skipped_steps'], found['global_step']), (1, 3))
      for name, value in reference([[1], [2]], {}, clip_gradients=4.).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


  def test_weight_decay_can_leave_out_all_but_the_weights_of_full_convolutions(self):
    self.check([[1], [2], [3]], weight_decay_scope='weights')
    self.check([[1, 2], [3, 4]], weight_decay_scope='weights', clip_gradients=2.)


  def test_averages_copy_the_first_step_and_then_follow_by_a_rising_decay(self):
    self.check([[2], [-3], [1]], ema=0.999)  # decays 0, 1/10, 2/11
    self.check([[2], [-3], [1], [4]], ema=0.1)  # 0, 1/10 and then the limit
    self.check([[1, 2], [-2, -7], [3, 3]], {'head/gamma': 10.}, ema=0.15, clip_gradients=3.)

  def test_averages_begin_with_the_variables_and_steps_that_are_skipped_leave_them(self):
    found = self.trained([[np.inf], [np.nan]], precision='fp16', ema=0.999)
    self.assertEqual((found['ema/steps'], found['loss_scale/skipped_steps']), (0, 2))
    for name, value in numbers(0).items():
      np.testing.assert_array_equal(found[f'{name}/ExponentialMovingAverage'], np.float32(value))
      np.testing.assert_array_equal(found[name], np.float32(value))

  def test_skipped_step_leaves_the_averages(self):
    found = self.trained([[1], [np.inf], [2], [np.nan], [-4]], precision='fp16', ema=0.999)
    self.assertEqual((found['ema/steps'], found['loss_scale/skipped_steps']), (3, 2))
    for name, value in reference([[1], [2], [-4]], {}, ema=0.999).items():
      np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def reference(factors, multipliers, clip_gradients=0., weight_decay_scope='all', ema=0.):
  """Returns name -> value of the variables after momentum SGD in float64; see ReferenceTest.trained."""
  weights, slopes, averages = numbers(0), numbers(1), numbers(2)
  momenta = {name: 0. for name in SHAPES}
  for number, row in enumerate(factors):
    average_decay = min(ema, number / (9 + number))
    decay = {name: 0.1 * (weight_decay_scope == 'all' or name == 'net/conv/weights') for name in SHAPES}
    gradients = {name: np.mean(row) * slopes[name] + decay[name] * weights[name] for name in SHAPES}
    norm = np.sqrt(sum((gradient ** 2).sum() for gradient in gradients.values()))
    scale = min(1, clip_gradients / norm) if clip_gradients else 1
    for name, gradient in gradients.items():
      momenta[name] = 0.9 * momenta[name] + scale * gradient * multipliers.get(name, 1)
      weights[name] = weights[name] - 0.5 * momenta[name]
      averages[name] = average_decay * averages[name] + (1 - average_decay) * weights[name]
  return weights | ({f'{name}/ExponentialMovingAverage': averages[name] for name in SHAPES} if ema else {})


class TrainOpTest(unittest.TestCase):

  def steps(self, losses, precision='fp32', accumulate_steps=1, weight_decay=0.):
    """Runs a step for each group of factors f of the loss f * w; returns w and the global step after each."""
    with tf.Graph().as_default():
      factor = tf.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices(
          np.float32(losses).ravel())).get_next()
      tf.train.get_or_create_global_step()
      weight = tf.get_variable('w', [], initializer=tf.zeros_initializer())
      step = optimizers.train_op(
          factor * weight, 0., tf.constant(0.5), [weight],
          Settings(weight_decay=weight_decay, precision=precision, accumulate_steps=accumulate_steps))
      seen = []
      op, hooks = step.train_op, step.hooks
      with tf.train.MonitoredSession(hooks=hooks) as session:
        for _ in losses:
          session.run(op)
          seen.append(session.run([weight, tf.train.get_global_step()]) if not hooks else None)
        raw = session._tf_sess()
        skipped = [v for v in tf.global_variables() if v.op.name == 'loss_scale/skipped_steps']
        return raw.run([weight, tf.train.get_global_step(), skipped]), seen

  def test_step_of_three_batches_takes_their_mean_gradient(self):
    # Momentum SGD: w = -0.5 * g1, then -0.5 * (g2 + 0.9 * g1) more, with g1 = (1+2+6)/3 and g2 = (0+3-9)/3.
    (weight, step, _), _ = self.steps([[1, 2, 6], [0, 3, -9]], accumulate_steps=3)
    self.assertAlmostEqual(weight, -0.5 * 3 - 0.5 * (-2 + 2.7), places=6)
    self.assertEqual(step, 2)

  def test_what_is_measured_is_of_all_batches_of_a_step(self):
    counts = np.int64([[[4, 0], [2, 1 << 40]], [[0, 7], [0, 0]]])
    for accumulate_steps, losses, parts, sums in (
        (3, [0, -0.5 * 3 * -2], [3, -2], 2 * [[[4, 14], [2, 1 << 40]]]),
        (1, [0, -0.5 * 2], [1, 2], counts)):
      with tf.Graph().as_default():
        factor, matrix = tf.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices((
            np.float32([1, 2, 6, 0, 3, -9]), counts[[0, 1, 1, 1, 0, 1]]))).get_next()
        tf.train.get_or_create_global_step()
        weight = tf.get_variable('w', [], initializer=tf.zeros_initializer())
        step = optimizers.train_op(factor * weight, 0., tf.constant(0.5), [weight], Settings(
            weight_decay=0., accumulate_steps=accumulate_steps), None, {'part': factor, 'matrix': matrix})
        with tf.train.MonitoredSession(hooks=step.hooks) as session:
          for loss, part, total in zip(losses, parts, sums, strict=True):
            _, found = session.run([step.train_op, step.measured])
            self.assertAlmostEqual(found['loss'], loss, places=6)
            self.assertAlmostEqual(found['part'], part, places=6)
            np.testing.assert_array_equal(found['matrix'], total)

  def test_overflow_in_float16_changes_nothing_and_is_counted(self):
    (weight, step, skipped), seen = self.steps([[2], [np.inf], [4]], precision='fp16')
    self.assertEqual([at for _, at in seen], [1, 2, 3])
    self.assertAlmostEqual(seen[1][0], -1, places=6)  # as after the first step
    self.assertAlmostEqual(weight, -1 - 0.5 * (4 + 0.9 * 2), places=6)
    self.assertEqual((step, skipped), (3, [1]))

  def test_weight_decay_is_part_of_the_gradient(self):
    # w = -0.5 * 2 = -1; then the gradient is 3 + 0.1 * -1, and w = -1 - 0.5 * (0.9 * 2 + 2.9).
    for precision in ('fp32', 'fp16'):
      (weight, _, _), _ = self.steps([[2], [3]], precision, weight_decay=0.1)
      self.assertAlmostEqual(weight, -3.35, places=5)

  def test_two_replicas_skip_together_and_decay_once(self):
    code = """
      import numpy as np
      from training import optimizers
      from utils.settings import Settings
      strategy = two_replicas()

      def replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        table = tf.constant([[1, 3], [np.inf, 1], [4, 4]], tf.float32)
        factor = tf.gather(table[tf.cast(tf.train.get_or_create_global_step(), tf.int32)], number)
        weights = [tf.get_variable(name, shape, initializer=tf.zeros_initializer())
                   for name, shape in (('matrix', [1, 1]), ('first', [2]), ('second', [1]))]
        loss = factor * tf.add_n([tf.reduce_sum(weight) for weight in weights])
        step = optimizers.train_op(loss, 0., tf.constant(0.5), weights,
                                   Settings(precision='fp16', weight_decay=0.1))
        return tf.group(step.train_op)

      with tf.Graph().as_default(), strategy.scope():
        tf.train.get_or_create_global_step()
        steps = strategy.experimental_local_results(strategy.extended.call_for_each_replica(replica))
        with tf.Session() as session:
          session.run(tf.global_variables_initializer())
          for _ in range(3):
            session.run(steps)
          # The replicas' gradients are added up: 1 + 3; nothing; 8 + 0.1 * -2.
          for name in ('matrix', 'first', 'second'):
            for variable in tf.trainable_variables(name):
              np.testing.assert_allclose(session.run(variable), -2 - 0.5 * (0.9 * 4 + 7.8), rtol=1e-5)
          skipped, = tf.global_variables('loss_scale/skipped_steps')[:1]
          assert session.run(skipped) == 1
    """
    support.run_on_two_cpus(code)

  def test_two_replicas_clip_the_sum_of_their_gradients(self):
    code = """
      import numpy as np
      from training import optimizers
      from utils.settings import Settings
      strategy = two_replicas()

      def replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        table = tf.constant([[9, -7], [np.inf, 1], [0.5, 0.25]], tf.float32)
        factor = tf.gather(table[tf.cast(tf.train.get_or_create_global_step(), tf.int32)], number)
        weights = [tf.get_variable(name, [2], initializer=tf.zeros_initializer()) for name in ('one', 'two')]
        loss = factor * tf.add_n([tf.reduce_sum(weight) for weight in weights])
        step = optimizers.train_op(loss, 0., tf.constant(0.5), weights,
                                   Settings(precision='fp16', weight_decay=0., clip_gradients=2., ema=0.9))
        return tf.group(step.train_op)

      with tf.Graph().as_default(), strategy.scope():
        tf.train.get_or_create_global_step()
        steps = strategy.experimental_local_results(strategy.extended.call_for_each_replica(replica))
        with tf.Session() as session:
          session.run(tf.global_variables_initializer())
          for _ in range(3):
            session.run(steps)
          # The sums are 2 in each of four places, of norm 4, which becomes 2; nothing; 0.75, of norm 1.5.
          for variable in tf.trainable_variables():
            np.testing.assert_allclose(session.run(variable), -0.5 - 0.5 * (0.9 * 1 + 0.75), rtol=1e-5)
          averages = [variable for variable in tf.global_variables()
                      if variable.op.name.endswith('/ExponentialMovingAverage')]
          assert len(averages) == 2, averages
          for variable in averages:
            for value in session.run(strategy.experimental_local_results(variable)):  # on both devices
              np.testing.assert_allclose(value, 0.1 * -0.5 + 0.9 * -1.325, rtol=1e-5)
          steps, = tf.global_variables('ema/steps')
          assert session.run(strategy.experimental_local_results(steps)) == (2, 2)
    """
    support.run_on_two_cpus(code)
