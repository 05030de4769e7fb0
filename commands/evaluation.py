"""An evaluation: the examples are found, and the model is run over them (evaluate.py)."""
import collections
import functools
import os
import tempfile
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from commands import checkpoint_watch, evaluation_report, model_config
from dataset import conversion, image_files, inputs, lists, predictions, schema, tf_records, views
from deeplab_model import deeplabv3_plus_model_fn
from training import checkpoint_store, checkpoints, event_files, run_config
from training.tf_estimator import Estimator
from utils import devices, failures, files, scores
from utils.errors import DataError
from utils.progress import Progress


def main(args):
  """Scores a model, or only predicts, as the flags say."""
  if args.watch:
    checkpoint_watch.wait_for_first(args.model_dir)
  stored = model_config.read(args.model_dir)
  model_config.check_views(args, stored)
  architecture, dataset = model_config.resolve(args, stored)
  examples = open_examples(args, dataset)
  looks = views.read_flags(args, architecture.output_stride)
  devices.take(precision=args.precision)
  has_several = args.watch or args.all_checkpoints
  numbered = checkpoint_store.numbered(args.model_dir)
  checkpoint = numbered[-1][1] if has_several and numbered else checkpoints.latest_or_error(args.model_dir)
  args.weights = model_config.weights(args, checkpoint)
  params = {**vars(architecture), 'class_names': dataset.class_names, 'ignore_label': dataset.ignore_label,
            'weights': args.weights,
            **run_config.compute_params(args.precision, args.data_format, training=False)}
  evaluation = Evaluation(args, dataset, examples, params, looks)
  if has_several:
    evaluation.score_all()
  else:
    evaluation.score_one(checkpoint)


