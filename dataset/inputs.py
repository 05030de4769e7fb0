"""The tf.data pipelines: training records, evaluation records, files, and made-up data.

Images are uint8, RGB; labels uint8, 0..K-1 or ignore_label. What is done to an example is
dataset/preprocessing.py's concern, the format of a record dataset/schema.py's.

Letters in shapes: B batch, H W size of an image.
"""
import collections
import concurrent.futures
import dataclasses
import os

import numpy as np
import tensorflow.compat.v1 as tf

from dataset import class_uniform, preprocessing, schema, tf_records
from utils import devices
from utils.errors import DataError, UsageError

# The shuffle buffer holds records as they are stored. All of VOC's 10,582 training photos (some
# 1.2 GB) fit. Of a larger data set it holds as many records as do, so that the host's memory is left
# to the rest of training; that still mixes thousands of examples, and the shards change their order.
_SHUFFLE_BYTES = 2 << 30

# Record files that are read at a time in training, which fetches ahead if they lie on slow disks.
_FILES_AT_A_TIME = 16

# Files that are decoded in Python at a time; PIL leaves the lock of the interpreter meanwhile.
_THREADS = 8

# Without it tf.data would first rewrite every function below for Python's own `if` and `for`, in seconds;
# all their branches and loops are TensorFlow's.
_as_written = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class TrainOptions:
  """How `train_dataset` orders, augments and batches examples.

  Attributes:
    crop_size: (height, width), ints, of what leaves the pipeline.
    images_per_replica: int, the images of a batch of each replica.
    seed: int; the stream is a pure function of it (and of the files).
    padding_color: (red, green, blue), floats 0..255, the colour of padding.
    num_examples: int, the examples in all files.
    first_example: int, the position in the endless stream to start from.
    min_scale, max_scale: floats, the range of the random scale.
    scale_step: float, between two of the scales that are drawn; 0 draws any of the range.
    flip: bool, mirror half of the examples.
    photometric_distortion: bool, change the colours of images at random.
    max_class_share: float, what a class should take of a crop's valid pixels at most; 1 is no limit.
    sampling: class_uniform.Plan of which examples make an epoch; None takes each once.
    cache: bool, keep decoded examples in memory: 4 bytes a pixel of all of them. The stream stays the same,
      except for several record files, whose order no longer changes.
    threads: int, of a pool of the pipeline's own; 0 takes part in the one of all operations, a thread a core.
  """
  crop_size: tuple
  images_per_replica: int
  seed: int
  padding_color: tuple
  num_examples: int
  first_example: int = 0
  min_scale: float = 0.5
  max_scale: float = 2.0
  scale_step: float = 0.0
  flip: bool = True
  photometric_distortion: bool = False
  max_class_share: float = 1.0
  sampling: class_uniform.Plan | None = None
  cache: bool = False
  threads: int = 0


def read_flags(args):
  """Returns what parsed flags that hold flags.AUGMENTATION_FLAGS say of TrainOptions, a dict.

  Raises:
    UsageError: they contradict one another.
  """
  (least, most), step = args.scale_range, args.scale_step
  if least > most:
    raise UsageError(f'--scale_range {least:g} {most:g} begins above its end; give the smaller scale first')
  if step and step > most - least:
    raise UsageError(f'--scale_step {step:g} is wider than --scale_range {least:g} {most:g}, of which it '
                     f'would leave {least:g} alone; give a smaller step, or 0 for any scale of the range')
  return dict(crop_size=tuple(args.crop_size), seed=args.seed, min_scale=least, max_scale=most,
              scale_step=step, flip=args.flip, photometric_distortion=args.photometric_distortion,
              max_class_share=args.max_class_share)


def train_dataset(files, dataset, options, input_context=None):
  """Returns the endless stream of augmented batches of training.

  Every epoch holds each example once, or what `options.sampling` draws, in an order of its own; batches run
  across epochs. What is drawn, order and augmentation depend on nothing but the seed and the position in the
  stream. Of N machines that train together, each decodes every Nth example, so that their batches of a step
  are one machine's batch.

  Args:
    files: list of str, record files.
    dataset: Dataset.
    options: TrainOptions.
    input_context: tf.distribute.InputContext, from the Estimator if it trains under a strategy, else None.

  Returns:
    tf.data.Dataset of (images, labels): uint8 [B, crop height, crop width, 3] and [..., 1].

  Raises:
    tf.errors.InvalidArgumentError: while it runs, at a bad example (utils/failures.py finds why).
  """
  @_as_written
  def augmented(position, example):
    return _augmented(example, dataset, options, seed=tf.stack([options.seed, position]))

  host = tf.data.Options()
  if options.threads:
    host.threading.private_threadpool_size = options.threads
  examples = _endless(files, options, lambda examples: _pictures(examples, dataset).cache())
  examples = examples.with_options(host)
  if input_context:
    examples = examples.shard(input_context.num_input_pipelines, input_context.input_pipeline_id)
  return (examples
          .map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
          .batch(options.images_per_replica, drop_remainder=True)
          .prefetch(tf.data.AUTOTUNE))


