"""What a failed session, or a failed write, means to the user: the one home of these sentences.

TensorFlow, Python and the operating system report one cause in many ways. A full disk is an OSError, or a
ResourceExhaustedError, as is a GPU whose memory ran out; which may also be a NotFoundError ('No algorithm
worked!') or an InternalError (CUDNN_STATUS_ALLOC_FAILED). `explaining` tells them apart and ends with one
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
    errno.EIO: 'the disk or the network share is failing: see the log of the system',
    errno.ESTALE: 'the network share has gone; mount it again',
    errno.EMFILE: 'too many files are open; raise the limit by ulimit -n 4096',
    errno.ENFILE: 'the system has too many files open; end other programs',
    errno.EAGAIN: 'the system allows no further process or thread; end other programs, or raise ulimit -u',
}
# TensorFlow's "<path>; <reason>" and Python's "[Errno 28] <reason>: '<path>'", also within longer messages.
_REASONS = {os.strerror(number): number for number in sorted(errno.errorcode)}
_ANY_REASON = '|'.join(sorted(map(re.escape, _REASONS), key=len, reverse=True))
_FAILED_PATH = re.compile(rf'^(?:\w+Error: )?([^\n]*); ({_ANY_REASON})$', re.MULTILINE)
_FAILED_CALL = re.compile(rf"\[Errno \d+\] ({_ANY_REASON})(?:: '([^\n]*)')?")
_OUT_OF_MEMORY = re.compile(
    'OOM when allocating|[Ff]ailed to alloc|Unable to allocate|[Oo]ut of memory|CUDA_ERROR_OUT_OF_MEMORY|'
    r'RESOURCE_EXHAUSTED|cudaErrorMemoryAllocation|'
    r'CU[A-Z]+_STATUS_(ALLOC_FAILED|NOT_INITIALIZED|INTERNAL_ERROR)|std::bad_alloc|MemoryError|'
    r'Failed to create cu\w+ handle|[Cc]ould not create cu\w+ handle|cuDNN failed to initialize|'
    r'DNN library initialization failed|'
    r'No algorithm worked|Dst tensor is not initialized|Blas \w*GEMM\w* launch failed')
# What a GPU, its driver or a library of NVIDIA's reports; and a driver that cannot take TensorFlow's code.
_OF_GPU = re.compile('CUDA_ERROR_|CUDA error|CUDA runtime|cudaError|CU[A-Z]+_STATUS_|NCCL|'
                     'no kernel image is available')
_UNFIT_DRIVER = re.compile('UNSUPPORTED_PTX_VERSION|INVALID_PTX|NO_BINARY_FOR_GPU|INSUFFICIENT_DRIVER|'
                           'no kernel image is available|SYSTEM_DRIVER_MISMATCH|CUDA_ERROR_INVALID_HANDLE')
_TENSOR = re.compile(r'shape ?\[([\d,]+)\](?:.*?device:(\w+:\d+))?')
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
  """Returns what a failure means to the user, a UsageError or DataError; or the error itself.

  Args:
    memory_advice, find_bad_example: see explaining.
  """
  if isinstance(error, UsageError | DataError | BrokenPipeError):
    return error
  text = _text(error)
  known = (data_error(error) or _failed_file(error, text) or _missing_checkpoint(text)
           or _memory(error, text, memory_advice) or _driver(error, text))
  if known:
    return known
  kind = _op_error_kind(error)
  if kind == 'UnavailableError':
    return UsageError(LOST_MACHINE)
  # TensorFlow quotes what it cannot parse, and Python then fails to decode the message.
  is_of_data = isinstance(error, UnicodeDecodeError) or (
      kind in ('InvalidArgumentError', 'DataLossError', 'OutOfRangeError') and not _OF_GPU.search(text))
  if is_of_data and find_bad_example:
    with contextlib.suppress(Exception):  # the files may have changed meanwhile; the first error counts
      known = find_bad_example()
  if not known and kind == 'DataLossError':
    known = DataError(f'a file that was read is damaged ({_first_line(error)}); restore it from a backup, or '
                      'write it again')
  return known or error


def data_error(error: Exception) -> DataError | None:
  """Returns the DataError of a sentence of ours in a TensorFlow error, or None."""
  sentence = error_sentence(_text(error))
  return DataError(sentence) if sentence else None


def error_sentence(message: str) -> str | None:
  """Returns the sentence for the user in the message of a TensorFlow error, or None."""
  # To the last end before another sentence: a name of a file may hold one.
  found = re.search(f'{SENTENCE_BEGIN}((?:(?!{SENTENCE_BEGIN}).)*){SENTENCE_END}', message, re.DOTALL)
  # TensorFlow's assertions print quotation marks and backslashes with a backslash before them.
  return found and re.sub(r'\\(.)', r'\1', found[1])


def is_full_disk(error: Exception) -> bool:
  """Returns whether the disk, a quota or a limit of file sizes left no room for what was written."""
  return errno_and_path(error)[0] in _FULL_DISK


def is_out_of_memory(error: Exception) -> bool:
  """Returns whether memory, of a GPU or of the host, ran out; in whatever way that was reported."""
  text = _text(error)
  if errno_and_path(error)[0] is not None:
    return errno_and_path(error)[0] == errno.ENOMEM
  if isinstance(error, MemoryError) or _op_error_kind(error) == 'ResourceExhaustedError':
    return True
  if _op_error_kind(error) in ('UnavailableError', 'AbortedError', 'CancelledError'):
    return False  # of another machine, whose RPC says RESOURCE_EXHAUSTED of its own limits too
  # RuntimeError and SystemError carry what C++ reported to Python.
  return bool((_op_error_kind(error) or isinstance(error, RuntimeError | SystemError))
              and _OUT_OF_MEMORY.search(text))


# --- Kinds of failures ---------------------------------------------------------------------------


def _failed_file(error, text):
  """Returns the DataError of a file that could not be read or written, or None."""
  number, path = errno_and_path(error)
  if number is None or number == errno.ENOMEM:
    return None
  what = f"'{path}'" if path else 'a file'
  if 'No usable temporary directory' in text:  # of Python's tempfile
    return DataError('no folder for temporary files can be written to; give a writable one by TMPDIR')
  if number in _FULL_DISK:
    folder = os.path.dirname(path) if path else ''
    folder = f"in '{folder}'" if folder else 'to write to'
    return DataError(f'no space is left {folder} ({os.strerror(number)}: {what}); what was complete before '
                     'is kept. Free some, or raise the quota or the limit of file sizes, and start again')
  if number == errno.ENOENT:
    if path and _CHECKPOINT_FILE.search(path):
      return _gone_checkpoint(path)
    return DataError(f'{what} is not there, or not any more; do not move or remove files while they are used')
  return DataError(f'{what} cannot be used ({os.strerror(number)}); '
                   + _ADVICE.get(number, 'check the path, and that it stays as it is while this runs'))


def _missing_checkpoint(text):
  found = _MISSING_CHECKPOINT.search(text)
  return _gone_checkpoint(found[1]) if found else None


def _gone_checkpoint(path):
  return DataError(f"checkpoint file '{path}' is not there any more; a training that goes on removes old "
                   'checkpoints: start again, or let it keep more by its --keep_checkpoint_max')


def _memory(error, text, advice):
  """Returns the UsageError of memory that ran out, or None."""
  if not is_out_of_memory(error):
    return None
  if tensor := _TENSOR.search(text):
    where = f' of {tensor[2]}' if tensor[2] else ''
    return UsageError(f'the memory{where} is not enough for values of shape {tensor[1].replace(",", "x")}; '
                      f'{advice}')
  sign = _OUT_OF_MEMORY.search(text)
  return UsageError(f'the memory is not enough{f" ({sign[0]})" if sign else ""}, or other programs hold it; '
                    f'{advice}')


def _driver(error, text):
  """Returns the UsageError of a driver that does not fit TensorFlow's code, or None."""
  found = _op_error_kind(error) and _UNFIT_DRIVER.search(text)
  return found and UsageError(
      f"this TensorFlow's code does not fit the GPU or its driver ({found[0]}); install a newer driver (555 "
      "or later for TensorFlow 2.18 to 2.21), or take NVIDIA's container: see docs/gpu.md")


