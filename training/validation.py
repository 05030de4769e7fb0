"""What a training's evaluations found: model_dir/validation.json, and the scores of the best one.

Kept beside the checkpoints, so that a run that was interrupted knows after which steps it has been evaluated,
which was best, and how long ago that was.
"""
import os
import typing

from utils import files
from utils.errors import DataError

FILE_NAME = 'validation.json'
BEST = 'best'                     # folder of the best checkpoint, in the model's
SCORES_NAME = 'scores.json'       # in that folder: its evaluation


class Validation:
  """The evaluations of a model folder.

  Attributes:
    evaluations: list of dicts, each `scores.of_matrix` with its step, in the order of steps.
  """

  def __init__(self, model_dir: str, last: int | None = None, basis: dict[str, typing.Any] | None = None,
               since: int = 0) -> None:
    """Reads what earlier runs found. Raises DataError if the file is damaged.

    Args:
      last: the step that the run begins at; later evaluations are left out. None: there are none.
      basis: what this run's scores are made of, see comparable; None: all can be compared.
      since: the step from which the training records are those of now.
    """
    self._path, self._basis, self._since = os.path.join(model_dir, FILE_NAME), basis or {}, since
    best = best_scores(os.path.join(model_dir, BEST))  # should the file have been lost
    self._best, self.evaluations = (
        [entry for entry in entries if last is None or entry['step'] <= last]
        for entries in ([best] if best else [], _read(self._path)))

  def forget_later(self) -> None:
    """Writes the file without the evaluations that were left out, which will be made again."""
    if os.path.exists(self._path):
      self._write()

  @property
  def is_of_other_records(self) -> bool:
    """Whether the last evaluation is of other records than those of the basis."""
    last = {**([self._basis] + self.evaluations)[-1], 'weights': 'raw'}
    return not is_comparable(last, {**self._basis, 'weights': 'raw'})

  def add(self, step: int, scores: dict[str, typing.Any]) -> None:
    """Adds the `scores` of an evaluation to the file."""
    self.evaluations = [entry for entry in self.evaluations if entry['step'] != step]
    self.evaluations.append({'step': step, **scores})
    self._write()

  def _write(self):
    files.write_json(self._path, {'format': 1, 'evaluations': self.evaluations})

  def comparable(self, basis: dict[str, typing.Any]) -> list[dict[str, typing.Any]]:
    """Returns the evaluations that are made of the same, and so compete, by step.

    Also that of the best checkpoint, should the file have been lost.

    Args:
      basis: dict of weights (raw, if it is missing), images, their number, and records, their fingerprint;
        what is missing, as in evaluations of earlier versions, is taken to be the same.
    """
    by_step = {entry['step']: entry for entry in self._best + self.evaluations
               if is_comparable(entry, basis)}
    return [by_step[step] for step in sorted(by_step)]

  def evaluations_since_best(self) -> int:
    """Returns how many evaluations came after the best one, 0 if the last is the best or there is none.

    Those that cannot be compared, or were trained on other records, do not count.
    """
    found = self.comparable(self._basis)
    best = max(found, key=lambda entry: entry['mean_iou'], default={'step': 0})  # the first of equals
    return sum(entry['step'] > max(best['step'], self._since) for entry in found)


def is_comparable(one: dict[str, typing.Any], other: dict[str, typing.Any]) -> bool:
  """Whether two evaluations, or one and a basis, are made of the same; see Validation.comparable."""
  return one.get('weights', 'raw') == other.get('weights', 'raw') and all(
      None in (one.get(name), other.get(name)) or one[name] == other[name] for name in ('images', 'records'))


def _read(path):
  """Returns the evaluations in a file, if it is there."""
  try:
    found = files.read_json(path, path, None)['evaluations'] if os.path.exists(path) else []
    return list({entry['step']: entry for entry in map(_sound, found)}.values())  # the last of a step
  except (ValueError, KeyError, TypeError, OverflowError) as error:  # DataError is a ValueError
    raise DataError(f'{path} cannot be used ({error!r}); restore it from a backup, or remove it: then this '
                    'run does not know its earlier scores') from error


def _sound(entry):
  return {**entry, 'step': int(entry['step']), 'mean_iou': float(entry['mean_iou'])}


def best_scores(folder: str) -> dict[str, typing.Any] | None:
  """Returns the scores in the folder of the best checkpoint, or None if it has none to be used."""
  try:
    return _sound(files.read_json(os.path.join(folder, SCORES_NAME), SCORES_NAME))
  except (ValueError, KeyError, TypeError, OverflowError):  # DataError is a ValueError
    return None


def write_best_scores(folder: str, scores: dict[str, typing.Any]) -> None:
  """Writes the evaluation of the best checkpoint into its folder."""
  files.write_json(os.path.join(folder, SCORES_NAME), scores)
