"""The network against the outputs, names and training steps of the original scripts (tests/golden)."""
import contextlib
import io
import json
import os
import tempfile
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

import deeplab_model
from nets import backbones, layers
from nets.architecture import Architecture
from tests import tiny_net
from tests.golden import formula
from tests.support import load_formula, run_unit
from training import checkpoints, metrics, run_config
from training.tf_estimator import ModeKeys
from utils import devices
from utils.errors import UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]
_GOLDEN = os.path.join(os.path.dirname(__file__), 'golden')


def golden_json(name):
  with open(os.path.join(_GOLDEN, name)) as file:
    return json.load(file)


def relative_error(actual, expected):
  return np.abs(actual - expected).max() / np.abs(expected).max()


class NetworkTest(unittest.TestCase):

  def _logits(self, backbone, output_stride, images):
    with tf.Graph().as_default(), tf.Session() as session:
      logits = deeplab_model.network(
          tf.constant(images), Architecture(backbone, 21, output_stride), is_training=False)
      names = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
      load_formula(session)
      return session.run(logits), names

  def _check_golden(self, backbone, output_stride):
    logits, names = self._logits(backbone, output_stride, formula.photo(129, 193, 7)[None])
    self.assertEqual(logits.shape, (1, 129, 193, 21))
    expected = np.load(os.path.join(_GOLDEN, 'seed_logits.npz'))[
        f'{backbone}_os{output_stride}_129x193']
    self.assertLess(relative_error(logits[0, ::8, ::8], expected), 1e-4)
    self.assertEqual(names, golden_json(f'seed_variables_{backbone}.json'))

  def test_resnet_v2_50_stride_16_gives_golden_logits_and_names(self):
    self._check_golden('resnet_v2_50', 16)

  def test_resnet_v2_50_stride_8_gives_golden_logits_and_names(self):
    self._check_golden('resnet_v2_50', 8)

  def test_resnet_v2_101_stride_16_gives_golden_logits_and_names(self):
    self._check_golden('resnet_v2_101', 16)

  def test_unknown_size_gives_the_logits_of_the_known_size(self):
    images = formula.photo(45, 71, 3)[None]
    with tiny_net.rows(), tf.Graph().as_default(), tf.Session() as session:
      placeholder = tf.placeholder(tf.float32, [None, None, None, 3])
      logits = deeplab_model.network(placeholder, Architecture(tiny_net.TINY, 5), False)
      load_formula(session)
      dynamic = session.run(logits, {placeholder: images})
    with tiny_net.rows(), tf.Graph().as_default(), tf.Session() as session:
      logits = deeplab_model.network(tf.constant(images), Architecture(tiny_net.TINY, 5), False)
      load_formula(session)
      static = session.run(logits)
    self.assertEqual(dynamic.shape, (1, 45, 71, 5))
    self.assertLess(relative_error(dynamic, static), 1e-5)


class PreparedWeightsTest(unittest.TestCase):

  def test_they_are_computed_when_the_session_starts_and_then_kept(self):
    with tiny_net.rows(), tf.Graph().as_default(), tf.Session() as session:
      images = tf.placeholder_with_default(formula.photo(33, 49, 7)[None], [1, None, None, 3])
      architecture = Architecture(tiny_net.LEAN, 5, decoder=True)
      for dtype in (tf.float32, tf.bfloat16):
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
          plain = deeplab_model.network(images, architecture, False, dtype=dtype)
          with layers.way(prepare=True):
            prepared = deeplab_model.network(images, architecture, False, dtype=dtype)
        count = len(tf.global_variables())
        load_formula(session)
        session.run(tf.tables_initializer())
        expected = session.run(plain)
        self.assertLess(relative_error(session.run(prepared), expected), 1e-5)
        first, = (v for v in tf.global_variables() if v.op.name == 'lean_net/conv1/weights')
        first.load(0 * first.eval(session), session)
        self.assertLess(relative_error(session.run(prepared), expected), 1e-5)
        self.assertGreater(relative_error(session.run(plain), expected), 1e-2)
      self.assertEqual(len(tf.global_variables()), count)


