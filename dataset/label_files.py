"""Label files: what one may be, and the sentences that say what is wrong with one that is not.

A record holds a label as a PNG of one channel, grey or palette, whose stored sample values are the class ids.
A label file that is such a PNG is kept byte by byte. Of any other picture whose values or colours are exact,
and of labelme's polygons, the class ids are worked out, by the dataset's `values`, `colors` or `names` if it
has them. The training graph, which decodes labels again (dataset/preprocessing.py), speaks in the same
sentences.
"""
import functools
import typing

import numpy as np
from PIL import Image

from dataset import descriptors, image_files, png, polygons
from utils import visualization
from utils.errors import DataError

MUCH_IGNORED = 0.2  # share of the pixels of a split, above which there is a warning
MAX_CLASSES = 256
POLYGONS = '.json'  # the extension of labelme's files
# Of PIL's pictures whose values or colours are exact.
_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N')
# The sentences, which the training graph completes in its own way.
WHAT_IT_IS = ('a label is a grey or palette PNG whose values are the class ids; if it shows classes by '
              "colours, give a descriptor with 'colors'")


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
  """A label as it is stored.

  Attributes:
    encoded: bytes of a PNG file.
    size: (height, width).
    counts: list of 256 int, the pixels of each label value; None if the label was not decoded.
    palette_uses: list of (label value, (red, green, blue)): what the palette shows the values here as.
  """
  encoded: bytes
  size: tuple
  counts: list | None
  palette_uses: list = ()


class Raster:
  """The pixels of a label file of any kind.

  Attributes:
    transparent: bool [H, W], pixels of alpha 0; None if there is none. An index of a palette is what it is,
      also if it is shown transparent.
    palette: list of (red, green, blue), or None.
    is_lossy: bool, whether the file is a JPEG.
  """

  def __init__(self, image, encoded, source):
    """Decodes a file.

    Args:
      image: what image_files.open_image returned; it must not be used any more.
      encoded: bytes of the file.
      source: str, what errors call it.

    Raises:
      DataError: it is damaged, or its values or colours are not exact.
    """
    self._source = source
    if image.format == 'PNG' and encoded[png.BITS] == 16 and encoded[png.COLOUR_TYPE] != png.GREY:
      raise DataError(f'{source} has colours of 16 bits; save it with colours of 8 bits, or as class ids')
    self.is_lossy, stretch = image.format in ('JPEG', 'MPO'), _stretch(image, encoded)
    image_files.check_single(image, source)
    self._image = image_files.decode(image, encoded, source, min_side=0)
    mode = self._image.mode
    if mode not in _MODES:
      raise DataError(f'{source} is a picture of mode {mode}; {WHAT_IT_IS}')
    self._pixels, self.palette, self.transparent = np.asarray(self._image), _palette(self._image), None
    if mode == '1':
      self._pixels = self._pixels.astype(np.uint8)
    elif stretch > 1:
      self._pixels = self._pixels // stretch
    elif mode in ('LA', 'RGBA'):
      hidden = self._pixels[:, :, -1] == 0
      self.transparent = hidden if hidden.any() else None
      self._pixels = self._pixels[:, :, 0] if mode == 'LA' else self._pixels[:, :, :3]

  def values(self):
    """Returns integer [H, W], the stored values, 0..65535; None if the channels of a pixel differ."""
    if self._pixels.ndim == 3:
      opaque = self._pixels if self.transparent is None else self._pixels[~self.transparent]
      return self._pixels[:, :, 0] if (opaque[..., :1] == opaque[..., 1:]).all() else None
    least, most = self._pixels.min(), self._pixels.max()
    if least < 0 or most > descriptors.MAX_VALUE:
      raise DataError(f'{self._source} holds values from {least} to {most}; give ids from 0 to '
                      f'{descriptors.MAX_VALUE}')
    return self._pixels

  def colors(self):
    """Returns int32 [H, W], the `_color_key` of each pixel; DataError if they are of more than 8 bits."""
    if self._pixels.dtype.itemsize > 1:
      raise DataError(f"{self._source} holds ids of 16 bits and no colours; give 'values' for 'colors'")
    red, green, blue = (band.astype(np.int32) for band in
                        np.moveaxis(np.asarray(self._image.convert('RGB')), 2, 0))
    return red << 16 | green << 8 | blue


