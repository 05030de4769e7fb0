"""The training loss: of LOSSES one, or a weighted sum, over the valid pixels; plus weight decay."""
import itertools
import statistics

import tensorflow.compat.v1 as tf

from nets import replicas
from nets.replicas import variable_name
from utils.settings import FLAGS_OF_LOSS, weight_of_loss


def valid_pixels(labels, ignore_label):
  """Returns bool, the shape of labels: which pixels count in the loss."""
  return tf.not_equal(labels, ignore_label)


def cross_entropy(logits, labels, ignore_label, weight_of_class=None, hard_pixels=1, label_smoothing=0):
  """Returns the mean cross entropy over the pixels whose label is not `ignore_label`.

  A weighted sum, not a selection of pixels: shapes stay static, and a batch without any valid pixel gives
  0 and no gradient instead of NaN. Under several replicas these are the valid pixels of all of them: the mean
  of the replicas' losses is the loss of their joint batch.

  Args:
    logits: float32 [B, H, W, K].
    labels: int64 [B, H, W, 1], 0..K-1 or ignore_label; int32 would be left to the host by a GPU.
    ignore_label: int.
    weight_of_class: K floats by which each class's pixels count, or None: all count the same.
    hard_pixels: float or float64 scalar, above 0 and up to 1: the share of the valid pixels, those of the
      largest loss, whose mean it is; see hard_share.
    label_smoothing: float in [0, 1), the part of a label that all K classes share (arXiv 1512.00567 sec. 7).

  Returns:
    float32 scalar.
  """
  per_pixel, weights = _per_pixel(logits, labels, ignore_label, weight_of_class)
  if label_smoothing:
    of_all_classes = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=3)
    per_pixel = (1 - label_smoothing) * per_pixel + label_smoothing * of_all_classes
  return _weighted_mean(per_pixel, _of_hardest(per_pixel, weights, hard_pixels))


def focal(logits, labels, ignore_label, weight_of_class=None, hard_pixels=1):
  """Returns the mean focal loss, (1 - p)^2 * -log(p), p that of the true class (arXiv 1708.02002 sec. 3.2).

  Easy pixels count less. Arguments and mean are those of cross_entropy; gamma is the paper's 2, and the
  weights take the place of its alpha.
  """
  per_pixel, weights = _per_pixel(logits, labels, ignore_label, weight_of_class)
  per_pixel *= tf.square(tf.math.expm1(-per_pixel))
  return _weighted_mean(per_pixel, _of_hardest(per_pixel, weights, hard_pixels))


def dice(logits, labels, ignore_label, weight_of_class=None):
  """Returns 1 - Dice, the soft Dice coefficient of V-Net (arXiv 1606.04797 sec. 3), mean over the classes.

  A class's coefficient is 2 * sum(p * t) / (sum(p^2) + sum(t^2)), over the batch's valid pixels, p being its
  softmax probability and t 1 where it is the label, else 0. V-Net has one class; here it is the mean over
  those that the batch has a label of. Under several replicas these are the sums over all of their pixels:
  the loss is that of their joint batch. See cross_entropy for the arguments; weight_of_class weighs the mean.
  """
  probabilities, truth = _valid_probabilities(logits, labels, ignore_label)
  # Row by row: a sum of millions of values one after the other would lose digits.
  sums = tf.stack([tf.reduce_sum(tf.reduce_sum(values, axis=2), [0, 1])
                   for values in (probabilities * truth, tf.square(probabilities), truth)])
  overlap, squares, pixels = tf.unstack(replicas.joint_mean(sums))  # [K] each
  return _mean_of_present(1 - 2 * tf.math.divide_no_nan(overlap, squares + pixels), pixels, weight_of_class)


def lovasz(logits, labels, ignore_label, weight_of_class=None):
  """Returns the Lovasz-Softmax loss (arXiv 1705.08790 sec. 3): a convex surrogate of 1 - mean IoU.

  The mean is over the classes that the batch has a label of, and each class's IoU that of all valid pixels of
  the batch. Under several replicas each has the loss of its own batch, and their mean is minimised: an order
  of all of their pixels would have to be exchanged. See cross_entropy for the arguments; weight_of_class
  weighs the mean.
  """
  num_classes = int(logits.shape[-1])
  probabilities, truth = (tf.reshape(tf.transpose(values, [3, 0, 1, 2]), [num_classes, -1])
                          for values in _valid_probabilities(logits, labels, ignore_label))
  errors = tf.abs(truth - probabilities)  # [K, B * H * W], 0 where the label is ignored, which adds nothing
  pixels = tf.reduce_sum(truth, axis=1)
  fixed = tf.stop_gradient(errors)

  def slopes(number):  # sorting is slow: only for classes that count
    return tf.cond(pixels[number] > 0, lambda: _lovasz_slopes(fixed[number], truth[number]),
                   lambda: tf.zeros_like(fixed[number]))

  # As long as the order of the errors stays, the loss is a linear function of them.
  factors = tf.stop_gradient(tf.map_fn(slopes, tf.range(num_classes), fn_output_signature=tf.float32))
  return _mean_of_present(tf.reduce_sum(errors * factors, axis=1), pixels, weight_of_class)


