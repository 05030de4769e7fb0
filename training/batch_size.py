"""The largest batch that fits into a GPU's memory (--batch_size auto), found by steps on made-up images."""
import concurrent.futures
import functools
import gc
import typing

import tensorflow.compat.v1 as tf

from training import run_config
from training.tf_estimator import ModeKeys
from utils import devices, failures, workers
from utils.errors import UsageError

_KEPT_FREE = 0.1  # of the batch that fits: validation of whole images needs memory beside it
_LIMIT = 1024


def largest_on_gpu(model_fn: typing.Callable, params: dict[str, typing.Any],
                   make_batches: typing.Callable[[int], tf.data.Dataset]) -> int:
  """Returns the images a step that fit on one GPU, reduced by 10 %; a process of its own tries them.

  Args:
    model_fn: an Estimator's, at the top level of a module.
    params: those of the model_fn, and seed and xla.
    make_batches: returns the batches of a size; at the top level of a module, or a functools.partial of one.

  Raises:
    UsageError: not even 2 images fit, or the machine's memory is too small to try.
  """
  with workers.Pool(1) as pool:
    try:
      return pool.submit(largest, functools.partial(fits, model_fn, params, make_batches)).result()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise UsageError('--batch_size auto: the process that tries sizes was killed, maybe for want of the '
                       "machine's own memory; give a number") from error


def largest(fits: typing.Callable[[int], bool]) -> int:
  """Returns the largest int for which fits(int) is True, found to within 1/8, then reduced by a tenth.

  Args:
    fits: once False, it is False for all larger ones.

  Raises:
    UsageError: not even 2 images fit.
  """
  if not fits(2):
    raise UsageError("--batch_size auto: not even 2 images fit into the GPU's memory; end other processes "
                     'that hold it (nvidia-smi lists them), or give a smaller --crop_size, or --recompute')
  low = 2
  while low < _LIMIT and fits(2 * low):
    low *= 2
  high = min(2 * low, _LIMIT + 1)  # does not fit, or is not asked for
  while high - low > max(1, low // 8):
    middle = (low + high) // 2
    low, high = (middle, high) if fits(middle) else (low, middle)
  return max(2, int(low * (1 - _KEPT_FREE)))


def fits(model_fn: typing.Callable, params: dict[str, typing.Any],
         make_batches: typing.Callable[[int], tf.data.Dataset], batch_size: int) -> bool:
  """Returns whether two training steps of so many images stay within memory, and prints it."""
  gc.collect()  # what the last session held is free once it is gone
  try:
    # The piecewise policy has its rates from the batch size.
    _train(model_fn, {**params, 'batch_size': batch_size}, make_batches)
  except Exception as error:
    if not failures.is_out_of_memory(error):
      raise
    print(f'--batch_size {batch_size} does not fit', flush=True)
    return False
  print(f'--batch_size {batch_size} fits', flush=True)
  return True


def _train(model_fn, params, make_batches):
  """Runs two training steps."""
  devices.limit(1)
  config = run_config.run_config(params['seed'], xla=params['xla']).session_config
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    tf.set_random_seed(params['seed'])  # see devices.cpu_session
    tf.train.get_or_create_global_step()
    batch = tf.data.make_one_shot_iterator(make_batches(params['batch_size'])).get_next()
    step = model_fn(*batch, ModeKeys.TRAIN, params).train_op
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    session.run(step)
    session.run(step)
