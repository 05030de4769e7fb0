"""Keeps the terminal for a script's own lines: what other libraries print there is left out.

TensorFlow tells of instruction sets, missing GPU libraries and its deprecated names, at every start and in
between. What matters of it reaches a script as an exception. `--verbose` leaves it all visible.
"""
import contextlib
import importlib.util
import logging
import os
import sys
import threading
import typing
import warnings

_lock = threading.Lock()
_inside = 0  # how many are within without_stderr
_kept = -1  # meanwhile, the descriptor of what stderr was


@contextlib.contextmanager
def silenced() -> typing.Iterator[None]:
  """Within it no library prints anything, in this process or in those that it spawns."""
  disabled = logging.root.manager.disable
  with warnings.catch_warnings():
    silence()
    try:
      yield
    finally:
      logging.disable(disabled)


def silence() -> None:
  """Silences all libraries; to be called before TensorFlow is imported. Values of the user's own stay."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
  os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # AV_LOG_QUIET
  logging.disable()  # TensorFlow's and absl's loggers set levels of their own, again and again
  if not sys.warnoptions:
    warnings.simplefilter('ignore')
  if not any(isinstance(finder, _SilentImport) for finder in sys.meta_path):
    sys.meta_path.insert(0, _SilentImport())


class _SilentImport:
  """A finder of modules that imports TensorFlow without stderr.

  While its libraries are loaded they print lines that no environment variable holds back, in 2.21 at least.
  """

  def find_spec(self, name, path=None, target=None):
    if name != 'tensorflow':
      return None  # the next finder looks for it
    sys.meta_path.remove(self)
    spec = importlib.util.find_spec(name)
    if spec and spec.loader and _can_run_tensorflow():
      execute = spec.loader.exec_module

      def execute_silently(module):
        with without_stderr():
          execute(module)

      spec.loader.exec_module = execute_silently  # type: ignore[method-assign]
    return spec


def _can_run_tensorflow():
  """Returns False if the import aborts: on an x86 CPU without AVX, which it says on stderr alone."""
  try:
    with open('/proc/cpuinfo', encoding='ascii', errors='replace') as file:
      flags = next((line.split() for line in file if line.startswith('flags')), ['avx'])
  except OSError:
    return True
  return 'avx' in flags


@contextlib.contextmanager
def without_stderr() -> typing.Iterator[None]:
  """Within it what libraries write to the file descriptor of stderr is dropped, if they are silenced at all.

  Any threads may be in it. From its first use on Python's own lines take another descriptor: none is lost.
  """
  global _inside, _kept
  if logging.root.manager.disable < logging.CRITICAL:
    yield
    return
  with _lock:
    if not _inside:
      _kept = os.dup(2)
      stream = sys.__stderr__
      if stream and sys.stderr is stream:
        stream.flush()
        sys.stderr = open(os.dup(2), 'w', 1, stream.encoding, 'backslashreplace')
      nowhere = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nowhere, 2)
      os.close(nowhere)
    _inside += 1
  try:
    yield
  finally:
    with _lock:
      _inside -= 1
      if not _inside:
        os.dup2(_kept, 2)
        os.close(_kept)
