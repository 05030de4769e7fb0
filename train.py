"""Train DeepLabv3+ on the records of --data_dir, scoring the validation record as it goes.

  python train.py --model_dir ./model --pre_trained_model ./ini_checkpoints/resnet_v2_101
  tensorboard --logdir ./model

Trains --epochs_per_eval epochs, evaluates on val.record, and goes on until --train_epochs. Started again, it
resumes from the newest checkpoint in --model_dir.
"""
import contextlib
import glob
import os
import shutil

from utils import flags
from utils.errors import DataError, UsageError


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared(*flags.MODEL_FLAGS, *flags.COMPUTE_FLAGS, 'debug')
  parser.flag('clean_model_dir', False, 'remove model_dir first', action='store_true')
  parser.flag('data_dir', './dataset/', 'folder of train.record and val.record', metavar='DIR')
  parser.flag('pre_trained_model', './ini_checkpoints/resnet_v2_101/resnet_v2_101.ckpt',
              'checkpoint to start from: a prefix, .index or .ckpt file, or a folder; none trains from '
              'scratch; not needed when model_dir has a checkpoint', metavar='PATH')
  parser.flag('train_epochs', 26, 'epochs in all, counted from --initial_global_step',
              type=flags.positive_int)
  parser.flag('epochs_per_eval', 1, 'epochs between two evaluations', type=flags.positive_int)
  parser.flag('max_steps', None, 'stop at this global step; leaves --max_iter alone',
              type=flags.positive_int, metavar='N')
  parser.flag('batch_size', 10, 'images per step; auto finds how many fit into the memory of the GPUs',
              type=flags.positive_int_or_auto, metavar='N')
  parser.flag('crop_size', (513, 513), 'height and width of the training crops', type=flags.positive_int,
              nargs=2, metavar=('H', 'W'))
  parser.flag('learning_rate_policy', 'poly', 'poly, or piecewise, which ignores the two rates below',
              choices=('poly', 'piecewise'))
  parser.flag('initial_learning_rate', 7e-3, "poly's first learning rate", type=flags.positive_float)
  parser.flag('end_learning_rate', 1e-6, "poly's last learning rate", type=flags.non_negative_float)
  parser.flag('max_iter', 30000, 'steps over which poly falls', type=flags.positive_int)
  parser.flag('initial_global_step', 0, 'the step from which poly and train_epochs count',
              type=flags.non_negative_int)
  parser.flag('last_layers_lr_multiplier', 1.0, 'learning-rate factor of all that is not the backbone',
              type=flags.positive_float)
  parser.flag('weight_decay', 2e-4, 'L2 factor on all trained variables', type=flags.non_negative_float)
  parser.flag('class_weights', 'none', "what a class's pixels weigh in the loss: median_frequency takes the "
              'shares from train.json, which the conversion writes', choices=('none', 'median_frequency'))
  parser.flag('class_weight_limit', 10.0, 'the largest of these weights; the smallest is 1 over it',
              type=flags.one_or_more, metavar='X')
  parser.flag('batch_norm_decay', None, "decay of batch norm's moving averages (default: the backbone's, "
              '0.9997 for resnet_v2)', type=flags.fraction)
  parser.flag('freeze_batch_norm', False, 'use the moving averages, and train neither them nor gamma and '
              'beta', action='store_true')
  parser.flag('recompute', False, 'keep fewer activations, and compute the others again in the backward '
              'pass: less memory, a fifth more time', action='store_true')
  parser.flag('accumulate_steps', 1, 'batches whose mean gradient makes one step', type=flags.positive_int,
              metavar='N')
  parser.flag('cache', False, 'keep the decoded training images in memory, 4 bytes a pixel',
              action='store_true')
  parser.flag('input_threads', 0, 'threads that decode and augment; 0 shares one a core with everything else',
              type=flags.non_negative_int, metavar='N')
  parser.flag('xla', False, 'compile the graph with XLA', action='store_true')
  parser.flag('num_gpus', 1, 'GPUs that share each batch', type=flags.positive_int, metavar='N')
  parser.flag('sync_batch_norm', True, 'with several GPUs, normalise by the statistics of the whole batch',
              type=flags.on_off, metavar='on|off')
  parser.flag('seed', 0, 'of the order, the augmentation and new weights', type=flags.non_negative_int)
  parser.flag('tensorboard_images_max_outputs', 6, 'pictures per image summary', type=flags.positive_int)
  parser.flag('save_summary_steps', 100, 'steps between two event-file entries', type=flags.positive_int)
  parser.flag('keep_checkpoint_max', 5, 'newest checkpoints to keep; 0 keeps all',
              type=flags.non_negative_int)
  return parser


