"""What a training is about to do, decided from flags, folder and data before anything is written."""
import bisect
import dataclasses
import functools
import os
import typing

from commands import flags, model_config, training_checks
from dataset import class_uniform, inputs, record_index, tf_records
from dataset.descriptors import Dataset
from deeplab_model import deeplabv3_plus_model_fn
from nets import backbones
from nets.architecture import Architecture
from training import batch_size as batch_sizes
from training import checkpoints, history, losses, validation
from training.validation import Validation
from utils.errors import DataError, UsageError
from utils.settings import Settings


class Model(typing.NamedTuple):
  """Which network is trained, by the flags or by what an earlier run left in model_dir.

  Attributes:
    pre_trained_model: the prefix of a checkpoint that a new model starts from, or None.
  """
  architecture: Architecture
  dataset: Dataset
  pre_trained_model: str | None


class Data(typing.NamedTuple):
  """The records of --data_dir; each dict has the keys train and val.

  Attributes:
    files: dict of lists of paths. counts: dict of the numbers of examples.
    fingerprints: dict of texts, equal for the same examples.
    weight_of_class: K floats by which the classes count in the loss, or None.
    sampling: class_uniform.Plan of an epoch, or None if each example comes once.
  """
  files: dict[str, list[str]]
  counts: dict[str, int]
  fingerprints: dict[str, str]
  weight_of_class: list[float] | None
  sampling: class_uniform.Plan | None


class Position(typing.NamedTuple):
  """Where a run stands: known by its checkpoint, the history, and the evaluations so far.

  Attributes:
    checkpoint: the prefix to go on from, or None. step: its global step.
    images: how many images training has seen since --initial_global_step, whatever the batch sizes were.
    past: the history of the model with this run in it.
    basis: what this run's scores are made of: images, records, weights; see Validation.comparable.
    validation: the evaluations so far; None before there is a folder of this training.
  """
  checkpoint: str | None
  step: int
  images: int
  past: list[history.Entry]
  basis: dict[str, typing.Any]
  validation: Validation | None = None

  def read_validation(self, model_dir: str) -> Validation:
    return Validation(model_dir, self.step, self.basis, history.records_since(self.past))


class Rounds(typing.NamedTuple):
  """When rounds of training end.

  Attributes:
    last: the step at which training ends.
    is_end: function of a step from the position on: whether a round ends there.
    is_pending: whether the position is such an end without a score.
  """
  last: int
  is_end: typing.Callable[[int], bool]
  is_pending: bool


def read_model(args, folder):
  """Returns the Model; a training_folder.Folder with a checkpoint says what it has been so far."""
  stored = folder.stored
  architecture, dataset = model_config.resolve(args, stored)
  if stored and (stored.dataset.name, stored.dataset.ignore_label) != (dataset.name, dataset.ignore_label):
    before, now = (f"'{data.name}' (ignore label {data.ignore_label})" for data in (stored.dataset, dataset))
    raise UsageError(f'--dataset is {now}, but the model in {args.model_dir} was trained on {before}; leave '
                     f'the flag out, or start a new --model_dir with --pre_trained_model {args.model_dir}')
  return Model(architecture, dataset, None if folder.checkpoint else find_pre_trained_model(args))


def find_pre_trained_model(args):
  """Returns the prefix of the checkpoint that a new model starts from, or None for new weights."""
  if args.pre_trained_model == 'none':
    return None
  try:
    prefix = checkpoints.resolve(args.pre_trained_model)
  except DataError as error:
    raise DataError(f'--pre_trained_model: {error}; or none to train from scratch') from error
  if os.path.realpath(os.path.dirname(prefix)) == os.path.realpath(
      os.path.join(args.model_dir, validation.BEST)):
    raise UsageError(f'--pre_trained_model {args.pre_trained_model} is the best of an earlier training in '
                     '--model_dir, which a new one begins without; give another --model_dir')
  return prefix


def read_data(args, dataset):
  """Returns the Data; raises DataError if it does not fit the dataset."""
  files = {split: tf_records.record_files(args.data_dir, split) for split in ('train', 'val')}
  indexes = {split: record_index.read(args.data_dir, split) for split in files}
  for split, index in indexes.items():
    record_index.check_classes(index, dataset, split, args.data_dir)
  counts = {split: record_index.count_examples(indexes[split], files[split]) for split in files}
  print(f'{dataset.name}: {dataset.num_classes} classes, {counts["train"]} training and '
        f'{counts["val"]} validation examples; seed {args.seed}')
  return Data(files, counts, {split: tf_records.fingerprint(files[split]) for split in files},
              find_class_weights(args, indexes['train']), find_sampling(args, indexes['train']))


