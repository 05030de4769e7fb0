"""SIGTERM and SIGINT in a training: the step is finished and saved before the process ends.

Schedulers of clusters send SIGTERM some seconds before they take the machine away; Ctrl-C is SIGINT. The
first one asks; a second one ends the process at once, whatever it does. The exit status is 128 and the number
of the signal, as a shell counts: 143 and 130.
"""
import contextlib
import os
import signal
import threading
import time

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# One request can arrive twice, for the process and for its group; a person does not press twice so fast.
_SAME_REQUEST_SECONDS = 0.1


class Interrupted(BaseException):
  """A signal arrived while there was nothing to finish. Not an Exception: nobody takes it for an error."""


class Requests:
  """What signals have asked for; `catching` makes them arrive here.

  Attributes:
    signal: signal.Signals, the first that arrived, or None.
    deferring: bool; True if a signal is only noted, False (at first) if it raises Interrupted at once.
  """

  def __init__(self):
    self.signal = None
    self.deferring = False

  @property
  def status(self):
    """The exit status, an int, of a process that ends for `signal`."""
    return 128 + self.signal

  @contextlib.contextmanager
  def catching(self):
    """Within it signals are requests. Not in the main thread, which alone may ask for it, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
    # Python runs `_handle` between two of its own instructions, and a step is a single one. The numbers of
    # signals also go through a pipe at once, which a thread reads: a second one need not wait for the step.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(reading,), daemon=True).start()
    try:
      yield
    finally:
      signal.set_wakeup_fd(wakeup)
      for number, handler in before.items():
        signal.signal(number, handler)
      os.close(writing)

  @contextlib.contextmanager
  def at_once(self):
    """Within it a signal raises Interrupted even if `deferring`: what is done here can be done again."""
    before, self.deferring = self.deferring, False
    try:
      yield
    finally:
      self.deferring = before

  def _handle(self, number, _):
    self.signal = self.signal or signal.Signals(number)
    if not self.deferring:
      raise Interrupted()


def _end_at_second(reading):
  """Ends the process when a second signal arrives."""
  first = None
  with open(reading, 'rb', buffering=0) as numbers:
    while number := numbers.read(1):
      if number[0] not in _SIGNALS:
        continue
      if first is None:
        first = time.monotonic()
      elif time.monotonic() - first > _SAME_REQUEST_SECONDS:
        os._exit(128 + number[0])
