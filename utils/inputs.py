"""The tf.data pipelines: training records, evaluation records, files, and made-up data.

Images are uint8, RGB; labels uint8, 0..K-1 or ignore_label. What is done to an example is
utils/preprocessing.py's concern, the format of a record utils/tf_record.py's.

Letters in shapes: B batch, H W size of an image.
"""
import ast
import collections
import concurrent.futures
import dataclasses
import os
import re

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image, UnidentifiedImageError

from utils import preprocessing, tf_record
from utils.errors import DataError

# The shuffle buffer holds records as they are stored. A whole epoch of VOC (1.2 GB) or of
# Cityscapes at half size fits; of a larger data set it holds what does, beside the processes that
# a training machine also runs.
_SHUFFLE_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class TrainOptions:
  """How `train_dataset` orders, augments and batches examples.

  Attributes:
    crop_size: (height, width), ints, of what leaves the pipeline.
    batch_size: int.
    seed: int; the stream is a pure function of it (and of the files).
    channel_means: (red, green, blue), floats 0..255, the colour of padding.
    num_examples: int, the examples in all files.
    first_example: int, the position in the endless stream to start from.
    min_scale, max_scale: floats, the range of the random scale.
  """
  crop_size: tuple
  batch_size: int
  seed: int
  channel_means: tuple
  num_examples: int
  first_example: int = 0
  min_scale: float = 0.5
  max_scale: float = 2.0


def train_dataset(files, dataset, options):
  """Returns the endless stream of augmented batches of training.

  Every epoch holds each example once, in an order of its own; batches run across epochs. Order and
  augmentation depend on nothing but the seed and the position in the stream.

  Args:
    files: list of str, record files.
    dataset: Dataset.
    options: TrainOptions.

  Returns:
    tf.data.Dataset of (images, labels): uint8 [B, crop height, crop width, 3] and [..., 1].

  Raises:
    tf.errors.InvalidArgumentError: while it runs, at a bad example (`error_sentence` finds why).
  """
  def augmented(position, example):
    return _augmented(example, dataset, options, seed=tf.stack([options.seed, position]))

  return (_endless(files, options)
          .map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
          .batch(options.batch_size, drop_remainder=True)
          .prefetch(tf.data.AUTOTUNE))


def _endless(files, options):
  """Returns the dataset of (position in the stream, example), shuffled anew in every epoch."""
  stored = sum(map(os.path.getsize, files))
  buffer_size = options.num_examples
  if stored > _SHUFFLE_BYTES:
    buffer_size = max(1, buffer_size * _SHUFFLE_BYTES // stored)

  def epoch(number):
    # The order must not depend on the seed of the graph (or of the process) that this is part of.
    tf.set_random_seed(1)  # any but 0, which TensorFlow would compare with the tensor `seed`
    seed = tf.random.stateless_uniform([], [options.seed, -1 - number], None, None, tf.int64)
    shuffle = dict(seed=seed, reshuffle_each_iteration=False)
    return (tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), **shuffle)
            .flat_map(_examples).shuffle(buffer_size, **shuffle))

  first_epoch, skipped = divmod(options.first_example, options.num_examples)
  return (tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch)
          .enumerate(first_epoch * options.num_examples).skip(skipped))


def _examples(path):
  """Returns the dataset of the examples (path, index in the file, serialized) of a record file."""
  return (tf.data.TFRecordDataset(path).enumerate()
          .map(lambda index, serialized: (path, index, serialized)))


def _augmented(example, dataset, options, seed):
  """Returns an image uint8 [h, w, 3] and a label uint8 [h, w, 1] of the crop's size."""
  path, index, serialized = example
  image_encoded, label_encoded = tf_record.parse_example(serialized)
  source = [' of example ', index, " (from 0) of record '", path, "'"]
  size, label = _checked(image_encoded, label_encoded, source, dataset)
  window = preprocessing.random_window(size, options.crop_size,
                                       (options.min_scale, options.max_scale), seed)
  image = preprocessing.resize_image(preprocessing.decode_window(image_encoded, window), window)
  label = preprocessing.resize_label(label, window)
  means = tuple(round(mean) for mean in options.channel_means)
  return (preprocessing.pad(image, options.crop_size, means),
          preprocessing.pad(label, options.crop_size, (dataset.ignore_label,)))


def _checked(image_encoded, label_encoded, source, dataset):
  """Returns int32 [2], the size of the image, and the label, uint8 [H, W, 1], when both are right."""
  label_source = ['the label', *source]
  size = preprocessing.image_shape(image_encoded, ['the image', *source])
  label = preprocessing.decode_label(label_encoded, label_source)
  with tf.control_dependencies([
      preprocessing.check_sizes(size, tf.shape(label)[:2], label_source),
      preprocessing.check_label(label, dataset, label_source)]):
    return tf.identity(size), tf.identity(label)


