"""A training: everything is checked, and then it trains and evaluates (train.py)."""
import bisect
import collections.abc
import contextlib
import dataclasses
import functools
import glob
import os
import shlex
import shutil
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from commands import confusion_picture, flags, model_config
from dataset import class_uniform, conversion, inputs, tf_records
from deeplab_model import deeplabv3_plus_model_fn, resolved
from nets import backbones
from training import (
  batch_size,
  checkpoint_store,
  checkpoints,
  cluster,
  event_files,
  history,
  interrupts,
  locks,
  losses,
  optimizers,
  run_config,
  summaries,
  training_hooks,
  validation,
)
from training.tf_estimator import Estimator, debug_hook, run_in_cluster
from training.validation import Validation
from utils import devices, failures, files, scores
from utils.errors import DataError, UsageError
from utils.settings import FLAGS_OF_LOSS, Settings, weight_of_loss

_EVENTS = 'events.out.tfevents.*'
_EVALUATED = ('eval', 'eval_ema', event_files.OF_EVALUATION)  # folders of curves


def main(args):
  """Trains as the flags say; a signal ends it with its exit status once all is saved."""
  requests = interrupts.Requests()
  try:
    with requests.catching(), contextlib.ExitStack() as stack:
      run(args, requests, stack)
  except interrupts.Interrupted:
    say_stopped(requests)
  if requests.signal:
    sys.exit(requests.status)


def say_stopped(requests):
  print(f'Stopped by {requests.signal.name}; all that was trained is saved, and the same command goes on '
        'from there', flush=True)


def run(args, requests, stack):
  """Checks everything, and then trains and evaluates.

  Args:
    args: the parsed flags.
    requests: interrupts.Requests.
    stack: contextlib.ExitStack that the model folder's lock is left to.
  """
  task = cluster.task_from_environment()
  check_crop(args)
  inputs.read_flags(args)  # refuses an augmentation that cannot be
  check_effects(args, task.workers)
  compute_params = check_devices(args, task)
  if args.deterministic:
    run_config.make_deterministic()
  is_new_folder = not os.path.isdir(args.model_dir)
  if task.is_chief and not is_new_folder:
    stack.enter_context(locks.locked(args.model_dir))
  # The model: flags, or what an earlier run left in model_dir.
  found = find_checkpoint(args)
  resume_from = found and found.prefix
  stored = model_config.read(args.model_dir) if resume_from else None
  architecture, dataset = model_config.resolve(args, stored)
  check_dataset(args, stored, dataset)
  decay = args.batch_norm_decay or backbones.get(architecture.base_architecture).batch_norm_decay
  pre_trained_model = None if resume_from else find_pre_trained_model(args)

  # The data.
  records = {split: tf_records.record_files(args.data_dir, split) for split in ('train', 'val')}
  indexes = {split: conversion.read_index(args.data_dir, split) for split in records}
  for split, index in indexes.items():
    conversion.check_classes(index, dataset, split, args.data_dir)
  counts = {split: conversion.count_examples(indexes[split], records[split]) for split in records}
  print(f'{dataset.name}: {dataset.num_classes} classes, {counts["train"]} training and '
        f'{counts["val"]} validation examples; seed {args.seed}')
  weight_of_class = find_class_weights(args, indexes['train'])
  sampling = find_sampling(args, indexes['train'])
  params = {
      **flags.values(args),
      **vars(architecture),
      **compute_params,
      'class_names': dataset.class_names,
      'palette': dataset.palette,
      'ignore_label': dataset.ignore_label,
      'batch_norm_decay': decay,
      'num_train': counts['train'],
      'weight_of_class': weight_of_class,
      'pre_trained_model': pre_trained_model,
  }
  if args.batch_size == 'auto':
    args.batch_size = stored_batch_size(stored) or find_batch_size(args, params)
    check_batch_size(args, task.workers)
  if counts['train'] < images_per_step(args):
    raise DataError(f'{args.data_dir} has {counts["train"]} training examples, fewer than --batch_size '
                    f'{args.batch_size} x --accumulate_steps {args.accumulate_steps}; give smaller ones or '
                    'more data')

  # How long to train on it.
  step = checkpoint_store.step_of(resume_from)
  train_records, val_records = (tf_records.fingerprint(records[split]) for split in ('train', 'val'))
  past = find_history(args, stored, step, counts['train'], train_records)
  position = find_position(args, past, step)
  basis = {'images': counts['val'], 'records': val_records, 'weights': args.weights}
  read_validation = functools.partial(
      Validation, args.model_dir, step, basis, history.records_since(past))
  validation = read_validation() if resume_from else None
  if validation and validation.is_of_other_records:
    print('The validation records hold other examples than before: earlier scores count no more, neither for '
          'the best nor for --early_stopping_evals')
  ends = round_ends(args, counts['train'], step, position)
  is_pending = bool(validation and step in ends and not validation.has(step))
  ends = ends[bisect.bisect_right(ends, step):]
  if not is_pending and is_finished(args, resume_from, step, ends, validation):
    return
  params.update(batch_size=images_per_step(args), max_steps=ends[-1] if ends else step)
  if ends:
    announce(args, params, counts['train'], step, ends[-1], position)
    warn_of_untrained_weights(args.crop_size, architecture)
    if not args.freeze_batch_norm:
      warn_of_folded_batch_norm(pre_trained_model)

  # From here on model_dir is written.
  if task.is_chief:
    files.make_folder(args.model_dir, '--model_dir')
    if is_new_folder:
      stack.enter_context(locks.locked(args.model_dir))
      if checkpoint_store.numbered(args.model_dir):
        raise UsageError(f'another training has just begun in --model_dir {args.model_dir}; start again')
    if args.clean_model_dir:
      clean(args.model_dir)
    if found:
      checkpoint_store.set_aside(args.model_dir, step, found.rejected)
    if resume_from:
      checkpoint_store.choose(args.model_dir, resume_from)
    model_config.write(args.model_dir, architecture, dataset, flags.values(args), past)
    is_best_aside = forget_later(args.model_dir, step, not resume_from, is_pending)
    validation = read_validation()
    validation.forget_later()
    if is_best_aside:
      keep_best(args.model_dir, validation, validation.comparable(basis))
  training = Training(args, task, requests, dataset, records, counts, params, validation, basis, sampling)
  training.run(resume_from, step, position, ends, is_pending)


