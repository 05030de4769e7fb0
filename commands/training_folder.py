"""The folder of a training: opened, claimed, cut back to where training goes on; and its best checkpoint."""
import contextlib
import dataclasses
import glob
import os
import shutil

import tensorflow.compat.v1 as tf

from commands import flags, model_config
from training import checkpoint_store, event_files, locks, summaries, validation
from utils import files
from utils.errors import UsageError

_EVENTS = 'events.out.tfevents.*'
_EVALUATED = ('eval', 'eval_ema', event_files.OF_EVALUATION)  # folders of curves


@dataclasses.dataclass(frozen=True)
class Folder:
  """A --model_dir, and what training goes on from.

  Attributes:
    is_chief: bool, whether this machine writes it. is_new: bool, whether there was none.
    found: checkpoint_store.Found of an existing one, or None for a new model.
    stored: model_config.Stored of an earlier run with a checkpoint, or None.
    locks: contextlib.ExitStack that holds its lock.
  """
  is_chief: bool
  is_new: bool
  found: checkpoint_store.Found | None
  stored: model_config.Stored | None
  locks: contextlib.ExitStack

  @property
  def checkpoint(self):
    """The prefix of the newest good checkpoint, or None."""
    return self.found and self.found.prefix

  @property
  def step(self):
    """The global step of the checkpoint, 0 without one."""
    return checkpoint_store.step_of(self.checkpoint)


@contextlib.contextmanager
def opened(args, task):
  """Within it --model_dir is a Folder that no other training writes to; a new one is not made yet."""
  is_new = not os.path.isdir(args.model_dir)
  with contextlib.ExitStack() as stack:
    if task.is_chief and not is_new:
      stack.enter_context(locks.locked(args.model_dir))
    if args.clean_model_dir and not is_new:
      check_cleanable(args.model_dir)
    found = None if is_new or args.clean_model_dir else checkpoint_store.find(args.model_dir)
    if found and found.prefix:
      print(f'Resuming from {found.prefix}')
    stored = model_config.read(args.model_dir) if found and found.prefix else None
    yield Folder(task.is_chief, is_new, found, stored, stack)


def claim(args, folder, model, position, rounds):
  """Makes the folder that of this run; returns the Position with its Validation.

  Args:
    args: the parsed flags. folder: Folder.
    model, position, rounds: training_plan's Model, Position and Rounds.
  """
  if not folder.is_chief:
    return position
  files.make_folder(args.model_dir, '--model_dir')
  if folder.is_new:
    folder.locks.enter_context(locks.locked(args.model_dir))
    if checkpoint_store.numbered(args.model_dir):
      raise UsageError(f'another training has just begun in --model_dir {args.model_dir}; start again')
  if args.clean_model_dir:
    clean(args.model_dir)
  if folder.found:
    checkpoint_store.set_aside(args.model_dir, position.step, folder.found.rejected)
  if position.checkpoint:
    checkpoint_store.choose(args.model_dir, position.checkpoint)
  model_config.write(args.model_dir, model.architecture, model.dataset, flags.values(args), position.past)
  is_best_aside = forget_later(args.model_dir, position.step, not position.checkpoint, rounds.is_pending)
  scored = position.read_validation(args.model_dir)
  scored.forget_later()
  if is_best_aside:
    keep_best(args.model_dir, scored.comparable(position.basis))
  return position._replace(validation=scored)


def check_cleanable(model_dir):
  """Raises UsageError if --clean_model_dir would remove something that is no model folder."""
  signs = ('checkpoint', '*.index', _EVENTS, model_config.FILE_NAME, validation.FILE_NAME)
  found = [path for pattern in signs for path in glob.glob(os.path.join(glob.escape(model_dir), pattern))]
  if set(os.listdir(model_dir)) - {locks.FILE_NAME} and not found:
    raise UsageError(f'--clean_model_dir: {model_dir} holds neither a checkpoint nor event files, so it '
                     f'is not removed; check --model_dir')


