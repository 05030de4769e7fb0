"""Record files: the schema of one example, how it is checked and encoded, and how damage is found.

The only home of the feature names. An image keeps the bytes of its JPEG or PNG file; a label is a
PNG of one channel (grey or palette) whose stored sample values are the class ids. Writers fill
every feature, readers demand no more than the two encoded ones, which every record of the original
scripts has. utils/conversion.py writes the files. The decoders of the training graph are
utils/preprocessing.py's; those here use PIL and accept no file that the graph would refuse or read
as something else.

TensorFlow is imported where it is needed: the processes that encode examples do without it.
"""
import contextlib
import functools
import glob
import io
import itertools
import os
import typing
import warnings

import numpy as np
from google.protobuf.message import DecodeError
from PIL import Image

from utils import datasets, files, visualization
from utils.errors import DataError

IMAGE_ENCODED = 'image/encoded'
IMAGE_FORMAT = 'image/format'
IMAGE_FILENAME = 'image/filename'
IMAGE_HEIGHT = 'image/height'
IMAGE_WIDTH = 'image/width'
IMAGE_CHANNELS = 'image/channels'
LABEL_ENCODED = 'label/encoded'
LABEL_FORMAT = 'label/format'

# The most pixels of an image or a label, wherever it comes from, and the most bytes of its file. A few bytes
# can claim any size, and decoding reserves the memory for it.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS
MAX_BYTES = 1 << 30

# PIL's formats whose bytes are stored as they are; MPO is a camera's JPEG with a preview appended.
_STORED_FORMATS = {'JPEG': b'jpeg', 'MPO': b'jpeg', 'PNG': b'png'}
_IMAGE_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA')
# Positions in a PNG file, and values of the second.
_PNG_BITS, _PNG_COLOUR_TYPE = 24, 25
_GREY, _PALETTE = 0, 3
_PNG_END = b'IEND\xaeB`\x82'
_JPEG_SCAN, _JPEG_END = b'\xff\xda', b'\xff\xd9'
_EXIF_ORIENTATION = 0x0112
# `open_image` refuses what PIL just warns of, at any number of threads.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', module=r'PIL\.')  # of damaged EXIF and such, without a name


class Encoded(typing.NamedTuple):
  """What became of a pair.

  Attributes:
    serialized: bytes, the tf.train.Example, or None where there are problems.
    size: (width, height) or None.
    counts: list of 256 int, the pixels of each label value; None where the label was not decoded.
    problems: list of str, sentences that name the file.
  """
  serialized: bytes
  size: tuple
  counts: list
  problems: list


class _Image(typing.NamedTuple):
  """An image as it is stored: bytes, b'jpeg' or b'png', (width, height), and `_orientation`."""
  encoded: bytes
  format: bytes
  size: tuple
  orientation: int


class _Label(typing.NamedTuple):
  """A label as it is stored: a PNG file's bytes, its (width, height) and `Encoded.counts`."""
  encoded: bytes
  size: tuple
  counts: list


class Entry(typing.NamedTuple):
  """What some pixels of a label have in common.

  Attributes:
    value: int, the stored value, or None in a label of several channels.
    color: (red, green, blue), or None in a grey label.
    pixels: int, their number.
  """
  value: int
  color: tuple
  pixels: int


def encode_example(image_path, label_path, dataset):
  """Returns the serialized tf.train.Example of an image and its label, both decoded and checked.

  Args:
    image_path, label_path, dataset: see encode_pair.

  Raises:
    DataError: a file is missing, damaged or not as encode_pair takes it; the error names it.
  """
  pair = datasets.Pair(image_path, label_path, dataset, os.path.basename(image_path))
  encoded = encode_pair(pair)
  if encoded.problems:
    raise DataError(encoded.problems[0])
  return encoded.serialized


