"""Scores of a training's evaluations: computed by hand, kept in a file, and counted since the best."""
import os
import tempfile
import unittest

import numpy as np

from utils import validation
from utils.errors import DataError


class ScoresTest(unittest.TestCase):

  def test_scores_equal_a_count_by_hand_and_skip_a_class_that_occurs_nowhere(self):
    found = validation.scores(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), ['a', 'b', 'c'])
    self.assertAlmostEqual(found.pop('frequency_weighted_iou'), (8 * 6 / 9 + 4 * 3 / 6) / 12, places=14)
    self.assertEqual(found, {'mean_iou': (6 / 9 + 3 / 6) / 2, 'px_accuracy': 9 / 12,
                             'mean_accuracy': (6 / 8 + 3 / 4) / 2, 'mean_dice': (12 / 15 + 6 / 9) / 2,
                             'iou': {'a': 6 / 9, 'b': 3 / 6, 'c': None}})

  def test_class_scores_are_none_where_there_is_nothing_to_divide_by(self):
    # a is found, b labelled and never predicted, c predicted and never labelled, d nowhere.
    found = validation.class_scores(np.array([[5, 0, 2, 0], [3, 0, 0, 0], [0] * 4, [0] * 4]))
    self.assertEqual({name: validation.as_json(values) for name, values in found.items()}, {
        'iou': [5 / 10, 0, 0, None], 'accuracy': [5 / 7, 0, None, None], 'precision': [5 / 8, None, 0, None],
        'recall': [5 / 7, 0, None, None], 'dice': [10 / 15, 0, 0, None], 'pixels': [7, 3, 0, 0]})

  def test_no_pixel_at_all_scores_nothing(self):
    found = validation.scores(np.zeros((2, 2)), ['a', 'b'])
    self.assertEqual(found, {'mean_iou': 0, 'px_accuracy': 0, 'mean_accuracy': 0, 'frequency_weighted_iou': 0,
                             'mean_dice': 0, 'iou': {'a': None, 'b': None}})


class ValidationTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def test_later_evaluations_are_dropped_and_all_is_read_again(self):
    first = validation.Validation(self.folder)
    first.go_on_from(4)
    for step, value in ((6, .5), (8, .7), (10, .6), (8, .4)):  # the last replaces the second
      first.add(step, {'mean_iou': value})
    self.assertEqual(first.evaluations_since_best(), 1)
    again = validation.Validation(self.folder)
    again.go_on_from(8)
    self.assertEqual(again.evaluations, [{'step': 6, 'mean_iou': .5}, {'step': 8, 'mean_iou': .4}])
    self.assertEqual([again.has(step) for step in (2, 4, 5, 6, 8, 10)],
                     [True, True, False, True, True, False])
    self.assertEqual(again.evaluations_since_best(), 1)

  def test_damaged_file_is_a_sentence(self):
    for content in ('{', '{"since": 3}', '{"since": 0, "evaluations": [{"step": "x"}]}', '[]'):
      with open(os.path.join(self.folder, validation.FILE_NAME), 'w') as file:
        file.write(content)
      with self.subTest(content), self.assertRaisesRegex(DataError, 'validation.json'):
        validation.Validation(self.folder)

  def test_scores_of_the_best_are_read_back_or_none(self):
    self.assertIsNone(validation.best_scores(self.folder))
    validation.write_best_scores(self.folder, 7, {'mean_iou': .25, 'images': 3})
    self.assertEqual(validation.best_scores(self.folder), {'step': 7, 'mean_iou': .25, 'images': 3})
    with open(os.path.join(self.folder, validation.SCORES_NAME), 'w') as file:
      file.write('{"step": 7}')
    self.assertIsNone(validation.best_scores(self.folder))


if __name__ == '__main__':
  unittest.main()
