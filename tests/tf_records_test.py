"""dataset/tf_records.py: what becomes of files in an example, and records that are whole, cut or wrong."""
import dataclasses
import io
import os
import unittest

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from dataset import image_files, tf_records
from tests import support
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

VOID_7 = dataclasses.replace(FRUIT, ignore_label=7)


def example(**features):
  """A serialized tf.train.Example of bytes features, '__' standing for '/'."""
  return tf.train.Example(features=tf.train.Features(feature={
      name.replace('__', '/'): tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
      for name, value in features.items()})).SerializeToString()


class EncodeExampleTest(FolderTest):

  def encode(self, image, label, image_name='photo.jpg', dataset=FRUIT):
    """Returns the features of the example of two files with these bytes."""
    serialized = support.encode_example(
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
      support.encode_example(os.path.join(self.folder, 'none.jpg'), f'{self.folder}/label.png', FRUIT)

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


class SerializeTest(unittest.TestCase):

  def test_numbers_of_every_length_are_what_tensorflow_serializes(self):
    for number in (0, 1, 127, 128, 300, 16383, 16384, 2 ** 31, 2 ** 62):
      expected = tf.train.Example(features=tf.train.Features(feature={
          'x': tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
          'y': tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'a' * (number % 1000)])),
      })).SerializeToString(deterministic=True)
      self.assertEqual(tf_records.serialize({'y': b'a' * (number % 1000), 'x': number}), expected)


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

  def test_split_is_a_name_and_no_pattern(self):
    paths = self.files('v[a]l-00000-of-00001.record', 'val-00000-of-00001.record')
    self.assertEqual(tf_records.record_files(self.folder, 'v[a]l'), paths[:1])
    with self.assertRaisesRegex(DataError, r"record '.*/\*\.record' does not exist"):
      tf_records.record_files(self.folder, '*')

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

  def test_fingerprint_tells_examples_apart_not_where_they_lie(self):
    one = self.record('a.record', b'x', b'yyyy', b'yy')
    self.assertRegex(tf_records.fingerprint([one]), '^[0-9a-f]{16}$')
    parts = [self.record('b.record', b'yy', b'x'), self.record('c.record', b'yyyy'), self.record('d.record')]
    self.assertEqual(tf_records.fingerprint(parts), tf_records.fingerprint([one]))
    for examples in ((b'x', b'yyyy', b'yz'), (b'x', b'yyyy'), (b'x', b'yyyy', b'yy', b'yy'), ()):
      other = self.record('e.record', *examples)
      self.assertNotEqual(tf_records.fingerprint([other]), tf_records.fingerprint([one]))

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