# What --loss may name; all have the first four arguments of cross_entropy, and those of FLAGS_OF_LOSS.
LOSSES = {'cross_entropy': cross_entropy, 'focal': focal, 'dice': dice, 'lovasz': lovasz}


def parts(logits, labels, settings, training):
  """Returns dict: name -> float32 scalar of each loss that settings.loss names, unweighted.

  Args:
    logits, labels: see cross_entropy.
    settings: Settings.
    training: bool; in evaluation all pixels count the same, and labels are not smoothed.
  """
  names = weight_of_loss(settings.loss)
  if not training:
    return {name: LOSSES[name](logits, labels, settings.ignore_label) for name in names}
  options = {'hard_pixels': hard_share(settings), 'label_smoothing': settings.label_smoothing}
  return {name: LOSSES[name](logits, labels, settings.ignore_label, settings.weight_of_class,
                             **{flag: options[flag] for flag in FLAGS_OF_LOSS[name]}) for name in names}


def total(parts, settings):
  """Returns the sum of the parts, a dict of name to float32 scalar, by the weights of settings.loss."""
  weights = weight_of_loss(settings.loss)
  return tf.add_n([part if weights[name] == 1 else weights[name] * part for name, part in parts.items()])


def hard_share(settings):
  """Returns the share of the valid pixels that the loss of this step is the mean of, a float or a scalar.

  It falls from 1 at initial_global_step, linearly over hard_pixels_steps, to hard_pixels, as in Google's
  DeepLab: new weights find almost any pixel hard.
  """
  if settings.hard_pixels == 1 or not settings.hard_pixels_steps:
    return settings.hard_pixels
  step = tf.cast(tf.train.get_or_create_global_step() - settings.initial_global_step, tf.float64)
  return 1 - (1 - settings.hard_pixels) * tf.clip_by_value(step / settings.hard_pixels_steps, 0, 1)


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


def _of_hardest(values, weights, share):
  """Returns the weights, float32 [B, H, W], but 0 outside the hardest pixels: bootstrapping (1604.04339).

  The hardest are those of the largest weighted value. Their number is the share of the pixels that have a
  weight, rounded, at least one; those as hard as the last of them share the places that are left. Of several
  replicas each takes the share of its own pixels.

  Args:
    values: float32 [B, H, W], not negative. weights: float32 [B, H, W], 0 where a pixel does not count.
    share: see cross_entropy.
  """
  if isinstance(share, (int, float)) and share == 1:
    return weights
  ranked = tf.stop_gradient(values * weights)
  number = tf.maximum(tf.round(_count(weights > 0) * share), 1)
  # The bit pattern of the last one's value: floats have the order of theirs, so that each count tells a bit.
  # Of millions of pixels that is fifteen times as fast as to sort them. GPUs leave int32 to the host.
  pattern = tf.constant(0, tf.int64)
  for bit in reversed(range(31)):
    higher = pattern + (1 << bit)
    pattern = tf.where(_count(ranked >= _float_of(higher)) >= number, higher, pattern)
  last = _float_of(pattern)
  is_harder, is_last = ranked > last, tf.logical_and(tf.equal(ranked, last), weights > 0)
  part = tf.math.divide_no_nan(number - _count(is_harder), _count(is_last))
  return weights * (tf.cast(is_harder, tf.float32) + tf.cast(part, tf.float32) * tf.cast(is_last, tf.float32))


def _count(places):
  """Returns float64, how many of bool [B, H, W] are True; float32 is exact for a row, not for 2^24 pixels."""
  return tf.reduce_sum(tf.cast(tf.reduce_sum(tf.cast(places, tf.float32), axis=2), tf.float64))


def _float_of(pattern):
  """Returns the float32 scalar that has a bit pattern, int64 from 0 up to 2^31 - 1."""
  return tf.bitcast(tf.cast(pattern, tf.int32), tf.float32)


def _valid_probabilities(logits, labels, ignore_label):
  """Returns the softmax and the labels as one-hot vectors, float32 [B, H, W, K]; 0 at ignored pixels."""
  labels = tf.squeeze(labels, axis=3)  # [B, H, W]
  valid = valid_pixels(labels, ignore_label)
  # Of -1 the one-hot vector is 0; ignore_label may be one of the classes.
  truth = tf.one_hot(tf.where(valid, labels, -tf.ones_like(labels)), int(logits.shape[-1]))
  return tf.nn.softmax(logits) * tf.cast(valid, tf.float32)[..., tf.newaxis], truth


