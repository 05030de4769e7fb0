"""dataset/label_files.py: labels in every format whose values or colours are exact."""
import dataclasses
import io
import os
import tempfile
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from dataset import descriptors, label_files, lists, schema, tf_records
from tests import support
from tests.support import HEIGHT, WIDTH, FolderTest, encoded, grey_png, pixels, png
from utils.errors import DataError

pytestmark = pytest.mark.compat

FRUIT = descriptors.Dataset('fruit', ('apple', 'pear', 'plum'), ((0, 0, 0), (200, 0, 0), (0, 0, 200)))
COLORS = dataclasses.replace(FRUIT, colors={(0, 0, 0): 0, (200, 0, 0): 1, (0, 0, 200): 2})
VALUES = dataclasses.replace(FRUIT, values={0: 0, 300: 1, 40000: 2, descriptors.OTHER: 255})


def classes():
  """Label values, uint8 [5, 9], with 3 rows of 0, a row of 1 and one of 2."""
  return np.repeat(np.uint8([0, 1, 0, 2, 0]), 9).reshape(5, 9)


class LabelFilesTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def save(self, name, image, **options):
    path = os.path.join(self.folder, name)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path

  def assert_loads(self, path, dataset, expected, palette_uses=()):
    stored = label_files.load(path, dataset, fast=False)
    image = Image.open(io.BytesIO(stored.encoded))
    np.testing.assert_array_equal(np.asarray(image), expected)
    self.assertEqual(stored.counts, np.bincount(expected.ravel(), minlength=256).tolist())
    self.assertEqual((stored.size, list(stored.palette_uses)), (expected.shape, list(palette_uses)))
    self.assertEqual(label_files.load(path, dataset, fast=True).size, expected.shape)

  def assert_refused(self, sentence, path, dataset=FRUIT):
    with self.assertRaisesRegex(DataError, sentence):
      label_files.load(path, dataset, fast=False)

  def palette(self):
    image = Image.fromarray(classes())
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 200])
    return image

  def test_ids_are_read_in_every_format(self):
    ids, palette_uses = classes(), list(enumerate(FRUIT.palette))
    grey_rgb = np.repeat(ids[:, :, None], 3, axis=2)
    for name, image, shown in (
        ('a.png', ids, ()), ('a.bmp', ids, ()), ('a.tif', ids, ()), ('rgb.png', grey_rgb, ()),
        ('rgb.bmp', grey_rgb, ()), ('sixteen.png', ids.astype(np.uint16), ()),
        ('sixteen.tif', ids.astype(np.uint16), ()), ('thirtytwo.tif', ids.astype(np.int32), ()),
        ('palette.png', self.palette(), palette_uses), ('palette.bmp', self.palette(), palette_uses),
        ('palette.gif', self.palette(), palette_uses), ('palette.tif', self.palette(), palette_uses),
        ('opaque.png', Image.fromarray(np.dstack([grey_rgb, np.full_like(ids, 255)])), ())):
      with self.subTest(name):
        self.assert_loads(self.save(name, image), FRUIT, ids, shown)

  def test_one_bit_is_0_and_1(self):
    for name in ('a.png', 'a.bmp', 'a.tif'):
      with self.subTest(name):
        self.assert_loads(self.save(name, Image.fromarray(classes() == 1)), FRUIT, np.uint8(classes() == 1))

  def test_colours_are_read_in_every_format(self):
    rgb = np.uint8(FRUIT.palette)[classes()]
    for name in ('a.png', 'a.bmp', 'a.tif', 'a.gif', 'a.webp'):
      with self.subTest(name):
        options = {'lossless': True} if name == 'a.webp' else {}
        self.assert_loads(self.save(name, rgb, **options), COLORS, classes())

  def test_ids_of_16_bits_become_what_values_say_and_all_others_too(self):
    ids = np.uint16([0, 300, 40000, 65535])[np.append(classes()[:, :8], np.full((5, 1), 3), axis=1)]
    expected = np.append(classes()[:, :8], np.full((5, 1), 255, np.uint8), axis=1)
    self.assert_loads(self.save('a.png', ids), VALUES, expected)
    self.assert_loads(self.save('a.tif', ids), VALUES, expected)
    self.assert_refused(r'holds the values 300, 40000, 65535; fruit allows 0\.\.2 and 255',
                        self.save('a.png', ids))
    self.assert_refused('16 bits and no colours', self.save('a.png', ids), COLORS)

  def test_transparent_pixels_are_what_the_descriptor_says(self):
    alpha = np.uint8(classes() > 0) * 77  # any but 0 is opaque
    rgba = np.dstack([np.uint8(FRUIT.palette)[classes()], alpha])
    path = self.save('a.png', rgba)
    named = dataclasses.replace(COLORS, colors={'transparent': 0, (200, 0, 0): 1, (0, 0, 200): 2})
    self.assert_loads(path, named, classes())
    self.assert_refused(r'has 27 transparent pixels; say what .* fruit: "colors": \{"transparent": "apple", ',
                        path, COLORS)
    grey = Image.fromarray(np.dstack([classes(), np.uint8(classes() > 0) * 255]), 'LA')
    self.assert_refused('has 27 transparent pixels.*"values"', self.save('grey.png', grey))
    values = dataclasses.replace(FRUIT, values={'transparent': 2, 1: 0, 2: 1})
    self.assert_loads(self.save('grey.png', grey), values, np.uint8([2, 0, 1])[classes()])

  def test_jpeg_counts_if_its_values_are_exact(self):
    flat = np.zeros((16, 24), np.uint8)
    self.assert_loads(self.save('a.jpg', flat, quality=100), FRUIT, flat)
    flat[4:9, 3:11] = 255
    path = self.save('b.jpg', flat, quality=60)
    self.assert_refused(r'holds the values 3, .*JPEG may have made of others; export the labels as PNG', path)

  def test_what_is_not_exact_is_refused(self):
    rgb = np.uint8(FRUIT.palette)[classes()]
    self.assert_refused("has 3 channels that differ.*'colors'", self.save('a.png', rgb))
    self.assert_refused('picture of mode CMYK', self.save('a.tif', Image.fromarray(rgb).convert('CMYK')))
    self.assert_refused('picture of mode F', self.save('f.tif', classes().astype(np.float32)))
    frames = [Image.fromarray(classes()), Image.fromarray(2 - classes())]
    self.assert_refused('holds 2 pictures',
                        self.save('a.gif', frames[0], save_all=True, append_images=frames[1:]))
    negative = classes().astype(np.int32) % 2 - (classes() == 2)
    self.assert_refused('values from -1 to 1', self.save('n.tif', negative))

  def test_survey_tells_what_is_transparent_and_stops_at_photos(self):
    rgba = np.dstack([np.uint8(FRUIT.palette)[classes()], np.uint8(classes() > 0) * 255])
    self.assertEqual(label_files.survey_label(self.save('a.png', rgba)), [
        (None, (0, 0, 200), 9), (None, (200, 0, 0), 9), ('transparent', None, 27)])
    photo = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    with self.assertRaisesRegex(DataError, 'a.png. holds 600 values or colours.*photo, check --labels'):
      label_files.survey_label(self.save('a.png', photo))


