"""The largest batch that fits into a GPU's memory (--batch_size auto), found by steps on made-up images."""
import concurrent.futures
import multiprocessing

from utils.errors import UsageError

_KEPT_FREE = 0.1  # of the batch that fits: validation of whole images needs memory beside it
_LIMIT = 1024


def largest(fits):
  """Returns the largest int for which fits(int) is True, to an eighth of it, less a tenth.

  Args:
    fits: function of an int; once False, it is False for all larger ones.

  Raises:
    UsageError: not even 2 images fit (batch norm wants more than one).
  """
  if not fits(2):
    raise UsageError('--batch_size auto: not even 2 images fit into memory; give a smaller --crop_size, or '
                     '--recompute')
  low = 2
  while low < _LIMIT and fits(2 * low):
    low *= 2
  high = min(2 * low, _LIMIT + 1)  # does not fit, or is not asked for
  while high - low > max(1, low // 8):
    middle = (low + high) // 2
    low, high = (middle, high) if fits(middle) else (low, middle)
  return max(2, int(low * (1 - _KEPT_FREE)))


def largest_on_gpu(model_fn, params):
  """Returns the images a step that fit on one GPU, each tried by a process of its own.

  Args:
    model_fn: an Estimator's, at the top level of a module.
    params: dict, those of the model_fn, and num_classes, crop_size, seed and xla.
  """
  def fits(batch_size):
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
      try:
        fitted = pool.submit(trains, model_fn, params, batch_size).result()
      except concurrent.futures.process.BrokenProcessPool:  # killed, as for too much of the host's memory
        fitted = False
    print(f'--batch_size {batch_size} {"fits" if fitted else "does not fit"}', flush=True)
    return fitted

  return largest(fits)


def trains(model_fn, params, batch_size):
  """Returns whether two training steps of so many images stay within memory."""
  import tensorflow.compat.v1 as tf

  from utils import failures, inputs, run_config
  from utils.tf_estimator import ModeKeys

  config = run_config.run_config(params['seed'], xla=params['xla']).session_config
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    tf.train.get_or_create_global_step()
    batch = tf.data.make_one_shot_iterator(inputs.synthetic_dataset(
        batch_size, params['crop_size'], params['num_classes'])).get_next()
    step = model_fn(*batch, ModeKeys.TRAIN, params).train_op
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    try:
      for _ in range(2):
        session.run(step)
    except Exception as error:
      if not failures.is_out_of_memory(error):
        raise
      return False
  return True
