"""What is checked before a training, and said of it: flags against one another, the devices, the schedule."""
import typing

import tensorflow.compat.v1 as tf

from commands import flags
from dataset import inputs
from deeplab_model import resolved
from nets import backbones
from training import checkpoints, cluster, optimizers, run_config
from utils import devices, environment, quiet
from utils.errors import UsageError
from utils.settings import FLAGS_OF_LOSS, weight_of_loss


class Machines(typing.NamedTuple):
  """What a training computes on.

  Attributes:
    task: cluster.Task, the part of this machine among several.
    compute: dict, the settings precision and data_format that its devices are best at.
  """
  task: cluster.Task
  compute: dict[str, typing.Any]


def check(args):
  """Checks the flags against one another and takes the devices; returns Machines.

  Raises:
    UsageError: a flag would change nothing, or asks for what cannot be.
  """
  task = cluster.task_from_environment()
  check_crop(args)
  inputs.read_flags(args)  # refuses an augmentation that cannot be
  check_effects(args, task.workers)
  compute = check_devices(args, task)
  if args.deterministic:
    tf.compat.v2.config.experimental.enable_op_determinism()  # of the whole process
  return Machines(task, compute)


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
  if args.batch_size == 'auto' and (not gpus or task.workers > 1):
    raise UsageError('--batch_size auto tries what fits on the GPUs of one machine, '
                     + ('and TensorFlow sees none' if not gpus else 'and here there are several')
                     + '; give a number')
  if args.batch_size != 'auto':
    check_batch_size(args.batch_size, args.num_gpus, task.workers)
  if args.num_gpus * task.workers > 1 and args.accumulate_steps > 1:
    raise UsageError('--accumulate_steps works on one device; leave it out, or train on one')
  for flag in ('early_stopping_evals', 'clean_model_dir') if task.workers > 1 else ():
    if getattr(args, flag):
      raise UsageError(f'--{flag} works on one machine; leave it out')
  devices.take(args.num_gpus)
  quiet.show_fatal_errors()
  if args.xla and not gpus:
    print('Warning: --xla compiles for GPUs, and TensorFlow sees none; it has no effect here, unless '
          'TF_XLA_FLAGS says otherwise')
  params = run_config.compute_params(args.precision, args.data_format, training=True)
  environment.use_fast_batch_norm(params)
  return params


def check_batch_size(batch_size, num_gpus, workers):
  replicas = num_gpus * workers
  if batch_size % replicas:
    raise UsageError(f'--batch_size {batch_size} cannot be shared by {replicas} devices evenly '
                     f'(--num_gpus {num_gpus}, {workers} machines); give a multiple')


def announce(args, model, settings, position, num_train):
  """Prints what is going to be trained, on what, and warns of what can hardly be meant.

  Args:
    args: the parsed flags. model: training_plan.Model. settings: Settings.
    position: training_plan.Position. num_train: int, the training examples.
  """
  step, last, count = position.step, settings.last_step, settings.images_per_step
  if last == step:  # there is nothing to do but to evaluate
    return
  images = (last - step) * count
  rates = optimizers.rates_at([step, last - 1], settings)
  epochs = position.images / num_train, (position.images + images) / num_train
  print(f'Training steps {step + 1} to {last}: {images} images, epochs {epochs[0]:.4g} to {epochs[1]:.4g}, '
        f'{count} images a step; learning rate {rates[0]:.3g} to {rates[1]:.3g} '
        f'({args.learning_rate_policy}); on {devices.describe()}', flush=True)
  warn_of_schedule(args, step, last)
  warn_of_untrained_weights(args.crop_size, model.architecture)
  if not args.freeze_batch_norm:
    warn_of_slow_averages(settings.batch_norm_decay, last)
    warn_of_folded_batch_norm(model.pre_trained_model)


def warn_of_schedule(args, step, last):
  """Says so if the learning rate does not fit a run from `step` to `last`."""
  done, all_steps = step - args.initial_global_step, last - args.initial_global_step
  if args.warmup_steps >= all_steps:
    print(f'Warning: the learning rate only rises: --warmup_steps {args.warmup_steps} is not less than the '
          f'{all_steps} steps of this run; give fewer')
  is_off = all_steps < args.max_iter / 2 or done >= args.max_iter or all_steps > 1.5 * args.max_iter
  if is_off and args.learning_rate_policy != 'piecewise':  # which does not fall by --max_iter
    print(f'Warning: the learning rate reaches --end_learning_rate after --max_iter {args.max_iter} steps, '
          f'and this run ends after {all_steps}; give --max_iter {all_steps}')


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
    print(f'Warning: --crop_size {crop_size[0]} {crop_size[1]} makes features of {sides[0]}x{sides[1]}, in '
          f'which the outer weights of the ASPP with rate {", ".join(map(str, unseen))} see padding alone, '
          'are never trained, and disturb what is predicted for larger images. Give crops of '
          f'{max(unseen) * stride + 1} or more, or smaller --atrous_rates')
