"""Writing files so that no half-written one is ever left behind."""
import contextlib
import json
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


def write_json(path, content):
  """Writes a dict or list as JSON, under a temporary name first."""
  with replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as file:
      json.dump(content, file, indent=2)
      file.write('\n')
      file.flush()
      os.fsync(file.fileno())  # or a machine that loses power could keep the name and lose the content