class PortableTest(unittest.TestCase):

  def test_only_what_is_trained_bears_marks_of_our_gradients(self):
    params = dict(base_architecture='mobilenet_v2_dm05', num_classes=2, class_names='ab', batch_size=1,
                  palette=[(0, 0, 0)] * 2, max_steps=1)
    for mode, portable, marked in (('train', False, True), ('infer', False, False), ('infer', True, False)):
      with tf.Graph().as_default() as graph:
        tf.train.get_or_create_global_step()
        images = tf.zeros([1, 33, 49, 3], tf.uint8)
        deeplab_model.deeplabv3_plus_model_fn(
            images, images[..., :1] if mode == 'train' else None, mode, {**params, 'portable': portable})
        found = any('Conv2DByProducts' in str(op.node_def) for op in graph.get_operations())
        self.assertEqual(found, marked, (mode, portable))

  def test_an_exported_graph_has_the_kernels_that_other_devices_know(self):
    def convolutions(**options):
      params = dict(base_architecture=tiny_net.TINY, num_classes=2, class_names='ab',
                    palette=((0, 0, 0), (9, 9, 9)), **options)
      with tiny_net.rows(), tf.Graph().as_default() as graph:
        deeplab_model.deeplabv3_plus_model_fn(tf.zeros([1, 33, 49, 3]), None, ModeKeys.PREDICT, params)
        return [op.type for op in graph.get_operations()].count('Conv2D')

    self.assertEqual(convolutions(portable=True) - convolutions(), 3)  # the atrous ones of the ASPP


class DataFormatTest(unittest.TestCase):
  """Channels first, on a CPU whose graph optimiser puts the channels last around every kernel."""

  def _run(self, data_format, backbone, is_training, recompute=False, **options):
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
    with tiny_net.rows(), tf.Graph().as_default(), tf.Session(config=config) as session:
      with layers.way(recompute=recompute):
        logits = deeplab_model.network(
            tf.placeholder_with_default(formula.photo(33, 49, 7)[None], [1, None, None, 3]),
            Architecture(backbone, 5, **options), is_training, data_format=data_format)
      names = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
      weights = [v for v in tf.trainable_variables() if v.op.name.endswith('weights')]
      gradients = tf.gradients(tf.reduce_sum(tf.square(logits)), weights[::4])
      load_formula(session)
      return names, session.run([logits, *gradients] if is_training else [logits])

  def _check_equal(self, *args, **options):
    names, last = self._run('channels_last', *args, **options)
    names_first, first = self._run('channels_first', *args, **options)
    self.assertEqual(names_first, names)
    for expected, found in zip(last, first, strict=True):
      self.assertEqual(found.shape, expected.shape)
      self.assertLess(relative_error(found, expected), 1e-4)

  def test_training_gives_the_same_logits_and_gradients(self):
    self._check_equal(tiny_net.TINY, True, recompute=True)

  def test_predictions_are_the_same(self):
    self._check_equal('mobilenet_v2_dm05', False, decoder=True, output_stride=8,
                      eval_crop_size=(65, 65))

  def test_cpu_refuses_channels_first_with_a_sentence(self):
    with self.assertRaisesRegex(UsageError, '--data_format channels_first needs a GPU'):
      run_config.compute_params('fp32', 'channels_first', training=True)
    self.assertEqual(run_config.compute_params('bf16', None, training=True),
                     {'precision': 'bf16', 'data_format': 'channels_last'})

  def test_gpu_gets_what_suits_the_precision(self):
    for precision, training, expected in (
        ('fp32', True, 'channels_first'), ('fp32', False, 'channels_last'), ('fp16', True, 'channels_last'),
        ('bf16', True, 'channels_last'), ('fp16', False, 'channels_last')):
      with (self.subTest((precision, training)),
            mock.patch.object(devices, 'taken', return_value=['a GPU'])):
        params = run_config.compute_params(precision, None, training)
        self.assertEqual(params, {'precision': precision, 'data_format': expected})
        for given in ('channels_last', 'channels_first'):
          self.assertEqual(run_config.compute_params(precision, given, training)['data_format'], given)


