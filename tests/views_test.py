"""dataset/views.py: scales, mirrored images and windows."""
import types
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from dataset import views
from dataset.views import View, Views
from deeplab_model import deeplabv3_plus_model_fn, network
from nets.architecture import Architecture
from tests import tiny_net
from training.tf_estimator import ModeKeys
from utils.errors import UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]


class PlanTest(unittest.TestCase):

  def test_windows_cover_the_image_evenly_and_overlap(self):
    looks = Views(window=(4, 6), overlap=0.5)
    found = looks.plan((9, 6))  # rows 0..8: starts no further apart than 2, so that there are 4
    self.assertEqual([view[:4] for view in found], [(0, 0, 4, 6), (2, 0, 4, 6), (3, 0, 4, 6), (5, 0, 4, 6)])
    for size in ((9, 13), (4, 7), (5, 6), (30, 31)):
      seen = np.zeros(size, int)
      for view in looks.plan(size):
        view.of(seen)[:] += 1
        self.assertEqual(view.of(seen).shape, (4, 6))
      self.assertGreaterEqual(seen.min(), 1, size)

  def test_window_larger_than_the_image_is_the_image(self):
    self.assertEqual(Views(window=(50, 60)).plan((9, 13)), [View(0, 0, 9, 13, 1.0, False)])
    self.assertEqual(Views(window=(50, 6), overlap=0).plan((9, 13))[1][:4], (0, 4, 9, 6))

  def test_every_window_is_seen_at_every_scale_and_mirrored(self):
    found = Views((0.5, 2.0), True).plan((3, 4))
    self.assertEqual([view[4:] for view in found], [(0.5, False), (0.5, True), (2.0, False), (2.0, True)])

  def test_flags_need_one_another(self):
    def read(**changes):
      return views.read_flags(types.SimpleNamespace(**{
          'eval_scales': [1.0], 'flip': False, 'sliding_window': None, 'overlap': 0.3, **changes}), 16)

    self.assertTrue(read().is_plain)
    self.assertEqual(read(sliding_window=[17, 33]), Views((1.0,), False, (17, 33), 0.3))
    with self.assertRaisesRegex(UsageError, '--sliding_window 17 15 is smaller than --output_stride 16'):
      read(sliding_window=[17, 15])


class AverageTest(unittest.TestCase):

  def test_it_is_the_mean_over_the_views_of_each_pixel(self):
    random, size, looks = np.random.RandomState(0), (11, 9), Views((1.0, 2.0), True, (4, 5), 0.4)
    plan = looks.plan(size)
    predictions = [{'probabilities': random.uniform(size=(view.height, view.width, 3)).astype(np.float32),
                    'position': position, 'size': np.int32(size)} for position in (4, 7) for view in plan]
    seen = []
    for keep in (True, False):
      merged = list(views.merged(iter(predictions), looks, 3,
                                 lambda number, total: seen.append((number, total)), keep))
      self.assertEqual([prediction['position'] for prediction in merged], [4, 7])
      for prediction, of_image in zip(merged, (predictions[:len(plan)], predictions[len(plan):])):
        total, count = np.zeros((*size, 3)), np.zeros((*size, 1))
        for view, of_view in zip(plan, of_image, strict=True):
          view.of(total)[:] += of_view['probabilities']
          view.of(count)[:] += 1
        np.testing.assert_array_equal(prediction['classes'][:, :, 0], (total / count).argmax(axis=2))
        if keep:
          np.testing.assert_allclose(prediction['probabilities'], total / count, rtol=1e-6)
    self.assertEqual(seen[-1], (len(plan), len(plan)))

  def test_memory_is_that_of_a_row_of_windows(self):
    average = views.Average((1000, 50), Views(window=(20, 30)), 3, lambda top, rows: None)
    self.assertEqual(average._sum.shape, (20, 50, 3))


