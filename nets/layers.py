"""The layers that every backbone and the head are built from, on tf.nn and tf.get_variable.

Variable names are the checkpoint interface: a convolution owns `weights` and perhaps `biases`, its batch
norm `BatchNorm/{gamma,beta,moving_mean,moving_variance}`, all under the scope given by the caller.

Variables are float32. Convolutions compute in the dtype of their input, which may be bfloat16 or float16;
batch norm takes its statistics in float32 whatever that dtype is.

Shapes are given channels last. Within `way(channels_first=True)` features are [B, C, h, w] instead; what
depends on that is asked of this module: `channels`, `concat`, `max_pool2d`, `spatial_mean`, `spatial_size`.

Letters in shape comments: B batch, H W input size, h w feature size, C channels.
"""
import contextlib
import contextvars
import dataclasses
import functools
import typing

import tensorflow.compat.v1 as tf

from nets import cpu_convolution, replicas


@dataclasses.dataclass(frozen=True)
class BatchNorm:
  """How batch norm works throughout one network.

  is_training: bool, normalise by the batch's statistics and update the moving averages, or use these.
  decay: float in [0, 1), of the moving averages; 0.9997 needs some 10,000 steps to forget its start.
  epsilon: float; the fused kernel raises anything smaller to 1.001e-5.
  sync: bool, take the statistics of the batches of all replicas together.
  """
  is_training: bool
  decay: float
  epsilon: float = 1.001e-5
  sync: bool = True


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


@dataclasses.dataclass(frozen=True)
class Way:
  """How a network is built, whatever network it is; `way` sets it.

  Attributes:
    channels_first: bool, features are [B, C, h, w], which only GPUs compute.
    recompute: bool, what `recomputable` decorates keeps its inputs alone until the backward pass.
    prepare: bool, weights are folded and cast once, when a session starts, and not in every run; for networks
      whose variables do not change meanwhile. It is done by tf.tables_initializer(), which monitored sessions
      and SavedModels run after the variables have been restored.
    fold: bool, batch norm that uses its averages becomes part of the convolution's weights.
    skip_padding: bool, convolutions with large atrous rates do not multiply their padding, on CPUs and in
      float32; the result is the same up to rounding.
    differentiable: bool, there may be a backward pass, which on CPUs has kernels of its own.
    recorded, replayed: None, or a list that takes the statistics of all replicas' batches in the order of the
      layers, and an iterator that gives them to the second computation of a part of the network.
  """
  channels_first: bool = False
  recompute: bool = False
  prepare: bool = False
  fold: bool = True
  skip_padding: bool = False
  differentiable: bool = True
  recorded: list | None = None
  replayed: typing.Iterator | None = None


_way = contextvars.ContextVar('way', default=Way())  # noqa: B039 (it is frozen)


@contextlib.contextmanager
def way(**changes):
  """Within it networks are built with these attributes of Way, and the others as around it."""
  token = _way.set(dataclasses.replace(_way.get(), **changes))
  try:
    yield
  finally:
    _way.reset(token)


def _format():
  return 'NCHW' if _way.get().channels_first else 'NHWC'


def _by_axis(batch, height, width, channel):
  """Returns a list with one value for each axis, in the order that features have here."""
  return [batch, channel, height, width] if _way.get().channels_first else [batch, height, width, channel]


def _spatial_axes():
  return [2, 3] if _way.get().channels_first else [1, 2]


def to_features(images):
  """Returns images [B, H, W, C] in the order of axes that features have here."""
  return tf.transpose(images, [0, 3, 1, 2]) if _way.get().channels_first else images


def from_features(features):
  """Returns features as [B, h, w, C]."""
  return tf.transpose(features, [0, 2, 3, 1]) if _way.get().channels_first else features


def channels(features):
  """Returns the number of channels, an int."""
  return int(features.shape[1 if _way.get().channels_first else 3])


