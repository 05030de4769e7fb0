"""Training steps out of several batches, and in float16, against numbers worked out by hand."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests import support
from utils import optimizers
from utils.settings import Settings

pytestmark = pytest.mark.compat


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
      from utils import optimizers
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
