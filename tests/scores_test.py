"""Scores of images: the boundaries against a slow search, the sums against counts by hand."""
import unittest

import cv2
import numpy as np

from utils import scores, tables


def blobs(rng, size, num_values):
  """Returns uint8 [H, W]: areas of random values with curved outlines."""
  noise = rng.standard_normal((num_values, *size)).astype(np.float32)
  fields = [cv2.GaussianBlur(field, (0, 0), 5) for field in noise]
  return np.argmax(fields, 0).astype(np.uint8)


def searched_boundary(mask, distance):
  """Returns bool [H, W]: the mask's pixels at most so far from one outside, by a look at all."""
  outside = np.argwhere(~np.pad(mask, 1)) - 1
  found = np.zeros_like(mask)
  for row, column in np.argwhere(mask):
    found[row, column] = np.abs(outside - (row, column)).max(1).min() <= distance
  return found


def published_boundary(mask, distance):
  """Returns the same by the steps of mask_to_boundary of the paper's authors."""
  padded = np.pad(mask.astype(np.uint8), 1)
  eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
  return mask & (eroded[1:-1, 1:-1] == 0)


class MatrixTest(unittest.TestCase):

  def test_scores_equal_a_count_by_hand_and_skip_a_class_that_occurs_nowhere(self):
    found = scores.of_matrix(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), ['a', 'b', 'c'])
    self.assertAlmostEqual(found.pop('frequency_weighted_iou'), (8 * 6 / 9 + 4 * 3 / 6) / 12, places=14)
    self.assertEqual(found, {'mean_iou': (6 / 9 + 3 / 6) / 2, 'px_accuracy': 9 / 12,
                             'mean_accuracy': (6 / 8 + 3 / 4) / 2, 'mean_dice': (12 / 15 + 6 / 9) / 2,
                             'iou': {'a': 6 / 9, 'b': 3 / 6, 'c': None}})

  def test_class_scores_are_none_where_there_is_nothing_to_divide_by(self):
    # a is found, b labelled and never predicted, c predicted and never labelled, d nowhere.
    found = scores.class_scores(np.array([[5, 0, 2, 0], [3, 0, 0, 0], [0] * 4, [0] * 4]))
    self.assertEqual({name: scores.as_json(values) for name, values in found.items()}, {
        'iou': [5 / 10, 0, 0, None], 'accuracy': [5 / 7, 0, None, None], 'precision': [5 / 8, None, 0, None],
        'recall': [5 / 7, 0, None, None], 'dice': [10 / 15, 0, 0, None], 'pixels': [7, 3, 0, 0]})

  def test_no_pixel_at_all_scores_nothing(self):
    found = scores.of_matrix(np.zeros((2, 2)), ['a', 'b'])
    self.assertEqual(found, {'mean_iou': 0, 'px_accuracy': 0, 'mean_accuracy': 0, 'frequency_weighted_iou': 0,
                             'mean_dice': 0, 'iou': {'a': None, 'b': None}})


class BoundaryTest(unittest.TestCase):

  def check(self, find, size, num_classes, distance):
    rng = np.random.default_rng(size[0])
    label, classes = blobs(rng, size, num_classes + 1), blobs(rng, size, num_classes)
    label[label == num_classes] = 255  # areas to ignore
    valid = label != 255
    found = scores.boundary_counts(label, classes, valid, num_classes)
    for value in range(num_classes):
      true, predicted = (find((values == value) & valid, distance) for values in (label, classes))
      self.assertEqual(found[:, value].tolist(), [(true & predicted).sum(), (true | predicted).sum()])
    self.assertGreater(found[0].min(), 0)

  def test_it_is_what_a_search_for_the_nearest_pixel_outside_finds(self):
    self.check(searched_boundary, (47, 62), 3, 2)    # 2 % of 77.8
    self.check(searched_boundary, (25, 130), 4, 3)   # of 132.4

  def test_it_is_what_the_published_erosion_finds(self):
    self.check(published_boundary, (375, 500), 21, 12)  # 12.5 is rounded to even, as there

  def test_256_classes_leave_no_byte_for_what_is_ignored(self):
    label = blobs(np.random.default_rng(1), (60, 90), 3)
    classes, valid = label.T.copy().repeat(2, 1)[:60, :90], label < 2
    classes = np.pad(classes, ((0, 60 - classes.shape[0]), (0, 90 - classes.shape[1])))
    few, many = (scores.boundary_counts(label, classes, valid, count) for count in (3, 256))
    np.testing.assert_array_equal(many[:, :3], few)
    self.assertFalse(many[:, 3:].any())

  def test_counts_of_two_squares_by_hand(self):
    # In 100 x 100 pixels d is 3, and the boundary of a square of 20 its ring of 20^2 - 14^2 = 204 pixels.
    label, classes = np.zeros((2, 100, 100), np.uint8)
    label[30:50, 30:50] = classes[30:50, 31:51] = 1
    ring = np.zeros((2, 100, 100), bool)
    for number, left in enumerate((30, 31)):
      ring[number, 30:50, left:left + 20] = True
      ring[number, 33:47, left + 3:left + 17] = False
    found = scores.boundary_counts(label, classes, np.ones_like(label, bool), 2)
    self.assertEqual(found[:, 1].tolist(), [(ring[0] & ring[1]).sum(), (ring[0] | ring[1]).sum()])
    self.assertEqual(ring[0].sum(), 204)

  def test_image_smaller_than_its_window_is_all_boundary(self):
    label = np.zeros((2, 300), np.uint8)
    found = scores.boundary_counts(label, label, np.ones_like(label, bool), 2)
    self.assertEqual(found.tolist(), [[600, 0], [600, 0]])