# --- Parts ---------------------------------------------------------------------------------------


def errno_and_path(error: Exception) -> tuple[int | None, str | None]:
  """Returns the number and the path of a failure of the operating system; each may be None."""
  text = _text(error)
  if isinstance(error, OSError):
    path = error.filename2 or error.filename  # of a renaming, the new name
    return error.errno, os.fsdecode(path) if isinstance(path, (str, bytes)) else None
  if text == "can't start new thread":  # a RuntimeError of Python
    return errno.EAGAIN, None
  # What C++ reports to Python directly, as the writer of event files does, becomes an error of Python's own.
  if not (_op_error_kind(error) or isinstance(error, (RuntimeError, IndexError, ValueError, KeyError))):
    return None, None
  if found := _FAILED_PATH.search(text):
    return _REASONS[found[2]], found[1]
  if found := _FAILED_CALL.search(text):  # in a Python function that a session called
    return _REASONS[found[1]], found[2]
  return None, None


def _op_error_kind(error):
  """Returns the name of the class of a TensorFlow error, or None if it is none."""
  # Whoever raised one has imported TensorFlow; other scripts do without it, also in the end.
  errors = getattr(sys.modules.get('tensorflow'), 'errors', None)
  return type(error).__name__ if errors and isinstance(error, errors.OpError) else None


def _text(error):
  return str(getattr(error, 'message', None) or error)


def _first_line(error):
  """Returns what a TensorFlow error says, without the places in the program and the graph."""
  lines = [line.strip() for line in _text(error).splitlines() if line.strip()]
  node = next((index for index, line in enumerate(lines) if line.startswith('Node: ')), -1)
  skipped = ('Graph execution error', 'Detected at', 'File "', '[[')
  return next((line for line in lines[node + 1:] if not line.startswith(skipped)), lines[0] if lines else '')