def concat(features):
  """Returns a list of features as one, [B, h, w, sum of C]."""
  return tf.concat(features, axis=1 if _way.get().channels_first else 3)


def max_pool2d(inputs, size, stride, padding='SAME'):
  """Returns the maxima of size x size windows: float [B, ceil(h/stride), ceil(w/stride), C] if SAME."""
  return tf.nn.max_pool2d(inputs, size, stride, padding, data_format=_format())


def spatial_mean(features):
  """Returns float32 [B, 1, 1, C], the mean over height and width."""
  return tf.reduce_mean(tf.cast(features, tf.float32), _spatial_axes(), keepdims=True)


def recomputable(build):
  """Decorates a function that builds a part of the network: build(inputs, ...) returns one or more tensors.

  Under `way(recompute=True)` the part's inner activations are not stored for the backward pass but computed
  again there (arXiv 1604.06174). Batch norm's averages are updated by the first computation only, and
  replicas tell each other their statistics only there.
  """
  @functools.wraps(build)
  def built(inputs, *args, **kwargs):
    scope = tf.get_variable_scope()
    now = _way.get()  # gradients are built later
    statistics = [] if now.recorded is None else now.recorded  # a part of a part is computed with it

    @tf.custom_gradient
    def unit(inputs):
      def gradient(*upstream, variables=()):
        # Not before the gradient arrives: TensorFlow would compute it at once, and keep it.
        with tf.control_dependencies(upstream):
          again = tf.identity(inputs)
        updates = tf.get_collection_ref(tf.GraphKeys.UPDATE_OPS)
        count = len(updates)
        with (tf.variable_scope(scope, reuse=True),
              way(channels_first=now.channels_first, recompute=False, replayed=iter(statistics))):
          outputs = build(again, *args, **kwargs)
        del updates[count:]
        of_inputs, *of_variables = tf.gradients(outputs, [again, *variables], upstream)
        return of_inputs, of_variables

      with way(recorded=statistics):
        return build(inputs, *args, **kwargs), gradient

    return unit(inputs) if now.recompute else build(inputs, *args, **kwargs)

  return built


