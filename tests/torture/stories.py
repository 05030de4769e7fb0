"""The stories of torture.py: what may happen to a training, in random order, and what has to hold then.

`plan` makes a story from a seed and a number; `Story` tells it, and looks at the folder after each step.
"""
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import traceback

from tests.torture import checks
from tests.torture.lab import TIMEOUT, TRAININGS, Failed, epochs_of, shown, split_flags, texts, with_flags
from training import event_files

# Names of the model's folder other than m, which most stories have.
NAMES = ('m[lr=0.1]', 'a b', 'ü', 'x*?', "it's", 'quo"te', '{a,b}', '$HOME', '%s %d', 'a;b&c', '#1', '~',
         'model.ckpt-2', 'tmp', 'back\\slash')

# Flags that change neither weights nor curves: a start may have any of them.
NEUTRAL = (['--input_threads', 1], ['--input_threads', 3], ['--keep_checkpoint_max', 1],
           ['--keep_checkpoint_max', 2], ['--keep_checkpoint_max', 3], ['--save_checkpoints_steps', 1],
           ['--save_checkpoints_steps', 1], ['--save_checkpoints_steps', 2], ['--save_checkpoints_steps', 3],
           ['--save_checkpoints_secs', 1], ['--verbose'])

# Flags that a resumed run may have changed, and which change what comes.
CHANGES = (['--batch_size', 4], ['--batch_size', 6], ['--batch_size', 20], ['--precision', 'bf16'],
           ['--initial_learning_rate', 0.02, '--learning_rate_policy', 'poly'], ['--accumulate_steps', 2],
           ['--max_iter', 20, '--learning_rate_policy', 'poly'], ['--weight_decay', 0.001],
           ['--freeze_batch_norm', '--batch_norm_decay', 0.997], ['--last_layers_lr_multiplier', 10],
           ['--crop_size', 49, 33], ['--cache'], ['--deterministic'])
# Of these the output need not speak: they change no more than the last digits of images and of sums.
SILENT_CHANGES = ('--cache', '--deterministic')

# Flags that contradict the model in the folder.
CONTRADICTIONS = {'backbone': ['--base_architecture', 'xception_41'], 'decoder': ['--decoder', 'on'],
                  'head': ['--image_level_feature', 'off'], 'swapped': ['--dataset', '{}/swapped.json'],
                  'fewer': ['--dataset', '{}/fewer.json']}

# What no output may hold. The second is what flags.run says of an exception that nobody foresaw.
FORBIDDEN = ('Traceback', 'this is a defect', 'core dumped', 'Segmentation fault')

_LEFT_BY_KILLED = ('saving.tmp/model.ckpt-3.index', 'best/saving.tmp/model.ckpt-3.index',
                   'model_config.json.123.tmp', 'validation.json.9.tmp', 'checkpoint.tmp5')
# Lines of TensorFlow's and its libraries'.
_FOREIGN = re.compile(r'^(WARNING|ERROR|INFO):|^[WEIF]\d{4} |^\d{4}-\d\d-\d\d \d\d:', re.MULTILINE)
_STEP = re.compile(r'^step \d+/', re.MULTILINE)
# The first and the last lines of a script's work.
_BEGUN = re.compile(r'^(step \d+/|Evaluating )', re.MULTILINE)
_ENDED = re.compile(r'^(Done: |Stopped by |Nothing left |Pixel Accuracy|\d+ masks are in |.*checked against '
                    r'it|Wrote \d+ examples to .*val)', re.MULTILINE)
_DISK = 400 << 20  # bytes of a story's own file system


class Step:
  """A step of a story.

  Attributes:
    kind: str, of a method of Story, without its `_do_`.
    options: dict, its keyword arguments.
  """

  def __init__(self, kind, **options):
    self.kind = kind
    self.options = options


@dataclasses.dataclass
class Plan:
  """A story before it is told.

  Attributes:
    label: str, by which a person finds it again.
    training: str, the name of one of TRAININGS.
    name: str, of the model's folder.
    small_disk: bool, the folder lies on a file system of its own, if one can be mounted.
    steps: list of Step.
    relative: bool, --model_dir is given as a path from the folder above.
  """
  label: str
  training: str
  name: str
  small_disk: bool
  steps: list
  relative: bool = False