def encode_pair(pair, fast=False):
  """Returns the Encoded of an image and its label.

  The image is 8-bit grey or RGB: JPEG, PNG or what else PIL reads (then stored as PNG). The label
  is a PNG of the image's size. It has one channel and values 0..K-1 or ignore_label, or what the
  dataset's `values` or `colors` turn into them; then it is stored as the palette PNG that they make.

  Args:
    pair: datasets.Pair.
    fast: bool, read no more than the headers, so that damage and wrong label values go unseen.
  """
  problems, image, label = [], None, None
  with _collecting(problems):
    image = _load_image(pair.image, fast)
  with _collecting(problems):
    label = _load_label(pair.label, pair.dataset, fast)
  if image and label:
    with _collecting(problems):
      _check_orientation(image, label.size, pair.image)
      _check_sizes(image.size, label.size, _label_source(pair.label))
  if problems:
    return Encoded(None, None, None, problems)
  width, height = label.size
  serialized = _serialize({
      IMAGE_ENCODED: image.encoded,
      IMAGE_FORMAT: image.format,
      IMAGE_FILENAME: os.fsencode(pair.name),
      IMAGE_HEIGHT: height,
      IMAGE_WIDTH: width,
      IMAGE_CHANNELS: 3,  # as the graph decodes it, whatever the file holds
      LABEL_ENCODED: label.encoded,
      LABEL_FORMAT: b'png',
  })
  return Encoded(serialized, label.size, label.counts, [])


@contextlib.contextmanager
def _collecting(problems):
  """Adds the sentence of a DataError to a list instead of raising it."""
  try:
    yield
  except DataError as error:
    problems.append(str(error))


def _serialize(features):
  """Returns the tf.train.Example of a dict of bytes and int features, serialized.

  It is the wire format of protocol buffers, byte for byte what TensorFlow writes deterministically,
  but takes neither the seconds of importing TensorFlow nor three more copies of an image:
  Example {1: Features {1: map of {1: name, 2: Feature {1: BytesList, 3: Int64List}}}}, where both
  lists keep their content in field 1.
  """
  entries = []
  for name, value in sorted(features.items()):
    entries += _bytes_entry(name, value) if isinstance(value, bytes) else _int_entry(name, value)
  return b''.join(_field(1, *entries))


def _bytes_entry(name, value):
  return _entry(name, _field(1, *_field(1, value)))


@functools.lru_cache(maxsize=256)  # sizes and such, which most examples of a dataset share
def _int_entry(name, value):
  return _entry(name, _field(3, *_field(1, _varint(value))))


def _entry(name, feature):
  """Returns the parts of an entry of the map of features, from those of the feature."""
  return _field(1, *_field(1, name.encode()), *_field(2, *feature))


def _field(number, *parts):
  """Returns the parts of a protocol buffer's field that holds these parts of bytes or of a message."""
  return _varint(number << 3 | 2), _varint(sum(map(len, parts))), *parts


def _varint(value):
  """Returns a number of 0 or more as a protocol buffer stores it: 7 bits a byte, low ones first."""
  if value < 128:
    return bytes((value,))
  return bytes((value & 127 | 128,)) + _varint(value >> 7)


def _load_image(path, fast):
  """Returns the _Image of a file."""
  source = f"image '{path}'"
  encoded = read_image_file(path, source)
  image = open_image(encoded, source)
  _check_kind(image, encoded, source)
  size, orientation = image.size, _orientation(image, source)
  if image.format in _STORED_FORMATS:
    if not fast:
      _check_transparency(_decode(image, encoded, source), source)
    return _Image(encoded, _STORED_FORMATS[image.format], size, orientation)
  image = _decode(image, encoded, source)
  _check_transparency(image, source)
  buffer = io.BytesIO()
  image.convert('RGB').save(buffer, 'PNG')
  return _Image(buffer.getvalue(), b'png', image.size, orientation)


def read_image_file(path, source):
  """Returns the bytes of the file of an image or label; `files.read_bytes` says what is refused."""
  return files.read_bytes(path, source, MAX_BYTES)


