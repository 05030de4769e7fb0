"""The layers that every backbone and the head are built from, on tf.nn and tf.get_variable.

Variable names are the checkpoint interface: a convolution owns `weights` and perhaps `biases`, its batch
norm `BatchNorm/{gamma,beta,moving_mean,moving_variance}`, all under the scope given by the caller.

Letters in shape comments: B batch, H W input size, h w feature size, C channels.
"""
import dataclasses
import functools
import os
import platform
import sys

import tensorflow.compat.v1 as tf


@dataclasses.dataclass(frozen=True)
class BatchNorm:
  """How batch norm works throughout one network.

  is_training: bool, normalise by the batch's statistics and update the moving averages, or use these.
  decay: float in [0, 1), of the moving averages; 0.9997 needs some 10,000 steps to forget its start.
  epsilon: float; the fused kernel raises anything smaller to 1.001e-5.
  """
  is_training: bool
  decay: float
  epsilon: float = 1.001e-5


class AtrousStrides:
  """Turns the strides beyond a given output stride into atrous rates (DeepLabv3 sec. 3.1).

  Called with each layer's nominal stride in order, it returns the (stride, rate) to build:

    strides = AtrousStrides(output_stride=8)
    strides(2), strides(2), strides(2), strides(2), strides(1)
    # (2, 1), (2, 1), (2, 1), (1, 1), (1, 2): the fourth stride is dropped, what follows is dilated
  """

  def __init__(self, output_stride):
    self._remaining = output_stride
    self._rate = 1

  def __call__(self, stride):
    if stride <= self._remaining:
      self._remaining //= stride
      return stride, self._rate
    rate = self._rate
    self._rate *= stride
    return 1, rate


def conv2d(inputs, filters, kernel_size, scope, norm=None, activation=None, stride=1, rate=1,
           explicit_padding=True):
  """Returns a convolution with batch norm, or with a bias where `norm` is None.

  Padding keeps ceil(H/stride): a strided convolution pads (kernel_size-1)//2 on the left and the rest on the
  right whatever the size, so that its features stay aligned with those of the dense, atrous one.

  Args:
    inputs: float [B, H, W, C].
    filters: int, channels of the result.
    kernel_size: int.
    scope: str, the variable scope.
    norm: BatchNorm or None.
    activation: function applied last, such as tf.nn.relu, or None.
    stride: int.
    rate: int, the atrous rate; only with stride 1.
    explicit_padding: bool; False pads a strided convolution as TensorFlow's SAME does (MobileNet).

  Returns:
    float [B, ceil(H/stride), ceil(W/stride), filters].
  """
  assert stride == 1 or rate == 1, 'a convolution is strided or atrous, not both'
  with tf.variable_scope(scope):
    channels = int(inputs.shape[-1])
    fan_in = kernel_size * kernel_size * channels
    weights = tf.get_variable(
        'weights', [kernel_size, kernel_size, channels, filters],
        initializer=_he_initializer(fan_in))
    inputs, padding = _padded(inputs, kernel_size, stride, explicit_padding)
    if rate == 1 or native_dilation():
      net = tf.nn.conv2d(inputs, weights, [1, stride, stride, 1], padding, dilations=[1, rate, rate, 1])
    else:
      net = tf.nn.atrous_conv2d(inputs, weights, rate, padding)
    if norm:
      net = batch_norm(net, norm)
    else:
      net = tf.nn.bias_add(
          net, tf.get_variable('biases', [filters], initializer=tf.zeros_initializer()))
    return activation(net) if activation else net


def depthwise_conv2d(inputs, scope, norm, activation=None, stride=1, rate=1, explicit_padding=True):
  """Returns a 3x3 convolution of each channel by itself, with batch norm; see conv2d.

  Returns:
    float [B, ceil(H/stride), ceil(W/stride), C].
  """
  assert stride == 1 or rate == 1, 'a convolution is strided or atrous, not both'
  with tf.variable_scope(scope):
    weights = tf.get_variable('depthwise_weights', [3, 3, int(inputs.shape[-1]), 1],
                              initializer=_he_initializer(fan_in=9))
    inputs, padding = _padded(inputs, 3, stride, explicit_padding)
    # This one goes through space-to-batch: the gradients of TensorFlow's native dilated depthwise kernel are
    # wrong on the CPU.
    net = tf.nn.depthwise_conv2d(inputs, weights, [1, stride, stride, 1], padding, dilations=[rate, rate])
    net = batch_norm(net, norm)
    return activation(net) if activation else net


