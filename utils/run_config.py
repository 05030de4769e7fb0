"""How a session runs: its RunConfig, and the hooks that tell the user how far it is."""
import os
import time

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tqdm import tqdm

from utils.errors import UsageError
from utils.tf_estimator import RunConfig

# What --precision says convolutions compute in.
DTYPES = {'fp32': tf.float32, 'fp16': tf.float16, 'bf16': tf.bfloat16}


def run_config(seed=None, save_summary_steps=100, xla=False, strategy=None):
  """Returns the RunConfig of all scripts.

  Args:
    seed: int, of new weights and of every random operation, or None.
    save_summary_steps: int, steps between two event-file entries.
    xla: bool, compile clusters of operations.
    strategy: tf.distribute.Strategy that trains, or None.
  """
  tf.logging.set_verbosity(tf.logging.ERROR)  # the scripts print what matters themselves
  session_config = tf.ConfigProto(allow_soft_placement=True)
  session_config.gpu_options.allow_growth = True
  # TensorFlow optimises a graph once for every set of tensors that is fetched. A second pass over the whole
  # network takes as long as the first, seconds each time, and steps are no faster for it.
  session_config.graph_options.rewrite_options.meta_optimizer_iterations = RewriterConfig.ONE
  if xla:
    session_config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    flags = os.environ.get('TF_XLA_FLAGS', '')
    os.environ['TF_XLA_FLAGS'] = flags + ' --tf_xla_cpu_global_jit'  # without it XLA leaves the CPU out
  return RunConfig(tf_random_seed=seed, save_summary_steps=save_summary_steps, session_config=session_config,
                   log_step_count_steps=save_summary_steps, train_distribute=strategy)


def check_precision(precision):
  """Raises UsageError for a precision that the devices here cannot train in."""
  if precision == 'fp16' and not tf.config.list_physical_devices('GPU'):
    raise UsageError('--precision fp16 needs a GPU, and TensorFlow sees none; give bf16 or fp32')


def mirrored(num_gpus):
  """Returns the strategy by which several GPUs of this machine share each batch; None for one device."""
  if num_gpus == 1:
    return None
  return tf.distribute.MirroredStrategy([f'/gpu:{index}' for index in range(num_gpus)])


class ProgressHook(tf.train.SessionRunHook):
  """Prints a line every few steps: step, the given scalars, images/s and the time left.

    step 120/30358  loss 2.345  learning_rate 0.00654  12.3 images/s  0:41:07 left

  The scalars are fetched at these steps alone.
  """

  def __init__(self, scalars, batch_size, last_step, every_n_steps=10):
    """Args: scalars, dict of name to scalar tensor; batch_size; last_step of the whole training."""
    self._scalars = scalars
    self._batch_size = batch_size
    self._last_step = last_step
    self._every = every_n_steps

  def begin(self):
    self._global_step = tf.train.get_global_step()

  def after_create_session(self, session, coord):
    self._step = self._first = self._shown = session.run(self._global_step)
    self._seconds = 0  # since the last line, in steps alone: not saving, not evaluating

  def before_run(self, run_context):
    self._begun = time.time()
    due = (self._step + 1) % self._every == 0 or self._step == self._first
    return tf.train.SessionRunArgs(self._scalars) if due else None

  def after_run(self, run_context, run_values):
    self._step += 1
    self._seconds += time.time() - self._begun
    if not run_values.results:
      return
    line = [f'step {self._step}/{self._last_step}']
    line += [f'{name} {_short(value)}' for name, value in run_values.results.items()]
    if self._step > self._first + 1:  # the first step also pays for the start
      rate = (self._step - self._shown) / max(self._seconds, 1e-9)
      line.append(f'{rate * self._batch_size:.2f} images/s')
      line.append(f'{duration((self._last_step - self._step) / rate)} left')
    print('  '.join(line), flush=True)
    self._shown, self._seconds = self._step, 0


class RoundHook(tf.train.CheckpointSaverHook):
  """Saves a checkpoint at the end of each round and every ten minutes, and evaluates after each round.

  All rounds run in one session, whose graph is built, optimised and filled with values only once.
  """

  def __init__(self, model_dir, ends, evaluate, saving):
    """Args: model_dir; ends, global steps at which rounds end; evaluate, a function of the step; saving, a
    function that returns the tf.train.Saver of all variables.
    """
    super().__init__(model_dir, save_secs=600, save_graph_def=False)
    self._ends = frozenset(ends)
    self._evaluate = evaluate
    self._saving = saving

  def begin(self):
    super().begin()
    self._saver = self._saving()  # now that the graph holds every variable
    tf.get_collection_ref(tf.GraphKeys.SAVERS)[:] = [self._saver]  # where the session finds it to restore

  def after_create_session(self, session, coord):
    # TensorFlow's own hook would save here too: what has just been restored, or nothing worth keeping. The
    # event file already holds the graph.
    self._step = session.run(self._global_step_tensor)
    self._timer.update_last_triggered_step(self._step)

  def before_run(self, run_context):
    return None  # the parent would fetch the step

  def after_run(self, run_context, run_values):
    self._step += 1
    if self._step in self._ends or self._timer.should_trigger_for_step(self._step):
      self._timer.update_last_triggered_step(self._step)
      self._save(run_context.session, self._step)
    if self._step in self._ends:
      self._evaluate(self._step)


class ProgressBarHook(tf.train.SessionRunHook):
  """A progress bar over the session's runs, on stderr."""

  def __init__(self, total, title):
    self._bar = tqdm(total=total, desc=title, unit='image')

  def after_run(self, run_context, run_values):
    self._bar.update()

  def end(self, session):
    self._bar.close()


def duration(seconds):
  """Returns seconds as h:mm:ss."""
  seconds = int(round(seconds))
  return f'{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'


def _short(value):
  return f'{value:.3g}' if abs(value) < 0.1 else f'{value:.4f}'