def _mean_of_present(values, pixels, weight_of_class):
  """Returns the mean, a float32 scalar, of a value of each class, [K], over those that have pixels, [K]."""
  weights = tf.cast(pixels > 0, tf.float32)
  if weight_of_class:
    weights *= tf.constant(weight_of_class, tf.float32)
  return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))


def _lovasz_slopes(errors, truth):
  """Returns float32 [N], what each pixel's error of a class is multiplied by (arXiv 1705.08790 alg. 1).

  It is the step of 1 - IoU as the pixels become wrong one after the other, those of the largest errors first.
  The algorithm's difference of two values of 1 - IoU would lose all digits among millions of pixels.

  Args:
    errors: float32 [N], from 0 to 1.
    truth: float32 [N], 1 at the pixels of the class, which has one at least, and else 0.
  """
  order = tf.argsort(errors, direction='DESCENDING')
  of_class = tf.gather(truth, order)
  # float64 counts all pixels, float32 stays at 2^24.
  missed, seen = (tf.cumsum(tf.cast(values, tf.float64)) for values in (of_class, tf.ones_like(of_class)))
  left = missed[-1] - missed  # this pixel is missed
  left, union = tf.cast(left, tf.float32), tf.cast(left + seen, tf.float32)
  # A missed pixel takes 1 from the intersection, a false one adds 1 to the union.
  steps = tf.where(of_class > 0, 1 / union, left / (union * (union - 1)))
  return tf.tensor_scatter_nd_update(errors, order[:, tf.newaxis], steps)


def _weighted_mean(values, weights):
  """Returns a float32 scalar, whose mean over the replicas is that of all of their pixels."""
  return tf.math.divide_no_nan(tf.reduce_sum(values * weights), replicas.mean(tf.reduce_sum(weights)))


def median_frequency_weights(class_pixels, image_pixels, limit):
  """Returns a list of floats: the classes' median frequency over each one's own (arXiv 1411.4734 sec. 6.3.2).

  A class's frequency is its share of the pixels of the images that have it. Departs from the paper: weights
  are bounded. A class of a few wrong pixels in large images would weigh 100,000 times as much as the others,
  and its pixels alone would be learnt.

  Args:
    class_pixels: list of K ints; a class without pixels gets 1, and does not count in the median.
    image_pixels: list of K ints, all pixels of the images that have a pixel of the class.
    limit: float of 1 or more; weights are from 1 / limit to limit.
  """
  frequencies = [pixels and pixels / area for pixels, area in zip(class_pixels, image_pixels, strict=True)]
  median = statistics.median(filter(None, frequencies)) if any(frequencies) else 1
  return [min(max(median / frequency, 1 / limit), limit) if frequency else 1.0 for frequency in frequencies]


# --weight_decay_scope: the ends of the names of the variables that weight decay shrinks, or None for all.
# `weights` are convolutions, except depthwise ones, as in Google's DeepLab and MobileNet: their
# training_scope has weights_regularizer=None for separable_conv2d, and regularize_depthwise is False.
DECAY_SCOPES = {'all': None, 'weights': ('weights',)}


def weight_decay(variables, rate, scope='all'):
  """Returns rate * sum of 0.5*|w|^2, a float32 scalar, over those of the variables that are in the scope.

  As in the original scripts `all` are all trainable variables, biases and batch norm's included.
  """
  decayed = list(itertools.compress(variables, _are_decayed(variables, scope)))
  return rate * tf.add_n([tf.nn.l2_loss(part) for part in vectors_joined(decayed)])


def weight_decay_gradients(gradients, variables, rate, scope='all'):
  """Returns a list of tensors: the gradients, of which a None counts as 0, plus those of weight_decay."""
  gradients = [tf.zeros(variable.shape) if gradient is None else gradient
               for gradient, variable in zip(gradients, variables, strict=True)]
  chosen = _are_decayed(variables, scope)
  decayed = iter(_decayed(list(itertools.compress(gradients, chosen)),
                          list(itertools.compress(variables, chosen)), rate))
  return [next(decayed) if is_chosen else gradient
          for gradient, is_chosen in zip(gradients, chosen, strict=True)]


def _are_decayed(variables, scope):
  """Returns a list of bools: which of the variables are in the scope, a name in DECAY_SCOPES."""
  ends = DECAY_SCOPES[scope]
  return [ends is None or variable_name(variable).split('/')[-1] in ends for variable in variables]


def _decayed(gradients, variables, rate):
  for gradient, variable in zip(gradients, variables, strict=True):
    gradient.set_shape(variable.shape)  # both are to be sorted in the same way
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
