"""An evaluation: the examples are found, and the model is run over them (evaluate.py)."""
import functools
import os
import tempfile
import typing

from cli import model_config
from dataset import conversion, inputs, lists, predictions, schema, tf_records
from deeplab_model import deeplabv3_plus_model_fn
from utils import checkpoints, devices, failures, files, metrics, run_config, validation
from utils.errors import DataError
from utils.tf_estimator import Estimator


def main(args):
  """Scores a model, or only predicts, as the flags say."""
  architecture, dataset = model_config.resolve(args, model_config.read(args.model_dir))
  examples = open_examples(args, dataset)
  names = examples.names

  devices.take(precision=args.precision)
  checkpoint = checkpoints.latest_or_error(args.model_dir)
  model_fn = deeplabv3_plus_model_fn
  if args.save_predictions:
    predictions.check_submission(args.submission, dataset)
    paths = predictions.output_paths(args.save_predictions, names, args.submission, split_name(args))
    files.check_outputs(paths, examples.inputs, '--save_predictions')
    files.make_folder(args.save_predictions, '--save_predictions')
    model_fn = predictions.saving(model_fn, paths, dataset, args.submission)
  if args.json:
    files.check_json_output(args.json, '--json')
    files.make_folder_of(args.json, '--json')

  print(f'Evaluating {checkpoint} on {len(names)} images; on {devices.describe()}', flush=True)
  params = {**vars(architecture), 'class_names': dataset.class_names,
            'ignore_label': dataset.ignore_label, 'checkpoint': checkpoint,
            **run_config.compute_params(args.precision, args.data_format, training=False)}
  result = run_model(model_fn, params, examples, scored=args.label_data_dir != 'none')
  if result:
    print(metrics.report(result, dataset.class_names))
  if args.json:
    matrix = result['confusion_matrix']  # rows are true classes, columns predicted ones
    files.write_json(args.json, {'checkpoint': checkpoint, 'images': len(names),
                                 **validation.scores(matrix, dataset.class_names),
                                 'confusion_matrix': matrix.tolist()})
  if args.save_predictions:
    print(f'{len(names)} predictions are in {args.save_predictions}')


def split_name(args):
  """Returns what the images are called together, such as val."""
  return args.split if args.data_dir else os.path.splitext(os.path.basename(args.evaluation_data_list))[0]


class Examples(typing.NamedTuple):
  """What is evaluated.

  Attributes:
    names: list of str, each image's path below its folder, without extension.
    input_fn: function without arguments that returns the tf.data.Dataset.
    inputs: list of str, the paths of all files that are read.
    find_bad: function without arguments that returns the DataError of a bad example, or None.
  """
  names: list
  input_fn: typing.Callable
  inputs: list
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
    return Examples(names, functools.partial(inputs.image_dataset, images), paths)
  return Examples(names, functools.partial(inputs.folder_dataset, images, labels, dataset), paths)


def open_records(args, dataset):
  """Returns the same of --data_dir; names are looked up only if predictions are to carry them."""
  paths = tf_records.record_files(args.data_dir, args.split)
  index = conversion.read_index(args.data_dir, args.split)
  conversion.check_classes(index, dataset, args.split, args.data_dir)
  records = tf_records.Records(paths)
  names = [''] * len(records)
  for index in range(len(records)) if args.save_predictions else ():
    source = records.source(index)
    name = schema.file_name(tf_records.parse(records.load(index), source))
    if name is None:
      raise DataError(f'{source} does not hold the name of its image, which --save_predictions needs; write '
                      'the records again, or give images, labels and list')
    names[index] = os.path.splitext(name)[0]
  return Examples(names, functools.partial(inputs.eval_dataset, paths, dataset), paths,
                  functools.partial(tf_records.find_bad_example, paths, dataset))


def run_model(model_fn, params, examples, scored):
  """Runs the model once over all images; returns the scores, or None if there are no labels."""
  hooks = [run_config.ProgressBarHook(len(examples.names), 'evaluating')]
  advice = ('every image is evaluated whole: scale down the largest, or cut them into parts, or end other '
            'programs that hold memory')
  # An Estimator writes event files beside its checkpoints; scoring a model leaves its folder alone.
  with (tempfile.TemporaryDirectory() as scratch, devices.without_autotuning(),
        failures.explaining(advice, examples.find_bad)):
    estimator = Estimator(model_fn, scratch, run_config.run_config(), params)
    if scored:
      return estimator.evaluate(examples.input_fn, hooks=hooks, checkpoint_path=params['checkpoint'])
    for _ in estimator.predict(examples.input_fn, 'classes', hooks, params['checkpoint']):
      pass  # model_fn saves them
  return None