def find_class_weights(args, index):
  """Returns the weight of each class in the loss, a list of floats, or None if all weigh the same."""
  if args.class_weights == 'none':
    return None
  areas = index and index.get('class_image_pixels')
  if not areas:
    raise DataError(f'--class_weights {args.class_weights} needs the pixel counts in {args.data_dir}/'
                    'train.json, which is not there, does not fit the records, or was written by an earlier '
                    'version or with --fast; convert the data again, or leave the flag out')
  names, pixels = index['dataset']['class_names'], index['class_pixels']
  weights = losses.median_frequency_weights(pixels, areas, args.class_weight_limit)
  absent = [name for name, count in zip(names, pixels, strict=True) if not count]
  print('class weights: ' + ', '.join(f'{name} {weight:.3g}' for name, weight in zip(names, weights))
        + f'; without a pixel: {", ".join(absent)}' * bool(absent))
  return weights


def find_sampling(args, index):
  """Returns the class_uniform.Plan of the training examples, or None if each comes once an epoch."""
  found = class_uniform.plan(index, args.class_uniform, os.path.join(args.data_dir, 'train.json'))
  if found:
    print(f'class-uniform: {found.num_uniform} of the {found.num_examples} places of an epoch are drawn by '
          f'class, of {len(found.members)} classes')
  return found


def find_batch_size(args, machines, folder, model, data):
  """Returns --batch_size, an int: of auto what was found in an earlier run, or else fits the GPUs.

  Raises:
    DataError: there are too few examples for a step.
  """
  found = args.batch_size
  if found == 'auto':
    past = folder.stored.history[-1:] if folder.stored else []
    before = past and past[0]['flags'].get('batch_size')
    is_known = type(before) is int and before > 0  # a file can say anything
    found = before if is_known else largest_batch_size(args, machines, model, data)
    print(f'--batch_size auto is {found}' + ', as before' * is_known)
    training_checks.check_batch_size(found, args.num_gpus, machines.task.workers)
  if data.counts['train'] < found * args.accumulate_steps:
    raise DataError(f'{args.data_dir} has {data.counts["train"]} training examples, fewer than --batch_size '
                    f'{found} x --accumulate_steps {args.accumulate_steps}; give smaller ones or '
                    'more data')
  return found


def largest_batch_size(args, machines, model, data):
  """Returns what --batch_size auto stands for, an int."""
  make_batches = functools.partial(
      inputs.synthetic_dataset, crop_size=tuple(args.crop_size), num_classes=model.dataset.num_classes)
  settings = dataclasses.replace(read_settings(args, machines, model, data), pre_trained_model=None)
  each = batch_sizes.largest_on_gpu(deeplabv3_plus_model_fn, {**params(model, settings), 'xla': args.xla},
                                    make_batches)
  examples = data.counts['train'] // args.accumulate_steps // args.num_gpus
  return max(1, min(each, examples)) * args.num_gpus


def read_settings(args, machines, model, data, last_step=None):
  """Returns the Settings of a training up to a step."""
  given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)
           if hasattr(args, field.name)}
  if args.batch_size != 'auto':
    given['images_per_step'] = images_per_step(args)
  decay = args.batch_norm_decay or backbones.get(model.architecture.base_architecture).batch_norm_decay
  dataset = model.dataset
  return Settings(**{
      **given, **machines.compute, 'class_names': dataset.class_names, 'palette': dataset.palette,
      'ignore_label': dataset.ignore_label, 'batch_norm_decay': decay, 'num_train': data.counts['train'],
      'weight_of_class': data.weight_of_class, 'pre_trained_model': model.pre_trained_model,
      'last_step': last_step})


def params(model, settings):
  """Returns the params of the model_fn."""
  return {**vars(model.architecture), **vars(settings)}


def images_per_step(args):
  return args.batch_size * args.accumulate_steps


