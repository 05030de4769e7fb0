"""The hook of a training: at each step it looks at the loss, writes summaries, saves, evaluates and stops.

In this order, so that nothing is saved of a step whose loss is not finite, and the event file holds the
points of all steps that a checkpoint has behind it. All rounds run in one session, whose graph is built,
optimised and filled with values only once.
"""
import dataclasses
import time
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from training import checkpoint_store, summaries
from utils import failures
from utils.errors import DataError, UsageError

_MOST_NAMES = 100  # of images, in a message
_WATCHED = 'watched'  # the graph's collection of what each replica lets the hook look at


def watch(loss, learning_rate, pictures=None):
  """Makes these tensors of a model_fn the ones that TrainingHook looks at, or writes.

  Args:
    loss, learning_rate: float scalars.
    pictures: uint8 [n, H, W, 3] for TensorBoard, or None.
  """
  tf.add_to_collection(_WATCHED, (loss, learning_rate, pictures))


@dataclasses.dataclass(frozen=True)
class Plan:
  """When a training writes what.

  Attributes:
    model_dir: str.
    is_end: function of a global step, whether a round ends there: then it saves and evaluates.
    save_seconds, save_steps: int; it also saves so long after the last time, and at multiples of so many
      steps; 0 is never.
    keep_max: int, newest checkpoints to keep; 0 keeps all.
    summary_steps: int; the steps 1, 1 + summary_steps and so on, of all runs together, write scalars and
      pictures.
    first: int, the global step that the training goes on from.
    writes: bool, whether this process writes at all; of several machines one does.
    images_per_step: int.
    told: tf.Summary of what the run was told, written when it begins; or None.
  """
  model_dir: str
  is_end: typing.Callable[[int], bool]
  save_seconds: int = 0
  save_steps: int = 0
  keep_max: int = 5
  summary_steps: int = 100
  first: int = 0
  writes: bool = True
  images_per_step: int = 1
  told: tf.Summary | None = None


