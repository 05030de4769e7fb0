import base64
import io
import json
import os
import tempfile
import unittest

import numpy as np
from PIL import Image

from dataset import image_files, polygons
from utils.errors import DataError

SIZE = HEIGHT, WIDTH = 41, 67


def shape(name, kind, *points, **more):
  return {'label': name, 'shape_type': kind, 'points': [list(point) for point in points], 'flags': {},
          'group_id': None, **more}


def encoded_mask(mask):
  buffer = io.BytesIO()
  Image.fromarray(np.asarray(mask, np.uint8)).save(buffer, 'PNG')
  return base64.b64encode(buffer.getvalue()).decode()


def distances(x, y):
  """Returns float [H, W], the distance of each pixel from a point."""
  ys, xs = np.mgrid[:HEIGHT, :WIDTH]
  return np.hypot(xs - x, ys - y)


class PolygonsTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.path = os.path.join(folder.name, 'a.json')

  def write(self, content):
    with open(self.path, 'w', encoding='utf-8') as file:
      file.write(content if isinstance(content, str) else json.dumps(content))

  def read(self, *shapes, **more):
    self.write({'version': '5.5.0', 'flags': {}, 'shapes': list(shapes), 'imagePath': 'a.jpg',
                'imageData': None, 'imageHeight': HEIGHT, 'imageWidth': WIDTH, **more})
    return polygons.read(self.path)

  def draw(self, *shapes):
    labels = {name: value for value, name in enumerate('abc', 1)}
    label = polygons.draw(self.read(*shapes), labels, 9)
    self.assertEqual((label.dtype, label.shape), (np.uint8, SIZE))
    return label


class ReadTest(PolygonsTest):

  def test_shapes_come_in_the_files_order(self):
    drawing = self.read(shape('b', 'polygon', (1, 2), (3.5, 4), (5, 6)),
                        shape('a', None, (1, 2), (3, 4), (5, 7)),
                        shape('b', 'point', (-3, 2)), imageData='no base64, and not looked at')
    self.assertEqual(drawing.size, SIZE)
    self.assertEqual(drawing.path, self.path)
    self.assertEqual([tuple(s) for s in drawing.shapes], [
        ('b', 'polygon', ((1, 2), (3.5, 4), (5, 6)), None), ('a', 'polygon', ((1, 2), (3, 4), (5, 7)), None),
        ('b', 'point', ((-3, 2),), None)])
    self.assertEqual(polygons.names(drawing), ['b', 'a'])

  def test_a_photo_may_be_larger_than_other_json(self):
    self.assertEqual(self.read(imageData='A' * (1 << 25)).size, SIZE)

  def test_a_file_that_does_not_say_the_size_is_refused(self):
    with self.assertRaisesRegex(DataError, 'does not say how large its image is'):
      self.read(imageHeight=None, imageWidth=None)

  def test_files_that_are_not_labelmes_are_errors(self):
    for content, sentence in (
        ('{"shapes": [', 'is no JSON'), ('[' * 100000, 'is nested too deeply'), ([], 'no shapes'),
        ({'shapes': []}, 'no imageHeight'),
        ({'shapes': {}, 'imageHeight': 1, 'imageWidth': 1}, 'no list of shapes')):
      self.write(content)
      with self.assertRaisesRegex(DataError, f"labelme file '{self.path}'.*{sentence}"):
        polygons.read(self.path)

  def test_sizes_that_cannot_be_are_errors(self):
    for height in (0, -1, 1.5, '7', True, None):
      with self.assertRaisesRegex(DataError, 'has the imageHeight .*; use numbers of pixels'):
        self.read(imageHeight=height)
    with self.assertRaisesRegex(DataError, f'more than the {image_files.MAX_PIXELS} pixels'):
      self.read(imageHeight=10 ** 400)

  def test_shapes_that_cannot_be_drawn_are_named(self):
    good = shape('a', 'point', (1, 2))
    box = (2, 3), (4, 7)
    for wrong, sentence in (
        ([], 'has no label'), (shape(7, 'point', (1, 2)), 'has no label'),
        (shape('a', 'cuboid', (1, 2)), "unknown kind 'cuboid'; use polygon, rectangle, "),
        (shape('a', ['point'], (1, 2)), 'unknown kind'),
        (shape('a', 'polygon', (1, 2), (3, 4)), 'a polygon, has 2 points, and 3 or more are allowed'),
        (shape('a', 'circle', (1, 2)), 'a circle, has 1 points, and 2 are allowed'),
        (shape('a', 'rectangle', (1, 2)), 'has 1 points, and 2 to 4 are allowed'),
        (shape('a', 'point', (1, float('nan'))), 'no pairs of numbers between -100000 and 100000'),
        (shape('a', 'point', (float('inf'), 1)), 'no pairs'),
        (shape('a', 'point', (1, 10 ** 400)), 'no pairs'),
        (shape('a', 'point', (1, '2')), 'no pairs'), (shape('a', 'point', (1, 2, 3)), 'no pairs'),
        ({'label': 'a', 'shape_type': 'point'}, 'no pairs'),
        (shape('a', 'mask', *box), 'mask of shape 2 of .* is no base64 text'),
        (shape('a', 'mask', *box, mask='!'), 'is no base64 text'),
        (shape('a', 'mask', *box, mask='AAAA'), 'mask of shape 2 of .* does not decode'),
        (shape('a', 'mask', *box, mask=encoded_mask(np.ones((5, 5)))), '5x5 image .* for a box of 3x5'),
        (shape('a', 'mask', *box, mask=encoded_mask(np.ones((5, 3, 3)))), '3x5 image of 3 channel')):
      with self.subTest(wrong=wrong):
        with self.assertRaisesRegex(DataError, sentence) as caught:
          self.read(good, wrong)
        self.assertIn(f"shape 2 of labelme file '{self.path}'", str(caught.exception))


