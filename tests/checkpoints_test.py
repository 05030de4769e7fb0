"""Finding checkpoints, starting from them, and refusing the wrong ones, on models of a few variables."""
import contextlib
import io
import os
import tempfile
import unittest

import pytest
import tensorflow.compat.v1 as tf

from training import checkpoints, validation
from utils.errors import DataError

pytestmark = [pytest.mark.compat, pytest.mark.slow]

_HEAD = 'decoder/upsampling_logits/conv_1x1/'
SLIM = {'resnet_v2_50/conv1/weights': [2, 3], 'resnet_v2_50/logits/biases': [7], 'global_step': [],
        'mean_rgb': [3]}
MODEL = {'resnet_v2_50/conv1/weights': [2, 3], 'aspp/conv_1x1/weights': [4], _HEAD + 'weights': [1, 1, 5, 21],
         _HEAD + 'biases': [21]}


def make_variables(shapes, value):
  return {name: tf.get_variable(
      name, shape, tf.int64 if name == 'global_step' else tf.float32,
      tf.constant_initializer(int(value) if name == 'global_step' else value), trainable=False)
      for name, shape in shapes.items()}


def save(path, shapes, value=1.0, step=None, version=tf.train.SaverDef.V2):
  """Writes a checkpoint of variables that all hold `value`; returns its prefix."""
  with tf.Graph().as_default(), tf.Session() as session:
    make_variables(shapes, value)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver(write_version=version).save(
        session, path, global_step=step, write_meta_graph=False)


def with_classes(num_classes, shapes=None):
  return {name: shape[:-1] + [num_classes] if name.startswith(_HEAD) else shape
          for name, shape in (shapes or MODEL).items()}


class CheckpointsTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.output = io.StringIO()
    redirect = contextlib.redirect_stdout(self.output)
    redirect.__enter__()
    self.addCleanup(redirect.__exit__, None, None, None)

  def path(self, *names):
    return os.path.join(self.folder, *names)


class ResolveTest(CheckpointsTest):

  def test_every_form_of_a_new_checkpoint_gives_its_prefix(self):
    prefix = save(self.path('slim.ckpt'), SLIM)
    for given in (prefix, prefix + '.index', prefix + '.data-00000-of-00001', self.folder):
      self.assertEqual(checkpoints.resolve(given), prefix)

  def test_single_old_format_file_is_found_by_itself_and_in_its_folder(self):
    written = save(self.path('resnet_v2_50.ckpt'), SLIM, version=tf.train.SaverDef.V1)
    self.assertTrue(os.path.isfile(written))
    os.remove(self.path('checkpoint'))
    for given in (written, self.folder):
      self.assertEqual(checkpoints.resolve(given), written)
    self.assertEqual(checkpoints.shapes(written), SLIM)

  def test_missing_checkpoint_says_what_may_be_given(self):
    with self.assertRaisesRegex(DataError, 'no checkpoint .*nowhere; give a prefix, an .index file'):
      checkpoints.resolve(self.path('nowhere'))

  def test_damaged_checkpoint_is_named(self):
    prefix = save(self.path('a.ckpt'), SLIM)
    with open(prefix + '.index', 'wb') as file:
      file.write(b'not a table')
    with self.assertRaisesRegex(DataError, 'a.ckpt is no readable checkpoint'):
      checkpoints.shapes(prefix)

  def test_folded_batch_norm_has_averages_of_0_and_damage_is_for_others_to_tell(self):
    prefix = save(self.path('a.ckpt'), {'a/moving_mean': [4], 'b/moving_mean': [2]}, value=0)
    self.assertTrue(checkpoints.is_folded(prefix))
    self.assertFalse(checkpoints.is_folded(save(self.path('b.ckpt'), {'a/moving_mean': [4]}, value=1)))
    for name in (prefix + '.data-00000-of-00001', prefix + '.index'):
      with open(name, 'r+b') as file:
        file.write(b'x' * os.path.getsize(name))
      self.assertFalse(checkpoints.is_folded(prefix))


