"""The cases of tests/fuzz/fuzz.py: every script and tool, with one thing wrong in its inputs or flags.

A case is a command on a folder of tiny inputs of which one is broken (tests/fuzz/faults.py), or one of whose
flags holds what it should not, or whose folders have odd names.
"""
import dataclasses
import functools
import glob
import importlib
import os
import random
import shutil
import tarfile
import typing

import numpy as np
from PIL import Image

from tests.fuzz import faults
from training import event_files

_TRAINING = ('train.py --dataset data/sample.json --data_dir records --base_architecture mobilenet_v2_dm05 '
             '--pre_trained_model none --crop_size 33 33 --batch_norm_decay 0.5 --batch_size 10 '
             '--train_epochs 1')
_VOC = ('create_pascal_tf_record.py --dataset data/sample.json --data_dir data '
        '--train_data_list data/train.txt --valid_data_list data/val.txt')
_FILES = '--image_data_dir data/JPEGImages --label_data_dir data/SegmentationClassAug'
_SCORED = {'data/val.txt': 'list', 'data': 'folder', 'data/JPEGImages': 'folder',
           'data/SegmentationClassAug': 'folder', 'data/JPEGImages/val_*': 'image',
           'data/SegmentationClassAug/val_*': 'label'}
_DATA = {**_SCORED, 'data/sample.json': 'json', 'data/train.txt': 'list', 'data/JPEGImages/train_*': 'image',
         'data/SegmentationClassAug/train_*': 'label'}
_RECORDS = {'records/train.record': 'record', 'records/val.record': 'record', 'records/train.json': 'json',
            'records/val.json': 'json', 'records': 'folder'}
_START = {'start/model.ckpt-2.index': 'index', 'start/model.ckpt-2.data-00000-of-00001': 'data'}
_MODEL = {'model/checkpoint': 'state', 'model/model.ckpt-2.index': 'index', 'model': 'folder',
          'model/model.ckpt-2.data-00000-of-00001': 'data', 'model/model_config.json': 'json'}


@dataclasses.dataclass(frozen=True)
class Command:
  """A script with what it needs to succeed.

  Attributes:
    name: str.
    line: str, the script's path and its arguments; inputs and outputs are paths in the case's folder.
    inputs: dict of what may be broken, a path or pattern, to its kind in faults.FAULTS.
    writes: the folders, beside out/, that may change or appear.
    wholesome: bool, a command that fails leaves no new file at all.
    weight: int, how often its faults are drawn, in percent.
  """
  name: str
  line: str
  inputs: dict
  writes: tuple = ()
  wholesome: bool = False
  weight: int = 100

  @property
  def argv(self):
    return self.line.split()

  @property
  def materials(self):
    """The names in the folder of inputs that the command needs."""
    words = [word.split('/')[0] for word in self.argv[1:]] + [path.split('/')[0] for path in self.inputs]
    return sorted(set(words) & set(MATERIALS))


