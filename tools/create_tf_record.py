"""Writes the records of one's own images and labels, in any usual layout of folders, checking every one.

  python tools/create_tf_record.py --suggest --data mine --dataset mine/mine.json
  python tools/create_tf_record.py --data mine --dataset mine/mine.json --output_dir mine

The first command looks at the folder, says what it takes it for, and writes a descriptor to start from: the
values, colours or names that the labels hold, with a class for each, and the names that a labelling tool left
beside them. Give the classes their names there, and "ignore" to what does not count.

The second pairs each image with its label, converts the labels to class ids as the descriptor says, and
writes train.record and val.record. Without lists, or folders of their own, a tenth of the images, drawn by
--seed, is for validation; the lists are written beside the records.

In place of --data, --images and --labels name the folders, and --label_suffix or --label_prefix what differs
in the names. --labels may be the JSON file of COCO's panoptic labels. docs/data.md has the line for each
labelling tool.
"""
import argparse
import dataclasses
import hashlib
import os
import shlex
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags
from dataset import descriptors, lists
from dataset.importing import class_files, layouts, panoptic, suggestion
from utils import files
from utils.errors import DataError, UsageError

_SHOWN = 40  # values or colours in the table of --suggest
_FOLDERS = ('images', 'labels', 'val_images', 'val_labels')


def make_parser():
  parser = flags.Parser(__doc__)
  parser.group('data')
  parser.flag('data', None, 'folder that holds images and labels in any usual layout, in place of the next '
              'eight', metavar='DIR')
  parser.flag('images', None, 'folders of the images, with any folders in them', metavar='DIR', nargs='+')
  parser.flag('labels', None, 'folder of the labels, laid out as the images are, or one for each folder of '
              "images; or the JSON file of COCO's panoptic labels", metavar='PATH', nargs='+')
  parser.flag('val_images', None, 'folders of the validation images, if they have their own', metavar='DIR',
              nargs='+')
  parser.flag('val_labels', None, 'the same of their labels', metavar='PATH', nargs='+')
  parser.flag('image_prefix', '', "what an image's name has before the part that its label shares",
              metavar='TEXT')
  parser.flag('image_suffix', '', 'what it has behind it, such as _leftImg8bit', metavar='TEXT')
  parser.flag('label_prefix', '', "what a label's name has before that part", metavar='TEXT')
  parser.flag('label_suffix', '', 'what it has behind it, such as _mask', metavar='TEXT')
  parser.flag('dataset', None, 'path of the JSON descriptor; voc or cityscapes for their classes',
              metavar='FILE')
  parser.flag('train_list', None, 'list of the training images, paths below --images; a second column may '
              'name the labels', metavar='FILE')
  parser.flag('val_list', None, 'list of the validation images', metavar='FILE')
  parser.flag('val_fraction', 0.1, 'share of the images that is for validation, without lists; 0 writes no '
              'val.record', type=flags.fraction)
  parser.flag('seed', 0, 'of that choice', type=flags.non_negative_int)
  parser.shared(*flags.CONVERSION_FLAGS)

  parser.group('output')
  parser.flag('output_dir', './dataset', 'folder to write train.record and val.record to', metavar='DIR')
  parser.flag('suggest', False, 'write the descriptor --dataset from what the labels hold, and nothing else')
  return parser


def main(args):
  check_flags(args)
  if args.suggest:
    suggest(args)
    return
  from dataset import conversion, record_index  # TensorFlow, which --help and --suggest do without

  dataset = descriptors.get_dataset(args.dataset)
  parts, tables = find_parts(args)
  parts.pop('test', None)
  names, splits = match_parts(args, dataset, parts, tables)
  new_lists = {split: os.path.join(args.output_dir, f'{split}.txt') for split in names
               if not all(part.list_path for part in parts.values())}
  for split, path in new_lists.items():
    check_list(path, names[split], record_index.load(args.output_dir, split))
  files.make_folder(args.output_dir, '--output_dir')

  written = conversion.convert(splits, dataset, conversion.read_flags(args, args.output_dir))
  for split, path in new_lists.items():
    lists.write_list(path, written[split])
  words = ['python', 'tools/view_dataset.py', '--dataset', args.dataset, '--data_dir', args.output_dir]
  print(f'Look at them: {shlex.join([*words, *(["--val", "val"] if "val" in written else [])])}')


