"""The benchmark's reference: the same network as the original DeepLabv3+ scripts build it."""
import contextlib

import tensorflow.compat.v1 as tf

import deeplab_model
from benchmarks import project
from dataset import preprocessing, tf_records
from nets import layers
from nets.architecture import Architecture
from training import losses, optimizers
from utils.settings import Settings


def bench(mode, params, dataset):
  """Returns the Bench of a mode on the reference; see project.bench_of."""
  return project.bench_of(mode, params, dataset, records, train_step, predict)


@contextlib.contextmanager
def as_the_originals():
  """Within it, atrous convolutions go through SpaceToBatch, and batch norm stays an operation of its own."""
  def convolution(inputs, weights, stride, rate, padding):
    if rate > 1:
      return tf.nn.atrous_conv2d(inputs, weights, rate, padding)
    return tf.nn.conv2d(inputs, weights, stride, padding)

  ours = layers.convolution, layers.folds
  layers.convolution, layers.folds = convolution, lambda norm: False
  try:
    yield
  finally:
    layers.convolution, layers.folds = ours


def records(paths, _, options):
  """Returns a tf.data.Dataset of images float32 [B, h, w, 3] and labels int32 [B, h, w, 1]."""
  def parse(serialized):
    image, label = tf_records.parse_example(serialized)
    image = tf.io.decode_image(image, 3, expand_animations=False)
    return tf.cast(image, tf.float32), tf.cast(preprocessing.decode_label(label), tf.float32)

  def augment(image, label):
    scale = tf.random.uniform([], options.min_scale, options.max_scale)
    size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * scale, tf.int32)
    image = tf.image.resize_bilinear(image[tf.newaxis], size)[0]
    label = tf.image.resize_nearest_neighbor(label[tf.newaxis], size)[0]
    both = tf.concat([image, label - 255], axis=2)  # so that 0 pads both
    both = tf.image.pad_to_bounding_box(
        both, 0, 0, *tf.unstack(tf.maximum(size, options.crop_size)))
    both = tf.image.random_crop(both, [*options.crop_size, 4])
    both = tf.image.random_flip_left_right(both)
    return both[:, :, :3], tf.cast(both[:, :, 3:] + 255, tf.int32)

  serial = tf.data.Options()
  serial.experimental_optimization.map_parallelization = False  # which TensorFlow 2 turns on
  return (tf.data.TFRecordDataset(paths).shuffle(options.num_examples).map(parse).map(augment)
          .prefetch(options.images_per_replica).repeat()
          .batch(options.images_per_replica, drop_remainder=True)
          .with_options(serial))


def train_step(images, labels, params):
  """Returns [train_op, loss, scores]."""
  classes, settings = params['num_classes'], Settings.from_params(params)
  architecture = Architecture(params['base_architecture'], classes, params['output_stride'])
  with as_the_originals():
    logits = deeplab_model.network(images, architecture, is_training=True)
  labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
  predictions = tf.reshape(tf.argmax(logits, axis=3, output_type=tf.int32), [-1])
  is_valid = tf.cast(labels <= classes - 1, tf.int32)
  logits, labels, predictions = (
      tf.dynamic_partition(values, is_valid, 2)[1]
      for values in (tf.reshape(logits, [-1, classes]), labels, predictions))
  variables = tf.trainable_variables()
  cross_entropy = tf.losses.sparse_softmax_cross_entropy(labels, logits)
  decay = losses.weight_decay(variables, settings.weight_decay)
  train_op = optimizers.train_op(cross_entropy, decay, optimizers.learning_rate(settings), variables,
                                 settings).train_op
  accuracy = tf.metrics.accuracy(labels, predictions)[1]
  matrix = tf.metrics.mean_iou(labels, predictions, classes)[1]  # of all steps so far
  hits = tf.linalg.diag_part(matrix)
  unions = tf.reduce_sum(matrix, 0) + tf.reduce_sum(matrix, 1) - hits
  iou = [hits[index] / tf.maximum(unions[index], 1) for index in range(classes)]
  return [train_op, cross_entropy + decay, [accuracy, tf.add_n(iou) / classes, *iou]]


def predict(images, params):
  with as_the_originals():
    return project.predict(images, params, ('classes', 'probabilities'))