def conv2d(inputs, filters, kernel_size, scope, norm=None, activation=None, stride=1, rate=1,
           explicit_padding=True):
  """Returns a convolution with batch norm, or with a bias if `norm` is None.

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
    depth = channels(inputs)
    weights = tf.get_variable('weights', [kernel_size, kernel_size, depth, filters],
                              initializer=_he_initializer(fan_in=kernel_size * kernel_size * depth))
    bias = None
    if norm is None:
      bias = tf.get_variable('biases', [filters], initializer=tf.zeros_initializer())
    elif folds(norm):
      factor, bias = _affine(filters, norm)
      weights = weights * factor
    weights = prepared(weights, inputs.dtype)
    inputs, padding = _padded(inputs, kernel_size, stride, explicit_padding)
    net = convolution(inputs, weights, stride, rate, padding)
    return _finished(net, bias, norm, activation)


def _finished(net, bias, norm, activation):
  """Returns a convolution with its bias, or, if that is None, with batch norm; and with the activation."""
  if bias is None:
    net = batch_norm(net, norm)
  else:
    net = tf.nn.bias_add(net, prepared(bias, net.dtype), _format())
  return activation(net) if activation else net


def convolution(inputs, weights, stride, rate, padding):
  """Returns tf.nn.conv2d, on CPUs by nets/cpu_convolution.py."""
  on_cpu = not (_way.get().channels_first or cpu_convolution.gpus())
  if on_cpu and stride == 1:  # then padding is SAME
    return cpu_convolution.conv2d(inputs, weights, rate, _way.get().skip_padding, _way.get().differentiable)
  return tf.nn.conv2d(inputs, weights, _by_axis(1, stride, stride, 1), padding, data_format=_format(),
                      dilations=_by_axis(1, rate, rate, 1))


def depthwise_conv2d(inputs, scope, norm, activation=None, stride=1, rate=1, explicit_padding=True):
  """Returns a 3x3 convolution of each channel by itself, with batch norm; see conv2d.

  Returns:
    float [B, ceil(H/stride), ceil(W/stride), C].
  """
  assert stride == 1 or rate == 1, 'a convolution is strided or atrous, not both'
  with tf.variable_scope(scope):
    depth = channels(inputs)
    weights = tf.get_variable('depthwise_weights', [3, 3, depth, 1], initializer=_he_initializer(fan_in=9))
    bias = None
    if folds(norm):
      factor, bias = _affine(depth, norm)
      weights = weights * tf.reshape(factor, [depth, 1])
    weights = prepared(weights, inputs.dtype)
    inputs, padding = _padded(inputs, 3, stride, explicit_padding)
    if rate == 1:
      net = tf.nn.depthwise_conv2d(inputs, weights, _by_axis(1, stride, stride, 1), padding,
                                   data_format=_format())
    else:
      # This one goes through space-to-batch, which supports channels_last only: the gradients of
      # TensorFlow's native dilated depthwise kernel are wrong on the CPU.
      net = to_features(tf.nn.depthwise_conv2d(from_features(inputs), weights, [1, 1, 1, 1], padding,
                                               dilations=[rate, rate]))
    return _finished(net, bias, norm, activation)


@recomputable
def separable_conv2d(inputs, filters, scope, norm, activation=None, stride=1, rate=1):
  """Returns a depthwise and a 1x1 convolution, each with batch norm and activation (DeepLabv3+ sec. 3.1).

  Their variables lie under `<scope>_depthwise` and `<scope>_pointwise`; see conv2d for the arguments.
  """
  net = depthwise_conv2d(inputs, scope + '_depthwise', norm, activation, stride, rate)
  return conv2d(net, filters, 1, scope + '_pointwise', norm, activation)


def batch_norm(inputs, norm, scope='BatchNorm'):
  """Returns the inputs batch-normalised, by the fused kernel if it can do that.

  In training the updates of the moving averages are added to tf.GraphKeys.UPDATE_OPS. The kernel gives them
  N / (N - 1) times the variance of a channel's N values. Of one value, such as the image-level feature of a
  single image, cuDNN would make NaN and TensorFlow's kernel for CPUs 0; here it is 0 on all devices.

  Args:
    inputs: float [B, H, W, C].
    norm: BatchNorm.
    scope: str, the variable scope.
  """
  with tf.variable_scope(scope):
    beta, gamma, moving_mean, moving_variance = _norm_variables(channels(inputs))
    options = dict(epsilon=norm.epsilon, data_format=_format())
    if not norm.is_training:
      return tf.nn.fused_batch_norm(inputs, gamma, beta, moving_mean, moving_variance, is_training=False,
                                    **options)[0]
    if norm.sync and replicas.count() > 1:
      outputs, *statistics = _synchronized(inputs, gamma, beta, norm.epsilon)
    elif inputs.shape.num_elements() == channels(inputs):
      outputs, *statistics = _of_one_value(inputs, gamma, beta)
    else:
      # The kernel moves the averages too: six small kernels less in each of a hundred layers.
      outputs, mean, variance = tf.nn.fused_batch_norm(
          inputs, gamma, beta, moving_mean, moving_variance, exponential_avg_factor=1 - norm.decay, **options)
      if not inputs.shape.is_fully_defined():
        variance = tf.where(tf.size(inputs) > channels(inputs), variance, norm.decay * moving_variance)
      _update(moving_mean.assign(mean), moving_variance.assign(variance))
      return outputs
    _update(*(average.assign_sub((1 - norm.decay) * (average - value))
              for average, value in zip((moving_mean, moving_variance), statistics, strict=True)))
    return outputs


def _update(*operations):
  for operation in operations:
    tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, operation)


def _norm_variables(channels):
  """Returns beta, gamma, the moving mean and the moving variance, float32 [channels]."""
  ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
  # Every replica keeps its own averages, which are the same, so reading them needs no communication.
  averages = dict(trainable=False, synchronization=tf.VariableSynchronization.ON_READ,
                  aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
  return (tf.get_variable('beta', [channels], initializer=zeros),
          tf.get_variable('gamma', [channels], initializer=ones),
          tf.get_variable('moving_mean', [channels], initializer=zeros, **averages),
          tf.get_variable('moving_variance', [channels], initializer=ones, **averages))


def prepared(value, dtype):
  """Returns a variable, or what was computed of one, as dtype; see Way.prepare."""
  computed = not isinstance(value, tf.Variable) or value.dtype != dtype
  value = tf.cast(value, dtype)
  if not (computed and _way.get().prepare):
    return value
  # In no collection of variables: neither checkpoints nor initialisers of those know it.
  once = tf.Variable(tf.zeros(value.shape, dtype), trainable=False, collections=[], name='prepared')
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, once.assign(value).op)
  return once.read_value()


def _affine(channels, norm):
  """Returns the factor and the bias, float32 [channels], that batch norm with its averages amounts to."""
  with tf.variable_scope('BatchNorm'):
    beta, gamma, mean, variance = _norm_variables(channels)
  factor = _factor(gamma, variance, norm.epsilon)
  return factor, beta - mean * factor


def _factor(gamma, variance, epsilon):
  """Returns float32 [C], by which the fused kernel multiplies, with an epsilon that it would raise."""
  return gamma * tf.math.rsqrt(variance + max(epsilon, BatchNorm.epsilon))


def _synchronized(inputs, gamma, beta, epsilon):
  """Returns what the fused kernel would for the batches of all replicas together, which are of one size.

  The replicas exchange one vector forward and one backward. Kept for the backward pass are the inputs alone.
  """
  replayed, recorded = _way.get().replayed, _way.get().recorded
  if replayed is not None:
    mean, variance = next(replayed)
  else:
    mean, variance = _joint_statistics(inputs)
    if recorded is not None:
      recorded.append((mean, variance))
  values = tf.cast(tf.size(inputs) // channels(inputs), tf.float32)  # of a channel, in each replica
  options = dict(epsilon=epsilon, data_format=_format(), is_training=False)
  first = _way.get().channels_first

  @tf.custom_gradient
  def normalise(inputs, gamma, beta):
    outputs, *_ = tf.nn.fused_batch_norm(inputs, gamma, beta, mean, variance, **options)

    def gradient(upstream):
      factor = _factor(gamma, variance, epsilon)
      # First as if the statistics were fixed.
      if first:  # the kernel knows channels last alone, and would transpose all that it reads and gives
        normalised, *_ = tf.nn.fused_batch_norm(inputs, tf.ones_like(gamma), tf.zeros_like(beta), mean,
                                                variance, **options)
        of_inputs = upstream * tf.cast(tf.reshape(factor, [1, -1, 1, 1]), upstream.dtype)
        of_variables = [tf.reduce_sum(tf.cast(value, tf.float32), [0, 2, 3])
                        for value in (upstream * normalised, upstream)]
      else:
        of_inputs, *of_variables = tf.gradients(outputs, [inputs, gamma, beta], upstream)
      # By the statistics, factor / values * (sum(dy) + x_normalised * sum(dy * x_normalised)): an affine
      # function of the inputs, which is again what the kernel computes.
      of_gamma, of_beta = tf.split(replicas.mean(tf.concat(of_variables, 0)), 2)
      scale, offset = factor * of_gamma / values, factor * of_beta / values
      of_statistics, *_ = tf.nn.fused_batch_norm(inputs, scale, offset, mean, variance, **options)
      return of_inputs - of_statistics, *of_variables

    return outputs, gradient

  count = values * replicas.count()
  unbiased = variance * count / tf.maximum(count - 1, 1)  # as the kernel gives it to the average
  return normalise(inputs, tf.identity(gamma), tf.identity(beta)), mean, unbiased


def _joint_statistics(inputs):
  """Returns mean and variance, float32 [C], of the batches of all replicas; without a gradient."""
  # In doubles: squares of a mean that is large beside the deviation would lose digits in float32.
  mean, variance = (tf.cast(value, tf.float64) for value in _own_statistics(tf.stop_gradient(inputs)))
  mean, squares = tf.split(replicas.mean(tf.concat([mean, variance + tf.square(mean)], 0)), 2)
  return tf.cast(mean, tf.float32), tf.cast(tf.maximum(squares - tf.square(mean), 0), tf.float32)


def _own_statistics(inputs):
  """Returns mean and variance, float32 [C], of the batch of this replica."""
  depth = channels(inputs)
  if inputs.shape.num_elements() == depth:
    mean = tf.cast(tf.reshape(inputs, [-1]), tf.float32)
    return mean, tf.zeros_like(mean)
  _, mean, variance = tf.nn.fused_batch_norm(inputs, tf.ones([depth]), tf.zeros([depth]),
                                             data_format=_format())
  count = tf.cast(tf.size(inputs) // depth, tf.float32)
  # The kernel's variance is the unbiased one, of one value perhaps NaN.
  return mean, tf.where(count > 1, variance * (count - 1) / count, tf.zeros_like(variance))


def _of_one_value(inputs, gamma, beta):
  """Returns what the fused kernel of CPUs would return if a channel has one value: beta, the value, 0."""
  net = tf.cast(inputs, tf.float32)
  mean = tf.reduce_mean(net, [0, *_spatial_axes()])
  outputs = (net - _aligned(mean)) * _aligned(gamma) + _aligned(beta)  # by 0, which has gradients
  return tf.cast(outputs, inputs.dtype), mean, tf.zeros_like(mean)


def _aligned(vector):
  """Returns a vector [C] along the axis of the channels of features."""
  return tf.reshape(vector, _by_axis(1, 1, 1, -1))


def resize_bilinear(features, size, align_corners):
  """Returns the features resized as TensorFlow 1 did, without centring pixels.

  Args:
    features: float [B, h, w, C].
    size: (height, width), ints or an int32 tensor [2].
    align_corners: bool, whether the corner pixels' centres stay in place, as in Google's models.

  Returns:
    [B, height, width, C] in the features' dtype; computed in float32.
  """
  net = tf.image.resize_bilinear(from_features(features), size, align_corners=align_corners)
  return tf.cast(to_features(net), features.dtype)


def spatial_size(features):
  """Returns (height, width) of features: ints if they are static, else an int32 tensor."""
  axes = _spatial_axes()
  height, width = (features.shape.as_list()[axis] for axis in axes)
  return (height, width) if height and width else tf.shape(features)[axes[0]:axes[1] + 1]


def _he_initializer(fan_in):
  """He initialisation as TF-Slim draws it: 1.3 makes up for the truncated tails."""
  return tf.truncated_normal_initializer(stddev=(1.3 * 2.0 / fan_in) ** 0.5)


def _padded(inputs, kernel_size, stride, explicit_padding):
  """Returns the inputs, padded by tf.pad if that is needed, and the padding that is left to the kernel.

  EXPLICIT padding in the kernel itself would have no gradient on the CPU.
  """
  if stride == 1 or kernel_size == 1 or not explicit_padding:
    return inputs, 'SAME'
  before = (kernel_size - 1) // 2
  after = kernel_size - 1 - before
  return tf.pad(inputs, _by_axis([0, 0], [before, after], [before, after], [0, 0])), 'VALID'


def folds(norm):
  """Whether batch norm becomes part of the convolution's weights. It does if it uses its averages.

  A convolution with bias and activation is one kernel; with batch norm it would be two or three.
  """
  return not norm.is_training and _way.get().fold
