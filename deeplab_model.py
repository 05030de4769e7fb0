"""DeepLabv3+: encoder, ASPP, decoder (arXiv 1802.02611), and the Estimator's model_fn.

`deeplabv3_plus_model_fn` is the index: network -> predictions -> loss -> metrics -> train op, each a
function of its own here or in utils/. Backbones are in nets/, layers in nets/layers.py.

Letters in shape comments: B batch, H W input size, h w feature size, C channels, K classes.
"""
import tensorflow.compat.v1 as tf

from nets import backbones, layers
from utils import checkpoints, losses, metrics, optimizers, run_config, summaries
from utils.architecture import Architecture
from utils.tf_estimator import EstimatorSpec, ModeKeys, PredictOutput

# Atrous rates of the ASPP at output stride 16 (DeepLabv3 sec. 3.3); they scale with the feature size.
_ATROUS_RATES = (6, 12, 18)
_DEPTH = 256           # channels of every ASPP branch and of the decoder
_LOW_LEVEL_DEPTH = 48  # DeepLabv3+ Table 1


def network(images, architecture, is_training, batch_norm_decay=None):
  """Returns the logits of DeepLabv3+.

  Args:
    images: uint8 or float32 [B, H, W, 3], RGB 0..255, any H and W of at least the output stride.
    architecture: Architecture.
    is_training: bool, whether batch norm uses the batch's statistics and updates its averages.
    batch_norm_decay: float, or None for the backbone's own.

  Returns:
    logits: float32 [B, H, W, K].
  """
  backbone = backbones.get(architecture.base_architecture)
  high, low = backbones.build(backbone.name, images, architecture.output_stride, is_training,
                              batch_norm_decay)
  norm = layers.BatchNorm(is_training, batch_norm_decay or backbone.batch_norm_decay)
  high = aspp(high, architecture.output_stride, norm)
  return decoder(high, low, layers.spatial_size(images), architecture.num_classes, norm)


