"""Label maps as pictures: values, colours and blends against numbers worked out by hand."""
import os
import tempfile
import unicodedata
import unittest
from unittest import mock

import numpy as np
from PIL import Image

from utils import visualization

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 0, 201)]


class VisualizationTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.path = os.path.join(folder.name, 'a.png')

  def test_table_shows_the_ignored_value_in_vocs_colour_unless_it_is_a_class(self):
    table = visualization.color_table(PALETTE, 255)
    self.assertEqual(table[[0, 2, 3, 254, 255]].tolist(),
                     [[10, 20, 30], [0, 0, 201], [0, 0, 0], [0, 0, 0], [224, 224, 192]])
    self.assertEqual(visualization.color_table(PALETTE, 1)[1].tolist(), [200, 0, 0])

  def test_mask_keeps_the_values_and_shows_the_colours(self):
    classes = np.array([[0, 1], [2, 255]])
    visualization.save_mask(self.path, classes, PALETTE, 255)
    with Image.open(self.path) as image:
      self.assertEqual(image.mode, 'P')
      np.testing.assert_array_equal(np.asarray(image), classes)
      self.assertEqual(np.asarray(image.convert('RGB'))[1].tolist(), [[0, 0, 201], [224, 224, 192]])

  def test_overlay_blends_and_leaves_the_background_as_it_is(self):
    image = np.full((1, 2, 3), 100, np.uint8)
    for options, expected in (({'alpha': .5}, [[150, 50, 50], [50, 50, 150]]),  # 150.5 rounds to even
                              ({'alpha': 1.}, [[200, 0, 0], [0, 0, 201]]),
                              ({'alpha': .5, 'background': 1}, [[100, 100, 100], [50, 50, 150]])):
      found = visualization.overlay(image, np.array([[1, 2]]), PALETTE, **options)
      self.assertEqual(found[0].tolist(), expected)

  def test_legend_names_what_is_found_and_stays_small(self):
    classes = np.zeros((200, 300), int)
    classes[:, 150:] = 2
    image = np.full((200, 300, 3), 100, np.uint8)
    found = visualization.with_legend(image, classes, ['sky', 'cat', 'dog'], PALETTE)
    changed = np.nonzero((found != image).any(axis=2))
    self.assertLess(changed[0].size, 200 * 300 / 4)
    self.assertEqual((changed[0].max(), changed[1].min()), (199, 0))  # the lower left corner
    colors = {tuple(color) for color in found.reshape(-1, 3)}
    self.assertTrue({PALETTE[0], PALETTE[2]} <= colors)
    self.assertNotIn(PALETTE[1], colors)
    without = visualization.with_legend(image, classes, ['sky', 'cat', 'dog'], PALETTE, background=0)
    self.assertNotIn(PALETTE[0], {tuple(color) for color in without.reshape(-1, 3)})
    small = image[:20, :20]
    np.testing.assert_array_equal(visualization.with_legend(small, classes[:20, :20], 'abc', PALETTE), small)
    flat, ones = np.zeros((2, 9001, 3), np.uint8), np.zeros((2, 9001), int)  # as large as many a legend
    np.testing.assert_array_equal(visualization.with_legend(flat, ones, 'abc', PALETTE), flat)

  def test_names_in_any_letters_are_drawn_or_the_number_of_the_class(self):
    for name in ('Bär', 'кот', 'γάτα', 'e\u0301'):
      self.assertEqual(visualization.lettering(name, 'class 7', 12)[0], unicodedata.normalize('NFC', name))
      other = name[::-1] if len(name) > 2 else 'o'
      pictures = [visualization.legend([text], PALETTE) for text in (name, other)]
      self.assertFalse(np.array_equal(*pictures), name)
    for name in ('猫', 'قطة', '🐈 cat', 'ไทย'):  # by fonts that a machine may have
      self.assertIn(visualization.lettering(name, 'class 7', 12)[0], (name, 'class 7'))
    self.assertEqual(visualization.lettering('a\uffff', 'class 7', 12)[0], 'class 7')
    np.testing.assert_array_equal(visualization.legend(['a', 'b\uffff'], PALETTE, [1]),
                                  visualization.legend(['a', 'class 1'], PALETTE, [1]))
    with mock.patch('PIL.features.check_feature', lambda name: False):
      self.assertEqual(visualization.lettering('قطتي', 'class 7', 12)[0], 'class 7')  # not from left to right
    self.assertEqual(visualization.lettering('x' * 300, '', 12)[0], 'x' * 37 + '...')

  def test_grey_picture_holds_the_values(self):
    visualization.save(self.path, np.array([[7, 33], [0, 255]], np.uint8))
    with Image.open(self.path) as image:
      self.assertEqual((image.mode, np.asarray(image).tolist()), ('L', [[7, 33], [0, 255]]))


if __name__ == '__main__':
  unittest.main()
