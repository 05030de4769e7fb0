"""Scores against numbers worked out by hand, and how they are reported."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from utils import metrics

pytestmark = pytest.mark.compat


class ScoresTest(unittest.TestCase):

  def test_scores_of_two_batches_come_from_one_summed_matrix(self):
    # Batch 1: truth 0 0 1 ignored, prediction 0 1 1 2. Batch 2: truth 1 1, prediction 1 0.
    # Matrix [[1,1,0,0],[1,2,0,0],0,0]: IoU 1/3, 2/4; the ignored pixel's class 2 and class 3 never appear.
    batches = [([0, 0, 1, 255], [0, 1, 1, 2]), ([1, 1, 255, 255], [1, 0, 3, 3])]
    with tf.Graph().as_default(), tf.Session() as session:
      truth, prediction = (tf.placeholder(tf.int64, [1, 2, 2, 1]) for _ in range(2))
      matrix = metrics.confusion_matrix(truth, prediction, 4, 255)
      scores = metrics.evaluation_metrics(matrix, ['a', 'b', 'c', 'd'])
      session.run(tf.local_variables_initializer())
      for labels, classes in batches:
        session.run([update for _, update in scores.values()][0],
                    {truth: np.reshape(labels, (1, 2, 2, 1)), prediction: np.reshape(classes, (1, 2, 2, 1))})
      result = session.run({name: value for name, (value, _) in scores.items()})
    np.testing.assert_array_equal(
        result['confusion_matrix'], [[1, 1, 0, 0], [1, 2, 0, 0], [0] * 4, [0] * 4])
    self.assertAlmostEqual(result['iou/a'], 1 / 3, places=6)
    self.assertAlmostEqual(result['iou/b'], 1 / 2, places=6)
    self.assertEqual(result['iou/c'], 0)
    self.assertAlmostEqual(result['mean_iou'], (1 / 3 + 1 / 2) / 2, places=6)
    self.assertAlmostEqual(result['px_accuracy'], 3 / 5, places=6)


class ReportTest(unittest.TestCase):

  def report(self, matrix, names):
    """Returns the lines on a confusion matrix."""
    with tf.Graph().as_default(), tf.Session() as session:
      scores = metrics.evaluation_metrics(tf.constant(np.array(matrix, np.int64)), names)
      session.run(tf.local_variables_initializer())
      session.run(scores['mean_iou'][1])
      result = session.run({name: value for name, (value, _) in scores.items()})
    return metrics.report(result, names).splitlines()

  def test_it_is_readable_as_the_original_one(self):
    # IoU 9 / 12 and 5 / 8, their mean 0.6875; 14 of 17 pixels.
    self.assertEqual(self.report([[9, 1], [2, 5]], ['sky', 'road']), [
        'Intersection over Union for each class:', '    class 0: 0.7500  sky',
        '    class 1: 0.6250  road', 'mean Intersection over Union: 0.6875', 'Pixel Accuracy: 0.8235'])

  def test_classes_without_a_score_have_a_dash_and_are_named(self):
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
        'Pixel Accuracy: 0.7500',
        'neither labelled nor predicted: cat, dog, cow; without a score, and left out of the mean',
        'never predicted: boat; labelled, so that the score is 0'])

  def test_many_names_are_cut_short(self):
    names = [f'c{index}' for index in range(25)]
    matrix = np.zeros((25, 25), int)
    matrix[:11, 0] = 1
    *_, absent, missed = self.report(matrix, names)
    self.assertEqual(absent, 'neither labelled nor predicted: c11, c12, c13, c14, c15, c16, c17, c18, c19, '
                             'c20 and 4 more; without a score, and left out of the mean')
    self.assertTrue(missed.startswith('never predicted: c1, c2, c3, c4, c5, c6, c7, c8, c9, c10; '))

  def test_no_valid_pixel_is_no_score(self):
    self.assertEqual(self.report(np.zeros((2, 2)), ['sky', 'road']), [
        'Intersection over Union for each class:', '    class 0: -       sky', '    class 1: -       road',
        'mean Intersection over Union: -', 'Pixel Accuracy: -',
        'no pixel was valid: every label holds the ignore label alone, so there is nothing to score'])


if __name__ == '__main__':
  unittest.main()