class RecodeTest(FolderTest):
  """Labels whose values or colours a descriptor turns into classes."""

  BINARY = dataclasses.replace(support.FRUIT, class_names=('no', 'yes'), palette=((0, 0, 0), (9, 8, 7)),
                               values={0: 0, 255: 1, 128: 255})
  COLORS = dataclasses.replace(support.FRUIT,
                               colors={(0, 0, 0): 255, (255, 0, 0): 2, (0, 0, 7): 1, (0, 1, 0): 0})

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
    label = np.where(support.classes() == 2, 255, 0).astype(np.uint8)
    label[0] = 128
    image, counts = self.stored(png(label), self.BINARY)
    expected = np.where(support.classes() == 2, 1, 0)
    expected[0] = 255
    np.testing.assert_array_equal(np.asarray(image), expected)
    self.assertEqual(image.mode, 'P')
    self.assertEqual(image.getpalette()[3:6], [9, 8, 7])
    self.assertEqual(counts, {0: 52, 1: 26, 255: 13})  # by hand: rows 1 to 6 have 26 of each class

  def test_values_of_few_bits_are_those_that_are_stored(self):
    swapped = dataclasses.replace(support.FRUIT, values={0: 2, 1: 1, 2: 0})
    for bits in (2, 4, 8):
      image, _ = self.stored(grey_png(support.classes(), bits), swapped)
      np.testing.assert_array_equal(np.asarray(image), 2 - support.classes())
    one_bit = dataclasses.replace(support.FRUIT, values={0: 2, 1: 0})
    image, _ = self.stored(encoded(Image.fromarray(support.classes() == 2), 'PNG'), one_bit)
    np.testing.assert_array_equal(np.asarray(image), np.where(support.classes() == 2, 0, 2))

  def test_colours_become_classes_whatever_the_kind_of_png(self):
    colors = np.uint8([[0, 1, 0], [0, 0, 7], [255, 0, 0], [0, 0, 0]])
    index = support.classes()
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
    problem, = self.encode(png(support.classes()), self.BINARY).problems
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
    label = self.file('label.png', png(np.where(support.classes() == 2, 255, 0).astype(np.uint8)))
    image = self.file('photo.png', png(pixels()))
    features = tf.train.Example.FromString(
        support.encode_example(image, label, self.BINARY)).features.feature
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


if __name__ == '__main__':
  unittest.main()