class DrawTest(PolygonsTest):

  def test_a_rectangle_has_both_corners_in_any_order(self):
    expected = np.full(SIZE, 9)
    expected[5:21, 10:31] = 1
    for points in (((10, 5), (30, 20)), ((30.9, 5.2), (10.7, 20.9)),
                   ((10, 5), (30, 5), (30, 20), (10, 20))):  # coordinates are cut to whole pixels
      np.testing.assert_array_equal(self.draw(shape('a', 'rectangle', *points)), expected)

  def test_a_polygon_has_its_outline(self):
    expected = np.full(SIZE, 9)
    expected[5:21, 10:31] = 2
    corners = (10, 5), (30, 5), (30, 20), (10, 20)
    for kind in ('polygon', None, 'oriented_rectangle', 'rotation'):
      np.testing.assert_array_equal(self.draw(shape('b', kind, *corners)), expected)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    triangle = self.draw(shape('b', 'polygon', (4, 4), (34, 4), (4, 34)))
    np.testing.assert_array_equal(triangle == 2, (xs >= 4) & (ys >= 4) & (xs + ys <= 38))

  def test_a_circle_has_the_pixels_that_are_near_enough(self):
    distance = distances(30, 18)
    circle = self.draw(shape('a', 'circle', (30, 18), (36, 26))) == 1  # radius 10
    self.assertTrue(circle[distance <= 9].all())  # PIL's outline differs from the true one by up to a pixel
    self.assertFalse(circle[distance >= 11].any())

  def test_a_point_is_a_disc_of_radius_5(self):
    point, distance = self.draw(shape('a', 'point', (50, 20))) == 1, distances(50, 20)
    self.assertTrue(point[distance <= 4].all())
    self.assertFalse(point[distance >= 6].any())

  def test_lines_are_10_pixels_wide(self):
    line = self.draw(shape('a', 'line', (10, 20), (50, 20))) == 1
    np.testing.assert_array_equal(line[:, 11:50].sum(axis=0), 10)
    self.assertTrue(line[16:24, 11:50].all())
    strip = self.draw(shape('a', 'linestrip', (10, 10), (50, 10), (50, 35))) == 1
    self.assertTrue(strip[7:13, 11:50].all() and strip[10:35, 47:53].all())
    self.assertFalse(strip[17:, :44].any())

  def test_a_mask_lies_at_its_first_point(self):
    mask = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]])
    label = self.draw(shape('c', 'mask', (2.9, 3), (4, 7), mask=encoded_mask(mask)))
    expected = np.full(SIZE, 9)
    expected[3:8, 2:5][mask == 1] = 3
    np.testing.assert_array_equal(label, expected)
    wide = self.draw(shape('c', 'mask', (2, 3), (5, 7), mask=encoded_mask(mask * 255)))  # without its end
    np.testing.assert_array_equal(wide, expected)

  def test_a_mask_may_leave_the_image(self):
    expected = np.full(SIZE, 9)
    expected[:2, :1] = expected[-2:, -1:] = 3
    mask = encoded_mask(np.ones((3, 2)))
    label = self.draw(shape('c', 'mask', (-1, -1), (0, 1), mask=mask),
                      shape('c', 'mask', (WIDTH - 1, HEIGHT - 2), (WIDTH, HEIGHT), mask=mask))
    np.testing.assert_array_equal(label, expected)

  def test_later_shapes_lie_on_top_and_what_is_outside_is_cut(self):
    label = self.draw(shape('a', 'rectangle', (-50, -50), (30, 20)),
                      shape('b', 'rectangle', (20, 10), (10 ** 5, 15)),
                      shape('a', 'rectangle', (60, 12), (61, 12)))
    expected = np.full(SIZE, 9)
    expected[:21, :31] = 1
    expected[10:16, 20:] = 2
    expected[12, 60:62] = 1
    np.testing.assert_array_equal(label, expected)

  def test_no_shapes_are_all_background(self):
    np.testing.assert_array_equal(self.draw(), np.full(SIZE, 9))

  def test_names_that_are_not_known_are_listed(self):
    drawing = self.read(*(shape(name, 'point', (1, 2)) for name in ('a', 'dog', 'cat', 'dog')))
    with self.assertRaisesRegex(DataError, r"a.json' has .* \['dog', 'cat'\]; add these names"):
      polygons.draw(drawing, {'a': 1}, 0)


if __name__ == '__main__':
  unittest.main()
