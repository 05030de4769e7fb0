"""Writes the record file of one split of Cityscapes, checking every image and label.

  python create_cityscapes_tf_record.py --cityscapes_dir ./dataset/cityscapes --split_type train
  python create_cityscapes_tf_record.py --split_type val --input_pattern 'left/*_leftImg8bit.png' \\
      --annot_pattern 'labels/*_gtFine_labelTrainIds.png'

<name>_leftImg8bit.png is paired with <name>_gtFine_labelTrainIds.png. Cityscapes comes without the
train ids; the command csCreateTrainIdLabelImgs of the package cityscapesscripts makes them.
"""
import glob
import os

from utils import datasets, files, flags
from utils.errors import DataError, UsageError

IMAGE_SUFFIX = '_leftImg8bit.png'
LABEL_SUFFIX = '_gtFine_labelTrainIds.png'


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('input_pattern', None, 'glob of the images, in place of cityscapes_dir; needs '
              'annot_pattern; ** matches any folders', metavar='GLOB')
  parser.flag('annot_pattern', None, 'glob of the labels; needs input_pattern', metavar='GLOB')
  parser.flag('cityscapes_dir', './dataset/cityscapes', 'folder that holds leftImg8bit and gtFine',
              metavar='DIR')
  parser.flag('split_type', 'train', 'the split to read, and the name of the record file',
              choices=tuple(datasets.DATASETS['cityscapes'].splits))
  parser.flag('output_dir', './dataset', 'folder to write <split_type>.record to', metavar='DIR')
  return parser


def main(args):
  input_pattern, annot_pattern = patterns(args)
  pairs = pair_by_name(find_by_name(input_pattern, IMAGE_SUFFIX),
                       find_by_name(annot_pattern, LABEL_SUFFIX))
  files.make_folder(args.output_dir, '--output_dir')

  from utils import tf_record
  path = os.path.join(args.output_dir, f'{args.split_type}.record')
  count = tf_record.write_tf_record(path, pairs, datasets.get_dataset('cityscapes'))
  print(f'Wrote {count} examples to {path}')


def patterns(args):
  """Returns the globs of the images and of the labels that the flags mean."""
  if bool(args.input_pattern) != bool(args.annot_pattern):
    raise UsageError('--input_pattern and --annot_pattern go together; give both or neither')
  if args.input_pattern:
    if 'cityscapes_dir' in args.explicit:
      raise UsageError('--cityscapes_dir and --input_pattern exclude each other; give one of them')
    return args.input_pattern, args.annot_pattern
  root = glob.escape(args.cityscapes_dir)
  return (os.path.join(root, 'leftImg8bit', args.split_type, '*', '*' + IMAGE_SUFFIX),
          os.path.join(root, 'gtFine', args.split_type, '*', '*' + LABEL_SUFFIX))


def find_by_name(pattern, suffix):
  """Returns {name: path} of the files that match a glob; the file is called `<name><suffix>`."""
  paths = {}
  for path in sorted(glob.glob(pattern, recursive=True)):
    file_name = os.path.basename(path)
    if not file_name.endswith(suffix):
      raise DataError(f"'{path}' matches '{pattern}' but does not end in {suffix}; narrow the "
                      'pattern')
    name = file_name.removesuffix(suffix)
    if name in paths:
      raise DataError(f"'{paths[name]}' and '{path}' have one name; narrow '{pattern}'")
    paths[name] = path
  if not paths:
    hint = {IMAGE_SUFFIX: 'check the folder and the split',
            LABEL_SUFFIX: 'csCreateTrainIdLabelImgs of cityscapesscripts makes the train ids'}
    raise DataError(f"no file matches '{pattern}'; {hint[suffix]}")
  return paths


def pair_by_name(images, labels):
  """Returns [(image path, label path), ...] in the order of the names; no file may be left over."""
  for name in sorted(images.keys() ^ labels.keys()):
    path, partner = ((images[name], name + LABEL_SUFFIX) if name in images
                     else (labels[name], name + IMAGE_SUFFIX))
    raise DataError(f"'{path}' has no partner {partner}; add it or narrow the patterns")
  return [(images[name], labels[name]) for name in sorted(images)]


if __name__ == '__main__':
  flags.run(main, make_parser())
