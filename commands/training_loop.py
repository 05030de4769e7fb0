"""A training: it trains and evaluates round by round, and keeps the best (train.py)."""
import contextlib
import dataclasses
import functools
import os
import shlex
import sys

import numpy as np
import tensorflow.compat.v1 as tf

from commands import confusion_picture, flags, training_folder, training_plan
from dataset import inputs, tf_records
from deeplab_model import deeplabv3_plus_model_fn
from nets import backbones
from training import checkpoints, cluster, interrupts, run_config, summaries, training_hooks
from training.tf_estimator import Estimator, LocalCLIDebugHook, run_in_cluster
from utils import devices, environment, failures, scores
from utils.errors import DataError, UsageError


@contextlib.contextmanager
def stopping():
  """Within it signals are the interrupts.Requests that it yields; one of them sets the status of the end."""
  requests = interrupts.Requests()
  try:
    with requests.catching():
      yield requests
  except interrupts.Interrupted:
    say_stopped(requests)
  if requests.signal:
    sys.exit(requests.status)


def say_stopped(requests):
  print(f'Stopped by {requests.signal.name}; all that was trained is saved, and the same command goes on '
        'from there', flush=True)


def lose(task, requests):
  """Ends the process, from a thread: the main one may wait for a machine that was lost."""
  if requests.signal and not task.is_chief:
    say_stopped(requests)
    os._exit(requests.status)
  raise UsageError(failures.LOST_MACHINE)


def train_options(args, machines, model, data, position):
  """Returns the inputs.TrainOptions of a training from a Position on."""
  return inputs.TrainOptions(
      **inputs.read_flags(args),
      images_per_replica=args.batch_size // (args.num_gpus * machines.task.workers),
      padding_color=backbones.get(model.architecture.base_architecture).padding_color,
      num_examples=data.counts['train'], first_example=position.images, cache=args.cache,
      sampling=data.sampling,
      threads=devices.input_threads() if args.input_threads is None else args.input_threads)