MATERIALS = ('data', 'records', 'model', 'city', 'mine', 'archive.tar.gz', 'start', 'sample')
COMMANDS = (
    Command('sample',
            'dataset/make_sample_data.py --output_dir out/new --num_train 2 --num_val 1 --size 64 65', {}),
    Command('sample again',
            'dataset/make_sample_data.py --output_dir sample --num_train 2 --num_val 1 --size 64 65',
            {'sample/train.txt': 'list', 'sample/sample.json': 'json', 'sample': 'folder'}, ('sample',),
            weight=30),
    Command('voc', f'{_VOC} --output_path out --processes 1', _DATA, wholesome=True),
    Command('voc fast', f'{_VOC} --output_path out --processes 1 --fast --shards 2', _DATA, wholesome=True,
            weight=30),
    Command('voc over records', f'{_VOC} --output_path records --processes 2 --skip_bad 2',
            {**_DATA, **_RECORDS}, ('records',), wholesome=True, weight=30),
    Command('cityscapes', 'create_cityscapes_tf_record.py --cityscapes_dir city --split_type val '
            '--output_dir out --processes 1',
            {'city/leftImg8bit/val/town/*': 'image', 'city/gtFine/val/town/*': 'label', 'city': 'folder',
             'city/leftImg8bit/val': 'folder', 'city/gtFine/val/town': 'folder'}, wholesome=True),
    Command('mine', 'tools/create_tf_record.py --images mine/images --labels mine/labels '
            '--dataset mine/mine.json --output_dir out --processes 1',
            {'mine/images': 'folder', 'mine/labels': 'folder', 'mine/mine.json': 'json',
             'mine/images/*': 'image', 'mine/labels/*': 'label'}, wholesome=True),
    Command('suggest', 'tools/create_tf_record.py --suggest --labels mine/labels --dataset out/new.json '
            '--processes 1', {'mine/labels': 'folder', 'mine/labels/*': 'label'}, wholesome=True),
    Command('view records', 'tools/view_dataset.py --data_dir records --dataset data/sample.json --val val '
            '--output_dir out/page --json out/page.json --samples 3',
            {**_RECORDS, 'data/sample.json': 'json'}),
    Command('view files', f'tools/view_dataset.py {_FILES} --list data/val.txt --dataset data/sample.json '
            '--output_dir out/page', {**_SCORED, 'data/sample.json': 'json'}),
    Command('train', f'{_TRAINING} --model_dir out/model', {**_RECORDS, 'data/sample.json': 'json'}),
    Command('train weighted', f'{_TRAINING} --model_dir out/model --class_weights median_frequency --cache',
            {'records/train.json': 'json', 'records/train.record': 'record'}, weight=30),
    Command('train on', f'{_TRAINING} --model_dir model --train_epochs 2',
            {**_MODEL, 'model/validation.json': 'json', 'model/events*': 'events', 'model/best': 'folder',
             'model/eval/events*': 'events', 'model/best/scores.json': 'json'}, ('model',)),
    Command('train from', f'{_TRAINING} --model_dir out/model --pre_trained_model start/model.ckpt-2', _START,
            weight=60),
    Command('evaluate files', f'evaluate.py --model_dir model {_FILES} --evaluation_data_list data/val.txt '
            '--json out/scores.json', {**_SCORED, **_MODEL}, (f'model/{event_files.OF_EVALUATION}',)),
    Command('evaluate records', 'evaluate.py --model_dir model --data_dir records '
            '--save_predictions out/predicted --report out/report',
            {'records/val.record': 'record', 'records/val.json': 'json', 'records': 'folder',
             'model/model_config.json': 'json'}, (f'model/{event_files.OF_EVALUATION}',)),
    Command('predict', 'evaluate.py --model_dir model --image_data_dir data/JPEGImages --label_data_dir none '
            '--evaluation_data_list data/val.txt --save_predictions out/predicted',
            {'data/val.txt': 'list', 'data/JPEGImages/val_*': 'image'}, weight=60),
    Command('inference', 'inference.py --model_dir model --data_dir data/JPEGImages --output_dir out/masks '
            '--infer_data_list data/photos.txt --overlay',
            {**_MODEL, 'data/photos.txt': 'list', 'data/JPEGImages/val_*': 'image',
             'data/JPEGImages': 'folder'}),
    Command('export', 'export_inference_graph.py --model_dir model --export_dir out/export', _MODEL),
    Command('convert archive', 'tools/convert_checkpoint.py --checkpoint archive.tar.gz '
            '--model_dir out/model --dataset data/sample.json',
            {'archive.tar.gz': 'archive', 'data/sample.json': 'json'}, wholesome=True),
    Command('convert', 'tools/convert_checkpoint.py --checkpoint start/model.ckpt-2 --model_dir out/model '
            '--dataset data/sample.json', _START, wholesome=True),
    Command('plot', 'tools/plot_scalars.py model start --output out/curves.png',
            {'model/events*': 'events', 'start/events*': 'events', 'start': 'folder'}, wholesome=True),
    Command('benchmark', 'tools/benchmark.py input --data_dir records --dataset data/sample.json '
            '--crop_size 33 33 --steps 1 --warmup 1 --repeats 1 --json out/speed.json',
            {'records/train.record': 'record'}, weight=15),
)
_NUMBERS = ('nan', '-1', '0', 'inf', '-inf', '1e999', '1e-400', '99999999999999999999', '2147483648',
            '4294967297', '1.5', '0x10', '１２', '1_0', '', ' ', 'x', 'None', '--5', '1e3')