def open_image(encoded, source):
  """Returns the PIL image of a file of which only the header has been read.

  Args:
    encoded: bytes of the file.
    source: str, what errors call it.

  Raises:
    DataError: PIL does not know it (then UnidentifiedImageError is the cause), its header is damaged or
      claims more than MAX_PIXELS, or it is a program (EPS, which PIL hands to Ghostscript).
  """
  try:
    image = Image.open(io.BytesIO(encoded))
  except Image.DecompressionBombError as error:
    raise _is_too_large(source) from error
  except Exception as error:
    raise _does_not_decode(source, encoded, error) from error
  if image.width * image.height > MAX_PIXELS:  # up to twice as many, PIL just warns
    raise _is_too_large(source)
  if image.format == 'EPS':
    raise DataError(f'{source} is an EPS file, which is a program and not an image; convert it to PNG')
  return image


def _is_too_large(source):
  return DataError(f'{source} has more than the {MAX_PIXELS} pixels that are allowed; cut it into parts')


def _decode(image, encoded, source):
  """Returns the decoded PIL image, a JPEG at an eighth of its size.

  Args:
    image: what `open_image` returned; it must not be used any more.
    encoded: bytes of the file.
    source: str, what errors call it.

  Raises:
    DataError: any byte that matters is damaged.
  """
  try:
    if image.format == 'PNG':
      # load() skips the checksums that TensorFlow insists on; verify() compares all but the last.
      image.verify()
      if _PNG_END not in encoded:
        raise OSError('the file ends early')
      image = Image.open(io.BytesIO(encoded))
    elif _STORED_FORMATS.get(image.format) == b'jpeg':
      # All of the data is read at any scale, and the smallest takes half the time. PIL alone takes
      # zeros to the end of the file, as broken downloads leave, for grey pixels.
      end = encoded.rfind(_JPEG_END)
      if end < 0 or encoded.find(_JPEG_SCAN, end) >= 0:
        raise OSError('the file ends early')
      image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()
  except Exception as error:  # OSError, SyntaxError, ValueError, struct.error: PIL leaves it open
    raise _does_not_decode(source, encoded, error) from error
  return image


def _does_not_decode(source, encoded, error):
  """Returns the DataError of a file that PIL refuses."""
  # PIL's 'cannot identify image file <_io.BytesIO object at 0x7f..>' is cut before the address.
  reason = str(error).partition(' <_io')[0] if encoded else 'the file is empty'
  return DataError(f'{source} does not decode ({reason}); replace it')


def _check_kind(image, encoded, source):
  """Raises DataError for an image that the graph would misread."""
  kind = '16-bit' if image.format == 'PNG' and encoded[_PNG_BITS] == 16 else image.mode
  if kind not in _IMAGE_MODES:
    raise DataError(f'{source} is a {kind} image; convert it to 8-bit RGB or grey')


def _check_transparency(image, source):
  """Raises DataError for an image that is not opaque: the graph would show what is hidden."""
  if image.has_transparency_data and image.convert('RGBA').getextrema()[3][0] < 255:
    raise DataError(f'{source} has transparent pixels; flatten it to RGB')


def _orientation(image, source):
  """Returns how a photo is to be turned for display, 1..8 as EXIF counts; 1 is not at all."""
  if 'exif' not in image.info:
    return 1
  try:
    return image.getexif().get(_EXIF_ORIENTATION, 1)
  except Exception as error:  # SyntaxError, struct.error, KeyError ...: PIL leaves it open
    raise DataError(f'{source} has EXIF data that cannot be read ({error}); remove them, such as by '
                    "'exiftool -all= FILE'") from error


def _check_orientation(image, label_size, path):
  """Raises DataError for a photo that is to be turned for display, unless its label is not turned.

  The graph reads pixels as they are stored. A label drawn on the turned photo would not fit, and only
  where width and height change places can it be told from one drawn on the stored pixels.

  Args:
    image: _Image.
    label_size: (width, height).
    path: str, the image.
  """
  width, height = image.size
  swaps = image.orientation in (5, 6, 7, 8) and width != height
  if image.orientation in range(2, 9) and not (swaps and label_size == image.size):
    raise DataError(f"image '{path}' is stored turned (EXIF orientation {image.orientation}); turn its "
                    "pixels with 'mogrify -auto-orient', and let the label fit what you see then")


def _label_source(path):
  return f"label '{path}'"


