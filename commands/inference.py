"""Inference: the model is run over images and videos (inference.py).

Reading, the network and writing go on at a time. An image that cannot be read has no outputs, and the others
do: it is told at the end.
"""
import collections
import concurrent.futures
import os

import numpy as np

from commands import flags, photos, videos
from commands.predictor import Predictor
from dataset import descriptors, image_files, lists
from training.tf_estimator import LocalCLIDebugHook
from utils import devices, environment, failures, files, visualization
from utils.errors import DataError
from utils.progress import Progress

CSV = 'classes.csv'
_WRITERS = 2  # threads; each holds some copies of its image


def find_photos(args):
  """Returns the Photos that the flags name, whose outputs have been checked; one at least is there.

  Returns:
    list of Photo, and dict from the position of each that is not there to a sentence that says so.
  """
  found = photos.find_photos(args.input, args.output_dir) if args.input else photos.list_photos(
      args.data_dir, lists.read_list(args.infer_data_list))
  of_videos = any(photo.is_video for photo in found) and 'outputs' not in args.explicit
  flags.refuse_idle(
      args, ('alpha', args.overlay or 'overlay' in args.outputs or of_videos, 'without --overlay'))
  found = [photo._replace(output=os.path.join(args.output_dir, photo.output)) for photo in found]
  check_outputs(found, args)
  bad = {index: f'there is no image {photo.path}; the list holds file names with extension'
         for index, photo in enumerate(found) if not os.path.isfile(photo.path)}
  if len(bad) == len(found):
    raise DataError(bad[0])
  return found, bad


def check_outputs(found, args):
  """Raises an error if two Photos would share an output, or one would be written over what is read."""
  taken = {}
  for photo in found:
    other = taken.setdefault(photo.output, photo)
    if other is not photo:
      raise DataError(f'{other.path} and {photo.path} would both be written to '
                      f"{photo.output}{photos.ENDINGS['mask']}; infer them into two output folders, or give "
                      'the folder that holds both')
  outputs = [output + end for output in taken for end in (*photos.ENDINGS.values(), photos.VIDEO_ENDING)]
  files.check_outputs([*outputs, os.path.join(args.output_dir, CSV)],
                      [*(photo.path for photo in found), *([] if args.input else [args.infer_data_list])],
                      '--output_dir')


def predict(found, bad, model, args):
  """Predicts Photos, and has the results written; those that cannot be predicted are added to `bad`."""
  predictor = Predictor(model, 'probabilities' in args.outputs, [LocalCLIDebugHook()] if args.debug else None)
  writer = Writer(model.dataset, args)
  what = 'images and videos' if any(photo.is_video for photo in found) else 'images'
  print(f'Predicting {len(found)} {what} by {model}; on {devices.describe()}', flush=True)
  advice = model.views.memory_advice if not model.views.is_plain else (
      'every image is predicted whole: give --sliding_window H W, or end other programs that hold memory')
  with environment.without_autotuning(), failures.explaining(advice):
    predict_images(found, bad, predictor, writer)
    for index, photo in enumerate(found):
      if photo.is_video and index not in bad:
        try:
          videos.predict(photo, predictor, writer)
        except DataError as error:
          bad[index] = str(error)
          writer.forget(photo)
  writer.finish(found)
  done = [photo for index, photo in enumerate(found) if index not in bad]
  tell_of_others(args.output_dir, writer, done)
  print(writer.summary(done), flush=True)


def tell_of_others(folder, writer, done):
  """Says how many files in the folder are called like outputs, and stem from other calls."""
  now = {photo.output + photos.ENDINGS[kind] for photo in done for kind in writer.outputs - {'csv'}}
  others = {entry.path for entry in os.scandir(folder) if entry.name == CSV and 'csv' not in
            writer.outputs or entry.name.endswith(tuple(photos.ENDINGS.values()))} - now
  if others:
    print(f'Note: {folder} holds {len(others)} files that are called like outputs, and are not of '
          f'this call, such as {min(others)}')