def variables(backbone=tiny_net.LEAN, **options):
  """Returns name -> shape of the variables of a model of 5 classes."""
  with tiny_net.rows(), tf.Graph().as_default():
    architecture = Architecture(backbone, 5, **options)
    logits = deeplab_model.network(tf.zeros([1, 45, 71, 3]), architecture, False)
    assert logits.shape.as_list() == [1, 45, 71, 5]
    return {v.op.name: v.shape.as_list() for v in tf.global_variables()}


_PROJECTION = 'aspp/conv_1x1_concat/weights'
_CONV = 'decoder/upsampling_logits/conv_3x3_'


class HeadTest(unittest.TestCase):
  """What each of the head's options does to the variables, seen on the tiny network: 8 to 20 channels."""

  def test_published_mobilenet_v2_has_two_branches_and_no_decoder(self):
    names = variables('mobilenet_v2')
    self.assertEqual(names[_PROJECTION], [1, 1, 512, 256])
    self.assertEqual(names['upsampling_logits/conv_1x1/weights'], [1, 1, 256, 5])
    self.assertFalse([name for name in names if name.startswith('decoder')])

  def test_rates_and_image_level_feature_make_the_branches(self):
    names = variables(atrous_rates=(6, 12, 18), image_level_feature=False)
    self.assertEqual(names[_PROJECTION], [1, 1, 4 * 256, 256])
    self.assertEqual(names['aspp/conv_3x3_3_depthwise/depthwise_weights'], [3, 3, 20, 1])
    self.assertEqual(names['aspp/conv_3x3_3_pointwise/weights'], [1, 1, 20, 256])
    self.assertFalse([name for name in names if 'image_level' in name])

  def test_full_convolutions_in_place_of_separable_ones(self):
    names = variables(atrous_rates=(6, 12, 18), decoder=True, separable_head=False)
    self.assertEqual(names['aspp/conv_3x3_2/weights'], [3, 3, 20, 256])
    self.assertEqual(names[_CONV + '1/weights'], [3, 3, 304, 256])
    self.assertFalse([name for name in names if name.startswith(('aspp', 'decoder')) and 'wise' in name])

  def test_decoder_of_the_paper(self):
    names = variables(decoder=True)
    self.assertEqual(names['decoder/low_level_features/conv_1x1/weights'], [1, 1, 8, 48])
    self.assertEqual(names[_CONV + '1_depthwise/depthwise_weights'], [3, 3, 304, 1])
    self.assertEqual(names[_CONV + '2_pointwise/weights'], [1, 1, 256, 256])
    self.assertEqual(names['decoder/upsampling_logits/conv_1x1/weights'], [1, 1, 256, 5])
    self.assertNotIn(_CONV + '3_pointwise/weights', names)

  def test_decoder_with_other_widths_and_depth(self):
    names = variables(decoder=True, separable_head=False, decoder_channels=16, decoder_convs=3,
                      decoder_filters=128)
    self.assertEqual(names['decoder/low_level_features/conv_1x1/weights'], [1, 1, 8, 16])
    self.assertEqual(names[_CONV + '1/weights'], [3, 3, 272, 128])
    self.assertEqual(names[_CONV + '3/weights'], [3, 3, 128, 128])
    self.assertEqual(names['decoder/upsampling_logits/conv_1x1/weights'], [1, 1, 128, 5])

  def test_decoder_of_1x1_convolutions_is_never_separable(self):
    names = variables(decoder=True, decoder_kernel=1, decoder_convs=1)
    self.assertEqual(names['decoder/upsampling_logits/conv_1x1_1/weights'], [1, 1, 304, 256])
    self.assertFalse([name for name in names if name.startswith('decoder') and 'wise' in name])

  def test_decoder_in_two_stages(self):
    names = variables(decoder=True, separable_head=False, decoder_output_stride=(8, 4), decoder_convs=1)
    self.assertEqual(names['decoder/low_level_features/conv_1x1/weights'], [1, 1, 12, 48])
    self.assertEqual(names['decoder/low_level_features_2/conv_1x1/weights'], [1, 1, 8, 48])
    self.assertEqual(names[_CONV + '1/weights'], [3, 3, 304, 256])
    self.assertEqual(names['decoder/upsampling_logits_2/conv_3x3_1/weights'], [3, 3, 304, 256])
    self.assertEqual(names['decoder/upsampling_logits/conv_1x1/weights'], [1, 1, 256, 5])

  def test_output_stride_32_halves_the_rates(self):
    row = backbones.get('xception_65')
    for output_stride, rates in ((8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))):
      architecture = deeplab_model.resolved(Architecture('xception_65', 5, output_stride), row)
      self.assertEqual(architecture.atrous_rates, rates)
    self.assertEqual(variables(output_stride=32, atrous_rates=(3, 6, 9), decoder=True),
                     variables(output_stride=16, atrous_rates=(6, 12, 18), decoder=True))

  def test_multi_grid_changes_features_but_no_variable(self):
    images, results = formula.photo(97, 129, 3)[None], []
    for grid in ((1, 1, 1), (1, 2, 4)):
      architecture = Architecture('resnet_v2_50', 5, decoder=False, atrous_rates=(), multi_grid=grid)
      with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        logits = deeplab_model.network(tf.constant(images), architecture, False)
        names = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
        session.run(tf.global_variables_initializer())
        results.append((names, session.run(logits)))
    self.assertEqual(results[0][0], results[1][0])
    self.assertGreater(relative_error(results[0][1], results[1][1]), 1e-3)


