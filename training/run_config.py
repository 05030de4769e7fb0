"""How a session runs: its RunConfig, and the hooks that tell the user how far it is.

Which devices it runs on is utils/devices.py's concern.
"""
import os
import time

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from training.tf_estimator import RunConfig
from utils import devices, progress
from utils.errors import UsageError

# What --precision says convolutions compute in.
DTYPES = {'fp32': tf.float32, 'fp16': tf.float16, 'bf16': tf.bfloat16}


def run_config(seed=1, xla=False, strategy=None):
  """Returns the RunConfig of all scripts. tf.estimator itself then saves neither checkpoints nor scalars.

  Args:
    seed: int, of new weights and of every random operation, which TF_DETERMINISTIC_OPS refuses without one.
    xla: bool, compile clusters of operations on GPUs. For the CPU XLA would want a flag in TF_XLA_FLAGS, and
      then take the functions of the input pipeline too, which it cannot compile.
    strategy: tf.distribute.Strategy that trains and, on one machine, evaluates; or None.
  """
  if not isinstance(strategy, tf.distribute.experimental.MultiWorkerMirroredStrategy):
    # One machine. tf.estimator would read it, and wait for machines that this script does not need.
    os.environ.pop('TF_CONFIG', None)
  session_config = tf.ConfigProto(allow_soft_placement=True)
  session_config.gpu_options.allow_growth = True
  session_config.gpu_options.visible_device_list = devices.visible_device_list()
  # TensorFlow optimises a graph once for every set of tensors that is fetched. A second pass over the whole
  # network takes as long as the first, seconds each time, and steps are no faster for it.
  session_config.graph_options.rewrite_options.meta_optimizer_iterations = RewriterConfig.ONE
  if xla:
    session_config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
  return RunConfig(tf_random_seed=seed, session_config=session_config, train_distribute=strategy,
                   eval_distribute=strategy if isinstance(strategy, tf.distribute.MirroredStrategy) else None,
                   save_checkpoints_secs=None, save_summary_steps=0, log_step_count_steps=None)


def compute_params(precision, data_format, training):
  """Returns the model_fn's params of --precision and --data_format.

  Args:
    precision: str, a name in DTYPES.
    data_format: str, or None for what suits the precision and the devices. Tensor cores take channels last.
      In float32 with a backward pass TensorFlow's own layout optimiser puts channels first. CPUs support
      channels last alone.
    training: bool, whether there is a backward pass.

  Raises:
    UsageError: the devices here cannot do it.
  """
  gpus = devices.taken()
  if data_format == 'channels_first' and not gpus:
    raise UsageError('--data_format channels_first needs a GPU, and TensorFlow sees none; leave it out')
  is_first = gpus and precision == 'fp32' and training
  params = {'precision': precision,
            'data_format': data_format or ('channels_first' if is_first else 'channels_last')}
  if os.environ.get('TF_DETERMINISTIC_OPS', '').lower() in ('1', 'true'):
    params['deterministic'] = True  # as by train.py --deterministic
  return params


def strategy(num_gpus, workers=1, collectives='nccl'):
  """Returns the tf.distribute.Strategy by which devices share each batch, or None for one device.

  Args:
    num_gpus: int, of this machine.
    workers: int, machines; with more than one, each uses all GPUs that it sees.
    collectives: str, nccl or ring, by which the GPUs of several machines sum gradients. Left to itself
      TensorFlow takes its ring over gRPC, through the host's memory. CPUs know nothing else.
  """
  if workers > 1:
    tf.disable_eager_execution()  # for which the strategy would start a server at once
    kinds = tf.distribute.experimental.CollectiveCommunication
    return tf.distribute.experimental.MultiWorkerMirroredStrategy(
        kinds.NCCL if devices.taken() and collectives == 'nccl' else kinds.RING)
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
    for loss in tf.get_collection(tf.GraphKeys.LOSSES):  # the Estimator's: of several machines the mean
      self._scalars = {**self._scalars, 'loss': loss}

  def after_create_session(self, session, coord):
    self._step = self._first = self._shown = session.run(self._global_step)
    self._seconds = 0.  # since the last line, in steps alone: not saving, not evaluating

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
      line.append(f'{progress.duration((self._last_step - self._step) / rate)} left')
    if not progress.quiet:
      print('  '.join(line), flush=True)
    self._shown, self._seconds = self._step, 0


class ProgressBarHook(tf.train.SessionRunHook):
  """Progress over images; each run of the session does one, or one in every replica."""

  def __init__(self, total, title, replicas=1):
    self._progress = progress.Progress(total, title, 'image')
    self._left, self._replicas = total, replicas

  def after_run(self, run_context, run_values):
    done = min(self._replicas, self._left)
    self._left -= done
    self._progress.update(done)

  def end(self, session):
    self._progress.close()


def _short(value):
  if isinstance(value, np.integer):
    return str(value)
  return f'{value:.3g}' if abs(value) < 0.1 else f'{value:.4f}'
