"""What the event files of a training hold: pictures side by side, and the scores of each class."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from utils import summaries
from utils.settings import Settings

pytestmark = pytest.mark.compat


def written(build):
  """Returns tag -> value of the summaries that build() adds to a graph."""
  with tf.Graph().as_default(), tf.Session() as session:
    build()
    summary = tf.Summary.FromString(session.run(tf.summary.merge_all()))
  return {value.tag: value for value in summary.value}


class SummariesTest(unittest.TestCase):

  def test_photo_truth_and_prediction_stand_side_by_side(self):
    photos = np.random.RandomState(0).randint(0, 256, (3, 2, 5, 3))
    labels, classes = np.full((3, 2, 5, 1), 1), np.zeros((3, 2, 5, 1), int)
    labels[0, 1, 2] = 255
    settings = Settings(palette=((1, 2, 3), (40, 50, 60)), tensorboard_images_max_outputs=2)
    found = written(lambda: summaries.image_grid(tf.constant(photos + 0.25, tf.float32), tf.constant(labels),
                                                 tf.constant(classes), settings))
    self.assertEqual(sorted(found), ['images/image/0', 'images/image/1'])  # of three images
    with tf.Graph().as_default(), tf.Session() as session:
      picture = session.run(tf.image.decode_png(found['images/image/0'].image.encoded_image_string))
    self.assertEqual(picture.shape, (2, 15, 3))
    np.testing.assert_array_equal(picture[:, :5], photos[0])
    truth = np.broadcast_to([40, 50, 60], (2, 5, 3)).copy()
    truth[1, 2] = 224, 224, 192  # as VOC draws what does not count
    np.testing.assert_array_equal(picture[:, 5:10], truth)
    np.testing.assert_array_equal(picture[:, 10:], np.broadcast_to([1, 2, 3], (2, 5, 3)))

  def test_each_class_has_its_score(self):
    # Of class 0 three pixels are right, one is missed; of class 1 two are right, one of them too many.
    found = written(lambda: summaries.training_scalars({'rate': tf.constant(0.5)},
                                                       tf.constant([[3, 1], [0, 2]], tf.int64)))
    self.assertEqual({tag: round(value.simple_value, 6) for tag, value in found.items()},
                     {'rate': 0.5, 'train_iou_class0': 0.75, 'train_iou_class1': round(2 / 3, 6)})


if __name__ == '__main__':
  unittest.main()
