"""Layers against numbers worked out by hand."""
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from nets import layers
from tests import support

pytestmark = [pytest.mark.compat, pytest.mark.slow]


class AtrousStridesTest(unittest.TestCase):

  def test_strides_beyond_the_output_stride_become_rates(self):
    strides = layers.AtrousStrides(8)
    self.assertEqual([strides(s) for s in (2, 1, 2, 2, 2, 1, 2, 1)],
                     [(2, 1), (1, 1), (2, 1), (2, 1), (1, 1), (1, 2), (1, 2), (1, 4)])


class Conv2dTest(unittest.TestCase):

  def _conv(self, inputs, kernel_size, **options):
    with tf.Graph().as_default(), tf.Session() as session:
      outputs = layers.conv2d(tf.constant(inputs), 1, kernel_size, 'conv', **options)
      session.run(tf.global_variables_initializer())
      weights = tf.trainable_variables()[0]
      weights.load(np.arange(1, 1 + kernel_size**2, dtype='f').reshape(weights.shape), session)
      return session.run(outputs)[0, :, :, 0]

  def test_strided_convolution_of_an_even_size_pads_both_sides(self):
    inputs = np.arange(16, dtype='f').reshape(1, 4, 4, 1)
    # One row and column of padding come first: 5*0 + 6*1 + 8*4 + 9*5 = 83 in the corner.
    np.testing.assert_array_equal(self._conv(inputs, 3, stride=2), [[83, 178], [330, 528]])

  def test_atrous_convolution_reads_at_the_rate(self):
    inputs = np.zeros((1, 5, 7, 1), 'f')
    inputs[0, 2, 3, 0] = 1
    expected = np.zeros((5, 7))
    expected[0, 1], expected[0, 3], expected[0, 5] = 9, 8, 7
    expected[2, 1], expected[2, 3], expected[2, 5] = 6, 5, 4
    expected[4, 1], expected[4, 3], expected[4, 5] = 3, 2, 1
    np.testing.assert_allclose(self._conv(inputs, 3, rate=2), expected, atol=1e-5)