class TallyTest(unittest.TestCase):

  def setUp(self):
    self.tally = scores.Tally(['sky', 'road', 'sea'], 255)

  def test_two_images_by_hand(self):
    first = self.tally.add('a', np.array([[0, 1, 1, 2]]), np.array([[0, 0, 1, 255]]))
    second = self.tally.add('b', np.array([[1, 0]]), np.array([[1, 1]]))
    np.testing.assert_array_equal(self.tally.matrix, [[1, 1, 0], [1, 2, 0], [0, 0, 0]])
    self.assertEqual((first.name, first.iou, first.accuracy, first.pixels), ('a', .5, 2 / 3, 3))
    np.testing.assert_array_equal(first.class_iou, [.5, .5, np.nan])
    self.assertEqual((second.iou, second.accuracy), (.5, .5))  # the sky is not labelled
    np.testing.assert_array_equal(second.class_iou, [0, .5, np.nan])
    found = self.tally.scores()
    self.assertLessEqual(scores.of_matrix(self.tally.matrix, ['sky', 'road', 'sea']).items(), found.items())
    self.assertEqual(found['classes']['road'], {
        'iou': .5, 'accuracy': 2 / 3, 'precision': 2 / 3, 'recall': 2 / 3, 'dice': 2 / 3, 'pixels': 3,
        'boundary_iou': .5})  # in so small images all is boundary
    self.assertEqual(found['boundary_iou'], (1 / 3 + 1 / 2) / 2)

  def test_image_without_a_valid_pixel_has_no_score(self):
    found = self.tally.add('a', np.array([[0, 1]]), np.array([[255, 255]]))
    self.assertEqual((found.iou, found.accuracy, found.pixels), (None, None, 0))
    self.assertEqual(self.tally.scores()['boundary_iou'], 0)
    self.assertIn('mean IoU                -', scores.table(self.tally.scores()))

  def test_ignore_label_among_the_classes_counts_nowhere(self):
    tally = scores.Tally(['void', 'road'], 0)
    tally.add('a', np.array([[0, 1, 1]]), np.array([[0, 0, 1]]))
    self.assertEqual(tally.matrix.tolist(), [[0, 0], [0, 1]])
    self.assertIsNone(tally.scores()['classes']['void']['boundary_iou'])

  def test_table_has_a_dash_for_what_does_not_exist(self):
    self.tally.add('a', np.array([[0, 1, 1, 1]]), np.array([[0, 0, 1, 1]]))
    self.assertEqual(scores.table(self.tally.scores()).splitlines()[:5], [
        'class     IoU  accuracy  precision  recall    dice  boundary  pixels',
        'sky    0.5000    0.5000     1.0000  0.5000  0.6667    0.5000       2',
        'road   0.6667    1.0000     0.6667  1.0000  0.8000    0.6667       2',
        'sea         -         -          -       -       -         -       0',
        ''])

  def test_names_of_any_letters_make_columns(self):
    self.assertEqual(tables.column(['猫', 'кот', 'e\u0301', '', 'x' * 50], longest=6),
                     ['猫    ', 'кот   ', 'e\u0301     ', ' ' * 6, 'xxx...'])


class ReportTest(unittest.TestCase):

  def report(self, matrix, names):
    """Returns the lines on a confusion matrix."""
    return scores.report(np.array(matrix, np.int64), names).splitlines()

  def test_it_is_readable_as_the_original_one(self):
    # IoU 9 / 12 and 5 / 8, their mean 0.6875; 14 of 17 pixels.
    self.assertEqual(self.report([[9, 1], [2, 5]], ['sky', 'road']), [
        'Intersection over Union for each class:', '    class 0: 0.7500  sky',
        '    class 1: 0.6250  road', 'mean Intersection over Union: 0.6875', 'Pixel Accuracy: 0.8235'])

  def test_classes_without_a_score_have_a_dash(self):
    # The boat is labelled and never predicted, the car predicted and never labelled: both score 0, and count.
    matrix = np.zeros((6, 6), int)
    matrix[0, 0], matrix[0, 2], matrix[3, 0] = 6, 1, 1
    self.assertEqual(self.report(matrix, ['sky', 'cat', 'car', 'boat', 'dog', 'cow']), [
        'Intersection over Union for each class:',
        '    class 0: 0.7500  sky',
        '    class 1: -       cat',
        '    class 2: 0.0000  car',
        '    class 3: 0.0000  boat',
        '    class 4: -       dog',
        '    class 5: -       cow',
        'mean Intersection over Union: 0.2500',
        'Pixel Accuracy: 0.7500'])

  def test_no_valid_pixel_is_no_score(self):
    self.assertEqual(self.report(np.zeros((2, 2)), ['sky', 'road']), [
        'Intersection over Union for each class:', '    class 0: -       sky', '    class 1: -       road',
        'mean Intersection over Union: -', 'Pixel Accuracy: -',
        'no pixel was valid: every label holds the ignore label alone, so there is nothing to score'])


if __name__ == '__main__':
  unittest.main()
