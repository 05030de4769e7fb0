"""Record files: the schema of one example, how it is checked and written, and how damage is found.

The only home of the feature names. An image keeps the bytes of its JPEG or PNG file; a label is a
PNG of one channel (grey or palette) whose stored sample values are the class ids. Writers fill
every feature, readers demand no more than the two encoded ones, which every record of the original
scripts has. The decoders of the training graph are utils/preprocessing.py's; those here use PIL and
accept no file that the graph would refuse or read as something else.
"""
import glob
import io
import itertools
import os

import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError
from PIL import Image
from tqdm import tqdm

from utils import files
from utils.errors import DataError

IMAGE_ENCODED = 'image/encoded'
IMAGE_FORMAT = 'image/format'
IMAGE_FILENAME = 'image/filename'
IMAGE_HEIGHT = 'image/height'
IMAGE_WIDTH = 'image/width'
IMAGE_CHANNELS = 'image/channels'
LABEL_ENCODED = 'label/encoded'
LABEL_FORMAT = 'label/format'

# PIL's formats whose bytes are stored as they are; MPO is a camera's JPEG with a preview appended.
_STORED_FORMATS = {'JPEG': b'jpeg', 'MPO': b'jpeg', 'PNG': b'png'}
_IMAGE_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA')
# Positions in a PNG file, and values of the second.
_PNG_BITS, _PNG_COLOUR_TYPE = 24, 25
_GREY, _PALETTE = 0, 3
_PNG_END = b'IEND\xaeB`\x82'


def write_tf_record(path, pairs, dataset):
  """Writes one record file, which appears under its name only when it is complete.

  Args:
    path: str, the record file.
    pairs: list of (image path, label path).
    dataset: Dataset.

  Returns:
    int, the number of examples written.

  Raises:
    DataError: a pair is damaged or does not fit the dataset, or the file cannot be written.
  """
  try:
    with (files.replacing(path) as temporary,
          tf.io.TFRecordWriter(temporary) as writer,
          tqdm(pairs, desc=os.path.basename(path), unit='image') as progress):
      for image_path, label_path in progress:
        writer.write(encode_example(image_path, label_path, dataset))
  except (OSError, tf.errors.OpError) as error:
    raise DataError(f"record '{path}' cannot be written: {error}") from error
  return len(pairs)


def encode_example(image_path, label_path, dataset):
  """Returns the serialized tf.train.Example of an image and its label, both decoded and checked.

  Args:
    image_path: str, 8-bit grey or RGB: JPEG, PNG or what else PIL reads (then stored as PNG).
    label_path: str, PNG of one channel and of the image's size, values 0..K-1 or ignore_label.
    dataset: Dataset.

  Raises:
    DataError: a file is missing, damaged or not as above; the error names it.
  """
  image_source, label_source = f"image '{image_path}'", f"label '{label_path}'"
  encoded = _read(image_path, image_source)
  image = _decode(encoded, image_source)
  encoded, image_format = _storable(encoded, image, image_source)
  label_encoded = _read(label_path, label_source)
  label_size = _check_label(label_encoded, dataset, label_source)
  _check_sizes(image.size, label_size, label_source)
  return tf.train.Example(features=tf.train.Features(feature={
      IMAGE_ENCODED: _bytes(encoded),
      IMAGE_FORMAT: _bytes(image_format),
      IMAGE_FILENAME: _bytes(os.fsencode(os.path.basename(image_path))),
      IMAGE_HEIGHT: _int64(image.height),
      IMAGE_WIDTH: _int64(image.width),
      IMAGE_CHANNELS: _int64(3),  # as the graph decodes it, whatever the file holds
      LABEL_ENCODED: _bytes(label_encoded),
      LABEL_FORMAT: _bytes(b'png'),
  })).SerializeToString(deterministic=True)  # the same bytes run to run


def _bytes(value):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int64(value):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _read(path, source):
  """Returns the bytes of a file."""
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as error:
    raise DataError(f'{source} cannot be read: {error.strerror}') from error


def _decode(encoded, source):
  """Returns the decoded PIL image; DataError where any byte that matters is damaged."""
  try:
    image = Image.open(io.BytesIO(encoded))
    if image.format == 'PNG':
      # load() skips the checksums that TensorFlow insists on; verify() compares all but the last.
      image.verify()
      if _PNG_END not in encoded:
        raise OSError('the file ends early')
      image = Image.open(io.BytesIO(encoded))
    image.load()
  except Exception as error:  # OSError, SyntaxError, ValueError, struct.error: PIL leaves it open
    # PIL's 'cannot identify image file <_io.BytesIO object at 0x7f..>' is cut before the address.
    reason = str(error).partition(' <_io')[0] if encoded else 'the file is empty'
    raise DataError(f'{source} does not decode ({reason}); replace it') from error
  return image


def _storable(encoded, image, source):
  """Returns the bytes and format to store; DataError where the graph would misread them."""
  kind = '16-bit' if image.format == 'PNG' and encoded[_PNG_BITS] == 16 else image.mode
  if kind not in _IMAGE_MODES:
    raise DataError(f'{source} is a {kind} image; convert it to 8-bit RGB or grey')
  # The graph drops transparency, and shows what it hid.
  if image.has_transparency_data and image.convert('RGBA').getextrema()[3][0] < 255:
    raise DataError(f'{source} has transparent pixels; flatten it to RGB')
  if image.format in _STORED_FORMATS:
    return encoded, _STORED_FORMATS[image.format]
  buffer = io.BytesIO()
  image.convert('RGB').save(buffer, 'PNG')
  return buffer.getvalue(), b'png'