def main(args):
  flags.enable_onednn()
  from nets import backbones
  from utils import cluster, conversion, files, model_config, tf_record

  task = cluster.task_from_environment()
  check_crop(args)
  compute_params = check_devices(args, task)
  # The model: flags, or what an earlier run left in model_dir.
  resume_from = newest_checkpoint(args)
  architecture, dataset = model_config.resolve(
      args, model_config.read(args.model_dir) if resume_from else None)
  decay = args.batch_norm_decay or backbones.get(architecture.base_architecture).batch_norm_decay
  pre_trained_model = None if resume_from else find_pre_trained_model(args)

  # The data, and how long to train on it.
  records = {split: tf_record.record_files(args.data_dir, split) for split in ('train', 'val')}
  indexes = {split: conversion.read_index(args.data_dir, split) for split in records}
  check_classes(args, indexes, dataset)
  counts = {split: count_examples(indexes[split], records[split]) for split in records}
  print(f'{dataset.name}: {dataset.num_classes} classes, {counts["train"]} training and '
        f'{counts["val"]} validation examples; seed {args.seed}')
  class_weights = find_class_weights(args, indexes['train'])
  params = {
      **{name: value for name, value in vars(args).items() if name != 'explicit'},
      **vars(architecture),
      **compute_params,
      'class_names': dataset.class_names,
      'palette': dataset.palette,
      'ignore_label': dataset.ignore_label,
      'batch_norm_decay': decay,
      'num_train': counts['train'],
      'class_weights': class_weights,
      'pre_trained_model': pre_trained_model,
      'checkpoint': resume_from,
  }
  if args.batch_size == 'auto':
    args.batch_size = find_batch_size(args, params)
  if counts['train'] < images_per_step(args):
    raise DataError(f'{args.data_dir} has {counts["train"]} training examples, fewer than --batch_size '
                    f'{args.batch_size} x --accumulate_steps {args.accumulate_steps}; give smaller ones or '
                    'more data')
  step = stored_step(resume_from)
  ends = round_ends(args, counts['train'], step)
  if not ends:
    print(f'Nothing left to train: {resume_from} has reached step {step}; raise --train_epochs '
          f'{args.train_epochs}{" or --max_steps" if args.max_steps else ""}, or give '
          f'--initial_global_step {step} to count the epochs from here')
    return
  if not args.freeze_batch_norm:
    warn_of_slow_averages(decay, ends[-1])

  # From here on model_dir is written.
  params.update(batch_size=images_per_step(args), max_steps=ends[-1])
  if task.is_chief:
    if args.clean_model_dir:
      clean(args.model_dir)
    files.make_folder(args.model_dir, '--model_dir')
    flag_values = {name: value for name, value in vars(args).items() if name != 'explicit'}
    model_config.write(args.model_dir, architecture, dataset, flag_values)
  train_and_evaluate(args, task, dataset, records, counts, params, step, ends)


def find_batch_size(args, params):
  """Returns what --batch_size auto stands for, an int."""
  from deeplab_model import deeplabv3_plus_model_fn
  from utils import batch_size

  of_no_file = {'pre_trained_model': None, 'checkpoint': None}
  each = batch_size.largest_on_gpu(deeplabv3_plus_model_fn, {**params, **of_no_file, 'batch_size': None})
  examples = params['num_train'] // args.accumulate_steps // args.num_gpus
  found = max(1, min(each, examples)) * args.num_gpus
  print(f'--batch_size auto is {found}')
  return found


def count_examples(index, paths):
  """Returns the number of examples in the records of a split: its index knows, or they are counted."""
  from utils import tf_record

  return index['examples'] if index else sum(tf_record.count_examples(paths))


def find_class_weights(args, index):
  """Returns the weight of each class in the loss, a list of floats, or None where all weigh the same."""
  from utils import losses

  if args.class_weights == 'none':
    if 'class_weight_limit' in args.explicit:
      raise UsageError('--class_weight_limit bounds what --class_weights median_frequency gives; give that '
                       'too, or neither')
    return None
  if not (index and index['class_pixels']):
    raise DataError(f'--class_weights {args.class_weights} needs the pixel counts in {args.data_dir}/'
                    'train.json, which is not there, does not fit the records or was written with --fast; '
                    'convert the data again, or leave the flag out')
  names, pixels, limit = index['dataset']['class_names'], index['class_pixels'], args.class_weight_limit
  weights = losses.median_frequency_weights(pixels, limit)
  unbounded = losses.median_frequency_weights(pixels, float('inf'))
  bounded = [name for name, *both in zip(names, weights, unbounded, strict=True) if both[0] != both[1]]
  absent = [name for name, count in zip(names, pixels, strict=True) if not count]
  print('class weights: ' + ', '.join(f'{name} {weight:.3g}' for name, weight in zip(names, weights))
        + f'; bounded by --class_weight_limit {limit:g}: {", ".join(bounded)}' * bool(bounded)
        + f'; without a pixel: {", ".join(absent)}' * bool(absent))
  return weights