class CheckTest(CheckpointsTest):

  def test_other_backbone_names_both(self):
    prefix = save(self.path('m'), {name.replace('v2_50', 'v2_101'): s for name, s in MODEL.items()})
    with self.assertRaisesRegex(
        DataError, 'holds resnet_v2_101 with 21 classes, but the flags ask for resnet_v2_50 with 21 classes'):
      checkpoints.check(prefix, MODEL)

  def test_other_class_count_names_both(self):
    prefix = save(self.path('m'), with_classes(11))
    with self.assertRaisesRegex(DataError, 'v2_50 with 11 classes, but .*v2_50 with 21 classes'):
      checkpoints.check(prefix, MODEL)

  def test_fitting_checkpoint_with_slots_passes(self):
    prefix = save(self.path('m'), {**MODEL, 'aspp/conv_1x1/weights/Momentum': [4], 'global_step': []})
    checkpoints.check(prefix, MODEL)


class InitializeTest(CheckpointsTest):

  def _initialize(self, prefix, shapes):
    """Returns name -> value of a model of zeros that starts from `prefix`."""
    with tf.Graph().as_default(), tf.Session() as session:
      variables = make_variables(shapes, 0.0)
      checkpoints.initialize(prefix, variables, 'resnet_v2_50')
      session.run(tf.global_variables_initializer())
      return {name: session.run(variable).ravel()[0] for name, variable in variables.items()}

  def test_imagenet_checkpoint_fills_the_backbone_and_reports_the_rest(self):
    for version in (tf.train.SaverDef.V1, tf.train.SaverDef.V2):
      values = self._initialize(save(self.path(f'slim{version}'), SLIM, version=version), MODEL)
      self.assertEqual(values, {'resnet_v2_50/conv1/weights': 1, 'aspp/conv_1x1/weights': 0,
                                _HEAD + 'weights': 0, _HEAD + 'biases': 0})
    report = self.output.getvalue()
    self.assertIn('restored: 1 variables (resnet_v2_50 1)', report)
    self.assertIn('new: 3 variables (aspp 1, decoder 2)', report)
    self.assertIn('unused: 3 variables (global_step 1, mean_rgb 1, resnet_v2_50 1)', report)

  def test_other_class_count_keeps_all_but_the_last_layer(self):
    values = self._initialize(save(self.path('m'), MODEL), with_classes(5))
    self.assertEqual(values, {'resnet_v2_50/conv1/weights': 1, 'aspp/conv_1x1/weights': 1,
                              _HEAD + 'weights': 0, _HEAD + 'biases': 0})

  def test_raw_weights_are_taken_and_told_of_a_best_that_the_averaged_ones_chose(self):
    name = 'resnet_v2_50/conv1/weights'
    prefix = save(self.path('m-5'), {**MODEL, f'{name}/{checkpoints.AVERAGE}': MODEL[name]})
    for weights, told in (('raw', ''), ('ema', ', its raw weights, not the averaged ones')):
      validation.write_best_scores(os.path.dirname(prefix), {'step': 5, 'weights': weights})
      self._initialize(prefix, MODEL)
      self.assertIn(f'pre-trained model {prefix}{told}:\n', self.output.getvalue())

  def test_other_backbone_is_refused_by_name(self):
    prefix = save(self.path('m'), {'resnet_v2_101/conv1/weights': [2, 3]})
    with self.assertRaisesRegex(
        DataError, 'holds resnet_v2_101 without a DeepLab head, but --base_architecture is resnet_v2_50'):
      self._initialize(prefix, MODEL)


class ResumeSaverTest(CheckpointsTest):

  def _resume(self, prefix, shapes):
    with tf.Graph().as_default(), tf.Session() as session:
      variables = make_variables(shapes, 7.0)
      saver = checkpoints.ResumeSaver(prefix)
      tf.get_default_graph().finalize()
      saver.restore(session, prefix)
      return {name: float(session.run(variable).ravel()[0]) for name, variable in variables.items()}

  def test_missing_slots_take_their_initial_value(self):
    prefix = save(self.path('m'), {'a/weights': [2], 'a/weights/Momentum': [2]})
    values = self._resume(
        prefix, {'a/weights': [2], 'a/weights/Momentum': [2], 'a/gamma': [3], 'a/gamma/Momentum': [3]})
    self.assertEqual(values, {'a/weights': 1, 'a/weights/Momentum': 1, 'a/gamma': 7, 'a/gamma/Momentum': 7})
    self.assertIn('2 variables (a 1, optimizer slots 1) are not in it', self.output.getvalue())

  def test_complete_checkpoint_restores_everything(self):
    prefix = save(self.path('m'), {'a/weights': [2]})
    self.assertEqual(self._resume(prefix, {'a/weights': [2]}), {'a/weights': 1})


if __name__ == '__main__':
  unittest.main()
