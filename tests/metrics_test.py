"""Scores against numbers worked out by hand."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from training import metrics

pytestmark = [pytest.mark.compat, pytest.mark.slow]


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


if __name__ == '__main__':
  unittest.main()