def stored_batch_size(stored):
  """Returns what --batch_size auto stood for in an earlier run, or None.

  Args:
    stored: model_config.Stored of the earlier run, or None.
  """
  found = stored.history[-1]['flags'].get('batch_size') if stored and stored.history else None
  if type(found) is not int or found < 1:  # as a file can say
    return None
  print(f'--batch_size auto is {found}, as before')
  return found


def find_batch_size(args, params):
  """Returns what --batch_size auto stands for, an int."""
  make_batches = functools.partial(
      inputs.synthetic_dataset, crop_size=tuple(args.crop_size), num_classes=params['num_classes'])
  each = batch_size.largest_on_gpu(
      deeplabv3_plus_model_fn, {**params, 'pre_trained_model': None, 'batch_size': None}, make_batches)
  examples = params['num_train'] // args.accumulate_steps // args.num_gpus
  found = max(1, min(each, examples)) * args.num_gpus
  print(f'--batch_size auto is {found}')
  return found


def find_class_weights(args, index):
  """Returns the weight of each class in the loss, a list of floats, or None if all weigh the same."""
  if args.class_weights == 'none':
    return None
  areas = index and index.get('class_image_pixels')
  if not areas:
    raise DataError(f'--class_weights {args.class_weights} needs the pixel counts in {args.data_dir}/'
                    'train.json, which is not there, does not fit the records, or was written by an earlier '
                    'version or with --fast; convert the data again, or leave the flag out')
  names, pixels, limit = index['dataset']['class_names'], index['class_pixels'], args.class_weight_limit
  weights = losses.median_frequency_weights(pixels, areas, limit)
  unbounded = losses.median_frequency_weights(pixels, areas, float('inf'))
  bounded = [name for name, *both in zip(names, weights, unbounded, strict=True) if both[0] != both[1]]
  absent = [name for name, count in zip(names, pixels, strict=True) if not count]
  print('class weights: ' + ', '.join(f'{name} {weight:.3g}' for name, weight in zip(names, weights))
        + f'; bounded by --class_weight_limit {limit:g}: {", ".join(bounded)}' * bool(bounded)
        + f'; without a pixel: {", ".join(absent)}' * bool(absent))
  return weights


