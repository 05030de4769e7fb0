"""The checkpoints of a model folder as files: writing, verifying, finding, keeping, setting aside.

A checkpoint counts once it is complete and finite. It is written into a folder of its own, read back (each
value, with its checksum), flushed to the disk and then renamed, its index last; whoever looks for checkpoints
looks for indexes. So a process may be killed, or a disk become full, at any moment: what was there stays, and
what was being written does not count. What is in a checkpoint is training/checkpoints.py's concern.
"""
import contextlib
import functools
import glob
import itertools
import os
import pathlib
import re
import shutil
import tempfile
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from training.validation import BEST
from utils import failures, files
from utils.errors import DataError

NAME = 'model.ckpt'
SET_ASIDE = 'set_aside'     # folder of what a training did not go on from
_WRITING = 'saving.tmp'     # folder in which a checkpoint is written
_FOOTER = 48                # bytes at the end of an index
_STEP = re.compile(r'-(\d+)\.index$')
_LEFTOVER = re.compile(r'.*\.\d+\.tmp|checkpoint\.tmp.*')  # files of writers that were killed


class Found(typing.NamedTuple):
  """The newest good checkpoint of a folder.

  Attributes:
    prefix: str, or None if the folder has no checkpoint at all.
    rejected: dict of the prefixes that were looked at before it to what is wrong with them.
  """
  prefix: str | None
  rejected: dict[str, str]


def find(model_dir: str) -> Found:
  """Returns the Found of a folder: of the file `checkpoint`'s choice and then the newest, the first good one.

  A line says what is wrong with those before it.

  Raises:
    DataError: there are checkpoints, and none of them is good.
  """
  rejected: dict[str, str] = {}
  for prefix in _candidates(model_dir):
    reason = problem(prefix)
    if reason is None:
      for bad, what in rejected.items():
        print(f'{bad} {what}; using {prefix}, the newest good one')
      return Found(prefix, rejected)
    rejected[prefix] = reason
  if rejected:
    best = os.path.join(model_dir, BEST)
    raise DataError(f'no checkpoint in {model_dir} can be used: '
                    + '; '.join(f'{prefix} {what}' for prefix, what in rejected.items())
                    + '. Copy one from a backup' + f' or from {best}' * bool(indexes(best)))
  return Found(None, rejected)


class NotFinite(DataError):
  """Weights are not finite; the message says which."""


def problem(prefix: str) -> str | None:
  """Returns what is wrong with a checkpoint, the end of a sentence, or None: every value is read."""
  try:
    infinite = not_finite(prefix)
  except Exception as error:  # OpError, IndexError, ValueError, RuntimeError: TensorFlow leaves it open
    return f'is damaged ({failures.first_line(error)})'
  return f'holds values that are not finite in {infinite}' if infinite else None


def not_finite(prefix: str) -> str:
  """Returns which variables of a checkpoint hold NaN or infinity; '' if none does.

  Raises what TensorFlow does for a damaged checkpoint.
  """
  found = []
  reader = open_reader(prefix)
  for name in sorted(reader.get_variable_to_shape_map()):
    value = reader.get_tensor(name)
    if value.dtype.kind == 'f' and not np.isfinite(value).all():
      found.append(name)
  return ', '.join(found[:1]) + (f' and {len(found) - 1} other variables' if found[1:] else '')


def step_of(prefix: str | None) -> int:
  """Returns the global step of a checkpoint, or 0 if there is none."""
  if prefix is None:
    return 0
  reader = open_reader(prefix)
  return int(reader.get_tensor('global_step')) if reader.has_tensor('global_step') else 0


def open_reader(prefix: str) -> tf.train.NewCheckpointReader:
  """Returns TensorFlow's reader of a checkpoint; a damaged one raises DataError, or what TensorFlow does."""
  for path in _files(prefix):
    files.check_regular(path, f"'{path}'")  # TensorFlow would wait for a pipe for ever
  for path in (prefix + '.index', prefix):  # or the single file of the old format
    if os.path.isfile(path):
      _check_footer(path)
      break
  return tf.train.load_checkpoint(readable(prefix))


def _check_footer(path):
  """Raises DataError if a file's last bytes tell of blocks that it cannot hold.

  They are the only ones without a checksum, and TensorFlow would reserve memory of any size. They hold offset
  and length of two blocks: numbers of 7 bits a byte, low ones first (tensorflow/core/lib/io/format.h).
  """
  with open(path, 'rb') as file:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _FOOTER))
    footer = file.read()
  numbers, value, shift = [], 0, 0
  for byte in footer[:-8]:
    value, shift = value | (byte & 127) << shift, shift + 7
    if byte < 128:
      numbers.append(value)
      value = shift = 0
  if max(numbers[:4], default=0) > size:
    raise DataError('its index tells of a block beyond its end')


