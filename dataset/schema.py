"""What an example of a record holds: the only home of the feature names. Free of TensorFlow.

An image keeps the bytes of its JPEG or PNG file if it can (dataset/image_files.py), a label is a PNG
(dataset/label_files.py). Writers fill
every feature, readers demand no more than the two encoded ones, which every record of the original scripts
has. dataset/tf_records.py turns the features into the bytes of an example and back.
"""
import contextlib
import os
import typing

import numpy as np
from PIL import Image

from dataset import image_files, label_files
from utils.errors import DataError

IMAGE_ENCODED = 'image/encoded'
IMAGE_FORMAT = 'image/format'
IMAGE_FILENAME = 'image/filename'
IMAGE_HEIGHT = 'image/height'
IMAGE_WIDTH = 'image/width'
IMAGE_CHANNELS = 'image/channels'
LABEL_ENCODED = 'label/encoded'
LABEL_FORMAT = 'label/format'

# What is said once of all pairs that it befell.
LABEL_WAS_TURNED = ('EXIF turns photos whose labels have the size of the stored pixels: the labels were '
                    'turned too')
SIZE_DOES_NOT_TELL = ('EXIF turns photos without changing their size (by half, in a mirror, squares): their '
                      'labels are taken to fit what a viewer shows')


class Encoded(typing.NamedTuple):
  """What became of a pair.

  Attributes:
    features: dict of bytes and ints, those of the tf.train.Example, or None if there are problems.
    size: (height, width) or None.
    counts: list of 256 int, the pixels of each label value; None if the label was not decoded.
    problems: list of str, sentences that name the file.
    palette_uses: list, see label_files.Stored.
    fingerprint: see image_files.fingerprint.
    notes: tuple of str, sentences of the above that hold for the pair.
  """
  features: dict | None
  size: tuple | None
  counts: list | None
  problems: list
  palette_uses: list = ()
  fingerprint: bytes | None = None
  notes: tuple = ()


def encode_pair(pair, fast=False):
  """Returns the Encoded of an image and its label.

  The image is 8-bit grey or RGB: JPEG, PNG or what else PIL or OpenCV reads (then stored as PNG), and what a
  viewer shows: one that EXIF turns is stored turned, as PNG. The label has its size, or that of the pixels in
  the file; then it is turned too. Its values are 0..K-1 or ignore_label, or what the dataset's `values`,
  `colors` or `names` turn into them; if it is no PNG of one channel, it is stored as the palette PNG of them.

  Args:
    pair: lists.Pair.
    fast: bool, read no more than the headers, so that damage and wrong label values go unseen.
  """
  problems, notes, image, label = [], (), None, None
  with _collecting(problems):
    image = image_files.load(pair.image, fast)
  with _collecting(problems):
    label = label_files.load(pair.label, pair.dataset, fast)
  if image and label:
    with _collecting(problems):
      source = label_files.source_of(pair.label)
      label, notes = _turned_with(image, label, source)
      label_files.check_sizes(image.size, label.size, source)
  if problems:
    return Encoded(None, None, None, problems)
  height, width = label.size
  return Encoded({
      IMAGE_ENCODED: image.encoded,
      IMAGE_FORMAT: image.format,
      IMAGE_FILENAME: os.fsencode(pair.name),
      IMAGE_HEIGHT: height,
      IMAGE_WIDTH: width,
      IMAGE_CHANNELS: 3,  # as the graph decodes it, whatever the file holds
      LABEL_ENCODED: label.encoded,
      LABEL_FORMAT: b'png',
  }, label.size, label.counts, [], label.palette_uses, image.fingerprint, notes)


def read_pair(pair):
  """Returns image and label of a pair as `decode` does of its example: uint8 [H, W, 3] and uint8 [H, W].

  Raises:
    DataError: see Encoded.problems.
  """
  pixels, orientation = image_files.read_opaque(pair.image)
  image = image_files.Stored(b'', b'', pixels.shape[:2], orientation)
  source = label_files.source_of(pair.label)
  label, _ = _turned_with(image, label_files.load(pair.label, pair.dataset, fast=False), source)
  label_files.check_sizes(image.size, label.size, source)
  return pixels, label_files.read_values(label.encoded, source)


def _turned_with(image, label, source):
  """Returns a label turned with its image if it was drawn on the pixels in the file, and notes on that.

  Args:
    image: image_files.Stored.
    label: label_files.Stored.
    source: str, what errors call the label.

  Returns:
    label_files.Stored: the label as it is, or as a PNG of the same values and palette.
    tuple of str.
  """
  if image.orientation == 1 or label.size not in (image.size, image.file_size):
    return label, ()
  if image.size == image.file_size:
    return label, (SIZE_DOES_NOT_TELL,)
  if label.size == image.size:
    return label, ()
  turned = Image.fromarray(label_files.read_values(label.encoded, source))
  if palette := image_files.open_image(label.encoded, source).getpalette():
    turned.putpalette(palette)
  turned = image_files.as_png(image_files.turn(turned, image.orientation))
  return label._replace(encoded=turned, size=image.size), (LABEL_WAS_TURNED,)


@contextlib.contextmanager
def _collecting(problems):
  """Adds the sentence of a DataError to a list instead of raising it."""
  try:
    yield
  except DataError as error:
    problems.append(str(error))


def file_name(features):
  """Returns the image's path below its folder, a str, or None if a record lacks it.

  Args:
    features: dict, see parse.
  """
  name = features.get(IMAGE_FILENAME)
  return None if name is None else os.fsdecode(name)


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
  image_source, label_source = f'the image of {source}', f'the label of {source}'
  image = image_files.open_image(features[IMAGE_ENCODED], image_source)
  size = image_files.size_of(image)
  image = image_files.decode(image, features[IMAGE_ENCODED], image_source, min_side).convert('RGB')
  label = label_files.read_values(features[LABEL_ENCODED], label_source)
  label_files.check_sizes(size, label.shape, label_source)
  label_files.check_values(np.bincount(label.ravel(), minlength=256), dataset, label_source)
  return image, label