def find_sampling(args, index):
  """Returns the class_uniform.Plan of the training examples, or None if each comes once an epoch."""
  found = class_uniform.plan(index, args.class_uniform, os.path.join(args.data_dir, 'train.json'))
  if found:
    print(f'class-uniform: {found.num_uniform} of the {found.num_examples} places of an epoch are shared by '
          f'{len(found.members)} classes alike')
  return found


def check_dataset(args, stored, dataset):
  """Raises UsageError if a model was trained on another dataset so far, if only by name.

  Args:
    args: the parsed flags.
    stored: model_config.Stored of an earlier run, or None.
    dataset: Dataset.
  """
  if stored and (stored.dataset.name, stored.dataset.ignore_label) != (dataset.name, dataset.ignore_label):
    before, now = (f"'{data.name}' (ignore label {data.ignore_label})" for data in (stored.dataset, dataset))
    raise UsageError(f'--dataset is {now}, but the model in {args.model_dir} was trained on {before}; leave '
                     f'the flag out, or start a new --model_dir with --pre_trained_model {args.model_dir}')


def check_crop(args):
  if min(args.crop_size) < args.output_stride:
    raise UsageError(f'--crop_size {args.crop_size[0]} {args.crop_size[1]} is smaller than '
                     f'--output_stride {args.output_stride}; give crops of at least that size')


def check_effects(args, workers):
  """Raises UsageError if a flag would change nothing beside the others, on so many machines."""
  own_decay = backbones.get(args.base_architecture).batch_norm_decay
  takers = {flag: [part for part, names in FLAGS_OF_LOSS.items() if flag in names]
            for flag in sorted({flag for names in FLAGS_OF_LOSS.values() for flag in names})}
  flags.refuse_idle(
      args,
      *((flag, {*parts} & {*weight_of_loss(args.loss)}, f'without {" or ".join(parts)} in --loss, such as '
         f'--loss {args.loss},{parts[0]}') for flag, parts in takers.items()),
      ('weights', args.ema, 'without --ema, whose averages it means; give its decay, such as --ema 0.9998'),
      ('initial_learning_rate end_learning_rate max_iter', args.learning_rate_policy != 'piecewise',
       'with --learning_rate_policy piecewise, which has rates of its own'),
      ('batch_norm_decay', not args.freeze_batch_norm or args.batch_norm_decay == own_decay,
       'with --freeze_batch_norm, which keeps the averages'),
      ('sync_batch_norm', args.num_gpus * workers > 1, 'on one device'),
      ('sync_batch_norm', not args.freeze_batch_norm, 'with --freeze_batch_norm, which keeps the statistics'),
      ('weight_decay_scope', args.weight_decay, 'with --weight_decay 0'),
      ('hard_pixels_steps', args.hard_pixels < 1, 'with --hard_pixels 1, to which they fall'),
      ('class_weight_limit', args.class_weights != 'none', 'without --class_weights median_frequency'),
      ('collectives', workers > 1, 'on one machine'))


def check_devices(args, task):
  """Takes the GPUs asked for; returns the model_fn's params of --precision and --data_format.

  Raises:
    UsageError: the flags ask for more than the devices here can do.
  """
  gpus = len(tf.config.list_physical_devices('GPU'))
  if args.num_gpus > max(1, gpus):
    raise UsageError(f'--num_gpus is {args.num_gpus}, but TensorFlow sees {gpus} here; give at most '
                     f'{max(1, gpus)}, or check the driver and CUDA_VISIBLE_DEVICES')
  if task.workers > 1 and args.num_gpus < gpus:
    raise UsageError(f'--num_gpus is {args.num_gpus}, but TensorFlow sees {gpus} here, and one of several '
                     f'machines uses all of its GPUs; give --num_gpus {gpus}, or hide the others by '
                     'CUDA_VISIBLE_DEVICES')
  replicas = args.num_gpus * task.workers
  if args.batch_size == 'auto' and (not gpus or task.workers > 1):
    raise UsageError('--batch_size auto tries what fits on the GPUs of one machine, '
                     + ('and TensorFlow sees none' if not gpus else 'and here there are several')
                     + '; give a number')
  if args.batch_size != 'auto':
    check_batch_size(args, task.workers)
  if replicas > 1 and args.accumulate_steps > 1:
    raise UsageError('--accumulate_steps works on one device; leave it out, or train on one')
  if task.workers > 1 and args.early_stopping_evals:
    raise UsageError('--early_stopping_evals works on one machine; leave it out')
  if task.workers > 1 and args.clean_model_dir:
    raise UsageError('--clean_model_dir would remove what the other machines read; remove the folder before '
                     'they start')
  devices.take(args.num_gpus, args.precision)
  if args.xla and not gpus:
    print('Warning: --xla compiles for GPUs, and TensorFlow sees none; it has no effect here, unless '
          'TF_XLA_FLAGS says otherwise')
  params = run_config.compute_params(args.precision, args.data_format, training=True)
  devices.use_fast_batch_norm(params)
  return params


