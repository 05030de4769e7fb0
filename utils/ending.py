"""How a script ends: its exit status, and the one sentence on stderr that goes with it.

  0    done
  1    bad data, a machine that ran out of something, or a defect of ours
  2    bad usage
  130  interrupted by Ctrl-C (128 + the signal's number, as in a shell); so 143: by SIGTERM, 129: by SIGHUP
  141  whoever read stdout has gone, as in `script.py | head`; without a sentence

A signal raises in the main thread, so that what was half written is removed on the way out.
"""
import contextlib
import os
import re
import select
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import traceback

from utils import failures
from utils.errors import DataError, UsageError

# One signal, for a person, may be two for a process: `timeout` sends to it and then to its group.
SAME_SIGNAL_SECONDS = 0.2

_WORDS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated', signal.SIGHUP: 'hung up'}
_BROKEN_PIPE = 128 + signal.SIGPIPE
_MEMORY = 'give smaller images, crops or batches, or fewer processes, or end other programs'

class Terminated(BaseException):
  """A signal asked the process to end. As KeyboardInterrupt it is no Exception."""

  def __init__(self, signum):
    super().__init__(signum)
    self.signum = signum


# --- Signals -------------------------------------------------------------------------------------


@contextlib.contextmanager
def raising_signals(name, last=False):
  """Within it SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Terminated, in the main thread.

  Only the first one raises, so that another cannot break off the cleaning up. One that comes more than
  SAME_SIGNAL_SECONDS later ends the process at once, whatever it is doing: also when handlers, which run
  between instructions of Python, wait for a long operation of TensorFlow. Signals that are ignored (nohup)
  or have a handler already stay as they are; a handler that is set within takes the place of this one.

  Args:
    name: str, the script's, for the line on stderr.
    last: bool, whether the process ends afterwards, which a signal then does without a word.
  """
  signals = [signum for signum in _WORDS
             if signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler)]
  if threading.current_thread() is not threading.main_thread() or not signals:
    yield
    return
  raised: list[int] = []
  late: list[int] = []
  is_over = False

  def handle(signum, frame):
    if is_over:
      late.append(signum)
    elif not raised:
      raised.append(signum)
      raise KeyboardInterrupt if signum == signal.SIGINT else Terminated(signum)

  def unraisable(lost):  # by a __del__, say, from which nothing can be raised
    if raised and isinstance(lost.exc_value, (KeyboardInterrupt, Terminated)):
      main = threading.main_thread().ident  # which sleeps on if the signal reaches another thread
      threading.Timer(0.01, signal.pthread_kill, [main, raised.pop()]).start()
    else:
      unraisable_before(lost)

  listener, wakeup = socket.socketpair()
  wakeup.setblocking(False)
  threading.Thread(target=_end_at_second, args=(listener, signals, name), daemon=True).start()
  wakeup_before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
  unraisable_before, sys.unraisablehook = sys.unraisablehook, unraisable
  before = {signum: signal.signal(signum, handle) for signum in signals}
  try:
    yield
  except Exception as error:
    if not raised:
      raise
    # A library that was broken off has made an error of its own of it.
    raise KeyboardInterrupt if raised[0] == signal.SIGINT else Terminated(raised[0]) from error
  finally:
    is_over = not raised  # signal.signal first runs the handlers of what has arrived: none may break off this
    for signum, handler in before.items():
      if signal.getsignal(signum) is handle:
        signal.signal(signum, signal.SIG_DFL if last else handler)
    sys.unraisablehook = unraisable_before
    signal.set_wakeup_fd(wakeup_before)
    wakeup.close()  # which ends the thread
    if late:
      signal.raise_signal(late[0])  # to whom it belongs by now


def _end_at_second(listener, signals, name):
  """Ends the process when one of the signals comes a second time; in a thread of its own.

  Args:
    listener: socket, to which Python writes the number of each signal as it arrives.
    signals: list of int.
    name: str, the script's.
  """
  first = None
  with listener:
    while received := listener.recv(1):
      signum = received[0]
      if signum not in signals:
        continue
      if first is None:
        first = time.monotonic()
      elif time.monotonic() - first > SAME_SIGNAL_SECONDS:
        with contextlib.suppress(OSError):
          os.write(2, f'\n{name}: {_WORDS[signum]}\n'.encode())
        os._exit(128 + signum)


# --- Errors --------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(name, places, verbose):
  """Turns whatever is raised within it into one sentence on stderr and SystemExit with a status.

  Args:
    name: str, the script's, with which the sentence begins.
    places: function that returns a list of (flag, path): where the script reads and writes.
    verbose: function that returns whether to print tracebacks too.
  """
  _open_standard_files()
  hooks = sys.unraisablehook, threading.excepthook
  sys.unraisablehook = lambda lost: verbose() and hooks[0](lost)

  def of_thread(raised):
    if raised.exc_type is not SystemExit:
      status = _say(name, raised.exc_value, places, verbose())
      if isinstance(raised.exc_value, UsageError):
        os._exit(status)  # the main thread may wait for ever

  threading.excepthook = of_thread
  try:
    yield
    if refused := _flush_output():
      raise refused
  except SystemExit:
    raise
  except BaseException as error:
    sys.exit(_say(name, error, places, verbose()))
  finally:
    _flush_output()
    sys.unraisablehook, threading.excepthook = hooks


