"""Values that the replicas of a tf.distribute strategy share, within their own code (a model_fn)."""
import tensorflow.compat.v1 as tf


def count():
  """Returns in how many replicas this code runs; 1 without a strategy."""
  return tf.distribute.get_replica_context().num_replicas_in_sync


def variable_name(variable):
  """Returns a variable's name in checkpoints; that of its operation is another one in each replica."""
  return variable.name.split(':')[0]


def mean(value):
  """Returns the mean of a tensor over the replicas, in each of them.

  Its gradient is the mean of what arrives in the replicas, so that the mean of their losses has the gradient
  of the joint batch. (ReplicaContext.all_reduce has no gradient in graphs where the value depends on a
  variable of another replica.)

  Args:
    value: float tensor of the same shape in every replica.
  """
  if count() == 1:
    return value
  with tf.get_default_graph().gradient_override_map({'Identity': 'MeanOverReplicas'}):
    passed = tf.identity(value)
  # The value comes from the other replicas, the gradient takes the way of `passed`.
  return _reduced(value) + (passed - tf.stop_gradient(passed))


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


@tf.RegisterGradient('MeanOverReplicas')
def _gradient_of_mean(_, gradient):
  return _reduced(gradient)


def _reduced(value):
  def reduce(strategy, value):
    return strategy.extended.reduce_to(tf.distribute.ReduceOp.MEAN, value, value)

  return tf.stop_gradient(tf.distribute.get_replica_context().merge_call(reduce, (value,)))
