"""tools/study.py: the lines that are trained, what is not trained twice, and the table."""
import contextlib
import io
import os
import textwrap
from unittest import mock

from tests.support import FolderTest, run
from tools import study, study_runs
from utils.errors import DataError, UsageError

# Stands in for train.py: its mean IoU is --score, and a tenth more for each seed. A score of 0 fails.
_TRAIN = '''
import argparse, json, os
parser = argparse.ArgumentParser()
for name in ('recipe', 'data_dir', 'model_dir', 'seed', 'score'):
  parser.add_argument('--' + name)
args, _ = parser.parse_known_args()
assert float(args.score), 'no score'
scores = [float(args.score) / 2, float(args.score) + 0.1 * int(args.seed)]
with open(os.path.join(args.model_dir, 'validation.json'), 'w') as file:
  json.dump({'format': 1, 'since': 0, 'evaluations': [
      {'step': 10 * i, 'mean_iou': score} for i, score in enumerate(scores, 1)]}, file)
with open(os.path.join(args.model_dir, 'runs'), 'a') as file:
  file.write('.')
print(f'\\nDone: {args.model_dir} is at step 20')
'''


class StudyTest(FolderTest):

  def write(self, name, text):
    path = os.path.join(self.folder, name)
    with open(path, 'w') as file:
      file.write(textwrap.dedent(text))
    return path

  def study(self, changes, *argv):
    with mock.patch.object(study_runs, '_TRAIN', self.write('train.py', _TRAIN)):
      return run(study, '--base', self.write('base.flags', ''), '--changes', self.write('a.changes', changes),
                 '--output_dir', os.path.join(self.folder, 'out'), *argv)

  def test_lines_are_compared_with_the_first_and_trained_once(self):
    changes = '''
      # A comment.
      base: --score 0.4
      one more: --score 0.45 \\
        --flip off  # within the spread
      better: --score 0.6 --x 'T/a#2'
      worse: --score 0.2
    '''
    printed = self.study(changes, '--seeds', 2, '--jobs', 3)
    for line in ('| base | `--score 0.4` | 40.00, 50.00 | 45.00 | 7.07 |  |',
                 '| one more | `--score 0.45 --flip off` | 45.00, 55.00 | 50.00 | 7.07 '
                 '| +5.00, within the spread |',
                 "| better | `--score 0.6 --x 'T/a#2'` | 60.00, 70.00 | 65.00 | 7.07 | +20.00, better |",
                 '| worse | `--score 0.2` | 20.00, 30.00 | 25.00 | 7.07 | -20.00, worse |'):
      self.assertIn(line, printed)
    self.assertTrue(os.path.getsize(os.path.join(self.folder, 'out', 'curves.png')))
    printed = self.study(changes, '--seeds', 3)
    self.assertIn('40.00, 50.00, 60.00 | 50.00 | 10.00 |', printed)
    for seed in range(3):
      with open(os.path.join(self.folder, 'out', 'one_more', str(seed), 'runs')) as file:
        self.assertEqual(file.read(), '.')

  def test_one_seed_has_no_spread(self):
    self.assertIn('| +5.00, of one seed |', self.study('a: --score 0.4\nb: --score 0.45\n', '--seeds', 1))

  def test_a_run_that_fails_is_named(self):
    with (contextlib.redirect_stderr(io.StringIO()),
          self.assertRaisesRegex(DataError, r'b, seed 0 ended with status 1; .*out/b/0/train\.log says why')):
      self.study('a: --score 0.4\nb: --score 0\n')

  def test_lines_that_are_none_are_refused_by_number(self):
    for text, words in (('a: --x\nb --y\n', 'line 2: give a new name'), ('a:\na: --x\n', 'line 2'),
                        ('..: --x\n', 'line 1'), ('# nothing\n', 'holds no line')):
      with self.assertRaisesRegex(DataError, words):
        self.study(text)
    with self.assertRaisesRegex(UsageError, '--base /none is no file'):
      run(study, '--base', '/none', '--changes', self.write('b.changes', 'a:\n'))