def make_params(**changes):
  params = {'base_architecture': 'resnet_v2_50', 'num_classes': 21, 'batch_size': 2, 'max_steps': 4,
            'class_names': [f'c{k}' for k in range(21)], 'palette': [(k, 2 * k, 3 * k) for k in range(21)]}
  return {**params, **changes}


def golden_batch():
  images = np.stack([formula.photo(97, 97, seed) for seed in (1, 2)])
  labels = np.random.RandomState(3).randint(0, 21, (2, 13, 13, 1))
  labels = labels.repeat(8, 1).repeat(8, 2)[:, :97, :97]
  labels[0, :9] = 255
  labels[1, :, :5] = 255
  return images, labels.astype(np.uint8)


class TrainingTest(unittest.TestCase):

  def test_four_steps_equal_the_golden_ones(self):
    golden = golden_json('seed_train_resnet_v2_50_poly.json')
    images, labels = golden_batch()
    with tf.Graph().as_default(), tf.Session() as session:
      tf.train.get_or_create_global_step()
      spec = deeplab_model.deeplabv3_plus_model_fn(
          tf.constant(images), tf.constant(labels), ModeKeys.TRAIN, make_params(batch_norm_decay=0.9997))
      session.run(tf.global_variables_initializer())
      load_formula(session)
      scalars = spec.training_chief_hooks[0]._scalars
      for expected, tolerance in zip(golden['steps'], (1e-5, 1e-4, 2e-3, 2e-2)):
        values, _ = session.run([scalars, spec.train_op])
        for name in ('loss', 'cross_entropy'):
          self.assertLess(abs(values[name] / expected[name] - 1), tolerance, name)
        self.assertLess(abs(values['learning_rate'] / expected['learning_rate'] - 1), 1e-6)
      self.assertEqual(session.run(tf.train.get_global_step()), 4)
      values = session.run({v.op.name: v for v in tf.global_variables()})
    self.assertEqual(sorted(n for n in values if n != 'global_step'),
                     sorted(n for n in golden['train_variables'] if n != 'global_step'))
    for name, norm in golden['norms'].items():
      if name != 'global_step':
        self.assertLess(abs(np.linalg.norm(values[name]) - norm), 1e-3 * norm, name)

  def test_frozen_batch_norm_changes_neither_averages_nor_gamma_and_beta(self):
    images, labels = golden_batch()
    with tiny_net.rows(), tf.Graph().as_default(), tf.Session() as session:
      tf.train.get_or_create_global_step()
      spec = deeplab_model.deeplabv3_plus_model_fn(
          tf.constant(images[:, :33, :49]), tf.constant(labels[:, :33, :49]), ModeKeys.TRAIN,
          make_params(base_architecture=tiny_net.TINY, freeze_batch_norm=True))
      session.run(tf.global_variables_initializer())
      load_formula(session)
      session.run(spec.train_op)
      for variable in tf.global_variables():
        name = variable.op.name
        leaf = name.split('/')[-1]
        if leaf in ('gamma', 'beta', 'moving_mean', 'moving_variance'):
          np.testing.assert_array_equal(
              session.run(variable), formula.fill(name, variable.shape.as_list()), name)
        elif leaf in ('weights', 'biases') and 'logits/conv_1x1' in name:
          self.assertGreater(np.abs(session.run(variable)
                                    - formula.fill(name, variable.shape.as_list())).max(), 0, name)

  def spec(self, mode=ModeKeys.TRAIN, **params):
    """Returns the EstimatorSpec for a batch of a tiny network, in the default graph, with weights by name."""
    images, labels = golden_batch()
    tf.train.get_or_create_global_step()
    with tiny_net.rows():
      return deeplab_model.deeplabv3_plus_model_fn(
          tf.constant(images[:, :33, :49]), tf.constant(labels[:, :33, :49]), mode,
          make_params(base_architecture=tiny_net.TINY, **params))

  def test_auxiliary_heads_loss_is_added_in_training_which_goes_on_with_and_without_it(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    found, prefix, printed = [], None, io.StringIO()
    for weight in (0.4, 0., 0.4):
      with tf.Graph().as_default(), tf.Session() as session, contextlib.redirect_stdout(printed):
        hook = self.spec(auxiliary_head=weight).training_chief_hooks[0]
        saver = checkpoints.ResumeSaver(prefix)
        if prefix:
          saver.restore(session, prefix)
        else:
          session.run(tf.global_variables_initializer())
          load_formula(session)
        scalars, values = session.run([hook._scalars, tf.trainable_variables()])
        prefix = saver.save(session, f'{folder.name}/model', len(found))
        found.append((scalars, 2e-4 * sum((value.astype('d') ** 2).sum() / 2 for value in values)))
    (plain, decay), heads = found[1], (found[0], found[2])
    self.assertAlmostEqual(plain['loss'], plain['cross_entropy'] + decay, places=4)
    for both, decay in heads:
      self.assertEqual(set(both) - set(plain), {'auxiliary_loss'})
      self.assertEqual(both['cross_entropy'], plain['cross_entropy'])
      self.assertAlmostEqual(
          both['loss'], plain['cross_entropy'] + 0.4 * both['auxiliary_loss'] + decay, places=4)
      self.assertGreater(both['auxiliary_loss'], 1)
    self.assertRegex(printed.getvalue(),
                     r'^.*model-1: 12 variables \(auxiliary 7, optimizer slots 5\) are not in it .*\n$')

  def test_what_is_shown_of_a_step_is_of_all_its_batches(self):
    images, labels = golden_batch()
    batches = [np.stack([array[:1, :33, :49], array[:1, 33:66, :49], array[1:, :33, :49]])
               for array in (images, labels)]

    def shown(accumulate_steps):
      """Returns what is shown after each step, of rate 0, and the curves and confusion matrices."""
      matrices = []

      def kept(*args):
        matrices.append(confusion_matrix(*args))
        return matrices[0]

      confusion_matrix = metrics.confusion_matrix
      with (tiny_net.rows(), tf.Graph().as_default(), mock.patch.object(metrics, 'confusion_matrix', kept)):
        tf.train.get_or_create_global_step()
        data = tf.data.Dataset.from_tensor_slices(tuple(batches))
        spec = deeplab_model.deeplabv3_plus_model_fn(
            *tf.data.make_one_shot_iterator(data).get_next(), ModeKeys.TRAIN, make_params(
                base_architecture=tiny_net.TINY, loss='cross_entropy,dice', auxiliary_head=0.4,
                initial_learning_rate=0., end_learning_rate=0., accumulate_steps=accumulate_steps))
        fetches = [spec.training_chief_hooks[0]._scalars, spec.loss, tf.summary.merge_all(), *matrices,
                   spec.train_op]
        with tf.train.MonitoredSession(hooks=spec.training_hooks) as session:
          load_formula(session._tf_sess())
          return [session.run(fetches)[:4] for _ in range(3 // accumulate_steps)]

    (line, loss, curves, _), = shown(3)
    single = shown(1)
    matrix = sum(found[3] for found in single).astype('d')
    for name in ('loss', 'cross_entropy', 'dice', 'auxiliary_loss'):
      values = [found[0][name] for found in single]
      self.assertGreater(np.ptp(values), 1e-3 * np.mean(values), name)
      self.assertAlmostEqual(line[name], np.mean(values, dtype='d'), places=5, msg=name)
    self.assertEqual(loss, line['loss'])
    hits = np.diag(matrix)
    iou = hits / np.maximum(matrix.sum(0) + matrix.sum(1) - hits, 1)
    accuracy, mean_iou = hits.sum() / matrix.sum(), iou[matrix.sum(0) + matrix.sum(1) > 0].mean()
    self.assertAlmostEqual(line['train_px_accuracy'], accuracy)
    self.assertAlmostEqual(line['train_mean_iou'], mean_iou)
    curves = {value.tag: value.simple_value for value in tf.Summary.FromString(curves).value}
    for name, value in ('dice', line['dice']), ('mean_iou', mean_iou), ('iou/c3', iou[3]):
      self.assertAlmostEqual(curves[name], value, places=6, msg=name)

  def test_evaluation_and_prediction_have_no_auxiliary_head(self):
    for mode in (ModeKeys.EVAL, ModeKeys.PREDICT):
      with tf.Graph().as_default() as graph:
        self.spec(mode, auxiliary_head=0.4)
        self.assertFalse([op.name for op in graph.get_operations() if op.name.startswith('auxiliary')])


class AuxiliaryHeadTest(unittest.TestCase):
  architecture = Architecture(tiny_net.TINY, 3)

  def test_it_is_a_3x3_convolution_and_a_classifier(self):
    inputs = np.random.RandomState(0).randn(1, 3, 5, 2)
    weights, beta = (np.random.RandomState(seed).randn(*shape) for seed, shape in
                     ((1, (3, 3, 2, 256)), (2, (256,))))
    classifier, biases = np.random.RandomState(3).randn(1, 1, 256, 3), [1., -2, 5]
    found = run_unit(lambda features, norm: deeplab_model.auxiliary_head(
        features, self.architecture, norm, (0, 0)), inputs, conv_3x3__weights=weights,
        conv_3x3__BatchNorm__beta=beta, conv_1x1__weights=classifier, conv_1x1__biases=biases)
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    net = sum(padded[:, y:y + 3, x:x + 5] @ weights[y, x] for y in range(3) for x in range(3))
    expected = np.maximum(net / np.sqrt(1 + 1.001e-5) + beta, 0) @ classifier[0, 0] + biases
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

  def test_dropout_is_its_own(self):
    calls = []

    def keep(features, rate, seed):
      calls.append((rate, seed))
      return features

    row = backbones.get('xception_65')
    with tf.Graph().as_default(), tf.Session() as session, mock.patch.object(deeplab_model, '_dropout', keep):
      norm, features = layers.BatchNorm(True, 0.9), tf.zeros([1, 3, 5, 2])
      given = tf.constant([7, 30], tf.int64)
      deeplab_model.aspp(features, deeplab_model.resolved(self.architecture, row), norm, row, given)
      deeplab_model.auxiliary_head(features, self.architecture, norm, given)
      self.assertEqual([rate for rate, _ in calls], [0.1, 0.1])
      seeds = session.run([seed for _, seed in calls])
    self.assertEqual([list(seed) for seed in seeds], [[7, 30], [7 + 2**32, 30]])


if __name__ == '__main__':
  unittest.main()