def aspp(features, output_stride, norm):
  """Atrous spatial pyramid pooling with image-level features (DeepLabv3 sec. 3.3).

  Args:
    features: float32 [B, h, w, C], the encoder's output.
    output_stride: int, which scales the atrous rates: 6, 12, 18 at 16 and doubled at 8.
    norm: layers.BatchNorm.

  Returns:
    float32 [B, h, w, 256].
  """
  size = layers.spatial_size(features)
  with tf.variable_scope('aspp'):
    branches = [layers.conv2d(features, _DEPTH, 1, 'conv_1x1', norm, tf.nn.relu)]
    for index, rate in enumerate(_ATROUS_RATES, 1):
      branches.append(layers.conv2d(features, _DEPTH, 3, f'conv_3x3_{index}', norm, tf.nn.relu,
                                    rate=rate * 16 // output_stride))
    with tf.variable_scope('image_level_features'):
      pooled = tf.reduce_mean(features, [1, 2], keepdims=True)  # [B, 1, 1, C]
      pooled = layers.conv2d(pooled, _DEPTH, 1, 'conv_1x1', norm, tf.nn.relu)
      branches.append(layers.resize_bilinear(pooled, size))
    net = tf.concat(branches, axis=3)  # [B, h, w, 5 * 256]
    return layers.conv2d(net, _DEPTH, 1, 'conv_1x1_concat', norm, tf.nn.relu)


def decoder(high, low, output_size, num_classes, norm):
  """Refines the encoder's features with low-level ones (DeepLabv3+ sec. 3.1).

  Args:
    high: float32 [B, h, w, 256], the output of the ASPP.
    low: float32 [B, ceil(H/4), ceil(W/4), C'], the backbone's low-level features.
    output_size: (H, W).
    num_classes: int, K.
    norm: layers.BatchNorm.

  Returns:
    logits: float32 [B, H, W, K].
  """
  with tf.variable_scope('decoder'):
    with tf.variable_scope('low_level_features'):
      low = layers.conv2d(low, _LOW_LEVEL_DEPTH, 1, 'conv_1x1', norm, tf.nn.relu)
    with tf.variable_scope('upsampling_logits'):
      high = layers.resize_bilinear(high, layers.spatial_size(low))
      net = tf.concat([high, low], axis=3)  # [B, ceil(H/4), ceil(W/4), 256 + 48]
      net = layers.conv2d(net, _DEPTH, 3, 'conv_3x3_1', norm, tf.nn.relu)
      net = layers.conv2d(net, _DEPTH, 3, 'conv_3x3_2', norm, tf.nn.relu)
      net = layers.conv2d(net, num_classes, 1, 'conv_1x1')
      return layers.resize_bilinear(net, output_size)


# What params may leave out; the values of the original scripts.
DEFAULT_PARAMS = {
    'ignore_label': 255,
    'output_stride': 16,
    'batch_norm_decay': None,             # None: the backbone's own
    'freeze_batch_norm': False,
    'pre_trained_model': None,            # None: new weights, or those of a checkpoint in model_dir
    'checkpoint': None,                   # the checkpoint that will be restored; checked against the model
    'keep_checkpoint_max': 5,
    'weight_decay': 2e-4,
    'learning_rate_policy': 'poly',
    'initial_learning_rate': 7e-3,
    'end_learning_rate': 1e-6,
    'power': 0.9,
    'momentum': 0.9,
    'max_iter': 30000,
    'initial_global_step': 0,
    'max_steps': None,                    # last step of the training, for the time left
    'tensorboard_images_max_outputs': 6,
}


def deeplabv3_plus_model_fn(features, labels, mode, params):
  """The model_fn of a tf.estimator.Estimator.

  Departs from the original scripts: features are RGB 0..255, not mean-subtracted, because input scaling
  belongs to the backbone.

  Args:
    features: uint8 or float32 [B, H, W, 3], RGB 0..255.
    labels: integer [B, H, W, 1], 0..K-1 or ignore_label; None for PREDICT.
    mode: a ModeKeys.
    params: dict with base_architecture, num_classes, class_names, palette; for training also batch_size,
      and num_train for the piecewise policy; and whatever is to differ from DEFAULT_PARAMS.

  Returns:
    EstimatorSpec. Predictions are classes int32 [B, H, W, 1] and probabilities float32 [B, H, W, K].
  """
  params = {**DEFAULT_PARAMS, **params}
  architecture = Architecture.from_params(params)
  training = mode == ModeKeys.TRAIN
  logits = network(features, architecture, training and not params['freeze_batch_norm'],
                   params['batch_norm_decay'])
  _check_checkpoint(params)
  predictions = _predictions(logits)
  if mode == ModeKeys.PREDICT:
    return EstimatorSpec(mode, predictions, export_outputs={'preds': PredictOutput(predictions)})

  labels = tf.cast(labels, tf.int32)
  trained = trained_variables(params['freeze_batch_norm'])
  cross_entropy = losses.cross_entropy(logits, labels, params['ignore_label'])
  loss = cross_entropy + losses.weight_decay(trained, params['weight_decay'])
  matrix = metrics.confusion_matrix(labels, predictions['classes'], architecture.num_classes,
                                    params['ignore_label'])
  if mode == ModeKeys.EVAL:
    return EstimatorSpec(mode, predictions, loss,
                         eval_metric_ops=metrics.evaluation_metrics(matrix, params['class_names']))

  rate = optimizers.learning_rate(params)
  scalars = {'loss': loss, 'cross_entropy': cross_entropy, 'learning_rate': rate,
             'train_px_accuracy': metrics.pixel_accuracy(matrix),
             'train_mean_iou': metrics.mean_iou(matrix)}
  summaries.training_scalars({k: v for k, v in scalars.items() if k != 'loss'}, matrix)
  summaries.image_grid(features, labels, predictions['classes'], params)
  _initialize(params, architecture)
  train_op = optimizers.train_op(loss, rate, trained, params['momentum'])
  saver = checkpoints.ResumeSaver(tf.global_variables(), params['keep_checkpoint_max'],
                                  params['checkpoint'])
  return EstimatorSpec(
      mode, predictions, loss, train_op, scaffold=tf.train.Scaffold(saver=saver),
      training_hooks=[run_config.ProgressHook(scalars, params['batch_size'], params['max_steps'])])


def trained_variables(freeze_batch_norm):
  """Returns the variables that training changes and weight decay shrinks: gamma and beta only unfrozen."""
  frozen = ('gamma', 'beta') if freeze_batch_norm else ()
  return [v for v in tf.trainable_variables() if v.op.name.split('/')[-1] not in frozen]


def _predictions(logits):
  """Returns classes int32 [B, H, W, 1] and probabilities float32 [B, H, W, K]."""
  classes = tf.argmax(logits, axis=3, output_type=tf.int32)
  return {'classes': tf.expand_dims(classes, axis=3),
          'probabilities': tf.nn.softmax(logits, name='softmax_tensor')}


def _model_variables():
  """Returns name -> variable of the network alone; called before there is an optimizer."""
  return {v.op.name: v for v in tf.global_variables() if v.op.name != tf.GraphKeys.GLOBAL_STEP}


def _check_checkpoint(params):
  if params['checkpoint']:
    checkpoints.check(params['checkpoint'],
                      {name: v.shape.as_list() for name, v in _model_variables().items()})


def _initialize(params, architecture):
  if params['pre_trained_model'] and not params['checkpoint']:
    checkpoints.initialize(params['pre_trained_model'], _model_variables(),
                           backbones.get(architecture.base_architecture).scope)
