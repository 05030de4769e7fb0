"""nets/cpu_convolution.py: convolutions by matrix products, and gradients against central differences."""
import functools
import os
import subprocess
import sys
import textwrap
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from nets import layers

pytestmark = [pytest.mark.compat, pytest.mark.slow]


class SkippingPaddingTest(unittest.TestCase):

  def _check(self, size, rate):
    rng = np.random.RandomState(3)
    inputs, weights = rng.randn(2, *size, 5).astype('f'), rng.randn(3, 3, 5, 4).astype('f')
    with tf.Graph().as_default() as graph, tf.Session() as session:
      placeholder = tf.placeholder_with_default(inputs, [None, None, None, 5])
      with layers.way(skip_padding=True):
        skipping = layers.convolution(placeholder, tf.constant(weights), 1, rate, 'SAME')
      self.assertEqual([op.type for op in graph.get_operations()].count('MatMul'), 9)
      expected = np.zeros((2, *size, 4))
      padded = np.pad(inputs, [(0, 0), (rate, rate), (rate, rate), (0, 0)])
      for row in range(3):
        for column in range(3):
          seen = padded[:, rate * row:, rate * column:][:, :size[0], :size[1]]
          expected += seen @ weights[row, column]
      self.assertEqual(skipping.shape.as_list(), [None, None, None, 4])
      np.testing.assert_allclose(session.run(skipping), expected, atol=1e-4)

  def test_it_gives_the_convolution(self):
    self._check((17, 23), 6)

  def test_it_gives_the_convolution_where_the_rate_is_beyond_the_features(self):
    self._check((11, 31), 12)
    self._check((5, 3), 18)

  def test_small_rates_strides_and_half_precision_keep_the_kernel(self):
    for dtype, stride, rate in ((tf.float32, 1, 4), (tf.float32, 2, 1), (tf.bfloat16, 1, 12)):
      with tf.Graph().as_default() as graph, layers.way(skip_padding=True):
        layers.convolution(tf.zeros([1, 9, 11, 2], dtype), tf.zeros([3, 3, 2, 2], dtype), stride, rate,
                           'SAME')
        self.assertIn('Conv2D', {op.type for op in graph.get_operations()})


class GradientTest(unittest.TestCase):

  def test_gradients_equal_central_differences(self):
    for layer in _LAYERS:
      for options in (dict(rate=1), dict(rate=2), dict(rate=4), dict(stride=2),
                      dict(stride=2, explicit_padding=False)):
        if layer == 'separable_conv2d' and 'explicit_padding' in options:
          continue  # no network has one
        with self.subTest(layer=layer, **options):
          self.assertLess(largest_gradient_error(layer, **options), 2e-3)

  def test_without_onednn_they_do_too_and_mobilenet_v2_trains(self):
    run_without_onednn("""
      import numpy as np
      import tensorflow.compat.v1 as tf
      import deeplab_model
      from tests import cpu_convolution_test
      for layer in cpu_convolution_test._LAYERS:
        error = cpu_convolution_test.largest_gradient_error(layer, rate=2)
        assert error < 2e-3, (layer, error)
      params = dict(base_architecture='mobilenet_v2_dm05', num_classes=2, class_names='ab', batch_size=2,
                    palette=((0, 0, 0), (9, 9, 9)), max_steps=1, atrous_rates=(6, 12, 18))
      with tf.Graph().as_default(), tf.Session() as session:
        tf.train.get_or_create_global_step()
        images = np.random.RandomState(0).randint(0, 255, (2, 49, 65, 3)).astype('u1')
        spec = deeplab_model.deeplabv3_plus_model_fn(
            tf.constant(images), tf.constant(images[..., :1] // 128), 'train', params)
        session.run(tf.global_variables_initializer())
        losses = [session.run([spec.loss, spec.train_op])[0] for _ in range(2)]
        assert np.isfinite(losses).all() and losses[0] != losses[1], losses
    """)


_NORM = layers.BatchNorm(is_training=False, decay=0.9)  # which is linear
_LAYERS = {
    'conv2d': functools.partial(layers.conv2d, filters=3, kernel_size=3, scope='conv'),
    'depthwise_conv2d': functools.partial(layers.depthwise_conv2d, scope='conv', norm=_NORM),
    'separable_conv2d': functools.partial(layers.separable_conv2d, filters=3, scope='conv', norm=_NORM),
}


def run_without_onednn(code):
  """Runs code in a process of its own; an error there is one here."""
  run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True,
                       env={**os.environ, 'TF_ENABLE_ONEDNN_OPTS': '0'})
  if run.returncode:
    raise AssertionError(run.stderr[-2000:])


def largest_gradient_error(layer, **options):
  """Returns the largest error of a layer's gradients by its input and kernels, relative to the largest."""
  rng = np.random.RandomState(1)
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [1, 7, 8, 2])
    outputs = _LAYERS[layer](images, **options)
    kernels = [v for v in tf.trainable_variables() if v.op.name.endswith('weights')]
    loss = tf.reduce_sum(outputs * tf.constant(rng.randn(*outputs.shape.as_list()), tf.float32))
    gradients = tf.gradients(loss, [images, *kernels])
    session.run(tf.global_variables_initializer())
    point = [rng.randn(*tensor.shape.as_list()).astype('f') for tensor in (images, *kernels)]

    def value(image, *weights):
      for kernel, weight in zip(kernels, weights):
        kernel.load(weight, session)
      return float(session.run(loss, {images: image}))

    value(*point)
    exact = session.run(gradients, {images: point[0]})
    errors = []
    for which in range(len(point)):
      for _ in range(12):
        index = tuple(rng.randint(size) for size in point[which].shape)
        moved = []
        for step in (0.5, -0.5):  # the loss is linear in each, so a large step costs no accuracy
          near = [array.copy() for array in point]
          near[which][index] += step
          moved.append(value(*near))
        errors.append(abs(moved[0] - moved[1] - exact[which][index]) / np.abs(exact[which]).max())
    return max(errors)


if __name__ == '__main__':
  unittest.main()
