"""Inference: the model is run over images (inference.py).

Reading, the network and writing go on at a time. An image that cannot be read has no mask, and the others do:
it is told at the end.
"""
import collections
import concurrent.futures
import functools
import glob
import os
import re
import typing

from tqdm import tqdm

from cli import model_config
from dataset import descriptors, image_files, inputs, lists
from deeplab_model import deeplabv3_plus_model_fn
from utils import checkpoints, devices, failures, files, run_config, visualization
from utils.errors import DataError, UsageError
from utils.tf_estimator import Estimator, debug_hook

MASK, OVERLAY = '_mask.png', '_overlay.png'  # what comes after the image's name
_WRITERS = 2  # threads; each holds some copies of its image
_PATTERN = re.compile('[*?[]')


class Photo(typing.NamedTuple):
  """An image: its path, and the path of its outputs below --output_dir less what comes after the name."""
  path: str
  output: str


def main(args):
  """Predicts the images that the flags name."""
  check_flags(args)
  architecture, dataset = model_config.resolve(args, model_config.read(args.model_dir))
  photos = find_photos(args.input, args.output_dir) if args.input else list_photos(
      args.data_dir, lists.read_list(args.infer_data_list))
  photos = [photo._replace(output=os.path.join(args.output_dir, photo.output)) for photo in photos]
  check_outputs(photos, args)
  bad = {index: f'there is no image {photo.path}; the list holds file names with extension'
         for index, photo in enumerate(photos) if not os.path.isfile(photo.path)}
  if len(bad) == len(photos):
    raise DataError(bad[0])

  devices.take(precision=args.precision)
  checkpoint = checkpoints.latest_or_error(args.model_dir)
  files.make_folder(args.output_dir, '--output_dir')
  params = {**vars(architecture),
            **run_config.compute_params(args.precision, args.data_format, training=False)}
  estimator = Estimator(deeplabv3_plus_model_fn, args.model_dir, run_config.run_config(), params)
  print(f'Predicting {len(photos)} images by {checkpoint}; on {devices.describe()}', flush=True)
  with devices.without_autotuning(), failures.explaining(
      'every image is predicted whole: scale down the largest, or cut them into parts, or end other programs '
      'that hold memory'):
    predict = functools.partial(estimator.predict, predict_keys='classes', checkpoint_path=checkpoint,
                                hooks=[debug_hook()] if args.debug else None)
    predict_photos(photos, bad, predict, functools.partial(write, dataset=dataset, args=args))
  print(f'{len(photos) - len(bad)} masks are in {args.output_dir}', flush=True)
  if bad:
    head = f'{len(bad)} of {len(photos)} images could not be predicted:'
    raise DataError(('\n' if len(bad) > 1 else ' ').join([head, *(bad[index] for index in sorted(bad))]))


def check_flags(args):
  """Raises UsageError for flags that exclude each other."""
  for name in ('data_dir', 'infer_data_list'):
    if args.input and name in args.explicit:
      raise UsageError(f'--input and --{name} were given, and each says which images to take; give one')
  if 'alpha' in args.explicit and not args.overlay:
    raise UsageError('--alpha is about the overlay; add --overlay')


def check_outputs(photos, args):
  """Raises an error if two Photos would share an output, or one would be written over what is read."""
  taken = {}
  for photo in photos:
    other = taken.setdefault(photo.output, photo)
    if other is not photo:
      raise DataError(f'{other.path} and {photo.path} would both be written to {photo.output}{MASK}; infer '
                      'them into two output folders, or give the folder that holds both')
  files.check_outputs([output + end for output in taken for end in (MASK, OVERLAY)],
                      [*(photo.path for photo in photos), *([] if args.input else [args.infer_data_list])],
                      '--output_dir')


# --- Which images --------------------------------------------------------------------------------


def list_photos(folder, names):
  """Returns the Photos of the names in a list, whose folders are kept below --output_dir."""
  return [Photo(os.path.join(folder, name), _output(name)) for name in names]


