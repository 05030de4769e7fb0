"""Writes the records of one split of Cityscapes as downloaded, checking every image and label.

  python create_cityscapes_tf_record.py --cityscapes_dir ./dataset/cityscapes --split_type train
  python create_cityscapes_tf_record.py --cityscapes_dir ./dataset/cityscapes --coarse
  python create_cityscapes_tf_record.py --split_type val --input_pattern 'left/*_leftImg8bit.png' \\
      --annot_pattern 'labels/*_labelIds.png'

<name>_leftImg8bit.png is paired with <name>_gtFine_labelTrainIds.png, or, if that is missing, with
<name>_gtFine_labelIds.png, whose 34 ids become the 19 classes that are scored on the way. Other extensions of
images and labels, and .PNG, are taken too.
"""
import dataclasses
import glob
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # where our modules are

from commands import flags
from dataset import descriptors, lists
from utils import files
from utils.errors import DataError, UsageError

IMAGE_SUFFIX = '_leftImg8bit'
TRAIN_IDS, LABEL_IDS = '_labelTrainIds', '_labelIds'  # the former is used if there are both
LABEL_SUFFIXES = [kind + ids for ids in (TRAIN_IDS, LABEL_IDS) for kind in ('_gtFine', '_gtCoarse')]


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('input_pattern', None, 'glob of the images, in place of cityscapes_dir; needs '
              'annot_pattern; ** matches any folders', metavar='GLOB')
  parser.flag('annot_pattern', None, 'glob of the labels; needs input_pattern', metavar='GLOB')
  parser.flag('cityscapes_dir', './dataset/cityscapes', 'folder that holds leftImg8bit and gtFine',
              metavar='DIR')
  parser.flag('split_type', 'train', 'the split to read, and the name of the record file; with '
              '--coarse train_extra', choices=(*descriptors.DATASETS['cityscapes'].splits, 'train_extra'))
  parser.flag('coarse', False, 'take the coarse labels, gtCoarse, in place of gtFine')
  parser.flag('output_dir', './dataset', 'folder to write <split_type>.record to', metavar='DIR')
  parser.flag('output_name', None, 'what to call the record instead of <split_type>, such as train',
              metavar='NAME')
  parser.shared(*flags.CONVERSION_FLAGS)
  return parser


def main(args):
  from dataset import conversion  # TensorFlow, which --help does without

  check_flags(args)
  split = 'train_extra' if args.coarse and 'split_type' not in args.explicit else args.split_type
  input_pattern, annot_patterns = patterns(args, split)
  pairs, problems = pair_by_name(find_images(input_pattern), find_labels(annot_patterns))
  files.make_folder(args.output_dir, '--output_dir')

  conversion.convert({args.output_name or split: (pairs, problems)}, descriptors.get_dataset('cityscapes'),
                     conversion.read_flags(args, args.output_dir))


def check_flags(args):
  """Raises UsageError if flags exclude one another."""
  if bool(args.input_pattern) != bool(args.annot_pattern):
    raise UsageError('--input_pattern and --annot_pattern go together; give both or neither')
  for other in ('cityscapes_dir', 'coarse'):
    if args.input_pattern and other in args.explicit:
      raise UsageError(f'--{other} and --input_pattern exclude each other; give one of them')
  if args.split_type == 'train_extra' and not args.coarse and not args.input_pattern:
    raise UsageError('--split_type train_extra has coarse labels only; add --coarse')
  if args.output_name and not args.output_name.replace('_', '').isalnum():
    raise UsageError(f"--output_name '{args.output_name}' is no name for a record; use letters, digits "
                     'and _')


def patterns(args, split):
  """Returns the glob of the images and a list of those of the labels that the flags mean."""
  if args.input_pattern:
    return args.input_pattern, [args.annot_pattern]
  root = glob.escape(args.cityscapes_dir)
  kind = 'gtCoarse' if args.coarse else 'gtFine'
  return (os.path.join(root, 'leftImg8bit', split, '*', '*' + IMAGE_SUFFIX + '.*'),
          [os.path.join(root, kind, split, '*', f'*_{kind}{ids}.*') for ids in (TRAIN_IDS, LABEL_IDS)])


def find_images(pattern):
  """Returns {name: path} of the images that match a glob; a file is called `<name>_leftImg8bit.png`."""
  return find_files('image', [pattern], [IMAGE_SUFFIX], lists.IMAGE_EXTENSIONS)


def find_labels(patterns):
  """Returns {name: path} of the labels that match any of the globs; train ids win over label ids."""
  return find_files('label', patterns, LABEL_SUFFIXES, lists.LABEL_EXTENSIONS)


def find_files(kind, patterns, suffixes, extensions):
  """Returns {name: path} of the files `<name><suffix>` that match globs and have one of the extensions."""
  paths = {}
  for pattern in patterns:
    for path in sorted(glob.glob(pattern, recursive=True)):
      if not lists.has_extension(path, extensions):
        continue
      stems = (lists.stem_of(path, '', suffix) for suffix in suffixes)
      name = next((stem for stem in stems if stem is not None), None)
      if name is None:
        raise DataError(f"'{path}' matches '{pattern}' but is not called *{' or *'.join(suffixes)}; narrow "
                        'the pattern')
      other = paths.setdefault(name, path)
      if other is not path and has_train_ids(other) == has_train_ids(path):
        raise DataError(f"'{other}' and '{path}' have one name; narrow '{pattern}'")
      paths[name] = other if has_train_ids(other) else path
  if not paths:
    raise DataError(f"no {kind} matches {' or '.join(map(repr, patterns))}; check the folder and the split")
  return paths


def has_train_ids(path):
  return lists.stem_of(path, '', TRAIN_IDS) is not None


def pair_by_name(images, labels):
  """Returns the Pairs in the order of the names, and a sentence for each file that is left over."""
  train_ids = descriptors.get_dataset('cityscapes')
  label_ids = dataclasses.replace(train_ids, values=descriptors.CITYSCAPES_TRAIN_IDS)
  problems = [f"'{images.get(name) or labels[name]}' has no partner: there is no "
              f'{"label" if name in images else "image"} {name}_*; add it or narrow the patterns'
              for name in sorted(images.keys() ^ labels.keys())]
  pairs = [lists.Pair(images[name], labels[name], train_ids if has_train_ids(labels[name]) else label_ids,
                      os.path.basename(images[name])) for name in sorted(images.keys() & labels.keys())]
  return pairs, problems


if __name__ == '__main__':
  flags.run(main, make_parser())
