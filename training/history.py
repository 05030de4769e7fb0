"""What a model has been trained on so far: the entries of `history` in model_config.json.

A run adds an entry if it begins with other flags than the one before. From the entries and the step of its
checkpoint a run knows how many images it has seen, whatever the batch sizes were: its position in the data.
"""
import itertools
import typing


class Entry(typing.TypedDict):
  """What holds from a step on.

  step: the first. images_per_step: how many of the training examples, num_train, a step takes.
  train_records: their fingerprint. Both are None in histories of the first versions.
  flags: those of the run that change weights or the order of the data (commands/flags.py).
  """
  step: int
  images_per_step: int
  num_train: int | None
  train_records: str | None
  flags: dict[str, typing.Any]


def records_since(history: list[Entry]) -> int:
  """Returns the step since which the training records are the last ones, as far as the history knows."""
  return max((after['step'] for before, after in itertools.pairwise(history)
              if before['train_records'] not in (None, after['train_records'])), default=0)


def images_between(history: list[Entry], first: int, last: int, images_per_step: int) -> int:
  """Returns the number of images that the steps from `first` to `last` took.

  Args:
    history: entries in the order of their steps; the first one's also holds for steps before it.
    first, last: global steps.
    images_per_step: what holds if there is no history.
  """
  if not history:
    return (last - first) * images_per_step
  begins = [min(first, history[0]['step']), *(entry['step'] for entry in history[1:])]
  ends = [*begins[1:], max(last, begins[-1])]
  return sum(entry['images_per_step'] * max(0, min(end, last) - max(begin, first))
             for entry, begin, end in zip(history, begins, ends))


def until(history: list[Entry], step: int) -> list[Entry]:
  """Returns the entries of the steps before `step`; later steps are in no checkpoint any more."""
  return [entry for entry in history if entry['step'] < step]


def extended(history: list[Entry], new: Entry) -> list[Entry]:
  """Returns the history with a new entry, or as it is if the new one changes nothing."""
  same = history and all(history[-1][name] == new[name] for name in (
      'images_per_step', 'num_train', 'train_records'))
  return history if same and not changes(history, new) else [*history, new]


def changes(history: list[Entry], new: Entry, ignored: typing.Collection[str] = ()) -> dict[str, tuple]:
  """Returns dict: flag -> (value before, value now), of the new entry's flags that are not `ignored`."""
  if not history:
    return {}
  before, now = history[-1]['flags'], new['flags']
  return {name: (before[name], now[name]) for name in now
          if name in before and name not in ignored and _plain(before[name]) != _plain(now[name])}


def _plain(value):
  return list(value) if isinstance(value, tuple) else value


def read(config: dict[str, typing.Any]) -> list[Entry]:
  """Returns the history in the content of a model_config.json.

  Raises:
    KeyError, TypeError, ValueError: it is damaged.
  """
  found = [Entry(step=int(stored['step']), images_per_step=int(stored['images_per_step']),
                 num_train=stored['num_train'], train_records=stored.get('train_records'),
                 flags=dict(stored['flags'])) for stored in config.get('history', ())]
  steps = [stored['step'] for stored in found]
  if steps != sorted(set(steps)) or any(
      stored['step'] < 0 or stored['images_per_step'] < 1 for stored in found):
    raise ValueError('its history has steps or numbers of images that cannot be')
  return found