def check_batch_size(args, workers):
  replicas = args.num_gpus * workers
  if args.batch_size % replicas:
    raise UsageError(f'--batch_size {args.batch_size} cannot be shared by {replicas} devices evenly '
                     f'(--num_gpus {args.num_gpus}, {workers} machines); give a multiple')


def find_checkpoint(args):
  """Returns the checkpoint_store.Found in model_dir that training resumes from, or None for a new model."""
  if not os.path.isdir(args.model_dir):
    return None
  if args.clean_model_dir:
    check_cleanable(args.model_dir)
    return None
  found = checkpoint_store.find(args.model_dir)
  if found.prefix:
    print(f'Resuming from {found.prefix}')
  return found


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
  new = history.entry(step, images_per_step(args), num_train, flags.values(args, recorded=True),
                      train_records)
  changes = history.changes(past, new, ignored=flags.MODEL_FLAGS)
  if changes:
    print(f'Changed from step {step} on: ' + ', '.join(
        f'--{name} {_shown(before)} became {_shown(now)}' for name, (before, now) in changes.items()))
  if past and past[-1]['num_train'] not in (None, num_train):
    print(f'The training records held {past[-1]["num_train"]} examples before and hold {num_train} now; '
          'epochs are counted by the new number')
  if past and past[-1]['train_records'] not in (None, train_records):
    print('The training records hold other examples than before: earlier evaluations do not count for '
          '--early_stopping_evals')
  return history.extended(past, new)


def _shown(value):
  return ' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value


def find_position(args, past, step):
  """Returns how many images training has seen since --initial_global_step, whatever the batch sizes were."""
  if step < args.initial_global_step:
    raise UsageError(f'--initial_global_step {args.initial_global_step} lies ahead of the step at which '
                     f'training starts, {step}; give {step}, or a --model_dir with that checkpoint')
  return history.images_between(past, args.initial_global_step, step, images_per_step(args))


