"""Learning-rate policies and the training operation."""
import tensorflow.compat.v1 as tf


def poly(global_step, params):
  """The polynomial policy (ParseNet; DeepLabv3 sec. 4.1).

  (initial - end) * (1 - min(step - initial_global_step, max_iter) / max_iter) ^ power + end
  """
  return tf.train.polynomial_decay(
      params['initial_learning_rate'], global_step - params['initial_global_step'],
      params['max_iter'], params['end_learning_rate'], power=params['power'])


def piecewise(global_step, params):
  """0.1 * batch/128, a tenth of it after epochs 100, 150 and 200, as the ResNet scripts for ImageNet.

  Like the original scripts it ignores initial_learning_rate and initial_global_step.
  """
  initial = 0.1 * params['batch_size'] / 128
  batches_per_epoch = params['num_train'] / params['batch_size']
  boundaries = [int(batches_per_epoch * epoch) for epoch in (100, 150, 200)]
  return tf.train.piecewise_constant(
      global_step, boundaries, [initial * factor for factor in (1, 0.1, 0.01, 0.001)])


POLICIES = {'poly': poly, 'piecewise': piecewise}


def learning_rate(params):
  """Returns the float32 scalar learning rate of the current global step.

  Args:
    params: dict with learning_rate_policy, a name in POLICIES, and what that policy reads.
  """
  global_step = tf.cast(tf.train.get_or_create_global_step(), tf.int64)
  return POLICIES[params['learning_rate_policy']](global_step, params)


def train_op(loss, rate, variables, momentum, multipliers=None):
  """Returns the operation of one step: momentum SGD, batch-norm updates, global step + 1.

  Args:
    loss: float32 scalar.
    rate: float32 scalar, the learning rate.
    variables: list of the variables to train.
    momentum: float.
    multipliers: dict of variable name to float by which its learning rate is multiplied, or None.
  """
  optimizer = tf.train.MomentumOptimizer(rate, momentum)
  gradients = optimizer.compute_gradients(loss, variables)
  if multipliers:  # with momentum SGD a larger gradient is a larger rate
    gradients = [(gradient * multipliers.get(variable.op.name, 1.0), variable)
                 for gradient, variable in gradients]
  minimize = optimizer.apply_gradients(gradients, tf.train.get_or_create_global_step())
  return tf.group(minimize, *tf.get_collection(tf.GraphKeys.UPDATE_OPS))