def check_flags(args):
  """Raises UsageError if flags are missing, or exclude one another."""
  needed = ('labels',) if args.suggest else ('images', 'labels')
  for flag in ('dataset', *(needed if args.data is None else ())):
    if getattr(args, flag) is None:
      raise UsageError(f'--{flag} is missing; --help shows two commands to copy')
  named = args.explicit & {*_FOLDERS, *lists.Affixes._fields}
  if args.data is not None and named:
    raise UsageError(f'--data finds folders and names by itself, and --{min(named)} gives one; leave one out')
  flags.refuse_idle(args, ('output_dir shards skip_bad fast', not args.suggest, 'with --suggest'),
                    ('seed', args.val_fraction, 'with --val_fraction 0'))
  if bool(args.train_list) != bool(args.val_list):
    raise UsageError('--train_list and --val_list go together; give both or neither')
  if bool(args.val_images) != bool(args.val_labels):
    raise UsageError('--val_images and --val_labels go together; give both or neither')
  for images, labels in (('images', 'labels'), ('val_images', 'val_labels')):
    pair = getattr(args, images) or [], getattr(args, labels) or []
    if pair[0] and len(pair[1]) not in (1, len(pair[0])):
      raise UsageError(f'--{images} names {len(pair[0])} folders and --{labels} {len(pair[1])}; give one '
                       'folder of labels, or one for each folder of images')


# --- Layout --------------------------------------------------------------------------------------


def find_parts(args):
  """Returns ({split or None: layouts.Part}, panoptic.Panoptic of each folder of labels that has one)."""
  if args.data is not None:
    found = layouts.find_files(args.data)
    panoptic_flags = layouts.find_panoptic(found)
    if not panoptic_flags:
      parts = find_columns(args) or find_lists(args, layouts.recognise(args.data, found))
      print_parts(args.data, parts)
      return parts, {}
    words = [word for name, (path,) in panoptic_flags.items()
             for word in (f'--{name}', os.path.join(args.data, os.path.relpath(path, args.data)))]
    print(f"In '{args.data}': COCO's panoptic labels, as {shlex.join(words)}")
    args = argparse.Namespace(**{**vars(args), 'data': None, **panoptic_flags})
  tables, folders = {}, {}
  for images, labels in (('images', 'labels'), ('val_images', 'val_labels')):
    named = [table.folder if (table := read_panoptic(path, tables)) else path
             for path in getattr(args, labels) or ()]
    affixes = lists.Affixes(*(getattr(args, field) for field in lists.Affixes._fields))
    folders[images] = lists.Folders(getattr(args, images) or [], named, affixes)
  train, val = folders['images'], folders['val_images']
  if args.train_list or val.images:
    val = val if val.images or val.labels else train
    return {'train': layouts.Part(train, args.train_list),
            'val': layouts.Part(val, args.val_list)}, tables
  return {None: layouts.Part(train)}, tables


def read_panoptic(path, tables):
  """Returns the panoptic.Panoptic of a JSON file, kept in `tables` by its folder; None if it is a folder."""
  if os.path.isdir(path) or not path.lower().endswith('.json'):
    return None
  table = panoptic.read(path)
  tables[os.path.abspath(table.folder)] = table
  return table


def find_columns(args):
  """Returns the parts of lists in --data whose lines name both an image and a label, or None."""
  paths, folders = list_paths(args.data), lists.Folders([args.data], [args.data])
  if paths and not args.train_list and not any(
      lists.match_pairs(folders, lists.read_list(path))[1] for path in paths.values()):
    return {split: layouts.Part(folders, path) for split, path in paths.items()}
  return None


def list_paths(folder):
  """Returns {'train': path, 'val': path} of the lists in a folder; empty if it does not have both."""
  paths = {split: os.path.join(folder, f'{split}.txt') for split in ('train', 'val')}
  return paths if all(map(os.path.isfile, paths.values())) else {}


