"""Files of records: the shards of a split, how many examples they hold, one example of them, a bad one.

A file is, for each example, its length (8 bytes, little-endian), a checksum (4), the data and a checksum (4).
"""
import glob
import hashlib
import itertools
import os

import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from dataset import image_files, schema
from utils import devices
from utils.errors import DataError


def record_files(data_dir, split):
  """Returns the record files of a split in order: `<split>.record`, or all of its shards.

  Args:
    data_dir: str, the folder of the records.
    split: str, such as 'train'.

  Raises:
    DataError: there is none, one is missing, both kinds are there, or all are empty.
  """
  single = os.path.join(data_dir, f'{split}.record')
  number = '[0-9]' * 5
  shards = sorted(glob.glob(f'{glob.escape(os.path.join(data_dir, split))}-{number}-of-{number}.record'))
  paths = [single] if os.path.isfile(single) else shards
  if not paths:
    raise DataError(f"record '{single}' does not exist, nor do its shards; write it with one of "
                    'the create_*_tf_record.py scripts')
  if shards and paths != shards:
    raise DataError(f"both '{single}' and shards of it ('{shards[0]}') exist; remove one kind")
  if shards:
    _check_shards(shards)
  if not any(map(os.path.getsize, paths)):
    raise DataError(f"record '{paths[0]}' is empty; write it again")
  return paths


def _check_shards(shards):
  """Raises DataError if shards are missing or belong to two sets."""
  stem, _, total = shards[0].removesuffix('.record').rpartition('-of-')
  expected = {f'{stem[:-5]}{index:05d}-of-{total}.record' for index in range(int(total))}
  others = sorted(set(shards) - expected)
  if others:
    raise DataError(f"records '{shards[0]}' and '{others[0]}' belong to different sets; remove one "
                    'set')
  missing = sorted(expected - set(shards))
  if missing:
    raise DataError(f"record '{missing[0]}' is missing beside '{shards[0]}'; write them all again")


def count_examples(paths):
  """Returns the number of examples in each file, from the lengths that stand before them.

  The checksums are left to TensorFlow.

  Raises:
    DataError: a file cannot be read, or does not end where an example ends.
  """
  return [len(_marks_of_whole(path)) for path in paths]


def _marks_of_whole(path):
  """Returns the marks of a file; DataError if it does not end where an example ends."""
  marks, rest = _marks(path)
  if rest:
    size = os.path.getsize(path)
    raise DataError(f"record '{path}' is damaged: example {len(marks)} (from 0), at byte {size - rest}, is "
                    f'empty or does not end within the {size} bytes of the file; write it again')
  return marks


def whole_examples(path):
  """Returns the number of examples, none empty, that end within a record, and the bytes after them.

  Raises:
    DataError: the file cannot be read.
  """
  marks, rest = _marks(path)
  return len(marks), rest


def fingerprint(paths):
  """Returns a text that tells sets of examples apart, wherever they lie, in whatever order and files."""
  return hashlib.sha256(b''.join(sorted(mark for path in paths for mark in _marks(path)[0]))).hexdigest()[:16]


def _marks(path):
  """Returns the checksum and length, bytes, of each whole example of a record, and the bytes after them."""
  marks, offset = [], 0
  try:
    with open(path, 'rb', buffering=0) as file:  # a buffer would read 8 KB for each length
      size = os.fstat(file.fileno()).st_size
      head = file.read(8)
      while offset < size:
        length = int.from_bytes(head, 'little')
        if not length or offset + 16 + length > size:  # zeros would be any number of empty examples
          break
        offset = file.seek(offset + 12 + length) + 4
        checksum_and_head = file.read(12)  # of the next one
        marks.append(checksum_and_head[:4] + head)
        head = checksum_and_head[4:]
  except OSError as error:
    raise DataError(f"record '{path}' cannot be read: {error.strerror}") from error
  return marks, size - offset


def find_bad_example(paths, dataset):
  """Returns the DataError of the first example that training cannot use, or None.

  Slow (every example is decoded by PIL): it names the culprit after the graph has failed.

  Args:
    paths: list of str, record files.
    dataset: Dataset.
  """
  # TensorFlow reads the files, and so compares the checksums as training does, without the GPU.
  with devices.cpu_session() as session:
    for path in paths:
      next_example = tf.data.make_one_shot_iterator(tf.data.TFRecordDataset(path)).get_next()
      for position in itertools.count():
        source = f"example {position} (from 0) of record '{path}'"
        try:
          _check_example(session.run(next_example), dataset, source)
        except tf.errors.OutOfRangeError:
          break
        except tf.errors.OpError:
          return DataError(f'{source} is damaged or cut off; write the record again')
        except DataError as error:
          return error
  return None


def _check_example(serialized, dataset, source):
  """Raises DataError if a serialized example is not what the graph can use."""
  features = parse(serialized, source)
  if schema.IMAGE_FILENAME in features:
    source = f"{source}, '{features[schema.IMAGE_FILENAME].decode(errors='replace')}'"
  image = image_files.open_image(features[schema.IMAGE_ENCODED], f'the image of {source}')
  if image.format not in image_files.STORED_FORMATS:
    raise DataError(f'the image of {source} is a {image.format} file; store it as JPEG or PNG')
  schema.decode(features, dataset, source, min_side=1)


# --- One example ---------------------------------------------------------------------------------


def serialize(features):
  """Returns the bytes of the tf.train.Example of a dict of bytes and ints; equal dicts give equal bytes."""
  def feature(value):
    if isinstance(value, bytes):
      return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

  example = tf.train.Example(features=tf.train.Features(
      feature={name: feature(value) for name, value in features.items()}))
  return example.SerializeToString(deterministic=True)


def parse(serialized, source):
  """Returns an example's features that hold bytes, a dict.

  Raises:
    DataError: it is no example, or lacks the image or the label; the error names the source.
  """
  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except DecodeError as error:
    raise DataError(f'{source} is no tf.train.Example; write the record again') from error
  for name in (schema.IMAGE_ENCODED, schema.LABEL_ENCODED):
    if len(features[name].bytes_list.value) != 1:
      raise DataError(f"{source} lacks the feature '{name}'; write the record again")
  return {name: feature.bytes_list.value[0] for name, feature in features.items() if feature.bytes_list.value}


def parse_example(serialized):
  """Returns the encoded image and label of an example, as scalar string tensors.

  Args:
    serialized: string [], a tf.train.Example with at least the two encoded features.
  """
  features = tf.io.parse_single_example(serialized, {
      schema.IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string),
      schema.LABEL_ENCODED: tf.io.FixedLenFeature([], tf.string),
  })
  return features[schema.IMAGE_ENCODED], features[schema.LABEL_ENCODED]


class Records:
  """The examples of record files."""

  def __init__(self, paths):
    """Raises DataError if a file cannot be read or is cut off."""
    self._places = []  # (path, number in it, first byte, length)
    for path in paths:
      begin = 12  # behind length and checksum
      for number, mark in enumerate(_marks_of_whole(path)):
        length = int.from_bytes(mark[4:], 'little')
        self._places.append((path, number, begin, length))
        begin += length + 16

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
    """Args: pairs, list of lists.Pair."""
    self._pairs = pairs

  def __len__(self):
    return len(self._pairs)

  def source(self, index):
    """Returns what errors call an example."""
    return f"'{self._pairs[index].name}'"

  def load(self, index):
    """Returns a serialized tf.train.Example; raises DataError for files that do not make one."""
    encoded = schema.encode_pair(self._pairs[index])
    if encoded.problems:
      raise DataError('; '.join(encoded.problems))
    return serialize(encoded.features)
