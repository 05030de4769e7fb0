"""Writing files so that no half-written one is ever left behind."""
import contextlib
import os
import tempfile

from utils.errors import DataError


@contextlib.contextmanager
def replacing(path):
  """Yields a temporary name in `path`'s folder; renames it to `path` on success, removes it on failure."""
  temporary = f'{path}.{os.getpid()}.tmp'
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(temporary)


def make_folder(path, flag):
  """Creates the folder and its parents; raises DataError, naming the flag, where nothing can be written."""
  try:
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise DataError(f'{flag} {path} cannot be written to ({error.strerror}); '
                    f'give a folder of your own') from error
