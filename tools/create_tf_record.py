"""Writes the records of one's own images and labels, in any layout of folders, checking every one.

  python tools/create_tf_record.py --suggest --labels mine/labels --dataset mine/mine.json
  python tools/create_tf_record.py --images mine/images --labels mine/labels --dataset mine/mine.json

The first command looks at the labels and writes a descriptor to start from: the values or colours that
they hold, with a class for each. Give the classes their names there, and "ignore" to what does not count.

The second pairs each image with the label PNG of the same path and name, converts the labels to class
ids as the descriptor says, and writes train.record and val.record. Without lists, a tenth of the images,
drawn by --seed, is for validation; the lists are written beside the records.
"""
import collections
import hashlib
import json
import os
import sys

# A script finds modules in its own folder, tools/; the repository's are in the one above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli import flags  # noqa: E402
from dataset import descriptors, label_files, lists  # noqa: E402
from utils import files, workers  # noqa: E402
from utils.errors import DataError, UsageError  # noqa: E402

_IGNORE = 255          # what labels of one channel usually hold where a pixel does not count
# Stray values have fewer pixels in a label, on average, and a smaller share of all; and there are few.
_STRAY_PIXELS, _STRAY_SHARE, _MOST_STRAYS = 10, 1e-4, 8
_SHOWN = 40            # values or colours in the table of --suggest


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('images', None, 'folder of the images, with any folders in it', metavar='DIR')
  parser.flag('labels', None, 'folder of the label PNGs, laid out as the images are', metavar='DIR')
  parser.flag('label_suffix', '', "what a label's name has after the image's, such as _mask",
              metavar='TEXT')
  parser.flag('dataset', None, 'path of the JSON descriptor; voc or cityscapes for their classes',
              metavar='FILE')
  parser.flag('output_dir', './dataset', 'folder to write train.record and val.record to', metavar='DIR')
  parser.flag('train_list', None, 'list of the training images, paths below --images', metavar='FILE')
  parser.flag('val_list', None, 'list of the validation images', metavar='FILE')
  parser.flag('val_fraction', 0.1, 'share of the images that is for validation, without lists',
              type=flags.fraction)
  parser.flag('seed', 0, 'of that choice', type=flags.non_negative_int)
  parser.flag('suggest', False, 'write the descriptor --dataset from what --labels hold, and nothing else',
              action='store_true')
  parser.shared(*flags.CONVERSION_FLAGS)
  return parser


def main(args):

  for flag in ('labels', 'dataset') if args.suggest else ('images', 'labels', 'dataset'):
    if getattr(args, flag) is None:
      raise UsageError(f'--{flag} is missing; --help shows two commands to copy')
  if args.suggest:
    suggest(args)
  else:
    convert(args)


# --- Conversion ----------------------------------------------------------------------------------


def convert(args):
  """Writes the records, and the lists where none were given."""
  if bool(args.train_list) != bool(args.val_list):
    raise UsageError('--train_list and --val_list go together; give both or neither')
  dataset = descriptors.get_dataset(args.dataset)
  if args.train_list:
    names = {'train': lists.read_list(args.train_list), 'val': lists.read_list(args.val_list)}
  else:
    labels = find_labels(args)
    names = split_names(find_names(args, labels), args.val_fraction, args.seed)
  splits = {split: lists.match_pairs(args.images, args.labels, names[split], dataset, args.label_suffix)
            for split in names}
  if not args.train_list:
    splits['train'][1].extend(unpaired_labels(args, splits, labels))

  from dataset import conversion  # TensorFlow, which --help and --suggest do without

  if not args.train_list:
    for split in names:
      check_list(list_path(args, split), names[split], conversion.read_index(args.output_dir, split))
  files.make_folder(args.output_dir, '--output_dir')
  written = conversion.convert(splits, dataset, conversion.read_flags(args, args.output_dir))
  if not args.train_list:
    for split, names in written.items():
      with files.replacing(list_path(args, split)) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
          file.write(list_text(names))
      print(f'Wrote the list of the {len(names)} names to {list_path(args, split)}')


def list_path(args, split):
  return os.path.join(args.output_dir, f'{split}.txt')


def list_text(names):
  return ''.join(f'{name}\n' for name in names)


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
    raise DataError(f"'{path}' is there and differs from the split by --val_fraction and --seed; give it by "
                    '--train_list or --val_list, or remove it')