def plan(seed, number):
  """Returns the Plan of a story, a pure function of two ints."""
  rng = random.Random(f'{seed}/{number}')
  training = rng.choice(list(TRAININGS))
  name = 'm' if rng.random() < 0.6 else rng.choice(NAMES)
  small_disk = rng.random() < 0.25
  weights = {_kill: 9, _train: 1.5, _damage: 4.5, _refused: 1.2, _full_disk: 4 if small_disk else 1,
             _two: 1.3, _use: 2.5, _convert: 0.4, _change: 0.8, _move: 0.6, _link: 0.3, _not_finite: 0.5,
             _clean: 0.4}
  steps = [_kill(rng)]
  for _ in range(rng.randint(2, 6)):
    steps.append(rng.choices(list(weights), list(weights.values()))[0](rng))
  steps.append(Step('train', neutral=_neutral(rng), interim=None))
  return Plan(f'story {number} of seed {seed}', training, name, small_disk, steps, rng.random() < 0.25)


def _neutral(rng):
  """Returns some flags of NEUTRAL, none of them twice."""
  chosen = rng.sample(NEUTRAL, rng.choice((0, 1, 2, 2, 3)))
  return with_flags([], [part for flag in chosen for part in flag])


def moment(rng, changes=(6, 20, 60)):
  """Returns a moment of a training.

  Args:
    rng: random.Random.
    changes: how many changes of the files a training makes at most; one of these.

  Returns:
    ('seconds', s), or ('files', n, s): s seconds after their nth change.
  """
  if rng.random() < 0.3:
    return 'seconds', round(rng.uniform(0.3, 9), 2)
  return 'files', rng.randint(1, rng.choice(changes)), round(rng.choice((0, rng.expovariate(100))), 4)


def _kill(rng):
  signals = rng.choices((['KILL'], ['TERM'], ['INT'], ['TERM', 'KILL'], ['TERM', 'TERM'], ['INT', 'TERM'],
                         ['HUP']), (12, 4, 3, 2, 1, 1, 1))[0]
  pause = round(rng.choice((rng.uniform(0.11, 0.3), rng.uniform(0.3, 3))), 2)
  return Step('kill', when=moment(rng), signals=signals, pause=pause, neutral=_neutral(rng))


def _train(rng):
  return Step('train', neutral=_neutral(rng), interim=rng.random())


def _damage(rng):
  targets = ('newest data', 'newest data', 'newest index', 'newest index', 'older', 'checkpoint',
             'model_config.json', 'validation.json', 'events', 'eval events', 'lock', 'best', 'best', 'any',
             'leftover')
  ways = ('cut', 'zero tail', 'flip', 'flip', 'empty', 'remove', 'garbage')
  return Step('damage', what=[(rng.choice(targets), rng.choice(ways), rng.random())
                              for _ in range(rng.choice((1, 1, 1, 2, 3)))])


def _refused(rng):
  return Step('refused', how=rng.choice(list(CONTRADICTIONS)))


def _full_disk(rng):
  free = rng.choice((0, 1 << 12, rng.randint(1, 30) << 10, rng.randint(1, 4000) << 10,
                     rng.randint(3, 16) << 20))
  return Step('full_disk', free=free, neutral=_neutral(rng), mounted=rng.random() < 0.8)


def _two(rng):
  how = rng.choice(('second', 'second', 'stopped', 'both', 'clean', 'killed'))
  return Step('two', how=how, when=moment(rng), neutral=_neutral(rng))


def _use(rng):
  script = rng.choice(('evaluate.py', 'evaluate.py', 'inference.py', 'export_inference_graph.py'))
  ended = (rng.choice(('KILL', 'TERM', 'INT', 'HUP')), round(rng.uniform(0.3, 4), 2))
  return Step('use', script=script, best=rng.random() < 0.35, during=rng.random() < 0.5, when=moment(rng),
              neutral=_neutral(rng), ended=ended if rng.random() < 0.3 else None)


def _convert(rng):
  return Step('convert', signals=[(rng.choice(('KILL', 'TERM', 'INT', 'HUP')), round(rng.uniform(0.1, 1), 2))
                                  for _ in range(4)], processes=rng.choice((1, 1, 2)))


def _change(rng):
  return Step('change', change=texts(rng.choice(CHANGES)))


def _move(rng):
  return Step('move', name=rng.choice(NAMES))


def _link(rng):
  return Step('link')


def _not_finite(rng):
  return Step('not_finite')


def _clean(rng):
  return Step('clean', neutral=_neutral(rng), when=moment(rng) if rng.random() < 0.5 else None)


