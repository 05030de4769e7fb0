"""The report of an evaluation (evaluate.py --report): a page in one file, and its figures beside it.

Its HTML stands in evaluation_report.html, and in utils/pages.html.
"""
import bisect
import io
import os
import typing

import cv2
import numpy as np
from PIL import Image

from commands import confusion_picture
from utils import files, pages, scores, visualization
from utils.errors import UsageError

PAGE, IMAGES, MATRIX, PICTURE, SCORES = NAMES = (
    'index.html', 'per_image.csv', 'confusion_matrix.csv', 'confusion_matrix.png', 'scores.json')
_WIDTH = 320  # pixels of a picture
_MARK = '<section class="images four">'  # what no other page holds
_RIGHT, _WRONG = (60, 66, 80), (232, 54, 44)
_MOST_CLASSES = 8  # that are named below an image
_COLUMNS = ('iou', 'accuracy', 'precision', 'recall', 'dice', 'boundary_iou', 'pixels')
_TEMPLATE = os.path.splitext(__file__)[0] + '.html'


class Example(typing.NamedTuple):
  """An image of the page: its scores.ImageScores, and all at the size shown, uint8 [h, w, 3] and [h, w]."""
  scores: scores.ImageScores
  photo: np.ndarray
  label: np.ndarray
  classes: np.ndarray


class Gallery:
  """Keeps the images with the lowest and the highest IoU of all that come by.

  Attributes:
    examples: list of Example, by rising IoU.
  """

  def __init__(self, number: int) -> None:
    """Args: number, of images to keep of each kind."""
    self._number = number
    self.examples: list[Example] = []

  def add(self, found: scores.ImageScores, photo: np.ndarray, label: np.ndarray, classes: np.ndarray) -> None:
    """Keeps an image if it is one of them.

    Args:
      found: its scores; one without is never shown.
      photo: uint8 [H, W, 3], RGB.
      label, classes: uint8 [H, W].
    """
    if found.iou is None:
      return
    place = bisect.bisect(self.examples, found.iou, key=lambda one: one.scores.iou or 0.0)
    if place < self._number or place > len(self.examples) - self._number:  # only these are worth scaling down
      self.examples.insert(place, _reduced(found, photo, label, classes))
      del self.examples[self._number:len(self.examples) - self._number]


def _reduced(found, photo, label, classes):
  size = visualization.shown_size(label.shape, _WIDTH)
  label, classes = (cv2.resize(values, size, interpolation=cv2.INTER_NEAREST) for values in (label, classes))
  return Example(found, cv2.resize(photo, size, interpolation=cv2.INTER_AREA), label, classes)


def check(folder: str, inputs: typing.Iterable[str]) -> None:
  """Raises UsageError if the report would replace what is no report, or what is read.

  Args:
    inputs: paths of all that is read.
  """
  paths = [os.path.join(folder, name) for name in NAMES]
  files.check_outputs(paths, inputs, '--report')
  pages.check_replaceable(folder, _MARK, '--report')
  there = [path for path in paths if os.path.lexists(path)]
  if there and not os.path.lexists(paths[0]):
    raise UsageError(f"--report would replace '{there[0]}', which is of no report ({PAGE} is missing); give "
                     'another folder')


def write(folder: str, split: str, found: dict[str, typing.Any], images: list[scores.ImageScores],
          gallery: Gallery, dataset: typing.Any) -> None:
  """Writes the page and the files beside it into an existing folder.

  Args:
    split: what the images are called together.
    found: the scores for JSON, of scores.Tally and with checkpoint, step, images and confusion_matrix.
    images: those of scores.Tally.
    gallery: Gallery.
    dataset: descriptors.Dataset of the model.
  """
  matrix, names = np.array(found['confusion_matrix']), list(dataset.class_names)
  encoded = io.BytesIO()
  confusion_picture.draw(matrix, names).save(encoded, 'PNG', optimize=True)
  picture = encoded.getvalue()
  means = [(title, value if matrix.any() else None) for title, value in scores.means(found)]
  pages.write(os.path.join(folder, PAGE), _TEMPLATE, found=found, split=split, dataset=dataset, means=means,
              classes=list(zip(names, dataset.palette)), columns=_COLUMNS, title=scores.title, shown=_shown,
              matrix=pages.data_uri('image/png', picture), right=_RIGHT, wrong=_WRONG,
              cards=[_card(example, dataset) for example in gallery.examples])
  with files.replacing(os.path.join(folder, PICTURE)) as temporary, open(temporary, 'wb') as file:
    file.write(picture)
  files.write_csv(os.path.join(folder, MATRIX), [[r'true \ predicted', *names], *(
      [name, *row] for name, row in zip(names, found['confusion_matrix']))])
  files.write_csv(os.path.join(folder, IMAGES), [['name', 'IoU', 'accuracy', 'pixels', *names], *(
      [one.name, _number(one.iou), _number(one.accuracy), one.pixels,
       *map(_number, scores.as_json(one.class_iou))] for one in images)])
  files.write_json(os.path.join(folder, SCORES), found)


def _number(value):
  return '' if value is None else f'{value:.6f}'


def _shown(value):
  return '–' if value is None else f'{value:.4f}'


def _card(example, dataset):
  """Returns what the template shows of an Example, a dict."""
  size = example.label.shape[::-1]
  is_ignored = example.label == dataset.ignore_label
  errors = np.where(is_ignored, 255, example.label != example.classes).astype(np.uint8)
  pictures = [
      (title, pages.data_uri('image/png', visualization.label_png(values, size, palette, ignore_label)))
      for title, values, palette, ignore_label in (
          ('truth', example.label, dataset.palette, dataset.ignore_label),
          ('prediction', example.classes, dataset.palette, dataset.ignore_label),
          ('errors', errors, (_RIGHT, _WRONG), 255))]
  photo = pages.data_uri('image/jpeg', visualization.photo_jpeg(Image.fromarray(example.photo), size))
  class_iou = example.scores.class_iou
  occurring = [value for value in np.argsort(class_iou) if not np.isnan(class_iou[value])]
  return {**example.scores._asdict(), 'photo': photo, 'pictures': pictures,
          'occurring': occurring[:_MOST_CLASSES]}
