import dataclasses
import io
import os
import pickle
import struct
import tempfile
import unittest
import zlib

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image, ImageOps

from dataset import descriptors, image_files, label_files, lists, preprocessing, schema, tf_records
from utils.errors import DataError

pytestmark = pytest.mark.compat

FRUIT = descriptors.Dataset('fruit', ('apple', 'pear', 'plum'), descriptors.voc_palette(3))
VOID_7 = dataclasses.replace(FRUIT, ignore_label=7)
HEIGHT, WIDTH = 7, 13


def pixels():
  return np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def classes(first=0):
  """Label values first, first + 1, first + 2, first, ...: uint8 [7, 13]."""
  return (np.arange(HEIGHT * WIDTH) % 3 + first).astype(np.uint8).reshape(HEIGHT, WIDTH)


def encoded(image, image_format, **options):
  buffer = io.BytesIO()
  image.save(buffer, image_format, **options)
  return buffer.getvalue()


def png(array, **options):
  return encoded(Image.fromarray(array), 'PNG', **options)


def grey_png(values, bits):
  """A grey PNG of 1..8 bits whose stored samples are `values`; PIL writes such palettes only."""
  palette = Image.fromarray(values)
  palette.putpalette([0] * 3 * 2 ** bits)
  content = bytearray(encoded(palette, 'PNG', bits=bits))
  start, end = content.index(b'PLTE') - 4, content.index(b'IDAT') - 4
  del content[start:end]
  content[25] = 0  # colour type: grey
  content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
  return bytes(content)


def photo(orientation, image_format='JPEG', square=False):
  """An image file with EXIF's orientation."""
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {'lossless': True} if image_format == 'WEBP' else {}
  image = Image.fromarray(pixels()[:, :HEIGHT if square else WIDTH])
  return encoded(image, image_format, exif=exif, **options)


def example(**features):
  """A serialized tf.train.Example of bytes features, '__' standing for '/'."""
  return tf.train.Example(features=tf.train.Features(feature={
      name.replace('__', '/'): tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
      for name, value in features.items()})).SerializeToString()