def find_lists(args, parts):
  """Returns the parts with the lists for training and validation that lie in --data, if they fit.

  Lists that this script has written are left alone, since there may be more images now.

  Args:
    args: the parsed flags.
    parts: what layouts.recognise returned.
  """
  if set(parts) != {None} or args.train_list or args.explicit & {'val_fraction', 'seed'}:
    return parts
  part = parts[None]
  for place in (os.path.join(args.data, 'ImageSets', 'Segmentation'), args.data):
    paths = list_paths(place)
    matched = {split: lists.match_pairs(part.folders, lists.read_list(path)) for split, path in paths.items()}
    names = {split: [pair.name for pair in pairs] for split, (pairs, _) in matched.items()}
    missing = sum(len(problems) for _, problems in matched.values())
    if missing:
      print(f"Left out: the lists train.txt and val.txt in '{place}', of whose names {missing} have no image "
            'or no label here')
    elif paths and not is_own_split(names, args):
      tell_unlisted(part, matched, place)
      return {split: part._replace(list_path=path) for split, path in paths.items()}
  return parts


def is_own_split(names, args):
  """Returns whether split_names draws the names of these lists, {split: list of str}, from all of them."""
  union = [name for split in names.values() for name in split]
  val = drawn_names(union, args.val_fraction, args.seed)
  return len(union) > 1 and val == set(names['val']) and all(one == sorted(one) for one in names.values())


def tell_unlisted(part, matched, place):
  """Prints how many images that have a label are in no list."""
  listed = {os.path.abspath(pair.image) for pairs, _ in matched.values() for pair in pairs}
  found = layouts.find_pairable(part.folders)
  more = lists.match_pairs(part.folders, part_names(part, found))[0]
  unlisted = [pair.name for pair in more if os.path.abspath(pair.image) not in listed]
  if unlisted:
    print(f"Left out: {len(unlisted)} images with a label, such as '{unlisted[0]}', which are in neither "
          f"list in '{place}'")


def print_parts(root, parts):
  """Prints what a folder was taken for."""
  print(f"In '{root}':")
  for split, (folders, list_path, others, rivals) in parts.items():
    images, labels = (' and '.join(os.path.relpath(path, root) for path in paths) for paths in folders[:2])
    where = f'images in {images}, labels in {labels}' if images != labels else f'both in {images}'
    named = f', named with {layouts.affix_flags(folders.affixes)}' * any(folders.affixes)
    listed = f', those of {list_path}' * bool(list_path)
    purpose = {'train': 'for training', 'val': 'for validation', 'test': 'for a test, left out here'}
    print(f'  {purpose.get(split, "found")}: {where}{named}{listed}')
    if others:
      print(f"  left out: {len(others)} other files among the labels, such as "
            f"'{os.path.relpath(others[0], root)}'")
    if rivals:
      print(f'  labels could also be {" or ".join(os.path.relpath(path, root) for path in rivals)}; if so, '
            'give --images and --labels in place of --data')
    drawn = next((path for path in folders.labels if layouts.NOT_WANTED.search(os.path.basename(path))), None)
    if drawn and folders.images != folders.labels:
      print(f"  Warning: '{os.path.basename(drawn)}' is what pictures of objects, or for people to look at, "
            'are usually called; labels show classes')


def part_names(part, found):
  """Returns the names of a part's images: the lines of its list, or the paths of `found`, layouts.Files."""
  if part.list_path:
    return lists.read_list(part.list_path)
  names = [os.path.relpath(path, part.folders.base) for path in found.images]
  for name in names:
    # A list holds a name a line, in UTF-8, and blanks around it do not count.
    if name.splitlines() != [name.strip()] or name != name.encode(errors='replace').decode():
      raise DataError(f'image {name!r} in {part.folders.base} has a name that no list can hold; rename it')
  return names


# --- Conversion ----------------------------------------------------------------------------------


def match_parts(args, dataset, parts, tables):
  """Returns the names of the images of each split, and what lists.match_pairs makes of them: two dicts.

  Args:
    args: the parsed flags.
    dataset: Dataset.
    parts, tables: what find_parts returned.
  """
  flags.refuse_idle(args, ('val_fraction seed', 'val' not in parts, 'where lists or folders say which images '
                           'are for validation'))
  found = {split: None if part.list_path else layouts.find_pairable(part.folders)
           for split, part in parts.items()}
  names = {split: part_names(part, found[split]) for split, part in parts.items()}
  if 'val' not in parts:
    only, = parts
    names = split_names(names[only], args.val_fraction, args.seed)
    parts = dict.fromkeys(names, parts[only])
  splits = {split: lists.match_pairs(parts[split].folders, names[split], dataset) for split in names}
  lists.check_apart(splits)
  splits = {split: with_segments(pairs, tables, problems) for split, (pairs, problems) in splits.items()}
  used = {os.path.abspath(pair.label) for pairs, _ in splits.values() for pair in pairs}
  for listed, split in zip(found.values(), splits):
    if listed:
      splits[split][1].extend(unpaired_labels(used, listed, parts[split].folders))
  return names, splits