def _check_label(encoded, dataset, source):
  """Returns the (width, height) of a label; DataError where it is not as training demands."""
  label = _decode(encoded, source)
  if label.format != 'PNG':
    raise DataError(f'{source} is a {label.format} file; save it as PNG, with exact class ids')
  bits, colour_type = encoded[_PNG_BITS], encoded[_PNG_COLOUR_TYPE]
  if colour_type not in (_GREY, _PALETTE) or bits == 16:
    raise DataError(f'{source} has {len(label.getbands())} channel(s) of {bits} bits; a label is a '
                    'grey or palette PNG of at most 8 bits whose values are the class ids')
  # PIL and TensorFlow stretch grey of 1, 2 and 4 bits to 0..255, but not a palette's indices.
  stretch = 255 // (2 ** bits - 1) if colour_type == _GREY else 1
  values = {value // stretch for value, count in enumerate(label.histogram()) if count}
  wrong = sorted(values - set(range(dataset.num_classes)) - {dataset.ignore_label})
  if wrong:
    raise DataError(
        f'{source} holds the values {_shortened(wrong)}; {dataset.name} allows '
        f'0..{dataset.num_classes - 1} and {dataset.ignore_label} (ignored); recode the label, or '
        'use the dataset that it belongs to')
  return label.size


def _shortened(values):
  """Returns '1, 2, 3' or, of more than ten values, '1, 2, ... 9, 10 and 30 others'."""
  text = ', '.join(map(str, values[:10]))
  return text if len(values) <= 10 else f'{text} and {len(values) - 10} others'


def _check_sizes(image_size, label_size, source):
  if image_size != label_size:
    label, image = ('x'.join(map(str, size)) for size in (label_size, image_size))
    raise DataError(f'{source} is {label}, its image {image} (width x height); make them equal')


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
  shards = sorted(glob.glob(
      os.path.join(glob.escape(data_dir), f'{split}-{number}-of-{number}.record')))
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
  """Raises DataError where shards are missing or belong to two sets."""
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

  A record file is, for each example, its length (8 bytes, little-endian), a checksum (4), the data
  and a checksum (4). The checksums are left to TensorFlow.

  Raises:
    DataError: a file cannot be read, or does not end where an example ends.
  """
  return [_count_examples(path) for path in paths]


def _count_examples(path):
  """`count_examples` of one file."""
  count = offset = 0
  try:
    with open(path, 'rb', buffering=0) as file:  # a buffer would read 8 KB for each length
      size = os.fstat(file.fileno()).st_size
      while offset < size:
        end = offset + 16 + int.from_bytes(file.read(8), 'little')
        if end > size:
          raise DataError(f"record '{path}' is damaged: example {count} (from 0), at byte {offset},"
                          f' does not end within the {size} bytes of the file; write it again')
        offset = file.seek(end)
        count += 1
  except OSError as error:
    raise DataError(f"record '{path}' cannot be read: {error.strerror}") from error
  return count


def parse_example(serialized):
  """Returns the encoded image and label of an example, as scalar string tensors.

  Args:
    serialized: string [], a tf.train.Example with at least the two encoded features.
  """
  features = tf.io.parse_single_example(serialized, {
      IMAGE_ENCODED: tf.io.FixedLenFeature([], tf.string),
      LABEL_ENCODED: tf.io.FixedLenFeature([], tf.string),
  })
  return features[IMAGE_ENCODED], features[LABEL_ENCODED]


def find_bad_example(paths, dataset):
  """Returns the DataError of the first example that training cannot use, or None.

  Slow (every example is decoded by PIL): it names the culprit after the graph has failed.

  Args:
    paths: list of str, record files.
    dataset: Dataset.
  """
  for path in paths:
    error = _find_bad_example(path, dataset)
    if error:
      return error
  return None


def _find_bad_example(path, dataset):
  """`find_bad_example` of one file."""
  # TensorFlow reads the file, and so compares the checksums as training does, without the GPU.
  config = tf.ConfigProto(device_count={'GPU': 0})
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    next_example = tf.data.make_one_shot_iterator(tf.data.TFRecordDataset(path)).get_next()
    for position in itertools.count():
      source = f"example {position} (from 0) of record '{path}'"
      try:
        _check_example(session.run(next_example), dataset, source)
      except tf.errors.OutOfRangeError:
        return None
      except tf.errors.OpError:
        return DataError(f'{source} is damaged or cut off; write the record again')
      except DataError as error:
        return error


def _check_example(serialized, dataset, source):
  """Raises DataError where a serialized example is not what the graph can use."""
  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except DecodeError as error:
    raise DataError(f'{source} is no tf.train.Example; write the record again') from error
  for name in (IMAGE_ENCODED, LABEL_ENCODED):
    if len(features[name].bytes_list.value) != 1:
      raise DataError(f"{source} lacks the feature '{name}'; write the record again")
  for filename in features[IMAGE_FILENAME].bytes_list.value:
    source = f"{source}, '{filename.decode(errors='replace')}'"
  image = _decode(features[IMAGE_ENCODED].bytes_list.value[0], f'the image of {source}')
  if image.format not in _STORED_FORMATS:
    raise DataError(f'the image of {source} is a {image.format} file; store it as JPEG or PNG')
  label_source = f'the label of {source}'
  label_size = _check_label(features[LABEL_ENCODED].bytes_list.value[0], dataset, label_source)
  _check_sizes(image.size, label_size, label_source)
