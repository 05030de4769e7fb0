"""A function of many items, computed by several processes that live no longer than this one."""
import collections
import concurrent.futures
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
  # New processes, not forks of this one, in which TensorFlow may have started threads.
  pool = concurrent.futures.ProcessPoolExecutor(
      processes, multiprocessing.get_context('spawn'), _start_process)
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


def _map_batch(function, batch):
  return list(map(function, batch))


def _start_process():
  """Makes an encoding process live exactly as long as the one that it works for."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the other one cleans up
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
  parent = multiprocessing.parent_process()
  if parent is not None:  # as in every process of a pool
    parent.join()
  os._exit(1)
