"""How a session runs: its RunConfig, and the hooks that tell the user how far it is."""
import os
import time

import numpy as np
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
    save_summary_steps: int, steps between two event-file entries; 0 writes none.
    xla: bool, compile clusters of operations.
    strategy: tf.distribute.Strategy that trains and, on one machine, evaluates; or None.
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
                   log_step_count_steps=save_summary_steps or None, train_distribute=strategy,
                   eval_distribute=strategy if isinstance(strategy, tf.distribute.MirroredStrategy) else None,
                   save_checkpoints_secs=None)  # RoundHook saves


def compute_params(precision, data_format):
  """Returns the model_fn's params of --precision and --data_format.

  Args:
    precision: str, a name in DTYPES.
    data_format: str, or None for what suits the device and the precision: tensor cores take half precision
      channels last, GPUs are faster in float32 channels first, and CPUs know but channels last.

  Raises:
    UsageError: the devices here cannot do it.
  """
  gpus = tf.config.list_physical_devices('GPU')
  if data_format == 'channels_first' and not gpus:
    raise UsageError('--data_format channels_first needs a GPU, and TensorFlow sees none; leave it out')
  suited = 'channels_first' if gpus and precision == 'fp32' else 'channels_last'
  return {'precision': precision, 'data_format': data_format or suited}


def strategy(num_gpus, workers=1):
  """Returns the tf.distribute.Strategy by which devices share each batch, or None for one device.

  Args:
    num_gpus: int, of this machine.
    workers: int, machines; with more than one, each uses all GPUs that it sees.
  """
  if workers > 1:
    tf.disable_eager_execution()  # for which the strategy would start a server at once
    return tf.distribute.experimental.MultiWorkerMirroredStrategy()
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


class SaverHook(tf.train.SessionRunHook):
  """Makes the tf.train.Saver with which the session restores, and RoundHook saves, all variables."""

  def __init__(self, make_saver):
    """Args: make_saver, a function that returns it."""
    self._make_saver = make_saver

  def begin(self):  # now the graph holds every variable
    tf.get_collection_ref(tf.GraphKeys.SAVERS)[:] = [self._make_saver()]
    # Variables get their values together, so one of them tells whether they have. TensorFlow would ask each,
    # again and again, which takes a second of every start.
    ready = tf.report_uninitialized_variables([tf.train.get_global_step()])
    for key in (tf.GraphKeys.READY_OP, tf.GraphKeys.READY_FOR_LOCAL_INIT_OP):
      tf.add_to_collection(key, ready)


class RoundHook(tf.train.CheckpointSaverHook):
  """Saves a checkpoint at the end of each round and every ten minutes, and evaluates after each round.

  All rounds run in one session, whose graph is built, optimised and filled with values only once.
  """

  def __init__(self, model_dir, ends, evaluate):
    """Args: model_dir; ends, global steps at which rounds end; evaluate, a function of the step."""
    super().__init__(model_dir, save_secs=600, save_graph_def=False)
    self._ends = frozenset(ends)
    self._evaluate = evaluate

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
  """A progress bar over images, on stderr; each run of the session does one, or one in every replica."""

  def __init__(self, total, title, replicas=1):
    self._bar = tqdm(total=total, desc=title, unit='image')
    self._replicas = replicas

  def after_run(self, run_context, run_values):
    self._bar.update(min(self._replicas, self._bar.total - self._bar.n))

  def end(self, session):
    self._bar.close()


def duration(seconds):
  """Returns seconds as h:mm:ss."""
  seconds = int(round(seconds))
  return f'{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'


def _short(value):
  if isinstance(value, np.integer):
    return str(value)
  return f'{value:.3g}' if abs(value) < 0.1 else f'{value:.4f}'
