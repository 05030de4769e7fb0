"""An export is checked before it appears: refused where it is no numbers, and in a folder of any name."""
import concurrent.futures
import contextlib
import importlib
import io
import os
import tempfile
import types
import unittest
from unittest import mock

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

import deeplab_model
import export_inference_graph
from commands import export, export_check, export_formats, export_runner, model_config
from dataset import descriptors
from nets.architecture import Architecture
from tests import tiny_net
from training import checkpoint_store
from utils.errors import DataError, UsageError

pytestmark = pytest.mark.compat
TINY = Architecture(tiny_net.LEAN, 2)
FRESH = export_check.fresh
TWO = descriptors.from_json({'name': 'two', 'class_names': ['a', 'b']}, 'test')


def write_model(folder, scale=1., architecture=TINY):
  """Writes a model folder of new weights, those of the last layer times `scale`."""
  os.mkdir(folder)
  model_config.write(folder, architecture, TWO, {})
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    deeplab_model.network(tf.placeholder(tf.float32, [1, 65, 65, 3]), architecture, is_training=False)
    tf.train.get_or_create_global_step()
    session.run(tf.global_variables_initializer())
    for variable in tf.global_variables():
      if 'logits/conv_1x1/weights' in variable.op.name:
        session.run(variable.assign(variable * scale))
    checkpoint_store.save(tf.train.Saver(), session, folder, step=0, keep_max=0)


@contextlib.contextmanager
def here(runtime, path, what):
  """Stands in for export_check.fresh: the same program in this process, which need not load TensorFlow."""
  module, loaded = export_runner.RUNTIMES[runtime]
  predict = loaded(importlib.import_module(module), path)
  # A thread of its own is not in the graph of the Estimator that is predicting.
  with concurrent.futures.ThreadPoolExecutor(1) as thread:
    yield types.SimpleNamespace(predict=lambda inputs, signature='serving_default': thread.submit(
        predict, inputs, signature).result())


def run(*argv):
  """Exports by these flags; returns what was printed."""
  with contextlib.redirect_stdout(io.StringIO()) as printed:
    export_inference_graph.main(export_inference_graph.make_parser().parse(list(map(str, argv))))
  return printed.getvalue()


def file_of(image, kind, **options):
  """Returns the bytes of a PIL image's file."""
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


class ExportTest(unittest.TestCase):

  def setUp(self):
    stack = contextlib.ExitStack()
    self.addCleanup(stack.close)
    stack.enter_context(tiny_net.rows())
    stack.enter_context(mock.patch.object(export_check, 'fresh', here))
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.model, self.output = os.path.join(folder.name, 'model'), os.path.join(folder.name, 'export')

  def export(self):
    """Exports self.model to self.output; returns what was printed."""
    return run('--model_dir', self.model, '--export_dir', self.output)

  def test_probabilities_that_are_no_numbers_are_refused_and_leave_nothing(self):
    write_model(self.model, scale=3e38)
    with self.assertRaisesRegex(DataError, 'model.ckpt-0 predicts probabilities that are no finite numbers'):
      self.export()
    self.assertEqual(os.listdir(self.output), [])

  def test_export_that_differs_is_refused_and_leaves_nothing(self):
    write_model(self.model)
    other = [{'probabilities': np.full((129, 193, 2), (0., 1.), np.float32),
              'classes': np.ones((129, 193, 1), np.int32)}]
    with mock.patch('training.tf_estimator.Estimator.predict', return_value=iter(other)):
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
    real = mock.patch.object(export_check, 'fresh', FRESH)  # in a process of its own
    real.start()
    self.addCleanup(real.stop)
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


