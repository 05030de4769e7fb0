"""What a failed session, or a failed write, means to the user: the one home of these sentences.

TensorFlow, Python and the operating system report one cause in many ways: a full disk is an OSError, or a
ResourceExhaustedError, as is a GPU whose memory ran out. `explaining` tells them apart and ends with one
sentence: what failed, where, and what to do. What it does not know is left as it is: a defect of ours.
"""
import contextlib
import errno
import os
import re
import sys
import typing

from utils.errors import DataError, UsageError

LOST_MACHINE = ('another machine of TF_CONFIG has stopped or cannot be reached any more; see what it '
                'printed, and start all of them again: training goes on from the last checkpoint')

# What stands between these in the message of a TensorFlow error is a sentence for the user.
SENTENCE_BEGIN, SENTENCE_END = '<<<', '>>>'

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PERMISSIONS = 'check who owns it and what its permissions are, or give another'
_ADVICE = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EROFS: 'its file system can only be read; give another place',
    errno.EMFILE: 'too many files are open; raise the limit by ulimit -n 4096',
}
# TensorFlow's "<path>; <reason>", also within longer messages.
_REASONS = {os.strerror(number): number for number in errno.errorcode}
_FAILED_PATH = re.compile(rf'^(?:\w+Error: )?([^\n]*); ({"|".join(map(re.escape, _REASONS))})$', re.MULTILINE)
_OUT_OF_MEMORY = re.compile(
    'OOM when allocating|[Ff]ailed to alloc|Unable to allocate|[Oo]ut of memory|OUT_OF_MEMORY|MemoryError|'
    '_STATUS_(ALLOC_FAILED|NOT_INITIALIZED|INTERNAL_ERROR)|RESOURCE_EXHAUSTED|std::bad_alloc|'
    "No algorithm worked|Dst tensor is not initialized|[Cc]reate cu\\w+ handle|library initialization failed|"
    "cuDNN failed to initialize|Blas \\w+ launch failed|can't start new thread")
_UNFIT_DRIVER = re.compile('UNSUPPORTED_PTX_VERSION|INVALID_PTX|NO_BINARY_FOR_GPU|INSUFFICIENT_DRIVER|'
                           'no kernel image is available|CUDA_ERROR_INVALID_HANDLE')
_MISSING_CHECKPOINT = re.compile(
    r'(?:matching files for|not a valid checkpoint:|NewCheckpointReader: ?)\s*([^\n]+)')
_CHECKPOINT_FILE = re.compile(r'\.(index|data-\d{5}-of-\d{5})$|\.ckpt(-\d+)?$')

FindBad = typing.Callable[[], DataError | None]


@contextlib.contextmanager
def explaining(memory_advice: str, find_bad_example: FindBad | None = None) -> typing.Iterator[None]:
  """Within it, what fails for a reason outside the program ends as a UsageError or a DataError.

  Args:
    memory_advice: what to do if memory runs out, such as 'give a smaller --batch_size'.
    find_bad_example: returns the DataError of a bad example. It may be slow: it is called after errors that
      bad data can cause, and nothing else explains.
  """
  try:
    yield
  except Exception as error:
    explained = explain(error, memory_advice, find_bad_example)
    if explained is error:
      raise
    raise explained from error


def explain(error: Exception, memory_advice: str, find_bad_example: FindBad | None = None) -> Exception:
  """Returns what a failure means, a UsageError or DataError, or the error itself: see explaining."""
  if isinstance(error, UsageError | DataError | BrokenPipeError):
    return error
  text, kind = _text(error), _op_error_kind(error)
  if sentence := error_sentence(text):
    return DataError(sentence)
  if known := _failed_file(error, text):
    return known
  if is_out_of_memory(error):
    why = f' ({first_line(error)})' if text else ''
    return UsageError(f'the memory is not enough, or other programs hold it{why}; {memory_advice}')
  if kind and (found := _UNFIT_DRIVER.search(text)):
    return UsageError(
        f"TensorFlow's code does not fit the GPU or its driver ({found[0]}); install a newer driver (555 "
        "or later for TensorFlow 2.18 to 2.21), or take NVIDIA's container: see docs/gpu.md")
  if kind == 'UnavailableError':
    return UsageError(LOST_MACHINE)
  # TensorFlow quotes what it cannot parse, and Python then fails to decode the message.
  if find_bad_example and (kind in ('InvalidArgumentError', 'DataLossError', 'OutOfRangeError')
                           or isinstance(error, UnicodeDecodeError)):
    with contextlib.suppress(Exception):  # the files may have changed meanwhile; the first error counts
      if bad := find_bad_example():
        return bad
  if kind == 'DataLossError':
    return DataError(f'a file that was read is damaged ({first_line(error)}); restore it from a backup, or '
                     'write it again')
  return error