class Entry(typing.NamedTuple):
  """What some pixels of a label have in common.

  Attributes:
    value: int, the stored value, or None in a label of colours; or descriptors.TRANSPARENT.
    color: (red, green, blue), or None in a grey label.
    pixels: int, their number.
  """
  value: int | str | None
  color: tuple | None
  pixels: int


def source_of(path):
  return f"label '{path}'"


def load(path, dataset, fast):
  """Returns the Stored of a file."""
  source = source_of(path)
  if path.lower().endswith(POLYGONS):
    return _store(_draw(path, dataset), dataset)
  encoded = image_files.read_image_file(path, source)
  image = image_files.open_image(encoded, source)
  if dataset.values or dataset.colors or not _is_storable(image, encoded):
    return _recode(image, encoded, dataset, source)
  if fast:
    return Stored(encoded, image_files.size_of(image), None)
  return check(encoded, dataset, source)


def check(encoded, dataset, source):
  """Returns the Stored of a PNG file; DataError if it is not as training demands."""
  label = _decode_label(encoded, source)
  counts = _count_values(label, encoded)
  check_values(counts, dataset, source)
  palette_uses = [(value, color) for value, color in enumerate(_palette(label) or ()) if counts[value]]
  return Stored(encoded, image_files.size_of(label), counts, palette_uses)


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
  if not _is_storable(label, encoded):
    bits = f'{encoded[png.BITS]} bits' if label.format == 'PNG' else label.format
    raise DataError(f'{source} has {len(label.getbands())} channel(s) of {bits}; {WHAT_IT_IS}')
  return image_files.decode(label, encoded, source)


def _is_storable(label, encoded):
  """Returns whether a label file, whose header PIL has read, is a PNG as records hold them."""
  return (label.format == 'PNG' and encoded[png.BITS] <= 8
          and encoded[png.COLOUR_TYPE] in (png.GREY, png.PALETTE))