def predict_images(found, bad, predictor, writer):
  """Predicts the images among Photos and has the results written, some at a time in threads of their own.

  Args:
    found: list of Photo.
    bad: dict from the position of a photo to the sentence that says what is wrong with it, to which those
      that cannot be read are added.
    predictor: Predictor.
    writer: Writer.
  """
  order = [index for index, photo in enumerate(found) if not photo.is_video and index not in bad]
  if not order:
    return

  def tell(number, error):
    bad[order[number]] = str(error)

  pending = collections.deque()

  def finish():
    index, written = pending.popleft()
    try:
      written.result()
    except DataError as error:  # the image has changed meanwhile
      bad[index] = str(error)

  paths = [found[index].path for index in order]
  with (Progress(len(order), 'predicting', 'image') as progress,
        concurrent.futures.ThreadPoolExecutor(_WRITERS) as pool):
    for number, prediction in predictor(paths, image_files.read_image, tell, progress.view):
      index = order[number]
      pending.append((index, pool.submit(writer.write, found[index], prediction)))
      if len(pending) > 2 * _WRITERS:
        finish()
      progress.update(number + 1 - progress.done)  # more than one if others before it were bad
    while pending:
      finish()
    progress.update(len(order) - progress.done)


class Writer:
  """What is written of predictions."""

  def __init__(self, dataset, args):
    """Args: Dataset, the parsed flags."""
    self.dataset, self.args = dataset, args
    self.outputs = {*args.outputs, *(['overlay'] if args.overlay else [])}
    self.video_outputs = self.outputs if 'outputs' in args.explicit else {'overlay'}
    self.rows = {}  # of the CSV, by path and frame

  def write(self, photo, prediction):
    """Writes the outputs of a Photo; `prediction` is what a Predictor yields."""
    classes = prediction['classes']
    pixels = image_files.read_image(photo.path) if 'overlay' in self.outputs else None
    os.makedirs(os.path.dirname(photo.output), exist_ok=True)
    if 'mask' in self.outputs:
      self.save_mask(photo.output + photos.ENDINGS['mask'], classes)
    if 'overlay' in self.outputs:
      visualization.save(photo.output + photos.ENDINGS['overlay'], self.overlay(pixels, classes))
    if 'probabilities' in self.outputs:
      path = photo.output + photos.ENDINGS['probabilities']
      with files.replacing(path) as temporary, open(temporary, 'wb') as file:
        np.save(file, prediction['probabilities'].astype(np.float16))
    self.count(photo, classes)

  def save_mask(self, path, classes):
    visualization.save_mask(path, classes, self.dataset.palette, self.dataset.ignore_label)

  def overlay(self, image, classes):
    """Returns uint8 [H, W, 3]: the classes over the image, with a legend."""
    background = 0 if self.dataset.class_names[0] in descriptors.BACKGROUND_NAMES else None
    blended = visualization.overlay(image, classes, self.dataset.palette, self.args.alpha, background)
    return visualization.with_legend(blended, classes, self.dataset.class_names, self.dataset.palette,
                                     background)

  def count(self, photo, classes, frame=0):
    """Adds a row to the CSV, if there is to be one; the frames of a video count from 1."""
    if 'csv' in self.outputs:
      self.rows[photo.path, frame] = [photo.path + f'#{frame}' * bool(frame), *classes.shape, *np.bincount(
          classes.ravel(), minlength=self.dataset.num_classes).tolist()]

  def forget(self, photo):
    """Takes the rows of a video's frames off the CSV."""
    self.rows = {place: row for place, row in self.rows.items() if place[0] != photo.path}

  def finish(self, found):
    """Writes the CSV, in the order of the Photos."""
    if 'csv' in self.outputs:
      order = {photo.path: number for number, photo in enumerate(found)}
      places = sorted(self.rows, key=lambda place: (order[place[0]], place[1]))
      files.write_csv(os.path.join(self.args.output_dir, CSV), [
          ['image', 'height', 'width', *self.dataset.class_names], *(self.rows[place] for place in places)])

  def summary(self, done):
    """Returns the last line: what there is now, and where."""
    kinds = {'mask': 'masks', 'overlay': 'overlays', 'probabilities': 'probabilities'}
    images = [photo for photo in done if not photo.is_video]
    shown = [f'{len(images)} {kinds[kind]}' for kind in photos.ENDINGS if kind in self.outputs and images]
    if len(done) > len(images):
      shown.append(f'{len(done) - len(images)} videos')
    if 'csv' in self.outputs:
      shown.append(CSV)
    return f'{", ".join(shown) or "0 masks"} are in {self.args.output_dir}'