def _load_label(path, dataset, fast):
  """Returns the _Label of a file."""
  source = _label_source(path)
  encoded = read_image_file(path, source)
  if dataset.values or dataset.colors:
    return _recode(encoded, dataset, source)
  if fast:
    header = open_image(encoded, source)
    _check_label_kind(header, encoded, source)
    return _Label(encoded, header.size, None)
  return _check_label(encoded, dataset, source)


def _check_label(encoded, dataset, source):
  """Returns the _Label of a PNG file; DataError where it is not as training demands."""
  label = _decode_label(encoded, source)
  allowed = {*range(dataset.num_classes), dataset.ignore_label}
  counts = _count_values(label, encoded)
  wrong = [value for value in range(256) if counts[value] and value not in allowed]
  if wrong:
    raise DataError(
        f'{source} holds the values {_shortened(wrong)}; {dataset.name} allows '
        f'0..{dataset.num_classes - 1} and {dataset.ignore_label} (ignored); recode the label, or '
        'use the dataset that it belongs to')
  return _Label(encoded, label.size, counts)


def _decode_label(encoded, source):
  """Returns the PIL image of a label of one channel; DataError where it is none."""
  label = open_image(encoded, source)
  _check_label_kind(label, encoded, source)
  return _decode(label, encoded, source)


def _check_label_kind(label, encoded, source):
  if label.format != 'PNG':
    raise DataError(f'{source} is a {label.format} file; save it as PNG, with exact class ids')
  bits, colour_type = encoded[_PNG_BITS], encoded[_PNG_COLOUR_TYPE]
  if colour_type not in (_GREY, _PALETTE) or bits == 16:
    raise DataError(f'{source} has {len(label.getbands())} channel(s) of {bits} bits; a label is a '
                    'grey or palette PNG of at most 8 bits whose values are the class ids; if it shows '
                    "classes by colours, give a descriptor with 'colors'")


def _stretch(encoded):
  """Returns the factor by which PIL and TensorFlow multiply the samples of a label PNG.

  They stretch grey of 1, 2 and 4 bits to 0..255, but not a palette's indices.
  """
  return 255 // (2 ** encoded[_PNG_BITS] - 1) if encoded[_PNG_COLOUR_TYPE] == _GREY else 1


def _count_values(label, encoded):
  """Returns the pixels of each sample value, 256 ints, of a decoded label PNG."""
  stretched = label.histogram()
  stretch = _stretch(encoded)
  counts = stretched[::stretch]
  return counts + [0] * (256 - len(counts))


def _recode(encoded, dataset, source):
  """Returns the _Label that a PNG file turns into by the dataset's `values` or `colors`."""
  if dataset.values:
    kind, keys = 'values', _read_values(encoded, source)
    table = _lookup_table(256, tuple(dataset.values.items()))
  else:
    kind, keys = 'colors', _read_colors(encoded, source)
    table = _lookup_table(1 << 24, tuple((_color_key(color), label)
                                         for color, label in dataset.colors.items()))
  labels = table[keys]
  if labels.min() < 0:
    unknown = np.unique(keys[labels < 0]).tolist()
    unknown = _shortened(unknown if dataset.values else list(map(_color_name, unknown)))
    raise DataError(f"{source} holds the {kind} {unknown}, which '{kind}' of {dataset.name} does not "
                    'have; add them, if only as "ignore"')
  labels = labels.astype(np.uint8)
  image = Image.fromarray(labels)
  image.putpalette(visualization.color_table(dataset.palette, dataset.ignore_label).tobytes())
  buffer = io.BytesIO()
  image.save(buffer, 'PNG')
  return _Label(buffer.getvalue(), image.size, image.histogram())


def survey_label(path):
  """Returns what a label PNG of any kind holds, as a list of Entry.

  Raises:
    DataError: the file is missing, damaged, or none that a descriptor could make a label of.
  """
  source = _label_source(path)
  encoded = read_image_file(path, source)
  label = open_image(encoded, source)
  if label.format == 'PNG' and encoded[_PNG_BITS] <= 8 and encoded[_PNG_COLOUR_TYPE] in (_GREY, _PALETTE):
    values, pixels = np.unique(_read_values(encoded, source), return_counts=True)
    palette = label.getpalette() if label.mode == 'P' else None
    values = values.tolist()
    colors = [palette and tuple(palette[3 * value:3 * value + 3]) for value in values]
    return list(map(Entry, values, colors, pixels.tolist()))
  keys, pixels = np.unique(_read_colors(encoded, source), return_counts=True)
  return [Entry(None, tuple(key.to_bytes(3, 'big')), count)
          for key, count in zip(keys.tolist(), pixels.tolist())]


