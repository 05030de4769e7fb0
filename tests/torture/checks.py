"""What torture.py finds in a model folder, read without the project's own code: an independent witness.

Checkpoints are read value by value, event files event by event, JSON as JSON. The names of files are the
project's own.
"""
import collections
import dataclasses
import hashlib
import json
import os
import re
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

from commands import model_config
from training import checkpoint_store, event_files, locks, validation

# All that may lie in a model folder after a clean end, by its path below it; the product names it.
_BEST, _EVENTS = re.escape(checkpoint_store.BEST), r'events\.out\.tfevents\.\d+\..*'
_KNOWN = re.compile(rf'''
    ({_BEST}/)?(checkpoint|{re.escape(model_config.FILE_NAME)}|model\.ckpt-\d+\.(index|data-00000-of-00001))
    | {_BEST} | {_BEST}/{re.escape(validation.SCORES_NAME)} | ({_BEST}/)?{re.escape(locks.FILE_NAME)}
    | {re.escape(validation.FILE_NAME)} | eval | (eval/)?{_EVENTS}
    | ({_BEST}/)?{event_files.OF_EVALUATION}(/.*)? | {checkpoint_store.SET_ASIDE}(/.*)?
    ''', re.VERBOSE | re.DOTALL)
_INDEX = re.compile(r'model\.ckpt-(\d+)\.index')
# What no two runs share.
_OF_TIME_OR_PLACE = ('global_step/sec', 'images_per_second', 'checkpoint_path',
                     'configuration', '_hparams_/session_start_info', 'legend/image/0')


@dataclasses.dataclass
class Look:
  """What a model folder holds.

  Attributes:
    good: dict: step -> digest of all values, of the complete and finite checkpoints.
    bad: dict: step -> what is wrong with the others that have an index.
    best: (step, digest) of the best checkpoint, or None where there is none that is good.
    curve, eval_curve: dicts: tag -> [(step, digest of the value), ...], over all event files in order.
    doubled: list of str, where a curve's steps do not increase.
    scores: dict: step -> mean IoU, of validation.json; None where there is none that can be read.
    unknown: list of str, paths below the folder that have no business there after a clean end.
  """
  good: dict = dataclasses.field(default_factory=dict)
  bad: dict = dataclasses.field(default_factory=dict)
  best: tuple = None
  curve: dict = dataclasses.field(default_factory=dict)
  eval_curve: dict = dataclasses.field(default_factory=dict)
  doubled: list = dataclasses.field(default_factory=list)
  scores: dict = None
  unknown: list = dataclasses.field(default_factory=list)

  @property
  def newest(self):
    """The step of the newest good checkpoint; 0 where there is none."""
    return max(self.good, default=0)


def look(model_dir):
  """Returns the Look of a folder, which may be missing or damaged in any way."""
  found = Look()
  if not os.path.isdir(model_dir):
    return found
  found.good, found.bad = checkpoints(model_dir)
  best, _ = checkpoints(os.path.join(model_dir, 'best'))
  found.best = max(best.items(), default=None)
  found.curve, doubled = curves(model_dir)
  found.eval_curve, eval_doubled = curves(os.path.join(model_dir, 'eval'))
  found.doubled = doubled + [f'eval: {text}' for text in eval_doubled]
  found.scores = _scores(os.path.join(model_dir, 'validation.json'))
  found.unknown = sorted(path for path in paths_below(model_dir) if not _KNOWN.fullmatch(path))
  return found


def paths_below(folder):
  """Returns the paths of all files and folders below a folder, relative to it."""
  return [os.path.relpath(os.path.join(parent, name), folder)
          for parent, folders, names in os.walk(folder) for name in folders + names]


def contents(folder):
  """Returns dict: path below the folder -> digest of the file's content; None for folders."""
  found = {}
  for path in paths_below(folder):
    full = os.path.join(folder, path)
    found[path] = None
    if os.path.isfile(full):
      with open(full, 'rb') as file:
        found[path] = hashlib.sha1(file.read()).hexdigest()
  return found