class Evaluation:
  """What is evaluated, and where the results go."""

  def __init__(self, args, dataset, examples, params, looks):
    """Checks and makes the places of the results.

    Args:
      args: the parsed flags.
      dataset: Dataset of the model.
      examples: Examples.
      params: dict, those of the model_fn but the checkpoint.
      looks: views.Views.
    """
    self._args, self._dataset, self._examples, self._params = args, dataset, examples, params
    self._looks = looks
    self._paths = None
    if args.save_predictions:
      predictions.check_submission(args.submission, dataset)
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

  def score_one(self, checkpoint):
    """Evaluates a checkpoint, and prints and writes all there is to say of it."""
    args, count = self._args, len(self._examples.names)
    what = checkpoints.described(checkpoint, args.weights)
    print(f'Evaluating {what} on {count} images; on {devices.describe()}', flush=True)
    result, results = self._run(checkpoint)
    if result:
      print(scores.report(results.tally.matrix, self._dataset.class_names))
      print('\n' + scores.table(results.tally.scores()))
      found = self._described(checkpoint, result, results)
      self._write_events(found)
    if args.report:
      self._write_report(found, results)
      page = os.path.join(args.report, evaluation_report.PAGE)
      print(f'The report is {page}; look at it: {files.opening(page)}')
    if args.json:
      files.write_json(args.json, found)
    if args.save_predictions:
      print(f'{count} predictions are in {args.save_predictions}; look at them: '
            + files.opening(args.save_predictions))

  def score_all(self):
    """Evaluates the checkpoints of --all_checkpoints and --watch, a line each, and names the best."""
    args, best, evaluated = self._args, None, []
    what = checkpoints.described(f'the checkpoints in {args.model_dir}', args.weights)
    print(f'Evaluating {what} on {len(self._examples.names)} images; on {devices.describe()}', flush=True)
    try:
      for _, checkpoint in checkpoint_watch.checkpoints(args.model_dir, args.all_checkpoints, args.watch):
        found, results = self._scored_if_good(checkpoint)
        if found is None:
          continue
        evaluated.append(found)
        is_best = best is None or found['mean_iou'] > best['mean_iou']
        best = found if is_best else best
        print(f'step {found["step"]}: mean Intersection over Union {found["mean_iou"]:.4f}, Pixel Accuracy '
              f'{found["px_accuracy"]:.4f}' + '; the best so far' * (is_best and len(evaluated) > 1),
              flush=True)
        if args.report and is_best:
          self._write_report(found, results)
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
    """Returns a checkpoint's scores and Results; (None, None) and a line on it if it is damaged or gone."""
    try:
      what = checkpoint_store.problem(checkpoint)
      if what is None and self._args.weights == 'ema' and not checkpoints.has_averages(checkpoint):
        what = 'holds no averaged weights'
      if what is None:
        result, results = self._run(checkpoint)
        found = self._described(checkpoint, result, results)
        self._write_events(found)
        return found, results
    except DataError as error:
      what = f'cannot be read ({error})'
      if os.path.exists(checkpoint + '.index'):
        raise
    if not os.path.exists(checkpoint + '.index'):
      what = 'was removed meanwhile, as a training does with old ones'
    print(f'{checkpoint} {what}; skipped', flush=True)
    return None, None

  def _run(self, checkpoint):
    """Runs the model once over all images; returns a dict of its global_step, or None, and Results."""
    save = None
    if self._paths:
      def save(index, classes):
        predictions.save(self._paths[index], classes, self._dataset, self._args.submission)
    gallery = evaluation_report.Gallery(self._args.report_images) if self._args.report else None
    results = Results(self._examples.names, self._dataset, save, gallery)
    scored = self._args.label_data_dir != 'none'
    if not self._looks.is_plain:
      run_views({**self._params, 'checkpoint': checkpoint}, self._examples, self._looks, results)
      step = checkpoint_store.step_of(checkpoint)
      return {'global_step': step} if scored else None, results
    model_fn = predictions.watching(deeplabv3_plus_model_fn, results.add, with_images=gallery is not None)
    return run_model(model_fn, {**self._params, 'checkpoint': checkpoint}, self._examples, scored), results

  def _described(self, checkpoint, result, results):
    """Returns all that is known of an evaluated checkpoint, a dict for JSON."""
    averaged = {'weights': 'ema'} if self._args.weights == 'ema' else {}
    return {'checkpoint': checkpoint, 'step': int(result['global_step']), **averaged,
            'images': len(self._examples.names), **results.tally.scores(),
            'confusion_matrix': results.tally.matrix.tolist()}

  def _write_report(self, found, results):
    evaluation_report.write(self._args.report, run_name(self._args), found, results.tally.images,
                            results.gallery, self._dataset)

  def _write_events(self, found):
    """Writes the scores for TensorBoard beside the checkpoints, or says that it cannot be done."""
    folder = os.path.join(self._args.model_dir, event_files.OF_EVALUATION, run_name(self._args))
    scalars = {title: value for title, value in found.items() if isinstance(value, float)}
    scalars.update({scores.iou_tag(name): value for name, value in found['iou'].items()
                    if value is not None})
    try:
      os.makedirs(folder, exist_ok=True)
      event_files.write_scalars(folder, found['step'], scalars)
    except (OSError, tf.errors.OpError) as error:
      reason = getattr(error, 'strerror', None) or checkpoint_store.first_line(error)
      print(f'Note: TensorBoard does not get these scores, as {folder} cannot be written to ({reason})')


class Results:
  """What becomes of the images' results, which come one by one, in the order of the images.

  Attributes:
    tally: scores.Tally.
    gallery: evaluation_report.Gallery, or None.
  """

  def __init__(self, names, dataset, save=None, gallery=None):
    """Makes an empty one.

    Args:
      names: list of str, what the images are called.
      dataset: Dataset of the model.
      save: function of (index, classes) that writes a prediction, or None.
      gallery: evaluation_report.Gallery that takes the images too, or None.
    """
    self._names, self._save, self.gallery = iter(enumerate(names)), save, gallery
    self.tally = scores.Tally(dataset.class_names, dataset.ignore_label)

  def add(self, classes, label=None, image=None):
    """Takes the next image's result.

    Args:
      classes: uint8 [H, W], 0..K-1.
      label: uint8 [H, W], 0..K-1 or the ignore label; None without labels.
      image: uint8 [H, W, 3], RGB; None without a gallery.
    """
    index, name = next(self._names)
    if self._save:
      self._save(index, classes)
    if label is not None:
      found = self.tally.add(name, classes, label)
      if self.gallery:
        self.gallery.add(found, image, label, classes)


def split_name(args):
  """Returns what the images are called together, such as val."""
  return args.split if args.data_dir else os.path.splitext(os.path.basename(args.evaluation_data_list))[0]


def run_name(args):
  """Returns what the run of these images is called in TensorBoard: as split_name, but no path."""
  name = os.path.basename(split_name(args))
  name = 'images' if name in ('', os.curdir, os.pardir) else name
  return name + '_ema' * (args.weights == 'ema')


