"""What a training's evaluations found: model_dir/validation.json, and the scores of the best one.

Kept beside the checkpoints, so that a run that was interrupted knows after which steps it has been evaluated,
which was best, and how long ago that was. An evaluation adds a line to the file, which stays one JSON object;
what a killed process has left of a line does not count.
"""
import json
import os
import typing

from utils import files
from utils.errors import DataError

FILE_NAME = 'validation.json'
_HEAD, _TAIL = b'{"format": 1, "since": 0, "evaluations": [\n', b'\n]}\n'  # of lines of evaluations
BEST = 'best'                     # folder of the best checkpoint, in the model's
SCORES_NAME = 'scores.json'       # in that folder: its evaluation


class Validation:
  """The evaluations of a model folder, in the order of steps.

  Attributes:
    evaluations: list of dicts, each `scores.of_matrix` with its step; those read lack the scores of
      single classes.
  """

  def __init__(self, model_dir: str, last: int | None = None, basis: dict[str, typing.Any] | None = None,
               since: int = 0) -> None:
    """Reads what earlier runs found. Raises DataError if the file is damaged.

    Args:
      last: the step that the run begins at; later evaluations are left out. None: there are none.
      basis: what this run's scores are made of, see comparable; None: all can be compared.
      since: the step from which the training records are those of now.
    """
    self._folder, self._last, self._basis, self._since = model_dir, last, basis or {}, since
    self._path = os.path.join(model_dir, FILE_NAME)
    self.evaluations: list[dict[str, typing.Any]] = list({
        entry['step']: {name: value for name, value in entry.items() if not isinstance(value, dict)}
        for entry in self._stored()}.values())

  def _stored(self):
    """Yields the evaluations as they were written, up to the step `last`."""
    try:
      for entry in _entries(self._path) if os.path.exists(self._path) else ():
        entry = {**entry, 'step': int(entry['step']), 'mean_iou': float(entry['mean_iou'])}
        if self._last is None or entry['step'] <= self._last:
          yield entry
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
      raise DataError(f'{self._path} cannot be used ({error!r}); restore it from a backup, or remove it: '
                      'then this run does not know its earlier scores') from error

  def forget_later(self) -> None:
    """Writes the file without the evaluations that were left out, which will be made again."""
    if os.path.exists(self._path):
      self._write(list(self._stored()))
    self._last = None

  @property
  def is_of_other_records(self) -> bool:
    """Whether the last evaluation is of other records than those of the basis."""
    last = {**([self._basis] + self.evaluations)[-1], 'weights': 'raw'}
    return not is_comparable(last, {**self._basis, 'weights': 'raw'})

  def has(self, step: int) -> bool:
    """Whether a step has been evaluated, as far as the file knows."""
    return any(entry['step'] == step for entry in self.evaluations)

  def add(self, step: int, scores: dict[str, typing.Any]) -> None:
    """Adds the `scores` of an evaluation to the file."""
    self.evaluations = [entry for entry in self.evaluations if entry['step'] != step]
    self.evaluations.append({'step': step, **scores})
    if not os.path.exists(self._path) or os.path.getsize(self._path) <= len(_HEAD + _TAIL):
      self._write(self.evaluations[-1:])
      return
    with open(self._path, 'rb+') as file:
      file.seek(-len(_TAIL), os.SEEK_END)
      file.write(b',\n' + json.dumps(self.evaluations[-1]).encode() + _TAIL)
      file.flush()
      os.fsync(file.fileno())

  def _write(self, entries):
    with files.replacing(self._path) as temporary, open(temporary, 'wb') as file:
      file.write(_HEAD + b',\n'.join(json.dumps(entry).encode() for entry in entries) + _TAIL)
      file.flush()
      os.fsync(file.fileno())

  def full(self, entry: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Returns one of the evaluations with the scores of single classes, as far as they were kept."""
    return {**entry, **next((one for one in self._stored() if one['step'] == entry['step']), {})}

  def comparable(self, basis: dict[str, typing.Any]) -> list[dict[str, typing.Any]]:
    """Returns the evaluations that are made of the same, and so compete, by step.

    Also that of the best checkpoint, should the file have been lost.

    Args:
      basis: dict of weights (raw, if it is missing), images, their number, and records, their fingerprint;
        what is missing, as in evaluations of earlier versions, is taken to be the same.
    """
    best = best_scores(os.path.join(self._folder, BEST))
    known = [*([best] if best and (self._last is None or best['step'] <= self._last) else []),
             *self.evaluations]
    by_step = {entry['step']: entry for entry in known if is_comparable(entry, basis)}
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


def _entries(path):
  """Yields the evaluations in a file as they stand there."""
  text = files.read_text(path, path, None)
  head, tail = _HEAD.decode(), _TAIL.decode()
  if not text.startswith(head) or text.endswith(tail):
    yield from json.loads(text)['evaluations']
    return
  *lines, _ = text.removeprefix(head).split('\n')  # a killed process has left a part of the last one
  yield from (json.JSONDecoder().raw_decode(line)[0] for line in lines if line.startswith('{"'))


def best_scores(folder: str) -> dict[str, typing.Any] | None:
  """Returns the scores in the folder of the best checkpoint, or None if it has none to be used."""
  try:
    found = files.read_json(os.path.join(folder, SCORES_NAME), SCORES_NAME)
    return {**found, 'step': int(found['step']), 'mean_iou': float(found['mean_iou'])}
  except (ValueError, KeyError, TypeError, OverflowError):  # DataError is a ValueError
    return None


def write_best_scores(folder: str, scores: dict[str, typing.Any]) -> None:
  """Writes the evaluation of the best checkpoint into its folder."""
  files.write_json(os.path.join(folder, SCORES_NAME), scores)