def example_names(files, options, count):
  """Returns what the first examples of `train_dataset`'s stream are called, a list of `count` str.

  These are the names of their images, or else their places in the record files.

  They are read again, which takes as long as the shuffle buffer does to fill.

  Args:
    files, options: see train_dataset.
    count: int.
  """
  names = []
  with devices.cpu_session() as session:
    examples = _endless(files, options, lambda examples: examples).take(count)
    _, example = tf.data.make_one_shot_iterator(examples).get_next()
    for _ in range(count):
      name, serialized = session.run(example)
      stored = tf.train.Example.FromString(serialized).features.feature[schema.IMAGE_FILENAME]
      names.append(next(iter(stored.bytes_list.value), name).decode(errors='replace'))
  return names


def _endless(files, options, cached):
  """Returns the dataset of (position in the stream, example), shuffled anew in every epoch.

  Args:
    files, options: see train_dataset.
    cached: function that returns what `options.cache` keeps of a dataset of examples in their order.
  """
  stored = sum(map(os.path.getsize, files))
  buffer_size = options.num_examples
  if stored > _SHUFFLE_BYTES:
    buffer_size = max(1, buffer_size * _SHUFFLE_BYTES // stored)
  if options.cache:  # what is shuffled lies in memory already
    buffer_size = options.num_examples
    in_order = cached(_in_turns(tf.data.Dataset.from_tensor_slices(files), _examples))
  plan = options.sampling
  bounds = np.cumsum([0, *plan.file_sizes]) if plan else None  # of the numbers of the examples in each file

  @_as_written
  def epoch(number):
    # The order must not depend on the seed of the graph (or of the process) that this is part of.
    tf.set_random_seed(1)  # any but 0, which TensorFlow would compare with the tensor `seed`
    seed_of_epoch = tf.stack([options.seed, -1 - number])
    seed = tf.random.stateless_uniform([], seed_of_epoch, None, None, tf.int64)
    shuffle = dict(seed=seed, reshuffle_each_iteration=False)

    def in_turns(parts, examples=_examples):
      parts = tf.data.Dataset.from_tensor_slices(parts)
      return _in_turns(parts if options.cache else parts.shuffle(len(files), **shuffle), examples)

    examples = in_order if options.cache else in_turns(files)
    if plan:
      numbers = in_turns((bounds[:-1], bounds[1:]), tf.data.Dataset.range)
      examples = _repeated(examples, numbers, class_uniform.counts(plan, seed_of_epoch))
    return examples.shuffle(buffer_size, **shuffle)

  first_epoch, skipped = divmod(options.first_example, options.num_examples)
  return (tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch)
          .enumerate(first_epoch * options.num_examples).skip(skipped))


def _in_turns(paths, examples):
  """Returns the dataset of the examples of a dataset of record files: one of each in turn.

  Args:
    paths: tf.data.Dataset of record files, or of what else stands for them.
    examples: function of an element of it that returns the dataset of the examples in that file.
  """
  return paths.interleave(examples, cycle_length=_FILES_AT_A_TIME, num_parallel_calls=tf.data.AUTOTUNE,
                          deterministic=True)


def _repeated(examples, numbers, counts):
  """Returns the dataset in which each example comes as often as counts, int64 [N], says of its number."""
  @_as_written
  def copies(number, example):
    return tf.data.Dataset.from_tensors(example).repeat(counts[number])

  return tf.data.Dataset.zip((numbers, examples)).flat_map(copies)


def _examples(path):
  """Returns the dataset of the examples of a record file: (name for errors, serialized)."""
  @_as_written
  def named(index, serialized):
    index = tf.as_string(index)
    return tf.strings.join(['example ', index, " (from 0) of record '", path, "'"]), serialized

  return tf.data.TFRecordDataset(path).enumerate().map(named)


def _augmented(example, dataset, options, seed):
  """Returns an image, uint8 [h, w, 3], and a label, uint8 [h, w, 1], of the crop's size."""
  if options.cache:
    image, label = example
    size = tf.shape(image)[:2]
  else:
    image_encoded, size, label = _checked(example, dataset)
  window = preprocessing.random_window(size, options.crop_size,
                                       (options.min_scale, options.max_scale), seed,
                                       options.scale_step, options.flip)
  if options.max_class_share < 1:
    window = preprocessing.mixed_window(window, label, dataset.ignore_label, options.max_class_share, seed)
  image = (preprocessing.cut_window(image, window) if options.cache else
           preprocessing.decode_window(image_encoded, window))
  image = preprocessing.resize_image(image, window)
  if options.photometric_distortion:
    image = preprocessing.distort(image, seed)
  label = preprocessing.resize_label(label, window)
  means = tuple(round(mean) for mean in options.padding_color)
  return (preprocessing.pad(image, options.crop_size, means),
          preprocessing.pad(label, options.crop_size, (dataset.ignore_label,)))


