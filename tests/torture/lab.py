"""What the stories of torture.py share: a tiny data set, tiny trainings, and their undisturbed runs."""
import collections
import json
import os
import shlex
import shutil
import subprocess

import train
from tests.torture import checks

IMAGES = 20  # of training
SIZE = (64, 80)
TIMEOUT = 300  # seconds, for any command: far more than one takes, also on a busy machine

# The trainings that stories are about: name -> (batch size, epochs, epochs between evaluations, other flags).
TRAININGS = {
    'plain': (10, 3, 1, ['--save_summary_steps', 1]),
    'partial': (7, 3, 2, ['--save_summary_steps', 3, '--input_threads', 2]),  # evaluated within a batch too
    'accumulated': (5, 2, 1, ['--accumulate_steps', 2, '--save_summary_steps', 1, '--deterministic']),
    'cached': (10, 3, 1, ['--cache', '--save_summary_steps', 2, '--seed', 3, '--deterministic']),
    'weighted': (5, 2, 2, ['--class_weights', 'median_frequency', '--learning_rate_policy', 'piecewise',
                           '--save_summary_steps', 2]),
    'half': (10, 2, 1, ['--precision', 'bf16', '--save_summary_steps', 1]),
    'frozen': (10, 3, 3, ['--freeze_batch_norm', '--batch_norm_decay', 0.997, '--save_summary_steps', 1]),
}
# Not of stories: that of the table of kills, and that of the tests.
_OTHERS = {'long': (10, 6, 2, ['--save_summary_steps', 1, '--save_checkpoints_steps', 1]),
           'short': (10, 2, 1, ['--save_summary_steps', 1])}
_MODEL = ['--base_architecture', 'mobilenet_v2_dm05', '--pre_trained_model', 'none', '--crop_size', 33, 33,
          '--batch_norm_decay', 0.5, '--tensorboard_images_max_outputs', 1]


def epochs_of(name):
  """Returns (epochs, epochs between evaluations) of a training."""
  return {**TRAININGS, **_OTHERS}[name][1:3]


class Failed(Exception):
  """What has to hold does not."""


class Lab:
  """A folder with the data, the children, and the undisturbed runs.

  Attributes:
    runner: children.Children.
    folder: str.
    data: str, the folder of the records and images.
    seen: Counter of what happened in stories, for the summary.
    can_mount: bool, file systems in memory can be mounted.
  """

  def __init__(self, runner, folder):
    self.runner = runner
    self.folder = folder
    self.data = os.path.join(folder, 'data')
    self.seen = collections.Counter()
    self.can_mount = _can_mount(os.path.join(folder, 'mount'))
    self._references = {}
    self._flags = set(train.make_parser().defaults)
    self._run('dataset/make_sample_data.py', '--output_dir', self.data, '--num_train', IMAGES, '--num_val', 4,
              '--size', *SIZE)
    self._run('create_pascal_tf_record.py', *self.conversion(self.data, 1))
    with open(f'{self.data}/val.txt') as names, open(f'{self.data}/photos.txt', 'w') as photos:
      photos.writelines(name.strip() + '.jpg\n' for name in names)
    self._write_other_descriptors()

  def _write_other_descriptors(self):
    """Writes swapped.json, two of whose classes have changed places, and fewer.json, without the last."""
    with open(f'{self.data}/sample.json', encoding='utf-8') as file:
      descriptor = json.load(file)
    names = descriptor['class_names']
    for name, changed in (('swapped', [names[0], names[2], names[1], *names[3:]]), ('fewer', names[:-1])):
      other = {**descriptor, 'class_names': changed, 'palette': descriptor['palette'][:len(changed)]}
      with open(f'{self.data}/{name}.json', 'w', encoding='utf-8') as file:
        json.dump(other, file)

  def knows(self, flag):
    """Whether train.py has a flag such as --save_checkpoints_steps."""
    return flag.lstrip('-') in self._flags

  def conversion(self, folder, processes):
    """Returns the flags of create_pascal_tf_record.py that write the records into a folder."""
    return texts(['--dataset', f'{self.data}/sample.json', '--data_dir', self.data, '--output_path', folder,
                  '--train_data_list', f'{self.data}/train.txt', '--valid_data_list', f'{self.data}/val.txt',
                  '--processes', processes])

  def training(self, name):
    """Returns the flags of one of TRAININGS or _OTHERS, list of str: all but --model_dir."""
    batch_size, epochs, epochs_per_eval, others = {**TRAININGS, **_OTHERS}[name]
    return texts(['--dataset', f'{self.data}/sample.json', '--data_dir', self.data, *_MODEL, '--batch_size',
                  batch_size, '--train_epochs', epochs, '--epochs_per_eval', epochs_per_eval, *others])

  def reference(self, name):
    """Returns the Look at the undisturbed run of one of TRAININGS."""
    if name not in self._references:
      folder = os.path.join(self.folder, f'undisturbed_{name}')
      self._references[name], _ = self.undisturbed(folder, self.training(name))
      shutil.rmtree(folder)
    return self._references[name]

  def undisturbed(self, model_dir, training):
    """Trains to the end in a folder, new or with a checkpoint, and keeps the checkpoint of every step.

    Args:
      model_dir: str.
      training: list of str, flags.

    Returns:
      The Look at the folder, and the Child.
    """
    each_step = ['--save_checkpoints_steps', 1] if self.knows('--save_checkpoints_steps') else []
    child = self._run('train.py', *training, *each_step, '--keep_checkpoint_max', 0,
                      f'--model_dir={model_dir}')
    return checks.look(model_dir), child

  def _run(self, script, *argv):
    child = self.runner.run(script, argv, timeout=TIMEOUT)
    if child.status:
      raise Failed(f'{shown(child.command)} ended with status {child.status}:\n{child.output}')
    return child


def _can_mount(folder):
  os.makedirs(folder)
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder]
  if not shutil.which('mount') or subprocess.run(mount, capture_output=True, check=False).returncode:
    return False
  subprocess.run(['umount', folder], check=False)
  return True


def texts(argv):
  return [str(part) for part in argv]


def shown(argv):
  """Returns arguments as a shell takes them."""
  return shlex.join(texts(argv))


def with_flags(training, changes):
  """Returns flags with some of them replaced or added.

  Args:
    training, changes: lists of str: --flag value value --flag ...
  """
  merged = {flag[0]: flag for flag in split_flags(training) + split_flags(changes)}
  return [part for flag in merged.values() for part in flag]


def split_flags(argv):
  """Returns a list of lists: each flag with its values."""
  flags = []
  for part in texts(argv):
    if part.startswith('--'):
      flags.append([])
    flags[-1].append(part)
  return flags
