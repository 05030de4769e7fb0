"""Values that the replicas of a tf.distribute strategy share, within their own code (a model_fn)."""
import tensorflow.compat.v1 as tf


def count():
  """Returns in how many replicas this code runs; 1 without a strategy."""
  return tf.distribute.get_replica_context().num_replicas_in_sync


def variable_name(variable):
  """Returns a variable's name in checkpoints; that of its operation is another one in each replica."""
  return variable.name.split(':')[0]


def mean(value):
  """Returns the mean of a tensor over the replicas, in each of them; it has no gradient.

  Args:
    value: float tensor of the same shape in every replica.
  """
  if count() == 1:
    return tf.stop_gradient(value)
  return tf.stop_gradient(tf.distribute.get_replica_context().merge_call(
      lambda strategy, each: strategy.extended.reduce_to(tf.distribute.ReduceOp.MEAN, each, each), (value,)))


def joint_mean(value):
  """Returns the mean of a tensor over the replicas; its gradient is that of this replica's own value.

  So the mean of the replicas' gradients, which the strategy applies, is that of a function of the mean.
  """
  return value if count() == 1 else value + (mean(value) - tf.stop_gradient(value))


def total(tensors):
  """Returns a list of float tensors, each summed over the replicas, in each of them."""
  if count() == 1:
    return tensors
  return tf.distribute.get_replica_context().merge_call(
      lambda strategy, *values: strategy.extended.batch_reduce_to(
          tf.distribute.ReduceOp.SUM, [(value, value) for value in values]), tensors)


def together(measured):
  """Returns measured, a dict of tensors, over this machine's replicas: the mean of floats, the sum of ints.

  No other machine takes part, so that one alone may fetch it.
  """
  if count() == 1:
    return dict(measured)

  def reduce(strategy, *values):
    copies = [strategy.experimental_local_results(value) for value in values]
    return [tf.add_n(c) / len(c) if c[0].dtype.is_floating else tf.add_n(c) for c in copies]

  values = tf.distribute.get_replica_context().merge_call(reduce, tuple(measured.values()))
  return dict(zip(measured, values, strict=True))


def jointly(function, variable):
  """Returns function(value): once for all replicas, each of which has a part of the value.

  Args:
    function: function of a tensor that returns a tensor or a dict of tensors.
    variable: one with VariableSynchronization.ON_READ; its aggregation says how the parts make the value.
  """
  if count() == 1:
    return function(variable.read_value())
  return tf.distribute.get_replica_context().merge_call(
      lambda strategy, variable: function(strategy.extended.read_var(variable)), (variable,))
