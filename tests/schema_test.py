"""dataset/schema.py: what an image and its label become, and what is read back of an example."""
import io
import itertools
import struct
import unittest
import zlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image, ImageOps

from dataset import label_files, lists, preprocessing, schema, tf_records
from tests.support import (
  FRUIT,
  HEIGHT,
  WIDTH,
  FolderTest,
  classes,
  encoded,
  grey_png,
  photo,
  pixels,
  png,
)
from utils.errors import DataError

pytestmark = pytest.mark.compat


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


class DecodeTest(FolderTest):

  def decode(self, image=None, label=None, **options):
    features = {schema.IMAGE_ENCODED: image or png(pixels()), schema.LABEL_ENCODED: label or png(classes())}
    return schema.decode(features, FRUIT, 'example 3', **options)

  def test_pixels_and_classes_are_given_back(self):
    palette = Image.fromarray(classes())
    palette.putpalette([9] * 12)
    for label in (png(classes()), encoded(palette, 'PNG'), grey_png(classes(), 2)):
      image, found = self.decode(label=label)
      np.testing.assert_array_equal(np.asarray(image), pixels())
      np.testing.assert_array_equal(found, classes())
    grey, _ = self.decode(png(pixels()[:, :, 0]))
    np.testing.assert_array_equal(np.asarray(grey), pixels()[:, :, :1].repeat(3, 2))

  def test_files_give_what_their_example_gives(self):
    grey, palette = Image.fromarray(pixels()[:, :, 0]), Image.fromarray(classes())
    palette.putpalette([255, 0, 0, 0, 9, 9])
    images = [encoded(Image.fromarray(pixels()), kind) for kind in ('JPEG', 'PNG', 'TIFF', 'BMP', 'WEBP')]
    images += [encoded(grey, 'PNG'), encoded(grey, 'JPEG'), *(photo(turn) for turn in (1, 3, 6)),
               photo(6, 'TIFF')]
    labels = [png(classes()), encoded(palette, 'PNG'), grey_png(classes(), 2), png(np.rot90(classes(), -1))]
    counts = []
    for image, label in itertools.product(images, labels):
      pair = lists.Pair(self.file('photo', image), self.file('label.png', label), FRUIT, 'photo')
      example = schema.encode_pair(pair)
      if example.problems:
        with self.assertRaises(DataError) as caught:
          schema.read_pair(pair)
        self.assertEqual([str(caught.exception)], example.problems)
        continue
      expected = schema.decode(tf_records.parse(tf_records.serialize(example.features), 'it'), FRUIT, 'it')
      for found, wanted in zip(schema.read_pair(pair), expected, strict=True):
        self.assertEqual(found.dtype, np.uint8)
        np.testing.assert_array_equal(found, wanted)
      counts.append(found.shape)
    self.assertEqual((len(counts), counts.count((WIDTH, HEIGHT))), (35, 8))
    clear = encoded(Image.new('RGBA', (WIDTH, HEIGHT)), 'PNG')
    with self.assertRaisesRegex(DataError, "photo' has transparent pixels; flatten it"):
      schema.read_pair(pair._replace(image=self.file('photo', clear)))

  def test_jpeg_is_decoded_no_smaller_than_asked_for(self):
    whole, label = np.full((64, 96, 3), 77, np.uint8), np.zeros((64, 96), np.uint8)
    for min_side, size in ((0, (96, 64)), (33, (96, 64)), (32, (48, 32)), (8, (12, 8))):
      image, found = self.decode(encoded(Image.fromarray(whole), 'JPEG'), png(label), min_side=min_side)
      self.assertEqual((image.size, found.shape), (size, (64, 96)))

  def test_what_is_wrong_names_the_example(self):
    for sentence, features in (
        ('the image of example 3 does not decode', {'image': b'hello'}),
        ('the label of example 3 does not decode', {'label': png(classes())[:-1]}),
        ('the label of example 3 is 7x13, its image 13x7', {'label': png(classes().T.copy())}),
        ('the label of example 3 holds the values 3; fruit allows', {'label': png(classes(first=1))})):
      with self.subTest(sentence), self.assertRaisesRegex(DataError, sentence):
        self.decode(**features)

  def test_file_name_is_text_or_missing(self):
    self.assertEqual(schema.file_name({schema.IMAGE_FILENAME: 'süß/a.jpg'.encode()}), 'süß/a.jpg')
    self.assertIsNone(schema.file_name({}))


if __name__ == '__main__':
  unittest.main()