def _say(name, error, places, verbose):
  """Prints what an error means, and returns the exit status."""
  if isinstance(error, BrokenPipeError) and (_is_unread(1) or error.filename):
    return _BROKEN_PIPE
  status, sentence = explain(error, places)
  _flush_output()
  with contextlib.suppress(OSError):
    _close_progress_bars()
    if verbose:
      traceback.print_exception(error)
    sys.stderr.write(f'{name}: {printable(sentence)}\n')
    sys.stderr.flush()
  return status


def explain(error, places=lambda: []):
  """Returns the exit status and the sentence of an exception.

  Args:
    error: BaseException.
    places: see `explained`.
  """
  if isinstance(error, (UsageError, DataError)):
    return error.exit_status, f'error: {error}'
  if isinstance(error, (KeyboardInterrupt, Terminated)):
    signum = getattr(error, 'signum', signal.SIGINT)
    return 128 + signum, _WORDS[signum]
  for candidate in (error, error.__cause__):
    if candidate is None:
      continue
    if failures.is_full_disk(candidate) and failures.errno_and_path(candidate)[1] is None:
      return 1, (f'error: no space is left {_fullest_disk(places())}; what was complete before is kept. Free '
                 'some there, or give another folder, and start again')
    known = failures.explain(candidate, _MEMORY)
    if known is not candidate and isinstance(known, (UsageError, DataError)):
      return known.exit_status, f'error: {known}'
  if isinstance(error, ImportError):
    return 1, f'error: {_first_line(error)}; install what requirements.txt lists'
  return 1, (f'error: {type(error).__name__}: {_first_line(error)}; this is a defect of the program, not of '
             'your input: please report it with the output of --verbose')


def printable(text):
  """Returns text without control characters, which could be anything to a terminal; lines stay lines."""
  return re.sub(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]', lambda match: f'\\x{ord(match[0]):02x}', text)


def _first_line(error, length=300):
  lines = str(error).strip().splitlines() or ['no message']
  return lines[0] if len(lines[0]) <= length else lines[0][:length] + '...'


def _fullest_disk(places):
  """Returns words for where no space is left, which the system did not say: the disk that has the least.

  Args:
    places: list of (flag, path), from which a disk is chosen.
  """
  with contextlib.suppress(OSError):  # if there is none
    places = [*places, ('temporary files in', tempfile.gettempdir())]
  disks: dict[int, tuple] = {}
  for flag, place in places:
    while place and not os.path.exists(place):
      place = os.path.dirname(place)
    place = place or '.'
    with contextlib.suppress(OSError):
      disk = os.statvfs(place)
      if not disk.f_flag & os.ST_RDONLY:
        disks.setdefault(os.stat(place).st_dev, (disk.f_bavail * disk.f_frsize, f'{flag} {place}'))
  with contextlib.suppress(OSError):
    output = os.fstat(1)
    if stat.S_ISREG(output.st_mode):
      disk = os.fstatvfs(1)
      disks.setdefault(output.st_dev, (disk.f_bavail * disk.f_frsize, 'standard output'))
    elif os.path.samestat(output, os.stat('/dev/full')):
      return 'for standard output'
  if not disks:
    return 'on a disk'
  free, place = min(disks.values())
  which = 'the disk' if len(disks) == 1 else 'a disk, probably that'
  return f'on {which} of {place} ({free / 1e6:.1f} MB are free)'


# --- Standard files ------------------------------------------------------------------------------


def _is_unread(descriptor):
  """Returns whether a file descriptor is of a pipe that nobody reads any more."""
  poll = select.poll()
  poll.register(descriptor, 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))


def _open_standard_files():
  """Opens those of stdin, stdout and stderr that are closed, or files that hold data would take their place.

  They are /dev/null, for Python and for child processes too. What cannot be encoded is printed as an escape:
  file names need not be text.
  """
  for descriptor, name in enumerate(('stdin', 'stdout', 'stderr')):
    try:
      os.fstat(descriptor)
    except OSError:
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest that is free
    if getattr(sys, name) is None:
      setattr(sys, name, open(descriptor, 'w' if descriptor else 'r', closefd=False))
  if getattr(sys.stdout, 'errors', None) == 'strict' and hasattr(sys.stdout, 'reconfigure'):
    sys.stdout.reconfigure(errors='backslashreplace')


def _flush_output():
  """Writes what stdout holds; returns the OSError of it, or None.

  What cannot be written is dropped, or Python would try again when it ends, and say that it failed.
  """
  try:
    sys.stdout.flush()
  except OSError as error:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return OSError(error.errno, error.strerror, 'standard output')
  return None


def _close_progress_bars():
  """Ends the lines of progress bars that an error has left open."""
  tqdm = sys.modules.get('tqdm')
  for bar in list(getattr(getattr(tqdm, 'tqdm', None), '_instances', ())):
    bar.close()