def round_ends(args, num_train, step, position):
  """Returns the global steps, from `step` on, at which a round of training ends, as Ends.

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

  numbers = range(1, -(-args.train_epochs // args.epochs_per_eval) + 1)
  last = bisect.bisect_left(numbers, end(numbers[-1]), key=end)  # the first that ends where all do
  return Ends(numbers[bisect.bisect_left(numbers, step, key=end):last + 1], end)


class Ends(collections.abc.Sequence):
  """Rising steps, each worked out when it is asked for: there can be a hundred million."""

  def __init__(self, numbers, end):
    """Args: a range, and a function that returns the step of a number in it."""
    self._numbers, self._end = numbers, end

  def __len__(self):
    return len(self._numbers)

  def __getitem__(self, item):
    found = self._numbers[item]
    return Ends(found, self._end) if isinstance(item, slice) else self._end(found)

  def __contains__(self, step):
    place = bisect.bisect_left(self, step)
    return place < len(self) and self[place] == step


def is_finished(args, resume_from, step, ends, validation):
  """Whether there is nothing left to train; prints why."""
  if not ends:
    print(f'Nothing left to train: {resume_from} has reached step {step}; raise --train_epochs '
          f'{args.train_epochs}{" or --max_steps" if args.max_steps else ""}, or give '
          f'--initial_global_step {step} to count the epochs from here')
  elif is_stopped_early(args, validation):
    print(f'Nothing left to train: the last {args.early_stopping_evals} evaluations found no better mean '
          'IoU; raise --early_stopping_evals to go on')
  else:
    return False
  return True


def is_stopped_early(args, validation):
  return bool(args.early_stopping_evals and validation
              and validation.evaluations_since_best() >= args.early_stopping_evals)


def announce(args, params, num_train, step, last, position):
  """Prints what is going to be trained, on what, and warns of what can hardly be meant."""
  count = images_per_step(args)
  images = (last - step) * count
  rates = optimizers.rates_at([step, last - 1], Settings.from_params(params))
  print(f'Training steps {step + 1} to {last}: {images} images, epochs {position / num_train:.4g} to '
        f'{(position + images) / num_train:.4g}, {count} images a step; learning rate {rates[0]:.3g} to '
        f'{rates[1]:.3g} ({args.learning_rate_policy}); on {devices.describe()}',
        flush=True)
  done, all_steps = step - args.initial_global_step, last - args.initial_global_step
  if args.warmup_steps >= all_steps:
    print(f'Warning: the learning rate only rises: --warmup_steps {args.warmup_steps} are no fewer than the '
          f'{all_steps} steps of this run; give fewer')
  if args.learning_rate_policy != 'piecewise':  # which does not fall by --max_iter
    if all_steps < args.max_iter / 2:
      print(f'Warning: the learning rate hardly falls: its end is after --max_iter {args.max_iter} steps, '
            f'that of this run after {all_steps}; --max_iter {all_steps} lets it fall to --end_learning_rate')
    elif done >= args.max_iter or all_steps > 1.5 * args.max_iter:
      print(f'Warning: the learning rate has reached --end_learning_rate after --max_iter {args.max_iter} '
            f'steps, and this run ends after {all_steps}; raise --max_iter')
  if not args.freeze_batch_norm:
    warn_of_slow_averages(params['batch_norm_decay'], last)


def images_per_step(args):
  return args.batch_size * args.accumulate_steps


def warn_of_slow_averages(decay, steps):
  """Says so if the moving averages of batch norm cannot settle within the run."""
  initial, better = decay ** steps, max(0.9, 1 - 5 / steps)
  if initial > 0.1:
    print(f'Warning: after {steps} steps at --batch_norm_decay {decay} the moving averages, which evaluation '
          f'uses, are still {initial:.0%} initial; '
          + (f'try --batch_norm_decay {better:.3g}' if better < decay else 'train longer'))


def warn_of_folded_batch_norm(prefix):
  """Says so if the checkpoint to start from, which may be None, does not survive batch norm's training."""
  if prefix and checkpoints.is_folded(prefix):
    print(f'Warning: batch norm is folded into the convolutions of {prefix} (its averages are 0); training '
          'it destroys such weights. Unfold them first by tools/recalibrate.py --unfold, or give '
          '--freeze_batch_norm')


