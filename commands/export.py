"""An export: what was written is checked, and moved to its place (export_inference_graph.py)."""
import functools
import io
import os
import time
import typing

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from commands import export_check, export_formats, model_config
from commands.export_formats import FORMATS
from dataset import preprocessing
from deeplab_model import deeplabv3_plus_model_fn
from training import checkpoints, run_config
from training.tf_estimator import Estimator, TensorServingInputReceiver
from utils import devices
from utils.errors import DataError, UsageError

BYTES_SIGNATURE, BYTES_INPUT, BYTES_OUTPUT = 'image_bytes', 'image_bytes', 'mask_png_bytes'
# The least share of pixels whose class is the model's: in float32, and in 8-bit integers.
LEAST_FLOAT, LEAST_INTEGER = 0.999, 0.9


class Model(typing.NamedTuple):
  """What is exported: its Estimator, the checkpoint, the flags, and the pictures and photos that they name.

  images and calibration are functions that return an iterator of uint8 [H, W, 3]; calibration may be None.
  """
  estimator: Estimator
  checkpoint: str
  args: typing.Any
  images: typing.Callable
  calibration: typing.Callable | None

  def __str__(self):
    return checkpoints.described(self.checkpoint, self.estimator.params['weights'])


def read_model(args):
  """Returns the Model in --model_dir as the flags ask for it, and takes the devices."""
  check_flags(args)
  images = find_images(args.check_images, '--check_images', args.size)
  calibration = find_images(args.calibration, '--calibration', args.size) if args.calibration else None
  architecture, _ = model_config.resolve(args, model_config.read(args.model_dir))
  checkpoint = checkpoints.latest_or_error(args.model_dir)
  devices.take()
  params = {**vars(architecture), 'portable': True, 'weights': model_config.weights(args, checkpoint)}
  model_fn = with_mask(deeplabv3_plus_model_fn) if args.image_bytes else deeplabv3_plus_model_fn
  estimator = Estimator(model_fn, args.model_dir, run_config.run_config(), params)
  return Model(estimator, checkpoint, args, images, calibration)


def check_flags(args):
  """Raises UsageError for flags that do not go together, or for what is not installed."""
  for name, own in (('image_bytes', 'saved_model'), ('calibration', 'tflite')):
    if getattr(args, name) and args.format != own:
      raise UsageError(f'--{name} is for --format {own}, and --format {args.format} was given; leave one '
                       'out')
  if args.format == 'saved_model' and args.size:
    raise UsageError('--size is for the other formats, as a SavedModel takes any size; leave it out')
  if args.format != 'saved_model' and FORMATS[args.format].needs_size and not args.size:
    raise UsageError(f'--format {args.format} takes images of one size alone; give it, such as '
                     '--size 513 513')
  if args.format == 'onnx':
    export_formats.check_onnx()


def find_images(given, flag, size):
  """Returns Model's function of the images that a flag names, files and folders; None is made-up ones."""
  paths = export_check.find(given, flag) if given else None
  return functools.partial(export_check.pictures, paths, size)


def move_into(exported, folder):
  """Moves an export into a folder, under its own number or the next that is free; returns its path."""
  name = os.path.basename(exported)
  prefix = name.rstrip('0123456789')
  number = int(name[len(prefix):])
  while os.path.exists(path := os.path.join(folder, f'{prefix}{number}')):
    number += 1
  os.rename(exported, path)
  return path


# --- Writing -------------------------------------------------------------------------------------


def write(model, scratch):
  """Writes the model into a folder of its own; returns its path."""
  name = model.args.format
  if name == 'saved_model':
    return write_saved_model(model, scratch)
  row = FORMATS[name]
  folder = os.path.join(scratch, f'{name}-{int(time.time())}')
  os.mkdir(folder)
  graph_def = export_formats.frozen_graph(deeplabv3_plus_model_fn, model.estimator.params, model.checkpoint,
                                          model.args.size)
  path = os.path.join(folder, row.file)
  try:
    row.write(graph_def, path, model.calibration)
  except (DataError, OSError, MemoryError):
    raise
  except Exception as error:  # converters raise what they like
    reason = str(error).strip().partition('\n')[0][:200] or type(error).__name__
    raise DataError(f'this model cannot be converted to --format {name}: {reason}; nothing was left in '
                    '--export_dir. Give another --format or --size') from error
  print(f'{row.file}: {os.path.getsize(path) / 1e6:.2f} MB')
  return folder


