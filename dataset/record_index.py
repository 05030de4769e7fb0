"""The index of a split, such as train.json, which lies beside its records:
  dataset: the descriptor of the classes (dataset/descriptors.py)
  examples: their number in all shards
  class_pixels, ignored_pixels: pixels of each class, and of none; null after --fast
  class_image_pixels: all pixels of the images that have a class; null after --fast, missing in indexes of
    earlier versions
  classes_of_examples: a text of one hexadecimal number an example, in their order, whose bit k says whether
    class k has a pixel; null after --fast, missing in indexes of earlier versions
  mean_size: [height, width] in pixels
  shards: file, examples and bytes of each record file
  skipped: a sentence on every pair that was left out

dataset/conversion.py writes it.
"""
import itertools
import os
import re

from dataset import descriptors, tf_records
from utils import files
from utils.errors import DataError, UsageError

_KEYS = {'dataset', 'examples', 'class_pixels', 'ignored_pixels', 'mean_size', 'shards', 'skipped'}


def read(folder, split):
  """Returns the index of a split as a dict, or None if there is none.

  Examples are counted, which takes a read for each: no reader of TensorFlow survives some wrong lengths.

  Args:
    folder: str, where the records are.
    split: str, such as 'train'.

  Raises:
    DataError: the index is damaged, or the records are others, or fewer, than those that it describes.
  """
  path, index = path_of(folder, split), load(folder, split)
  if index:
    names = [name for name, _ in files_of(folder, split) if name.endswith('.record')]
    paths = [os.path.join(folder, name) for name in names]
    there = sorted(zip(names, tf_records.count_examples(paths), map(os.path.getsize, paths)))
    told = sorted((shard['file'], shard['examples'], shard['bytes']) for shard in index['shards'])
    for pair in itertools.zip_longest(told, there):
      if pair[0] != pair[1]:
        says, holds = ('{} of {} examples and {:,} bytes'.format(*file) if file else 'no such file'
                       for file in pair)
        raise DataError(f"the {split} records in '{folder}' are not those of '{path}', which says {says}; "
                        f'there is {holds}: write the records again, or remove this index if they are from '
                        'elsewhere')
  return index


def count_examples(index, paths):
  """Returns the number of examples in the record files of a split: its index knows, or they are counted."""
  return index['examples'] if index else sum(tf_records.count_examples(paths))


def check_classes(index, dataset, split, folder):
  """Checks that records hold the classes of a dataset, as far as their index tells.

  Args:
    index: dict, or None (records of the original scripts, or from elsewhere): see read.
    dataset: Dataset.
    split, folder: str, for the message.

  Raises:
    UsageError: number, names, order or ignore label differ.
  """
  if index is None:
    return
  stored = index['dataset']
  if (len(stored['class_names']), stored['ignore_label']) != (dataset.num_classes, dataset.ignore_label):
    raise UsageError(
        f"the {split} records in {folder} hold the {len(stored['class_names'])} classes of "
        f"'{stored['name']}' (ignore label {stored['ignore_label']}), but --dataset '{dataset.name}' has "
        f'{dataset.num_classes} (ignore label {dataset.ignore_label}); give the --dataset that they '
        'were made with, or another --data_dir')
  if tuple(stored['class_names']) != dataset.class_names:
    number, held, asked = descriptors.first_difference(stored['class_names'], dataset.class_names)
    raise UsageError(
        f"class {number} of the {split} records in {folder} is '{held}', but that of --dataset "
        f"'{dataset.name}' is '{asked}'; give the --dataset that they were made with, or write them again")


def path_of(folder, split):
  return os.path.join(folder, f'{split}.json')


def load(folder, split):
  """Returns what read does, whatever the records are.

  Raises:
    DataError: the index is damaged.
  """
  path = path_of(folder, split)
  if not os.path.lexists(path):
    return None
  try:
    index = files.read_json(path, f"index '{path}'", None)
    if not (isinstance(index, dict) and _KEYS <= index.keys()):
      return None
    if not _is_sound(index, path):
      raise DataError(f"index '{path}' holds other values than are written to one")
  except DataError as error:
    raise DataError(f'{error}; it is damaged: remove it, and write the records again') from error
  return index


def _is_sound(index, path):
  """Returns whether an index, as read from its file, holds the kinds of values that it should.

  Raises:
    DataError: the descriptor in it is wrong.
  """
  def are_counts(values, least=0):
    return isinstance(values, list) and all(type(value) is int and value >= least for value in values)

  num_classes = descriptors.from_json(index['dataset'], path).num_classes
  shards, pixels, classes = index['shards'], index['class_pixels'], index.get('classes_of_examples')
  areas = index.get('class_image_pixels')
  return bool(
      isinstance(shards, list) and shards
      and all(isinstance(shard, dict) and isinstance(shard.get('file'), str)
              and are_counts([shard.get('bytes'), shard.get('examples')]) for shard in shards)
      and index['examples'] == sum(shard['examples'] for shard in shards) > 0
      and (pixels is None or are_counts(pixels) and len(pixels) == num_classes)
      and (areas is None or pixels and are_counts(areas) and len(areas) == num_classes
           and all(map(int.__le__, pixels, areas)))
      and (classes is None or isinstance(classes, str) and re.fullmatch('[0-9a-f ]*', classes)
           and len(classes.split()) == index['examples']
           and all(int(mask, 16) < 1 << num_classes for mask in classes.split())))


def files_of(folder, split, ending=''):
  """Returns [(name, match), ...] of a split's index and records in a folder, and of what `ending` adds."""
  pattern = re.compile(re.escape(split) + r'((-\d{5}-of-\d{5})?\.record|\.json)' + ending)
  return [(name, match) for name in sorted(os.listdir(folder)) if (match := pattern.fullmatch(name))]