class ViewInTheGraphTest(unittest.TestCase):

  @classmethod
  def setUpClass(cls):
    cls.image = np.random.RandomState(0).randint(0, 256, (33, 41, 3)).astype(np.uint8)

  def run_graph(self, build):
    with tf.Graph().as_default(), tf.Session() as session:
      fetches = build()
      session.run(tf.global_variables_initializer())
      session.run(tf.tables_initializer())
      return session.run(fetches)

  def batch(self, view):
    """Returns the views.Seen of a view of the image."""
    features = {'image': view.of(self.image), 'scale': np.float32(view.scale), 'mirrored': view.mirrored}
    return views.Seen({name: tf.constant(np.asarray(value)[None]) for name, value in features.items()})

  def test_it_is_resized_with_its_corners_in_place_and_mirrored(self):
    found = self.run_graph(lambda: self.batch(View(1, 2, 9, 11, 0.5, True)).images())[0]
    window = self.image[1:10, 2:13].astype(np.float32)
    self.assertEqual(found.shape, (5, 6, 3))  # int(8 * 0.5 + 1), int(10 * 0.5 + 1)
    np.testing.assert_allclose(found, window[::2, ::2][:, ::-1], atol=1e-3)  # each second pixel exactly
    same = self.run_graph(lambda: self.batch(View(1, 2, 9, 11, 1.0, False)).images())[0]
    np.testing.assert_array_equal(same, window)

  def test_plain_view_is_the_image_and_a_mirrored_one_its_mirror(self):
    params = {'base_architecture': tiny_net.TINY, 'num_classes': 3, 'class_names': 'abc', 'portable': True,
              'palette': [(0, 0, 0)] * 3}

    def build():
      with tiny_net.rows():
        tf.set_random_seed(0)
        size, found = self.image.shape[:2], []
        mirrored = tf.constant(self.image[None, :, ::-1])
        for features in (tf.constant(self.image[None]), self.batch(View(0, 0, *size, 1.0, False)), mirrored,
                         self.batch(View(0, 0, *size, 1.0, True))):
          with tf.variable_scope('', reuse=tf.AUTO_REUSE):
            found.append(deeplabv3_plus_model_fn(features, None, ModeKeys.PREDICT, params).predictions)
        return [one['probabilities'] for one in found]

    whole, view, mirrored, view_of_mirror = self.run_graph(build)
    self.assertEqual(whole.shape, (1, 33, 41, 3))
    np.testing.assert_allclose(view, whole, atol=1e-6)
    np.testing.assert_allclose(view_of_mirror, mirrored[:, :, ::-1], atol=1e-6)
    self.assertGreater(np.abs(mirrored[:, :, ::-1] - whole).max(), 1e-4)

  def test_view_is_padded_to_the_crop_at_its_scale(self):
    params = {'base_architecture': tiny_net.TINY, 'num_classes': 3, 'class_names': 'abc', 'portable': True,
              'palette': [(0, 0, 0)] * 3}
    view_of_all = View(0, 0, 33, 41, 1.0, False)
    cases = [((49, 64), view_of_all._replace(scale=0.5, mirrored=True), (25, 32)),  # int(63 * 0.5 + 1) = 32
             ((48, 64), view_of_all._replace(scale=0.7), (33, 45)),
             ((49, 36), view_of_all._replace(scale=2.0), (97, 81)),  # whose width is the image's own
             ((20, 50), View(3, 4, 25, 30, 1.5, True), (37, 74)),  # a window that is higher than the crop
             ((49, 65), view_of_all, (49, 65))]

    def build():
      found, means = [], tf.constant([123.68, 116.78, 103.94])  # which the network takes off
      with tiny_net.rows(), tf.variable_scope('', reuse=tf.AUTO_REUSE):
        for crop, view, (height, width) in cases:
          features = self.batch(view)
          found.append(deeplabv3_plus_model_fn(
              features, None, ModeKeys.PREDICT, {**params, 'eval_crop_size': crop}).predictions)
          size = [int((side - 1) * view.scale + 1) for side in (view.height, view.width)]
          padding = [[0, 0], [0, height - size[0]], [0, width - size[1]], [0, 0]]
          padded = means + tf.pad(features.images() - means, padding)
          logits = network(padded, Architecture.from_dict(params), False)
          found.append(tf.nn.softmax(features.restored(logits[:, :size[0], :size[1]])))
      return [one['probabilities'] for one in found[::2]], found[1::2]

    for found, expected in zip(*self.run_graph(build), strict=True):
      np.testing.assert_allclose(found, expected, atol=1e-5)


if __name__ == '__main__':
  unittest.main()
