"""Writes the training and validation records of a dataset in VOC's layout, checking every image and label.

  python create_pascal_tf_record.py --data_dir ./dataset/VOCdevkit/VOC2012
  python create_pascal_tf_record.py --data_dir ./camvid --dataset dataset/camvid.json \\
      --train_data_list ./camvid/train.txt --valid_data_list ./camvid/val.txt

A list holds one name a line; the image of a name is <image_data_dir>/<name>.jpg (or .jpeg, .jfif,
.png, .bmp, .tif, .webp and others), its label <label_data_dir>/<name>.png: one channel, grey or palette, of
values 0..classes-1 or the ignore label. Without lists, the validation images are VOC's own,
ImageSets/Segmentation/val.txt, and all others that have a label are for training; these lists are
then written to ./dataset.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # where our modules are

from commands import flags
from dataset import descriptors, lists
from utils import files
from utils.errors import DataError

VAL_LIST = os.path.join('ImageSets', 'Segmentation', 'val.txt')


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('data_dir', './dataset/VOCdevkit/VOC2012', 'folder of the dataset', metavar='DIR')
  parser.flag('output_path', './dataset', 'folder to write train.record and val.record to',
              metavar='DIR')
  parser.flag('train_data_list', './dataset/train.txt', 'list of the training images',
              metavar='FILE')
  parser.flag('valid_data_list', './dataset/val.txt', 'list of the validation images',
              metavar='FILE')
  parser.flag('image_data_dir', 'JPEGImages', 'folder of the images, in data_dir or absolute',
              metavar='DIR')
  parser.flag('label_data_dir', 'SegmentationClassAug',
              'folder of the labels, in data_dir or absolute', metavar='DIR')
  parser.flag('dataset', 'voc', 'voc, cityscapes, or the path of a JSON descriptor', metavar='NAME')
  parser.shared(*flags.CONVERSION_FLAGS)
  return parser


def main(args):
  from dataset import conversion  # TensorFlow, which --help does without

  dataset = descriptors.get_dataset(args.dataset)
  image_dir = os.path.join(args.data_dir, args.image_data_dir)
  label_dir = os.path.join(args.data_dir, args.label_data_dir)
  names = {}
  derived = [flag for flag in ('valid_data_list', 'train_data_list') if is_derived(args, flag)]
  names['val'] = (derive_val(args) if 'valid_data_list' in derived
                  else lists.read_list(args.valid_data_list))
  names['train'] = (derive_train(label_dir, names['val']) if 'train_data_list' in derived
                    else lists.read_list(args.train_data_list))
  splits = {split: lists.match_pairs(lists.Folders([image_dir], [label_dir]), names[split], dataset)
            for split in ('train', 'val')}
  lists.check_apart(splits)
  files.make_folder(args.output_path, '--output_path')

  conversion.convert(splits, dataset, conversion.read_flags(args, args.output_path))
  for flag in derived:
    lists.write_list(getattr(args, flag), names['val' if flag == 'valid_data_list' else 'train'])


def is_derived(args, flag):
  """Returns whether a list was not given, and its default is not there."""
  return flag not in args.explicit and not os.path.exists(getattr(args, flag))


def derive_val(args):
  """Returns the names of VOC's own validation images."""
  path = os.path.join(args.data_dir, VAL_LIST)
  if not os.path.exists(path):
    raise DataError(f"neither list '{args.valid_data_list}' nor '{path}', which could stand in for "
                    'it, exists; give --valid_data_list, or the --data_dir of VOC')
  return lists.read_list(path)


def derive_train(label_dir, val):
  """Returns the names of all labels but those of the validation images."""
  if not os.path.isdir(label_dir):
    raise DataError(f"label folder '{label_dir}' does not exist; check the folder flags")
  names = {os.path.splitext(file)[0] for file in os.listdir(label_dir)
           if lists.has_extension(file, lists.LABEL_EXTENSIONS)}
  train = sorted(names - set(val))
  if not train:
    raise DataError(f"'{label_dir}' holds no label but those of the validation list; give "
                    '--train_data_list or another --label_data_dir')
  return train


if __name__ == '__main__':
  flags.run(main, make_parser())
