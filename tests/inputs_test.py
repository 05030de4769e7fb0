"""The pipelines: order, augmentation, agreement of image and label, and what bad data leads to."""
import dataclasses
import io
import itertools
import os
import shutil
import tempfile
import unittest
import zlib
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image, PngImagePlugin
from tensorflow.python.framework import config

from commands import flags
from dataset import class_uniform, image_files, inputs, label_files, schema, tf_records
from dataset.descriptors import Dataset
from dataset.views import Views
from utils import failures
from utils.errors import DataError, UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]

DATASET = Dataset('tiny', ('a', 'b', 'c'), ((0, 0, 0),) * 3)
# Half the images' size is the smallest that a scale makes them: with this crop nothing is padded.
OPTIONS = inputs.TrainOptions(crop_size=(8, 11), images_per_replica=3, seed=5,
                              padding_color=(123.68, 116.78, 103.94),
                              num_examples=7)


def encoded(pixels, kind='PNG', **options):
  buffer = io.BytesIO()
  Image.fromarray(np.uint8(pixels)).save(buffer, kind, **options)
  return buffer.getvalue()


def numbered(number, height=17, width=23):
  """Returns an example (image, label) whose red channel is its number; the rest is noise."""
  image = np.random.RandomState(number).randint(256, size=(height, width, 3))
  image[:, :, 0] = number
  return encoded(image), encoded(image[:, :, 1] % 3)


def record(path, examples):
  """Writes (image, label) files as a record with no features but the two; returns its path."""
  with tf.io.TFRecordWriter(path) as writer:
    for image, label in examples:
      features = {schema.IMAGE_ENCODED: image, schema.LABEL_ENCODED: label}
      writer.write(tf.train.Example(features=tf.train.Features(feature={
          name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
          for name, value in features.items()})).SerializeToString())
  return path


def rows(dataset, number):
  return [tuple(tensor.numpy() for tensor in row) for row in dataset.take(number)]


class TestCase(unittest.TestCase):

  def setUp(self):
    super().setUp()
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def record(self, examples, name='train.record'):
    return record(os.path.join(self.folder, name), examples)

  def file(self, name, content):
    path = os.path.join(self.folder, name)
    with open(path, 'wb') as file:
      file.write(content)
    return path

  def check_stops(self, dataset, sentence):
    """Asserts that the dataset ends with an error that holds this sentence, and no other."""
    with self.assertRaises(tf.errors.InvalidArgumentError) as caught:
      rows(dataset, 50)
    self.assertEqual(failures.error_sentence(str(caught.exception)), sentence)
    self.assertEqual(failures.error_sentence(caught.exception.message), sentence)


