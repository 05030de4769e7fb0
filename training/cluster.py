"""The machines that train together, as TF_CONFIG describes them: TFJob of Kubernetes sets it, or a script."""
import contextlib
import dataclasses
import json
import os
import re
import time
import typing

from training import locks
from utils.errors import UsageError

_SILENT_SECONDS = 40  # of a machine that is taken for lost: all have ended within a minute
_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Task:
  """This process's place in the cluster.

  workers: int, processes that train, one a machine.
  rank: int, this one among them. The first writes checkpoints and event files, evaluates and prints: the task
    of the job `chief`, or, if there is no such job, worker 0.
  """
  workers: int = 1
  rank: int = 0

  @property
  def is_chief(self) -> bool:
    return self.rank == 0


def task_from_environment() -> Task:
  """Returns the Task that TF_CONFIG gives to this process.

  It is a single one, Task(), if TF_CONFIG is not set, is empty, or lists one machine, a chief or a worker,
  as for a job of Kubernetes that is scaled to one.

  Raises:
    UsageError: TF_CONFIG is no such JSON, asks for parameter servers or an evaluator, or contradicts itself.
  """
  text = os.environ.get('TF_CONFIG', '').strip()
  if not text:
    return Task()
  try:
    jobs, job, index = _parsed(text)
  except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
    raise UsageError(f'TF_CONFIG is {text[:300]}; it should be JSON such as {_EXAMPLE}') from error
  if not jobs:
    return Task()
  addresses = [address for job in jobs.values() for address in job]
  if {*jobs} - {'chief', 'worker'} or len(jobs.get('chief', ())) > 1 or len({*addresses}) < len(addresses):
    raise UsageError(f'TF_CONFIG is {text[:300]}; give workers and at most one chief alone, each with an '
                     'address of its own: every worker holds all variables, and the chief evaluates')
  if not 0 <= index < len(jobs.get(job, ())):
    raise UsageError(f'TF_CONFIG says that this is {job} {index}, which its cluster does not list')
  return Task(sum(map(len, jobs.values())), index + len(jobs.get('chief', ())) * (job == 'worker'))


@contextlib.contextmanager
def watching(folder: str, task: Task, is_done: typing.Callable[[], bool],
             lost: typing.Callable[[], None]) -> typing.Iterator[None]:
  """Within it a thread shows the others that this machine lives, and calls lost() if one of them does not.

  TensorFlow never tells of a machine that hangs, and of one that was killed not always: its session waits.
  So each machine touches a file of its own in the folder that all of them share: the first one the lock of
  the training, which it holds anyway, another one `training.lock.<rank>`.

  Args:
    folder: the model's, which may not be there yet.
    is_done: returns whether the others are not needed any more, and may have ended.
    lost: the main thread may wait for ever meanwhile.
  """
  paths = [os.path.join(folder, locks.FILE_NAME + f'.{rank}' * bool(rank)) for rank in range(task.workers)]
  own = paths.pop(task.rank)
  others, looked = [_Machine(path) for path in paths], time.monotonic()

  def look():
    nonlocal looked
    if not task.is_chief:
      locks.touch(own)
    # Longer, and this process was itself stopped, as the whole machine may have been, or the share.
    seconds, looked = min(time.monotonic() - looked, 2 * locks.TOUCH_SECONDS), time.monotonic()
    if any([other.is_lost(seconds) for other in others]) and not is_done():
      lost()

  try:
    with locks.repeating(look):
      yield
  finally:
    if not task.is_chief:
      with contextlib.suppress(OSError):
        os.remove(own)


class _Machine:
  """Another machine, by the file that it touches. Clocks differ: what counts is that it changes at all."""

  def __init__(self, path):
    self._path, self._touched = path, locks.touched(path)  # maybe of a run that was killed
    self._changes, self._silent, self._longest = 0, 0.0, 0.0

  def is_lost(self, seconds):
    """Returns whether it is silent for too long; `seconds` have passed since it was last asked for.

    One that has not come yet, or whose files cannot be seen here, is not. A share that tells of changes late
    does so from the start.
    """
    self._silent += seconds
    touched = locks.touched(self._path)
    if touched not in (None, self._touched):
      if self._changes:
        self._longest = max(self._longest, self._silent)
      self._touched, self._silent, self._changes = touched, 0.0, self._changes + 1
    return self._changes > 1 and self._silent > max(_SILENT_SECONDS, self._longest + _SILENT_SECONDS / 2)


def _parsed(text):
  """Returns the jobs that have machines, a dict of lists of addresses, and this machine's job and index.

  Raises:
    ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError: it is something else.
  """
  config = json.loads(text)
  jobs = {job: addresses for job, addresses in config.get('cluster', {}).items() if addresses}
  if not jobs:
    return {}, None, None
  for addresses in jobs.values():
    if not (isinstance(addresses, list) and all(re.fullmatch(r'\S+:\d+', address) for address in addresses)):
      raise ValueError(f'{addresses} are no addresses')
  return jobs, str(config['task']['type']), int(config['task']['index'])
