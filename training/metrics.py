"""Segmentation scores, all computed from one confusion matrix."""
import tensorflow.compat.v1 as tf

from nets import replicas
from utils.scores import iou_tag


def confusion_matrix(labels, predictions, num_classes, ignore_label, deterministic=False):
  """Counts pixels by true and predicted class.

  Args:
    labels: int64 [B, H, W, 1], 0..K-1 or ignore_label; pixels with ignore_label are left out.
    predictions: int64 [B, H, W, 1], 0..K-1.
    num_classes: int, K.
    ignore_label: int, which may lie inside 0..K-1.
    deterministic: bool, count on the host: on a GPU TensorFlow refuses to count if results must not vary.

  Returns:
    int64 [K, K]; rows are true classes, columns predicted ones.
  """
  cells = num_classes * num_classes
  cell = labels * num_classes + predictions
  cell = tf.where(tf.equal(labels, ignore_label), cells * tf.ones_like(cell), cell)
  with tf.device('/cpu:0' if deterministic else None):
    # Its size is a constant, which XLA needs; that of tf.math.bincount follows from the largest value.
    counts = tf.raw_ops.DenseBincount(input=tf.reshape(cell, [-1]), size=tf.constant(cells + 1, tf.int64),
                                      weights=tf.zeros([0], tf.int32))
  return tf.cast(tf.reshape(counts[:cells], [num_classes, num_classes]), tf.int64)


def iou_per_class(matrix):
  """Returns float64 [K]: intersection over union; 0 for a class neither labelled nor predicted."""
  intersection, union = _intersection_and_union(matrix)
  return intersection / tf.maximum(union, 1)


def mean_iou(matrix):
  """Returns the float64 scalar mean of iou_per_class over the classes that are labelled or predicted."""
  _, union = _intersection_and_union(matrix)
  present = tf.reduce_sum(tf.cast(union > 0, tf.float64))
  return tf.reduce_sum(iou_per_class(matrix)) / tf.maximum(present, 1)


def pixel_accuracy(matrix):
  """Returns the float64 scalar share of correctly classified pixels."""
  matrix = tf.cast(matrix, tf.float64)
  return tf.linalg.trace(matrix) / tf.maximum(tf.reduce_sum(matrix), 1)


def evaluation_metrics(matrix, class_names):
  """Returns the Estimator's eval_metric_ops for the confusion matrices of the batches.

  All of them read one int64 [K, K] variable that sums the batches' matrices, those of all replicas.

  Args:
    matrix: int64 [K, K], one batch's confusion_matrix.
    class_names: list of K str.

  Returns:
    dict of (value, update_op): the scalars mean_iou, px_accuracy and iou_tag of each
    class, and confusion_matrix, int64 [K, K].
  """
  total = tf.get_variable(
      'confusion_matrix', matrix.shape, tf.int64, tf.zeros_initializer(), trainable=False,
      collections=[tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES],
      synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.SUM)
  update = tf.group(total.assign_add(matrix))

  def values(total):
    iou = iou_per_class(total)
    scores = {'mean_iou': mean_iou(total), 'px_accuracy': pixel_accuracy(total)}
    scores.update({iou_tag(name): iou[index] for index, name in enumerate(class_names)})
    # Event files take scalars of float32; scores keep float64 only inside.
    scores = {name: tf.cast(score, tf.float32) for name, score in scores.items()}
    return {**scores, 'confusion_matrix': total}

  return {name: (value, update) for name, value in replicas.jointly(values, total).items()}


def _intersection_and_union(matrix):
  matrix = tf.cast(matrix, tf.float64)
  intersection = tf.linalg.diag_part(matrix)
  return intersection, tf.reduce_sum(matrix, 0) + tf.reduce_sum(matrix, 1) - intersection