def clean(model_dir):
  """Removes all in model_dir but its lock; the folder itself, maybe a link or a mount point, stays."""
  # The last one tells what the folder is, should this be interrupted.
  for name in sorted(os.listdir(model_dir), key=lambda name: name == model_config.FILE_NAME):
    if name != locks.FILE_NAME:
      checkpoint_store.remove(os.path.join(model_dir, name))


def forget_later(model_dir, step, is_new, is_pending):
  """Cuts curves back to a step, and sets aside what an earlier training, or a later step, has left.

  Args:
    model_dir: str.
    step: int, from which training goes on.
    is_new: bool, whether there is no checkpoint of it.
    is_pending: bool, whether it is still to be evaluated.

  Returns:
    Whether the best checkpoint was of a later step.
  """
  tf.summary.FileWriterCache.clear()  # of an earlier training by this process; it would write beyond the cut
  best = os.path.join(model_dir, validation.BEST)
  held, scored = checkpoint_store.held(best), validation.best_scores(best)
  is_later = max(held[0] if held else -1, scored['step'] if scored else -1) > step
  left = [best] if is_later else []
  if is_new:
    names = ('checkpoint', validation.BEST, validation.FILE_NAME, *_EVALUATED)
    left = [path for path in (os.path.join(model_dir, name) for name in names) if os.path.lexists(path)]
    left += glob.glob(os.path.join(glob.escape(model_dir), _EVENTS)) if left else []
  if left:
    print(f'{", ".join(left)} {"were" if left[1:] else "was"} moved to '
          f'{checkpoint_store.move_aside(model_dir, left)}: training '
          + ('begins anew' if is_new else f'goes on from step {step}'))
  # What a run was told at this step, of which nothing else is left, is told again.
  event_files.cut(model_dir, lambda event: event.step < step + all(
      value.tag != summaries.OF_RUN for value in event.summary.value))
  for folder in _EVALUATED:
    event_files.cut(os.path.join(model_dir, folder), lambda event: event.step <= step - is_pending)
  return is_later


def keep_best(model_dir, contenders, newest=None):
  """Lets model_dir/best hold the checkpoint of the highest mean IoU, among those that are still there.

  Args:
    model_dir: str.
    contenders: list of dicts, the evaluations that can be compared.
    newest: str, the checkpoint of the last one, if it has just been scored.
  """
  folder = os.path.join(model_dir, validation.BEST)
  step, held = checkpoint_store.held(folder) or (None, None)
  if held:
    what = checkpoint_store.problem(held) or step not in [entry['step'] for entry in contenders] and (
        'was scored on other images or by other --weights')
    if what:
      aside = checkpoint_store.move_aside(model_dir, [folder])
      print(f'The best so far, step {step} in {folder}, {what}; it begins anew, and that one is in {aside}')
      step = None
  lost, best = [], None
  for entry in sorted(contenders, key=lambda entry: (-entry['mean_iou'], entry['step'])):
    is_newest = newest and entry is contenders[-1]
    prefix = newest if is_newest else os.path.join(model_dir, f'{checkpoint_store.NAME}-{entry["step"]}')
    if entry['step'] == step or is_newest or checkpoint_store.problem(prefix) is None:
      best = entry
      break
    lost.append(entry)
  if lost:
    print(f'The checkpoint of the highest mean IoU, {lost[0]["mean_iou"]:.4f} at step {lost[0]["step"]}, is '
          'gone; the best is sought among the others')
  if best and best['step'] == step:
    print(f'The best is still step {step}, mean IoU {best["mean_iou"]:.4f}, in {folder}')
  elif best:
    files.make_folder(folder, '--model_dir')
    with files.replacing(os.path.join(folder, model_config.FILE_NAME)) as temporary:
      shutil.copyfile(os.path.join(model_dir, model_config.FILE_NAME), temporary)
    checkpoint_store.keep_best(prefix, folder)
    print(('The best so far' if is_newest else f'The best is step {best["step"]}')
          + ' by its averaged weights' * (best.get('weights') == 'ema') + f'; kept in {folder}', flush=True)
  if best:
    validation.write_best_scores(folder, best)
