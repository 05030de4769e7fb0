"""Learning-rate policies and the training operation."""
import math
import typing

import tensorflow.compat.v1 as tf

from nets import replicas
from nets.replicas import variable_name
from training import checkpoints, losses
from utils import devices


def poly(global_step, settings):
  """The polynomial policy (ParseNet; DeepLabv3 sec. 4.1).

  (initial - end) * (1 - min(step - initial_global_step, max_iter) / max_iter) ^ power + end
  """
  return tf.train.polynomial_decay(
      settings.initial_learning_rate, global_step - settings.initial_global_step,
      settings.max_iter, settings.end_learning_rate, power=settings.power)


def cosine(global_step, settings):
  """Half a cosine (SGDR, arXiv 1608.03983 eq. 5, without restarts), over the same steps as poly.

  (initial - end) * (1 + cos(pi * min(step - initial_global_step, max_iter) / max_iter)) / 2 + end
  """
  steps = tf.cast(tf.minimum(global_step - settings.initial_global_step, settings.max_iter), tf.float32)
  height = settings.initial_learning_rate - settings.end_learning_rate
  return height / 2 * (1 + tf.cos(steps * (math.pi / settings.max_iter))) + settings.end_learning_rate


def piecewise(global_step, settings):
  """0.1 * batch/128, a tenth of it after epochs 100, 150 and 200, as the ResNet scripts for ImageNet.

  Like the original scripts it ignores initial_learning_rate and initial_global_step.
  """
  initial = 0.1 * settings.images_per_step / 128
  batches_per_epoch = settings.num_train / settings.images_per_step
  boundaries = [int(batches_per_epoch * epoch) for epoch in (100, 150, 200)]
  return tf.train.piecewise_constant(
      global_step, boundaries, [initial * factor for factor in (1, 0.1, 0.01, 0.001)])


POLICIES = {'poly': poly, 'piecewise': piecewise, 'cosine': cosine}


def learning_rate(settings):
  """Returns the float32 scalar learning rate of the current global step.

  Args:
    settings: Settings.
  """
  return _rate(tf.cast(tf.train.get_or_create_global_step(), tf.int64), settings)


def rates_at(steps, settings):
  """Returns the learning rates of a list of global steps, a list of floats; see learning_rate."""
  with devices.cpu_session() as session:
    return list(map(float, session.run([_rate(tf.constant(step, tf.int64), settings) for step in steps])))


def _rate(global_step, settings):
  """Returns the policy's rate of a step, int64 [], times the factor of the warm-up.

  It rises to 1 in equal steps: (step - initial_global_step + 1) / warmup_steps, so that no step is lost to a
  rate of 0. The policy counts the steps of the warm-up too (arXiv 1706.02677 sec. 2.2).
  """
  rate = POLICIES[settings.learning_rate_policy](global_step, settings)
  if not settings.warmup_steps:
    return rate
  number = tf.cast(global_step - settings.initial_global_step + 1, tf.float32)
  return rate * tf.minimum(1., number / settings.warmup_steps)


def dropout_seed(settings):
  """Returns int64 [2], another one for each batch: a function of seed, step and replica alone."""
  batch = tf.train.get_or_create_global_step() * settings.accumulate_steps + _accumulated_batches(settings)
  replica = tf.distribute.get_replica_context()
  number = tf.cast(replica.replica_id_in_sync_group, tf.int64)
  return tf.stack([tf.constant(settings.seed, tf.int64),
                   tf.cast(batch, tf.int64) * replica.num_replicas_in_sync + number])


def _accumulated_batches(settings):
  """Returns int64 [], the batches of the current step whose gradients have been added up."""
  if settings.accumulate_steps == 1:
    return tf.constant(0, tf.int64)
  with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
    return tf.get_local_variable('accumulated_batches', [], tf.int64, initializer=tf.zeros_initializer())


class Step(typing.NamedTuple):
  """A training step.

  Attributes:
    train_op: the operation.
    hooks: list of the session hooks that go with it.
    measured: dict of name to tensor, over all its batches: the mean loss, and what train_op was given.
  """
  train_op: tf.Operation
  hooks: list
  measured: dict