class FolderTest(unittest.TestCase):
  """A test with a folder of its own."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def file(self, name, content):
    path = os.path.join(self.folder, name)
    with open(path, 'wb') as file:
      file.write(content)
    return path

  def record(self, name, *examples):
    path = os.path.join(self.folder, name)
    with tf.io.TFRecordWriter(path) as writer:
      for serialized in examples:
        writer.write(serialized)
    return path


class EncodeExampleTest(FolderTest):

  def encode(self, image, label, image_name='photo.jpg', dataset=FRUIT):
    """Returns the features of the example of two files with these bytes."""
    serialized = tf_records.encode_example(
        self.file(image_name, image), self.file('label.png', label), dataset)
    return tf.train.Example.FromString(serialized).features.feature

  def assert_refused(self, sentence, image=None, label=None):
    with self.assertRaisesRegex(DataError, sentence):
      self.encode(image or png(pixels()), label or png(classes()))

  def test_features_are_the_files_bytes_and_the_images_facts(self):
    image, label = encoded(Image.fromarray(pixels()), 'JPEG'), png(classes())
    features = self.encode(image, label)
    self.assertEqual(features['image/encoded'].bytes_list.value, [image])
    self.assertEqual(features['image/format'].bytes_list.value, [b'jpeg'])
    self.assertEqual(features['image/filename'].bytes_list.value, [b'photo.jpg'])
    self.assertEqual(features['image/height'].int64_list.value, [7])
    self.assertEqual(features['image/width'].int64_list.value, [13])
    self.assertEqual(features['image/channels'].int64_list.value, [3])
    self.assertEqual(features['label/encoded'].bytes_list.value, [label])
    self.assertEqual(features['label/format'].bytes_list.value, [b'png'])

  def test_png_grey_and_opaque_images_keep_their_bytes(self):
    image = Image.fromarray(pixels())
    for kept in (image, image.convert('L'), image.convert('1'), image.quantize(5),
                 image.convert('RGBA')):
      with self.subTest(kept.mode):
        features = self.encode(encoded(kept, 'PNG'), png(classes()))
        self.assertEqual(features['image/encoded'].bytes_list.value, [encoded(kept, 'PNG')])
        self.assertEqual(features['image/format'].bytes_list.value, [b'png'])

  def test_camera_jpeg_with_a_preview_keeps_its_bytes(self):
    photo = Image.fromarray(pixels())
    image = encoded(photo, 'MPO', save_all=True, append_images=[photo.resize((3, 2))])
    features = self.encode(image, png(classes()))
    self.assertEqual(features['image/encoded'].bytes_list.value, [image])
    self.assertEqual(features['image/format'].bytes_list.value, [b'jpeg'])

  def test_other_formats_become_png_with_the_same_pixels(self):
    for image_format, options in (('BMP', {}), ('TIFF', {}), ('WEBP', {'lossless': True})):
      with self.subTest(image_format):
        image = encoded(Image.fromarray(pixels()), image_format, **options)
        features = self.encode(image, png(classes()))
        stored, = features['image/encoded'].bytes_list.value
        self.assertEqual(features['image/format'].bytes_list.value, [b'png'])
        self.assertEqual(Image.open(io.BytesIO(stored)).format, 'PNG')
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(stored))), pixels())

  def stored_pixels(self, image):
    """Returns uint8 [H, W, 3] of what is stored of an image file, which is not the file itself."""
    features = self.encode(image, png(classes()))
    stored, = features['image/encoded'].bytes_list.value
    self.assertEqual((features['image/format'].bytes_list.value, stored[:4]), ([b'png'], b'\x89PNG'))
    self.assertNotEqual(stored, image)
    np.testing.assert_array_equal(image_files.read_image(os.path.join(self.folder, 'photo.jpg')),
                                  np.asarray(Image.open(io.BytesIO(stored))))
    return np.asarray(Image.open(io.BytesIO(stored)))

  def test_16_bits_become_8_as_in_inference(self):
    deep = np.random.RandomState(1).randint(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    deep[0, 0] = 128, 129, 65535
    expected = np.round(deep / 257).astype(np.uint8)
    self.assertEqual(expected[0, 0].tolist(), [0, 1, 255])
    for end in ('.png', '.tif', '.ppm'):
      image = cv2.imencode(end, deep[:, :, ::-1])[1].tobytes()
      np.testing.assert_array_equal(self.stored_pixels(image), expected, end)
    opaque = np.dstack([deep[:, :, ::-1], np.full((HEIGHT, WIDTH), 65535, np.uint16)])
    np.testing.assert_array_equal(self.stored_pixels(cv2.imencode('.png', opaque)[1].tobytes()), expected)
    for end in ('.png', '.tif', '.pgm'):
      image = cv2.imencode(end, deep[:, :, 1])[1].tobytes()
      np.testing.assert_array_equal(self.stored_pixels(image), expected[:, :, 1:2].repeat(3, 2), end)

  def test_16_bits_that_exif_turns(self):
    deep = np.random.RandomState(1).randint(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    image = cv2.imencode('.png', deep[:, :, ::-1])[1].tobytes()
    exif = photo(6, 'PNG')
    begin = exif.index(b'eXIf') - 4
    exif = exif[begin:begin + 12 + int.from_bytes(exif[begin:begin + 4], 'big')]
    grey = encoded(Image.fromarray(deep[:, :, 0]), 'TIFF', tiffinfo={274: 6})
    for content, stored in ((image[:33] + exif + image[33:], deep), (grey, deep[:, :, :1].repeat(3, 2))):
      np.testing.assert_array_equal(self.stored_pixels(content), np.rot90(np.round(stored / 257), -1))

  def test_cmyk_becomes_rgb_as_in_inference(self):
    image = Image.fromarray(pixels()).convert('CMYK')
    for image_format in ('JPEG', 'TIFF'):
      content = encoded(image, image_format)
      expected = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
      np.testing.assert_array_equal(self.stored_pixels(content), expected)

  def test_images_that_8_bits_cannot_show_are_refused_as_in_inference(self):
    deep = np.full((HEIGHT, WIDTH, 3), 4095, np.uint16)
    for sentence, image in (
        ('has 16 bits and no value above 4095, as from a camera', cv2.imencode('.png', deep)[1].tobytes()),
        ('has 16 bits and no value above 4095, as from a camera', cv2.imencode('.tif', deep)[1].tobytes()),
        ('has 16 bits and no value above 7, as from a camera', png(deep[:, :, 0] // 512)),
        ('holds floating-point numbers', encoded(Image.fromarray(pixels()).convert('F'), 'TIFF')),
        ('holds floating-point numbers', cv2.imencode('.hdr', pixels() / np.float32(255))[1].tobytes()),
        ('holds values from 0 to 70000', encoded(Image.fromarray(np.int32([[0, 70000]])), 'TIFF'))):
      with self.subTest(sentence):
        self.assert_refused(f"photo.jpg' {sentence}", image)
      with self.subTest(sentence), self.assertRaisesRegex(DataError, f"photo.jpg' {sentence}"):
        image_files.read_image(os.path.join(self.folder, 'photo.jpg'))

  def test_transparent_images_are_refused(self):
    clear = Image.fromarray(pixels())
    clear.putalpha(254)
    self.assert_refused('has transparent pixels', encoded(clear, 'PNG'))
    deep = cv2.imencode('.png', np.full((HEIGHT, WIDTH, 4), 60000, np.uint16))[1].tobytes()
    self.assert_refused('has transparent pixels', deep)

  def test_damaged_files_are_refused_by_name(self):
    jpeg, label = encoded(Image.fromarray(pixels()), 'JPEG'), png(classes())
    flipped = bytearray(label)
    flipped[-20] ^= 1
    self.assert_refused("image '.*photo.jpg' does not decode .the file ends early", image=jpeg[:-9])
    self.assert_refused("image '.*photo.jpg' does not decode .neither PIL nor OpenCV reads it.;",
                        image=b'hello')
    self.assert_refused("label '.*label.png' does not decode .*IDAT", label=bytes(flipped))
    self.assert_refused("label '.*label.png' does not decode", label=label[:-1])
    with self.assertRaisesRegex(DataError, "photo.jpg' does not decode .the file is empty"):
      self.encode(b'', label)
    with self.assertRaisesRegex(DataError, "image '.*none.jpg' cannot be read"):
      tf_records.encode_example(os.path.join(self.folder, 'none.jpg'), 'none.png', FRUIT)

  def test_palette_and_grey_of_every_depth_hold_stored_values(self):
    one_bit = Image.fromarray(classes() == 2)
    self.encode(png(pixels()), encoded(one_bit, 'PNG'), dataset=VOID_7)  # 255 would be refused
    for bits in (2, 4, 8):
      palette = Image.fromarray(classes())
      palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
      with self.subTest(bits):
        self.encode(png(pixels()), encoded(palette, 'PNG', bits=bits))
        self.encode(png(pixels()), grey_png(classes(), bits))

  def test_value_outside_the_classes_is_refused_at_every_depth(self):
    wrong = classes(first=1)  # 1, 2, 3 of the classes 0..2
    sentence = 'holds the values 3; fruit allows 0..2 and 255'
    self.assert_refused(sentence, label=png(wrong))
    for bits in (2, 4, 8):
      with self.subTest(bits):
        self.assert_refused(sentence, label=grey_png(wrong, bits))

  def test_many_wrong_values_are_cut_short(self):
    label = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)  # 0..90
    self.assert_refused('the values 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 78 others;',
                        label=png(label))

  def test_ignore_label_is_allowed_and_another_void_is_not(self):
    label = classes()
    label[0] = 255
    self.encode(png(pixels()), png(label))
    with self.assertRaisesRegex(DataError, 'holds the values 255; fruit allows 0..2 and 7'):
      self.encode(png(pixels()), png(label), dataset=VOID_7)

  def test_labels_of_another_kind_are_refused(self):
    self.assert_refused("label.png' has 3 channel", label=png(pixels()))
    self.assert_refused('the values 150, 300;', label=png(classes().astype(np.uint16) * 150))

  def test_label_of_another_size_is_refused_with_both_sizes(self):
    self.assert_refused("label.png' is 7x13, its image 13x7", label=png(classes().T.copy()))

  def test_function_can_be_sent_to_another_process(self):
    self.assertIs(pickle.loads(pickle.dumps(tf_records.encode_example)), tf_records.encode_example)
    self.assertEqual(pickle.loads(pickle.dumps(FRUIT)), FRUIT)


class EncodePairTest(FolderTest):

  def pair(self, image, label, dataset=FRUIT):
    return lists.Pair(self.file('photo.jpg', image), self.file('label.png', label), dataset,
                         'süß/photo.jpg')

  def test_size_counts_and_name_are_told(self):
    label = classes()  # 91 pixels: 31, 30 and 30
    label[0, 0] = 255
    encoded_pair = schema.encode_pair(self.pair(png(pixels()), png(label)))
    self.assertEqual(encoded_pair.size, (HEIGHT, WIDTH))
    self.assertEqual([encoded_pair.counts[value] for value in (0, 1, 2, 3, 255)], [30, 30, 30, 0, 1])
    self.assertEqual(encoded_pair.problems, [])
    features = tf.train.Example.FromString(tf_records.serialize(encoded_pair.features)).features.feature
    self.assertEqual(features['image/filename'].bytes_list.value, ['süß/photo.jpg'.encode()])

  def test_numbers_of_every_length_are_what_tensorflow_serializes(self):
    for number in (0, 1, 127, 128, 300, 16383, 16384, 2 ** 31, 2 ** 62):
      expected = tf.train.Example(features=tf.train.Features(feature={
          'x': tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
          'y': tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'a' * (number % 1000)])),
      })).SerializeToString(deterministic=True)
      self.assertEqual(tf_records.serialize({'y': b'a' * (number % 1000), 'x': number}), expected)

  def test_problems_of_image_and_label_are_told_together(self):
    problems = schema.encode_pair(self.pair(b'hello', png(classes(first=1)))).problems
    self.assertEqual(len(problems), 2)
    self.assertIn("photo.jpg' does not decode", problems[0])
    self.assertIn("label.png' holds the values 3", problems[1])

  def test_fast_reads_headers_only(self):
    whole = encoded(Image.fromarray(pixels()), 'JPEG')
    fast = schema.encode_pair(self.pair(whole[:-20], png(classes(first=1))), fast=True)
    self.assertEqual((fast.problems, fast.size, fast.counts), ([], (HEIGHT, WIDTH), None))
    for sentence, image, label in (
        ('is 7x13, its image 13x7', whole, png(classes().T.copy())),
        ('holds floating-point', encoded(Image.fromarray(pixels()).convert('F'), 'TIFF'), png(classes())),
        ('has 3 channel', whole, png(pixels()))):
      with self.subTest(sentence):
        problem, = schema.encode_pair(self.pair(image, label), fast=True).problems
        self.assertIn(sentence, problem)

  def test_jpeg_that_ends_in_zeros_is_refused(self):
    # PIL fills in grey; TensorFlow fails in the midst of training.
    whole = encoded(Image.fromarray(pixels()), 'JPEG', quality=95)
    for length in (1, 2, 9, 60):
      problem, = schema.encode_pair(self.pair(whole[:-length] + bytes(length), png(classes()))).problems
      self.assertIn('does not decode', problem)

  def test_jpeg_with_a_film_after_its_end_is_taken_and_a_cut_one_is_not(self):
    rng = np.random.RandomState(0)
    image = Image.fromarray(rng.randint(0, 256, (33, 47, 3)).astype(np.uint8))
    preview = encoded(image.resize((16, 11)), 'JPEG')
    label, film = png(np.zeros((33, 47), np.uint8)), rng.bytes(200000) + b'\xff\xd9\xff\xda'
    exif = Image.Exif()
    exif[0x010f] = 'Camera'
    exif = exif.tobytes() + preview  # somewhere in the segment, with an end of its own
    kinds = [encoded(image, 'JPEG', exif=exif, **options) for options in (
        {}, {'progressive': True}, {'restart_marker_blocks': 1}, {'quality': 100, 'subsampling': 0})]
    kinds.append(b'\xff\xff\xff\xda'.join(kinds[0].rsplit(b'\xff\xda', 1)))  # filled up before a marker
    kinds.append(encoded(image, 'MPO', save_all=True, append_images=[image.resize((16, 11))]))
    with tf.Graph().as_default(), tf.Session() as session:
      data = tf.placeholder(tf.string, [])
      decoded = preprocessing.decode_image(data)
      for whole in kinds:
        pair = schema.encode_pair(self.pair(whole + film, label))
        self.assertEqual((pair.problems, pair.features[schema.IMAGE_ENCODED]), ([], whole + film))
        np.testing.assert_array_equal(session.run(decoded, {data: whole + film}),
                                      np.asarray(Image.open(io.BytesIO(whole)).convert('RGB')))
    whole = kinds[0]
    in_preview = whole.index(preview) + len(preview) + 2
    for cut in (2, 4, in_preview, whole.index(b'\xff\xda', in_preview) + 3, len(whole) - 50, len(whole) - 2):
      for end in (b'', bytes(len(whole) - cut)):
        problem, = schema.encode_pair(self.pair(whole[:cut] + end, label)).problems
        self.assertIn('does not decode', problem)

  def test_jpeg_is_taken_or_refused_as_tensorflow_does(self):
    rng = np.random.RandomState(0)
    photo = Image.fromarray(rng.randint(0, 256, (33, 47, 3)).astype(np.uint8))
    label = png(np.zeros((33, 47), np.uint8))
    refused = 0
    with tf.Graph().as_default(), tf.Session() as session:
      data = tf.placeholder(tf.string, [])
      decoded = tf.image.decode_jpeg(data, channels=3).op
      for options in ({}, {'progressive': True}, {'restart_marker_blocks': 2}, {'quality': 30}):
        whole = encoded(photo, 'JPEG', **options)
        for _ in range(25):
          damaged = bytearray(whole)
          damaged[rng.randint(len(whole))] ^= 1 << rng.randint(8)
          cut = whole[:rng.randint(2, len(whole) - 1)]
          for content in (bytes(damaged), cut, cut + bytes(len(whole) - len(cut))):
            try:
              session.run(decoded, {data: content})
            except tf.errors.OpError:
              refused += 1
              self.assertTrue(schema.encode_pair(self.pair(content, label)).problems, content)
    self.assertGreater(refused, 200)

  def test_huge_image_is_refused_by_its_size(self):
    header = bytearray(png(classes()))
    header[16:24] = struct.pack('>II', 30000, 30000)
    header[29:33] = struct.pack('>I', zlib.crc32(header[12:29]))
    for image, label in ((bytes(header), png(classes())), (png(pixels()), bytes(header))):
      problem, = schema.encode_pair(self.pair(image, label)).problems
      self.assertRegex(problem, r"(photo.jpg|label.png)' has more than the 178956970 pixels that are allowed")

  def test_unreadable_exif_is_a_problem_of_its_file(self):
    image = encoded(Image.fromarray(pixels()), 'JPEG', exif=b'Exif\0\0garbage!', dpi=(72, 72))
    for fast in (False, True):
      problem, = schema.encode_pair(self.pair(image, png(classes())), fast).problems
      self.assertRegex(problem, "image '.*photo.jpg' has EXIF data that cannot be read .*; remove them")

  def test_turned_photo_is_stored_as_a_viewer_shows_it(self):
    for orientation in range(10):
      for image_format in ('JPEG', 'PNG', 'TIFF', 'WEBP'):
        with self.subTest(orientation=orientation, format=image_format):
          image = photo(orientation, image_format)
          shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(image))))
          for fast in (False, True):
            pair = schema.encode_pair(self.pair(image, png(np.zeros(shown.shape[:2], np.uint8))), fast)
            self.assertEqual(pair.problems, [])
            stored = pair.features[schema.IMAGE_ENCODED]
            with tf.Graph().as_default(), tf.Session() as session:
              decoded = session.run(preprocessing.decode_image(tf.constant(stored)))
            np.testing.assert_array_equal(decoded, shown)
            self.assertEqual((pair.size, pair.features[schema.IMAGE_HEIGHT]), (shown.shape[:2], len(shown)))
            self.assertEqual(stored == image,
                             image_format in ('JPEG', 'PNG') and orientation not in range(2, 9))

  def test_png_whose_exif_comes_after_its_pixels_is_turned_too(self):
    image = photo(6, 'PNG')
    begin = image.index(b'eXIf') - 4
    end = begin + 12 + int.from_bytes(image[begin:begin + 4], 'big')
    late = image[:begin] + image[end:-12] + image[begin:end] + image[-12:]
    for fast in (False, True):
      pair = schema.encode_pair(self.pair(late, png(classes().T.copy())), fast)
      self.assertEqual((pair.problems, pair.size), ([], (WIDTH, HEIGHT)))

  def test_label_of_the_stored_pixels_is_turned_with_its_photo(self):
    palette = Image.fromarray(classes())
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    for orientation, expected in ((5, classes().T), (6, np.rot90(classes(), -1)), (8, np.rot90(classes()))):
      for image_format in ('JPEG', 'TIFF'):
        for label in (png(classes()), encoded(palette, 'PNG'), grey_png(classes(), 2)):
          pair = schema.encode_pair(self.pair(photo(orientation, image_format), label))
          self.assertEqual((pair.problems, pair.size), ([], (WIDTH, HEIGHT)))
          self.assertEqual(pair.notes, (schema.LABEL_WAS_TURNED,))
          turned = pair.features[schema.LABEL_ENCODED]
          np.testing.assert_array_equal(label_files.read_values(turned, 'label'), expected)
          self.assertEqual(label_files.check(turned, FRUIT, 'label').counts, pair.counts)
          colors = Image.open(io.BytesIO(label)).getpalette()
          self.assertEqual(Image.open(io.BytesIO(turned)).getpalette(), colors)

  def test_label_of_the_turned_photo_is_kept_and_doubt_is_told(self):
    for orientation, label, notes in ((1, classes(), ()), (6, classes().T.copy(), ()),
                                      (3, classes(), (schema.SIZE_DOES_NOT_TELL,))):
      pair = schema.encode_pair(self.pair(photo(orientation), png(label)))
      self.assertEqual((pair.problems, pair.notes), ([], notes))
      self.assertEqual(pair.features[schema.LABEL_ENCODED], png(label))
    square = schema.encode_pair(self.pair(photo(8, square=True), png(classes()[:, :HEIGHT].copy())))
    self.assertEqual((square.problems, square.notes), ([], (schema.SIZE_DOES_NOT_TELL,)))
    problem, = schema.encode_pair(self.pair(photo(6), png(classes()[1:].copy()))).problems
    self.assertIn('is 13x6, its image 7x13', problem)


class RecodeTest(FolderTest):
  """Labels whose values or colours a descriptor turns into classes."""

  BINARY = dataclasses.replace(FRUIT, class_names=('no', 'yes'), palette=((0, 0, 0), (9, 8, 7)),
                               values={0: 0, 255: 1, 128: 255})
  COLORS = dataclasses.replace(FRUIT, colors={(0, 0, 0): 255, (255, 0, 0): 2, (0, 0, 7): 1, (0, 1, 0): 0})

  def encode(self, label, dataset):
    pair = lists.Pair(self.file('photo.png', png(pixels())), self.file('label.png', label), dataset, 'x')
    return schema.encode_pair(pair, fast=True)  # headers would not do: a label is converted all the same

  def stored(self, label, dataset):
    """Returns the stored label as a PIL image and what was counted in it."""
    example = self.encode(label, dataset)
    self.assertEqual(example.problems, [])
    features = tf.train.Example.FromString(tf_records.serialize(example.features)).features.feature
    content, = features['label/encoded'].bytes_list.value
    return Image.open(io.BytesIO(content)), {v: n for v, n in enumerate(example.counts) if n}

  def test_values_become_classes_in_the_datasets_colours(self):
    label = np.where(classes() == 2, 255, 0).astype(np.uint8)
    label[0] = 128
    image, counts = self.stored(png(label), self.BINARY)
    expected = np.where(classes() == 2, 1, 0)
    expected[0] = 255
    np.testing.assert_array_equal(np.asarray(image), expected)
    self.assertEqual(image.mode, 'P')
    self.assertEqual(image.getpalette()[3:6], [9, 8, 7])
    self.assertEqual(counts, {0: 52, 1: 26, 255: 13})  # by hand: rows 1 to 6 have 26 of each class

  def test_values_of_few_bits_are_those_that_are_stored(self):
    swapped = dataclasses.replace(FRUIT, values={0: 2, 1: 1, 2: 0})
    for bits in (2, 4, 8):
      image, _ = self.stored(grey_png(classes(), bits), swapped)
      np.testing.assert_array_equal(np.asarray(image), 2 - classes())
    one_bit = dataclasses.replace(FRUIT, values={0: 2, 1: 0})
    image, _ = self.stored(encoded(Image.fromarray(classes() == 2), 'PNG'), one_bit)
    np.testing.assert_array_equal(np.asarray(image), np.where(classes() == 2, 0, 2))

  def test_colours_become_classes_whatever_the_kind_of_png(self):
    colors = np.uint8([[0, 1, 0], [0, 0, 7], [255, 0, 0], [0, 0, 0]])
    index = classes()
    index[0] = 3
    expected = np.where(index == 3, 255, index)
    palette = Image.fromarray(index)
    palette.putpalette(colors.tobytes())
    rgb = Image.fromarray(colors[index])
    for kind in (rgb, palette, rgb.convert('RGBA')):
      image, counts = self.stored(encoded(kind, 'PNG'), self.COLORS)
      np.testing.assert_array_equal(np.asarray(image), expected)
      self.assertEqual(counts, {0: 26, 1: 26, 2: 26, 255: 13})

  def test_unknown_value_or_colour_is_named(self):
    problem, = self.encode(png(classes()), self.BINARY).problems
    self.assertIn("label.png' holds the values 1, 2, which 'values' of fruit does not have", problem)
    problem, = self.encode(png(pixels() // 128 * 128 + np.uint8([0, 0, 9])), self.COLORS).problems
    self.assertRegex(problem, "holds the colors #000009, #000089, #008009, .*which 'colors' of fruit")

  def test_labels_of_another_kind_are_refused(self):
    clear = Image.fromarray(pixels())
    clear.putalpha(0)
    for sentence, label, dataset in (
        ("has 3 channel.*'colors'", png(pixels()), self.BINARY),
        ('has 91 transparent pixels', encoded(clear, 'PNG'), self.COLORS),
        ('export the labels as PNG', encoded(Image.fromarray(pixels()), 'JPEG'), self.COLORS)):
      with self.subTest(sentence):
        problem, = self.encode(label, dataset).problems
        self.assertRegex(problem, sentence)

  def test_single_image_and_label_are_converted_alike(self):
    label = self.file('label.png', png(np.where(classes() == 2, 255, 0).astype(np.uint8)))
    image = self.file('photo.png', png(pixels()))
    features = tf.train.Example.FromString(
        tf_records.encode_example(image, label, self.BINARY)).features.feature
    stored = Image.open(io.BytesIO(features['label/encoded'].bytes_list.value[0]))
    self.assertEqual(stored.getextrema(), (0, 1))


class SurveyTest(FolderTest):

  def test_values_and_colours_are_counted(self):
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[:2] = 3
    palette = Image.fromarray(label)
    palette.putpalette([5, 6, 7, 0, 0, 0, 0, 0, 0, 1, 2, 3])
    rgb = palette.convert('RGB')
    self.assertEqual(label_files.survey_label(self.file('a.png', png(label))), [(0, None, 65), (3, None, 26)])
    self.assertEqual(label_files.survey_label(self.file('b.png', encoded(palette, 'PNG'))),
                     [(0, (5, 6, 7), 65), (3, (1, 2, 3), 26)])
    self.assertEqual(label_files.survey_label(self.file('c.png', encoded(rgb, 'PNG'))),
                     [(None, (1, 2, 3), 26), (None, (5, 6, 7), 65)])


class RecordFilesTest(FolderTest):

  def files(self, *names):
    return [self.file(name, b'x') for name in names]

  def test_single_file_is_found_beside_other_splits(self):
    path, _, _ = self.files('train.record', 'val.record', 'train-old.record')
    self.assertEqual(tf_records.record_files(self.folder, 'train'), [path])

  def test_shards_are_found_in_order(self):
    paths = self.files('val-00001-of-00003.record', 'val-00002-of-00003.record',
                       'val-00000-of-00003.record')
    self.assertEqual(tf_records.record_files(self.folder, 'val'), [paths[2], paths[0], paths[1]])

  def test_empty_shard_beside_a_full_one_is_allowed(self):
    full = self.file('val-00000-of-00002.record', b'x')
    empty = self.file('val-00001-of-00002.record', b'')
    self.assertEqual(tf_records.record_files(self.folder, 'val'), [full, empty])

  def test_missing_record_is_an_error(self):
    with self.assertRaisesRegex(DataError, r"record '.*train\.record' does not exist"):
      tf_records.record_files(self.folder, 'train')

  def test_missing_shard_is_an_error(self):
    self.files('train-00000-of-00003.record', 'train-00002-of-00003.record')
    with self.assertRaisesRegex(DataError, 'train-00001-of-00003.record.* is missing'):
      tf_records.record_files(self.folder, 'train')

  def test_two_sets_of_records_are_an_error(self):
    self.files('train-00000-of-00001.record', 'train-00000-of-00002.record')
    with self.assertRaisesRegex(DataError, 'belong to different sets'):
      tf_records.record_files(self.folder, 'train')
    self.files('train.record')
    with self.assertRaisesRegex(DataError, r'both .*train\.record.* and shards'):
      tf_records.record_files(self.folder, 'train')

  def test_empty_record_is_an_error(self):
    self.file('train.record', b'')
    with self.assertRaisesRegex(DataError, r"train\.record' is empty"):
      tf_records.record_files(self.folder, 'train')


class CountExamplesTest(FolderTest):

  def test_counts_are_per_file(self):
    paths = [self.record('a.record', b'x', b'yyyy', b'yy'), self.record('b.record')]
    self.assertEqual(tf_records.count_examples(paths), [3, 0])

  def test_truncation_anywhere_is_an_error_that_names_file_and_position(self):
    whole = self.record('whole.record', b'abc', b'defgh')  # 19 and 21 bytes
    with open(whole, 'rb') as file:
      content = file.read()
    for length in (20, 26, 31, 39):
      path = self.file('cut.record', content[:length])
      sentence = rf"cut.record' is damaged: example 1 \(from 0\), at byte 19, .* {length} bytes"
      with self.subTest(length), self.assertRaisesRegex(DataError, sentence):
        tf_records.count_examples([path])

  def test_file_that_ends_in_zeros_is_an_error_at_once(self):
    path = self.record('a.record', b'abc')  # 19 bytes
    os.truncate(path, 10 << 30)  # of zeros, which would be 600 million empty examples
    with self.assertRaisesRegex(DataError, r"a.record' is damaged: example 1 .* at byte 19, is empty"):
      tf_records.count_examples([path])

  def test_file_that_is_no_record_is_an_error(self):
    path = self.file('text.record', b'These are no examples at all.')
    with self.assertRaisesRegex(DataError, r"text.record' is damaged: example 0 \(from 0\)"):
      tf_records.count_examples([path])
    with self.assertRaisesRegex(DataError, "none.record' cannot be read"):
      tf_records.count_examples([os.path.join(self.folder, 'none.record')])


class ParseExampleTest(unittest.TestCase):

  def test_two_features_are_enough(self):
    serialized = example(image__encoded=b'photo', label__encoded=b'classes')
    with tf.Graph().as_default(), tf.Session() as session:
      self.assertEqual(session.run(tf_records.parse_example(tf.constant(serialized))),
                       (b'photo', b'classes'))


class FindBadExampleTest(FolderTest):

  GOOD = dict(image__encoded=png(pixels()), label__encoded=png(classes()))

  def find(self, *examples):
    """Returns the error of a second record file with these examples, after a good one."""
    paths = [self.record('a.record', example(**self.GOOD)), self.record('b.record', *examples)]
    return tf_records.find_bad_example(paths, FRUIT)

  def test_good_records_give_none(self):
    self.assertIsNone(self.find(example(**self.GOOD), example(**self.GOOD)))

  def test_bad_examples_are_named_by_file_and_position(self):
    palette = Image.fromarray(classes(first=1))
    palette.putpalette([0] * 12)
    bad = {
        'image of .* does not decode': dict(self.GOOD, image__encoded=b'hello'),
        'label of .* does not decode': dict(self.GOOD, label__encoded=png(classes())[:-1]),
        'is a BMP file; store it as JPEG or PNG': dict(
            self.GOOD, image__encoded=encoded(Image.fromarray(pixels()), 'BMP')),
        'has 3 channel': dict(self.GOOD, label__encoded=png(pixels())),
        'values 3;': dict(self.GOOD, label__encoded=encoded(palette, 'PNG')),
        'is 7x13, its image 13x7': dict(self.GOOD, label__encoded=png(classes().T.copy())),
        "lacks the feature 'label/encoded'": dict(image__encoded=png(pixels())),
    }
    for sentence, features in bad.items():
      with self.subTest(sentence):
        error = self.find(example(**self.GOOD), example(**features), b'never reached')
        self.assertIsInstance(error, DataError)
        self.assertRegex(str(error), r"example 1 \(from 0\) of record '.*b\.record'")
        self.assertRegex(str(error), sentence)

  def test_file_name_is_told_where_the_record_has_it(self):
    error = self.find(example(**dict(self.GOOD, image__encoded=b'', image__filename=b'me.jpg')))
    self.assertIn("'me.jpg'", str(error))

  def test_payload_that_is_no_example_is_named(self):
    self.assertRegex(str(self.find(b'hello')), r'example 0 .*b\.record.* is no tf.train.Example')

  def test_wrong_checksum_is_named(self):
    path = self.record('a.record', example(**self.GOOD), example(**self.GOOD))
    with open(path, 'r+b') as file:
      file.seek(-9, os.SEEK_END)  # the data's fifth byte from behind
      byte, = file.read(1)
      file.seek(-9, os.SEEK_END)
      file.write(bytes([byte ^ 1]))
    error = tf_records.find_bad_example([path], FRUIT)
    self.assertRegex(str(error), r"example 1 \(from 0\) of record '.*a\.record' is damaged or")


if __name__ == '__main__':
  unittest.main()