def _checked(example, dataset):
  """Returns the encoded image, its size (int32 [2]) and the label, uint8 [H, W, 1], of an example."""
  name, serialized = example
  image_encoded, label_encoded = tf_records.parse_example(serialized)
  image_name, label_name = (tf.strings.join([f'the {kind} of ', name])
                            for kind in ('image', 'label'))
  size = preprocessing.image_shape(image_encoded, image_name)
  with tf.control_dependencies([size]):  # nothing is decoded before its size is known to be allowed
    image_encoded = tf.identity(image_encoded)
  label = preprocessing.decode_label(label_encoded, label_name)
  with tf.control_dependencies([
      preprocessing.check_sizes(size, tf.shape(label)[:2], label_name),
      preprocessing.check_label(label, dataset, label_name)]):
    return image_encoded, tf.identity(size), tf.identity(label)


def eval_dataset(files, dataset, fillers=0):
  """Returns the examples of record files, in order and at their own sizes, in batches of one.

  Args:
    files: list of str, record files.
    dataset: Dataset.
    fillers: int, images without a valid pixel to add at the end, if several replicas each need one.

  Returns:
    tf.data.Dataset of (images, labels): uint8 [1, H, W, 3] and uint8 [1, H, W, 1].

  Raises:
    tf.errors.InvalidArgumentError: while it runs, at a bad example (utils/failures.py finds why).
  """
  examples = (_pictures(tf.data.Dataset.from_tensor_slices(files).flat_map(_examples), dataset)
              .batch(1, drop_remainder=True).prefetch(tf.data.AUTOTUNE))
  if not fillers:
    return examples
  side = 33  # anything of at least the output stride
  return examples.concatenate(tf.data.Dataset.from_tensors((
      tf.zeros([1, side, side, 3], tf.uint8),
      tf.fill([1, side, side, 1], tf.constant(dataset.ignore_label, tf.uint8)))).repeat(fillers))


def _pictures(examples, dataset):
  """Returns the dataset of images, uint8 [H, W, 3], and their labels, uint8 [H, W, 1]."""
  @_as_written
  def decoded(*example):
    image_encoded, _, label = _checked(example, dataset)
    return preprocessing.decode_image(image_encoded), label

  return examples.map(decoded, num_parallel_calls=tf.data.AUTOTUNE)


def record_dataset(files, dataset):
  """Returns the same examples as features of a prediction: dicts of position, image and label.

  `position` is int64 [1], which of the examples it is.
  """
  @_as_written
  def features(position, example):
    return {'position': position, 'image': example[0], 'label': example[1]}

  positions = tf.data.Dataset.range(tf.int64.max).batch(1, drop_remainder=True)
  return tf.data.Dataset.zip((positions, eval_dataset(files, dataset))).map(features)


def image_dataset(images, looks, read, fail, on_bad=None):
  """Returns images that Python reads, or their views, in order, in batches of one.

  Args:
    images: iterable of what `read` takes, such as paths.
    looks: views.Views.
    read: function that returns an image, uint8 [H, W, 3]; it is called in threads.
    fail: function of the exception that ends the images early. TensorFlow would make an error of its own of
      it, with the text alone.
    on_bad: function of the position of an image that cannot be read, and the DataError; the image is then
      left out. None: the first such image ends them.

  Returns:
    tf.data.Dataset of dicts of `position`, int64 [1], that of the image, and what looks.signature says.
  """
  ahead = _THREADS if looks.is_plain else 1  # images that memory has to hold

  def features():
    try:
      for position, image in _read_in_threads(images, read, ahead, on_bad):
        for view in looks.features(image):
          yield {'position': position, **view}
    except Exception as error:
      fail(error)

  return (tf.data.Dataset.from_generator(
      features, output_signature={'position': tf.TensorSpec([], tf.int64), **looks.signature})
          .batch(1, drop_remainder=True).prefetch(tf.data.AUTOTUNE if looks.is_plain else 1))


def _read_in_threads(images, read, ahead, on_bad):
  """Yields pairs of a position and an image; `ahead` of them are read before they are asked for."""
  def finished():
    position, image = pending.popleft()
    try:
      yield position, image.result()
    except DataError as error:
      if on_bad is None:
        raise
      on_bad(position, error)

  with concurrent.futures.ThreadPoolExecutor(ahead) as pool:
    pending = collections.deque()
    for position, image in enumerate(images):
      pending.append((position, pool.submit(read, image)))
      if len(pending) > ahead:
        yield from finished()
    while pending:
      yield from finished()


def synthetic_dataset(batch_size, crop_size, num_classes, seed=0):
  """Returns one made-up batch again and again, which costs nothing: to measure everything except the input.

  Args:
    batch_size: int.
    crop_size: (height, width), ints.
    num_classes: int, K.
    seed: int.

  Returns:
    tf.data.Dataset of the same elements as `train_dataset`; labels are 0..K-1.
  """
  def noise(channels, limit):
    shape = (batch_size, *crop_size, channels)
    return tf.cast(tf.random.stateless_uniform(shape, (seed, channels), 0, limit, tf.int32),
                   tf.uint8)

  return (tf.data.Dataset.range(1).map(lambda _: (noise(3, 256), noise(1, num_classes)))
          .cache().repeat())
