"""An evaluation: the examples are found, and the model is run over them (evaluate.py)."""
import functools
import os
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from commands import checkpoint_watch, evaluation_report
from commands.predictor import Predictor
from dataset import image_files, lists, predictions, record_index, schema, tf_records
from training import checkpoint_store, checkpoints, event_files
from utils import devices, environment, failures, files, scores
from utils.errors import DataError
from utils.progress import Progress


class Evaluation:
  """What is evaluated, and where the results go."""

  def __init__(self, args, model, examples):
    """Checks and makes the places of the results.

    Args:
      args: the parsed flags.
      model: trained_model.Model.
      examples: Examples.
    """
    self._args, self._model, self._dataset, self._examples = args, model, model.dataset, examples
    self._paths = None
    if args.save_predictions:
      predictions.check_submission(args.submission, model.dataset)
      self._paths = predictions.output_paths(args.save_predictions, examples.names, args.submission,
                                             split_name(args))
      files.check_outputs(self._paths, examples.inputs, '--save_predictions')
      files.make_folder(args.save_predictions, '--save_predictions')
    if args.json:
      files.check_json_output(args.json, '--json')
      files.make_folder_of(args.json, '--json')
    if args.report:
      evaluation_report.check(args.report, examples.inputs)
      files.make_folder(args.report, '--report')

  def score_one(self):
    """Evaluates the model's checkpoint, and prints and writes all there is to say of it."""
    args, count = self._args, len(self._examples.names)
    print(f'Evaluating {self._model} on {count} images; on {devices.describe()}', flush=True)
    step, tally, gallery = self._run(self._model.checkpoint)
    if args.label_data_dir != 'none':
      print(scores.report(tally.matrix, self._dataset.class_names))
      print('\n' + scores.table(tally.scores()))
      found = self._described(self._model.checkpoint, step, tally)
      self._write_events(found)
    if args.report:
      evaluation_report.write(args.report, self._run_name(), found, tally.images, gallery, self._dataset)
      print(f'The report is {os.path.join(args.report, evaluation_report.PAGE)}')
    if args.json:
      files.write_json(args.json, found)
    if args.save_predictions:
      print(f'{count} predictions are in {args.save_predictions}')

  def score_all(self):
    """Evaluates the checkpoints of --all_checkpoints and --watch, a line each, and names the best."""
    args, best, evaluated = self._args, None, []
    what = checkpoints.described(f'the checkpoints in {args.model_dir}', self._model.weights)
    print(f'Evaluating {what} on {len(self._examples.names)} images; on {devices.describe()}', flush=True)
    try:
      for _, checkpoint in checkpoint_watch.checkpoints(args.model_dir, args.all_checkpoints, args.watch):
        found, tally, gallery = self._scored_if_good(checkpoint)
        if found is None:
          continue
        evaluated.append(found)
        is_best = best is None or found['mean_iou'] > best['mean_iou']
        best = found if is_best else best
        print(f'step {found["step"]}: mean Intersection over Union {found["mean_iou"]:.4f}, Pixel Accuracy '
              f'{found["px_accuracy"]:.4f}' + '; the best so far' * (is_best and len(evaluated) > 1),
              flush=True)
        if args.report and is_best:
          evaluation_report.write(args.report, self._run_name(), found, tally.images, gallery, self._dataset)
        if args.json:
          files.write_json(args.json, {'best': best['step'], 'evaluations': evaluated})
    except KeyboardInterrupt:
      if not args.watch:  # where it is the way to end
        raise
      print('Interrupted; what was scored so far counts')
      if best is None:
        return
    if best is None:
      raise DataError(f'--model_dir {args.model_dir} holds no numbered checkpoint that can be used '
                      f'({checkpoint_store.NAME}-N.index); give the folder that train.py wrote')
    is_there = os.path.exists(best['checkpoint'] + '.index')
    print(f'The best of {len(evaluated)} is step {best["step"]}, mean Intersection over Union '
          f'{best["mean_iou"]:.4f}: {best["checkpoint"]}' + ', which has been removed since' * (not is_there))
    if args.report:
      print(f'The report of it is {os.path.join(args.report, evaluation_report.PAGE)}')

  def _scored_if_good(self, checkpoint):
    """Returns a checkpoint's scores, Tally and Gallery; Nones, and a line on it, if it is damaged or gone."""
    try:
      what = checkpoint_store.problem(checkpoint)
      if what is None and self._model.weights == 'ema' and not checkpoints.has_averages(checkpoint):
        what = 'holds no averaged weights'
      if what is None:
        step, tally, gallery = self._run(checkpoint)
        found = self._described(checkpoint, step, tally)
        self._write_events(found)
        return found, tally, gallery
    except DataError as error:
      what = f'cannot be read ({error})'
      if os.path.exists(checkpoint + '.index'):
        raise
    if not os.path.exists(checkpoint + '.index'):
      what = 'was removed meanwhile, as a training does with old ones'
    print(f'{checkpoint} {what}; skipped', flush=True)
    return None, None, None

  def _run(self, checkpoint):
    """Predicts all images once by a checkpoint, and does with the predictions what the flags say.

    Returns:
      int, the checkpoint's global step; the scores.Tally; and the evaluation_report.Gallery, or None.
    """
    args, looks, names = self._args, self._model.views, self._examples.names
    tally = scores.Tally(self._dataset.class_names, self._dataset.ignore_label)
    gallery = evaluation_report.Gallery(args.report_images) if args.report else None
    advice = looks.memory_advice if not looks.is_plain else (
        'every image is evaluated whole: scale down the largest, or cut them into parts, or end other '
        'programs that hold memory')
    with (environment.without_autotuning(), failures.explaining(advice, self._examples.find_bad),
          Progress(len(names), 'evaluating', 'image') as progress):
      step = checkpoint_store.step_of(checkpoint)
      predictor = Predictor(self._model._replace(checkpoint=checkpoint))
      for index, classes, image, label in self._predictions(predictor, progress.view):
        if self._paths:
          predictions.save(self._paths[index], classes, self._dataset, args.submission)
        if label is not None:
          found = tally.add(names[index], classes, label)
          if gallery:
            gallery.add(found, image, label, classes)
        progress.update()
    return step, tally, gallery

  def _predictions(self, predictor, on_view):
    """Yields the number of each image, its predicted classes, the image, and its label or None."""
    if self._model.views.is_plain and self._examples.records:
      for index, found in predictor.predict_records(self._examples.records, self._dataset):
        yield index, found['classes'], found['image'], found['label'][:, :, 0]
      return
    loaded = {}

    def read(index):
      loaded[index] = self._examples.load(index)
      return loaded[index][0]

    for index, found in predictor(range(len(self._examples.names)), read, on_view=on_view):
      yield index, found['classes'], *loaded.pop(index)

  def _described(self, checkpoint, step, tally):
    """Returns all that is known of an evaluated checkpoint, a dict for JSON."""
    averaged = {'weights': 'ema'} if self._model.weights == 'ema' else {}
    return {'checkpoint': checkpoint, 'step': step, **averaged, 'images': len(self._examples.names),
            **tally.scores(), 'confusion_matrix': tally.matrix.tolist()}

  def _run_name(self):
    """Returns what the run of these images is called in TensorBoard: as split_name, but no path."""
    name = os.path.basename(split_name(self._args))
    name = 'images' if name in ('', os.curdir, os.pardir) else name
    return name + '_ema' * (self._model.weights == 'ema')

  def _write_events(self, found):
    """Writes the scores for TensorBoard beside the checkpoints, or says that it cannot be done."""
    folder = os.path.join(self._args.model_dir, event_files.OF_EVALUATION, self._run_name())
    scalars = {title: value for title, value in found.items() if isinstance(value, float)}
    scalars.update({scores.iou_tag(name): value for name, value in found['iou'].items()
                    if value is not None})
    try:
      os.makedirs(folder, exist_ok=True)
      event_files.write_scalars(folder, found['step'], scalars)
    except (OSError, tf.errors.OpError) as error:
      reason = getattr(error, 'strerror', None) or failures.first_line(error)
      print(f'Note: TensorBoard does not get these scores, as {folder} cannot be written to ({reason})')


