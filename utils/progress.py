"""How far something is: a bar with the time left on a terminal, else a plain line now and then, on stderr."""
import contextlib
import sys
import time

from tqdm import tqdm

_SECONDS = 15  # between two plain lines

quiet = False  # whether no progress is shown, in the whole process (--quiet)


def duration(seconds: float) -> str:
  """Returns seconds as h:mm:ss."""
  seconds = int(round(seconds))
  return f'{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'


class Progress:
  """A count up to a total, which `update` raises; a context that ends with it."""

  def __init__(self, total: int | None, title: str, unit: str) -> None:
    """Args: the number in all, or None if it is not known; what is done; what is counted, in singular."""
    self.done, self._shown = 0, time.monotonic()
    self._line = f'{title}: {{}}{f" of {total}" if total else ""} {unit}s'
    self._bar = None
    with contextlib.suppress(OSError):  # a full disk, or a terminal that has gone, is no reason to end
      if sys.stderr.isatty() and not quiet:
        self._bar = tqdm(total=total, desc=title, unit=unit, miniters=1)

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def update(self, count: int = 1, note: str = '') -> None:
    """Raises the count; a note says more, such as which part of the next one is done."""
    self.done += count
    with contextlib.suppress(OSError):
      if self._bar is not None:
        self._bar.update(count)
        self._bar.set_postfix_str(note, refresh=bool(note))
      elif not quiet and time.monotonic() - self._shown >= _SECONDS:
        self._shown = time.monotonic()
        print(self._line.format(self.done) + (f', {note}' if note else ''), file=sys.stderr, flush=True)

  def view(self, number: int, total: int) -> None:
    """Says how many views of the next one are done, if it has several; see views.merged."""
    if total > 1:
      self.update(0, f'view {number} of {total}')

  def close(self) -> None:
    """Ends the bar."""
    if self._bar is not None:
      with contextlib.suppress(OSError):
        self._bar.close()
