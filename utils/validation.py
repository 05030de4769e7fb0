"""What a training's evaluations found: model_dir/validation.json, and the scores of the best one.

Kept beside the checkpoints, so that a run that was interrupted knows after which steps it has been evaluated,
which was best, and how long ago that was.
"""
import os
import typing

import numpy as np

from utils import files
from utils.errors import DataError

FILE_NAME = 'validation.json'
SCORES_NAME = 'scores.json'  # in the folder of the best checkpoint
_FORMAT = 1


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


def scores(matrix: np.ndarray, class_names: typing.Sequence[str]) -> dict[str, typing.Any]:
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


class Validation:
  """The evaluations of a model folder, in the order of steps.

  Attributes:
    evaluations: list of dicts, each `scores` with its step.
    since: int, the step after which all evaluations are in it, or None if there was no such file: the first
      versions kept none.
  """

  def __init__(self, model_dir: str) -> None:
    """Reads what earlier runs found. Raises DataError if the file is damaged."""
    self._path = os.path.join(model_dir, FILE_NAME)
    self.evaluations: list[dict[str, typing.Any]] = []
    self.since: int | None = None
    if not os.path.exists(self._path):
      return
    content = files.read_json(self._path, self._path)
    try:
      self.since = int(content['since'])
      self.evaluations = [{**entry, 'step': int(entry['step']), 'mean_iou': float(entry['mean_iou'])}
                          for entry in content['evaluations']]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
      raise DataError(f'{self._path} cannot be used ({error!r}); restore it from a backup, or remove it: '
                      'then this run does not know its earlier scores') from error

  def go_on_from(self, step: int) -> None:
    """Drops the evaluations of later steps, which will be made again, and writes the file."""
    self.evaluations = [entry for entry in self.evaluations if entry['step'] <= step]
    self.since = step if self.since is None else min(self.since, step)
    self._write()

  def has(self, step: int) -> bool:
    """Whether a step has been evaluated, or lies before all that the file knows of."""
    is_before = self.since is not None and step <= self.since
    return is_before or any(entry['step'] == step for entry in self.evaluations)

  def add(self, step: int, scores: dict[str, typing.Any]) -> None:
    """Adds the `scores` of an evaluation and writes the file."""
    self.evaluations = [entry for entry in self.evaluations if entry['step'] != step]
    self.evaluations.append({'step': step, **scores})
    self._write()

  def _write(self):
    files.write_json(self._path, {'format': _FORMAT, 'since': self.since, 'evaluations': self.evaluations})

  def evaluations_since_best(self) -> int:
    """Returns how many evaluations came after the best one, 0 if the last is the best or there is none."""
    best = max((entry['mean_iou'] for entry in self.evaluations), default=None)
    first = next((i for i, entry in enumerate(self.evaluations) if entry['mean_iou'] == best), -1)
    return len(self.evaluations) - 1 - first


def best_scores(folder: str) -> dict[str, typing.Any] | None:
  """Returns the scores in the folder of the best checkpoint, or None if it has none to be used."""
  try:
    found = files.read_json(os.path.join(folder, SCORES_NAME), SCORES_NAME)
    return {**found, 'step': int(found['step']), 'mean_iou': float(found['mean_iou'])}
  except (ValueError, KeyError, TypeError, OverflowError):  # DataError is a ValueError
    return None


def write_best_scores(folder: str, step: int, scores: dict[str, typing.Any]) -> None:
  """Writes the scores of the best checkpoint into its folder."""
  files.write_json(os.path.join(folder, SCORES_NAME), {'step': step, **scores})
