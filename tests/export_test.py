"""An export is checked before it appears: refused where it is no numbers, and in a folder of any name."""
import contextlib
import io
import os
import tempfile
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import deeplab_model
import export_inference_graph
from cli import export, model_config
from dataset import descriptors
from tests import tiny_net
from utils import checkpoint_store
from utils.architecture import Architecture
from utils.errors import DataError

pytestmark = pytest.mark.compat
TINY = Architecture(tiny_net.LEAN, 2)
TWO = descriptors.from_json({'name': 'two', 'class_names': ['a', 'b']}, 'test')


def write_model(folder, scale=1.):
  """Writes a model folder of new weights, those of the last layer times `scale`."""
  os.mkdir(folder)
  model_config.write(folder, TINY, TWO, {})
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    deeplab_model.network(tf.placeholder(tf.float32, [1, 65, 65, 3]), TINY, is_training=False)
    tf.train.get_or_create_global_step()
    session.run(tf.global_variables_initializer())
    for variable in tf.global_variables():
      if 'logits/conv_1x1/weights' in variable.op.name:
        session.run(variable.assign(variable * scale))
    checkpoint_store.save(tf.train.Saver(), session, folder, step=0, keep_max=0)


class ExportTest(unittest.TestCase):

  def setUp(self):
    stack = contextlib.ExitStack()
    self.addCleanup(stack.close)
    stack.enter_context(tiny_net.rows())
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.model, self.output = os.path.join(folder.name, 'model'), os.path.join(folder.name, 'export')

  def export(self):
    """Exports self.model to self.output; returns what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      export_inference_graph.main(export_inference_graph.make_parser().parse(
          ['--model_dir', self.model, '--export_dir', self.output]))
    return printed.getvalue()

  def test_probabilities_that_are_no_numbers_are_refused_and_leave_nothing(self):
    write_model(self.model, scale=3e38)
    with self.assertRaisesRegex(DataError, 'model.ckpt-0 predicts probabilities that are no finite numbers'):
      self.export()
    self.assertEqual(os.listdir(self.output), [])

  def test_export_that_differs_is_refused_and_leaves_nothing(self):
    write_model(self.model)
    other = [{'probabilities': np.full((65, 97, 2), (0., 1.), np.float32)}]
    with mock.patch('utils.tf_estimator.Estimator.predict', return_value=iter(other)):
      with self.assertRaisesRegex(DataError, r'differs from it by 0\.\d+ .*; nothing was left'):
        self.export()
    self.assertEqual(os.listdir(self.output), [])

  def test_check_is_done_in_true_float32(self):
    write_model(self.model)
    self.addCleanup(tf.config.experimental.enable_tensor_float_32_execution,
                    tf.config.experimental.tensor_float_32_execution_enabled())
    tf.config.experimental.enable_tensor_float_32_execution(True)
    original, seen = deeplab_model.deeplabv3_plus_model_fn, []

    def model_fn(features, labels, mode, params):
      seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
      return original(features, labels, mode, params)

    with mock.patch.object(export, 'deeplabv3_plus_model_fn', model_fn):
      self.export()
    self.assertEqual(seen, [True, False])  # the export, which computes nothing; the check

  def test_folder_whose_name_is_a_pattern_is_written_with_a_note(self):
    write_model(self.model)
    self.output = os.path.join(self.output, "-é it's %s m[lr=0.1]*?\\")
    self.assertIn('cannot load a SavedModel from', self.export())
    number, = os.listdir(self.output)
    self.assertEqual(sorted(os.listdir(os.path.join(self.output, number))), ['saved_model.pb', 'variables'])

  def test_export_loads_and_a_number_that_is_taken_is_not_written_over(self):
    write_model(self.model)
    os.makedirs(os.path.join(self.output, '1234567890'))
    with mock.patch('time.time', return_value=1234567890.):
      self.assertNotIn('Note', self.export())
    self.assertEqual(sorted(os.listdir(self.output)), ['1234567890', '1234567891'])
    with tf.Graph().as_default(), tf.Session() as session:
      signature = tf.saved_model.load(session, ['serve'], os.path.join(self.output, '1234567891'))
      image = signature.signature_def['preds'].inputs['image'].name
      values = session.run(signature.signature_def['preds'].outputs['probabilities'].name,
                           {image: np.zeros((1, 33, 41, 3), np.float32)})
    np.testing.assert_allclose(values.sum(3), 1, rtol=1e-5)


if __name__ == '__main__':
  unittest.main()
