"""Train DeepLabv3+ on the records of --data_dir, scoring the validation record as it goes.

  python train.py --model_dir ./model --pre_trained_model ./ini_checkpoints/resnet_v2_101
  tensorboard --logdir ./model

Trains --epochs_per_eval epochs, evaluates on val.record, and goes on until --train_epochs. Started again, it
resumes from the newest good checkpoint in --model_dir, with the images that come next. SIGTERM and Ctrl-C
finish the step and save it (exit status 143 and 130); docs/reliability.md says what else is promised.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # where our modules are

from commands import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared('recipe', *flags.MODEL_FLAGS, *flags.COMPUTE_FLAGS, 'debug')

  parser.group('model')
  parser.flag('clean_model_dir', False, 'remove model_dir first', recorded=False)
  parser.flag('pre_trained_model', './ini_checkpoints/resnet_v2_101/resnet_v2_101.ckpt',
              'checkpoint to start from: a prefix, .index or .ckpt file, or a folder; none trains from '
              'scratch; not needed when model_dir has a checkpoint', metavar='PATH', recorded=False)
  parser.shared('batch_norm_decay', 'freeze_batch_norm', 'sync_batch_norm')

  parser.group('data')
  parser.flag('data_dir', './dataset/', 'folder of train.record and val.record', metavar='DIR')
  parser.shared(*flags.AUGMENTATION_FLAGS)
  parser.flag('cache', False, 'keep the decoded training images in memory, 4 bytes a pixel')

  parser.group('schedule')
  parser.flag('train_epochs', 26, 'epochs in all, counted from --initial_global_step',
              type=flags.positive_int)
  parser.flag('epochs_per_eval', 1, 'epochs between two evaluations', type=flags.positive_int)
  parser.flag('max_steps', None, 'stop at this global step; leaves --max_iter alone',
              type=flags.positive_int, metavar='N')
  parser.flag('early_stopping_evals', 0, 'stop after so many evaluations without a better mean IoU; 0 does '
              'not', type=flags.non_negative_int, metavar='N')
  parser.flag('batch_size', 10, 'images per step; auto finds how many fit into the memory of the GPUs',
              type=flags.positive_int_or_auto, metavar='N')
  parser.shared('accumulate_steps', 'learning_rate_policy', 'initial_learning_rate', 'end_learning_rate',
                'max_iter', 'initial_global_step', 'warmup_steps', 'last_layers_lr_multiplier',
                'clip_gradients', 'ema')
  parser.flag('weights', 'raw', 'raw, or ema: whose score decides which checkpoint is the best and when to '
              'stop early', choices=('raw', 'ema'))

  parser.group('loss')
  parser.shared('loss', 'weight_decay', 'weight_decay_scope', 'auxiliary_head', 'hard_pixels',
                'hard_pixels_steps', 'label_smoothing')
  parser.flag('class_weights', 'none', "what a class's pixels (in dice and lovasz: its overlap) weigh in the "
              'loss: median_frequency takes the shares from train.json, which the conversion writes',
              choices=('none', 'median_frequency'))
  parser.flag('class_weight_limit', 10.0, 'the largest of these weights; the smallest is 1 over it',
              type=flags.one_or_more, metavar='X')
  speed_and_output(parser)
  return parser


def speed_and_output(parser):
  """Declares the flags that change no result."""
  parser.group('speed and memory')
  parser.shared('recompute', 'deterministic')
  parser.flag('xla', False, 'compile the training step with XLA, on GPUs')
  parser.flag('num_gpus', 1, 'GPUs that share each batch', type=flags.positive_int, metavar='N')
  parser.flag('collectives', 'nccl', 'what sums the gradients of the GPUs of several machines; take '
              'ring, which is slower, if NCCL fails between them', choices=('nccl', 'ring'), recorded=False)
  parser.flag('input_threads', None, 'threads that decode and augment; 0 shares one a core with everything '
              'else (default: with GPUs the cores less 2 a GPU, else 0)',
              type=flags.non_negative_int, metavar='N', recorded=False)

  parser.group('output')
  parser.flag('save_summary_steps', 100, 'steps between two event-file entries', type=flags.positive_int)
  parser.shared('tensorboard_images_max_outputs')
  parser.flag('save_checkpoints_secs', 600, 'seconds between two checkpoints, beside those at the end of '
              'each round; 0 saves none for the time', type=flags.non_negative_int, metavar='S')
  parser.flag('save_checkpoints_steps', 0, 'also save at multiples of so many steps; 0 does not',
              type=flags.non_negative_int, metavar='N')
  parser.flag('keep_checkpoint_max', 5, 'newest checkpoints to keep, beside the best; 0 keeps all',
              type=flags.non_negative_int)


def main(args):
  flags.enable_onednn()
  # TensorFlow, which --help does without.
  from commands import training_checks, training_folder, training_loop, training_plan

  with training_loop.stopping() as requests:
    machines = training_checks.check(args)
    with training_folder.opened(args, machines.task) as folder:
      model = training_plan.read_model(args, folder)
      data = training_plan.read_data(args, model.dataset)
      args.batch_size = training_plan.find_batch_size(args, machines, folder, model, data)
      position = training_plan.find_position(args, folder, data)
      rounds = training_plan.plan_rounds(args, data, position)
      if training_plan.is_finished(args, position, rounds):
        return
      settings = training_plan.read_settings(args, machines, model, data, rounds.last)
      training_checks.announce(args, model, settings, position, data.counts['train'])

      position = training_folder.claim(args, folder, model, position, rounds)  # from here on it is written
      training = training_loop.Training(args, machines, requests, model, data, position, settings)
      training.run(rounds)


if __name__ == '__main__':
  flags.run(main, make_parser())
