"""Export a trained model as a SavedModel, and check that it predicts what the model does.

  python export_inference_graph.py --model_dir ./model --export_dir dataset/export_output

Writes <export_dir>/<timestamp>/. Its input `image` is float32 [batch, H, W, 3], RGB 0..255, of any size; its
outputs are `classes` int32 [batch, H, W, 1] and `probabilities` float32 [batch, H, W, classes]. Signatures:
serving_default and preds.
"""
import os

from utils import flags
from utils.errors import DataError


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared(*flags.MODEL_FLAGS)
  parser.flag('export_dir', 'dataset/export_output', 'folder of the exported models', metavar='DIR')
  return parser


def main(args):
  from utils import checkpoints, files, model_config

  architecture, _ = model_config.resolve(args, model_config.read(args.model_dir))
  checkpoint = checkpoints.latest_or_error(args.model_dir)
  files.make_folder(args.export_dir, '--export_dir')

  from deeplab_model import deeplabv3_plus_model_fn
  from utils import run_config
  from utils.tf_estimator import Estimator

  params = {**vars(architecture), 'checkpoint': checkpoint, 'portable': True}
  estimator = Estimator(deeplabv3_plus_model_fn, args.model_dir, run_config.run_config(), params)
  path = estimator.export_saved_model(args.export_dir, serving_input, checkpoint_path=checkpoint)
  path = os.fsdecode(path)
  check(path, estimator, checkpoint)
  print(f'{path}: exported {checkpoint}, and checked against it')


def serving_input():
  """Returns the receiver of `image`: float32 [batch, H, W, 3], RGB 0..255."""
  import tensorflow.compat.v1 as tf

  from utils.tf_estimator import TensorServingInputReceiver

  image = tf.placeholder(tf.float32, [None, None, None, 3], 'image_tensor')
  return TensorServingInputReceiver(image, {'image': image})


def check(path, estimator, checkpoint):
  """Loads the SavedModel and compares it with the Estimator's prediction on one image.

  Raises:
    DataError: they differ.
  """
  import numpy as np
  import tensorflow.compat.v1 as tf

  image = np.random.RandomState(0).uniform(0, 255, (1, 65, 97, 3)).astype(np.float32)
  expected = next(estimator.predict(
      lambda: tf.data.Dataset.from_tensors(image), checkpoint_path=checkpoint))
  with tf.Graph().as_default(), tf.Session() as session:
    signature = tf.saved_model.load(session, ['serve'], path).signature_def['serving_default']
    actual = session.run({name: tensor.name for name, tensor in signature.outputs.items()},
                         {signature.inputs['image'].name: image})
  difference = np.abs(actual['probabilities'][0] - expected['probabilities']).max()
  if difference > 1e-3:
    raise DataError(f'{path} differs from {checkpoint} by {difference:.3g} in the probabilities of the same '
                    f'image; do not use it, and report this')


if __name__ == '__main__':
  flags.run(main, make_parser())
