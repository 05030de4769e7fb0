"""Look a dataset over before training: pictures, classes, sizes, and what is wrong with it.

  python tools/view_dataset.py --data_dir ./dataset --val val --output_dir report
  python tools/view_dataset.py --dataset mine.json --image_data_dir mine/JPEGImages \\
      --label_data_dir mine/SegmentationClassAug --list mine/train.txt --val mine/val.txt
  python tools/view_dataset.py --data_dir ./dataset --augmented --photometric_distortion

Reads records, or images and labels by a list, and writes one page, <output_dir>/index.html, with its
pictures beside it: examples with their labels, the pixels of each class, sizes, and problems, such as
label values that the dataset does not know, classes that never occur, or training images that return
in the validation set. --augmented adds what the network sees: the first crops that train.py would make of
the records with the same flags. Exit status 1 says that examples cannot be used; warnings are advice.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags
from nets import backbones


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared('dataset')
  parser.flag('data_dir', None, 'folder of the records', metavar='DIR')
  parser.flag('split', 'train', 'the records of --data_dir to read', metavar='NAME')
  parser.flag('image_data_dir', None, 'folder of the images, in place of --data_dir', metavar='DIR')
  parser.flag('label_data_dir', None, 'folder of the label PNGs', metavar='DIR')
  parser.flag('list', None, 'file of the names, one a line', metavar='FILE')
  parser.flag('val', None, 'the validation set, to compare with: a name of records as in --split, or a file '
              'as in --list', metavar='SET')
  parser.flag('output_dir', './report', 'folder of the page', metavar='DIR')
  parser.flag('samples', 24, 'examples to show of each set; one more for every class that these lack',
              type=flags.positive_int, metavar='N')
  parser.flag('json', None, 'also write the figures and problems here', metavar='FILE')
  parser.flag('augmented', False, 'also show --samples crops as train.py makes them of the records; the '
              'flags below are about these')
  parser.flag('base_architecture', 'resnet_v2_101', 'the backbone, whose mean colour is the padding',
              choices=backbones.names())
  parser.shared(*flags.AUGMENTATION_FLAGS)
  return parser


def main(args):
  from tools import view_dataset_report  # TensorFlow, which --help does without

  view_dataset_report.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
