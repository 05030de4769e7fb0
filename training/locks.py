"""One writer at a time: the lock of a folder that a training, or another tool, writes to.

The lock is the file `training.lock`: held by the operating system as long as the process lives, whatever ends
it, so that none is left behind by a crash. It also says who holds it, for the message to a second writer.
File systems that several machines share do not always pass such locks on. So the holder also touches the file
every few seconds, and if it names another machine, a second writer first watches whether it is touched.
"""
import contextlib
import errno
import fcntl
import functools
import json
import os
import socket
import threading
import time
import typing

from utils import workers
from utils.errors import UsageError

FILE_NAME = 'training.lock'
TOUCH_SECONDS = 5
_WATCH_SECONDS = 20
# Not through a link, which could lead to any file, as in a folder from elsewhere.
_CREATE = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# What file systems answer that have no such locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def locked(folder: str) -> typing.Iterator[None]:
  """Within it this process is the only one that writes to an existing folder.

  Raises:
    UsageError: another process writes there; the message names it.
  """
  path = os.path.join(folder, FILE_NAME)
  file = _acquire(path, folder)
  try:
    with repeating(functools.partial(touch, path)):
      yield
  finally:
    with contextlib.suppress(OSError):
      os.remove(path)
    os.close(file)


def _acquire(path, folder):
  """Returns the descriptor of the lock's file, which this process holds now and is named in."""
  while True:
    file = os.open(path, os.O_RDWR | _CREATE, 0o666)
    holder = _holder(file)
    is_elsewhere = holder.get('host') not in (None, socket.gethostname())
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      held = is_elsewhere and _is_touched(path, holder)
    except BlockingIOError:
      held, holder = True, _holder(file)  # who may have come between the two
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      held = (is_elsewhere or workers.is_running(holder.get('pid'))) and _is_touched(path, holder)
    if held:
      os.close(file)
      raise UsageError(f'{_named(holder)} trains in {folder} ({FILE_NAME}); wait for its end, stop it, or '
                       'give another --model_dir')
    try:
      if os.path.samestat(os.fstat(file), os.stat(path)):
        break
    except FileNotFoundError:
      pass
    os.close(file)  # its holder has just removed it: this was the lock of nothing
  if holder:
    print(f'{path}: {_named(holder)}, which trained here, has ended without removing its lock; taken over')
  os.ftruncate(file, 0)
  os.pwrite(file, json.dumps({'host': socket.gethostname(), 'pid': os.getpid(),
                              'started': time.strftime('%Y-%m-%d %H:%M:%S')}).encode() + b'\n', 0)
  return file


def _holder(file):
  """Returns what stands in the lock's file, a dict; empty if it is no JSON object."""
  try:
    holder = json.loads(os.pread(file, 4096, 0))
  except (ValueError, RecursionError):
    return {}
  return holder if isinstance(holder, dict) else {}


def _named(holder):
  return f'process {holder.get("pid", "(unknown)")} on {holder.get("host", "this machine")}'


def _is_touched(path, holder):
  """Whether the holder, whose machine or file system does not tell, still touches the file; takes a while."""
  print(f'{path} is held by {_named(holder)}; watching for {_WATCH_SECONDS} s whether it still runs',
        flush=True)
  before = touched(path)
  end = time.monotonic() + _WATCH_SECONDS
  while time.monotonic() < end:
    time.sleep(0.5)
    if touched(path) != before:
      return True
  return False


# --- Signs of life -------------------------------------------------------------------------------


@contextlib.contextmanager
def repeating(function: typing.Callable[[], None]) -> typing.Iterator[None]:
  """Within it a thread calls a function every TOUCH_SECONDS."""
  ended = threading.Event()

  def repeat():
    while not ended.wait(TOUCH_SECONDS):
      function()

  thread = threading.Thread(target=repeat, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()


def touched(path: str) -> int | None:
  """Returns when a file was last touched, in ns of any machine's clock, or None if there is none."""
  with contextlib.suppress(OSError):
    os.close(os.open(path, os.O_NONBLOCK | os.O_CLOEXEC))  # makes NFS ask its server in place of its cache
  try:
    return os.stat(path).st_mtime_ns
  except OSError:
    return None


def touch(path: str) -> None:
  """Makes a file, if there is a folder for it, and changes when it was last touched."""
  with contextlib.suppress(OSError), open(os.open(path, os.O_WRONLY | _CREATE, 0o666), 'wb') as file:
    os.utime(file.fileno())