def warn_of_untrained_weights(crop_size, architecture):
  """Says so if the outer weights of an atrous convolution see nothing but padding in every crop."""
  rates = resolved(architecture, backbones.get(architecture.base_architecture)).atrous_rates
  stride = architecture.output_stride
  sides = [-(-side // stride) for side in crop_size]  # of the features
  if unseen := [rate for rate in rates if rate >= min(sides)]:
    # The largest of the paper reaches over half of its features, 18 of 33.
    fitting = [max(1, min(sides) * number // (2 * len(rates))) for number in range(1, len(rates) + 1)]
    print(f'Warning: --crop_size {crop_size[0]} {crop_size[1]} makes features of {sides[0]}x{sides[1]}, in '
          f'which the outer weights of the ASPP with rate {", ".join(map(str, unseen))} see padding alone, '
          'are never trained, and disturb what is predicted for larger images. Give crops of '
          f'{max(unseen) * stride + 1} or more, or --atrous_rates {" ".join(map(str, fitting))}')


def check_cleanable(model_dir):
  """Raises UsageError if --clean_model_dir would remove something that is no model folder."""
  signs = ('checkpoint', '*.index', _EVENTS, model_config.FILE_NAME, validation.FILE_NAME)
  found = [path for pattern in signs for path in glob.glob(os.path.join(glob.escape(model_dir), pattern))]
  if set(os.listdir(model_dir)) - {locks.FILE_NAME} and not found:
    raise UsageError(f'--clean_model_dir: {model_dir} holds neither a checkpoint nor event files, so it '
                     f'is not removed; check --model_dir')


def clean(model_dir):
  """Removes all in model_dir but its lock; the folder itself, maybe a link or a mount point, stays."""
  # The last one tells what the folder is, should this be interrupted.
  for name in sorted(os.listdir(model_dir), key=lambda name: name == model_config.FILE_NAME):
    if name != locks.FILE_NAME:
      checkpoint_store.remove(os.path.join(model_dir, name))


def forget_later(model_dir, step, is_new, is_pending):
  """Cuts curves back to a step, and sets aside what an earlier training, or a later step, has left.

  Args:
    model_dir: str.
    step: int, from which training goes on.
    is_new: bool, whether there is no checkpoint of it.
    is_pending: bool, whether it is still to be evaluated.

  Returns:
    Whether the best checkpoint was of a later step.
  """
  tf.summary.FileWriterCache.clear()  # of an earlier training by this process; it would write beyond the cut
  best = os.path.join(model_dir, validation.BEST)
  held, scored = checkpoint_store.held(best), validation.best_scores(best)
  is_later = max(held[0] if held else -1, scored['step'] if scored else -1) > step
  left = [best] if is_later else []
  if is_new:
    names = ('checkpoint', validation.BEST, validation.FILE_NAME, *_EVALUATED)
    left = [path for path in (os.path.join(model_dir, name) for name in names) if os.path.lexists(path)]
    left += glob.glob(os.path.join(glob.escape(model_dir), _EVENTS)) if left else []
  if left:
    print(f'{", ".join(left)} {"were" if left[1:] else "was"} moved to '
          f'{checkpoint_store.move_aside(model_dir, left)}: training '
          + ('begins anew' if is_new else f'goes on from step {step}'))
  # What a run was told at this step, of which nothing else is left, is told again.
  event_files.cut(model_dir, lambda event: event.step < step + (not summaries.is_of_run(event.summary)))
  for folder in _EVALUATED:
    event_files.cut(os.path.join(model_dir, folder), lambda event: event.step <= step - is_pending)
  return is_later


def keep_best(model_dir, scored, contenders, newest=None):
  """Lets model_dir/best hold the checkpoint of the highest mean IoU, among those that are still there.

  Args:
    model_dir: str.
    scored: Validation.
    contenders: list of dicts, the evaluations that can be compared.
    newest: str, the checkpoint of the last one, if it has just been scored.
  """
  folder = os.path.join(model_dir, validation.BEST)
  step, held = checkpoint_store.held(folder) or (None, None)
  if held:
    weights = [(scores or {}).get('weights', 'raw')
               for scores in (contenders[-1], validation.best_scores(folder))]
    what = checkpoint_store.problem(held) or step not in [entry['step'] for entry in contenders] and (
        'was scored ' + ('on other images' if weights[0] == weights[1] else 'by other --weights'))
    if what:
      aside = checkpoint_store.move_aside(model_dir, [folder])
      print(f'The best so far, step {step} in {folder}, {what}; it begins anew, and that one is in {aside}')
      step = None
  lost, best = [], None
  for entry in sorted(contenders, key=lambda entry: (-entry['mean_iou'], entry['step'])):
    is_newest = newest and entry is contenders[-1]
    prefix = newest if is_newest else os.path.join(model_dir, f'{checkpoint_store.NAME}-{entry["step"]}')
    if entry['step'] == step or is_newest or checkpoint_store.problem(prefix) is None:
      best = entry
      break
    lost.append(entry)
  if lost:
    print(f'The checkpoint of the highest mean IoU, {lost[0]["mean_iou"]:.4f} at step {lost[0]["step"]}, is '
          'gone; the best is sought among the others')
  if best and best['step'] == step:
    print(f'The best is still step {step}, mean IoU {best["mean_iou"]:.4f}, in {folder}')
  elif best:
    files.make_folder(folder, '--model_dir')
    with files.replacing(os.path.join(folder, model_config.FILE_NAME)) as temporary:
      shutil.copyfile(os.path.join(model_dir, model_config.FILE_NAME), temporary)
    checkpoint_store.keep_best(prefix, folder)
    print(('The best so far' if is_newest else f'The best is step {best["step"]}')
          + ' by its averaged weights' * (best.get('weights') == 'ema') + f'; kept in {folder}', flush=True)
  if best:
    validation.write_best_scores(folder, scored.full(best))


class Training:
  """A training that is about to write model_dir."""

  def __init__(self, args, task, requests, dataset, records, counts, params, validation, basis,
               sampling=None):
    self.args, self.task, self.requests = args, task, requests
    self.dataset, self.records, self.counts = dataset, records, counts
    self.params, self.validation, self.basis, self.sampling = params, validation, basis, sampling
    self.result = {}  # of the last evaluation, by the weights that decide

  def run(self, resume_from, step, position, ends, is_pending):
    """Trains up to each of the steps `ends`, evaluating after each.

    Args:
      resume_from: str, the prefix of the checkpoint to go on from, or None.
      step: int, its global step.
      position: int, the images that it has seen.
      ends: sequence of ints.
      is_pending: bool, whether `step` is the end of a round that has not been evaluated.
    """
    args, task = self.args, self.task
    strategy = run_config.strategy(args.num_gpus, task.workers, args.collectives)
    self.estimator = Estimator(deeplabv3_plus_model_fn, args.model_dir,
                               run_config.run_config(args.seed, args.xla, strategy), self.params)
    # XLA would compile the network anew for each size of a validation image.
    self.evaluators = {weights: Estimator(
        deeplabv3_plus_model_fn, args.model_dir, run_config.run_config(args.seed, strategy=strategy),
        {**self.params, 'weights': weights,
         **run_config.compute_params(args.precision, args.data_format, training=False)})
        for weights in (('raw', 'ema') if args.ema else ('raw',))}
    stop = is_pending and task.is_chief and self.evaluate(step, resume_from)
    if ends and not stop:
      hook = self.hook(resume_from, step, position, ends)
      train = functools.partial(self.train, hook, self.train_options(position), ends[-1])
      if task.workers > 1:
        print(f'Waiting for all {task.workers} machines of TF_CONFIG', flush=True)
        # The last step is the last thing that is done together.
        with cluster.watching(args.model_dir, task, lambda: getattr(hook, 'step', 0) == ends[-1], self.lose):
          run_in_cluster(train, self.estimator)
      else:
        train()
      step = hook.step
      if self.requests.signal:
        print(f'Stopped by {self.requests.signal.name} at step {step}: saved in {hook.saved}; the same '
              'command goes on from there', flush=True)
        return
      if step < ends[-1] and not hook.stopping:  # an error that a session takes for the end of the data
        raise tf_records.find_bad_example(self.records['train'], self.dataset) or DataError(
            f'training ended at step {step}, and not at {ends[-1]}, as if there were no more data; look at '
            f'{args.data_dir}, and start again: it goes on from the last checkpoint')
    print(f'Look at it: {shlex.join(["tensorboard", "--logdir", args.model_dir])}')
    print(f'Done: {args.model_dir} is at step {step}' + (
        f', mean Intersection over Union {self.result["mean_iou"]:.4f}'
        if self.result and self.result['confusion_matrix'].any() else ''))

  def train_options(self, position):
    """Returns the inputs.TrainOptions of a training that has seen `position` images."""
    args = self.args
    return inputs.TrainOptions(
        **inputs.read_flags(args), images_per_replica=args.batch_size // (args.num_gpus * self.task.workers),
        padding_color=backbones.get(self.params['base_architecture']).padding_color,
        num_examples=self.counts['train'], first_example=position, cache=args.cache,
        sampling=self.sampling,
        threads=devices.input_threads() if args.input_threads is None else args.input_threads)

  def hook(self, resume_from, step, position, ends):
    """Returns the TrainingHook of a training from `step` on."""
    args = self.args
    plan = training_hooks.Plan(
        args.model_dir, ends, args.save_checkpoints_secs, args.save_checkpoints_steps,
        args.keep_checkpoint_max, args.save_summary_steps, step, self.task.is_chief, images_per_step(args),
        summaries.of_run(flags.values(args), self.dataset.class_names, self.dataset.palette))

    def names_of_batch(number):
      first = position + (number - 1 - step) * images_per_step(args)
      options = dataclasses.replace(self.train_options(position), first_example=first)
      return inputs.example_names(self.records['train'], options, images_per_step(args))

    return training_hooks.TrainingHook(
        plan, functools.partial(checkpoints.ResumeSaver, resume_from), self.requests, self.evaluate,
        names_of_batch, resume_from)

  def train(self, hook, options, last):
    """Trains to the step `last`."""
    files = self.records['train']
    try:
      with self.explaining('train', 'give a smaller --batch_size or --crop_size, or --recompute'):
        self.estimator.train(functools.partial(inputs.train_dataset, files, self.dataset, options),
                             hooks=[hook, *([debug_hook()] if self.args.debug else [])], max_steps=last)
    except UsageError:
      if self.requests.signal and not self.task.is_chief:  # all were told to stop, and the chief has saved
        raise interrupts.Interrupted() from None
      raise

  def lose(self):
    """Ends the process, from a thread: the main one may wait for a machine that was lost."""
    if self.requests.signal and not self.task.is_chief:
      say_stopped(self.requests)
      os._exit(self.requests.status)
    raise UsageError(failures.LOST_MACHINE)

  def evaluate(self, step, checkpoint):
    """Scores a checkpoint and keeps it if it is the best; returns whether to stop training early."""
    # A checkpoint of a training without --ema may still have to be scored.
    results = {weights: self.score(weights, step, checkpoint) for weights in self.evaluators
               if weights == 'raw' or checkpoints.has_averages(checkpoint)}
    deciding = self.args.weights if self.args.weights in results else 'raw'
    self.result = results[deciding]
    made_of = {name: self.basis[name] for name in ('images', 'records')}
    names = self.dataset.class_names
    of_weights = {weights: {**made_of, **scores.of_matrix(result['confusion_matrix'], names)}
                  for weights, result in results.items()}
    entry = of_weights.pop(deciding)
    if self.args.ema:
      entry = {**entry, 'weights': deciding, **of_weights}
    # First, so that a kill before the second leaves a round that is scored again.
    earlier = [other for other in self.validation.comparable(entry) if other['step'] != step]
    keep_best(self.args.model_dir, self.validation, [*earlier, {'step': step, **entry}], checkpoint)
    self.validation.add(step, entry)
    stop = is_stopped_early(self.args, self.validation)
    if stop:
      print(f'Stopping early: no better mean IoU in the last {self.args.early_stopping_evals} evaluations')
    return stop

  def score(self, weights, step, checkpoint):
    """Returns what the Estimator says of a checkpoint's weights, raw or ema; prints and writes it."""
    evaluator, name = self.evaluators[weights], 'ema' if weights == 'ema' else None
    replicas = self.args.num_gpus if self.task.workers == 1 else 1  # of several machines the chief alone
    files, count = self.records['val'], self.counts['val']
    bar = run_config.ProgressBarHook(count, 'evaluating', replicas)
    os.makedirs(evaluator.eval_dir(name), exist_ok=True)  # TensorFlow ignores the umask of a group
    with (devices.without_autotuning(),
          self.explaining('val', 'validation takes whole images, one at a time: end other programs that hold '
                          'memory, or validate on smaller images')):
      result = evaluator.evaluate(
          functools.partial(inputs.eval_dataset, files, self.dataset, -count % replicas), hooks=[bar],
          checkpoint_path=checkpoint, name=name)
    names = self.dataset.class_names
    print(f'step {step}, {"averaged weights, " if name else ""}validation on {self.args.data_dir}:')
    print(scores.report(result['confusion_matrix'], names), flush=True)
    picture = np.asarray(confusion_picture.draw(result['confusion_matrix'], list(names)))
    events = tf.summary.FileWriterCache.get(evaluator.eval_dir(name))
    events.add_summary(summaries.pictures('confusion_matrix', [picture]), step)
    events.flush()
    return result

  def explaining(self, split, memory_advice):
    """Returns a context in which what fails ends with what it means to the user."""
    return failures.explaining(
        memory_advice, functools.partial(tf_records.find_bad_example, self.records[split], self.dataset))