def check_classes(args, indexes, dataset):
  """Raises UsageError where the index of the records says that they hold other classes."""
  for split, index in indexes.items():
    if index is None:  # records of the original scripts, or from elsewhere
      continue
    stored = index['dataset']
    if (len(stored['class_names']), stored['ignore_label']) != (dataset.num_classes, dataset.ignore_label):
      raise UsageError(
          f"the {split} records in {args.data_dir} hold the {len(stored['class_names'])} classes of "
          f"'{stored['name']}' (ignore label {stored['ignore_label']}), but --dataset '{dataset.name}' has "
          f'{dataset.num_classes} (ignore label {dataset.ignore_label}); give the --dataset that they '
          'were made with, or another --data_dir')


def check_crop(args):
  if min(args.crop_size) < args.output_stride:
    raise UsageError(f'--crop_size {args.crop_size[0]} {args.crop_size[1]} is smaller than '
                     f'--output_stride {args.output_stride}; give crops of at least that size')


def check_devices(args, task):
  """Returns the model_fn's params of --precision and --data_format.

  Raises:
    UsageError: the flags ask for more than the devices here can do.
  """
  import tensorflow.compat.v1 as tf

  from utils import run_config

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
  if args.batch_size != 'auto' and args.batch_size % replicas:
    raise UsageError(f'--batch_size {args.batch_size} cannot be shared by {replicas} devices evenly '
                     f'(--num_gpus {args.num_gpus}, {task.workers} machines); give a multiple')
  if replicas > 1 and args.accumulate_steps > 1:
    raise UsageError('--accumulate_steps works on one device; leave it out, or train on one')
  if task.workers > 1 and args.clean_model_dir:
    raise UsageError('--clean_model_dir would remove what the other machines read; remove the folder before '
                     'they start')
  return run_config.compute_params(args.precision, args.data_format)


def newest_checkpoint(args):
  """Returns the checkpoint in model_dir that training resumes from, or None for a new model."""
  from utils import checkpoints

  if not os.path.isdir(args.model_dir):
    return None
  if args.clean_model_dir:
    check_cleanable(args.model_dir)
    return None
  prefix = checkpoints.latest(args.model_dir)
  if prefix:
    checkpoints.adopt(args.model_dir, prefix)
    print(f'Resuming from {prefix}')
  return prefix


def find_pre_trained_model(args):
  """Returns the prefix of the checkpoint that a new model starts from, or None for new weights."""
  from utils import checkpoints

  if args.pre_trained_model == 'none':
    return None
  try:
    return checkpoints.resolve(args.pre_trained_model)
  except DataError as error:
    raise DataError(f'--pre_trained_model: {error}; or none to train from scratch') from error


def stored_step(prefix):
  """Returns the global step of a checkpoint, or 0 where there is none."""
  import tensorflow.compat.v1 as tf

  if prefix is None:
    return 0
  reader = tf.train.load_checkpoint(prefix)
  return int(reader.get_tensor('global_step')) if reader.has_tensor('global_step') else 0