class FormatsTest(unittest.TestCase):
  """One model, with atrous convolutions and padding to a size, in every format."""

  @classmethod
  def setUpClass(cls):
    stack = contextlib.ExitStack()
    cls.addClassCleanup(stack.close)
    stack.enter_context(tiny_net.rows())
    stack.enter_context(mock.patch.object(export_check, 'fresh', here))
    cls.folder = stack.enter_context(tempfile.TemporaryDirectory())
    cls.model = os.path.join(cls.folder, 'model')
    # Logits differ by so much that rounding to 8 bits changes but few classes.
    write_model(cls.model, 30, Architecture(tiny_net.TINY, 2, eval_crop_size=(80, 112)))

  def export(self, *argv):
    """Returns what was printed, and the path of the folder."""
    printed = run('--model_dir', self.model, '--export_dir', os.path.join(self.folder, self._testMethodName),
                  *argv)
    return printed, printed.splitlines()[-1].partition(': exported')[0]

  def test_float_formats_have_the_classes_of_the_model(self):
    printed, path = self.export('--format', 'tflite', '--size', 65, 97)
    self.assertRegex(printed, r'model.tflite: \d+\.\d\d MB\n.*100.00% of 12,610 pixels in 2 picture')
    self.assertRegex(os.path.basename(path), r'^tflite-\d+$')
    self.assertEqual(os.listdir(path), ['model.tflite'])

  def test_calibrated_model_is_of_integers(self):
    photo = os.path.join(self.folder, 'photo.png')
    Image.fromarray(next(export_check.pictures(None, None))).save(photo)
    with mock.patch.object(export, 'LEAST_INTEGER', 0.5):  # the weights of this model mean nothing
      printed, path = self.export('--format', 'tflite', '--size', 65, 97, '--calibration', photo,
                                  '--check_images', photo)
    self.assertRegex(printed, r'\d% of 6,305 pixels in 1 picture')
    interpreter = tf.lite.Interpreter(os.path.join(path, 'model.tflite'))
    self.assertEqual(interpreter.get_input_details()[0]['dtype'], np.uint8)
    self.assertEqual({row['dtype'] for row in interpreter.get_output_details()}, {np.uint8, np.int32})
    self.assertNotIn(np.float32, {row['dtype'] for row in interpreter.get_tensor_details()})

  def test_onnx_says_what_it_needs_or_has_the_classes_of_the_model(self):
    with mock.patch('importlib.util.find_spec', return_value=None):
      with self.assertRaisesRegex(UsageError, 'needs tf2onnx and onnxruntime, not installed here '
                                              r'\(tf2onnx 1\.17\.0 and .* tried\); pip install'):
        self.export('--format', 'onnx')
    with contextlib.suppress(UsageError):
      export_formats.check_onnx()
      self.assertIn('100.00% of', self.export('--format', 'onnx')[0])
      path = os.path.join(self.export('--format', 'onnx', '--size', 65, 97)[1], 'model.onnx')
      image = np.float32(next(export_check.pictures(None, (65, 97))))[None]
      opencv = cv2.dnn.readNetFromONNX(path)
      opencv.setInput(image)
      with here('onnx', path, '') as runtime:
        np.testing.assert_allclose(opencv.forward('probabilities:0'),
                                   runtime.predict({'image': image})['probabilities'], atol=1e-4)

  def test_what_a_converter_cannot_do_ends_in_a_sentence(self):
    damaged = os.path.join(self.folder, 'damaged.png')
    with open(damaged, 'wb') as file:
      file.write(b'no image')
    argv = ('--format', 'tflite', '--size', 33, 49)
    with self.assertRaisesRegex(DataError, "image '.*damaged.png' does not decode"):
      self.export(*argv, '--calibration', damaged)
    with mock.patch.object(tf.compat.v2.lite.TFLiteConverter, 'from_concrete_functions',
                           side_effect=ValueError('no kernel\nfor it')):
      with self.assertRaisesRegex(DataError, 'be converted to --format tflite: no kernel; nothing was left'):
        self.export(*argv)
    self.assertEqual(os.listdir(os.path.join(self.folder, self._testMethodName)), [])

  def test_flags_that_do_not_go_together_are_refused(self):
    for argv, words in ((('--format', 'tflite'), 'one size alone; give it, such as --size 513 513'),
                        (('--format', 'tflite', '--image_bytes'), '--image_bytes is for --format saved_mod'),
                        (('--calibration', 'x.jpg'), '--calibration is for --format tflite'),
                        (('--size', 65, 97), '--size is for the other formats')):
      with self.assertRaisesRegex(UsageError, words):
        self.export(*argv)
    for argv, words in ((('--check_images', 'none.jpg'), "--check_images 'none.jpg' is no file or folder"),
                        (('--check_images', self.model), 'is a folder without an image')):
      with self.assertRaisesRegex(DataError, words):
        self.export(*argv)

  def test_bytes_in_and_mask_out(self):
    _, path = self.export('--image_bytes')
    signatures = tf.compat.v2.saved_model.load(path).signatures
    self.assertEqual(set(signatures), {'serving_default', 'preds', 'image_bytes'})
    pixels = next(export_check.pictures(None, (65, 97)))
    image, grey = Image.fromarray(pixels), Image.fromarray(pixels[:, :, 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, which is left to the client
    for encoded in (file_of(image, 'PNG'), file_of(image.convert('RGBA'), 'PNG'), file_of(grey, 'PNG'),
                    file_of(image, 'JPEG'), file_of(grey, 'JPEG'), file_of(image, 'JPEG', exif=exif)):
      decoded = np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'), np.float32)
      expected = signatures['serving_default'](image=tf.constant(decoded[None]))['classes'][0, :, :, 0]
      mask, = signatures['image_bytes'](image_bytes=tf.constant([encoded]))['mask_png_bytes'].numpy()
      np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask))), expected)
    for given, words in (([b'GIF89a'], 'neither a JPEG nor a PNG'), ([encoded] * 2, 'one image a request')):
      with self.assertRaisesRegex(tf.errors.InvalidArgumentError, words):
        signatures['image_bytes'](image_bytes=tf.constant(given))


if __name__ == '__main__':
  unittest.main()