def find_photos(given, output_dir):
  """Returns the Photos of --input; of those in folders and of patterns, the folders below it are kept.

  Args:
    given: list of str: files, folders and patterns.
    output_dir: str; it is left out of folders.

  Raises:
    DataError: there is no such file or folder, or no image in it.
  """
  photos, others = {}, collections.Counter()
  for text in given:
    if os.path.exists(text):
      found, root = [text], text if os.path.isdir(text) else os.path.dirname(text)
    else:
      is_pattern = _PATTERN.search(text)
      found = _matches(text) if is_pattern else []
      root = os.path.dirname(text[:is_pattern.start()]) if is_pattern else None
    if not found:
      raise DataError(f"--input '{text}' is no file or folder, and no pattern that fits one; check the path")
    paths = []
    for path in found:
      paths.extend(_images_below(path, output_dir, others) if os.path.isdir(path) else [path])
    if not paths:
      raise DataError(f"--input '{text}' holds no image; in folders their names end in "
                      f"{', '.join(lists.IMAGE_EXTENSIONS)}")
    for path in map(os.path.normpath, paths):
      photo = Photo(path, _output(os.path.relpath(path, root or '.')))
      photos[photo] = None
  if others:
    print(f'Left out of the folders: {others.total()} file(s) that are no images by their names '
          f'({", ".join(sorted(others))}); give the files themselves to have them predicted', flush=True)
  return list(photos)


def _matches(pattern):
  """Returns the paths that fit a pattern, sorted; of several to one file, by links, the shortest."""
  paths = {}
  for path in sorted(glob.glob(pattern, recursive=True), key=lambda path: path.count(os.sep)):
    paths.setdefault(os.path.realpath(path), path)
  return sorted(paths.values())


def _output(name):
  """Returns a name without its extension, and without its folders if they lead out of the folder it is in."""
  stem = os.path.splitext(os.path.normpath(name))[0]
  return os.path.basename(stem) if os.path.isabs(stem) or stem.startswith(os.pardir + os.sep) else stem


def _images_below(folder, output_dir, others):
  """Returns the paths of the images in a folder and below, sorted; hidden ones and --output_dir are left out.

  Args:
    folder, output_dir: str.
    others: collections.Counter of extensions, to which those of other files are added.
  """
  def stop(error):
    raise DataError(f"folder '{error.filename}' cannot be read: {error.strerror}; check its permissions")

  paths, seen = [], {os.path.realpath(output_dir), os.path.realpath(folder)}
  for parent, folders, names in os.walk(folder, onerror=stop, followlinks=True):
    for name in sorted(name for name in names if not name.startswith('.')):
      extension = os.path.splitext(name)[1].lower()
      if extension in lists.IMAGE_EXTENSIONS:
        paths.append(os.path.join(parent, name))
      else:
        others[extension or 'none'] += 1
    below = {os.path.realpath(os.path.join(parent, name)): name  # a link may lead back
             for name in sorted(folders) if not name.startswith('.')}
    folders[:] = [name for path, name in below.items() if path not in seen]
    seen.update(below)
  return paths


# --- Predictions ---------------------------------------------------------------------------------


def predict_photos(photos, bad, predict, write_one):
  """Predicts Photos and has the results written, some at a time in threads of their own.

  Args:
    photos: list of Photo.
    bad: dict from the position of a photo to the sentence that says what is wrong with it; those are left
      out, and others that cannot be read are added.
    predict: function that returns the predictions of an input_fn, an iterator of dicts.
    write_one: function of a Photo and its classes, integer [H, W].
  """
  order = [index for index in range(len(photos)) if index not in bad]

  def tell(position, error):
    bad[order[position]] = str(error)

  paths = [photos[index].path for index in order]
  predictions = predict(functools.partial(inputs.image_dataset, paths, tell))
  # What is bad is known before the prediction of a later image arrives.
  positions = (index for index in order if index not in bad)
  pending = collections.deque()

  def finish():
    index, written = pending.popleft()
    try:
      written.result()
    except DataError as error:  # the image has changed meanwhile
      bad[index] = str(error)

  with tqdm(total=len(photos), unit='image') as progress, \
      concurrent.futures.ThreadPoolExecutor(_WRITERS) as pool:
    for prediction, index in zip(predictions, positions):
      pending.append((index, pool.submit(write_one, photos[index], prediction['classes'][:, :, 0])))
      if len(pending) > 2 * _WRITERS:
        finish()
      progress.update(index + 1 - progress.n)
    while pending:
      finish()
    progress.update(len(photos) - progress.n)


def write(photo, classes, dataset, args):
  """Writes the mask of a Photo, and the overlay if there is to be one.

  Args:
    photo: Photo.
    classes: integer [H, W].
    dataset: Dataset.
    args: the flags.
  """
  pixels = image_files.read_image(photo.path) if args.overlay else None
  os.makedirs(os.path.dirname(photo.output), exist_ok=True)
  visualization.save_mask(photo.output + MASK, classes, dataset.palette, dataset.ignore_label)
  if args.overlay:
    background = 0 if dataset.class_names[0] in descriptors.BACKGROUND_NAMES else None
    visualization.save_overlay(photo.output + OVERLAY, pixels, classes, dataset.palette, args.alpha,
                               background)
