"""Examples one by one and in any order, from record files or from images and labels, decoded by PIL.

For looking at a dataset; training reads records through utils/inputs.py. What an example holds is
utils/tf_record.py's concern.
"""
import os

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from utils import tf_record
from utils.errors import DataError

_PNG_BITS = 24  # where a PNG file says how many bits a sample has


class Records:
  """The examples of record files."""

  def __init__(self, paths):
    """Raises DataError where a file cannot be read or is cut off."""
    self._places = []  # (path, number in it, first byte, length)
    for path, count in zip(paths, tf_record.count_examples(paths)):
      with open(path, 'rb') as file:
        for number in range(count):  # the layout is described in tf_record.count_examples
          length = int.from_bytes(file.read(8), 'little')
          begin = file.seek(4, os.SEEK_CUR)
          file.seek(length + 4, os.SEEK_CUR)
          self._places.append((path, number, begin, length))

  def __len__(self):
    return len(self._places)

  def source(self, index):
    """Returns what errors call an example."""
    path, number, _, _ = self._places[index]
    return f"example {number} (from 0) of record '{path}'"

  def load(self, index):
    """Returns a serialized tf.train.Example."""
    path, _, begin, length = self._places[index]
    with open(path, 'rb') as file:
      file.seek(begin)
      return file.read(length)


class Files:
  """Images and labels, read and checked as a conversion to records would."""

  def __init__(self, pairs):
    """Args: pairs, list of datasets.Pair."""
    self._pairs = pairs

  def __len__(self):
    return len(self._pairs)

  def source(self, index):
    """Returns what errors call an example."""
    return f"'{self._pairs[index].name}'"

  def load(self, index):
    """Returns a serialized tf.train.Example; raises DataError for files that do not make one."""
    encoded = tf_record.encode_pair(self._pairs[index])
    if encoded.problems:
      raise DataError('; '.join(encoded.problems))
    return encoded.serialized


def file_name(features):
  """Returns the image's path below its folder, a str, or None where a record lacks it.

  Args:
    features: dict, see parse.
  """
  name = features.get(tf_record.IMAGE_FILENAME)
  return None if name is None else os.fsdecode(name)


def parse(serialized, source):
  """Returns an example's features that hold bytes, a dict.

  Raises:
    DataError: it is no example, or lacks the image or the label; the error names the source.
  """
  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except DecodeError as error:
    raise DataError(f'{source} is no tf.train.Example; write the record again') from error
  features = {name: feature.bytes_list.value[0] for name, feature in features.items()
              if feature.bytes_list.value}
  for name in (tf_record.IMAGE_ENCODED, tf_record.LABEL_ENCODED):
    if name not in features:
      raise DataError(f"{source} lacks the feature '{name}'; write the record again")
  return features


def decode(features, dataset, source, min_side=0):
  """Returns image and label of an example.

  Args:
    features: dict, see parse.
    dataset: Dataset.
    source: str, what errors call the example.
    min_side: int; a JPEG may be decoded at a fraction of its size that is no smaller. 0: at full size.

  Returns:
    image: PIL image, RGB. label: uint8 [H, W], 0..K-1 or ignore_label.

  Raises:
    DataError: one is damaged, they differ in size, or the label holds other values.
  """
  image = tf_record.open_image(features[tf_record.IMAGE_ENCODED], f'the image of {source}')
  size = image.size
  if min_side:
    image.draft('RGB', (min_side, min_side))
  image = _loaded(image, f'the image of {source}').convert('RGB')
  label = _label_values(features[tf_record.LABEL_ENCODED], f'the label of {source}')
  height, width = label.shape
  if size != (width, height):
    raise DataError(f'the label of {source} is {width}x{height}, its image {size[0]}x{size[1]} '
                    '(width x height); make them equal')
  counts = np.bincount(label.ravel(), minlength=256)
  counts[[*range(dataset.num_classes), dataset.ignore_label]] = 0
  if counts.any():
    found = ', '.join(f'{value} ({counts[value] / label.size:.2%} of its pixels)'
                      for value in np.flatnonzero(counts)[:10])
    raise DataError(f'the label of {source} holds {found}; {dataset.name} allows '
                    f'0..{dataset.num_classes - 1} and {dataset.ignore_label} (ignored)')
  return image, label


def _loaded(image, source):
  try:
    image.load()
  except Exception as error:
    raise DataError(f'{source} is damaged ({error}); write the record again') from error
  return image


def _label_values(encoded, source):
  """Returns uint8 [H, W], the stored samples of a label PNG; those of a palette are its indices."""
  image = _loaded(tf_record.open_image(encoded, source), source)
  if image.format != 'PNG' or image.mode not in ('1', 'L', 'P'):
    raise DataError(f'{source} is a {image.format} of mode {image.mode}; a label is a grey or palette PNG')
  values = np.asarray(image).astype(np.uint8)
  # PIL stretches grey of 2 and 4 bits to 0..255.
  return values // (255 // (2 ** encoded[_PNG_BITS] - 1)) if image.mode == 'L' else values
