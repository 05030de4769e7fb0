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
import signal
import sys
import threading
import time
import traceback

from utils import failures
from utils.errors import DataError, UsageError

# One signal, for a person, may be two for a process: `timeout` sends to it and then to its group.
SAME_SIGNAL_SECONDS = 0.2

_WORDS: dict = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated', signal.SIGHUP: 'hung up'}
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
  SAME_SIGNAL_SECONDS later ends the process at once, whatever it is doing. Signals that are ignored (nohup)
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
  raised: list[BaseException] = []

  def handle(signum, frame):
    if not raised:
      raised.append(KeyboardInterrupt() if signum == signal.SIGINT else Terminated(signum))
      raise raised[0]

  # A handler waits for a long operation of TensorFlow to end. The number of a signal is written here at once.
  listener, wakeup = os.pipe()
  os.set_blocking(wakeup, False)
  threading.Thread(target=_end_at_second, args=(listener, signals, name), daemon=True).start()
  wakeup_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
  before = {signum: signal.signal(signum, handle) for signum in signals}
  try:
    yield
  except Exception as error:
    if raised:  # a library that was broken off has made an error of its own of it
      raise raised[0] from error
    raise
  finally:
    for signum, handler in before.items():
      if signal.getsignal(signum) is handle:
        signal.signal(signum, signal.SIG_DFL if last else handler)
    signal.set_wakeup_fd(wakeup_before)
    os.close(wakeup)  # which ends the thread


def _end_at_second(listener, signals, name):
  """Ends the process when one of the signals comes a second time; in a thread of its own.

  Args:
    listener: int, the descriptor from which the number of each signal is read as it arrives.
    signals: list of int.
    name: str, the script's.
  """
  first = None
  while received := os.read(listener, 1):
    if received[0] not in signals:
      continue
    first = first or time.monotonic()
    if time.monotonic() - first > SAME_SIGNAL_SECONDS:
      with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f'\n{name}: {_WORDS[received[0]]}\n'.encode())
      os._exit(128 + received[0])
  os.close(listener)


# --- Errors --------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(name, verbose):
  """Turns whatever is raised within it into one sentence on stderr and SystemExit with a status.

  Args:
    name: str, the script's, with which the sentence begins.
    verbose: function that returns whether to print tracebacks too.
  """
  _open_standard_files()
  hooks = sys.unraisablehook, threading.excepthook
  sys.unraisablehook = lambda lost: verbose() and hooks[0](lost)

  def of_thread(raised):
    if raised.exc_type is not SystemExit:
      status = _say(name, raised.exc_value, verbose())
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
    sys.exit(_say(name, error, verbose()))
  finally:
    _flush_output()
    sys.unraisablehook, threading.excepthook = hooks


def _say(name, error, verbose):
  """Prints what an error means, and returns the exit status."""
  if isinstance(error, BrokenPipeError):  # of stdout: no script has other pipes
    return _BROKEN_PIPE
  status, sentence = explain(error)
  _flush_output()
  with contextlib.suppress(OSError):
    if verbose:
      traceback.print_exception(error)
    sys.stderr.write(f'{name}: {printable(sentence)}\n')
    sys.stderr.flush()
  return status


def explain(error: BaseException) -> tuple[int, str]:
  """Returns the exit status and the sentence of an exception."""
  if isinstance(error, (KeyboardInterrupt, Terminated)):
    signum = getattr(error, 'signum', signal.SIGINT)
    return 128 + signum, _WORDS[signum]
  for candidate in (error, error.__cause__):
    known = isinstance(candidate, Exception) and failures.explain(candidate, _MEMORY)
    if isinstance(known, (UsageError, DataError)):
      return known.exit_status, f'error: {known}'
  said = failures.first_line(error)[:300]
  if isinstance(error, ImportError):
    return 1, f'error: {said}; install what requirements.txt lists'
  return 1, (f'error: {type(error).__name__}: {said}; this is a defect of the program, not of your input: '
             'please report it with the output of --verbose')


def printable(text):
  """Returns text without control characters, which could be anything to a terminal; lines stay lines."""
  return re.sub(r'[\x00-\x08\x0b-\x1f\x7f-\x9f]', lambda match: f'\\x{ord(match[0]):02x}', text)


# --- Standard files ------------------------------------------------------------------------------


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