def checkpoints(folder):
  """Returns two dicts by step, of the checkpoints with an index: digest if good, else what is wrong."""
  good, bad = {}, {}
  if not os.path.isdir(folder):
    return good, bad
  for name in os.listdir(folder):
    match = _INDEX.fullmatch(name)
    if match:
      try:
        good[int(match[1])] = _digest(os.path.join(folder, name[:-len('.index')]))
      except Exception as error:  # TensorFlow raises anything for a damaged one
        bad[int(match[1])] = (str(error).strip() or repr(error)).splitlines()[0]
  return good, bad


_digests = {}


def _digest(prefix):
  """Returns a digest of all names and values of a checkpoint. Raises what is wrong with it."""
  files = [prefix + suffix for suffix in ('.index', '.data-00000-of-00001')]
  key = tuple((path, status.st_ino, status.st_size, status.st_mtime_ns)
              for path, status in ((path, os.stat(path)) for path in files))
  if key not in _digests:
    with tempfile.TemporaryDirectory() as folder:  # TensorFlow takes [ and * in a path for a pattern
      link = os.path.join(folder, 'link')
      os.symlink(os.path.abspath(os.path.dirname(prefix)), link)
      reader = tf.train.load_checkpoint(os.path.join(link, os.path.basename(prefix)))
      digest = hashlib.sha1()
      for name in sorted(reader.get_variable_to_shape_map()):
        value = reader.get_tensor(name)
        if value.dtype.kind == 'f' and not np.isfinite(value).all():
          raise ValueError(f'{name} is not finite')
        digest.update(f'{name} {value.dtype} {value.shape} '.encode() + value.tobytes())
    _digests[key] = digest.hexdigest()
  return _digests[key]


def curves(folder):
  """Returns (dict: tag -> [(step, digest), ...], list of str: where steps do not increase) of event files."""
  found, doubled = collections.defaultdict(list), []
  if not os.path.isdir(folder):
    return {}, doubled
  for name in sorted(os.listdir(folder)):
    if name.startswith('events.out.tfevents.'):
      for event in _events(os.path.join(folder, name)):
        for value in event.summary.value:
          points = found[value.tag]
          if points and points[-1][0] >= event.step:
            doubled.append(f'{value.tag} has a point at step {event.step} after one at {points[-1][0]}')
          what = hashlib.sha1(value.SerializeToString(deterministic=True)).hexdigest()
          points.append((event.step, None if value.tag in _OF_TIME_OR_PLACE else what))
  return dict(found), doubled


def _events(path):
  """Yields the events of a file up to the first that is cut off or damaged."""
  with open(path, 'rb') as file:
    content = file.read()
  position = 0
  while position + 16 <= len(content):
    length = int.from_bytes(content[position:position + 8], 'little')
    if position + length + 16 > len(content):
      return
    try:
      event = tf.Event.FromString(content[position + 12:position + 12 + length])
    except Exception:  # protobuf's DecodeError, of whichever implementation
      return
    yield event
    position += length + 16


def _scores(path):
  try:
    with open(path, encoding='utf-8') as file:
      return {entry['step']: entry['mean_iou'] for entry in json.load(file)['evaluations']}
  except (OSError, ValueError, KeyError, TypeError):
    return None


def difference(actual, expected):
  """Returns what is wrong with a curve, a str, or None: tag by tag the points must be the expected ones.

  Args:
    actual, expected: dicts: tag -> [(step, digest), ...].
  """
  for tag in sorted(set(actual) | set(expected)):
    if tag in _OF_TIME_OR_PLACE:
      continue
    have, want = actual.get(tag, []), expected.get(tag, [])
    if have == want:
      continue
    if [step for step, _ in have] != [step for step, _ in want]:
      return (f'{tag} has points at steps {[step for step, _ in have]}, the undisturbed run at '
              f'{[step for step, _ in want]}')
    steps = [a[0] for a, b in zip(have, want, strict=True) if a != b]
    return f'{tag} has other values than in the undisturbed run at steps {steps}'
  return None