def train_op(data_loss, weight_decay, rate, variables, settings, multipliers=None, measured=None):
  """Returns the Step of a training.

  A step is momentum SGD, the updates of batch norm's averages, and global step + 1. With accumulate_steps N
  it takes N batches, and applies the mean of their gradients; batch norm sees each batch by itself. With
  clip_gradients that gradient, of the loss with weight decay and of all replicas, is scaled down to that norm
  if it is longer; multipliers come after it, as they are about the rate. In float16 the loss is scaled
  (arXiv 1710.03740 sec. 3.2), and a step whose gradients overflow changes no variable; such steps are counted
  in loss_scale/skipped_steps. With ema the variables have averages beside them, see AveragingOptimizer.

  Args:
    data_loss: float32 scalar, of one batch.
    weight_decay: float32 scalar, losses.weight_decay of the variables; the loss is the sum of both.
    rate: float32 scalar, the learning rate.
    variables: list of the variables to train.
    settings: Settings.
    multipliers: dict of variable name to float by which its learning rate is multiplied, or None.
    measured: dict of name to tensor of one batch, or None. Of a step are the mean of floats, the sum of ints.
  """
  optimizer = (AveragingOptimizer(rate, settings.momentum, settings.ema) if settings.ema else
               tf.train.MomentumOptimizer(rate, settings.momentum))
  if settings.precision == 'fp16':
    optimizer = tf.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, CountingLossScale())
  measured = {'loss': data_loss + weight_decay, **(measured or {})}
  gradients, variables = zip(*optimizer.compute_gradients(data_loss, variables), strict=True)
  # The strategy adds up what the replicas give.
  gradients = losses.weight_decay_gradients(gradients, variables, settings.weight_decay / replicas.count(),
                                            settings.weight_decay_scope)
  pairs = list(zip(gradients, variables, strict=True))
  updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
  if settings.accumulate_steps == 1:
    step = _step(optimizer, _as_applied(pairs, settings, multipliers), updates, measured['loss'])
    return Step(step, [], measured)
  return _accumulating_step(optimizer, pairs, updates, measured, settings, multipliers)


def _accumulating_step(optimizer, pairs, updates, measured, settings, multipliers):
  """Returns the Step of several batches; pairs (gradient, variable), updates, measured are of each batch."""
  share = 1 / settings.accumulate_steps
  parts = [value * share if value.dtype.is_floating else value
           for value in (*(gradient for gradient, _ in pairs), *measured.values())]
  totals = [tf.get_local_variable(f'accumulated_{number}', part.shape, part.dtype, tf.zeros_initializer())
            for number, part in enumerate(parts)]
  batches = _accumulated_batches(settings)
  with tf.control_dependencies([measured['loss']]):  # which may depend on the number of the batch
    counted = batches.assign_add(1)
  accumulate = tf.group(*updates, counted, *(total.assign_add(part)
                                             for total, part in zip(totals, parts, strict=True)))
  whole = [total + part for total, part in zip(totals, parts, strict=True)]
  means = [(mean, variable) for mean, (_, variable) in zip(whole, pairs, strict=False)]
  measured = dict(zip(measured, whole[len(pairs):], strict=True))
  step = _step(optimizer, _as_applied(means, settings, multipliers), updates, measured['loss'])
  with tf.control_dependencies([step, *measured.values()]):
    step = tf.group(*(total.assign(tf.zeros_like(total)) for total in (*totals, batches)))
  return Step(step, [AccumulateHook(accumulate, settings.accumulate_steps)], measured)


def _as_applied(pairs, settings, multipliers):
  """Returns pairs of gradient and variable, clipped and multiplied as train_op says; writes the norm before.

  If the norm is not finite all gradients become NaN: in float16 the step is skipped, as without clipping.
  """
  gradients = [gradient for gradient, _ in pairs]
  if replicas.count() == 1 or settings.clip_gradients:  # each of several replicas has only its part
    norm = tf.linalg.global_norm(replicas.total(gradients))
    tf.summary.scalar('gradient_norm', norm)
  if settings.clip_gradients:
    gradients, _ = tf.clip_by_global_norm(gradients, settings.clip_gradients, norm)
  if multipliers:  # with momentum SGD a larger gradient is a larger rate
    gradients = [gradient * multipliers.get(variable_name(variable), 1.0)
                 for gradient, (_, variable) in zip(gradients, pairs, strict=True)]
  return [(gradient, variable) for gradient, (_, variable) in zip(gradients, pairs, strict=True)]