def separable_conv2d(inputs, filters, scope, norm, activation=None, stride=1, rate=1):
  """Returns a depthwise and a 1x1 convolution, each with batch norm and activation (DeepLabv3+ sec. 3.1).

  Their variables lie under `<scope>_depthwise` and `<scope>_pointwise`; see conv2d for the arguments.
  """
  net = depthwise_conv2d(inputs, scope + '_depthwise', norm, activation, stride, rate)
  return conv2d(net, filters, 1, scope + '_pointwise', norm, activation)


def batch_norm(inputs, norm, scope='BatchNorm'):
  """Returns the inputs batch-normalised by the fused kernel.

  In training the updates of the moving averages are added to tf.GraphKeys.UPDATE_OPS.

  Args:
    inputs: float [B, H, W, C].
    norm: BatchNorm.
    scope: str, the variable scope.
  """
  with tf.variable_scope(scope):
    shape = [int(inputs.shape[-1])]
    ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
    beta = tf.get_variable('beta', shape, initializer=zeros)
    gamma = tf.get_variable('gamma', shape, initializer=ones)
    # Under several replicas the averages are kept per replica and read as their mean.
    averages = dict(trainable=False, synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.MEAN)
    moving_mean = tf.get_variable('moving_mean', shape, initializer=zeros, **averages)
    moving_variance = tf.get_variable('moving_variance', shape, initializer=ones, **averages)
    if not norm.is_training:
      return tf.nn.fused_batch_norm(inputs, gamma, beta, moving_mean, moving_variance,
                                    epsilon=norm.epsilon, is_training=False)[0]
    outputs, mean, variance = tf.nn.fused_batch_norm(inputs, gamma, beta, epsilon=norm.epsilon)
    for average, value in ((moving_mean, mean), (moving_variance, variance)):
      tf.add_to_collection(tf.GraphKeys.UPDATE_OPS,
                           average.assign_sub((1 - norm.decay) * (average - value)))
    return outputs


def resize_bilinear(features, size, align_corners):
  """Returns the features resized as TensorFlow 1 did, without centring pixels.

  Args:
    features: float [B, h, w, C].
    size: (height, width), ints or an int32 tensor [2].
    align_corners: bool, whether the corner pixels' centres stay in place, as in Google's models.

  Returns:
    float32 [B, height, width, C].
  """
  return tf.image.resize_bilinear(features, size, align_corners=align_corners)


def spatial_size(images):
  """Returns (height, width) of [B, H, W, C] images: ints where they are static, else an int32 tensor."""
  height, width = images.shape[1:3].as_list()
  return (height, width) if height and width else tf.shape(images)[1:3]


def _he_initializer(fan_in):
  """He initialisation as TF-Slim draws it: 1.3 makes up for the truncated tails."""
  return tf.truncated_normal_initializer(stddev=(1.3 * 2.0 / fan_in) ** 0.5)


def _padded(inputs, kernel_size, stride, explicit_padding):
  """Returns the inputs, padded by tf.pad where that is due, and the padding that is left to the kernel.

  EXPLICIT padding in the kernel itself would have no gradient on the CPU.
  """
  if stride == 1 or kernel_size == 1 or not explicit_padding:
    return inputs, 'SAME'
  before = (kernel_size - 1) // 2
  after = kernel_size - 1 - before
  return tf.pad(inputs, [[0, 0], [before, after], [before, after], [0, 0]]), 'VALID'


@functools.cache
def native_dilation():
  """Whether tf.nn.conv2d can also train with dilations here: on a GPU, or on a CPU through oneDNN.

  Elsewhere atrous convolutions go through space-to-batch, which is exact too, but slower by a quarter.
  """
  if tf.config.list_physical_devices('GPU'):
    return True
  on_by_default = sys.platform == 'linux' and platform.machine() == 'x86_64'
  return os.environ.get('TF_ENABLE_ONEDNN_OPTS', '1' if on_by_default else '0') != '0'
