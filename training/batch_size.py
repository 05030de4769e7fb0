"""The largest batch that fits into a GPU's memory (--batch_size auto), found by steps on made-up images.

A process measures what steps of two sizes take, a line through both says what fits, and another process
checks it: each start of TensorFlow and each new size, whose kernels it times, takes up to a minute. If
TensorFlow does not tell what memory is used, sizes are tried one after the other.
"""
import concurrent.futures
import contextlib
import functools
import gc
import typing

import tensorflow.compat.v1 as tf

from training import run_config
from training.tf_estimator import ModeKeys
from utils import devices, failures, workers
from utils.errors import UsageError

_MEASURED = (2, 4)  # batch norm wants more than one image
_KEPT_FREE = 0.1  # of the batch that fits: validation of whole images needs memory beside it
_LIMIT = 1024
_CHECKS = 3  # of what the line says, each of an eighth less, before all sizes are tried


class Measured(typing.NamedTuple):
  """What training steps take.

  Attributes:
    used: dict of the images a step to bytes, of those that fit.
    limit: int, the bytes that the GPU's allocator can have, or None if `used` is empty.
  """
  used: dict[int, int]
  limit: int | None


def largest_on_gpu(model_fn: typing.Callable, params: dict[str, typing.Any],
                   make_batches: typing.Callable[[int], tf.data.Dataset]) -> int:
  """Returns the images a step that fit on one GPU, less a tenth; each try has a process of its own.

  Args:
    model_fn: an Estimator's, at the top level of a module.
    params: those of the model_fn, and seed and xla.
    make_batches: returns the batches of a size; at the top level of a module, or a functools.partial of one.

  Raises:
    UsageError: not even 2 images fit.
  """
  fits = functools.partial(_fits, model_fn, params, make_batches)
  measured = _in_child(measure, model_fn, params, make_batches)
  if measured is None:
    return largest(fits)
  if not measured.used or measured.limit is None:
    raise _too_little()
  print('--batch_size auto: ' + ', '.join(
      f'{size} images take {used / 2**30:.2f} GiB' for size, used in measured.used.items())
        + f'; there are {measured.limit / 2**30:.2f} GiB', flush=True)
  if len(measured.used) < len(_MEASURED):
    return max(measured.used)
  size = predicted(measured)
  if size is None:
    return largest(fits)
  if size in measured.used or fits(size):
    return size
  for _ in range(_CHECKS - 1):  # the line was wrong, and so is the tenth that it left free
    size = max(_MEASURED[0], size * 7 // 8)
    if size in measured.used or fits(size):
      return max(_MEASURED[0], int(size * (1 - _KEPT_FREE)))
  return largest(fits)


def predicted(measured: Measured) -> int | None:
  """Returns the batch size, at least 2, that takes nine tenths of the largest one's images.

  That is where the line through two measurements reaches the limit: if 2 images take 3 GB and 4 take 4 GB of
  10 GB, an image takes 0.5 GB and 16 fit; 14 are returned. Returns None if memory does not grow.

  Args:
    measured: of two sizes.
  """
  assert measured.limit is not None, 'two sizes fitted'
  (few, little), (many, much) = sorted(measured.used.items())
  each = (much - little) / (many - few)
  if each <= 0:
    return None
  fitting = few + (measured.limit - little) / each
  return max(_MEASURED[0], min(_LIMIT, int(fitting * (1 - _KEPT_FREE))))


def largest(fits: typing.Callable[[int], bool]) -> int:
  """Returns the largest int for which fits(int) is True, to an eighth of it, less a tenth.

  Args:
    fits: once False, it is False for all larger ones.

  Raises:
    UsageError: not even 2 images fit.
  """
  if not fits(2):
    raise _too_little()
  low = 2
  while low < _LIMIT and fits(2 * low):
    low *= 2
  high = min(2 * low, _LIMIT + 1)  # does not fit, or is not asked for
  while high - low > max(1, low // 8):
    middle = (low + high) // 2
    low, high = (middle, high) if fits(middle) else (low, middle)
  return max(2, int(low * (1 - _KEPT_FREE)))


def _too_little():
  return UsageError("--batch_size auto: not even 2 images fit into the GPU's memory; end other processes "
                    'that hold it (nvidia-smi lists them), or give a smaller --crop_size, or --recompute')


def _fits(model_fn, params, make_batches, batch_size):
  """Returns whether steps of so many images stay within memory, and prints it."""
  fitted = bool(_in_child(trains, model_fn, params, make_batches, batch_size))
  print(f'--batch_size {batch_size} {"fits" if fitted else "does not fit"}', flush=True)
  return fitted


def _in_child(function, *args):
  """Returns function(*args), called in a new process; None if that was killed, as for the host's memory."""
  with workers.Pool(1) as pool:
    try:
      return pool.submit(function, *args).result()
    except concurrent.futures.process.BrokenProcessPool:
      return None


# --- In the process of a try ---------------------------------------------------------------------


def measure(model_fn: typing.Callable, params: dict[str, typing.Any],
            make_batches: typing.Callable[[int], tf.data.Dataset]) -> Measured | None:
  """Returns Measured of the sizes of _MEASURED, up to the first that does not fit; None if nothing tells."""
  used, limit = {}, None
  for batch_size in _MEASURED:
    gc.collect()  # what the last session held is free once it is gone
    try:
      with contextlib.suppress(_NoMemory):
        used[batch_size], limit = _memory_of(model_fn, params, make_batches, batch_size)
    except (ValueError, KeyError):  # there is no GPU, or its allocator does not count
      return None
    if batch_size not in used:
      break
  return Measured(used, limit)


def _memory_of(model_fn, params, make_batches, batch_size):
  """Returns the most bytes that training steps take, and those that the GPU's allocator can have.

  Raises:
    ValueError, KeyError: TensorFlow does not say.
    _NoMemory: they do not fit.
  """
  memory = tf.config.experimental
  with _training(model_fn, params, make_batches, batch_size) as (session, run):
    limits = [device.memory_limit_bytes for device in session.list_devices() if device.device_type == 'GPU']
    if not limits:
      raise ValueError('no GPU')
    run()  # times kernels, and takes more for it if there is more
    memory.reset_memory_stats('GPU:0')
    run()
    run()
    return memory.get_memory_info('GPU:0')['peak'], limits[0]


def trains(model_fn: typing.Callable, params: dict[str, typing.Any],
           make_batches: typing.Callable[[int], tf.data.Dataset], batch_size: int) -> bool:
  """Returns whether two training steps of so many images stay within memory."""
  with contextlib.suppress(_NoMemory), _training(model_fn, params, make_batches, batch_size) as (_, run):
    run()
    run()
    return True
  return False


class _NoMemory(Exception):
  pass


@contextlib.contextmanager
def _training(model_fn, params, make_batches, batch_size):
  """A context of a session and a function that runs a step in it; raises _NoMemory if memory runs out."""
  devices.limit(1)
  config = run_config.run_config(params['seed'], xla=params['xla']).session_config
  params = {**params, 'batch_size': batch_size}  # from which the piecewise policy has its rates
  try:
    with tf.Graph().as_default(), tf.Session(config=config) as session:
      tf.set_random_seed(params['seed'])  # see devices.cpu_session
      tf.train.get_or_create_global_step()
      batch = tf.data.make_one_shot_iterator(make_batches(batch_size)).get_next()
      step = model_fn(*batch, ModeKeys.TRAIN, params).train_op
      session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
      yield session, functools.partial(session.run, step)
  except Exception as error:
    if not failures.is_out_of_memory(error):
      raise
    raise _NoMemory from None