_WORDS = ('', ' ', 'nothing', 'None', '0', '../x', '*', "'", '-', '--', 'x' * 300, 'none ', 'VOC', 'a\nb')
# Links to devices: whoever replaces what it should write to takes away the link alone.
LINKS = {'null': '/dev/null', 'zeros': '/dev/zero', 'full': '/dev/full'}
_PLACES = ('', *LINKS, 'data/val.txt', 'data/sample.json', 'nowhere/nothing', '/proc/self/mem', '/proc/x',
           'x' * 300, 'data/val.txt/x', '..', '.', '~/x', 'é/\\', 'none')
# Flags for which a large number is a large job, and not wrong.
_JOBS = {'num_train', 'num_val', 'size', 'train_epochs', 'image_size', 'steps', 'warmup', 'repeats',
         'max_steps'}


class Case(typing.NamedTuple):
  """What a case does; a pure function of the seed and its number.

  Attributes:
    number: int.
    command: Command.
    what: str, what is wrong, in words.
    apply: function of (folder, rng) that breaks the inputs there; returns the arguments, a list of str.
    needs_permissions: bool, permissions matter.
    seed: str, of the random generator.
  """
  number: int
  command: Command
  what: str
  apply: typing.Callable
  needs_permissions: bool
  seed: str

  @property
  def label(self):
    return f'{self.command.name}; {self.what}'


def plan(seed, number):
  """Returns the Case of a number, int of 0 or more."""
  round_, place = divmod(number, len(_all()))
  command, what, apply, needs_permissions = _shuffled(seed, round_)[place]
  return Case(number, command, what, apply, needs_permissions, f'{seed}/{number}')


def find(label, seed=0):
  """Returns the Case of a label, such as 'voc; data/train.txt: flip'; its number is -1."""
  command, what, apply, needs_permissions = next(
      case for case in _all() if f'{case[0].name}; {case[1]}' == label)
  return Case(-1, command, what, apply, needs_permissions, f'{seed}/{label}')


@functools.cache
def _shuffled(seed, round_):
  everything = list(_all())
  random.Random(f'{seed}/{round_}').shuffle(everything)
  return everything


