"""Inference: the model is run over listed images (inference.py)."""
import functools
import os

from tqdm import tqdm

from cli import model_config
from dataset import image_files, inputs, lists
from deeplab_model import deeplabv3_plus_model_fn
from utils import checkpoints, devices, failures, files, run_config, visualization
from utils.errors import DataError
from utils.tf_estimator import Estimator, debug_hook

MASK, OVERLAY = '_mask.png', '_overlay.png'  # what comes after the image's name


def main(args):
  """Predicts the listed images as the flags say."""
  architecture, dataset = model_config.resolve(args, model_config.read(args.model_dir))
  names = lists.read_list(args.infer_data_list)
  images = find_images(args.data_dir, names)
  outputs = output_stems(args.output_dir, names)
  files.check_outputs([output + end for output in outputs for end in (MASK, OVERLAY)],
                      [*images, args.infer_data_list], '--output_dir')

  devices.take(precision=args.precision)
  checkpoint = checkpoints.latest_or_error(args.model_dir)
  files.make_folder(args.output_dir, '--output_dir')
  params = {**vars(architecture),
            **run_config.compute_params(args.precision, args.data_format, training=False)}
  estimator = Estimator(deeplabv3_plus_model_fn, args.model_dir, run_config.run_config(), params)
  print(f'Predicting {len(images)} images by {checkpoint}; on {devices.describe()}', flush=True)
  with devices.without_autotuning(), failures.explaining(
      'every image is predicted whole: scale down the largest, or cut them into parts, or end other programs '
      'that hold memory'):
    predictions = estimator.predict(
        functools.partial(inputs.image_dataset, images), predict_keys='classes',
        hooks=[debug_hook()] if args.debug else None, checkpoint_path=checkpoint)
    for image, output in zip(tqdm(images, unit='image'), outputs):
      classes = next(predictions)['classes'][:, :, 0]
      visualization.save_mask(output + MASK, classes, dataset.palette, dataset.ignore_label)
      if args.overlay:
        visualization.save_overlay(output + OVERLAY, image_files.read_image(image), classes, dataset.palette)
  print(f'{len(images)} masks are in {args.output_dir}')


def find_images(folder, names):
  """Returns the paths of the listed files; raises DataError for the first that is missing."""
  paths = [os.path.join(folder, name) for name in names]
  for path in paths:
    if not os.path.isfile(path):
      raise DataError(f'there is no image {path}; the list holds file names with extension')
  return paths


def output_stems(folder, names):
  """Returns the outputs' paths less `_mask.png`; two names that would share one are an error."""
  stems = {}
  for name in names:
    stem = os.path.splitext(os.path.basename(name))[0]
    if stem in stems:
      raise DataError(f'{stems[stem]} and {name} would both be written to {stem}{MASK}; '
                      f'infer them into two output folders')
    stems[stem] = name
  return [os.path.join(folder, stem) for stem in stems]