def readable(prefix: str) -> str:
  """Returns the prefix under which TensorFlow can read a checkpoint, whatever its folder is called.

  TensorFlow takes a path that it reads for a pattern, in which [ ] * ? and \\ have meanings of their own. If
  the path holds one of these, its files get symbolic links of plain names, for as long as this process lives.
  """
  if not re.search(r'[][*?\\]', prefix):
    return prefix
  folder = _links_of(os.path.abspath(prefix)).name
  for path in glob.glob(glob.escape(os.path.abspath(prefix)) + '*'):
    link = os.path.join(folder, 'checkpoint' + path[len(os.path.abspath(prefix)):])
    with contextlib.suppress(FileExistsError):
      os.symlink(path, link)
  return os.path.join(folder, 'checkpoint')


@functools.cache
def _links_of(prefix):
  return tempfile.TemporaryDirectory(prefix='checkpoint-')


def _candidates(model_dir):
  """Returns the prefixes of a folder's checkpoints: that of the file `checkpoint`, then from the newest."""
  beside = [path[:-len('.index')] for path in sorted(indexes(model_dir), key=_step_and_time, reverse=True)]
  named, known = _state(model_dir)
  path = os.path.join(model_dir, 'checkpoint')
  if named is None:
    if beside:
      print(f'{path} is missing or cannot be read; looking for the newest checkpoint beside it')
    return beside
  here = os.path.join(model_dir, os.path.basename(named))
  # A folder that was copied from another place names its checkpoints there, which may have gone on since.
  first = next((prefix for prefix in (here, named)
                if os.path.isfile(prefix + '.index') or os.path.isfile(prefix)), None)
  if first is None and beside:
    print(f'{path} names {named}, which is not here; looking for the newest checkpoint beside it')
  # A training that was killed between the last two things that it does for a checkpoint has left a complete
  # one of a later step, which the file does not know yet.
  unknown = [prefix for step, prefix in reversed(numbered(model_dir)) if first == here and known
             and step > _step_and_time(first + '.index')[0] and os.path.basename(prefix) not in known]
  return list(dict.fromkeys([*unknown, *filter(None, [first]), *beside]))


def _step_and_time(index):
  step = _STEP.search(index)
  return int(step[1]) if step else -1, os.path.getmtime(index) if os.path.exists(index) else 0


def _state(model_dir):
  """Returns what the file `checkpoint` says: the newest one, and the names of all; (None, ()) if damaged."""
  try:
    path = os.path.join(model_dir, 'checkpoint')
    files.read_text(path, f"'{path}'", limit=None)  # TensorFlow would also read a pipe, or a disk full
    state = tf.train.get_checkpoint_state(model_dir)
  except Exception:  # what TensorFlow does not expect in that file, such as other encodings
    return None, ()
  if not (state and state.model_checkpoint_path):
    return None, ()
  return state.model_checkpoint_path, set(map(os.path.basename, state.all_model_checkpoint_paths))


def numbered(model_dir: str) -> list[tuple[int, str]]:
  """Returns [(step, prefix), ...] of a training's checkpoints, by step; those of other names are left out."""
  found = [(_step_and_time(path)[0], path[:-len('.index')]) for path in indexes(model_dir)]
  return sorted((step, prefix) for step, prefix in found if os.path.basename(prefix) == f'{NAME}-{step}')


def indexes(model_dir: str) -> list[str]:
  """Returns the paths of the checkpoints' indexes in a folder."""
  return glob.glob(os.path.join(glob.escape(model_dir), '*.index'))


def save(saver: tf.train.Saver, session: tf.Session, model_dir: str, step: int, keep_max: int) -> str:
  """Writes the checkpoint of a step, makes it the newest, and removes those beyond keep_max.

  Args:
    model_dir: one that this process alone writes to.
    keep_max: newest checkpoints to keep; 0 keeps all.

  Returns:
    Its prefix.

  Raises:
    NotFinite: weights are not finite. All is as it was before.
    OSError, tf.errors.OpError: it cannot be written, or read again. All is as it was before.
  """
  folder = os.path.join(model_dir, _WRITING)
  remove(folder)
  os.mkdir(folder)
  try:
    written = saver.save(session, os.path.join(folder, NAME), step, write_meta_graph=False, write_state=False)
    infinite = not_finite(written)
    if infinite:
      raise NotFinite(f'the values of {infinite} are not finite')
    prefix = _move(written, model_dir)
  finally:
    remove(folder)
  choose(model_dir, prefix, keep_max)
  return prefix


def choose(model_dir: str, prefix: str, keep_max: int = 0) -> None:
  """Makes a checkpoint of the folder the newest by the folder's own word, the file `checkpoint`.

  Args:
    keep_max: the checkpoints that stay, this one and those of the steps before it; 0 keeps all.
  """
  others = [other for _, other in numbered(model_dir) if other != prefix]
  removed = others[:max(0, len(others) + 1 - keep_max)] if keep_max else []
  # A folder can name a checkpoint that lies elsewhere. The newest is the last.
  is_here = os.path.realpath(os.path.dirname(prefix)) == os.path.realpath(model_dir)
  names = [*map(os.path.basename, others[len(removed):]),
           os.path.basename(prefix) if is_here else os.path.abspath(prefix)]
  # Beside a relative folder TensorFlow would take the names for relative to the current one, and write
  # ../model.ckpt-7, where tf.estimator finds nothing. Its own writing, broken off by a signal, leaves a file.
  state = tf.train.generate_checkpoint_state_proto(os.path.abspath(model_dir), names[-1], names)
  with files.replacing(os.path.join(model_dir, 'checkpoint')) as temporary:
    pathlib.Path(temporary).write_text(str(state), encoding='utf-8')
  for other in removed:
    _remove(other)