class Examples(typing.NamedTuple):
  """What is evaluated.

  Attributes:
    names: list of str, each image's path below its folder, without extension.
    input_fn: function without arguments that returns the tf.data.Dataset.
    inputs: list of str, the paths of all files that are read.
    load: function of a position that returns an image, uint8 [H, W, 3], and its label, uint8 [H, W], or None.
    find_bad: function without arguments that returns the DataError of a bad example, or None.
  """
  names: list
  input_fn: typing.Callable
  inputs: list
  load: typing.Callable
  find_bad: typing.Callable = None


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
    return Examples(names, functools.partial(inputs.image_dataset, images), paths,
                    lambda index: (image_files.read_image(images[index]), None))
  pairs = tf_records.Files([lists.Pair(*pair, dataset, name) for *pair, name in zip(images, labels, names)])
  return Examples(names, functools.partial(inputs.folder_dataset, images, labels, dataset), paths,
                  functools.partial(load, pairs, dataset))


def open_records(args, dataset):
  """Returns the same of --data_dir; names are looked up only if results are to carry them."""
  paths = tf_records.record_files(args.data_dir, args.split)
  index = conversion.read_index(args.data_dir, args.split)
  conversion.check_classes(index, dataset, args.split, args.data_dir)
  records = tf_records.Records(paths)
  names = [''] * len(records)
  for index in range(len(records)) if args.save_predictions or args.report else ():
    source = records.source(index)
    name = schema.file_name(tf_records.parse(records.load(index), source))
    if name is None and args.save_predictions:
      raise DataError(f'{source} does not hold the name of its image, which --save_predictions needs; write '
                      'the records again, or give images, labels and list')
    names[index] = source if name is None else os.path.splitext(name)[0]
  return Examples(names, functools.partial(inputs.eval_dataset, paths, dataset), paths,
                  functools.partial(load, records, dataset),
                  functools.partial(tf_records.find_bad_example, paths, dataset))


def load(source, dataset, index):
  """Returns an example's image, uint8 [H, W, 3], and label, uint8 [H, W].

  Args:
    source: tf_records.Records or tf_records.Files.
    dataset: Dataset.
    index: int.
  """
  name = source.source(index)
  image, label = schema.decode(tf_records.parse(source.load(index), name), dataset, name)
  return np.asarray(image), label


def run_views(params, examples, looks, results):
  """Predicts the views of all images, and hands the merged predictions to Results."""
  loaded, sizes = {}, collections.deque()

  def read(index):
    loaded[index] = examples.load(index)
    return loaded[index][0]

  count = len(examples.names)
  with (tempfile.TemporaryDirectory() as scratch, devices.without_autotuning(),
        failures.explaining(looks.memory_advice, examples.find_bad),
        Progress(count, 'evaluating', 'image') as progress):
    estimator = Estimator(deeplabv3_plus_model_fn, scratch, run_config.run_config(), params)
    predictions = estimator.predict(
        functools.partial(inputs.view_dataset, range(count), looks, sizes, None, read), 'probabilities',
        None, params['checkpoint'])
    merged = views.merged(predictions, sizes, looks, params['num_classes'], progress.view)
    for index, prediction in enumerate(merged):
      image, label = loaded.pop(index)
      results.add(prediction['classes'][:, :, 0], label, image)
      progress.update()


def run_model(model_fn, params, examples, scored):
  """Runs the model once over all images; returns the scores, or None if there are no labels."""
  hooks = [run_config.ProgressBarHook(len(examples.names), 'evaluating')]
  advice = ('every image is evaluated whole: scale down the largest, or cut them into parts, or end other '
            'programs that hold memory')
  # An Estimator writes event files beside its checkpoints, with fewer scores than there are.
  with (tempfile.TemporaryDirectory() as scratch, devices.without_autotuning(),
        failures.explaining(advice, examples.find_bad)):
    estimator = Estimator(model_fn, scratch, run_config.run_config(), params)
    if scored:
      return estimator.evaluate(examples.input_fn, hooks=hooks, checkpoint_path=params['checkpoint'])
    for _ in estimator.predict(examples.input_fn, 'classes', hooks, params['checkpoint']):
      pass  # model_fn saves them
  return None
