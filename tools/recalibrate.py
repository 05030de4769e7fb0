"""Measure batch norm's moving averages anew, over some batches of a training record.

  python tools/recalibrate.py --model_dir ./model --data_dir ./dataset --output_dir ./recalibrated
  python tools/recalibrate.py --model_dir ./voc --data_dir ./dataset --output_dir ./unfolded --unfold

Evaluation normalises by these averages. They lag behind after a short run, and are those of other images
after a change of the crop or of the data. Here they become the mean and the variance of what each layer sees
in --batches batches, augmented by the flags of the model's training. Nothing else changes, neither slots of
the optimizer nor averages of weights, so that training can go on. --weights says which weights are measured.

With --unfold the model stays the same function instead: what batch norm did to the measured values goes into
gamma and beta. That is for weights whose batch norm was folded into the convolutions, as in published mobile
models: their averages are 0 and 1 whatever the data, so that a training with batch norm would destroy them
in its first step. The new model_dir can be trained, or be a --pre_trained_model.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared(*flags.MODEL_FLAGS, 'weights')
  parser.flag('data_dir', './dataset/', 'folder of train.record; its labels do not matter',
              metavar='DIR')
  parser.flag('output_dir', None, 'folder of the new model; must not hold a checkpoint yet', metavar='DIR',
              required=True)
  parser.flag('unfold', False, 'change gamma and beta too, so that predictions stay as they are')
  parser.flag('batches', 50, 'batches to measure', type=flags.positive_int, metavar='N')
  parser.flag('batch_size', 8, 'images of a batch, 2 or more', type=flags.positive_int, metavar='N')
  parser.shared(*flags.AUGMENTATION_FLAGS)
  return parser


def main(args):
  from tools import recalibration  # TensorFlow, which --help does without

  recalibration.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