class TrainingHook(tf.train.SessionRunHook):
  """See the module.

  Attributes:
    step: int, the global step.
    saved: str, the prefix of the checkpoint that holds it, or None.
    stopping: bool, whether it has asked the session to stop.
  """

  def __init__(self, plan, make_saver, requests, evaluate, names_of_batch, resumed_from=None):
    """Args:
      plan: Plan.
      make_saver: function that returns the Saver with which the session restores, and this hook saves.
      requests: interrupts.Requests.
      evaluate: function of a step and its checkpoint; returns whether training is to stop early.
      names_of_batch: function of a step that returns the names of the examples it was trained on.
      resumed_from: str, the checkpoint that the session restores, or None.
    """
    self._plan, self._make_saver, self._requests = plan, make_saver, requests
    self._evaluate, self._names_of_batch = evaluate, names_of_batch
    self.saved, self._last_good = resumed_from, resumed_from
    self.stopping = False

  def begin(self):  # now the graph holds every variable
    self._saver = self._make_saver()
    tf.get_collection_ref(tf.GraphKeys.SAVERS)[:] = [self._saver]
    self._global_step = tf.train.get_global_step()
    # Variables get their values together, so one of them tells whether they have. TensorFlow would ask each,
    # again and again, which takes a second of every start.
    ready = tf.report_uninitialized_variables([self._global_step])
    for key in (tf.GraphKeys.READY_OP, tf.GraphKeys.READY_FOR_LOCAL_INIT_OP):
      tf.add_to_collection(key, ready)
    losses, rates, pictures = zip(*tf.get_collection(_WATCHED), strict=True)
    self._watched = {'loss': losses, 'learning_rate': rates[:1]}
    self._pictures = [images for images in pictures[:1] if images is not None]  # of the first replica
    self._summary = tf.summary.merge_all() if self._plan.writes else None

  def after_create_session(self, session, coord):
    self.step = int(session.run(self._global_step))
    if self.step != self._plan.first:  # one of several machines was faster than the one that writes
      raise UsageError(f'the session is at step {self.step} and not at {self._plan.first}; start all '
                       'machines again')
    self._requests.deferring = True  # from here on there is something to finish
    self._saved_at = self._summed_at = time.monotonic()
    self._summed_step = self.step
    if self._plan.writes:
      self._writer = tf.summary.FileWriterCache.get(self._plan.model_dir)
      if self._plan.told is not None:
        self._writer.add_summary(self._plan.told, self.step)

  def before_run(self, run_context):
    due = self._plan.writes and self._summary is not None and self.step % self._plan.summary_steps == 0
    written = {'summary': self._summary, 'pictures': self._pictures} if due else {}
    return tf.train.SessionRunArgs({**self._watched, **written})

  def after_run(self, run_context, run_values):
    try:
      self._look(run_context, run_values)
    except tf.errors.OutOfRangeError as error:  # as of a limit of file sizes; a session thinks the data end
      known = failures.explain(error, '')
      raise (known if known is not error else RuntimeError(str(error))) from error

  def _look(self, run_context, run_values):
    self.step += 1
    self.saved = None
    rate, = run_values.results['learning_rate']
    for loss in run_values.results['loss']:
      if not np.isfinite(loss):
        raise self._diverged(f'the loss of step {self.step} is {loss}', rate)
    if not self._plan.writes:
      return
    if 'summary' in run_values.results:
      self._write_summary(run_values)
    self.stopping = self._requests.signal is not None
    if self.stopping or self._is_due():
      self._save(run_context.session, rate)
    if self._plan.is_end(self.step) and not self.stopping:
      with self._requests.at_once():  # the step is saved, and an evaluation can be made again
        self.stopping = self._evaluate(self.step, self.saved)
      self._saved_at = time.monotonic()  # an evaluation may take longer than --save_checkpoints_secs
    if self.stopping:
      run_context.request_stop()

  def end(self, session):
    self._requests.deferring = False
    if self._plan.writes:
      self._writer.flush()

  def _is_due(self):
    plan = self._plan
    return (plan.is_end(self.step) or (plan.save_steps and self.step % plan.save_steps == 0)
            or (plan.save_seconds and time.monotonic() - self._saved_at >= plan.save_seconds))

  def _write_summary(self, run_values):
    now = time.monotonic()
    speed = (self.step - self._summed_step) / max(now - self._summed_at, 1e-9)
    scalars = {'global_step/sec': speed, 'images_per_second': speed * self._plan.images_per_step}
    self._writer.add_summary(run_values.results['summary'], self.step)
    self._writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=tag, simple_value=value)
                                               for tag, value in scalars.items()]), self.step)
    for images in run_values.results['pictures']:
      self._writer.add_summary(summaries.pictures('images', images), self.step)
    self._summed_at, self._summed_step = now, self.step

  def _save(self, session, rate):
    self._writer.flush()
    try:
      self.saved = checkpoint_store.save(self._saver, session, self._plan.model_dir, self.step,
                                         self._plan.keep_max)
    except checkpoint_store.NotFinite as error:
      raise self._diverged(f'after step {self.step} {error}', rate) from error
    self._last_good = self.saved
    self._saved_at = time.monotonic()

  def _diverged(self, what, rate):
    """Returns the DataError of a training whose loss or weights are not finite any more."""
    kept = (f'nothing of it was saved, and {self._last_good} is the last good checkpoint' if self._last_good
            else 'nothing was saved yet')
    names = self._names_of_batch(self.step)
    others = f' and {len(names) - _MOST_NAMES} others' if len(names) > _MOST_NAMES else ''
    return DataError(
        f'{what}, at the learning rate {rate:.3g}; {kept}. The step was trained on '
        f'{", ".join(names[:_MOST_NAMES])}{others}. Lower --initial_learning_rate, give a larger '
        '--batch_size, --freeze_batch_norm with a pre-trained model, or look at these images')