def _palette(label):
  """Returns the 256 colours of a PIL image, (red, green, blue), or None if it has no palette.

  What a shorter palette lacks is black, as PIL shows it.
  """
  flat = label.getpalette() if label.mode == 'P' else None
  return flat and list(zip(*([*flat[channel::3], *[0] * (256 - len(flat) // 3)] for channel in range(3))))


def _stretch(label, encoded):
  """Returns the factor by which PIL and TensorFlow multiply the samples of a label file.

  They stretch grey of 2 and 4 bits, and TensorFlow that of 1 bit, to 0..255, but not a palette's indices.
  """
  bits = 8
  if label.format == 'PNG' and encoded[png.COLOUR_TYPE] == png.GREY:
    bits = encoded[png.BITS]
  elif label.format == 'TIFF' and label.mode == 'L':
    bits = label.tag_v2.get(image_files.TIFF_BITS, (bits,))[0]
  return png.stretch(bits) if bits <= 8 else 1


def _count_values(label, encoded):
  """Returns the pixels of each sample value, 256 ints, of a decoded label PNG."""
  stretched = label.histogram()
  stretch = _stretch(label, encoded)
  counts = stretched[::stretch]
  return counts + [0] * (256 - len(counts))


def _recode(image, encoded, dataset, source):
  """Returns the Stored that a file turns into by the dataset's `values` or `colors`, if it has them."""
  raster = Raster(image, encoded, source)
  entries = dataset.colors or dataset.values
  other = entries.get(descriptors.OTHER, -1)
  if dataset.colors:
    kind, keys = 'colors', raster.colors()
    table = _lookup_table(1 << 24, tuple((_color_key(color), label) for color, label in entries.items()
                                         if isinstance(color, tuple)), other)
  else:
    kind, keys = 'values', raster.values()
    if keys is None:
      raise DataError(f'{source} has 3 channels that differ; {WHAT_IT_IS}')
    known = entries or {label: label for label in {*range(dataset.num_classes), dataset.ignore_label}}
    table = _lookup_table(descriptors.MAX_VALUE + 1,
                          tuple(item for item in known.items() if isinstance(item[0], int)), other)
  labels = table[keys]
  if raster.transparent is not None:
    labels[raster.transparent] = hidden = entries.get(descriptors.TRANSPARENT, other)
    if hidden < 0:
      raise DataError(f'{source} has {np.count_nonzero(raster.transparent)} transparent pixels; say what '
                      f"they are in the descriptor of {dataset.name}: \"{kind}\": "
                      f'{{"{descriptors.TRANSPARENT}": "{dataset.class_names[0]}", ...}}')
  if labels.min() < 0:
    unknown = np.unique(keys[labels < 0]).tolist()
    shown = _shortened(unknown if kind == 'values' else list(map(_color_name, unknown)))
    if raster.is_lossy:
      raise DataError(f'{source} holds the {kind} {shown}, which {dataset.name} does not have and JPEG may '
                      'have made of others; export the labels as PNG')
    if not entries:
      raise DataError(f'{source} holds the values {shown}{allowed_values(dataset)}')
    raise DataError(f"{source} holds the {kind} {shown}, which '{kind}' of {dataset.name} does not have; add "
                    'them, if only as "ignore"')
  stored = _store(labels.astype(np.uint8), dataset)
  if kind == 'colors' or not raster.palette:
    return stored
  return stored._replace(palette_uses=[(int(table[value]), raster.palette[value])
                                for value in np.flatnonzero(np.bincount(keys.ravel())).tolist()])


def _store(labels, dataset):
  """Returns the Stored of label values, uint8 [H, W]: a palette PNG in the dataset's colours."""
  image = Image.fromarray(labels)
  image.putpalette(visualization.color_table(dataset.palette, dataset.ignore_label).tobytes())
  return Stored(image_files.as_png(image), labels.shape, image.histogram())


def _draw(path, dataset):
  """Returns uint8 [H, W], the label values of a labelme file."""
  known = dataset.labels_of_names()
  background = next((known[name] for name in descriptors.BACKGROUND_NAMES if name in known), None)
  if background is None:
    raise DataError(f"{source_of(path)} holds polygons, and {dataset.name} no class for what none covers; "
                    f"name one '{descriptors.BACKGROUND_NAMES[-1]}', or give the descriptor "
                    f'"names": {{"{descriptors.BACKGROUND_NAMES[0]}": "ignore"}}')
  return polygons.draw(polygons.read(path), known, background)


def survey_label(path):
  """Returns what a label file of any kind holds, as a list of Entry.

  Raises:
    DataError: the file is missing, damaged, or none that a descriptor could make a label of.
  """
  source = source_of(path)
  encoded = image_files.read_image_file(path, source)
  raster = Raster(image_files.open_image(encoded, source), encoded, source)
  values = raster.values()
  keys = raster.colors() if values is None else values
  if raster.transparent is not None:
    keys = keys[~raster.transparent]
  keys, pixels = (counted.tolist() for counted in np.unique(keys, return_counts=True))
  if len(keys) > MAX_CLASSES:
    raise DataError(f'{source} holds {len(keys)} values or colours, and there are at most {MAX_CLASSES} '
                    'classes; if it is a photo, check --labels; else resizing, smoothing or JPEG has made '
                    'them: export the labels anew')
  if values is None:
    entries = [Entry(None, tuple(key.to_bytes(3, 'big')), count) for key, count in zip(keys, pixels)]
  else:
    entries = [Entry(key, raster.palette and raster.palette[key], count) for key, count in zip(keys, pixels)]
  if raster.transparent is not None:
    entries.append(Entry(descriptors.TRANSPARENT, None, int(np.count_nonzero(raster.transparent))))
  return entries


def read_values(encoded, source):
  """Returns uint8 [H, W], the sample values of a label PNG of one channel."""
  label = _decode_label(encoded, source)
  return np.asarray(label if label.mode == 'P' else label.convert('L')) // _stretch(label, encoded)


def _color_key(color):
  """Returns 0..2**24-1 of (red, green, blue)."""
  return int.from_bytes(bytes(color), 'big')


def _color_name(key):
  """Returns '#rrggbb' of a `_color_key`."""
  return descriptors.hex_color(int(key).to_bytes(3, 'big'))


@functools.lru_cache(maxsize=2)
def _lookup_table(size, entries, other):
  """Returns int16 [size]: the label of every key.

  Args:
    size: int.
    entries: tuple of (key, label).
    other: int, the label of all other keys; -1 if there is none.
  """
  table = np.full(size, other, np.int16)
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
