"""tools/study.py: the lines that are trained, what is not trained twice, and the table."""
import contextlib
import io
import json
import os
import textwrap
from unittest import mock

import pytest

from dataset import tf_records
from tests.support import ROOT, FolderTest, run
from tools import study, study_runs
from utils.errors import DataError, UsageError

# Stands in for train.py: its mean IoU is --ema, and a tenth more for each seed; 0 fails.
_TRAIN = f'''
import json, os, sys
sys.path.insert(0, {ROOT!r})
import train
from commands import flags
args = train.make_parser().parse()
score = args.ema
assert score, 'no score'
with open(os.path.join(args.model_dir, 'model_config.json'), 'w') as file:
  json.dump({{'flags': flags.values(args)}}, file)
scores = [score / 2, score + 0.1 * args.seed]
with open(os.path.join(args.model_dir, 'validation.json'), 'w') as file:
  json.dump({{'format': 1, 'since': 0, 'evaluations': [
      {{'step': 10 * i, 'mean_iou': score}} for i, score in enumerate(scores, 1)]}}, file)
with open(os.path.join(args.model_dir, 'runs'), 'a') as file:
  file.write('.')
print(f'\\nDone: {{args.model_dir}} is at step 20')
'''


class StudyTest(FolderTest):
  base = ''

  def write(self, name, text):
    path = os.path.join(self.folder, name)
    with open(path, 'w') as file:
      file.write(textwrap.dedent(text))
    return path

  def study(self, changes, *argv):
    with mock.patch.object(study_runs, '_TRAIN', self.write('train.py', _TRAIN)):
      return run(study, '--base', self.write('base.flags', self.base), '--changes',
                 self.write('a.changes', changes), '--output_dir', os.path.join(self.folder, 'out'), *argv)

  def test_lines_are_compared_with_the_first_and_trained_once(self):
    changes = '''
      # A comment.
      base: --ema 0.4
      one more: --ema 0.45 \\
        --flip off  # within the spread
      better: --ema 0.6 --pre_trained_model 'T/a#2'
      worse: --ema 0.2
    '''
    printed = self.study(changes, '--seeds', 2, '--jobs', 3)
    for line in ('| base | `--ema 0.4` | 40.00, 50.00 | 45.00 | 7.07 |  |',
                 '| one more | `--ema 0.45 --flip off` | 45.00, 55.00 | 50.00 | 7.07 '
                 '| +5.00, within the spread |',
                 "| better | `--ema 0.6 --pre_trained_model 'T/a#2'` | 60.00, 70.00 | 65.00 | 7.07 | +20.00",
                 '| worse | `--ema 0.2` | 20.00, 30.00 | 25.00 | 7.07 | -20.00, worse |'):
      self.assertIn(line, printed)
    self.assertTrue(os.path.getsize(os.path.join(self.folder, 'out', 'curves.png')))
    printed = self.study(changes, '--seeds', 3)
    self.assertIn('40.00, 50.00, 60.00 | 50.00 | 10.00 |', printed)
    for seed in range(3):
      with open(os.path.join(self.folder, 'out', 'one_more', str(seed), 'runs')) as file:
        self.assertEqual(file.read(), '.')

  def test_one_seed_has_no_spread(self):
    self.assertIn('| +5.00, of one seed |', self.study('a: --ema 0.4\nb: --ema 0.45\n', '--seeds', 1))

  def test_seeds_may_stop_early_and_a_run_without_scores_is_named(self):
    row = study_runs.Row(None, [[(10, .25), (20, .5), (30, .5)], [(10, .75), (20, .25)]])
    self.assertEqual(study_runs.mean_curve(row), ([10, 20], [.5, .375]))
    self.study('a: --ema 0.4\n', '--seeds', 1)
    os.remove(os.path.join(self.folder, 'out', 'a', '0', 'validation.json'))
    with self.assertRaisesRegex(DataError, 'out/a/0 holds a run without any score; remove the folder'):
      self.study('a: --ema 0.4\n', '--seeds', 1)

  def test_a_run_that_fails_is_named(self):
    with (contextlib.redirect_stderr(io.StringIO()),
          self.assertRaisesRegex(DataError, r'b, seed 0 ended with status 1; .*out/b/0/train\.log says why')):
      self.study('a: --ema 0.4\nb: --ema 0\n')

  def test_a_run_of_other_flags_is_not_shown_as_one_of_these(self):
    base = 'a: --ema 0.4\n'
    self.study(base + 'b: --ema 0.5 --pre_trained_model x\n', '--seeds', 1)
    self.study(base + 'b: --ema 0.5 --pre_trained_model x --input_threads 3\n', '--seeds', 1)  # the same
    for changed, told in (
        ('b: --ema 0.6', 'out/b/0 holds .*: --pre_trained_model was x .*; --ema was 0.5 and is 0.6 now'),
        ('b: --ema 0.5 --pre_trained_model y', 'records: --pre_trained_model was x and is y now. Give'),
        ('b: --ema 0.5 --pre_trained_model x --crop_size 9 9', r'was \[513, 513\] and is \[9, 9\] now')):
      with self.assertRaisesRegex(DataError, told):
        self.study(f'{base}{changed}\nc: --ema 0.1', '--seeds', 1)
    with mock.patch.object(self, 'base', '--momentum'), self.assertRaises(SystemExit):
      self.study(base, '--seeds', 1)
    with (mock.patch.object(self, 'base', '--cache'),
          self.assertRaisesRegex(DataError, 'out/a/0 .*--cache was')):
      self.study(base, '--seeds', 1)
    self.assertFalse(os.path.exists(os.path.join(self.folder, 'out', 'c')))

  @pytest.mark.compat
  def test_a_run_of_other_records_is_not_shown_as_one_of_these(self):
    changes, argv = 'a: --ema 0.4\n', ('--seeds', 1, '--data_dir', self.folder)
    self.study(changes, *argv)
    for split, name, change in (
        ('train', 'model_config.json', lambda content, mark: {
            **content, 'history': [{'train_records': mark}]}),
        ('val', 'validation.json', lambda content, mark: {**content, 'evaluations': [
            {**entry, 'records': mark} for entry in content['evaluations']]})):
      path = os.path.join(self.folder, 'out', 'a', '0', name)
      with open(path) as file:
        content = json.load(file)
      with open(path, 'w') as file:
        json.dump(change(content, tf_records.fingerprint([self.record(f'{split}.record', b'x')])), file)
      self.study(changes, *argv)
      self.record(f'{split}.record', b'y')
      with self.assertRaisesRegex(DataError, f'out/a/0 holds .* records: the {split} records held other'):
        self.study(changes, *argv)
      self.record(f'{split}.record', b'x')

  def test_lines_that_are_none_are_refused_by_number(self):
    for text, words in (('a: --x\nb --y\n', 'line 2: give a new name'), ('a:\na: --x\n', 'line 2'),
                        ('a b:\nA_b: --xla\n', 'line 2'), ('a: --seed 3\n', 'a gives --model_dir or --seed'),
                        ('..: --x\n', 'line 1'), ('# nothing\n', 'holds no line')):
      with self.assertRaisesRegex(DataError, words):
        self.study(text)
    with self.assertRaisesRegex(UsageError, '--base /none is no file'):
      run(study, '--base', '/none', '--changes', self.write('b.changes', 'a:\n'))
