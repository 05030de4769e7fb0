"""Reading files that may be anything, and writing files so that no half-written one is ever left behind.

Files come from elsewhere: what is no regular file (a pipe would never end, nor would /dev/zero), larger than
any of its kind, or no text is refused with a sentence that names it. What the scripts write themselves may
have any size; a file with holes, which is larger than the disk, is no text.
"""
import contextlib
import csv
import json
import os
import stat
import tempfile
import typing

from utils.errors import DataError, UsageError

_MAX_TEXT = 1 << 28  # bytes; a list of some millions of names
_MAX_JSON = 1 << 24  # bytes; parsed, it takes up to thirty times as many


@contextlib.contextmanager
def replacing(path: str) -> typing.Iterator[str]:
  """Yields a temporary name in `path`'s folder; renames it to `path` on success, removes it on failure.

  What is no file, such as /dev/stdout, is not replaced, but written to. A folder raises OSError.
  """
  if _is_special(path):
    yield path
    return
  temporary = f'{path}.{os.getpid()}.tmp'
  try:
    yield temporary
    os.replace(temporary, path)
  except OSError as error:
    if error.filename is None:  # such as a write to a full disk, which does not say where
      error.filename = path
    raise
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(temporary)


def _is_special(path):
  """Returns whether a path is a device, or a pipe that is read, such as /dev/stdout.

  Raises:
    OSError: it is a folder, or a pipe that nobody reads.
  """
  if not os.path.exists(path) or os.path.isfile(path):
    return False
  os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
  return True


def make_folder(path: str, flag: str) -> None:
  """Creates the folder and its parents; raises DataError, naming the flag, if nothing can be written."""
  try:
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise DataError(f'{flag} {path} cannot be written to ({error.strerror}); '
                    f'give a folder of your own') from error


def check_outputs(outputs: typing.Iterable[str], inputs: typing.Iterable[str], flag: str) -> None:
  """Raises UsageError, naming the flag, if a file that is read would be written over.

  Args:
    outputs, inputs: paths.
    flag: the one that says where the outputs go.
  """
  read = {os.path.realpath(path) for path in inputs}
  for path in outputs:
    if os.path.realpath(path) in read:
      raise UsageError(f"{flag} would write over '{path}', which is read; give another folder")


def check_json_output(path: str | None, flag: str) -> None:
  """Raises UsageError, naming the flag, if JSON would take the place of something else; None is no file."""
  if path is not None and (os.path.isfile(path) or os.path.isdir(path)):
    try:
      read_json(path, f"'{path}'", None)
    except DataError as error:
      raise UsageError(f'{flag} would write over what is no JSON: {error}; give another name') from error


def write_json(path: str, content: dict | list) -> None:
  """Writes the content as JSON, under a temporary name first."""
  with replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8') as file:
      json.dump(content, file, indent=2)
      file.write('\n')
      file.flush()
      if os.path.isfile(temporary):  # no device
        os.fsync(file.fileno())  # or a machine that loses power could keep the name and lose the content


def write_csv(path: str, rows: typing.Iterable[typing.Sequence]) -> None:
  """Writes rows as CSV, under a temporary name first; Excel knows UTF-8 by the byte-order mark alone."""
  with replacing(path) as temporary:
    # Names of files need not be text.
    with open(temporary, 'w', encoding='utf-8-sig', errors='backslashreplace', newline='') as file:
      csv.writer(file).writerows(rows)


def check_regular(path: str, source: str) -> None:
  """Raises DataError, naming the source, if a path is no file with an end: a folder, device or pipe."""
  os.close(_open_regular(path, source)[0])


def make_folder_of(path: str, flag: str) -> None:
  """Creates the folder of a file to be written, unless that is a device; see make_folder."""
  if not os.path.exists(path) or os.path.isfile(path):
    make_folder(os.path.dirname(path) or '.', flag)


def read_bytes(path: str, source: str, limit: int | None) -> bytes:
  """Returns the content of a regular file.

  Args:
    source: what errors call it.
    limit: the most bytes that it may have. None: any number, read up to a block that holds the byte 0.

  Raises:
    DataError: it is missing, no regular file, or larger.
  """
  descriptor, size = _open_regular(path, source)
  with open(descriptor, 'rb') as file:
    if limit is not None and size > limit:
      raise DataError(f'{source} has {size:,} bytes, and up to {limit:,} are allowed; give another')
    try:
      if limit is not None:
        return file.read(limit)
      blocks = [b'']
      while b'\0' not in blocks[-1] and (block := file.read(1 << 24)):
        blocks.append(block)
      return b''.join(blocks)
    except OSError as error:
      raise DataError(f'{source} cannot be read: {error.strerror}') from error


def _open_regular(path, source):
  """Returns the descriptor of a regular file that is open for reading, and its size in bytes."""
  try:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # waits for no pipe
  except (OSError, ValueError) as error:  # ValueError: a path that holds the byte 0
    raise DataError(f'{source} cannot be read: {getattr(error, "strerror", error)}') from error
  status = os.fstat(descriptor)
  if not stat.S_ISREG(status.st_mode):
    os.close(descriptor)
    kind = 'folder' if stat.S_ISDIR(status.st_mode) else 'device or pipe'
    raise DataError(f'{source} cannot be read: it is a {kind}; give a file')
  return descriptor, status.st_size


def read_text(path: str, source: str, limit: int | None = _MAX_TEXT) -> str:
  """Returns the content of a UTF-8 text file, with or without a byte-order mark; see read_bytes.

  Raises:
    DataError: also if it is no UTF-8 text.
  """
  encoded = read_bytes(path, source, limit)
  try:
    text = encoded.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise DataError(f'{source} is no UTF-8 text ({error.reason} at byte {error.start}); save it as '
                    'UTF-8') from error
  if '\0' in text:
    raise DataError(f'{source} is no text: it holds the byte 0; save it as UTF-8')
  return text


def read_json(path: str, source: str, limit: int | None = _MAX_JSON) -> typing.Any:
  """Returns the content of a JSON file; see read_text.

  Raises:
    DataError: also if it is no JSON, or nested deeper than any that is meant.
  """
  try:
    return json.loads(read_text(path, source, limit))
  except RecursionError as error:
    raise DataError(f'{source} is nested too deeply; replace it') from error
  except ValueError as error:
    if isinstance(error, DataError):
      raise
    raise DataError(f'{source} is no JSON: {error}') from error