def find_names(args, labels):
  """Returns the paths, below --images, of all images that are none of the labels themselves."""
  labels = set(labels)
  paths = find_files(args.images, lists.spellings(lists.IMAGE_EXTENSIONS))
  names = [os.path.relpath(path, args.images) for path in paths if path not in labels]
  for name in names:
    # A list holds a name a line, in UTF-8, and blanks around it do not count.
    if name.splitlines() != [name.strip()] or name != name.encode(errors='replace').decode():
      raise DataError(f'image {name!r} in {args.images} has a name that no list can hold; rename it')
  if not names:
    raise DataError(f"there is no image in '{args.images}'; check --images")
  return names


def find_labels(args):
  """Returns the paths of all labels below --labels."""
  endings = tuple(args.label_suffix + end for end in lists.spellings(lists.LABEL_EXTENSIONS))
  paths = find_files(args.labels, endings)
  if not paths:
    raise DataError(f"there is no label in '{args.labels}' whose name ends in {endings[0]}; check --labels "
                    'and --label_suffix')
  return paths


def find_files(folder, endings):
  """Returns the sorted paths of the files below a folder whose names end so, hidden ones aside.

  Links to folders are followed, but no folder is entered twice: one may lead to a folder above it.
  """
  if not os.path.isdir(folder):
    raise DataError(f"folder '{folder}' does not exist; check --images and --labels")
  found, hidden, again, seen = [], 0, 0, set()
  folders, links = [os.path.abspath(folder)], []
  while folders or links:
    parent = folders.pop() if folders else links.pop()
    status = os.stat(parent)
    if (status.st_dev, status.st_ino) in seen:
      again += 1
      continue
    seen.add((status.st_dev, status.st_ino))
    for entry in sorted(os.scandir(parent), key=lambda entry: entry.name, reverse=True):
      if os.path.isdir(entry.path):
        hidden += entry.name.startswith('.')
        if not entry.name.startswith('.'):
          (links if entry.is_symlink() else folders).append(entry.path)
      elif entry.name.endswith(endings) and not entry.name.startswith('.'):
        found.append(entry.path)
  left_out = [text for number, text in ((hidden, f'hidden folders: {hidden}'), (
      again, f'links to folders that are read already: {again}')) if number]
  if left_out:
    print(f"Left out in '{folder}': {'; '.join(left_out)}")
  return sorted(found)


def split_names(names, val_fraction, seed):
  """Returns {'train': [...], 'val': [...]}, each in the order of `names`.

  The choice hangs on each name by itself, so that images which are added later move few or none of the
  others from one side to the other.
  """
  if len(names) < 2:
    raise DataError(f"'{names[0]}' is the only image; training and validation need one each")
  by_chance = sorted(names, key=lambda name: hashlib.sha256(f'{seed}/{name}'.encode()).digest())
  val = set(by_chance[:max(1, round(len(names) * val_fraction))])
  return {'train': [name for name in names if name not in val],
          'val': [name for name in names if name in val]}


def unpaired_labels(args, splits, labels):
  """Returns a sentence for each of the labels that no image has."""
  used = {os.path.abspath(pair.label) for pairs, _ in splits.values() for pair in pairs}
  return [f"label '{path}' has no image in '{args.images}'; add it or remove the label"
          for path in labels if path not in used]


# --- Suggestion ----------------------------------------------------------------------------------


def suggest(args):
  """Writes a descriptor for what the labels hold, and prints a table of it."""
  if os.path.exists(args.dataset) or not args.dataset.endswith('.json'):
    raise UsageError(f'--dataset {args.dataset} is there already, or does not end in .json; give a new .json')
  paths = find_labels(args)
  pixels, labels, palette = survey(paths, args.processes)
  print_table(pixels, labels, len(paths))
  name = os.path.splitext(os.path.basename(args.dataset))[0]
  strays = find_strays(pixels, labels)
  ignored = find_ignored(pixels, strays)
  descriptor = describe(name, pixels, palette, ignored)
  with files.replacing(args.dataset) as temporary, open(temporary, 'w', encoding='utf-8') as file:
    file.write(to_text(descriptor))
  ignoring = ('give "ignore" to what does not count' if descriptor.keys() & {'values', 'colors'} else
              'if another value than 255 does not count, add it as "ignore_label"')
  for key in strays:
    print(f'Took {key_text(key)} for stray pixels, which are ignored: {pixels[key]} of them, in '
          f'{labels[key]} of {len(paths)} labels; if they are a class, give it a name')
  if _IGNORE in ignored:
    print(f'Took {_IGNORE} for what is ignored, as in most datasets; if it is a class, give it a name')
  print(f'Wrote {args.dataset}: {len(descriptor["class_names"])} classes to be named; {ignoring}')