class BatchNormTest(unittest.TestCase):

  def test_training_normalises_and_moves_the_averages(self):
    inputs = np.array([0, 2, 4, 6], 'f').reshape(1, 2, 2, 1)  # mean 3, variance 5, unbiased 20/3
    with tf.Graph().as_default(), tf.Session() as session:
      outputs = layers.batch_norm(tf.constant(inputs), layers.BatchNorm(True, decay=0.75))
      updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
      session.run(tf.global_variables_initializer())
      result, _ = session.run([outputs, updates])
      values = {v.op.name: session.run(v)[0] for v in tf.global_variables()}
    np.testing.assert_allclose(result.ravel(), np.array([-3, -1, 1, 3]) / np.sqrt(5 + 1.001e-5), rtol=1e-5)
    self.assertAlmostEqual(values['BatchNorm/moving_mean'], 0.75, places=5)
    self.assertAlmostEqual(values['BatchNorm/moving_variance'], 0.75 + 0.25 * 20 / 3, places=5)

  def one_value(self, dtype=tf.float32, static=True):
    """Returns what batch norm makes of one value a channel, what the kernel does, and the operations used."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
      inputs = tf.placeholder_with_default(tf.cast(np.reshape([1.5, -2, 1e3], [1, 1, 1, 3]), dtype),
                                           [1, 1, 1, 3] if static else [None, None, None, 3])
      outputs = layers.batch_norm(inputs, layers.BatchNorm(True, decay=0.75))
      kinds = {op.type for op in graph.get_operations()}
      gamma, beta = (tf.global_variables(f'BatchNorm/{name}')[0] for name in ('gamma', 'beta'))
      fused, *_ = tf.nn.fused_batch_norm(inputs, gamma, beta, epsilon=1.001e-5)
      ours, kernels = ([value, *tf.gradients(tf.cast(value, tf.float32) * [1., 2, 3], [inputs, gamma, beta])]
                       for value in (outputs, fused))
      session.run(tf.global_variables_initializer())
      gamma.load([3, 4, 5], session)
      beta.load([.5, -.25, 7], session)
      ours, kernels, _ = session.run([ours, kernels, tf.get_collection(tf.GraphKeys.UPDATE_OPS)])
      ours += session.run(tf.global_variables('BatchNorm/moving'))
    return *([np.asarray(value, np.float32).ravel() for value in values] for values in (ours, kernels)), kinds

  def check_one_value(self, found):
    outputs, of_inputs, of_gamma, of_beta, mean, variance = found
    np.testing.assert_array_equal(outputs, [.5, -.25, 7])
    np.testing.assert_array_equal([of_inputs, of_gamma, of_beta], [[0] * 3, [0] * 3, [1, 2, 3]])
    np.testing.assert_array_equal(mean, [.375, -.5, 250])  # from 0
    np.testing.assert_array_equal(variance, [.75] * 3)  # from 1

  def test_one_value_is_normalised_without_the_fused_kernel_to_what_it_gives_on_cpus(self):
    for dtype in (tf.float32, tf.float16, tf.bfloat16):
      found, kernels, kinds = self.one_value(dtype)
      self.check_one_value(found)
      np.testing.assert_array_equal(found[:4], kernels)
      self.assertEqual([kind for kind in kinds if 'FusedBatchNorm' in kind], [])

  def test_one_value_of_a_shape_known_later_leaves_no_variance_to_the_kernel(self):
    found, _, kinds = self.one_value(static=False)
    self.check_one_value(found)
    self.assertIn('Select', ' '.join(kinds))

  def test_one_value_with_channels_first(self):
    with tf.Graph().as_default() as graph, tf.Session() as session, layers.way(channels_first=True):
      outputs = layers.batch_norm(tf.constant([1.5, -2, 1e3], shape=[1, 3, 1, 1]),
                                  layers.BatchNorm(True, decay=0.75))
      session.run(tf.global_variables_initializer())
      tf.global_variables('BatchNorm/beta')[0].load([.5, -.25, 7], session)
      result, _ = session.run([outputs, tf.get_collection(tf.GraphKeys.UPDATE_OPS)])
      averages = session.run(tf.global_variables('BatchNorm/moving'))
    np.testing.assert_array_equal(result, np.reshape([.5, -.25, 7], (1, 3, 1, 1)))
    np.testing.assert_array_equal(averages, [[.375, -.5, 250], [.75] * 3])
    self.assertFalse([op for op in graph.get_operations() if 'FusedBatchNorm' in op.type])

  def test_one_value_in_each_of_two_replicas(self):
    code = """
      import numpy as np
      from nets import layers
      strategy = two_replicas()
      for sync, outputs, mean, variance in ((True, [-1, 1], 2, 2), (False, [0, 0], 1, 0)):
        def normalised():
          which = tf.distribute.get_replica_context().replica_id_in_sync_group
          inputs = tf.reshape(1 + 2 * tf.cast(which, tf.float32), [1, 1, 1, 1])  # 1 and 3
          return layers.batch_norm(inputs, layers.BatchNorm(True, 0.75, sync=sync))
        with tf.Graph().as_default() as graph, strategy.scope(), tf.Session() as session:
          results = strategy.experimental_local_results(strategy.extended.call_for_each_replica(normalised))
          assert not [op for op in graph.get_operations()
                      if 'FusedBatchNorm' in op.type and op.get_attr('is_training')]
          session.run(tf.global_variables_initializer())
          found, _ = session.run([results, tf.get_collection(tf.GraphKeys.UPDATE_OPS)])
          np.testing.assert_allclose(np.ravel(found), outputs, atol=1e-5)
          averages = session.run(tf.global_variables('BatchNorm/moving'))
          np.testing.assert_allclose(averages, [[0.25 * mean], [0.75 + 0.25 * variance]], rtol=1e-6)
    """
    support.run_on_two_cpus(code)

  def test_two_replicas_normalise_by_the_statistics_of_both(self):
    code = """
      import numpy as np
      from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
      from nets import layers
      rng = np.random.RandomState(0)
      # Two channels lie 100 and 1,000 deviations from 0, where squares lose digits.
      inputs = (rng.randn(4, 3, 5, 4) * [1, 1e-3, 30, 1] + [0, 0.1, -20, 1000]).astype('f')
      upstream = rng.randn(4, 3, 5, 4).astype('f')
      start = {'gamma': [3, 4, .5, 1], 'beta': [.5, -1, 7, 0], 'moving_mean': [0, .1, -2, 0],
               'moving_variance': [1, 2, 3, 1]}
      config = tf.ConfigProto(device_count={'CPU': 2})  # and CPUs are to compute what has channels first
      config.graph_options.rewrite_options.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC

      @layers.recomputable
      def inner(inputs):
        return layers.batch_norm(inputs, layers.BatchNorm(True, 0.75))

      @layers.recomputable
      def part(inputs):
        return inner(inputs)

      def computed(inputs, upstream, **way):
        with layers.way(**way):
          outputs = layers.from_features(part(layers.to_features(inputs)))
          with tf.variable_scope('BatchNorm', reuse=True):
            variables = [tf.get_variable(name, [4]) for name in ('gamma', 'beta')]
          gradients = tf.gradients(outputs, [inputs, *variables], upstream)
        kinds = [op.type for op in tf.get_default_graph().get_operations()]
        # To features and back, in each direction, and in each replica.
        assert kinds.count('Transpose') <= 8 * way.get('channels_first', False), kinds
        return [outputs, *gradients]

      def run(fetches):
        setting = [tf.global_variables('BatchNorm/' + name)[0].assign(np.array(value, 'f'))
                   for name, value in start.items()]
        with tf.Session(config=config) as session:
          session.run(tf.global_variables_initializer())
          session.run(setting)
          fetched, _ = session.run([fetches, tf.get_collection(tf.GraphKeys.UPDATE_OPS)])
          return fetched, session.run(tf.global_variables('BatchNorm/moving'))

      with tf.Graph().as_default():
        whole, averages = run(computed(tf.constant(inputs), upstream))
      for way in ({}, {'recompute': True}, {'channels_first': True}):
        strategy = two_replicas()
        def replica():
          number = tf.distribute.get_replica_context().replica_id_in_sync_group
          mine = [tf.gather(values.reshape(2, 2, 3, 5, 4), number) for values in (inputs, upstream)]
          return computed(*mine, **way)
        with tf.Graph().as_default() as graph, strategy.scope():
          results = map(strategy.experimental_local_results, strategy.extended.call_for_each_replica(replica))
          found, found_averages = run([list(result) for result in results])
        outputs, of_inputs = map(np.concatenate, found[:2])
        of_variables = [sum(parts) for parts in found[2:]]
        for value, expected in zip([outputs, of_inputs, *of_variables], whole, strict=True):
          scale = np.abs(expected).max(axis=tuple(range(expected.ndim - 1)))
          error = np.abs((value - expected) / scale).max(axis=tuple(range(expected.ndim - 1)))
          assert (error < [2e-6, 1e-5, 2e-6, 1e-4]).all(), error
        np.testing.assert_allclose(found_averages, averages, rtol=1e-5)
    """
    support.run_on_two_cpus(code)

  def test_inference_uses_the_averages_and_updates_nothing(self):
    inputs = np.array([0, 2, 4, 6], 'f').reshape(1, 2, 2, 1)
    with tf.Graph().as_default(), tf.Session() as session:
      outputs = layers.batch_norm(tf.constant(inputs), layers.BatchNorm(False, decay=0.75))
      self.assertEqual(tf.get_collection(tf.GraphKeys.UPDATE_OPS), [])
      session.run(tf.global_variables_initializer())
      np.testing.assert_allclose(session.run(outputs), inputs, rtol=1e-5)


if __name__ == '__main__':
  unittest.main()