def with_segments(pairs, tables, problems):
  """Returns Pairs, and sentences on others, in which the labels of COCO's panoptic PNGs have their segments.

  Args:
    pairs: list of lists.Pair.
    tables: dict from folders to panoptic.Panoptic.
    problems: list of str, sentences on pairs that are known to be bad.
  """
  good, problems = [], list(problems)
  for pair in pairs:
    table = tables.get(os.path.abspath(os.path.dirname(pair.label)))
    segments = table and table.segments.get(os.path.basename(pair.label))
    if table and segments is None:
      problems.append(f"label '{pair.label}' is not annotated in '{table.path}'; add it, or remove the file")
      continue
    good.append(pair._replace(dataset=panoptic_dataset(pair.dataset, table, segments)) if table else pair)
  return good, problems


def panoptic_dataset(dataset, table, segments):
  """Returns the Dataset of one panoptic PNG, whose `colors` are its segments.

  Raises:
    DataError: the dataset does not have the name of a category.
  """
  known = dataset.labels_of_names()
  used = {category: table.categories[category] for category in segments.values()}
  unknown = sorted({name for name in used.values() if name not in known})
  if unknown and descriptors.OTHER not in dataset.names:
    raise DataError(f"'{table.path}' has the categories {', '.join(unknown)}, which {dataset.name} does "
                    'not; add them to its class_names, or to its "names", if only as "ignore"')
  other = dataset.names.get(descriptors.OTHER)
  colors = {color: known.get(used[category], other) for color, category in segments.items()}
  return dataclasses.replace(dataset, values={}, colors={(0, 0, 0): dataset.ignore_label, **colors})


def check_list(path, names, index):
  """Raises DataError if another list would be overwritten.

  Args:
    path: str, the list.
    names: list of str, all that is to be converted.
    index: dict or None, of the records that are there: their list lacks what --skip_bad left out.
  """
  there = lists.read_list(path) if os.path.exists(path) else names
  is_of_records = index and index['skipped'] and len(there) == index['examples'] and set(there) <= set(names)
  if there != names and not is_of_records:
    new = len(set(names) - set(there))
    raise DataError(f"'{path}' is there and is another list than that of these {len(names)} images, of which "
                    f'it lacks {new}; give another --output_dir, remove train.txt and val.txt to have them '
                    'written anew, or keep both by --train_list and --val_list')


def split_names(names, val_fraction, seed):
  """Returns {'train': [...], 'val': [...]}, each in the order of `names`.

  The choice hangs on each name by itself, so that images which are added later move few or none of the
  others from one side to the other.
  """
  if not val_fraction:
    print("No image is for validation, as --val_fraction 0 says: no val.record is written; train.py needs it")
    return {'train': names}
  if len(names) == 1:
    print(f"Note: '{names[0]}' is the only image, so it is for both training and validation; scores on "
          'it say nothing of others')
    return {'train': names, 'val': names}
  val = drawn_names(names, val_fraction, seed)
  return {'train': [name for name in names if name not in val],
          'val': [name for name in names if name in val]}


def drawn_names(names, val_fraction, seed):
  """Returns the set of names that are for validation."""
  by_chance = sorted(names, key=lambda name: hashlib.sha256(f'{seed}/{name}'.encode()).digest())
  return set(by_chance[:max(1, round(len(names) * val_fraction))])


def unpaired_labels(used, found, folders):
  """Returns a sentence for each label that no image has.

  Args:
    used: set of str, the paths of the labels that one has.
    found: layouts.Files, all of a part.
    folders: lists.Folders.
  """
  stems = {os.path.splitext(path)[0] for path in used}
  unused = [path for path in found.labels if path not in used]
  doubled = [path for path in unused if os.path.splitext(path)[0] in stems]
  if doubled:
    print(f"Left out: {len(doubled)} labels beside others of the same name, which count, such as "
          f"'{doubled[0]}'")
  return [f"label '{path}' has no image in {lists.quoted(folders.images, 'or')}; add it or remove the label"
          for path in unused if os.path.splitext(path)[0] not in stems]