def error_sentence(message: str) -> str | None:
  """Returns the sentence for the user in the message of a TensorFlow error, or None."""
  # To the last end before another sentence: a name of a file may hold one.
  found = re.search(f'{SENTENCE_BEGIN}((?:(?!{SENTENCE_BEGIN}).)*){SENTENCE_END}', message, re.DOTALL)
  # TensorFlow's assertions print quotation marks and backslashes with a backslash before them.
  return found and re.sub(r'\\(.)', r'\1', found[1])


def is_full_disk(error: Exception) -> bool:
  """Returns whether the disk, a quota or a limit of file sizes left no room for what was written."""
  return _errno_and_path(error)[0] in _FULL_DISK


def is_out_of_memory(error: Exception) -> bool:
  """Returns whether memory, of a GPU or of the host, ran out; in whatever way that was reported."""
  kind, number = _op_error_kind(error), _errno_and_path(error)[0]
  if number is not None:
    return number == errno.ENOMEM
  if isinstance(error, MemoryError) or kind == 'ResourceExhaustedError':
    return True
  if kind in ('UnavailableError', 'AbortedError', 'CancelledError'):
    return False  # of another machine, whose RPC says RESOURCE_EXHAUSTED of its own limits too
  # RuntimeError and SystemError carry what C++ reported to Python.
  return bool((kind or isinstance(error, RuntimeError | SystemError)) and _OUT_OF_MEMORY.search(_text(error)))


def _failed_file(error, text):
  """Returns the DataError of a file that could not be read or written, or None."""
  number, path = _errno_and_path(error)
  missing = _MISSING_CHECKPOINT.search(text)
  if missing or number == errno.ENOENT and path and _CHECKPOINT_FILE.search(path):
    name = missing[1] if missing else path
    return DataError(f"checkpoint file '{name}' is not there any more; a training that goes on removes old "
                     'checkpoints: start again, or let it keep more by its --keep_checkpoint_max')
  if number is None or number == errno.ENOMEM:
    return None
  what, reason = f"'{path}'" if path else 'a file', getattr(error, 'strerror', None) or os.strerror(number)
  if number in _FULL_DISK:
    folder = os.path.dirname(path) if path else ''
    folder = f"in '{folder}'" if folder else 'to write to'
    return DataError(f'no space is left {folder} ({reason}: {what}); what was complete before is kept. Free '
                     'some, or raise the quota or the limit of file sizes, and start again')
  return DataError(f'{what} cannot be used ({reason}); '
                   + _ADVICE.get(number, 'check the path, and that it stays as it is while this runs'))


def _errno_and_path(error):
  """Returns the number and the path of a failure of the operating system; each may be None."""
  if isinstance(error, OSError):
    path = error.filename2 or error.filename  # of a renaming, the new name
    return error.errno, os.fsdecode(path) if isinstance(path, (str, bytes)) else None
  # What C++ reports to Python directly, as the writer of event files does, becomes an error of Python's own.
  is_of_c = _op_error_kind(error) or isinstance(error, (RuntimeError, IndexError, ValueError, KeyError))
  found = is_of_c and _FAILED_PATH.search(_text(error))
  return (_REASONS[found[2]], found[1]) if found else (None, None)


def _op_error_kind(error):
  """Returns the name of the class of a TensorFlow error, or None if it is none."""
  # Whoever raised one has imported TensorFlow; other scripts do without it, also in the end.
  errors = getattr(sys.modules.get('tensorflow'), 'errors', None)
  return type(error).__name__ if errors and isinstance(error, errors.OpError) else None


def _text(error):
  return str(getattr(error, 'message', None) or error)


def first_line(error: BaseException) -> str:
  """Returns what an error says, without TensorFlow's places in the program and the graph."""
  lines = [line.strip() for line in _text(error).splitlines() if line.strip()] or ['no message']
  node = next((index for index, line in enumerate(lines) if line.startswith('Node: ')), -1)
  skipped = ('Graph execution error', 'Detected at', 'File "', '[[')
  return next((line for line in lines[node + 1:] if not line.startswith(skipped)), lines[0])
