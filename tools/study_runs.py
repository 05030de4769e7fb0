"""Trains the runs of a study, and says what came of them (tools/study.py)."""
import concurrent.futures
import os
import re
import shlex
import statistics
import subprocess
import sys
import typing

from commands import flags, model_config
from dataset import tf_records
from tools import scalar_curves
from train import make_parser
from training.validation import Validation
from utils import files
from utils.errors import DataError, UsageError

_TRAIN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'train.py')
_LOG = 'train.log'


class Change(typing.NamedTuple):
  """A line of the study: its name, and its flags of train.py, a list of str."""
  name: str
  flags: list[str]

  @property
  def folder(self) -> str:
    return self.name.replace(' ', '_')


class Row(typing.NamedTuple):
  """What came of a line, in mean IoU.

  Attributes:
    change: Change.
    curves: a list for each seed, of (step, mean IoU) of every evaluation.
  """
  change: Change
  curves: list[list[tuple[int, float]]]

  @property
  def scores(self) -> list[float]:
    """The mean IoU of each seed's last evaluation."""
    return [curve[-1][1] for curve in self.curves]

  @property
  def mean(self) -> float:
    return statistics.fmean(self.scores)

  @property
  def spread(self) -> float:
    """The standard deviation over the seeds; 0 of one."""
    return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0


def main(args):
  """Trains what is not there yet, and prints the table."""
  changes = read_changes(args.changes)
  if not os.path.isfile(args.base):
    raise UsageError(f'--base {args.base} is no file; give a recipe of train.py')
  runs = [(change, seed) for seed in range(args.seeds) for change in changes]  # all lines soon have one
  for run in runs:
    check(args, *run)
  files.make_folder(args.output_dir, '--output_dir')
  with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
    list(pool.map(lambda run: train(args, *run), runs))
  rows = [Row(change, [curve(folder_of(args, change, seed)) for seed in range(args.seeds)])
          for change in changes]
  print(table(rows))
  picture = os.path.join(args.output_dir, 'curves.png')
  scalar_curves.draw(picture, 'mean IoU of validation', {row.change.name: mean_curve(row) for row in rows})
  print(f'The learning curves are {picture}')


def read_changes(path: str) -> list[Change]:
  """Returns the Changes in a file; raises DataError for a line that is none."""
  changes: list[Change] = []
  for place, words in flags.file_of_flags('--changes', path, os.path.join('study', '*.changes')):
    end = next((number for number, word in enumerate(words) if ':' in word), -1)
    last, colon, first_flag = words[end].partition(':')
    name = ' '.join([*words[:end], last])
    change = Change(name, [first_flag] * bool(first_flag) + words[end + 1:])
    taken = [one.folder.lower() for one in changes]  # as some disks see it
    if not (colon and re.fullmatch(r'\w[\w .,+-]*', name)) or change.folder.lower() in taken:
      raise DataError(f'{place}give a new name, a colon and flags of train.py, such as cosine: '
                      '--learning_rate_policy cosine')
    changes.append(change)
  if not changes:
    raise DataError(f'--changes {path} holds no line to train; give a name, a colon and flags in each')
  return changes


def folder_of(args, change, seed):
  return os.path.join(args.output_dir, change.folder, str(seed))


def flags_of(args, change, seed):
  return ['--recipe', args.base, '--data_dir', args.data_dir, '--model_dir', folder_of(args, change, seed),
          '--seed', str(seed), '--quiet', *change.flags]


def check(args, change, seed):
  """Raises DataError if train.py does not take the flags of a run, or its folder holds another one."""
  folder, parser = folder_of(args, change, seed), make_parser()
  given = parser.parse(flags_of(args, change, seed), f'--changes {args.changes}, {change.name}: ')
  if (given.model_dir, given.seed) != (folder, seed):
    raise DataError(f'{change.name} gives --model_dir or --seed, which are those of each run; leave them out')
  path = os.path.join(folder, model_config.FILE_NAME)
  config = files.read_json(path, path, None) if os.path.exists(path) else {}
  before = config.get('flags', {})
  told = [f'--{name} was {before[name]} and is {value} now' for name, value in flags.values(given).items()
          if name in {*given.recorded, 'pre_trained_model'} & {*before} and value != 'auto'
          and (list(value) if isinstance(value, tuple) else value) != before[name]]
  trained, scored = config.get('history') or [{}], [{}, *Validation(folder).evaluations]
  marks = {'train': trained[-1].get('train_records'), 'val': scored[-1].get('records')}
  told = told or [f'the {split} records held other examples' for split, mark in marks.items()
                  if mark and os.path.isdir(given.data_dir)  # all may be trained, and the records gone
                  and mark != tf_records.fingerprint(tf_records.record_files(given.data_dir, split))]
  if told:
    raise DataError(f'{folder} holds a run of other flags or records: {"; ".join(told)}. Give another '
                    f'--output_dir or another name than {change.name}, or remove the folder')


def train(args, change, seed):
  """Trains a run in a process of its own, unless it is there; raises DataError if it fails."""
  folder = folder_of(args, change, seed)
  log = os.path.join(folder, _LOG)
  if os.path.exists(log):
    with open(log, encoding='utf-8', errors='replace') as file:
      if f'\nDone: {folder} is at step' in file.read():
        return
  files.make_folder(folder, '--output_dir')
  command = [sys.executable, _TRAIN, *flags_of(args, change, seed)]
  with open(log, 'a', encoding='utf-8') as file:
    file.write(shlex.join(command) + '\n')
    file.flush()
    status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
  if status:
    raise DataError(f'{change.name}, seed {seed} ended with status {status}; {log} says why, and the same '
                    'command goes on')
  print(f'{change.name}, seed {seed}: mean IoU {curve(folder)[-1][1]:.4f}', flush=True)


def curve(folder: str) -> list[tuple[int, float]]:
  """Returns the (step, mean IoU) of a run's evaluations, in order."""
  found = [(entry['step'], entry['mean_iou']) for entry in Validation(folder).evaluations]
  if not found:
    raise DataError(f'{folder} holds a run without any score; remove the folder, and it is trained anew')
  return found


def mean_curve(row: Row) -> tuple[list[int], list[float]]:
  """Returns the steps of the evaluations that all seeds have, and their mean IoU at each."""
  shared = list(zip(*row.curves, strict=False))  # a run may have stopped early
  return ([points[0][0] for points in shared],
          [statistics.fmean(score for _, score in points) for points in shared])


def table(rows: list[Row]) -> str:
  """Returns a table in Markdown: the scores in percent, each row beside the first."""
  first, *_ = rows
  lines = ['| change | flags | mean IoU of each seed | mean | spread | against the first |',
           '|---|---|---|---|---|---|']
  for row in rows:
    each = ', '.join(f'{100 * score:.2f}' for score in row.scores)
    given = f'`{shlex.join(row.change.flags)}`' if row.change.flags else ''
    lines.append(f'| {row.change.name} | {given} | {each} | {100 * row.mean:.2f} | {100 * row.spread:.2f} | '
                 f'{"" if row is first else comparison(row, first)} |')
  return '\n'.join(lines)


def comparison(row: Row, first: Row) -> str:
  """Returns the difference in percent, and whether it is larger than the spread of either."""
  difference = row.mean - first.mean
  if len(row.scores) == 1:
    return f'{100 * difference:+.2f}, of one seed'
  is_clear = abs(difference) > max(row.spread, first.spread)
  return f'{100 * difference:+.2f}, ' + (('better' if difference > 0 else 'worse') if is_clear
                                         else 'within the spread')