def _step(optimizer, gradients, updates, loss):
  """Returns the operation that applies the gradients and counts the step, whether it is skipped or not."""
  # The loss reads all variables, for weight decay: it is to be that of the variables before the step.
  with tf.control_dependencies([loss]):
    applied = optimizer.apply_gradients(gradients)
  with tf.control_dependencies([applied]):
    count = tf.train.get_or_create_global_step().assign_add(1)
  return tf.group(count, *updates)


class AveragingOptimizer(tf.train.MomentumOptimizer):
  """Momentum SGD that keeps exponential moving averages of what it trains, of which each is a slot.

  A step makes average = d * average + (1 - d) * variable, with d = min(decay, n / (9 + n)) and n the steps
  that the averages have seen, ema/steps: the first copies the variables, wherever it stands in a training,
  and the next have the decays 1/10, 2/11, ... of tf.train.ExponentialMovingAverage. A step that is skipped
  for its overflow does not count; until one does, averages are the variables' values. As in the TensorFlow
  Model Garden, batch norm's moving averages are not averaged again: they are no variables that it trains.
  """

  def __init__(self, rate, momentum, decay):
    """Args: rate, float scalar tensor; momentum, decay: floats from 0 up to, not including, 1."""
    super().__init__(rate, momentum)
    self._average_decay = decay

  def _create_slots(self, var_list):
    super()._create_slots(var_list)
    for variable in var_list:
      self._zeros_slot(variable, checkpoints.AVERAGE, checkpoints.AVERAGE)
    self._averaged_steps = tf.get_variable('ema/steps', [], tf.int64, tf.zeros_initializer(), trainable=False)
    with tf.init_scope():  # in float16 this is within a condition
      tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, self._begun(var_list))

  def _begun(self, var_list):
    """Returns the operation, of a session's start, that copies the variables if no step has been averaged."""
    copies = tf.distribute.get_strategy().experimental_local_results  # of each replica
    pairs = [pair for variable in var_list for pair in zip(
        copies(self.get_slot(variable, checkpoints.AVERAGE)), copies(variable), strict=True)]
    is_first = tf.equal(copies(self._averaged_steps)[0].read_value(), 0)
    return tf.group(*(average.assign(tf.where(is_first, variable.read_value(), average.read_value()))
                      for average, variable in pairs))

  def _prepare(self):
    super()._prepare()
    steps = tf.cast(self._averaged_steps.read_value(), tf.float32)
    self._current_decay = tf.minimum(self._average_decay, steps / (9 + steps))

  def _resource_apply_dense(self, grad, var):
    with tf.control_dependencies([super()._resource_apply_dense(grad, var)]):
      average = self.get_slot(var, checkpoints.AVERAGE)
      kept = self._current_decay * average.read_value()  # of the first step 0, so that it copies bit by bit
      return average.assign(kept + (1 - self._current_decay) * var.read_value(), read_value=False)

  def _finish(self, update_ops, name_scope):
    with tf.control_dependencies(update_ops):
      return tf.group(self._averaged_steps.assign_add(1, read_value=False), name=name_scope)


class CountingLossScale(tf.mixed_precision.DynamicLossScale):
  """Halves the scale when gradients overflow, doubles it after 2,000 steps without, and counts the former."""

  def update(self, grads):
    if tf.distribute.in_cross_replica_context():  # of replicas' values each
      extended = tf.distribute.get_strategy().extended
      joined = extended.call_for_each_replica(losses.vectors_joined, args=(grads,))
    else:
      joined = losses.vectors_joined(grads)
    update, is_finite = super().update(joined)
    skipped = tf.get_variable('loss_scale/skipped_steps', [], tf.int64, tf.zeros_initializer(),
                              trainable=False)
    return tf.group(update, skipped.assign_add(tf.cast(tf.logical_not(is_finite), tf.int64))), is_finite


class AccumulateHook(tf.train.SessionRunHook):
  """Before every training step, runs the batches whose gradients are only added up."""

  def __init__(self, accumulate, steps):
    """Args: accumulate, the operation of one batch; steps, all batches of a training step."""
    self._accumulate, self._steps = accumulate, steps

  def before_run(self, run_context):
    for _ in range(self._steps - 1):
      run_context.session.run(self._accumulate)
