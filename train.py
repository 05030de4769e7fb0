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
  parser.setting('batch_norm_decay', "decay of batch norm's moving averages (default: the backbone's, "
                 '0.9997 for resnet_v2)', type=flags.fraction)
  parser.setting('freeze_batch_norm', 'use the moving averages, and train neither them nor gamma and '
                 'beta')
  parser.setting('sync_batch_norm', 'with several GPUs, normalise by the statistics of the whole batch',
                 type=flags.on_off, metavar='on|off')

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
  parser.flag('batch_size', flags.default_of('images_per_step'), 'images per step; auto finds how many fit '
              'into the memory of the GPUs', type=flags.positive_int_or_auto, metavar='N')
  parser.setting('accumulate_steps', 'batches whose mean gradient makes one step', type=flags.positive_int,
                 metavar='N')
  parser.setting('learning_rate_policy', 'poly, cosine, or piecewise, which ignores the two rates below',
                 choices=('poly', 'piecewise', 'cosine'))
  parser.setting('initial_learning_rate', 'first learning rate of poly and cosine',
                 type=flags.positive_float)
  parser.setting('end_learning_rate', 'their last learning rate', type=flags.non_negative_float)
  parser.setting('max_iter', 'steps over which they fall', type=flags.positive_int)
  parser.setting('initial_global_step', 'the step from which they, the warm-up and train_epochs count',
                 type=flags.non_negative_int)
  parser.setting('warmup_steps', 'steps over which the learning rate rises to that of the policy; 0 is none',
                 type=flags.non_negative_int, metavar='N')
  parser.setting('last_layers_lr_multiplier', 'learning-rate factor of all that is not the backbone',
                 type=flags.positive_float)
  parser.setting('weight_decay', 'L2 factor on the trained variables', type=flags.non_negative_float)
  parser.setting('weight_decay_scope', 'the variables that weight decay shrinks: all, or weights, those of '
                 'convolutions that are not depthwise', choices=('all', 'weights'))
  parser.setting('clip_gradients', 'norm of the whole gradient, weight decay included, to which longer ones '
                 'are scaled; 0 leaves them', type=flags.non_negative_float, metavar='NORM')
  parser.setting('ema', 'also keep moving averages of the weights with this decay, such as 0.9998, and score '
                 'them too; 0 keeps none', type=flags.fraction, metavar='DECAY')
  parser.setting('weights', 'raw, or ema: whose score decides which checkpoint is the best and when to stop '
                 'early', choices=('raw', 'ema'))
  parser.setting('loss', 'what is minimised: cross_entropy; focal, in which easy pixels count less; dice or '
                 'lovasz, which measure the overlap of each class; or a weighted sum: cross_entropy,dice:0.5',
                 type=flags.loss, metavar='LOSS')
  parser.setting('auxiliary_head', 'weight of the loss of a second, small head on the features before the '
                 "backbone's last stage, such as 0.4; only training has it, and 0 has none",
                 type=flags.non_negative_float, metavar='WEIGHT')
  parser.setting('hard_pixels', 'take the mean of cross_entropy or focal over this share of the valid '
                 'pixels, those of the largest loss', type=flags.share, metavar='SHARE')
  parser.setting('hard_pixels_steps', 'steps over which --hard_pixels falls from 1 to its share, from '
                 '--initial_global_step on; 0 has it at once', type=flags.non_negative_int, metavar='N')
  parser.setting('label_smoothing', 'the part of a label that all classes share in cross_entropy',
                 type=flags.fraction, metavar='X')
  parser.flag('class_weights', 'none', "what a class's pixels (in dice and lovasz: its overlap) weigh in the "
              'loss: median_frequency takes the shares from train.json, which the conversion writes',
              choices=('none', 'median_frequency'))
  parser.flag('class_weight_limit', 10.0, 'the largest of these weights; the smallest is 1 over it',
              type=flags.one_or_more, metavar='X')

  parser.group('speed and memory')
  parser.setting('recompute', 'keep fewer activations, and compute the others again in the backward '
                 'pass: less memory, a fifth more time')
  parser.flag('xla', False, 'compile the training step with XLA, on GPUs')
  parser.flag('num_gpus', 1, 'GPUs that share each batch', type=flags.positive_int, metavar='N')
  parser.flag('collectives', 'nccl', 'what sums the gradients of the GPUs of several machines; take '
              'ring, which is slower, if NCCL fails between them', choices=('nccl', 'ring'), recorded=False)
  parser.flag('input_threads', None, 'threads that decode and augment; 0 shares one a core with everything '
              'else (default: with GPUs the cores less 2 a GPU, else 0)',
              type=flags.non_negative_int, metavar='N', recorded=False)
  parser.setting('deterministic', 'the same bits in every run also on GPUs, where it is slower; CPUs '
                 'always give them')

  parser.group('output')
  parser.flag('save_summary_steps', 100, 'steps between two event-file entries', type=flags.positive_int)
  parser.setting('tensorboard_images_max_outputs', 'pictures per image summary', type=flags.positive_int)
  parser.flag('save_checkpoints_secs', 600, 'seconds between two checkpoints, beside those at the end of '
              'each round; 0 saves none for the time', type=flags.non_negative_int, metavar='S')
  parser.flag('save_checkpoints_steps', 0, 'also save at multiples of so many steps; 0 does not',
              type=flags.non_negative_int, metavar='N')
  parser.flag('keep_checkpoint_max', 5, 'newest checkpoints to keep, beside the best; 0 keeps all',
              type=flags.non_negative_int)
  return parser


def main(args):
  flags.enable_onednn()
  from commands import training_loop  # TensorFlow, which --help does without

  training_loop.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