def eval_dataset(files, dataset):
  """Returns the examples of record files in their order, each a batch of one at its own size.

  Args:
    files: list of str, record files.
    dataset: Dataset.

  Returns:
    tf.data.Dataset of (images, labels): uint8 [1, H, W, 3] and uint8 [1, H, W, 1].

  Raises:
    tf.errors.InvalidArgumentError: while it runs, at a bad example (`error_sentence` finds why).
  """
  def decoded(path, index, serialized):
    source = [' of example ', index, " (from 0) of record '", path, "'"]
    image_encoded, label_encoded = tf_record.parse_example(serialized)
    label_source = ['the label', *source]
    size = preprocessing.image_shape(image_encoded, ['the image', *source])
    label = preprocessing.decode_label(label_encoded, label_source)
    return preprocessing.decode_image(image_encoded), _checked_label(size, label, label_source, dataset)

  return (tf.data.Dataset.from_tensor_slices(files).flat_map(_examples)
          .map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(1).prefetch(2))


def folder_dataset(image_paths, label_paths, dataset):
  """Returns images and labels from files, each a batch of one at its own size; see eval_dataset.

  Args:
    image_paths: list of str, in any format that `read_image` reads.
    label_paths: list of str, PNGs.
    dataset: Dataset.
  """
  labels = tf.data.Dataset.from_tensor_slices((list(image_paths), list(label_paths)))

  def decoded(image, paths):
    image_path, label_path = paths
    label_source = ["label '", label_path, "'"]
    label = preprocessing.decode_label(tf.io.read_file(label_path), label_source)
    return image, _checked_label(tf.shape(image)[:2], label, label_source, dataset)

  return (tf.data.Dataset.zip((_images(image_paths), labels))
          .map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(1).prefetch(2))


def image_dataset(image_paths):
  """Returns the images of files in their order, each a batch of one at its own size.

  Args:
    image_paths: list of str, in any format that `read_image` reads.

  Returns:
    tf.data.Dataset of uint8 [1, H, W, 3].
  """
  return _images(image_paths).batch(1).prefetch(2)


def synthetic_dataset(batch_size, crop_size, num_classes, seed=0):
  """Returns one made-up batch for ever, of the shapes and types of `train_dataset`, at no cost.

  Args:
    batch_size: int.
    crop_size: (height, width), ints.
    num_classes: int, K.
    seed: int.
  """
  rng = np.random.RandomState(seed)
  images = rng.randint(0, 256, (batch_size, *crop_size, 3)).astype(np.uint8)
  labels = rng.randint(0, num_classes, (batch_size, *crop_size, 1)).astype(np.uint8)
  return tf.data.Dataset.from_tensors((images, labels)).repeat()


def read_image(path):
  """Returns uint8 [H, W, 3], RGB, of any image that PIL or OpenCV reads, in its stored orientation.

  Raises:
    DataError: neither reads it; the error names it.
  """
  try:
    with Image.open(path) as image:
      if image.mode.startswith(('I', 'F')):  # more than 8 bits: OpenCV scales them
        raise UnidentifiedImageError
      return np.asarray(image.convert('RGB'))
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    image = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
      raise DataError(f"image '{path}' cannot be decoded; replace it, or take it out of the list") from None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def data_error(error):
  """Returns the DataError that a failed session stands for, or the error itself where there is none."""
  sentence = error_sentence(str(error))
  return DataError(sentence) if sentence else error


def error_sentence(message):
  """Returns the sentence for the user in the message of a TensorFlow error, or None."""
  found = re.search(f'{preprocessing.SENTENCE_BEGIN}(.*?){preprocessing.SENTENCE_END}', message, re.DOTALL)
  # TensorFlow escapes quotes and all that is not ASCII as C does.
  return ast.literal_eval(f"b'{found.group(1)}'").decode() if found else None


def _checked_label(image_size, label, source, dataset):
  """Returns the label, uint8 [H, W, 1], when it fits its image and the dataset."""
  with tf.control_dependencies([
      preprocessing.check_sizes(image_size, tf.shape(label)[:2], source),
      preprocessing.check_label(label, dataset, source)]):
    return tf.identity(label)


def _images(paths):
  """Returns the dataset of uint8 [H, W, 3]; Python decodes, a few files ahead of what is asked for."""
  def decoded():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
      ahead = collections.deque()
      for path in paths:
        ahead.append(pool.submit(read_image, path))
        if len(ahead) > 4:
          yield ahead.popleft().result()
      while ahead:
        yield ahead.popleft().result()

  def marked():
    try:
      yield from decoded()
    except DataError as error:  # TensorFlow hands on no more of an exception than its text
      raise DataError(preprocessing.SENTENCE_BEGIN + str(error) + preprocessing.SENTENCE_END) from error

  return tf.data.Dataset.from_generator(marked, output_signature=tf.TensorSpec([None, None, 3], tf.uint8))
