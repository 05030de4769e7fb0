"""Signals in a training: the step is finished and saved before the process ends.

Schedulers of clusters send SIGTERM some seconds before they take the machine away; Ctrl-C is SIGINT, and a
terminal that is closed SIGHUP. The first one asks; a second one ends the process at once, at any point
(utils/ending.py). The exit status is 128 and the number of the signal, as a shell counts: 143, 130 and 129.
"""
import contextlib
import signal
import threading
import time
import typing

from utils import ending


class Interrupted(BaseException):
  """A signal arrived while there was nothing to finish. Not an Exception: nobody takes it for an error."""


class Requests:
  """What signals have asked for; `catching` makes them arrive here.

  Attributes:
    signal: signal.Signals, the first that arrived, or None.
    deferring: bool; True if a signal is only noted, False (at first) if it raises Interrupted at once.
  """

  def __init__(self) -> None:
    self.signal: signal.Signals | None = None
    self._arrived = 0.0
    self.deferring = self._has_raised = False

  @property
  def status(self) -> int:
    """The exit status of a process that ends for `signal`; 0 without one."""
    return 128 + self.signal if self.signal else 0

  @contextlib.contextmanager
  def catching(self) -> typing.Iterator[None]:
    """Within it signals are requests; in the main thread alone, which is the only one that they reach."""
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    before = {number: signal.signal(number, self._handle)
              for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN}  # as nohup has it
    try:
      yield
    except Exception as error:
      if not self._has_raised:
        raise
      raise Interrupted() from error  # a library that was broken off has made an error of its own of it
    finally:
      noted, self.deferring = self.signal, True  # signal.signal runs handlers: none may break off this
      if noted:  # its second half, if there is one, is for us as well
        time.sleep(max(0, self._arrived + ending.SAME_SIGNAL_SECONDS - time.monotonic()))
      for number, handler in before.items():
        signal.signal(number, handler)
      if self.signal and not noted:
        signal.raise_signal(self.signal)  # to whom it belongs by now

  @contextlib.contextmanager
  def at_once(self) -> typing.Iterator[None]:
    """Within it a signal raises Interrupted even if `deferring`: what is done here can be done again."""
    before, self.deferring = self.deferring, False
    try:
      if self.signal:  # it came between the two
        raise Interrupted()
      yield
    finally:
      self.deferring = before

  def _handle(self, number, _):
    if self.signal:  # another one must not break off the cleaning up
      return
    self.signal, self._arrived = signal.Signals(number), time.monotonic()
    if not self.deferring:
      self._has_raised = True
      raise Interrupted()
