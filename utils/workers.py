"""A function of many items, computed by several processes that live no longer than this one."""
import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading

from utils.errors import DataError

# Items that a process takes at a time: few enough that some batches of Cityscapes (2.5 MB a pair) fit into
# memory, and enough that handing them over costs little.
_BATCH = 8


def map_in_order(function, items, processes):
  """Yields `function(item)` for each item, in order, as several processes compute it.

  Args:
    function: one that can be sent to another process.
    items: list.
    processes: int.

  Raises:
    DataError: a process was killed.
  """
  batches = [items[start:start + _BATCH] for start in range(0, len(items), _BATCH)]
  processes = min(processes, len(batches))
  if processes < 2:
    yield from map(function, items)
    return
  pool = Pool(processes)
  try:
    pending: collections.deque[concurrent.futures.Future] = collections.deque()
    for batch in batches:
      pending.append(pool.submit(_map_batch, function, batch))
      if len(pending) > 2 * processes:  # the rest waits, or it would fill the memory
        yield from pending.popleft().result()
    while pending:
      yield from pending.popleft().result()
  except concurrent.futures.process.BrokenProcessPool as error:
    raise DataError('a process that reads images was killed, maybe for want of memory; give fewer '
                    '--processes') from error
  finally:
    pool.shutdown(cancel_futures=True)


class Pool(concurrent.futures.ProcessPoolExecutor):
  """New processes, not forks of this one, in which TensorFlow may have started threads.

  Each lives exactly as long as this one. Ctrl-C and a closed terminal signal the whole group of processes, of
  which this one alone is to answer and clean up. The others, and the one of multiprocessing itself that frees
  semaphores, would print tracebacks, so they begin with these signals blocked.
  """

  def __init__(self, processes: int):
    with _group_signals_blocked():
      super().__init__(processes, multiprocessing.get_context('spawn'), _end_with_parent)

  def submit(self, *args, **kwargs):
    with _group_signals_blocked():  # it may start a process
      return super().submit(*args, **kwargs)


@contextlib.contextmanager
def _group_signals_blocked():
  before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _map_batch(function, batch):
  return list(map(function, batch))


def _end_with_parent():
  """Lets this process end with the one that it works for, whatever ends that."""
  parent = multiprocessing.parent_process()
  assert parent is not None  # as in every process of a pool

  def wait():
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def is_running(pid: object) -> bool:
  """Returns whether another process of this machine has a number, which may be anything that a file holds."""
  if type(pid) is not int or pid <= 0 or pid == os.getpid():  # 0 and less are groups of processes
    return False
  try:
    os.kill(pid, 0)  # sends no signal, but looks whether there is one to send it to
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    pass
  return True
