"""The scores of an evaluation: a Tally adds them up image by image on the host; and they become text.

What the classes of single pixels say follows from a confusion matrix. How well outlines are met is said by
Boundary IoU: Cheng, Girshick, Dollar, Berg and Kirillov, Boundary IoU: Improving
Object-Centric Image Segmentation Evaluation, CVPR 2021 (arXiv 2103.16562).
"""
import typing

import cv2
import numpy as np

from utils import tables

_BOUNDARY = 0.02  # width of the boundary, of the image's diagonal; as published
_COLUMNS = ('iou', 'accuracy', 'precision', 'recall', 'dice', 'boundary_iou')
_MEANS = (('mean IoU', 'mean_iou'), ('mean accuracy', 'mean_accuracy'),
          ('frequency-weighted IoU', 'frequency_weighted_iou'), ('pixel accuracy', 'px_accuracy'),
          ('mean Dice', 'mean_dice'), ('boundary IoU', 'boundary_iou'))


def class_scores(matrix: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the scores of each class by a confusion matrix, computed in float64.

  Args:
    matrix: integer [K, K]; rows are true classes, columns predicted ones.

  Returns:
    dict of arrays [K]: iou, accuracy, precision, recall and dice, float64, 0..1 or NaN, and pixels, int64,
    those labelled so. Iou and dice are NaN for a class that occurs nowhere, precision for one that is never
    predicted, recall for one that is never labelled. The accuracy of a class, as papers on segmentation use
    the word, is its recall.
  """
  matrix = np.asarray(matrix, np.float64)
  right, labelled, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
  recall = _share(right, labelled)
  return {'iou': _share(right, labelled + predicted - right), 'accuracy': recall,
          'precision': _share(right, predicted), 'recall': recall,
          'dice': _share(2 * right, labelled + predicted), 'pixels': labelled.astype(np.int64)}


def of_matrix(matrix: np.ndarray, class_names: typing.Sequence[str]) -> dict[str, typing.Any]:
  """Returns the scores of a confusion matrix as a dict for JSON, in float64.

  Args:
    matrix: integer [K, K]; rows are true classes, columns predicted ones.
    class_names: K of them.

  Returns:
    dict of mean_iou and mean_dice (over the classes that occur), mean_accuracy (over those labelled),
    px_accuracy, and frequency_weighted_iou (by labelled pixels), all 0 if no pixel is valid; and iou, a dict
    by class name, None for a class that occurs nowhere.
  """
  of_class = class_scores(matrix)
  pixels = of_class['pixels']
  total = max(pixels.sum(), 1)
  return {
      'mean_iou': mean(of_class['iou']) or 0.0,
      'px_accuracy': float(np.trace(np.asarray(matrix, np.float64)) / total),
      'mean_accuracy': mean(of_class['accuracy']) or 0.0,
      'frequency_weighted_iou': float(np.nansum(of_class['iou'] * pixels) / total),
      'mean_dice': mean(of_class['dice']) or 0.0,
      'iou': dict(zip(class_names, as_json(of_class['iou']), strict=True)),
  }


def iou_tag(class_name: str) -> str:
  """Returns what the curve of a class's IoU is called in all event files: any text may be a tag."""
  return f'iou/{class_name}'


def mean(values: np.ndarray) -> float | None:
  """Returns the mean of a float64 array without its NaN, or None if nothing else is in it."""
  known = values[~np.isnan(values)]
  return float(known.mean()) if known.size else None


def as_json(values: np.ndarray) -> list[typing.Any]:
  """Returns the numbers of an array as a list, None for NaN."""
  return [None if value != value else value for value in values.tolist()]


def _share(part, whole):
  return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


class ImageScores(typing.NamedTuple):
  """The scores of one image.

  Attributes:
    name: what it is called.
    iou: mean IoU, 0..1, over the classes labelled in it, or None if all its pixels are ignored. One that is
      predicted and not labelled lowers the IoU of those whose pixels it takes, and is no 0 of its own.
    accuracy: share of its pixels that are right, or None.
    pixels: int, of its label, without ignored ones.
    class_iou: float64 [K], NaN for a class that does not occur in it.
  """
  name: str
  iou: float | None
  accuracy: float | None
  pixels: int
  class_iou: np.ndarray


class Tally:
  """Adds up the scores of images that arrive one by one.

  Attributes:
    matrix: int64 [K, K], the confusion matrix; rows are true classes, columns predicted ones.
    images: list of ImageScores, in the order in which they came.
  """

  def __init__(self, class_names: typing.Sequence[str], ignore_label: int) -> None:
    """Args: class_names, K of them; ignore_label, 0..255, which may be the value of a class."""
    self._class_names, self._ignore_label = list(class_names), ignore_label
    count = len(self._class_names)
    self.matrix = np.zeros((count, count), np.int64)
    self.images: list[ImageScores] = []
    self._boundary = np.zeros((2, count), np.int64)  # intersections and unions

  def add(self, name: str, classes: np.ndarray, label: np.ndarray) -> ImageScores:
    """Adds an image and returns its scores.

    Args:
      name: str.
      classes: integer [H, W], 0..K-1, as predicted.
      label: integer [H, W], 0..K-1 or the ignore label, whose pixels count nowhere.
    """
    count, valid = len(self._class_names), label != self._ignore_label
    cells = label[valid].astype(np.int64) * count + classes[valid]
    matrix = np.bincount(cells, minlength=count * count).reshape(count, count)
    self.matrix += matrix
    self._boundary += boundary_counts(label, classes, valid, count)
    of_class, pixels = class_scores(matrix), int(matrix.sum())
    accuracy = float(np.trace(matrix) / pixels) if pixels else None
    iou = mean(of_class['iou'][of_class['pixels'] > 0])
    found = ImageScores(name, iou, accuracy, pixels, of_class['iou'])
    self.images.append(found)
    return found

  def scores(self) -> dict[str, typing.Any]:
    """Returns all scores of all images as a dict for JSON.

    These are those of `of_matrix`, boundary_iou (0 without a valid pixel), and classes, a dict from each name
    to its scores by `class_scores`, with its boundary_iou; None for what does not exist.
    """
    intersection, union = self._boundary.astype(np.float64)
    boundary = np.where(union > 0, intersection / np.maximum(union, 1), np.nan)
    of_class = {**class_scores(self.matrix), 'boundary_iou': boundary}
    columns = {key: as_json(values) for key, values in of_class.items()}
    return {**of_matrix(self.matrix, self._class_names),
            'boundary_iou': mean(boundary) or 0.0,
            'classes': {name: {key: values[index] for key, values in columns.items()}
                        for index, name in enumerate(self._class_names)}}


def boundary_counts(label: np.ndarray, classes: np.ndarray, valid: np.ndarray,
                    num_classes: int) -> np.ndarray:
  """Returns int64 [2, K]: intersection and union of the boundaries of each class in label and prediction.

  The boundary of a mask are its pixels that are at most d, 2 % of the image's diagonal, from a pixel outside
  of it; outside of the image is outside of the mask. Distances are those of a square window, as in the
  published code, which erodes a mask d times by 3 x 3 pixels. A pixel that is ignored is outside of all
  masks, of the label and of the prediction.

  Args:
    label, classes: integer [H, W], 0..K-1 where valid.
    valid: bool [H, W], False where ignored.
    num_classes: K.
  """
  distance = max(1, round(_BOUNDARY * float(np.hypot(*label.shape))))
  kind = np.uint8 if num_classes < 256 else np.uint16
  masked = [np.where(valid, values.astype(kind), kind(num_classes)) for values in (label, classes)]
  true, predicted = (_boundary(values, distance) & valid for values in masked)
  both = true & predicted & (masked[0] == masked[1])
  of_true, of_predicted, intersection = (
      np.bincount(values[where], minlength=num_classes)
      for values, where in ((masked[0], true), (masked[1], predicted), (masked[0], both)))
  return np.stack([intersection, of_true + of_predicted - intersection])


def _boundary(values, distance):
  """Returns bool [H, W]: the pixels that erosion by a square takes from the mask of their value.

  It leaves a pixel if its window holds one value: if the least one there is the largest. So two passes do for
  the masks of all values.
  """
  window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
  inner = cv2.erode(values, window) == cv2.dilate(values, window)
  is_far = np.zeros_like(inner)
  is_far[distance:-distance, distance:-distance] = True  # whose window does not leave the image
  return ~(inner & is_far)


def report(matrix: np.ndarray, class_names: typing.Sequence[str]) -> str:
  """Returns the scores of an evaluation as text, in the form of the original evaluate.py.

  What has no score has a dash: a class that is neither labelled nor predicted, which the mean leaves out, and
  every class if no pixel is valid.

  Args:
    matrix: int64 [K, K]; rows are true classes, columns predicted ones.
    class_names: K of them.
  """
  found, has_pixels = of_matrix(matrix, class_names), bool(matrix.any())
  lines = ['Intersection over Union for each class:']
  lines += [f'    class {index}: {_score(iou):6}  {name}'
            for index, (name, iou) in enumerate(found['iou'].items())]
  lines += [f'{name}: {_score(found[key] if has_pixels else None)}' for name, key in (
      ('mean Intersection over Union', 'mean_iou'), ('Pixel Accuracy', 'px_accuracy'))]
  if not has_pixels:
    lines.append('no pixel was valid: every label holds the ignore label alone, so there is nothing to score')
  return '\n'.join(lines)


def table(scores: dict[str, typing.Any]) -> str:
  """Returns the scores of each class as a table, and the means below; a dash for what does not exist.

  Args:
    scores: those of Tally.scores.
  """
  rows = [[*map(title, _COLUMNS), 'pixels']]
  for of_class in scores['classes'].values():
    rows.append([*(_score(of_class[column]) for column in _COLUMNS), f'{of_class["pixels"]:,}'])
  names, widths = tables.column(['class', *scores['classes']]), [max(map(len, cells)) for cells in zip(*rows)]
  lines = ['  '.join([name, *map(str.rjust, row, widths)]) for name, row in zip(names, rows)]
  has_pixels = any(of_class['pixels'] for of_class in scores['classes'].values())
  width = max(len(name) for name, _ in _MEANS)
  lines += ['', *(f'{name.ljust(width)}  {_score(value if has_pixels else None)}'
                  for name, value in means(scores))]
  return '\n'.join(lines)


def title(column: str) -> str:
  """Returns the heading of a score of single classes, such as boundary_iou."""
  return column.replace('_iou', '').replace('iou', 'IoU')


def means(scores: dict[str, typing.Any]) -> list[tuple[str, float]]:
  """Returns pairs of a title and a score: those that are one number for all classes."""
  return [(name, scores[key]) for name, key in _MEANS]


def _score(value):
  return '-' if value is None else f'{value:.4f}'