def split_name(args):
  """Returns what the images are called together, such as val."""
  return args.split if args.data_dir else os.path.splitext(os.path.basename(args.evaluation_data_list))[0]


class Examples(typing.NamedTuple):
  """What is evaluated.

  Attributes:
    names: list of str, each image's path below its folder, without extension.
    inputs: list of str, the paths of all files that are read.
    load: function of a number that returns an image, uint8 [H, W, 3], and its label, uint8 [H, W], or None.
    records: list of str, the record files, or None of other files.
    find_bad: function without arguments that returns the DataError of a bad example of them, or None.
  """
  names: list
  inputs: list
  load: typing.Callable
  records: list | None = None
  find_bad: typing.Callable | None = None


def open_examples(args, dataset):
  """Returns the Examples that the flags name."""
  if args.data_dir:
    return open_records(args, dataset)
  listed = lists.read_list(args.evaluation_data_list)
  labels = None
  if args.label_data_dir == 'none':
    images = [lists.find_image(args.image_data_dir, name) for name in listed]
  else:
    images, labels = zip(*lists.find_pairs(args.image_data_dir, args.label_data_dir, listed))
  names = [os.path.splitext(os.path.relpath(path, args.image_data_dir))[0] for path in images]

  paths = [*images, *(labels or ()), args.evaluation_data_list]
  if labels is None:
    return Examples(names, paths, lambda index: (image_files.read_image(images[index]), None))
  pairs = [lists.Pair(*pair, dataset, name) for *pair, name in zip(images, labels, names)]
  return Examples(names, paths, lambda index: schema.read_pair(pairs[index]))


def open_records(args, dataset):
  """Returns the same of --data_dir; names are looked up only if results are to carry them."""
  paths = tf_records.record_files(args.data_dir, args.split)
  index = record_index.read(args.data_dir, args.split)
  record_index.check_classes(index, dataset, args.split, args.data_dir)
  records = tf_records.Records(paths)
  names = [''] * len(records)
  for index in range(len(records)) if args.save_predictions or args.report else ():
    source = records.source(index)
    name = schema.file_name(tf_records.parse(records.load(index), source))
    if name is None and args.save_predictions:
      raise DataError(f'{source} does not hold the name of its image, which --save_predictions needs; write '
                      'the records again, or give images, labels and list')
    names[index] = source if name is None else os.path.splitext(name)[0]

  def load(index):
    source = records.source(index)
    image, label = schema.decode(tf_records.parse(records.load(index), source), dataset, source)
    return np.asarray(image), label

  return Examples(names, paths, load, paths, functools.partial(tf_records.find_bad_example, paths, dataset))
