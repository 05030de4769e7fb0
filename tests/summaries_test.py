"""What the event files of a training hold: pictures side by side, and the scores of each class."""
import io
import sys
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image
from tensorboard.plugins.hparams import plugin_data_pb2

from training import metrics, summaries
from utils.settings import Settings

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def written(build):
  """Returns tag -> value of the summaries that build() adds to a graph."""
  with tf.Graph().as_default(), tf.Session() as session:
    build()
    summary = tf.Summary.FromString(session.run(tf.summary.merge_all()))
  return {value.tag: value for value in summary.value}


class SummariesTest(unittest.TestCase):

  def grids(self, photos, labels, classes, count=2):
    settings = Settings(palette=((1, 2, 3), (40, 50, 60)), tensorboard_images_max_outputs=count)
    with tf.Graph().as_default(), tf.Session() as session:
      return session.run(summaries.image_grid(tf.constant(photos), tf.constant(labels), tf.constant(classes),
                                              settings))

  def test_photo_truth_and_prediction_stand_side_by_side(self):
    photos = np.random.RandomState(0).randint(0, 256, (3, 2, 5, 3))
    labels, classes = np.full((3, 2, 5, 1), 1), np.zeros((3, 2, 5, 1), int)
    labels[0, 1, 2] = 255
    found = self.grids(np.float32(photos + 0.25), labels, classes)
    self.assertEqual(found.shape, (2, 2, 15, 3))  # of three images
    np.testing.assert_array_equal(found[0, :, :5], photos[0])
    truth = np.broadcast_to([40, 50, 60], (2, 5, 3)).copy()
    truth[1, 2] = 224, 224, 192  # as VOC draws what does not count
    np.testing.assert_array_equal(found[0, :, 5:10], truth)
    np.testing.assert_array_equal(found[0, :, 10:], np.broadcast_to([1, 2, 3], (2, 5, 3)))

  def test_high_pictures_are_scaled_down(self):
    photos = np.full((1, 321, 65, 3), 77, np.uint8)  # every third of 321 rows
    labels = np.zeros((1, 321, 65, 1), int)
    found = self.grids(photos, labels, labels + 1)
    self.assertEqual(found.shape, (1, 107, 66, 3))
    self.assertEqual([found[0, 50, column].tolist() for column in (10, 30, 50)],
                     [[77, 77, 77], [1, 2, 3], [40, 50, 60]])

  def test_pictures_are_jpegs_under_the_tags_of_tensorflow(self):
    found = summaries.pictures('images', np.full((2, 9, 20, 3), 200, np.uint8)).value
    self.assertEqual([value.tag for value in found], ['images/image/0', 'images/image/1'])
    self.assertEqual((found[1].image.height, found[1].image.width), (9, 20))
    np.testing.assert_array_equal(Image.open(io.BytesIO(found[1].image.encoded_image_string)),
                                  np.full((9, 20, 3), 200))

  def test_each_class_has_its_score_by_its_name_too(self):
    # Of class 0 three pixels are right, one is missed; of class 1 two are right, one of them too many.
    found = written(lambda: summaries.training_scalars(
        {'rate': tf.constant(0.5)}, tf.constant([[3, 1], [0, 2]], tf.int64), ('sky', 'cat')))
    iou = {'0': 0.75, '1': round(2 / 3, 6)}
    self.assertEqual({tag: round(value.simple_value, 6) for tag, value in found.items()}, {
        'rate': 0.5, 'train_iou_class0': iou['0'], 'train_iou_class1': iou['1'], 'iou/sky': iou['0'],
        'iou/cat': iou['1'], 'mean_iou': round((0.75 + 2 / 3) / 2, 6), 'px_accuracy': round(5 / 6, 6)})

  def test_any_names_are_tags_as_they_are_and_those_of_validation(self):
    names = ('a b', 'a_b', 'a/b', '/a', 'a:0', 'Straße', '猫', '🐈', '..', '%s {} $x', 'loss', 'n' * 300)
    found = written(lambda: summaries.training_scalars({}, tf.constant(np.eye(12), tf.int64), names))
    with tf.Graph().as_default():
      scores = metrics.evaluation_metrics(tf.constant(np.eye(12), tf.int64), names)
    self.assertEqual([tag for tag in found if tag.startswith('iou/')], [f'iou/{name}' for name in names])
    self.assertLessEqual(set(scores) - {'confusion_matrix'}, set(found))

  def test_what_a_run_was_told_is_text_and_hparams(self):
    found = {value.tag: value for value in summaries.of_run(
        {'batch_size': 8, 'flip': True, 'crop_size': [33, 49], 'debug': None}, ('sky', 'cat'),
        ((0, 0, 9), (9, 0, 0))).value}
    self.assertEqual(set(found), {'configuration', '_hparams_/session_start_info', 'legend/image/0'})
    self.assertIn(b'"batch_size": 8', found['configuration'].tensor.string_val[0])
    content = plugin_data_pb2.HParamsPluginData.FromString(
        found['_hparams_/session_start_info'].metadata.plugin_data.content).session_start_info.hparams
    self.assertEqual((content['batch_size'].number_value, content['flip'].bool_value,
                      content['crop_size'].string_value, 'debug' in content), (8, True, '33 49', False))
    # What else is there wants a Keras, which TF_USE_LEGACY_KERAS=1 makes a package that is not installed.
    self.assertFalse('tensorboard.plugins.hparams._keras' in sys.modules)


if __name__ == '__main__':
  unittest.main()