class Story:
  """A story that is told, and what has to be true of its folder by now."""

  def __init__(self, lab, story_plan):
    self.lab = lab
    self.plan = story_plan
    self.name = story_plan.name
    self.folder = os.path.join(lab.folder, 'story')
    self.root = os.path.join(self.folder, 'disk')  # of the model's folder
    os.makedirs(self.root)
    self.small_disk = story_plan.small_disk and lab.can_mount
    if self.small_disk:
      subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={_DISK}', 'tmpfs', self.root], check=True)
    self.log = []      # the story so far, in lines like those of a shell
    self._lines = {}   # Child -> the number of its line there
    self._newest = {}  # Child -> the newest good checkpoint at its start
    self.last = None   # the Child to blame
    self.done = self.seconds = 0
    self.training = lab.training(story_plan.training)
    self.reference = None   # the Look that the story ends in; None where nobody knows any more
    self.changed_at = 0     # the step from which the training has other flags than at its start
    self.keep_max = 5
    self._forget()

  def _forget(self):
    """Nothing is known, nothing is damaged: the model's folder is empty."""
    self.known = checks.Look()
    self.bad = set()        # steps of checkpoints that were damaged
    self.damaged = {}       # path below the folder -> content before, until a training has coped with it
    self.whole = {'curve', 'eval_curve', 'scores', 'best'}  # of these no file was damaged

  @property
  def model_dir(self):
    return os.path.join(self.root, self.name)

  @property
  def given_dir(self):
    """What --model_dir is given, in the story's folder."""
    return os.path.relpath(self.model_dir, self.folder) if self.plan.relative else self.model_dir

  def remove(self):
    """Removes all that it has written."""
    if self.small_disk:
      subprocess.run(['umount', '-l', self.root], check=False)
    shutil.rmtree(self.folder, ignore_errors=True)

  def run(self):
    """Tells it; returns the exception that ended it, or None."""
    begun = time.monotonic()
    try:
      self.reference = self.lab.reference(self.plan.training)
      begun = time.monotonic()
      for step in self.plan.steps:
        getattr(self, '_do_' + step.kind)(**step.options)
        self.done += 1
      self._check_end()
      return None
    except Exception as error:  # of the product, or of this tool: the other stories are told all the same
      return error
    finally:
      self.seconds = time.monotonic() - begun

  def summary(self):
    return (f'{self.plan.training} in {self.plan.name!r}, {self.done} of {len(self.plan.steps)} steps, '
            f'{self.seconds:.0f} s')

  def report(self, error):
    """Returns the story and how it failed, for a person to repeat it."""
    what = str(error) if isinstance(error, Failed) else ''.join(traceback.format_exception(error))
    output = self.last.output.rstrip()[-4000:] if self.last else ''
    return '\n'.join([f'--- {self.plan.label}: {what}',
                      f'TRAIN="python train.py {shown(self.lab.training(self.plan.training))}"', *self.log,
                      '--- the output to blame', output, '---'])

  # The steps.

  def _do_train(self, neutral, interim):
    """Trains to the end or, where `interim` (0..1) is given, to an earlier evaluation."""
    extra = self._usable(neutral)
    if interim is not None:
      epochs, each = epochs_of(self.plan.training)
      extra += ['--train_epochs', str(each * max(1, round(interim * (epochs // each - 1))))]
    coped = False
    while not coped:  # else damage stopped it, was named, and is undone
      child = self._start(extra)
      self._finish(child)
      coped = self._expect(child, 0)
    self._check(child)

  def _do_kill(self, when, signals, pause, neutral):
    child = self._start(self._usable(neutral))
    wait_for(when, child, self.model_dir)
    saving = any('tmp' in path for path in checks.paths_below(self.model_dir))
    self._signal(child, signals, pause, spoken(when))
    self._finish(child)
    self._expect(child, 0, *_statuses(child, signals))
    if child.status:
      self._note(f'killed by {" and ".join(signals)}{" while saving" if saving else ""}')
    if child.status in (143, 130) and len(signals) == 1:
      self._check_goodbye(child)
    self._check(child, graceful=len(signals) == 1)

  def _check_goodbye(self, child):
    """After SIGTERM or SIGINT: a line says what was saved, and it is there."""
    found = re.search(r'^Stopped by SIG(?:TERM|INT) at step (\d+): saved in (.*model\.ckpt-(\d+)); '
                      'the same command goes on from there$', child.stdout, re.MULTILINE)
    if found:
      self._note('saved on request')
      good, _ = checks.checkpoints(self.model_dir)
      self._demand(int(found[3]) in good, f'{found[2]} was said to be saved, but is not good')
    else:
      self._demand(not trained(child)
                   or re.search('^Stopped by SIG(TERM|INT); all that was trained is saved', child.stdout,
                                re.MULTILINE),
                   'it was stopped after its first step without a line that says what was saved')

  def _do_damage(self, what):
    for target, how, fraction in what:
      if target == 'lock':
        contents = ('', 'garbage', '{}', '[1]', json.dumps({'host': socket.gethostname(), 'pid': 1}),
                    json.dumps({'host': socket.gethostname(), 'pid': 1 << 21}),
                    json.dumps({'host': 'elsewhere', 'pid': 1}))
        self._write('training.lock', contents[int(fraction * len(contents))])
      elif target == 'leftover':
        self._write(_LEFT_BY_KILLED[int(fraction * len(_LEFT_BY_KILLED))], 'left by a killed process')
      else:
        self._damage(target, how, fraction)
    self.known = checks.look(self.model_dir)
    self.bad |= set(self.known.bad)
    if self.known.newest < self.changed_at:  # the other flags now begin at another step
      self.reference = None

  def _do_refused(self, how):
    if not self.known.good or self.damaged:
      return
    before = checks.contents(self.model_dir)
    child = self._start([part.format(self.lab.data) for part in CONTRADICTIONS[how]])
    self._finish(child)
    self._expect(child, 2)
    self._note(f'refused: {how}')
    self._demand_same(before)

  def _do_full_disk(self, free, neutral, mounted):
    limits = {}
    mounted = mounted and self.small_disk
    if mounted:
      self._set_size(self._used() + free)
      self.log.append(f'# the disk has {free} bytes left')
    else:
      limits = {'FSIZE': max(free, 1 << 16)}
      self.log.append(f'ulimit -f {limits["FSIZE"] >> 10}')
    child = self._start(self._usable(neutral), limits=limits)
    self._finish(child)
    if mounted:
      self._set_size(_DISK)
    self.log.append('# the disk has room again')
    self._expect(child, 0, 1)
    if child.status:
      self._note('disk full' if mounted else 'file too large')
      sentence = child.stderr.rpartition('error: ')[2]
      self._demand(self.damaged or re.search('space|full|large|room|quota', sentence),
                   'the sentence does not say that the disk is full')
      self._demand(not re.search('batch_size|crop_size', sentence), 'the sentence blames the flags')
    self._check(child)

  def _do_two(self, how, when, neutral):
    """A second training in the folder of one that runs, is stopped, or is killed meanwhile."""
    if self.damaged:  # which would stop both
      return
    neutral = self._usable(neutral)
    first = self._start(neutral, background=True)
    if how != 'both':
      wait_for(when, first, self.model_dir)
    if how == 'stopped':
      first.kill(signal.SIGSTOP)
      self.log.append('kill -STOP %1')
    self.log.append(f'# {spoken(when)}:')
    trains = trained(first)
    second = self._start([*neutral, *(['--clean_model_dir'] if how == 'clean' and self.known.good else [])])
    if how == 'killed':
      second.ended.wait(when[-1] * (1 if when[0] == 'seconds' else 100))
      first.kill()
      self.log.append('kill -KILL %1')
    self._finish(second)
    trains = trains and not first.ended.is_set()
    if how == 'stopped':
      first.kill(signal.SIGCONT)
      self.log.append('kill -CONT %1')
    self._finish(first)
    if second.status == 0 and '--clean_model_dir' in second.command:
      self._forget()
    self._expect(first, *((0, 2, -9) if how == 'killed' else (0, 2)))
    self._expect(second, *((2,) if trains else (0, 2)))
    self._demand({first.status, second.status} != {2}, 'each training refused the other')
    if second.status == 2 and trains:
      self._note(f'second training refused: {how}')
      for word in str(first.pid), socket.gethostname():
        self._demand(word in second.stderr, f'the refused training does not name {word}')
    self._check(first if first.status == 0 else second)

  def _do_convert(self, signals, processes):
    """Converts the data, stopped again and again; in the end the records are those of the lab."""
    folder = os.path.join(self.folder, 'converted')
    argv = self.lab.conversion(folder, processes)
    for name, pause in signals:
      child = self._run('create_pascal_tf_record.py', argv)
      child.ended.wait(pause)
      self._signal(child, [name], 0, f'after {pause} s')
      self._finish(child)
      self._expect(child, 0, *_statuses(child, [name]))
    self._finish(self._run('create_pascal_tf_record.py', argv))
    self._expect(self.last, 0)
    expected = {path: digest for path, digest in checks.contents(self.lab.data).items()
                if path.endswith('.record')}
    found = checks.contents(folder)
    self._demand(expected.items() <= found.items(), 'the records are others')
    self._demand(not any('tmp' in path for path in found), f'it left {sorted(found)}')
    shutil.rmtree(folder)
    self._note('conversion stopped')

  def _signal(self, child, names, pause, when):
    """Sends signals to a script, the second `pause` seconds after the first."""
    for index, name in enumerate(names):
      if index:
        child.ended.wait(pause)
      child.kill(getattr(signal, 'SIG' + name))
    self.log.append(f'{f"; sleep {pause}; ".join(f"kill -{name} $!" for name in names)}  # {when}')

  def _do_use(self, script, best, during, when, neutral, ended):
    """Evaluates, predicts or exports, while a training runs or not, or stopped: the folder stays as it is."""
    first = None
    if during:
      first = self._start(self._usable(neutral), background=True)
      wait_for(when, first, self.model_dir)
      self.log.append(f'# {spoken(when)}:')
    before = None if first else checks.contents(self.model_dir)
    target = os.path.join(self.given_dir, 'best') if best else self.given_dir
    output = os.path.join(self.folder, 'used')
    shutil.rmtree(output, ignore_errors=True)
    data = self.lab.data
    child = self._run(script, [f'--model_dir={target}', *{
        'evaluate.py': ['--image_data_dir', f'{data}/JPEGImages', '--label_data_dir',
                        f'{data}/SegmentationClassAug', '--evaluation_data_list', f'{data}/val.txt'],
        'inference.py': ['--data_dir', f'{data}/JPEGImages', '--infer_data_list', f'{data}/photos.txt',
                         '--output_dir', output],
        'export_inference_graph.py': ['--export_dir', output]}[script]])
    there = self.known.best if best else self.known.good
    allowed = (0, 1, 2) if self.damaged else (0,) if there and not first else (0, 1)
    if ended:
      child.ended.wait(ended[1])
      self._signal(child, ended[:1], 0, f'after {ended[1]} s')
    self._finish(child)
    if ended:
      allowed += _statuses(child, ended[:1])
    if first:
      self._finish(first)
    self._expect(child, *allowed)
    if child.status == 0:
      self._note(f'{script}{" of best" if best else ""}{" during a training" if first else ""}')
      if script == 'evaluate.py' and not first:
        self._check_score(child, best)
    if first:
      self._expect(first, 0)
      self._check(first)
    else:
      self._demand_same(before)

  def _check_score(self, child, best):
    """Compares the mean IoU that evaluate.py printed with that of the training."""
    step = (self.known.best or [None])[0] if best else self.known.newest
    if self.damaged or not self.reference or step not in (self.reference.scores or {}):
      return
    found = re.search(r'^mean Intersection over Union: ([\d.]+)$', child.stdout, re.MULTILINE)
    self._demand(found, 'evaluate.py prints no mean')
    # A process of its own computes by other kernels: a few pixels may change sides.
    self._demand(abs(float(found[1]) - self.reference.scores[step]) < 0.01,
                 f'the training scored {self.reference.scores[step]:.4f} at step {step}')
    self._note('scores compared')

  def _do_change(self, change):
    """Goes on with other flags for the rest of the story: from here on the undisturbed run is another."""
    training = with_flags(self.training, change)
    of = {flag[0]: flag[1:] for flag in split_flags(training)}
    images = int(of['--batch_size'][0]) * int(of.get('--accumulate_steps', ['1'])[0])
    if self.damaged or self.known.bad or not self.known.good or training == self.training or images > 20:
      return
    self.log.append(f'TRAIN="$TRAIN {shown(change)}"')
    copy = os.path.join(self.folder, 'undisturbed')
    shutil.copytree(self.model_dir, copy)
    reference, child = self.lab.undisturbed(copy, training)
    shutil.rmtree(copy)
    self.last = child
    self._demand(reference.newest == self.known.newest or change[0] in SILENT_CHANGES
                 or change[0][2:] in child.stdout,
                 f'the output does not mention {change[0]}, which is another one now')
    if self.reference:
      reference.good = {**{step: digest for step, digest in self.reference.good.items()
                           if step <= self.known.newest},  # the other flags may end at an earlier step
                        **{step: digest for step, digest in reference.good.items()
                           if step > self.known.newest}}
      self.reference = reference
    self.training, self.changed_at = training, self.known.newest
    self._note(f'changed {change[0]}')

  def _do_move(self, name):
    if os.path.isdir(self.model_dir) and name != self.name:
      before = self.model_dir
      self.log.append(f'mv {shown([self.name, name])}')
      self.name = name
      os.rename(before, self.model_dir)

  def _do_link(self):
    """Makes the model's folder a link to where it is now."""
    if os.path.isdir(self.model_dir) and not os.path.islink(self.model_dir):
      self.log.append(f'mv {shown([self.name])} elsewhere; ln -s elsewhere {shown([self.name])}')
      os.rename(self.model_dir, os.path.join(self.root, 'elsewhere'))
      os.symlink('elsewhere', self.model_dir)

  def _do_not_finite(self):
    """A rate at which weights overflow: nothing that is not finite is kept, all that was there is."""
    if self.damaged or not self.reference or self.known.newest in (0, self.reference.newest):
      return
    child = self._start(self._usable(
        ['--initial_learning_rate', '1e30', '--learning_rate_policy', 'poly']))
    self._finish(child)
    self._expect(child, 0, 1)
    if child.status:
      self._note('loss not finite')
    found = checks.look(self.model_dir)
    self._demand(set(found.bad) <= self.bad, f'it left bad checkpoints: {found.bad}')
    self._demand_kept(found)
    for step in found.good:  # trained at that rate, finite, and of no use: a person removes them
      if step > self.known.newest:
        self.log.append(f'rm {self.name}/model.ckpt-{step}.*')
        for suffix in '.index', '.data-00000-of-00001':
          os.remove(os.path.join(self.model_dir, f'model.ckpt-{step}{suffix}'))
    self.whole.discard('best')
    self.known = checks.look(self.model_dir)

  def _do_clean(self, neutral, when):
    """Begins anew; `when` the removal, or what follows it, is killed, some of what there was may be left."""
    if not self.known.good or self.changed_at:
      return
    child = self._start(['--clean_model_dir', *self._usable(neutral)])
    if when:
      wait_for(when, child, self.model_dir)
      child.kill()
      self.log.append(f'kill -KILL $!  # {spoken(when)}')
    self._finish(child)
    self._expect(child, *((0, -9) if when else (0,)))
    self._forget()
    if child.status:
      self.known = checks.look(self.model_dir)
      self.bad = set(self.known.bad)
      self.whole = set()
    else:
      self._check(child)

  # What steps are made of.

  def _note(self, what):
    self.lab.seen[what] += 1

  def _usable(self, extra):
    """Returns those flags that train.py has, and notes how many checkpoints they keep."""
    known = [flag for flag in split_flags(extra) if self.lab.knows(flag[0])]
    self.keep_max = next((int(flag[1]) for flag in known if flag[0] == '--keep_checkpoint_max'), 5)
    return [part for flag in known for part in flag]

  def _start(self, extra, background=False, limits=None):
    """Starts the training with more flags."""
    return self._launch('train.py', [*self.training, f'--model_dir={self.given_dir}', *extra], limits,
                        f'$TRAIN --model_dir {shown([self.name, *extra])}{" &" if background else ""}')

  def _run(self, script, argv):
    return self._launch(script, argv, None, f'python {script} {shown(argv)}')

  def _launch(self, script, argv, limits, line):
    self.last = self.lab.runner.start(script, argv, cwd=self.folder, limits=limits)
    self._lines[self.last] = len(self.log)
    self._newest[self.last] = self.known.newest
    self.log.append(line)
    return self.last

  def _finish(self, child):
    """Waits for a child's end; no output may hold what is FORBIDDEN."""
    child.wait(TIMEOUT)
    self.last = child
    self.log[self._lines[child]] += f'  # status {child.status}, {child.seconds:.1f} s'
    self._demand(not child.timed_out, f'it has not ended after {TIMEOUT} s')
    for word in FORBIDDEN:
      self._demand(word not in child.output or word == 'Traceback' and '--verbose' in child.command,
                   f"its output holds '{word}'")
    resumed = re.search(r'^Resuming from .*-(\d+)$', child.stdout, re.MULTILINE)
    if trained(child) and '--clean_model_dir' not in child.command:
      newest = self._newest[child]
      self._demand(newest <= (int(resumed[1]) if resumed else 0), f'it did not go on from step {newest}')
    if '--verbose' not in child.command:
      foreign = _FOREIGN.search(child.output)
      self._demand(not foreign, 'its output holds a line that is not its own')

  def _expect(self, child, *allowed):
    """Demands one of the statuses.

    Damage may also stop a script, which has to name it. Then it is undone, and False returned.
    """
    self.last = child
    if child.status in (1, 2):
      self._demand(re.search(r'^[a-z_]+\.py: error: .', child.stderr, re.MULTILINE), 'stderr has no error')
    if self.damaged and child.status in (1, 2) and child.status not in allowed:
      prefix = re.compile(r'\.(index|data-\d{5}-of-\d{5})$')
      named = [path for path in self.damaged
               if prefix.sub('', os.path.join(self.given_dir, path)) in child.stderr]
      self._demand(named, f'damage to {sorted(self.damaged)} stopped it, and it names none of these')
      self._undo_damage(named)
      self._note('stopped by damage, which it named')
      return False
    self._demand(child.status in allowed, f'its status is {child.status} in place of '
                 f'{" or ".join(texts(sorted(allowed)))}')
    return True

  def _demand_same(self, before):
    after = checks.contents(self.model_dir)
    changed = sorted(path for path in {*before, *after} - {'training.lock'}
                     if before.get(path, 0) != after.get(path, 0)
                     and event_files.OF_EVALUATION not in path.split(os.sep))  # what evaluate.py adds
    self._demand(not changed, f'it changed {changed} in the model folder')

  def _demand(self, condition, what):
    if not condition:
      raise Failed(what)

  def _used(self):
    status = os.statvfs(self.root)
    return (status.f_blocks - status.f_bfree) * status.f_frsize

  def _set_size(self, size):
    size = max(size + 4095 & ~4095, 4096)  # 0 would be without a limit
    subprocess.run(['mount', '-o', f'remount,size={size}', self.root], check=True)

  # Damage.

  def _damage(self, target, how, fraction):
    """Damages one of the files that `target` means."""
    files = self._targets(target)
    if not files:
      return
    path = files[int(fraction * len(files))]
    full = os.path.join(self.model_dir, path)
    with open(full, 'rb') as file:
      content = file.read()
    self.damaged.setdefault(path, content)
    self._note(f'damaged {target}')
    damaged = _damaged(content, how, random.Random(fraction))
    if damaged is None:
      self.log.append(f'rm {shown([os.path.join(self.name, path)])}')
      os.remove(full)
    else:
      self.log.append(f'# {how} of {shown([os.path.join(self.name, path)])}, {len(content)} bytes')
      with open(full, 'wb') as file:
        file.write(damaged)
    if 'tfevents' in path:
      self.whole.discard({'': 'curve', 'eval': 'eval_curve'}.get(os.path.dirname(path)))
    elif path.startswith('best/'):
      self.whole.discard('best')
    elif path == 'validation.json':
      self.whole -= {'scores', 'best'}
    elif path == 'model_config.json' and (_is_json(damaged) or self.changed_at):
      self.reference = None  # nobody can know that it said something else

  def _targets(self, target):
    """Returns the files, below the model's folder, that a word means."""
    newest = f'model.ckpt-{self.known.newest}'
    fits = {'newest data': lambda path: path == newest + '.data-00000-of-00001',
            'newest index': lambda path: path == newest + '.index',
            'older': lambda path: path.startswith('model.ckpt-') and not path.startswith(newest + '.'),
            'events': lambda path: path.startswith('events.'),
            'eval events': lambda path: path.startswith('eval/events.'),
            'best': lambda path: path.startswith('best/'),
            'any': lambda path: not path.endswith('.lock')}.get(target, lambda path: path == target)
    return sorted(path for path in checks.paths_below(self.model_dir)
                  if fits(path) and os.path.isfile(os.path.join(self.model_dir, path)))

  def _write(self, path, content):
    """Writes a file below the model's folder, if there is one."""
    if os.path.isdir(self.model_dir):
      self.log.append(f'echo -n {shown([content])} > {shown([os.path.join(self.name, path)])}')
      full = os.path.join(self.model_dir, path)
      os.makedirs(os.path.dirname(full), exist_ok=True)
      with open(full, 'w') as file:
        file.write(content)

  def _undo_damage(self, paths):
    """Puts back what was damaged, as a person does who has a copy."""
    for path in paths:
      full = os.path.join(self.model_dir, path)
      os.makedirs(os.path.dirname(full), exist_ok=True)
      with open(full, 'wb') as file:
        file.write(self.damaged[path])
      self.log.append(f'cp copy/{path} {shown([os.path.join(self.name, path)])}')
      del self.damaged[path]
    self.known = checks.look(self.model_dir)

  # What has to hold.

  def _check(self, child, graceful=False):
    """Checks the folder after a training.

    Args:
      child: Child, the training.
      graceful: bool, status 143 or 130 says that it has saved and cleaned up.
    """
    self.last = child
    found = checks.look(self.model_dir)
    self._demand_kept(found)
    self._demand(set(found.bad) <= self.bad, f'there are new bad checkpoints: {found.bad}')
    if self.whole >= {'curve', 'eval_curve'}:
      self._demand(not found.doubled, f'{len(found.doubled)} doubled points: {found.doubled[:1]}')
    if self.reference:
      self._demand_equal(found)
    graceful = graceful and child.status in (130, 143)
    if trained(child) and (child.status == 0 or graceful):
      self._demand(not found.unknown, f'it left {found.unknown}')
    if child.status == 0:
      self._demand(not self.keep_max or not trained(child) or len(found.good) <= self.keep_max,
                   f'checkpoints {sorted(found.good)} are more than --keep_checkpoint_max {self.keep_max}')
      # A training with nothing left to do leaves the folder as it is: the next one cuts the curves.
      self.damaged = self.damaged if 'Nothing left' in child.stdout else {}
    if self.reference and not self.damaged and (child.status == 0 or graceful and trained(child)):
      # Fewer epochs than before leave nothing to do, not even the last evaluation.
      evaluated = child.status == 0 and 'Nothing left' not in child.stdout
      self._demand_curves(found, ('curve', 'eval_curve') if evaluated else ('curve',))
      if evaluated:
        self._demand_scores(found)
        if found.newest == self.reference.newest:
          self._note('ends equal to the undisturbed run')
    self.known = found

  def _demand_kept(self, found):
    """Demands that no good checkpoint is lost but those that newer ones have displaced."""
    for step in sorted(set(self.known.good) - set(found.good)):
      newer = sum(other > step for other in {**found.good, **found.bad})
      self._demand(self.keep_max and newer >= self.keep_max,
                   f'the checkpoint of step {step} is lost: {sorted(self.known.good)} were good before, '
                   f'{sorted(found.good)} are now')

  def _demand_equal(self, found):
    """Demands the undisturbed run's values in every checkpoint and evaluation there is."""
    for step, digest in sorted(found.good.items()):
      self._demand(self.reference.good.get(step, digest) == digest,
                   f'the values of step {step} are not those of the undisturbed run')
    if 'scores' in self.whole:
      for step, score in (found.scores or {}).items():
        expected = self.reference.scores.get(step)
        self._demand(expected == score,
                     f'validation.json gives {score} at step {step}, the undisturbed run {expected}')

  def _demand_curves(self, found, kinds):
    """Demands curves without gaps up to the newest checkpoint."""
    for kind in self.whole.intersection(kinds):
      expected = {tag: [point for point in points if point[0] <= found.newest]
                  for tag, points in getattr(self.reference, kind).items()}
      expected = {tag: points for tag, points in expected.items() if points}
      what = checks.difference(getattr(found, kind), expected)
      self._demand(not what, f'{kind}: {what}')

  def _demand_scores(self, found):
    """Demands every evaluation up to the newest checkpoint, and the best checkpoint of them."""
    if self.reference.scores is None or 'scores' not in self.whole:
      return
    expected = {step: score for step, score in self.reference.scores.items() if step <= found.newest}
    self._demand(found.scores == expected, f'validation.json has {found.scores} in place of {expected}')
    if 'best' in self.whole and expected:
      best = max(expected, key=lambda step: (expected[step], -step))
      self._demand(found.best == (best, self.reference.good[best]),
                   f'best holds {found.best} in place of step {best}')

  def _check_end(self):
    self._demand(self.known.newest, 'there is no checkpoint at the end')
    if self.reference:
      self._demand(self.known.newest == self.reference.newest,
                   f'the story ends at step {self.known.newest} in place of {self.reference.newest}')


def _statuses(child, signals):
  """Returns the statuses with which a script may end after signals, a tuple of ints."""
  statuses = tuple({'KILL': -9, 'TERM': 143, 'INT': 130, 'HUP': 129}[name] for name in signals)
  if len(signals) > 1 or not _BEGUN.search(child.stdout) or _ENDED.search(child.stdout):
    # So early, or so late, that the system itself answers. A shell counts these as the same.
    statuses += tuple(-getattr(signal, 'SIG' + name) for name in signals)
  return statuses


def trained(child):
  """Whether a training has made its first step, as far as its output tells."""
  return _STEP.search(child.stdout) is not None


def spoken(when):
  """Returns a `moment` in words."""
  if when[0] == 'seconds':
    return f'after {when[1]} s'
  return f'{when[2]} s after change {when[1]} of the files'


def wait_for(when, child, model_dir):
  """Waits for a `moment` of a training, or its end."""
  if when[0] == 'seconds':
    child.ended.wait(when[1])
    return
  _, changes, pause = when
  before = _listing(model_dir)
  while changes and not child.ended.wait(0.001):
    now = _listing(model_dir)
    changes -= now != before
    before = now
  child.ended.wait(pause)


def _listing(folder):
  """Returns the paths, and sizes in MiB, of what lies below a folder: a change of these is an event."""
  found = set()
  folders = [folder]
  while folders:
    with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
      for entry in entries:
        with contextlib.suppress(OSError):
          if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
          found.add((entry.path, entry.stat().st_size >> 20))
  return found


def _damaged(content, how, rng):
  """Returns the content of a damaged file, or None for a removed one."""
  if how == 'remove':
    return None
  if how == 'empty' or not content:
    return b''
  at = rng.randrange(len(content))
  if how == 'cut':
    return content[:at]
  if how == 'zero tail':
    return content[:at] + bytes(len(content) - at)
  if how == 'garbage':
    return rng.randbytes(rng.choice((1, 100, len(content))))
  flipped = bytearray(content)
  for _ in range(rng.choice((1, 1, 3))):
    flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  return bytes(flipped)


def _is_json(content):
  try:
    json.loads(content)
  except (ValueError, TypeError):
    return False
  return True
