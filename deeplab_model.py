"""DeepLabv3+: encoder, ASPP, decoder (arXiv 1802.02611), and the Estimator's model_fn.

`deeplabv3_plus_model_fn` is the index: network -> predictions -> loss -> metrics -> train op, each a
function of its own here or in utils/. Backbones are in nets/, layers in nets/layers.py.

Letters in shape comments: B batch, H W input size, h w feature size, C channels, K classes.
"""
import dataclasses

import tensorflow.compat.v1 as tf

from nets import backbones, builders, layers, replicas
from nets.architecture import Architecture
from nets.replicas import variable_name
from training import checkpoints, losses, metrics, optimizers, run_config, summaries, training_hooks
from training.tf_estimator import EstimatorSpec, ModeKeys, PredictOutput
from utils import failures
from utils.settings import Settings

_ASPP_DEPTH = 256  # channels of every branch and of the projection
_AUXILIARY = 'auxiliary'  # the scope of the auxiliary head, which training alone builds


def network(images, architecture, is_training, batch_norm_decay=None, dtype=tf.float32,
            sync_batch_norm=True, data_format='channels_last', dropout_seed=(0, 0), auxiliary=False):
  """Returns the logits of DeepLabv3+.

  Args:
    images: uint8 or float32 [B, H, W, 3], RGB 0..255, any H and W of at least the output stride.
    architecture: Architecture.
    is_training: bool, whether batch norm uses the batch's statistics and updates its averages.
    batch_norm_decay: float, or None for the backbone's own.
    dtype: tf.DType that convolutions compute in; variables, batch norm's statistics and logits are float32.
    sync_batch_norm: bool, whether batch norm's statistics are those of all replicas' batches.
    data_format: str, channels_last or channels_first, the order of axes between images and logits.
    dropout_seed: integer [2]; in training dropout is a pure function of it.
    auxiliary: bool, whether there is an auxiliary head too.

  Returns:
    logits: float32 [B, H, W, K]; or, with an auxiliary head, a pair of such: those of the network, and its.
  """
  row = backbones.get(architecture.base_architecture)
  architecture = resolved(architecture, row)
  size = layers.spatial_size(images)
  is_padded = architecture.eval_crop_size and not is_training
  images = tf.cast(scaled(images, row), dtype)
  if is_padded:
    images = _pad_to(images, architecture.eval_crop_size)

  norm = layers.BatchNorm(is_training, batch_norm_decay or row.batch_norm_decay, row.batch_norm_epsilon,
                          sync_batch_norm)
  # The head has the paper's constants, whatever the backbone's (and the same decay, if one is given).
  head_norm = layers.BatchNorm(is_training, batch_norm_decay or 0.9997, sync=sync_batch_norm)
  with layers.way(channels_first=data_format == 'channels_first'):
    high, low, middle = builders.build(row, layers.to_features(images), architecture.output_stride, norm,
                                       architecture.multi_grid)
    net = aspp(high, architecture, head_norm, row, dropout_seed)
    if architecture.decoder:
      net = decoder(net, low, architecture, head_norm, row)
    else:
      with tf.variable_scope('upsampling_logits'):
        net = layers.conv2d(tf.cast(net, tf.float32), architecture.num_classes, 1, 'conv_1x1')
    nets = [net, auxiliary_head(middle, architecture, head_norm, dropout_seed)] if auxiliary else [net]
    nets = [layers.from_features(net) for net in nets]
  logits, *others = (layers.resize_bilinear(net, layers.spatial_size(images), row.align_corners)
                     for net in nets)
  if others:
    return logits, *others
  return logits[:, :size[0], :size[1]] if is_padded else logits