def keep_best(prefix: str, folder: str) -> None:
  """Copies a checkpoint to the folder of the best one, in place of the one there.

  At any moment the folder holds a complete one, which its file `checkpoint` names. A copy, not a link: what
  damages one file leaves the other.

  Args:
    folder: an existing one that this process alone writes to.
  """
  writing = os.path.join(folder, _WRITING)
  remove(writing)
  os.mkdir(writing)
  try:
    for path in _files(prefix):
      shutil.copyfile(path, os.path.join(writing, os.path.basename(path)))
    best = _move(os.path.join(writing, os.path.basename(prefix)), folder)
  finally:
    remove(writing)
  choose(folder, best, keep_max=1)


def set_aside(model_dir: str, step: int, rejected: typing.Iterable[str]) -> None:
  """Moves what a training does not go on from out of the way, and says so: it would be written over.

  These are checkpoints of later steps, damaged ones, and data without an index.

  Args:
    model_dir: one that this process alone writes to.
    step: the one from which the training goes on.
    rejected: prefixes of checkpoints that cannot be used.
  """
  for folder in (model_dir, os.path.join(model_dir, BEST)):
    remove(os.path.join(folder, _WRITING))  # of a process that was killed while it saved
    for name in filter(_LEFTOVER.fullmatch, os.listdir(folder) if os.path.isdir(folder) else ()):
      remove(os.path.join(folder, name))
  later = [prefix for number, prefix in numbered(model_dir) if number > step]
  with_data = {path.rpartition('.data-')[0]
               for path in glob.glob(os.path.join(glob.escape(model_dir), NAME + '-*.data-*'))}
  orphans = [prefix for prefix in with_data if not os.path.exists(prefix + '.index')]
  here = [prefix for prefix in rejected if os.path.dirname(prefix) == model_dir.rstrip(os.sep)]
  for prefix in dict.fromkeys([*sorted(later), *here, *sorted(orphans)]):
    if paths := _files(prefix):
      print(f'{prefix} was moved to {move_aside(model_dir, paths)}: training goes on from step {step}')


def move_aside(model_dir: str, paths: typing.Collection[str]) -> str:
  """Moves files and folders to set_aside, where nothing is written over; returns the folder there."""
  folder = _room_for(paths, os.path.join(model_dir, SET_ASIDE))
  os.makedirs(folder, exist_ok=True)
  for path in paths:
    os.rename(path, os.path.join(folder, os.path.basename(path)))
  return folder


def remove(path: str) -> None:
  """Removes a file, a link or a folder with all that is in it; nothing happens if it is not there."""
  with contextlib.suppress(FileNotFoundError):
    if os.path.isdir(path) and not os.path.islink(path):
      shutil.rmtree(path)
    else:
      os.remove(path)


def held(folder: str) -> tuple[int, str] | None:
  """Returns (step, prefix) of the checkpoint that a folder uses, good or not; None if it has none."""
  return next(((_step_and_time(prefix + '.index')[0], prefix) for prefix in _candidates(folder)), None)


def _room_for(paths, folder):
  """Returns the folder, or <folder>/2, <folder>/3 and so on, the first that has no files of these names."""
  for number in itertools.count(1):
    candidate = folder if number == 1 else os.path.join(folder, str(number))
    if not any(os.path.lexists(os.path.join(candidate, os.path.basename(path))) for path in paths):
      return candidate


def _move(written, folder):
  """Flushes a checkpoint to the disk and gives it its name in the folder; returns its prefix there."""
  paths = _files(written)
  for path in paths:
    with open(path, 'rb+') as file:
      os.fsync(file.fileno())
  for path in sorted(paths, key=lambda path: path.endswith('.index')):
    os.replace(path, os.path.join(folder, os.path.basename(path)))
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
  return os.path.join(folder, os.path.basename(written))


def _remove(prefix):
  """Removes a checkpoint, first its index: without it the rest does not count."""
  for path in sorted(_files(prefix), key=lambda path: not path.endswith('.index')):
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)


def _files(prefix):
  """Returns the paths of a checkpoint's files, with the graph of those of the original scripts."""
  pattern = re.compile(re.escape(os.path.basename(prefix)) + r'\.(index|meta|data-\d{5}-of-\d{5})')
  folder = os.path.dirname(prefix)
  return [os.path.join(folder, name) for name in sorted(os.listdir(folder or '.')) if pattern.fullmatch(name)]