def write_saved_model(model, scratch):
  """Writes a SavedModel into a folder of its own; returns its path."""
  receiver = bytes_input if model.args.image_bytes else serving_input
  path = os.fsdecode(model.estimator.export_saved_model(scratch, receiver, checkpoint_path=model.checkpoint))
  if model.args.image_bytes:
    add_bytes_signature(path)
  return path


def serving_input():
  """Returns the receiver of `image`: float32 [batch, H, W, 3], RGB 0..255."""
  image = tf.placeholder(tf.float32, [None, None, None, 3], 'image_tensor')
  return TensorServingInputReceiver(image, {'image': image})


def bytes_input():
  """Returns the receiver of `image` as serving_input does; not fed, it is decoded from `image_bytes`.

  image_bytes is string [1], a JPEG or PNG file.
  """
  encoded = tf.placeholder(tf.string, [None], BYTES_INPUT)
  is_one = tf.debugging.Assert(tf.equal(tf.size(encoded), 1), [
      'image_bytes takes one image a request, as images may be of different sizes; the number of images was ',
      tf.size(encoded)])
  with tf.control_dependencies([is_one]):
    one = encoded[0]
  with tf.control_dependencies([preprocessing.image_shape(one, 'the image')]):  # that are refused before
    decoded = preprocessing.decode_image(one)
  image = tf.placeholder_with_default(tf.cast(decoded, tf.float32)[None], [None, None, None, 3],
                                      'image_tensor')
  return TensorServingInputReceiver(image, {'image': image})


def with_mask(model_fn):
  """Returns a model_fn whose graph has `mask_png_bytes` too, string [1]: the first image's classes."""
  def wrapped(features, labels, mode, params):
    spec = model_fn(features, labels, mode, params)
    mask = tf.io.encode_png(tf.cast(spec.predictions['classes'][0], tf.uint8))
    tf.expand_dims(mask, 0, name=BYTES_OUTPUT)
    return spec

  return wrapped


def add_bytes_signature(path):
  """Gives a SavedModel of bytes_input and with_mask the signature image_bytes -> mask_png_bytes."""
  file_name = os.path.join(path, 'saved_model.pb')
  saved_model = saved_model_pb2.SavedModel()
  with open(file_name, 'rb') as file:
    saved_model.ParseFromString(file.read())
  signature = saved_model.meta_graphs[0].signature_def[BYTES_SIGNATURE]
  signature.method_name = tf.saved_model.signature_constants.PREDICT_METHOD_NAME
  for tensors, name in ((signature.inputs, BYTES_INPUT), (signature.outputs, BYTES_OUTPUT)):
    tensors[name].name, tensors[name].dtype = f'{name}:0', tf.string.as_datatype_enum
    tensors[name].tensor_shape.dim.add(size=1)
  with open(file_name, 'wb') as file:
    file.write(saved_model.SerializeToString())


# --- Checking ------------------------------------------------------------------------------------


def check(path, model):
  """Runs what was exported in a fresh process and compares it with the Estimator.

  Args:
    path: folder that was written.
    model: Model.

  Returns:
    export_check.Agreement.

  Raises:
    DataError: they differ, or are no numbers.
  """
  args = model.args
  is_float = not args.calibration
  agreement = export_check.Agreement(model.checkpoint)
  file = path if args.format == 'saved_model' else os.path.join(path, FORMATS[args.format].file)
  with export_check.fresh(args.format, file, f'what was exported of {model.checkpoint}') as fresh:
    for image, expected in export_check.expectations(model.estimator, model.checkpoint, model.images):
      agreement.add(fresh.predict({'image': image}), expected)
    agreement.require(LEAST_FLOAT if is_float else LEAST_INTEGER, is_float)
    if args.image_bytes:
      check_bytes(model, fresh)
  return agreement


def check_bytes(model, fresh):
  """Asks a SavedModel for the masks of a PNG and a JPEG file, and compares them with the Estimator's."""
  def decoded(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))

  image, encoded = Image.fromarray(next(model.images())), []
  for kind in ('PNG', 'JPEG'):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    encoded.append(buffer.getvalue())
  predictions = export_check.expectations(model.estimator, model.checkpoint, lambda: map(decoded, encoded))
  for file, (_, expected) in zip(encoded, predictions):
    answer = fresh.predict({BYTES_INPUT: np.frombuffer(file, np.uint8)}, BYTES_SIGNATURE)[BYTES_OUTPUT]
    agreement = export_check.Agreement(model.checkpoint)
    agreement.count(decoded(answer.tobytes()), expected['classes'][:, :, 0])
    agreement.require(LEAST_FLOAT, True)
