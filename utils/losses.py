"""The training loss: cross entropy over the valid pixels plus weight decay."""
import statistics

import tensorflow.compat.v1 as tf

from utils import replicas


def valid_pixels(labels, ignore_label):
  """Returns bool, the shape of labels: which pixels count in the loss and in the metrics."""
  return tf.not_equal(labels, ignore_label)


def cross_entropy(logits, labels, ignore_label, class_weights=None):
  """Returns the mean cross entropy over the pixels whose label is not `ignore_label`.

  A weighted sum, not a selection of pixels: shapes stay static, and a batch without any valid pixel gives
  0 and no gradient instead of NaN. Under several replicas these are the valid pixels of all of them: the mean
  of the replicas' losses is the loss of their joint batch.

  Args:
    logits: float32 [B, H, W, K].
    labels: int32 [B, H, W, 1], 0..K-1 or ignore_label.
    ignore_label: int.
    class_weights: K floats by which each class's pixels count, or None: all count the same.

  Returns:
    float32 scalar.
  """
  labels = tf.squeeze(labels, axis=3)  # [B, H, W]
  valid = valid_pixels(labels, ignore_label)
  labels = tf.where(valid, labels, tf.zeros_like(labels))
  per_pixel = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
  weights = tf.cast(valid, tf.float32)
  if class_weights:
    weights *= tf.gather(tf.constant(class_weights, tf.float32), labels)
  return tf.math.divide_no_nan(tf.reduce_sum(per_pixel * weights), replicas.mean(tf.reduce_sum(weights)))


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
  return rate * tf.add_n([tf.nn.l2_loss(variable) for variable in variables])
