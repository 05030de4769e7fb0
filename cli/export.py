"""An export: the SavedModel is written, checked, and moved to its place (export_inference_graph.py)."""
import os
import re
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

from cli import model_config
from deeplab_model import deeplabv3_plus_model_fn
from utils import checkpoints, devices, failures, files, run_config
from utils.errors import DataError
from utils.tf_estimator import Estimator, TensorServingInputReceiver


def main(args):
  """Exports a model as the flags say."""
  architecture, _ = model_config.resolve(args, model_config.read(args.model_dir))
  checkpoint = checkpoints.latest_or_error(args.model_dir)
  files.make_folder(args.export_dir, '--export_dir')

  devices.take()
  print(f'Exporting {checkpoint}; on {devices.describe()}', flush=True)
  params = {**vars(architecture), 'portable': True}
  # What appears in export_dir has been checked.
  with (failures.explaining('end other programs that hold memory'),
        tempfile.TemporaryDirectory(prefix='exporting-', suffix='.tmp', dir=args.export_dir) as scratch):
    estimator = Estimator(deeplabv3_plus_model_fn, args.model_dir, run_config.run_config(), params)
    exported = os.fsdecode(estimator.export_saved_model(scratch, serving_input, checkpoint_path=checkpoint))
    check(exported, estimator, checkpoint)
    path = move_into(exported, args.export_dir)
  print(f'{path}: exported {checkpoint}, and checked against it')
  if re.search(r'[][*?\\]', os.path.abspath(path)):
    print(f'Note: TensorFlow takes [ ] * ? \\ in a path for a pattern, and cannot load a SavedModel from '
          f'{path}; move it to a folder without these')


def move_into(exported, folder):
  """Moves a SavedModel into a folder, under its own number or the next that is free; returns its path."""
  number = int(os.path.basename(exported))
  while True:
    path = os.path.join(folder, str(number))
    try:
      os.mkdir(path)  # another export may be about to take the same
      os.replace(exported, path)
      return path
    except FileExistsError:
      number += 1


def serving_input():
  """Returns the receiver of `image`: float32 [batch, H, W, 3], RGB 0..255."""
  image = tf.placeholder(tf.float32, [None, None, None, 3], 'image_tensor')
  return TensorServingInputReceiver(image, {'image': image})


def check(path, estimator, checkpoint):
  """Loads the SavedModel and compares it with the Estimator's prediction on one image.

  Raises:
    DataError: they differ, or are no numbers.
  """
  # GPUs from Ampere on would round what they multiply to 10 bits (TF32), here and there in other kernels.
  tf.config.experimental.enable_tensor_float_32_execution(False)
  image = np.random.RandomState(0).uniform(0, 255, (1, 65, 97, 3)).astype(np.float32)
  expected = next(estimator.predict(
      lambda: tf.data.Dataset.from_tensors(image), checkpoint_path=checkpoint))['probabilities']
  with (tempfile.TemporaryDirectory() as folder, tf.Graph().as_default(),
        tf.Session(config=run_config.run_config().session_config) as session):
    link = os.path.join(folder, 'model')  # TensorFlow would take [ ] * ? in the path itself for a pattern
    os.symlink(os.path.abspath(path), link)
    signature = tf.saved_model.load(session, ['serve'], link).signature_def['serving_default']
    actual = session.run(signature.outputs['probabilities'].name, {signature.inputs['image'].name: image})[0]
  for what, values in ((checkpoint, expected), (f'what was exported of {checkpoint}', actual)):
    if not np.isfinite(values).all():
      raise DataError(f'{what} predicts probabilities that are no finite numbers (NaN or infinity); nothing '
                      'was left in --export_dir. Export an earlier checkpoint, or train again')
  difference = np.abs(actual - expected).max()
  if not difference <= 1e-3:
    raise DataError(f'what was exported of {checkpoint} differs from it by {difference:.3g} in the '
                    'probabilities of the same image; nothing was left in --export_dir. Please report this')