def resolved(architecture, row):
  """Returns the architecture with the defaults of its backbone's row in place of None."""
  rates = architecture.atrous_rates
  if rates is None:  # DeepLabv3 sec. 3.3: 6, 12, 18 at output stride 16, doubled at 8, halved at 32
    rates = tuple(rate * 16 // architecture.output_stride for rate in row.atrous_rates)
  own = {name: getattr(row, name) for name in ('separable_head', 'decoder', 'multi_grid')
         if getattr(architecture, name) is None}
  return dataclasses.replace(architecture, atrous_rates=rates, **own)


def scaled(images, row):
  """Returns float32 [B, H, W, 3]: RGB 0..255 less the backbone's mean, or scaled to [-1, 1]."""
  images = tf.cast(images, tf.float32)
  return images - tf.constant(row.channel_means) if row.channel_means else images * (2 / 255) - 1


def aspp(features, architecture, norm, row, dropout_seed=(0, 0)):
  """Atrous spatial pyramid pooling with image-level features (DeepLabv3 sec. 3.3).

  Args:
    features: float32 [B, h, w, C], the encoder's output.
    architecture: Architecture, resolved.
    norm: layers.BatchNorm.
    row: Backbone, whose lineage decides the order of the branches, the resize and the dropout.
    dropout_seed: integer [2], see network.

  Returns:
    float32 [B, h, w, 256].
  """
  conv = layers.separable_conv2d if architecture.separable_head else _full_conv2d(3)
  with tf.variable_scope('aspp'):
    branches = [layers.conv2d(features, _ASPP_DEPTH, 1, 'conv_1x1', norm, tf.nn.relu)]
    for index, rate in enumerate(architecture.atrous_rates, 1):
      branches.append(conv(features, _ASPP_DEPTH, f'conv_3x3_{index}', norm, tf.nn.relu, rate=rate))
    if architecture.image_level_feature:
      with tf.variable_scope('image_level_features'):
        pooled = layers.spatial_mean(features)  # [B, 1, 1, C]
        pooled = layers.conv2d(tf.cast(pooled, features.dtype), _ASPP_DEPTH, 1, 'conv_1x1', norm, tf.nn.relu)
        pooled = layers.resize_bilinear(pooled, layers.spatial_size(features), row.align_corners)
      branches.insert(0 if row.image_level_first else len(branches), pooled)
    net = layers.concat(branches)  # [B, h, w, branches * 256]
    net = layers.conv2d(net, _ASPP_DEPTH, 1, 'conv_1x1_concat', norm, tf.nn.relu)
    if norm.is_training and row.projection_dropout:
      net = _dropout(net, row.projection_dropout, dropout_seed)
    return net


def decoder(high, low, architecture, norm, row):
  """Refines the encoder's features with low-level ones (DeepLabv3+ sec. 3.1).

  Args:
    high: float32 [B, h, w, 256], the output of the ASPP.
    low: dict of stride to float32 [B, ceil(H/stride), ceil(W/stride), C'], the low-level features.
    architecture: Architecture, resolved.
    norm: layers.BatchNorm.
    row: Backbone, whose lineage decides the resize.

  Returns:
    logits: float32 [B, ceil(H/s), ceil(W/s), K], s the last of decoder_output_stride.
  """
  kernel = architecture.decoder_kernel
  conv = layers.separable_conv2d if architecture.separable_head and kernel == 3 else _full_conv2d(kernel)
  net = high
  with tf.variable_scope('decoder'):
    for stage, stride in enumerate(architecture.decoder_output_stride):
      suffix = f'_{stage + 1}' if stage else ''  # the first, and usually only, stage has the plain names
      with tf.variable_scope('low_level_features' + suffix):
        features = layers.conv2d(low[stride], architecture.decoder_channels, 1, 'conv_1x1', norm, tf.nn.relu)
      with tf.variable_scope('upsampling_logits' + suffix):
        net = layers.resize_bilinear(net, layers.spatial_size(features), row.align_corners)
        net = layers.concat([net, features])  # [B, H/stride, W/stride, 256 + 48]
        for index in range(1, architecture.decoder_convs + 1):
          net = conv(net, architecture.decoder_filters, f'conv_{kernel}x{kernel}_{index}', norm, tf.nn.relu)
    with tf.variable_scope('upsampling_logits'):
      return layers.conv2d(tf.cast(net, tf.float32), architecture.num_classes, 1, 'conv_1x1')


def auxiliary_head(features, architecture, norm, dropout_seed):
  """A second, small head, whose loss helps to train the backbone (PSPNet, arXiv 1612.01105 sec. 3.3).

  Its layers are those of mmsegmentation's DeepLabv3+.

  Args:
    features: float32 [B, h, w, C], the input of the backbone's last stage.
    architecture, norm, dropout_seed: see aspp.

  Returns:
    logits: float32 [B, h, w, K].
  """
  with tf.variable_scope(_AUXILIARY):
    net = _full_conv2d(3)(features, 256, 'conv_3x3', norm, tf.nn.relu)
    if norm.is_training:  # by a seed that no --seed gives the ASPP
      net = _dropout(net, 0.1, tf.cast(dropout_seed, tf.int64) + [1 << 32, 0])
    return layers.conv2d(tf.cast(net, tf.float32), architecture.num_classes, 1, 'conv_1x1')


def _dropout(features, rate, seed):
  """Returns the features, each set to 0 with probability `rate`; a pure function of the seed, integer [2].

  TensorFlow's own dropout draws on a generator whose state no checkpoint holds.
  """
  kept = tf.random.stateless_uniform(tf.shape(features), seed) >= rate
  return features * tf.cast(kept, features.dtype) * (1 / (1 - rate))


def _full_conv2d(kernel_size):
  """Returns a function of the arguments of layers.separable_conv2d that builds an ordinary convolution."""
  @layers.recomputable
  def conv2d(inputs, filters, scope, norm, activation, rate=1):
    return layers.conv2d(inputs, filters, kernel_size, scope, norm, activation, rate=rate)

  return conv2d


def _pad_to(images, size):
  """Pads scaled images (float32 [B, H, W, 3]) with 0 on the right and the bottom to at least `size`."""
  height, width = tf.unstack(tf.shape(images)[1:3])
  bottom, right = tf.maximum(size[0] - height, 0), tf.maximum(size[1] - width, 0)
  return tf.pad(images, [[0, 0], [0, bottom], [0, right], [0, 0]])


def deeplabv3_plus_model_fn(features, labels, mode, params):
  """The model_fn of a tf.estimator.Estimator.

  Departs from the original scripts: features are RGB 0..255, not mean-subtracted, because input scaling
  belongs to the backbone.

  Args:
    features: uint8 or float32 [B, H, W, 3], RGB 0..255; for PREDICT also a views.Seen.
    labels: integer [B, H, W, 1], 0..K-1 or ignore_label; None for PREDICT.
    mode: a ModeKeys.
    params: dict with base_architecture, num_classes, class_names, palette; for training also batch_size,
      images per step, and num_train for the piecewise policy; and whatever of Architecture and Settings is
      to differ from their defaults.

  Returns:
    EstimatorSpec. Predictions are classes int32 [B, H, W, 1] and probabilities float32 [B, H, W, K].
  """
  architecture, settings = Architecture.from_dict(params), Settings.from_params(params)
  training = mode == ModeKeys.TRAIN
  if training:  # with frozen batch norm the network cannot tell training from evaluation
    architecture = dataclasses.replace(architecture, eval_crop_size=None)
  prepare = not training and replicas.count() == 1
  is_view = not tf.is_tensor(features)
  if is_view and architecture.eval_crop_size:  # Google's model scales the padded image
    architecture = dataclasses.replace(architecture, eval_crop_size=tf.unstack(
        features.scaled(architecture.eval_crop_size)))
  with layers.way(recompute=training and settings.recompute, prepare=prepare, differentiable=training,
                  skip_padding=not training and not settings.portable):
    has_auxiliary = training and settings.auxiliary_head > 0
    logits = network(features.images() if is_view else features, architecture,
                     training and not settings.freeze_batch_norm, settings.batch_norm_decay,
                     run_config.DTYPES[settings.precision], settings.sync_batch_norm, settings.data_format,
                     optimizers.dropout_seed(settings) if training else None, has_auxiliary)
  logits, auxiliary_logits = logits if has_auxiliary else (logits, None)
  logits = features.restored(logits) if is_view else logits
  _declare_model_variables()
  logits = logits if training or settings.portable else _checked(logits)
  classes = tf.expand_dims(tf.argmax(logits, axis=3), axis=3)  # int64 [B, H, W, 1]
  predictions = {'classes': tf.cast(classes, tf.int32),
                 'probabilities': tf.nn.softmax(logits, name='softmax_tensor')}
  restorer = checkpoints.Restorer(defer_build=True, weights=settings.weights)
  scaffold = None if training else tf.train.Scaffold(saver=restorer)
  if mode == ModeKeys.PREDICT:
    outputs = {'preds': PredictOutput(predictions)}
    return EstimatorSpec(mode, predictions, export_outputs=outputs, scaffold=scaffold)

  labels = tf.cast(labels, tf.int64)  # on GPUs operations on int32 are done by the host
  data_loss, parts = _data_loss(logits, auxiliary_logits, labels, settings, training)
  with layers.way(prepare=prepare):
    trained = trained_variables(settings.freeze_batch_norm)
    decay = losses.weight_decay(trained, settings.weight_decay, settings.weight_decay_scope)
    decay = layers.prepared(decay, tf.float32)
  matrix = metrics.confusion_matrix(labels, classes, architecture.num_classes,
                                    settings.ignore_label, settings.deterministic)
  if mode == ModeKeys.EVAL:
    return EstimatorSpec(mode, predictions, data_loss + decay, scaffold=scaffold,
                         eval_metric_ops=metrics.evaluation_metrics(matrix, settings.class_names))

  return _train_spec(architecture, settings, predictions, (features, labels, classes),
                     (data_loss, parts, decay, matrix))


def _train_spec(architecture, settings, predictions, pictures, measured):
  """Returns the EstimatorSpec of training.

  Args:
    predictions: dict, as of the model_fn. pictures: features, labels, and classes int64 [B, H, W, 1].
    measured: the loss of the predictions, dict of its parts, weight decay, and confusion matrix.
  """
  (features, labels, classes), (data_loss, parts, decay, matrix) = pictures, measured
  trained = trained_variables(settings.freeze_batch_norm)
  rate = optimizers.learning_rate(settings)
  if settings.pre_trained_model:
    checkpoints.initialize(settings.pre_trained_model, _model_variables(),
                           backbones.get(architecture.base_architecture).scope)
  step = optimizers.train_op(data_loss, decay, rate, trained, settings,
                              _multipliers(trained, architecture, settings), {**parts, 'matrix': matrix})
  shown = replicas.together(step.measured)
  matrix = shown.pop('matrix')
  scalars = {**shown, 'learning_rate': rate, 'train_px_accuracy': metrics.pixel_accuracy(matrix),
             'train_mean_iou': metrics.mean_iou(matrix)}
  # The Estimator itself writes the loss, the mean over the replicas of all machines.
  summaries.training_scalars({k: v for k, v in scalars.items() if k != 'loss'}, matrix, settings.class_names)
  loss = step.measured['loss']
  training_hooks.watch(loss, rate, summaries.image_grid(features, labels, classes, settings))
  if settings.precision == 'fp16':
    scalars['skipped_steps'] = _skipped_steps()
  progress = run_config.ProgressHook(scalars, settings.images_per_step, settings.last_step)
  return EstimatorSpec(ModeKeys.TRAIN, predictions, loss, step.train_op, training_hooks=step.hooks,
                       training_chief_hooks=[progress])


def _data_loss(logits, auxiliary_logits, labels, settings, training):
  """Returns the loss of the predictions, float32 scalar, and a dict of name to scalar: what it is made of."""
  parts = losses.parts(logits, labels, settings, training)
  total = losses.total(parts, settings)
  if auxiliary_logits is None:
    return total, parts
  auxiliary = losses.total(losses.parts(auxiliary_logits, labels, settings, training), settings)
  return total + settings.auxiliary_head * auxiliary, {**parts, 'auxiliary_loss': auxiliary}


def trained_variables(freeze_batch_norm):
  """Returns the variables that training changes and weight decay shrinks: gamma and beta only unfrozen."""
  frozen = ('gamma', 'beta') if freeze_batch_norm else ()
  return [v for v in tf.trainable_variables() if variable_name(v).split('/')[-1] not in frozen]


def _model_variables():
  """Returns name -> variable of the network alone; called before there is an optimizer."""
  return {variable_name(v): v for v in tf.global_variables() if variable_name(v) != tf.GraphKeys.GLOBAL_STEP}


def _declare_model_variables():
  """Says which variables a checkpoint must hold: those of the network (tf.model_variables()).

  Not those of the auxiliary head, which a training can be continued with or without.
  """
  if tf.distribute.get_replica_context().replica_id_in_sync_group == 0:
    tf.get_collection_ref(tf.GraphKeys.MODEL_VARIABLES).extend(
        v for name, v in _model_variables().items() if not name.startswith(_AUXILIARY + '/'))


def _checked(logits):
  """Returns the logits, float32 [B, H, W, K]; running them ends with a sentence if they are not finite."""
  return tf.debugging.check_numerics(logits, (
      f'{failures.SENTENCE_BEGIN}the model predicts values that are not finite (NaN or infinity) for an '
      f'image; give --precision fp32 if it was another one, or an earlier checkpoint'
      f'{failures.SENTENCE_END}'))


def _multipliers(variables, architecture, settings):
  """Returns name -> learning-rate multiplier of the head's variables; None if it is 1."""
  scope = backbones.get(architecture.base_architecture).scope + '/'
  multiplier = settings.last_layers_lr_multiplier
  return None if multiplier == 1 else {
      variable_name(v): multiplier for v in variables if not variable_name(v).startswith(scope)}


def _skipped_steps():
  """Returns the number of steps, so far, whose gradients overflowed in float16."""
  with tf.variable_scope('loss_scale', reuse=True):
    return tf.get_variable('skipped_steps', dtype=tf.int64).read_value()