def round_ends(args, num_train, step):
  """Returns the global steps, beyond `step`, at which a round of training ends.

  Epochs follow one another without a gap: 26 epochs of 103 images in batches of 10, evaluated every 10, end
  at steps 103, 206 and 267 (267.8 rounded down), so the last partial round is trained too and at most one
  partial batch in all is left out.
  """
  if step < args.initial_global_step:
    raise UsageError(f'--initial_global_step {args.initial_global_step} lies ahead of the step at which '
                     f'training starts, {step}; give {step}, or a --model_dir with that checkpoint')
  epochs = [*range(args.epochs_per_eval, args.train_epochs, args.epochs_per_eval), args.train_epochs]
  ends = [args.initial_global_step + epoch * num_train // images_per_step(args) for epoch in epochs]
  if args.max_steps:
    ends = sorted({min(end, args.max_steps) for end in ends})
  return [end for end in ends if end > step]


def images_per_step(args):
  return args.batch_size * args.accumulate_steps


def warn_of_slow_averages(decay, steps):
  """Says so where the moving averages of batch norm cannot settle within the run."""
  initial, better = decay ** steps, max(0.9, 1 - 5 / steps)
  if initial > 0.1:
    print(f'Warning: after {steps} steps at --batch_norm_decay {decay} the moving averages, which evaluation '
          f'uses, are still {initial:.0%} initial; '
          + (f'try --batch_norm_decay {better:.3g}' if better < decay else 'train longer'))


def check_cleanable(model_dir):
  """Raises UsageError where --clean_model_dir would remove something that is no model folder."""
  found = [path for pattern in ('checkpoint', '*.index', 'events.out.tfevents.*')
           for path in glob.glob(os.path.join(glob.escape(model_dir), pattern))]
  if os.listdir(model_dir) and not found:
    raise UsageError(f'--clean_model_dir: {model_dir} holds neither a checkpoint nor event files, so it '
                     f'is not removed; check --model_dir')


def clean(model_dir):
  if os.path.isdir(model_dir):
    shutil.rmtree(model_dir)


def train_and_evaluate(args, task, dataset, records, counts, params, step, ends):
  """Trains up to each of the steps `ends`, evaluating after each."""
  import functools

  from deeplab_model import deeplabv3_plus_model_fn
  from nets import backbones
  from utils import checkpoints, inputs, metrics, run_config
  from utils.tf_estimator import Estimator, debug_hook, run_in_cluster

  config = run_config.run_config(args.seed, args.save_summary_steps if task.is_chief else 0, args.xla,
                                 run_config.strategy(args.num_gpus, task.workers))
  estimator = Estimator(deeplabv3_plus_model_fn, args.model_dir, config, params)
  options = inputs.TrainOptions(
      crop_size=tuple(args.crop_size), batch_size=args.batch_size // (args.num_gpus * task.workers),
      seed=args.seed, channel_means=backbones.get(params['base_architecture']).padding_color,
      num_examples=counts['train'], first_example=(step - args.initial_global_step) * images_per_step(args),
      cache=args.cache, threads=args.input_threads)
  replicas = args.num_gpus if task.workers == 1 else 1  # the chief of several machines evaluates alone
  eval_dataset = functools.partial(inputs.eval_dataset, records['val'], dataset, -counts['val'] % replicas)
  result = {}

  def evaluate(step):
    bar = run_config.ProgressBarHook(counts['val'], 'evaluating', replicas)
    with explaining(records['val'], dataset):
      result.update(estimator.evaluate(eval_dataset, hooks=[bar]))
    print(f'step {step}, validation on {args.data_dir}:')
    print(metrics.report(result, dataset.class_names), flush=True)

  hooks = [run_config.SaverHook(functools.partial(
      checkpoints.ResumeSaver, args.keep_checkpoint_max, params['checkpoint']))]
  if task.is_chief:
    hooks.append(run_config.RoundHook(args.model_dir, ends, evaluate))
  if args.debug:
    hooks.append(debug_hook())

  def train():
    with explaining(records['train'], dataset):
      estimator.train(functools.partial(inputs.train_dataset, records['train'], dataset, options),
                      hooks=hooks, max_steps=ends[-1])

  if task.workers > 1:
    print(f'Waiting for all {task.workers} machines of TF_CONFIG', flush=True)
    run_in_cluster(train, estimator)
  else:
    train()
  print(f'Done: {args.model_dir} is at step {ends[-1]}'
        + (f', mean Intersection over Union {result["mean_iou"]:.4f}' if result else ''))


@contextlib.contextmanager
def explaining(files, dataset):
  """Within it a failed session ends with what it means to the user."""
  import tensorflow.compat.v1 as tf

  try:
    yield
  except (tf.errors.OpError, tf.train.NanLossDuringTrainingError) as error:
    raise explain(error, files, dataset) from error


def explain(error, files, dataset):
  """Returns what a failed session means to the user: a DataError, or the error itself."""
  import tensorflow.compat.v1 as tf

  from utils import inputs, tf_record

  if isinstance(error, tf.train.NanLossDuringTrainingError):
    return DataError('the loss is not a number any more; lower --initial_learning_rate, give a larger '
                     '--batch_size, or --freeze_batch_norm with a pre-trained model')
  if isinstance(error, tf.errors.UnavailableError):
    return UsageError('another machine of TF_CONFIG has stopped or cannot be reached any more; see what it '
                      'printed, and start all of them again: training goes on from the last checkpoint')
  if isinstance(error, tf.errors.ResourceExhaustedError):
    return UsageError('the device is out of memory; give a smaller --batch_size or --crop_size')
  known = inputs.data_error(error)
  return known if known is not error else tf_record.find_bad_example(files, dataset) or error


if __name__ == '__main__':
  flags.run(main, make_parser())