@functools.cache
def _all():
  """Returns the list of all (command, what, apply, needs_permissions), a weighted choice of them."""
  found = []
  for command in COMMANDS:
    mine = [(command, f'{path}: {fault.__name__}', _breaking(command, path, fault),
             fault.__name__.startswith('unreadable'))
            for path, kind in command.inputs.items() for fault in faults.FAULTS[kind]]
    mine += [(command, f'--{name}: {what}', apply, False) for name, what, apply in _flag_cases(command)]
    mine += [(command, f'odd name {name!r:.40}', _renaming(command, name), False)
             for name in faults.ODD_NAMES]
    mine.append((command, 'folders that cannot be written', _locking(command), True))
    random.Random(command.name).shuffle(mine)
    found += mine[:max(1, len(mine) * command.weight // 100)]
  return found


def _breaking(command, pattern, fault):
  """Returns the function that puts a fault into an input."""
  def apply(folder, rng):
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    fault(rng.choice(paths), rng)
    return command.argv
  return apply


def _flag_cases(command):
  """Yields (flag, what, apply): a value that is out of range, or a path that is something else."""
  module = importlib.import_module(command.argv[0].removesuffix('.py').replace('/', '.'))
  for action in module.make_parser()._actions:
    name = action.dest
    if name in ('help', 'verbose', 'debug') or not action.option_strings or action.nargs == 0:
      continue
    is_path = action.metavar in ('DIR', 'FILE', 'PATH', 'GLOB') or name in ('list', 'val')
    if is_path:
      yield name, 'a path of another kind', _with_flag(command, action, _PLACES)
    elif action.type in (None, str) or action.choices:
      yield name, 'another word', _with_flag(command, action, _WORDS)
    else:
      yield name, 'out of range', _with_flag(command, action, _numbers_for(name))
      yield name, 'out of range again', _with_flag(command, action, _numbers_for(name))
    yield name, 'without a value', lambda folder, rng, action=action: [*command.argv, f'--{action.dest}']


def _numbers_for(name):
  return tuple(text for text in _NUMBERS if name not in _JOBS or len(text) < 5 and text not in ('1e3', '1_0'))


def _with_flag(command, action, values):
  """Returns the function that gives a flag random ones of some values."""
  def apply(folder, rng):
    count = action.nargs if isinstance(action.nargs, int) else 1
    chosen = [rng.choice(values) for _ in range(count)]
    if values is _PLACES:
      for name, target in LINKS.items():
        os.symlink(target, os.path.join(folder, name))
    if count == 1:  # so that a value may begin with a dash
      return [*command.argv, f'--{action.dest}={chosen[0]}']
    return [*command.argv, f'--{action.dest}', *chosen]
  return apply


def _renaming(command, name):
  """Returns the function that gives all folders of the inputs and outputs an odd name."""
  def apply(folder, rng):
    inner = os.path.join(folder, name)
    os.mkdir(inner)
    for entry in os.listdir(folder):
      if entry in (*MATERIALS, 'out'):
        os.rename(os.path.join(folder, entry), os.path.join(inner, entry))
    os.mkdir(os.path.join(folder, 'out'))

    def moved(word):
      is_inside = word.split('/')[0] in (*MATERIALS, 'out')
      return os.path.join(name, word) if is_inside else word

    argv = [moved(word) for word in command.argv[1:]]
    # A path that begins with a dash has to stand after the equals sign.
    joined = []
    for word in argv:
      if word.startswith('-leading'):
        if joined and joined[-1].startswith('--'):
          joined[-1] += '=' + word
        else:
          joined.append('./' + word)
      else:
        joined.append(word)
    return [command.argv[0], *joined]
  return apply


def _locking(command):
  """Returns the function that takes away the right to write to the outputs."""
  def apply(folder, rng):
    for path in ('out', *command.writes):
      os.makedirs(os.path.join(folder, path), exist_ok=True)
      os.chmod(os.path.join(folder, path), 0o555)
    return command.argv
  return apply


def write_materials(folder, run):
  """Makes the inputs of all commands in a folder.

  Args:
    folder: str, an existing one.
    run: function of a script and its arguments, which runs it there and expects success.
  """
  for line in ('dataset/make_sample_data.py --output_dir data --num_train 20 --num_val 4 --size 64 80',
               'dataset/make_sample_data.py --output_dir sample --num_train 2 --num_val 1 --size 64 65',
               f'{_VOC} --output_path records --processes 1',
               f'{_TRAINING} --model_dir model --save_summary_steps 1'):
    script, *argv = line.split()
    run(script, argv)
  with open(os.path.join(folder, 'data/val.txt')) as names:
    faults.write(os.path.join(folder, 'data/photos.txt'),
                      ''.join(f'{name.strip()}.jpg\n' for name in names).encode())
  shutil.copytree(os.path.join(folder, 'model'), os.path.join(folder, 'start'),
                  ignore=shutil.ignore_patterns('best', 'eval', 'model_config.json', 'checkpoint', '*.lock'))
  _write_layouts(folder)


def _write_layouts(folder):
  """Writes city/, mine/ and archive.tar.gz from what is there."""
  for kind, end in (('leftImg8bit', '_leftImg8bit.png'), ('gtFine', '_gtFine_labelIds.png')):
    town = os.path.join(folder, 'city', kind, 'val', 'town')
    os.makedirs(town)
    for number in range(4):
      source = 'JPEGImages/val_%04d.jpg' if kind == 'leftImg8bit' else 'SegmentationClassAug/val_%04d.png'
      with Image.open(os.path.join(folder, 'data', source % number)) as image:
        values = np.asarray(image)
      values = values if kind == 'leftImg8bit' else np.where(values == 255, 0, values + 7).astype(np.uint8)
      Image.fromarray(values).save(os.path.join(town, f'town_000000_{number:06d}{end}'))
  for kind in ('images', 'labels'):
    os.makedirs(os.path.join(folder, 'mine', kind))
  for number in range(6):
    shutil.copy(os.path.join(folder, f'data/JPEGImages/train_{number:04d}.jpg'),
                os.path.join(folder, f'mine/images/{number}.jpg'))
    with Image.open(os.path.join(folder, f'data/SegmentationClassAug/train_{number:04d}.png')) as label:
      mask = np.where(np.asarray(label) % 5, 255, 0).astype(np.uint8)
    Image.fromarray(mask).save(os.path.join(folder, f'mine/labels/{number}.png'))
  faults.write(os.path.join(folder, 'mine/mine.json'),
                    b'{"name": "mine", "class_names": ["ground", "toy"], "values": {"0": 0, "255": 1}}')
  with tarfile.open(os.path.join(folder, 'archive.tar.gz'), 'w:gz', compresslevel=1) as archive:
    for path in sorted(glob.glob(os.path.join(folder, 'start/model.ckpt*'))):
      archive.add(path, 'published/' + os.path.basename(path))
