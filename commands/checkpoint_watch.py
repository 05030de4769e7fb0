"""The checkpoints of a model folder one after another, also those that a training is still to write.

A training has ended once nobody has touched its lock (training/locks.py), and no checkpoint has come, for a
minute: the lock of a process that was killed stays, and one that is started again takes a while to begin.
"""
import os
import time
import typing

from training import checkpoint_store, locks

POLL_SECONDS = 3
PATIENCE_SECONDS = 60


def checkpoints(model_dir: str, all_of_them: bool, watch: bool) -> typing.Iterator[tuple[int, str]]:
  """Yields (step, prefix) of numbered checkpoints, each once, by their steps as far as they are there.

  Args:
    all_of_them: begin with the first that is there, not with the last.
    watch: go on until the training has ended.
  """
  there = checkpoint_store.numbered(model_dir)
  seen = set() if all_of_them else {prefix for _, prefix in there[:-1]}
  waiting = _Waiting(model_dir)
  while True:
    new = [found for found in checkpoint_store.numbered(model_dir) if found[1] not in seen]
    if new:  # the first alone: while it is scored, others may come and go
      seen.add(new[0][1])
      yield new[0]
      waiting = _Waiting(model_dir)
    elif not watch or not waiting.goes_on('the next checkpoint'):
      return


def wait_for_first(model_dir: str) -> None:
  """Returns once there is a checkpoint, or no training that could write one."""
  waiting = _Waiting(model_dir)
  while not (os.path.isdir(model_dir) and checkpoint_store.indexes(model_dir)):
    if not waiting.goes_on('the first checkpoint'):
      return


class _Waiting:
  """The time since a training has last been seen alive."""

  def __init__(self, model_dir):
    self._model_dir, self._lock = model_dir, os.path.join(model_dir, locks.FILE_NAME)
    self._touched = locks.touched(self._lock)
    self._alive = time.monotonic()
    self._is_told = False

  def goes_on(self, what):
    """Waits a few seconds, the first time with a line; returns False if the training has ended."""
    if not self._is_told:
      print(f'Waiting for {what} in {self._model_dir}; Ctrl-C ends this', flush=True)
      self._is_told = True
    time.sleep(POLL_SECONDS)
    touched = locks.touched(self._lock)
    if touched not in (None, self._touched):
      self._touched, self._alive = touched, time.monotonic()
    if time.monotonic() - self._alive < PATIENCE_SECONDS:
      return True
    print(f'No training has written to {self._model_dir} for {PATIENCE_SECONDS} s; it has ended', flush=True)
    return False