class Training:
  """A training that has claimed its folder.

  Attributes:
    result: dict, what the last evaluation said of the weights that decide.
  """

  def __init__(self, args, machines, requests, model, data, position, settings):
    """Args: the parsed flags; training_checks.Machines; interrupts.Requests; training_plan's Model, Data and
    Position; Settings."""
    self.args, self.task, self.requests = args, machines.task, requests
    self.dataset, self.data, self.position, self.settings = model.dataset, data, position, settings
    self.options = train_options(args, machines, model, data, position)
    self.result = {}
    strategy = run_config.strategy(args.num_gpus, self.task.workers, args.collectives)
    params = training_plan.params(model, settings)
    self.estimator = Estimator(deeplabv3_plus_model_fn, args.model_dir,
                               run_config.run_config(args.seed, args.xla, strategy), params)
    # XLA would compile the network anew for each size of a validation image.
    self.evaluators = {weights: Estimator(
        deeplabv3_plus_model_fn, args.model_dir, run_config.run_config(args.seed, strategy=strategy),
        {**params, 'weights': weights,
         **run_config.compute_params(args.precision, args.data_format, training=False)})
        for weights in (('raw', 'ema') if args.ema else ('raw',))}

  def run(self, rounds):
    """Trains round by round, evaluating after each, and first what a round before has left to evaluate."""
    step = self.position.step
    stop = rounds.is_pending and self.task.is_chief and self.evaluate(step, self.position.checkpoint)
    if rounds.last > step and not stop:
      step = self.train(rounds)
      if self.requests.signal:
        return
    print(f'Look at it: {shlex.join(["tensorboard", "--logdir", self.args.model_dir])}')
    print(f'Done: {self.args.model_dir} is at step {step}' + (
        f', mean Intersection over Union {self.result["mean_iou"]:.4f}'
        if self.result and self.result['confusion_matrix'].any() else ''))

  def train(self, rounds):
    """Trains round by round, evaluating after each; returns the step it has come to."""
    hook, last = self.hook(rounds.is_end), rounds.last
    if self.task.workers > 1:
      print(f'Waiting for all {self.task.workers} machines of TF_CONFIG', flush=True)
      # The last step is the last thing that is done together.
      with cluster.watching(self.args.model_dir, self.task, lambda: getattr(hook, 'step', 0) == last,
                            functools.partial(lose, self.task, self.requests)):
        run_in_cluster(functools.partial(self.train_to, last, hook), self.estimator)
    else:
      self.train_to(last, hook)
    if self.requests.signal:
      print(f'Stopped by {self.requests.signal.name} at step {hook.step}: saved in {hook.saved}; the same '
            'command goes on from there', flush=True)
    elif hook.step < last and not hook.stopping:  # an error that a session takes for the end of the data
      raise tf_records.find_bad_example(self.data.files['train'], self.dataset) or DataError(
          f'training ended at step {hook.step}, and not at {last}, as if there were no more data; look at '
          f'{self.args.data_dir}, and start again: it goes on from the last checkpoint')
    return hook.step

  def train_to(self, last, hook):
    """Trains to the step `last`."""
    try:
      with self.explaining('train', 'give a smaller --batch_size or --crop_size, or --recompute'):
        self.estimator.train(
            functools.partial(inputs.train_dataset, self.data.files['train'], self.dataset, self.options),
            hooks=[hook, *([LocalCLIDebugHook()] if self.args.debug else [])], max_steps=last)
    except UsageError:
      if self.requests.signal and not self.task.is_chief:  # all were told to stop, and the chief has saved
        raise interrupts.Interrupted() from None
      raise

  def hook(self, is_end):
    """Returns the TrainingHook of a training whose rounds end where is_end(step)."""
    args, position, count = self.args, self.position, self.settings.images_per_step
    plan = training_hooks.Plan(
        args.model_dir, is_end, args.save_checkpoints_secs, args.save_checkpoints_steps,
        args.keep_checkpoint_max, args.save_summary_steps, position.step, self.task.is_chief, count,
        summaries.of_run(flags.values(args), self.dataset.class_names, self.dataset.palette))

    def names_of_batch(number):
      first = position.images + (number - 1 - position.step) * count
      options = dataclasses.replace(self.options, first_example=first)
      return inputs.example_names(self.data.files['train'], options, count)

    return training_hooks.TrainingHook(
        plan, functools.partial(checkpoints.ResumeSaver, position.checkpoint), self.requests, self.evaluate,
        names_of_batch, position.checkpoint)

  def evaluate(self, step, checkpoint):
    """Scores a checkpoint and keeps it if it is the best; returns whether to stop training early."""
    # A checkpoint of a training without --ema may still have to be scored.
    results = {weights: self.score(weights, step, checkpoint) for weights in self.evaluators
               if weights == 'raw' or checkpoints.has_averages(checkpoint)}
    deciding = self.args.weights if self.args.weights in results else 'raw'
    self.result = results[deciding]
    made_of = {name: self.position.basis[name] for name in ('images', 'records')}
    names = self.dataset.class_names
    of_weights = {weights: {**made_of, **scores.of_matrix(result['confusion_matrix'], names)}
                  for weights, result in results.items()}
    entry = of_weights.pop(deciding)
    if self.args.ema:
      entry = {**entry, 'weights': deciding, **of_weights}
    scored = self.position.validation
    # First, so that a kill before the second leaves a round that is scored again.
    earlier = [other for other in scored.comparable(entry) if other['step'] != step]
    training_folder.keep_best(self.args.model_dir, [*earlier, {'step': step, **entry}], checkpoint)
    scored.add(step, entry)
    stop = training_plan.is_stopped_early(self.args, scored)
    if stop:
      print(f'Stopping early: no better mean IoU in the last {self.args.early_stopping_evals} evaluations')
    return stop

  def score(self, weights, step, checkpoint):
    """Returns what the Estimator says of a checkpoint's weights, raw or ema; prints and writes it."""
    evaluator, name = self.evaluators[weights], 'ema' if weights == 'ema' else None
    replicas = self.args.num_gpus if self.task.workers == 1 else 1  # of several machines the chief alone
    files, count = self.data.files['val'], self.data.counts['val']
    bar = run_config.ProgressBarHook(count, 'evaluating', replicas)
    os.makedirs(evaluator.eval_dir(name), exist_ok=True)  # TensorFlow ignores the umask of a group
    with (environment.without_autotuning(),
          self.explaining('val', 'validation takes whole images, one at a time: end other programs that hold '
                          'memory, or validate on smaller images')):
      result = evaluator.evaluate(
          functools.partial(inputs.eval_dataset, files, self.dataset, -count % replicas), hooks=[bar],
          checkpoint_path=checkpoint, name=name)
    names = self.dataset.class_names
    print(f'step {step}, {"averaged weights, " if name else ""}validation on {self.args.data_dir}:')
    print(scores.report(result['confusion_matrix'], names), flush=True)
    picture = np.asarray(confusion_picture.draw(result['confusion_matrix'], list(names)))
    events = tf.summary.FileWriterCache.get(evaluator.eval_dir(name))
    events.add_summary(summaries.pictures('confusion_matrix', [picture]), step)
    events.flush()
    return result

  def explaining(self, split, memory_advice):
    """Returns a context in which what fails ends with what it means to the user."""
    return failures.explaining(
        memory_advice, functools.partial(tf_records.find_bad_example, self.data.files[split], self.dataset))