def find_position(args, folder, data):
  """Returns the Position at which training goes on, and prints what this run does otherwise."""
  step = folder.step
  past = find_history(args, folder.stored, step, data.counts['train'], data.fingerprints['train'])
  basis = {'images': data.counts['val'], 'records': data.fingerprints['val'], 'weights': args.weights}
  found = Position(folder.checkpoint, step, images_seen(args, past, step), past, basis)
  if not folder.checkpoint:
    return found
  scored = found.read_validation(args.model_dir)
  if scored.is_of_other_records:
    print('The validation records hold other examples than before: earlier scores count no more, neither for '
          'the best nor for --early_stopping_evals')
  return found._replace(validation=scored)


def find_history(args, stored, step, num_train, train_records):
  """Returns the history of the model with this run in it, and prints what this run does otherwise.

  Args:
    args: the parsed flags.
    stored: model_config.Stored of an earlier run, or None.
    step: int, at which this run begins.
    num_train: int, the training examples.
    train_records: str, their fingerprint.
  """
  past = history.until(stored.history, step) if stored else []
  new = history.Entry(step=step, images_per_step=images_per_step(args), num_train=num_train,
                      train_records=train_records, flags=flags.values(args, recorded=True))
  changes = history.changes(past, new, ignored=flags.MODEL_FLAGS)
  if changes:
    print(f'Changed from step {step} on: ' + ', '.join(
        f'--{name} {_shown(before)} became {_shown(now)}' for name, (before, now) in changes.items()))
  if past and past[-1]['train_records'] not in (None, train_records):
    print(f'The training records hold other examples than before: earlier evaluations do not count for '
          f'--early_stopping_evals, and epochs are of {num_train} examples, not {past[-1]["num_train"]}')
  return history.extended(past, new)


def _shown(value):
  return ' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value


def images_seen(args, past, step):
  """Returns how many images training has seen since --initial_global_step, whatever the batch sizes were."""
  if step < args.initial_global_step:
    raise UsageError(f'--initial_global_step {args.initial_global_step} lies ahead of the step at which '
                     f'training starts, {step}; give {step}, or a --model_dir with that checkpoint')
  return history.images_between(past, args.initial_global_step, step, images_per_step(args))


def plan_rounds(args, data, position):
  """Returns the Rounds from a Position on."""
  last, is_end = round_ends(args, data.counts['train'], position.step, position.images)
  return Rounds(last, is_end, bool(position.validation and is_end(position.step) and position.step not in [
      entry['step'] for entry in position.validation.evaluations]))


def round_ends(args, num_train, step, position):
  """Returns the global step at which training ends, and a function that tells whether a round ends at a step.

  Epochs follow one another without a gap: 26 epochs of 103 images in batches of 10, evaluated every 10, end
  at steps 103, 206 and 267 (267.8 rounded down), so the last partial round is trained too and at most one
  partial batch in all is left out.

  Args:
    args: the parsed flags.
    num_train: int, the training examples.
    step: int, the global step.
    position: int, the images seen since --initial_global_step.
  """
  def end(number):
    epoch = min(number * args.epochs_per_eval, args.train_epochs)
    found = step + (epoch * num_train - position) // images_per_step(args)
    return min(found, args.max_steps or found)

  numbers = range(1, -(-args.train_epochs // args.epochs_per_eval) + 1)  # there can be a hundred million

  def is_end(at):
    place = bisect.bisect_left(numbers, at, key=end)
    return place < len(numbers) and end(numbers[place]) == at

  return max(step, end(numbers[-1])), is_end


def is_finished(args, position, rounds):
  """Whether there is nothing left to train, nor to evaluate; prints why."""
  if rounds.is_pending:
    return False
  if rounds.last == position.step:
    print(f'Nothing left to train: {position.checkpoint} has reached step {position.step}; raise '
          f'--train_epochs {args.train_epochs}{" or --max_steps" if args.max_steps else ""}, or give '
          f'--initial_global_step {position.step} to count the epochs from here')
  elif is_stopped_early(args, position.validation):
    print(f'Nothing left to train: the last {args.early_stopping_evals} evaluations found no better mean '
          'IoU; raise --early_stopping_evals to go on')
  else:
    return False
  return True


def is_stopped_early(args, validation):
  return bool(args.early_stopping_evals and validation
              and validation.evaluations_since_best() >= args.early_stopping_evals)
