"""What can be said of a dataset after one look at every example: figures and problems. Free of TensorFlow.

`examine` reduces an example to its Facts; everything else is computed from those of a whole Set.
"""
import dataclasses

import numpy as np
from PIL import Image

from dataset import image_files, label_files


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is kept of an example.

  Attributes:
    index: int, its place in the source.
    name: str.
    size: (height, width).
    pixels: int64 [K], of each class; 0 for one that is ignored.
    ignored: float, 0..1, the share of ignored pixels.
    prints: image_files.fingerprint of the image, and of its mirror image.
  """
  index: int
  name: str
  size: tuple
  pixels: np.ndarray
  ignored: float
  prints: tuple


@dataclasses.dataclass(frozen=True)
class Set:
  """A set of examples.

  Attributes:
    title: str.
    facts: list of Facts, of the usable examples.
    errors: list of str, a sentence on each of the others.
    num_classes: int, K.
  """
  title: str
  facts: list
  errors: list
  num_classes: int

  @property
  def pixels(self):
    """int64 [K], the pixels of each class."""
    return sum((one.pixels for one in self.facts), np.zeros(self.num_classes, np.int64))

  @property
  def images(self):
    """int64 [K], the examples that hold each class."""
    return sum((one.pixels > 0 for one in self.facts), np.zeros(self.num_classes, np.int64))

  @property
  def ignored(self):
    """float, 0..1, the share of ignored pixels."""
    sizes = [np.prod(one.size) for one in self.facts]
    return float(np.dot([one.ignored for one in self.facts], sizes) / max(sum(sizes), 1))


@dataclasses.dataclass(frozen=True)
class Problem:
  """Something to know before training.

  Attributes:
    kind: 'error' (examples that cannot be used) or 'warning'.
    sentence: str.
    details: list of str, one for each example concerned.
    examples: list of (set's title, Facts) worth looking at.
  """
  kind: str
  sentence: str
  details: list
  examples: list = ()


def examine(index, name, image, label, dataset):
  """Returns the Facts of an example.

  Args:
    index: int.
    name: str.
    image: PIL image, RGB, of any scale.
    label: uint8 [H, W], 0..K-1 or ignore_label.
    dataset: Dataset.
  """
  ignored = label == dataset.ignore_label
  pixels = np.bincount(label.ravel(), minlength=256)[:dataset.num_classes]
  pixels[np.arange(dataset.num_classes) == dataset.ignore_label] = 0
  mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  prints = image_files.fingerprint(image), image_files.fingerprint(mirrored)
  return Facts(index, name, label.shape, pixels, float(ignored.mean()), prints)


# --- Problems ------------------------------------------------------------------------------------


def find_problems(sets, dataset):
  """Returns the Problems, errors first.

  Args:
    sets: list of one Set, or two: training and validation.
    dataset: Dataset.
  """
  found = [problem for one in sets for problem in _problems_of(one, dataset)]
  if len(sets) == 2:
    found += _doubles(*sets)
  return sorted(found, key=lambda problem: problem.kind)


def _problems_of(one, dataset):
  """Yields the Problems of a Set by itself."""
  def warning(facts, sentence, details):
    return Problem('warning', f'{one.title}: {sentence}', details, [(one.title, shown) for shown in facts])

  if one.errors:
    yield Problem('error', f'{one.title}: {_count(len(one.errors), "example")} of '
                  f'{len(one.errors) + len(one.facts)} cannot be used', one.errors)
  names = [name for value, (name, pixels) in enumerate(zip(dataset.class_names, one.pixels))
           if not pixels and value != dataset.ignore_label]
  if one.facts and names:
    yield warning((), f'{_count(len(names), "class", "classes")} of {dataset.num_classes} without a pixel',
                  names)
  if blank := [facts for facts in one.facts if facts.ignored == 1]:
    yield warning(blank, f'{_count(len(blank), "label holds", "labels hold")} nothing but the ignore label '
                  f'{dataset.ignore_label}', [facts.name for facts in blank])
  if one.ignored > label_files.MUCH_IGNORED:
    yield warning((), f'{one.ignored:.0%} of all pixels are ignored, and teach nothing', [])


def _doubles(train, val):
  """Yields the Problem of validation images that look like training images, or like their mirror images."""
  found = {}  # position of a validation image: (that of a training image, whether it is mirrored)
  for mirrored in (True, False):  # the latter counts if an image is both
    rows = image_files.find_alike([one.prints[mirrored] for one in val.facts],
                                  [one.prints[False] for one in train.facts])
    found.update({position: (row, mirrored) for position, row in enumerate(rows) if row >= 0})
  pairs = [(train.facts[row], val.facts[position], mirrored)
           for position, (row, mirrored) in sorted(found.items())]
  if pairs:
    yield Problem('warning', f'{_count(len(pairs), "image")} of {val.title} nearly equal one of '
                  f'{train.title}, so that scores will be too good',
                  [f'{one.name} is {"the mirror image of " * mirrored}{other.name}'
                   for other, one, mirrored in pairs],
                  [shown for other, one, _ in pairs for shown in ((train.title, other), (val.title, one))])


def _count(number, singular, plural=None):
  return f'{number:,} {singular if number == 1 else plural or singular + "s"}'