# --- Suggestion ----------------------------------------------------------------------------------


def suggest(args):
  """Writes a descriptor for what the labels hold, and prints a table of it."""
  if os.path.exists(args.dataset) or not args.dataset.endswith('.json'):
    raise UsageError(f'--dataset {args.dataset} is there already, or does not end in .json; give a new .json')
  parts, tables = find_parts(args)
  name = os.path.splitext(os.path.basename(args.dataset))[0]
  if tables:
    suggested = suggestion.suggest_categories(name, list(tables.values()))
  else:
    paths = sorted({path for part in parts.values() for path in find_labels(part)})
    if not paths:
      raise DataError('there is no label in those folders; check --labels, --label_prefix and --label_suffix')
    found = suggestion.survey(paths, args.processes)
    print_table(found)
    known = find_classes(args, parts)
    suggested = suggestion.suggest(name, found, known)
  with files.replacing(args.dataset) as temporary, open(temporary, 'w', encoding='utf-8') as file:
    file.write(suggestion.to_text(suggested.descriptor))
  for remark in suggested.remarks:
    print(remark)
  descriptor = suggested.descriptor
  ignoring = ('give "ignore" to what does not count' if descriptor.keys() & {'values', 'colors', 'names'} else
              'if another value than 255 does not count, add it as "ignore_label"')
  print(f'Wrote {args.dataset}: {len(descriptor["class_names"])} classes. Look over their names; '
        f'{ignoring}. Then:\n{convert_command(args)}')


def convert_command(args):
  """Returns the command that converts what was looked at."""
  given = [(name, getattr(args, name)) for name in ('data', *_FOLDERS, *lists.Affixes._fields)
           if getattr(args, name)]
  if args.data is None and not args.images:
    given.insert(0, ('images', 'FOLDER'))
  words = ['python', sys.argv[0] if sys.argv[0].endswith('.py') else 'tools/create_tf_record.py']
  for name, value in given:
    values = value if isinstance(value, list) else [value]
    words += [f'--{name}={value}'] if values[0].startswith('-') else [f'--{name}', *values]
  folder = os.path.dirname(args.dataset) or '.'
  return shlex.join([*words, '--dataset', args.dataset, '--output_dir', folder])


def find_labels(part):
  """Returns the paths of the labels of a part, of its list if it has one."""
  if part.list_path and part.folders.images:
    return [pair.label for pair in lists.match_pairs(part.folders, lists.read_list(part.list_path))[0]]
  paths = sorted(layouts.find_labels(part.folders), reverse=True, key=lambda path: (
      lists.LABEL_EXTENSIONS.index(os.path.splitext(path)[1].lower()), path))
  return list({os.path.splitext(path)[0]: path for path in paths}.values())  # as lists.match_pairs takes them


def find_classes(args, parts):
  """Returns the class_files.Classes of a file beside the labels, or None."""
  folders = [place for part in parts.values() for folder in (*part.folders.labels, *part.folders.images)
             for place in (folder, os.path.dirname(os.path.abspath(folder)))]
  path = class_files.find([*([args.data] if args.data else []), *folders])
  try:
    return class_files.read(path) if path else None
  except DataError as error:
    print(f'Left out: {error}')
    return None


def print_table(found):
  """Prints the share of pixels, and the number of labels, of each value, colour or name of a Survey."""
  total = sum(found.pixels.values())
  shown = suggestion.in_order(found)[:_SHOWN]
  width = max(9, *(len(suggestion.key_text(key)) for key in shown))
  print(f'{"found":>{width}}  share of pixels  in labels (of {found.num_labels})')
  for key in shown:
    print(f'{suggestion.key_text(key):>{width}}  {found.pixels[key] / total:15.4%}  {found.labels[key]:9d}')
  if len(found.pixels) > _SHOWN:
    print(f'and {len(found.pixels) - _SHOWN} more')


if __name__ == '__main__':
  flags.run(main, make_parser())
