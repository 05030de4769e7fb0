"""The training loss: one of LOSSES over the valid pixels, plus weight decay."""
import statistics

import tensorflow.compat.v1 as tf

from utils import replicas


def valid_pixels(labels, ignore_label):
  """Returns bool, the shape of labels: which pixels count in the loss and in the metrics."""
  return tf.not_equal(labels, ignore_label)


def cross_entropy(logits, labels, ignore_label, weight_of_class=None):
  """Returns the mean cross entropy over the pixels whose label is not `ignore_label`.

  A weighted sum, not a selection of pixels: shapes stay static, and a batch without any valid pixel gives
  0 and no gradient instead of NaN. Under several replicas these are the valid pixels of all of them: the mean
  of the replicas' losses is the loss of their joint batch.

  Args:
    logits: float32 [B, H, W, K].
    labels: int64 [B, H, W, 1], 0..K-1 or ignore_label; int32 would be left to the host by a GPU.
    ignore_label: int.
    weight_of_class: K floats by which each class's pixels count, or None: all count the same.

  Returns:
    float32 scalar.
  """
  return _weighted_mean(*_per_pixel(logits, labels, ignore_label, weight_of_class))


def focal(logits, labels, ignore_label, weight_of_class=None):
  """Returns the mean focal loss, (1 - p)^2 * -log(p), p that of the true class (arXiv 1708.02002 sec. 3.2).

  Easy pixels count less. Arguments and mean are those of cross_entropy; gamma is the paper's 2, and the
  weights take the place of its alpha.
  """
  per_pixel, weights = _per_pixel(logits, labels, ignore_label, weight_of_class)
  return _weighted_mean(per_pixel * tf.square(tf.math.expm1(-per_pixel)), weights)


# --loss; all have the arguments of cross_entropy.
LOSSES = {'cross_entropy': cross_entropy, 'focal': focal}


def _per_pixel(logits, labels, ignore_label, weight_of_class):
  """Returns the cross entropy of each pixel, and what it weighs, or 0: float32 [B, H, W]."""
  labels = tf.squeeze(labels, axis=3)  # [B, H, W]
  valid = valid_pixels(labels, ignore_label)
  labels = tf.where(valid, labels, tf.zeros_like(labels))
  per_pixel = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
  weights = tf.cast(valid, tf.float32)
  if weight_of_class:
    weights *= tf.gather(tf.constant(weight_of_class, tf.float32), labels)
  return per_pixel, weights


def _weighted_mean(values, weights):
  """Returns a float32 scalar, whose mean over the replicas is that of all of their pixels."""
  return tf.math.divide_no_nan(tf.reduce_sum(values * weights), replicas.mean(tf.reduce_sum(weights)))


def median_frequency_weights(class_pixels, limit):
  """Returns a list of floats: the median share of pixels over each class's own (arXiv 1411.4734 sec. 6.3.2).

  Departs from the paper: they are bounded. A class of a few wrong pixels in a large data set would weigh
  100,000 times as much as the others, and its pixels alone would be learnt.

  Args:
    class_pixels: list of K ints; a class without pixels gets 1, and does not count in the median.
    limit: float of 1 or more; weights are from 1 / limit to limit.
  """
  present = [pixels for pixels in class_pixels if pixels]
  return [min(max(statistics.median(present) / pixels, 1 / limit), limit) if pixels else 1.0
          for pixels in class_pixels]


def weight_decay(variables, rate):
  """Returns rate * sum of 0.5*|w|^2, a float32 scalar, over all the given variables.

  As in the original scripts these are all trainable variables, biases and batch norm's included.
  """
  return rate * tf.add_n([tf.nn.l2_loss(part) for part in vectors_joined(variables)])


def weight_decay_gradients(gradients, variables, rate):
  """Returns a list of tensors: the gradients, of which a None counts as 0, plus those of weight_decay."""
  gradients = [tf.zeros(variable.shape) if gradient is None else gradient
               for gradient, variable in zip(gradients, variables, strict=True)]
  for gradient, variable in zip(gradients, variables, strict=True):
    gradient.set_shape(variable.shape)  # both are to be sorted alike
  sums = [part + rate * values for part, values in
          zip(vectors_joined(gradients), vectors_joined(variables), strict=True)]
  vectors = [variable for variable in variables if variable.shape.rank == 1]
  parts = iter(tf.split(sums.pop(), [int(vector.shape[0]) for vector in vectors]) if vectors else ())
  large = iter(sums)
  return [next(parts if variable.shape.rank == 1 else large) for variable in variables]


def vectors_joined(tensors):
  """Returns a list of the tensors that are no vectors, and last, if there are any, all vectors as one.

  Two thirds of a network's variables are vectors, so small that a GPU takes no longer for all of them at once
  than for each.
  """
  vectors = [tensor for tensor in tensors if tensor.shape.rank == 1]
  others = [tensor for tensor in tensors if tensor.shape.rank != 1]
  return [*others, tf.concat(vectors, 0)] if vectors else others