class TrainStreamTest(TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.files = [record(os.path.join(folder.name, 'train.record'), map(numbered, range(7)))]
    cls.images, cls.labels = cls.stream(42)  # batches of 3 run across the borders of epochs of 7

  @classmethod
  def stream(cls, number, files=None, context=None, **changes):
    """Returns images [number, h, w, 3] and labels of the stream's first batches, end to end."""
    options = dataclasses.replace(OPTIONS, **changes)
    batches = rows(inputs.train_dataset(files or cls.files, DATASET, options, context),
                   number // options.images_per_replica)
    return tuple(map(np.concatenate, zip(*batches, strict=True)))

  def numbers(self, images):
    """Returns the numbers of the examples that the images were cut from."""
    self.assertTrue((images[..., 0] == images[:, :1, :1, 0]).all())  # no padding, no mixture
    return images[:, 0, 0, 0].tolist()

  def check_equals_part(self, stream, first, last):
    np.testing.assert_array_equal(stream[0], self.images[first:last])
    np.testing.assert_array_equal(stream[1], self.labels[first:last])

  def test_shapes_and_types_are_static(self):
    images, labels = inputs.train_dataset(self.files, DATASET, OPTIONS).element_spec
    self.assertEqual((images.shape.as_list(), images.dtype), ([3, 8, 11, 3], tf.uint8))
    self.assertEqual((labels.shape.as_list(), labels.dtype), ([3, 8, 11, 1], tf.uint8))

  def test_every_epoch_is_another_order_of_all_examples(self):
    numbers = self.numbers(self.images)
    epochs = [tuple(numbers[start:start + 7]) for start in range(0, 42, 7)]
    for epoch in epochs:
      self.assertEqual(sorted(epoch), list(range(7)))
    self.assertEqual(len(set(epochs)), 6)

  def test_example_is_augmented_anew_in_every_epoch(self):
    of_four = self.images[self.images[:, 0, 0, 0] == 4]
    self.assertEqual(len(np.unique(of_four, axis=0)), 6)

  def test_other_seed_gives_other_order_and_augmentation(self):
    images, _ = self.stream(42, seed=6)
    self.assertNotEqual(self.numbers(images), self.numbers(self.images))
    both = np.concatenate([images, self.images])
    self.assertEqual(len(np.unique(both, axis=0)), 84)

  def test_stream_depends_on_no_other_seed_nor_on_eager_execution(self):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(99)
      iterator = tf.data.make_initializable_iterator(
          inputs.train_dataset(self.files, DATASET, OPTIONS))
      session.run(iterator.initializer)
      next_batch = iterator.get_next()
      batches = [session.run(next_batch) for _ in range(14)]
    self.check_equals_part(tuple(map(np.concatenate, zip(*batches, strict=True))), 0, 42)

  def test_cached_examples_give_the_same_stream_and_are_read_once(self):
    options = dataclasses.replace(OPTIONS, cache=True)
    with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default(), tf.Session() as session:
      path = os.path.join(folder, 'train.record')
      shutil.copy(self.files[0], path)
      iterator = tf.data.make_initializable_iterator(inputs.train_dataset([path], DATASET, options))
      session.run(iterator.initializer)
      next_batch = iterator.get_next()
      batches = [session.run(next_batch) for _ in range(7)]
      os.remove(path)
      batches += [session.run(next_batch) for _ in range(7)]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(images, self.images)
    np.testing.assert_array_equal(labels, self.labels)

  def test_two_machines_share_the_examples_of_every_batch(self):
    for worker in (0, 1):
      part = self.stream(21, context=tf.distribute.InputContext(2, worker))
      np.testing.assert_array_equal(part[0], self.images[worker::2])
      np.testing.assert_array_equal(part[1], self.labels[worker::2])

  def test_first_example_gives_the_tail_of_the_stream(self):
    for first in (10, 21):  # within an epoch, and where one begins
      self.check_equals_part(self.stream(21, first_example=first), first, first + 21)

  def test_first_example_gives_the_tail_also_of_the_stream_with_all_augmentation(self):
    every = dict(scale_step=.25, flip=False, photometric_distortion=True, max_class_share=.4)
    images, labels = self.stream(21, **every)
    self.assertFalse((images == self.images[:21]).all())
    for changes in ({}, {'cache': True}):
      tail, tail_labels = self.stream(9, first_example=10, **every, **changes)
      np.testing.assert_array_equal(tail, images[10:19])
      np.testing.assert_array_equal(tail_labels, labels[10:19])

  def test_batch_size_and_threads_change_nothing_but_the_batches(self):
    self.check_equals_part(self.stream(40, images_per_replica=5, threads=3), 0, 40)

  def test_shards_are_one_stream_and_change_their_order(self):
    parts = ((0, 1, 2), (3, 4), (), (5, 6))
    shards = [record(os.path.join(self.folder, str(index)), map(numbered, part))
              for index, part in enumerate(parts)]
    # A buffer of one record leaves the order of the shards, which take turns, as all that is shuffled.
    with mock.patch.object(inputs, '_SHUFFLE_BYTES', 1):
      numbers = self.numbers(self.stream(42, shards)[0])
      tail = self.numbers(self.stream(9, shards, first_example=30)[0])
    self.assertEqual(tail, numbers[30:39])
    orders = {tuple(numbers[start:start + 7]) for start in range(0, 42, 7)}
    self.assertLessEqual(orders, {
        tuple(number for turn in itertools.zip_longest(*order) for number in turn if number is not None)
        for order in itertools.permutations(parts)})
    self.assertGreater(len(orders), 1)

  def test_examples_come_as_often_as_the_plan_says_through_shards_caches_and_machines(self):
    parts = ((0, 1, 2), (3,), (), (4, 5, 6))
    shards = [record(os.path.join(self.folder, str(index)), map(numbered, part))
              for index, part in enumerate(parts)]
    plan = class_uniform.Plan(.5, [[5], [1, 3]], [3, 1, 0, 3])
    expected = [class_uniform.counts(plan, tf.constant([5, -1 - epoch], tf.int64)).numpy()
                for epoch in range(6)]
    with mock.patch.object(inputs, '_FILES_AT_A_TIME', 2):
      images, labels = self.stream(42, shards, sampling=plan)
      numbers = self.numbers(images)
      for begin, counts in zip(range(0, 42, 7), expected, strict=True):
        np.testing.assert_array_equal(np.bincount(numbers[begin:begin + 7], minlength=7), counts)
      self.assertEqual(len({tuple(numbers[begin:begin + 7]) for begin in range(0, 42, 7)}), 6)
      self.assertGreater(len(np.unique(images, axis=0)), 35)  # copies are augmented each by itself
      tail, tail_labels = self.stream(12, shards, sampling=plan, first_example=17)
      np.testing.assert_array_equal(tail, images[17:29])
      np.testing.assert_array_equal(tail_labels, labels[17:29])
      half, _ = self.stream(21, shards, tf.distribute.InputContext(2, 1), sampling=plan)
      np.testing.assert_array_equal(half, images[1::2])
      cached = self.numbers(self.stream(42, shards, sampling=plan, cache=True)[0])
      for begin, counts in zip(range(0, 42, 7), expected, strict=True):
        np.testing.assert_array_equal(np.bincount(cached[begin:begin + 7], minlength=7), counts)
      options = dataclasses.replace(OPTIONS, sampling=plan, first_example=17)
      names = inputs.example_names(shards, options, 9)
    places = {number: (index, place) for index, part in enumerate(parts) for place, number in enumerate(part)}
    self.assertEqual(names, [f"example {places[number][1]} (from 0) of record '{shards[places[number][0]]}'"
                             for number in numbers[17:26]])

  def test_names_are_read_again_where_whatever_is_random_has_to_have_a_seed(self):
    config.enable_op_determinism()  # as --deterministic does
    self.addCleanup(config.disable_op_determinism)
    numbers = self.numbers(self.images[:9])
    self.assertEqual(inputs.example_names(self.files, OPTIONS, 9),
                     [f"example {number} (from 0) of record '{self.files[0]}'" for number in numbers])
    self.assertIsNone(tf_records.find_bad_example(self.files, DATASET))

  def test_records_beyond_the_budget_are_shuffled_within_it(self):
    stored = os.path.getsize(self.files[0])
    with mock.patch.object(inputs, '_SHUFFLE_BYTES', stored // 2):  # 3 of 7 records
      numbers = self.numbers(self.stream(42)[0])
    for start in range(0, 42, 7):
      epoch = numbers[start:start + 7]
      self.assertEqual(sorted(epoch), list(range(7)))
      # What leaves a buffer of 3 at place i is one of the first i + 3.
      self.assertTrue(all(number < place + 3 for place, number in enumerate(epoch)))
    self.assertNotEqual(numbers[:7], list(range(7)))


class AugmentationTest(TestCase):

  def batch(self, image, label, dataset, number, **options):
    options = inputs.TrainOptions(images_per_replica=number, seed=1, padding_color=(123.68, 116.78, 103.94),
                                  num_examples=1, **options)
    return rows(inputs.train_dataset([self.record([(image, label)])], dataset, options), 1)[0]

  def test_label_agrees_with_picture(self):
    # Patches of 16 x 16 pixels, each in the colour of its class.
    colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [250, 250, 10], [10, 250, 250]])
    classes = np.random.RandomState(3).randint(5, size=(6, 8)).repeat(16, 0).repeat(16, 1)
    dataset = Dataset('patches', tuple('abcde'), tuple(map(tuple, colours)))
    for kind in ('PNG', 'JPEG'):
      options = {'quality': 95, 'subsampling': 0} if kind == 'JPEG' else {}
      images, labels = self.batch(encoded(colours[classes], kind, **options), encoded(classes), dataset, 60,
                                  crop_size=(97, 81))
      labels = labels[:, :, :, 0]
      for image, label in zip(images.astype(int), labels, strict=True):
        distance = np.abs(image[:, :, None] - np.vstack([colours, [[124, 117, 104]]])).max(3)
        seen = np.append(np.arange(5), 255)[distance.argmin(2)]
        plain = distance.min(2) < 12  # the rest lies between two patches
        np.testing.assert_array_equal(label[plain], seen[plain])
        self.assertGreater(plain.mean(), .6)
      self.assertGreater((labels == 255).any(axis=(1, 2)).sum(), 10)  # padded
      self.assertGreater((labels != 255).all(axis=(1, 2)).sum(), 10)  # cut all round

  def test_positions_agree_within_a_pixel(self):
    # Red is twice the column and green twice the row, which interpolation keeps; so is the label.
    row, column = np.mgrid[:90, :110]
    dataset = Dataset('columns', tuple(map(str, range(120))), ((0, 0, 0),) * 120)
    image = encoded(np.dstack([2 * column, 2 * row, 0 * row]))
    for label, channel in ((column, 0), (row, 1)):
      images, labels = self.batch(image, encoded(label), dataset, 60, crop_size=(83, 71))
      labels = labels[:, :, :, 0].astype(int)
      valid = labels != 255
      off = np.abs(images[:, :, :, channel] / 2 - labels)[valid]
      self.assertLessEqual(off.max(), .75)  # half a pixel, and rounding
      np.testing.assert_array_equal(images[~valid], [[124, 117, 104]] * (~valid).sum())
    flipped = (np.diff(images[:, 0, :20, 0].astype(int)) < 0).any(axis=1)
    self.assertTrue(10 < flipped.sum() < 50)

  def test_small_image_is_padded_right_and_bottom_or_mirrored(self):
    images, labels = self.batch(encoded(np.full((4, 6, 3), 200)), encoded(np.ones((4, 6))), DATASET, 5,
                                crop_size=(9, 10), min_scale=1., max_scale=1.)
    self.assertTrue((images[:, :4, :6] == 200).all() and (labels[:, :4, :6] == 1).all())
    for part in (np.s_[:, 4:], np.s_[:, :, 6:]):
      self.assertTrue((images[part] == [124, 117, 104]).all() and (labels[part] == 255).all())

  def test_step_and_flip_of_the_options_are_heeded(self):
    row = np.arange(40)
    image, label = encoded(np.dstack([np.broadcast_to(5 * row, (24, 40))] * 3)), encoded(np.zeros((24, 40)))
    images, labels = self.batch(image, label, DATASET, 40, crop_size=(48, 80), scale_step=1.5, flip=False)
    self.assertEqual({int((one[:, 0] != 255).sum()) for one in labels}, {12, 48})  # half or twice the size
    self.assertTrue((np.diff(images[:, 0, :20, 0].astype(int)) >= 0).all())

  def test_distortion_changes_colours_alone_and_not_the_padding(self):
    image, label = numbered(3)
    (plain, labels), (images, same_labels) = (
        self.batch(image, label, DATASET, 80, crop_size=(20, 25), photometric_distortion=on)
        for on in (False, True))
    np.testing.assert_array_equal(labels, same_labels)
    padding = labels[..., 0] == 255
    self.assertTrue(padding.any())
    self.assertTrue((images[padding] == [124, 117, 104]).all())
    changed = (images != plain).any(axis=(1, 2, 3))
    self.assertTrue(65 < changed.sum() < 80)  # 75 in the mean
    grey = encoded(np.full((17, 23, 3), 90))
    images, labels = self.batch(grey, label, DATASET, 20, crop_size=(20, 25), photometric_distortion=True)
    self.assertGreater(len(np.unique(images[labels[..., 0] != 255], axis=0)), 10)

  def test_scale_one_without_crop_keeps_every_pixel(self):
    image, label = numbered(3)
    images, labels = self.batch(image, label, DATASET, 8, crop_size=(17, 23), min_scale=1., max_scale=1.)
    stored = [np.asarray(Image.open(io.BytesIO(file))) for file in (image, label)]
    mirrored = set()
    for image, label in zip(images, labels, strict=True):
      mirrored.add((image != stored[0]).any())
      if (image != stored[0]).any():
        image, label = image[:, ::-1], label[:, ::-1]
      np.testing.assert_array_equal(image, stored[0])
      np.testing.assert_array_equal(label[:, :, 0], stored[1])
    self.assertEqual(mirrored, {True, False})


class FlagsTest(unittest.TestCase):

  def read(self, *argv):
    parser = flags.Parser('test')
    parser.shared(*flags.AUGMENTATION_FLAGS)
    return inputs.read_flags(parser.parse([str(arg) for arg in argv]))

  def test_defaults_are_those_of_the_options(self):
    others = dict(images_per_replica=1, padding_color=(0, 0, 0), num_examples=1)
    self.assertEqual(inputs.TrainOptions(**self.read(), **others),
                     inputs.TrainOptions(crop_size=(513, 513), seed=0, **others))

  def test_flags_become_options(self):
    found = self.read('--crop_size', 33, 49, '--scale_range', .75, 1.5, '--scale_step', .25, '--flip', 'off',
                      '--photometric_distortion', '--max_class_share', .75, '--seed', 7)
    self.assertEqual(found, dict(crop_size=(33, 49), min_scale=.75, max_scale=1.5, scale_step=.25, flip=False,
                                 photometric_distortion=True, max_class_share=.75, seed=7))

  def test_ranges_that_cannot_be_are_refused(self):
    for sentence, argv in (('--scale_range 2 0.5 begins above its end', ('--scale_range', 2, .5)),
                           ('--scale_step 2 is wider than --scale_range 0.5 2', ('--scale_step', 2))):
      with self.subTest(argv), self.assertRaisesRegex(UsageError, sentence):
        self.read(*argv)


class BadExampleTest(TestCase):

  def bad_record(self, image, label):
    """Returns two record files, of which the second has a bad example, and its name in errors."""
    files = [self.record([numbered(0)], 'train-00000-of-00002.record'),
             self.record([numbered(1), numbered(2), (image, label)], "train's-00001-of-00002.record")]
    return files, f"example 2 (from 0) of record '{files[1]}'"

  def training(self, files):
    return inputs.train_dataset(files, DATASET, dataclasses.replace(OPTIONS, num_examples=4))

  def test_label_value_out_of_range_is_named(self):
    label = np.zeros((40, 50))
    label[39, 49] = 3  # one pixel, which is cut away more often than not
    files, name = self.bad_record(numbered(3, 40, 50)[0], encoded(label))
    for dataset in (self.training(files), inputs.eval_dataset(files, DATASET)):
      self.check_stops(dataset, f'the label of {name} holds the value 3; tiny allows 0..2 and 255 (ignored); '
                       'recode the label, or use the dataset that it belongs to')

  def test_sizes_that_differ_are_named(self):
    label = encoded(np.zeros((17, 22)))
    for image, pipeline in ((encoded(np.zeros((17, 23, 3)), 'JPEG'), self.training),
                            (numbered(0)[0], lambda files: inputs.eval_dataset(files, DATASET))):
      files, name = self.bad_record(image, label)
      self.check_stops(pipeline(files), f'the label of {name} is 22x17, its image 23x17 (width x height); '
                       'make them equal')

  def test_label_of_three_channels_is_named(self):
    image, _ = numbered(0)
    files, name = self.bad_record(image, image)
    self.check_stops(self.training(files), f'the label of {name} is something else: '
                     + label_files.WHAT_IT_IS)

  def test_image_of_other_format_is_named(self):
    files, name = self.bad_record(b'GIF', numbered(0)[1])
    self.check_stops(self.training(files),
                     f'the image of {name} is neither a JPEG nor a PNG file; replace it')

  def test_image_that_claims_too_many_pixels_is_named_before_it_is_decoded(self):
    image, label = numbered(0)
    header = b'IHDR' + (20000).to_bytes(4, 'big') * 2 + image[24:29]  # TensorFlow itself would decode it
    image = image[:12] + header + zlib.crc32(header).to_bytes(4, 'big') + image[33:]
    files, name = self.bad_record(image, label)
    for pipeline in (self.training, lambda files: inputs.eval_dataset(files, DATASET)):
      self.check_stops(pipeline(files), f'the image of {name} has more than the {image_files.MAX_PIXELS} '
                       'pixels that are allowed; cut it into parts')

  def test_damaged_image_and_label_are_errors(self):
    pixels = np.random.RandomState(0).randint(256, size=(17, 23, 3))
    jpeg, label = encoded(pixels, 'JPEG'), encoded(pixels[:, :, 0] % 3)
    for example in ((jpeg[:300], label), (jpeg, label[:60])):
      files, _ = self.bad_record(*example)
      with self.assertRaises(tf.errors.InvalidArgumentError):
        rows(self.training(files), 2)

  def test_truncated_record_is_an_error(self):
    path = self.record(map(numbered, range(4)))
    with open(path, 'r+b') as file:
      file.truncate(os.path.getsize(path) - 5)
    with self.assertRaises(tf.errors.DataLossError):
      rows(inputs.eval_dataset([path], DATASET), 4)


class EvalDatasetTest(TestCase):

  def test_fillers_have_no_valid_pixel(self):
    batches = rows(inputs.eval_dataset([self.record([numbered(0)])], DATASET, fillers=2), 9)
    self.assertEqual(len(batches), 3)
    for _, labels in batches[1:]:
      self.assertEqual(np.unique(labels).tolist(), [DATASET.ignore_label])
    self.assertEqual(batches[1][0].shape[0], 1)

  def test_examples_keep_order_and_size(self):
    sizes = ((5, 9), (13, 4), (7, 7), (1, 3))
    examples = [numbered(number, *size) for number, size in enumerate(sizes)]
    files = [self.record(examples[:1], 'a.record'), self.record(examples[1:], 'b.record')]
    dataset = inputs.eval_dataset(files, DATASET)
    self.assertEqual([spec.shape.as_list() for spec in dataset.element_spec],
                     [[1, None, None, 3], [1, None, None, 1]])
    batches = rows(dataset, 9)
    self.assertEqual(len(batches), 4)
    for (images, labels), example in zip(batches, examples, strict=True):
      image, label = (np.asarray(Image.open(io.BytesIO(file))) for file in example)
      np.testing.assert_array_equal(images, image[None])
      np.testing.assert_array_equal(labels, label[None, :, :, None])

  def test_palette_label_gives_indices(self):
    label = Image.fromarray(np.uint8([[0, 1, 2, 255]]))
    label.putpalette([255, 0, 0] * 256)
    buffer = io.BytesIO()
    label.save(buffer, 'PNG')
    (_, labels), = rows(inputs.eval_dataset(
        [self.record([(encoded(np.zeros((1, 4, 3))), buffer.getvalue())])], DATASET), 2)
    self.assertEqual(labels[0, :, :, 0].tolist(), [[0, 1, 2, 255]])


class ImageDatasetTest(TestCase):

  def setUp(self):
    super().setUp()
    self.pixels = np.random.RandomState(7).randint(256, size=(6, 11, 3)).astype(np.uint8)

  def read(self, *paths):
    dataset = inputs.image_dataset(paths, Views(), image_files.read_image, self.fail)
    self.assertEqual(dataset.element_spec['image'].shape.as_list(), [1, None, None, 3])
    features = list(dataset)
    self.assertEqual([one['position'].numpy().tolist() for one in features], [[n] for n in range(len(paths))])
    images = [one['image'].numpy() for one in features]
    self.assertEqual({(image.shape[0], image.dtype) for image in images}, {(1, np.dtype('uint8'))})
    return [image[0] for image in images]

  def saved(self, image, name, **options):
    path = os.path.join(self.folder, name)
    image.save(path, **options)
    return path

  def test_images_keep_order_and_size(self):
    paths = [self.file(f'{number}.png', encoded(np.full((number + 1, 40 - number, 3), number)))
             for number in range(30)]
    for number, image in enumerate(self.read(*paths)):
      self.assertEqual(image.shape, (number + 1, 40 - number, 3))
      self.assertTrue((image == number).all())

  def test_lossless_formats_give_their_pixels(self):
    image = Image.fromarray(self.pixels)
    for name in ('a.png', 'a.bmp', 'a.tiff', 'a.ppm'):
      np.testing.assert_array_equal(self.read(self.saved(image, name))[0], self.pixels)

  def test_grey_palette_and_transparency_become_rgb(self):
    grey = Image.fromarray(self.pixels[:, :, 0])
    rgba = Image.fromarray(np.dstack([self.pixels, self.pixels[:, :, 0]]))
    palette = Image.fromarray(self.pixels).quantize(16)
    three_greys = self.pixels[:, :, :1].repeat(3, 2)
    for image, expected in ((grey, three_greys), (rgba, self.pixels),
                            (palette, np.asarray(palette.convert('RGB')))):
      np.testing.assert_array_equal(self.read(self.saved(image, 'a.png'))[0], expected)

  def test_16_bit_grey_is_scaled(self):
    deep = np.uint16([[0, 128, 129, 257 * 7, 65535]])
    for name in ('a.png', 'a.tiff'):
      image = self.read(self.saved(Image.fromarray(deep), name))[0]
      self.assertEqual(image[0, :, 1].tolist(), [0, 0, 1, 7, 255])

  def test_image_is_turned_as_its_exif_says(self):
    exif = Image.Exif()
    for orientation, turned in ((1, self.pixels), (2, self.pixels[:, ::-1]), (3, np.rot90(self.pixels, 2)),
                                (4, self.pixels[::-1]), (5, self.pixels.swapaxes(0, 1)),
                                (6, np.rot90(self.pixels, -1)), (8, np.rot90(self.pixels)), (99, self.pixels),
                                (7, np.rot90(self.pixels, 2).swapaxes(0, 1))):
      exif[0x0112] = orientation
      for name in ('a.png', 'a.tiff', 'a.webp'):
        path = self.saved(Image.fromarray(self.pixels), name, exif=exif, lossless=True)
        np.testing.assert_array_equal(self.read(path)[0], turned, f'{orientation} {name}')

  def test_orientation_in_xmp_counts_where_there_is_none_in_exif(self):
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt('XML:com.adobe.xmp', xmp)
    for name, options in (('a.png', {'pnginfo': text}), ('a.webp', {'xmp': xmp.encode(), 'lossless': True})):
      path = self.saved(Image.fromarray(self.pixels), name, **options)
      np.testing.assert_array_equal(self.read(path)[0], np.rot90(self.pixels, -1))

  def test_unreadable_exif_is_an_error_as_in_a_conversion(self):
    path = self.file('a.jpg', encoded(self.pixels, 'JPEG', exif=b'Exif\0\0garbage!', dpi=(72, 72)))
    for read in (image_files.read_image, lambda path: image_files.load(path, fast=False)):
      with self.assertRaisesRegex(DataError, "^image '.*a.jpg' has EXIF data that cannot be read .*; remove"):
        read(path)

  def test_bad_file_is_named(self):
    missing, garbage = os.path.join(self.folder, 'ä.png'), self.file("'\\.png", b'nothing')
    cut = self.file('cut.png', encoded(np.random.RandomState(0).randint(256, size=(90, 90, 3)))[:900])
    good = self.file('good.png', encoded(self.pixels))
    for path, sentence in ((missing, "image '{}' cannot be read: No such file or directory"),
                           (garbage, "image '{}' does not decode (neither PIL nor OpenCV reads it); "
                                     'replace it')):
      failures = []
      dataset = inputs.image_dataset([good, path, good], Views(), image_files.read_image, failures.append)
      self.assertEqual([one['position'].numpy().tolist() for one in dataset], [[0]])
      self.assertEqual([str(failure) for failure in failures], [sentence.format(path)])
      bad = {}
      dataset = inputs.image_dataset([good, path, good], Views(), image_files.read_image, self.fail,
                                     bad.__setitem__)
      self.assertEqual([one['position'].numpy().tolist() for one in dataset], [[0], [2]])
      self.assertEqual({1: sentence.format(path)}, {position: str(error) for position, error in bad.items()})
      with self.assertRaises(DataError) as caught:
        image_files.read_image(path)
      self.assertEqual(str(caught.exception), sentence.format(path))
    with self.assertRaisesRegex(DataError, 'cut.png. does not decode '):
      image_files.read_image(cut)


  def test_file_that_would_take_up_the_memory_is_refused_unread(self):
    image = encoded(self.pixels)
    header = b'IHDR' + (100000).to_bytes(4, 'big') * 2 + image[24:29]
    bomb = image[:12] + header + zlib.crc32(header).to_bytes(4, 'big') + image[33:]
    text = b'iTXtComment\0\1\0\0\0' + zlib.compress(bytes(1 << 27), 9)
    text = (len(text) - 4).to_bytes(4, 'big') + text + zlib.crc32(text).to_bytes(4, 'big')
    program = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'
    large = self.file('large.png', image)
    os.truncate(large, 1 << 40)
    text = image[:33] + text + image[33:]
    for path, sentence in ((self.file('a.png', bomb), 'has more than the .* pixels that are allowed'),
                           (self.file('b.png', text), 'Decompressed data too large'),
                           (large, 'has 1,099,511,627,776 bytes'), ('/dev/zero', 'it is a device or pipe'),
                           (self.file('c.jpg', program), 'is an EPS file, which is a program')):
      with self.subTest(path), self.assertRaisesRegex(DataError, f"image '{path}' .*{sentence}"):
        image_files.read_image(path)


class SyntheticDatasetTest(unittest.TestCase):

  def test_elements_are_those_of_training(self):
    dataset = inputs.synthetic_dataset(2, (33, 41), 19, seed=3)
    (images, labels), (more, _) = rows(dataset, 2)
    self.assertEqual((images.shape, images.dtype), ((2, 33, 41, 3), np.uint8))
    self.assertEqual((labels.shape, labels.dtype), ((2, 33, 41, 1), np.uint8))
    self.assertEqual([spec.shape.as_list() for spec in dataset.element_spec],
                     [[2, 33, 41, 3], [2, 33, 41, 1]])
    self.assertEqual(set(labels.flat), set(range(19)))
    self.assertEqual((images.min(), images.max()), (0, 255))
    np.testing.assert_array_equal(images, more)
    np.testing.assert_array_equal(images, rows(inputs.synthetic_dataset(2, (33, 41), 19, 3), 1)[0][0])
