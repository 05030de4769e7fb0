"""Convolutions with stride 1 on CPUs, where TensorFlow's kernels are slow or have no gradient.

`conv2d` is the only door. Letters in shape comments: B batch, h w feature size, C channels.
"""
import functools
import itertools

import tensorflow.compat.v1 as tf

# From this atrous rate on it pays not to multiply padding, whatever the size; at rate 4 on small maps alone.
_LARGE_RATE = 6


def conv2d(inputs, weights, rate, skip_padding, differentiable):
  """Returns tf.nn.conv2d with stride 1 and SAME padding, channels last.

  Args:
    inputs: float [B, h, w, C].
    weights: float [height, width, C, filters].
    rate: int, the atrous rate.
    skip_padding: bool, do not multiply padding if there is much: a few small operations then take the place
      of the kernel, and give the same up to rounding.
    differentiable: bool, whether there may be a backward pass.
  """
  if skip_padding and rate >= _LARGE_RATE and inputs.dtype == tf.float32:
    return _by_products(inputs, weights, rate)
  gradient = {'Conv2D': 'Conv2DByProducts'} if differentiable else {}
  with tf.get_default_graph().gradient_override_map(gradient):
    return tf.nn.conv2d(inputs, weights, 1, 'SAME', dilations=rate)


@functools.cache
def gpus():
  """Returns the GPUs of this machine; with any, TensorFlow's own kernels are taken throughout."""
  return tf.config.list_physical_devices('GPU')


def _by_products(inputs, weights, rate):
  """Returns the atrous convolution with stride 1 and SAME padding as a matrix product for each weight.

  In the head of a network for 480x360 half of the multiply-adds would be by zeros: there rate 18 reaches
  beyond a map of 23 rows from most places. TensorFlow's kernels multiply them all the same.

  Args:
    inputs: float32 [B, h, w, C].
    weights: float32 [height, width, C, filters], height and width odd.
    rate: int.
  """
  *kernel, depth, filters = weights.shape.as_list()
  size = tf.shape(inputs)
  outputs = tf.constant(0.)
  for ahead, weight in zip(_offsets(kernel, (rate, rate)),
                           tf.unstack(tf.reshape(weights, [-1, depth, filters])), strict=True):
    with tf.control_dependencies([outputs]):  # one after the other, or the parts would fill the memory
      seen = _beyond(inputs, ahead)
    seen_size = tf.shape(seen)
    product = tf.reshape(tf.matmul(_pixels(seen), weight), tf.concat([seen_size[:3], [filters]], 0))
    missing = tf.unstack((size - seen_size)[1:3])
    outputs += tf.pad(product, [[0, 0], *([0, count] if n > 0 else [count, 0] for n, count in
                                          zip(ahead, missing, strict=True)), [0, 0]])
  return tf.ensure_shape(outputs, [*inputs.shape[:3], filters])


@tf.RegisterGradient('Conv2DByProducts')
def _gradient_by_products(op, gradient):
  """Returns the gradients of a convolution with stride 1 and SAME padding by its inputs and its weights.

  That by the inputs is the convolution of the gradient with the weights turned around; that by the weights
  is a matrix product for each of them in height and width. TensorFlow's kernel for the latter takes two to
  four times as long if maps are large or atrous, and without oneDNN there is none for atrous ones.
  """
  inputs, weights = op.inputs
  height, width, _, _ = weights.shape.as_list()
  _, *rates, _ = op.get_attr('dilations')
  turned = tf.reverse(tf.reshape(weights, [height * width, -1]), [0])  # much faster than by slices
  turned = tf.transpose(tf.reshape(turned, weights.shape), [0, 1, 3, 2])
  of_inputs = tf.nn.conv2d(gradient, turned, 1, 'SAME', dilations=op.get_attr('dilations'))

  of_weights: list[tf.Tensor] = []
  for ahead in _offsets((height, width), rates):
    behind = [-n for n in ahead]
    with tf.control_dependencies(of_weights[-1:]):  # one after the other, or the parts would fill the memory
      of_weights.append(tf.matmul(_pixels(_beyond(inputs, ahead)), _pixels(_beyond(gradient, behind)),
                                  transpose_a=True))  # [C, filters]
  return of_inputs, tf.reshape(tf.stack(of_weights), weights.shape)


def _offsets(kernel, rates):
  """Returns for each weight of a kernel, row by row, how far ahead of the result lies what it multiplies.

  Where that is outside of the features there is nothing to multiply.

  Args:
    kernel: (height, width), odd ints.
    rates: (rate of rows, rate of columns), ints.
  """
  return [[rate * (index - size // 2) for rate, index, size in zip(rates, position, kernel, strict=True)]
          for position in itertools.product(*map(range, kernel))]


def _beyond(features, offsets):
  """Returns features without so many first rows and columns, or last ones if a number is negative."""
  if not any(offsets):
    return features  # a slice of everything would be one more operation, in each of many layers
  rows, columns = (slice(max(0, n), min(0, n) or None) for n in offsets)
  return features[:, rows, columns]


def _pixels(features):
  """Returns features [B, h, w, C] as [B * h * w, C]."""
  return tf.reshape(features, [-1, int(features.shape[3])])