def _read_values(encoded, source):
  """Returns uint8 [H, W], the sample values of a label PNG of one channel."""
  label = _decode_label(encoded, source)
  return np.asarray(label if label.mode == 'P' else label.convert('L')) // _stretch(encoded)


def _read_colors(encoded, source):
  """Returns int32 [H, W], the `_color_key` of each pixel of a label PNG of any kind."""
  header = open_image(encoded, source)
  if header.format != 'PNG' or encoded[_PNG_BITS] == 16:
    raise DataError(f'{source} is a {header.format} file of mode {header.mode}; save it as an 8-bit PNG, '
                    'with exact colours')
  label = _decode(header, encoded, source)
  _check_transparency(label, source)
  red, green, blue = (np.asarray(band, np.int32) for band in label.convert('RGB').split())
  return red << 16 | green << 8 | blue


def _color_key(color):
  """Returns 0..2**24-1 of (red, green, blue)."""
  return int.from_bytes(bytes(color), 'big')


def _color_name(key):
  """Returns '#rrggbb' of a `_color_key`."""
  return datasets.hex_color(int(key).to_bytes(3, 'big'))


@functools.lru_cache(maxsize=2)
def _lookup_table(size, entries):
  """Returns int16 [size]: the label of every key, or -1.

  Args:
    size: int.
    entries: tuple of (key, label).
  """
  table = np.full(size, -1, np.int16)
  for key, label in entries:
    table[key] = label
  return table


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
  count, rest = whole_examples(path)
  if rest:
    size = os.path.getsize(path)
    raise DataError(f"record '{path}' is damaged: example {count} (from 0), at byte {size - rest}, is empty "
                    f'or does not end within the {size} bytes of the file; write it again')
  return count


def whole_examples(path):
  """Returns the number of examples, none empty, that end within a record, and the bytes after them.

  Raises:
    DataError: the file cannot be read.
  """
  count = offset = 0
  try:
    with open(path, 'rb', buffering=0) as file:  # a buffer would read 8 KB for each length
      size = os.fstat(file.fileno()).st_size
      while offset < size:
        length = int.from_bytes(file.read(8), 'little')
        if not length or offset + 16 + length > size:  # zeros would be any number of empty examples
          break
        offset = file.seek(offset + 16 + length)
        count += 1
  except OSError as error:
    raise DataError(f"record '{path}' cannot be read: {error.strerror}") from error
  return count, size - offset


def parse_example(serialized):
  """Returns the encoded image and label of an example, as scalar string tensors.

  Args:
    serialized: string [], a tf.train.Example with at least the two encoded features.
  """
  import tensorflow.compat.v1 as tf

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
  import tensorflow.compat.v1 as tf

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
  import tensorflow.compat.v1 as tf

  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except DecodeError as error:
    raise DataError(f'{source} is no tf.train.Example; write the record again') from error
  for name in (IMAGE_ENCODED, LABEL_ENCODED):
    if len(features[name].bytes_list.value) != 1:
      raise DataError(f"{source} lacks the feature '{name}'; write the record again")
  for filename in features[IMAGE_FILENAME].bytes_list.value:
    source = f"{source}, '{filename.decode(errors='replace')}'"
  image_encoded, = features[IMAGE_ENCODED].bytes_list.value
  image_source, label_source = f'the image of {source}', f'the label of {source}'
  image = open_image(image_encoded, image_source)
  if image.format not in _STORED_FORMATS:
    raise DataError(f'{image_source} is a {image.format} file; store it as JPEG or PNG')
  size = image.size
  _decode(image, image_encoded, image_source)
  label = _check_label(features[LABEL_ENCODED].bytes_list.value[0], dataset, label_source)
  _check_sizes(size, label.size, label_source)
