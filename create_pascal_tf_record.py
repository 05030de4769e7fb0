"""Writes train.record and val.record of a dataset in VOC's layout, checking every image and label.

  python create_pascal_tf_record.py --data_dir ./dataset/VOCdevkit/VOC2012
  python create_pascal_tf_record.py --data_dir ./camvid --dataset dataset/camvid.json \\
      --train_data_list ./camvid/train.txt --valid_data_list ./camvid/val.txt

A list holds one name a line; the image of a name is <image_data_dir>/<name>.jpg (or .jpeg, .png,
.bmp, .tif, .tiff, .webp), its label <label_data_dir>/<name>.png: one channel, grey or palette, of
values 0..classes-1 or the ignore label.
"""
import os

from utils import datasets, files, flags


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
  return parser


def main(args):
  # All that can be checked without decoding is checked for both splits before anything is written.
  dataset = datasets.get_dataset(args.dataset)
  image_dir = os.path.join(args.data_dir, args.image_data_dir)
  label_dir = os.path.join(args.data_dir, args.label_data_dir)
  pairs = {}
  for split, path in (('train', args.train_data_list), ('val', args.valid_data_list)):
    pairs[split] = datasets.find_pairs(image_dir, label_dir, datasets.read_list(path))
  files.make_folder(args.output_path, '--output_path')

  from utils import tf_record
  for split in pairs:
    path = os.path.join(args.output_path, f'{split}.record')
    count = tf_record.write_tf_record(path, pairs[split], dataset)
    print(f'Wrote {count} examples to {path}', flush=True)


if __name__ == '__main__':
  flags.run(main, make_parser())
