"""Label files: what one may be, and the sentences that say what is wrong with one that is not.

A label is a PNG of one channel, grey or palette, whose stored sample values are the class ids; the dataset's
`values` or `colors` make one of other PNG files. The training graph, which decodes labels again
(dataset/preprocessing.py), speaks in the same sentences.
"""
import functools
import io
import typing

import numpy as np
from PIL import Image

from dataset import descriptors, image_files, png
from utils import visualization
from utils.errors import DataError

# The sentences, which the training graph completes in its own way.
MUCH_IGNORED = 0.2  # share of the pixels of a split, above which there is a warning
WHAT_IT_IS = ('a label is a grey or palette PNG of at most 8 bits whose values are the class ids; if it '
              "shows classes by colours, give a descriptor with 'colors'")


def allowed_values(dataset):
  """Returns the end of the sentence on a label that holds other values."""
  return (f'; {dataset.name} allows 0..{dataset.num_classes - 1} and {dataset.ignore_label} (ignored); '
          'recode the label, or use the dataset that it belongs to')


def different_sizes(source, label_size, image_size):
  """Returns the sentence on a label of another size than its image, as a list of parts.

  Args:
    source: str or string tensor, what errors call the label.
    label_size, image_size: (height, width), ints or int32 tensors.
  """
  return [source, ' is ', label_size[1], 'x', label_size[0], ', its image ', image_size[1], 'x',
          image_size[0], ' (width x height); make them equal']


class Stored(typing.NamedTuple):
  """A label as it is stored: a PNG file's bytes, its (height, width) and `Encoded.counts`."""
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


def source_of(path):
  return f"label '{path}'"


def load(path, dataset, fast):
  """Returns the Stored of a file."""
  source = source_of(path)
  encoded = image_files.read_image_file(path, source)
  if dataset.values or dataset.colors:
    return _recode(encoded, dataset, source)
  if fast:
    header = image_files.open_image(encoded, source)
    _check_label_kind(header, encoded, source)
    return Stored(encoded, image_files.size_of(header), None)
  return check(encoded, dataset, source)


def check(encoded, dataset, source):
  """Returns the Stored of a PNG file; DataError if it is not as training demands."""
  label = _decode_label(encoded, source)
  counts = _count_values(label, encoded)
  check_values(counts, dataset, source)
  return Stored(encoded, image_files.size_of(label), counts)


def check_values(counts, dataset, source):
  """Raises DataError if a label holds a value that the dataset does not allow.

  Args:
    counts: 256 ints, the pixels of each value.
    dataset: Dataset.
    source: str, what errors call the label.
  """
  allowed = {*range(dataset.num_classes), dataset.ignore_label}
  wrong = [value for value in range(256) if counts[value] and value not in allowed]
  if wrong:
    raise DataError(f'{source} holds the values {_shortened(wrong)}{allowed_values(dataset)}')


def _decode_label(encoded, source):
  """Returns the PIL image of a label of one channel; DataError if it is none."""
  label = image_files.open_image(encoded, source)
  _check_label_kind(label, encoded, source)
  return image_files.decode(label, encoded, source)


def _check_label_kind(label, encoded, source):
  if label.format != 'PNG':
    raise DataError(f'{source} is a {label.format} file; save it as PNG, with exact class ids')
  bits, colour_type = encoded[png.BITS], encoded[png.COLOUR_TYPE]
  if colour_type not in (png.GREY, png.PALETTE) or bits == 16:
    raise DataError(f'{source} has {len(label.getbands())} channel(s) of {bits} bits; {WHAT_IT_IS}')


def _stretch(encoded):
  """Returns the factor by which PIL and TensorFlow multiply the samples of a label PNG.

  They stretch grey of 1, 2 and 4 bits to 0..255, but not a palette's indices.
  """
  return png.stretch(encoded[png.BITS]) if encoded[png.COLOUR_TYPE] == png.GREY else 1


def _count_values(label, encoded):
  """Returns the pixels of each sample value, 256 ints, of a decoded label PNG."""
  stretched = label.histogram()
  stretch = _stretch(encoded)
  counts = stretched[::stretch]
  return counts + [0] * (256 - len(counts))


def _recode(encoded, dataset, source):
  """Returns the Stored that a PNG file turns into by the dataset's `values` or `colors`."""
  if dataset.values:
    kind, keys = 'values', read_values(encoded, source)
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
  return Stored(buffer.getvalue(), labels.shape, image.histogram())


def survey_label(path):
  """Returns what a label PNG of any kind holds, as a list of Entry.

  Raises:
    DataError: the file is missing, damaged, or none that a descriptor could make a label of.
  """
  source = source_of(path)
  encoded = image_files.read_image_file(path, source)
  label = image_files.open_image(encoded, source)
  if label.format == 'PNG' and encoded[png.BITS] <= 8 and encoded[png.COLOUR_TYPE] in (png.GREY, png.PALETTE):
    values, pixels = np.unique(read_values(encoded, source), return_counts=True)
    palette = label.getpalette() if label.mode == 'P' else None
    values = values.tolist()
    colors = [palette and tuple(palette[3 * value:3 * value + 3]) for value in values]
    return list(map(Entry, values, colors, pixels.tolist()))
  keys, pixels = np.unique(_read_colors(encoded, source), return_counts=True)
  return [Entry(None, tuple(key.to_bytes(3, 'big')), count)
          for key, count in zip(keys.tolist(), pixels.tolist())]


def read_values(encoded, source):
  """Returns uint8 [H, W], the sample values of a label PNG of one channel."""
  label = _decode_label(encoded, source)
  return np.asarray(label if label.mode == 'P' else label.convert('L')) // _stretch(encoded)


def _read_colors(encoded, source):
  """Returns int32 [H, W], the `_color_key` of each pixel of a label PNG of any kind."""
  header = image_files.open_image(encoded, source)
  if header.format != 'PNG' or encoded[png.BITS] == 16:
    raise DataError(f'{source} is a {header.format} file of mode {header.mode}; save it as an 8-bit PNG, '
                    'with exact colours')
  label = image_files.decode(header, encoded, source)
  image_files.check_transparency(label, source)
  red, green, blue = (np.asarray(band, np.int32) for band in label.convert('RGB').split())
  return red << 16 | green << 8 | blue


def _color_key(color):
  """Returns 0..2**24-1 of (red, green, blue)."""
  return int.from_bytes(bytes(color), 'big')


def _color_name(key):
  """Returns '#rrggbb' of a `_color_key`."""
  return descriptors.hex_color(int(key).to_bytes(3, 'big'))


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


def check_sizes(image_size, label_size, source):
  """Raises DataError if a label and its image differ in size, (height, width)."""
  if image_size != label_size:
    raise DataError(''.join(map(str, different_sizes(source, label_size, image_size))))