def survey(paths, processes):
  """Returns what the labels hold.

  These are colours, unless all labels have one channel and agree on what a palette's indices look like.

  Args:
    paths: list of str.
    processes: int.

  Returns:
    pixels, labels: Counters of a value or a (red, green, blue), its pixels and the labels that have it.
    palette: dict from values to colours, of palette PNGs; or empty.
  """
  contents = list(workers.map_in_order(label_files.survey_label, paths, processes))
  looks = {(entry.value, entry.color) for entries in contents for entry in entries if entry.color}
  palette = dict(looks)
  is_color = None in palette or len(palette) < len(looks)
  pixels, labels = collections.Counter(), collections.Counter()
  for entries in contents:
    for entry in entries:
      key = (entry.color or (entry.value,) * 3) if is_color else entry.value
      pixels[key] += entry.pixels
      labels[key] += 1
  return pixels, labels, {} if is_color else palette


def print_table(pixels, labels, num_labels):
  """Prints the share of pixels, and the number of labels, of each value or colour."""
  total = sum(pixels.values())
  print(f'{"found":>9}  share of pixels  in labels (of {num_labels})')
  for key in in_order(pixels)[:_SHOWN]:
    print(f'{key_text(key):>9}  {pixels[key] / total:15.4%}  {labels[key]:9d}')
  if len(pixels) > _SHOWN:
    print(f'and {len(pixels) - _SHOWN} more')


def in_order(pixels):
  """Returns values by size, or colours by their share of pixels."""
  is_color = any(isinstance(key, tuple) for key in pixels)
  return sorted(pixels, key=lambda key: (-pixels[key], key) if is_color else key)


def key_text(key):
  return descriptors.hex_color(key) if isinstance(key, tuple) else str(key)


def find_strays(pixels, labels):
  """Returns the values or colours of stray pixels: a handful in each label that has them, and rare in all.

  An object, however small, is larger than that; a slip of the pen is not. If there are many such values,
  smoothing or JPEG has made them, and none is taken for a stray.

  Args:
    pixels, labels: see survey.
  """
  limit = _STRAY_SHARE * sum(pixels.values())
  strays = [key for key in in_order(pixels) if key not in (0, _IGNORE)
            and pixels[key] < _STRAY_PIXELS * labels[key] and pixels[key] < limit]
  return strays if len(strays) <= _MOST_STRAYS else []


def find_ignored(pixels, strays):
  """Returns the values or colours that are no classes: strays, and 255 if objects are larger than it.

  A border that is ignored has fewer pixels than what it surrounds. A 255 that has more than all classes but
  the largest is the foreground, or the background, of a mask.
  """
  others = sorted(pixels[key] for key in pixels if key != _IGNORE and key not in strays)
  return [*strays, *([_IGNORE] if 0 < pixels[_IGNORE] <= sum(others[:-1]) else [])]


def describe(name, pixels, palette, ignored):
  """Returns a descriptor with a class for each value or colour that was found.

  Args:
    name: str.
    pixels, palette: see survey.
    ignored: see find_ignored.
  """
  found = in_order(pixels)
  classes = [key for key in found if key not in ignored]
  if not 2 <= len(classes) <= 256:
    raise DataError(f'the labels hold {len(classes)} values or colours, and classes are 2 to 256; more come '
                    'from resizing, smoothing or JPEG: export the labels anew')
  targets = {key_text(key): f'class_{key_text(key).strip("#")}' if key in classes else 'ignore'
             for key in found}
  descriptor = {'name': name, 'class_names': [targets[key_text(key)] for key in classes]}
  if isinstance(found[0], tuple):
    return {**descriptor, 'colors': targets}
  if palette:
    descriptor['palette'] = [list(palette[key]) for key in classes]
  # Labels that store class ids as they should be need no conversion.
  are_ids = classes == list(range(len(classes))) and set(ignored) <= {_IGNORE}
  return descriptor if are_ids else {**descriptor, 'values': targets}


def to_text(descriptor):
  """Returns the JSON with one entry of a list or object a line, to be edited."""
  parts = []
  for key, value in descriptor.items():
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
      text = '[\n    ' + ',\n    '.join(json.dumps(item, ensure_ascii=False) for item in value) + '\n  ]'
    elif isinstance(value, dict):
      text = json.dumps(value, ensure_ascii=False, indent=4).replace('\n}', '\n  }')
    parts.append(f'  "{key}": {text}')
  return '{\n' + ',\n'.join(parts) + '\n}\n'


if __name__ == '__main__':
  flags.run(main, make_parser())
