"""Keeps the terminal for a script's own lines: what other libraries print there is left out.

TensorFlow tells of instruction sets, missing GPU libraries and its deprecated names, at every start and in
between. What matters of it reaches a script as an exception. `--verbose` leaves it all visible.
"""
import contextlib
import faulthandler
import logging
import os
import sys
import warnings


def silence() -> None:
  """Silences all libraries until the process ends; to be called before TensorFlow is imported.

  Values of the user's own stay. What no setting holds back is written to the file descriptor of stderr, by
  TensorFlow's libraries while they are loaded and by libpng and libtiff: that becomes /dev/null, and Python's
  own lines take another descriptor.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
  os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # AV_LOG_QUIET
  logging.disable()  # TensorFlow's and absl's loggers set levels of their own, again and again
  if not sys.warnoptions:
    warnings.simplefilter('ignore')
  if sys.stderr.fileno() == 2:
    sys.stderr.flush()
    sys.stderr = open(os.dup(2), 'w', 1, sys.stderr.encoding, 'backslashreplace')
    faulthandler.enable(sys.stderr)  # a library that ends the process, for want of AVX say, cannot say why
    with open(os.devnull, 'wb') as nowhere:
      os.dup2(nowhere.fileno(), 2)


def show_fatal_errors() -> None:
  """Gives libraries stderr back, once they are loaded: the last words of TensorFlow before it aborts."""
  with contextlib.suppress(OSError):  # it is none of a file
    os.dup2(sys.stderr.fileno(), 2)
