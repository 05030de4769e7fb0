"""The README against the code: its commands are run at tiny sizes, or at least parsed; its flags exist."""
import contextlib
import glob
import importlib
import io
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from unittest import mock

import numpy as np
from PIL import Image

from dataset import image_files
from tests import support, tiny_net
from utils import environment

PAGES = ['README.md', *sorted(os.path.relpath(path, support.ROOT) for path in
                              glob.glob(os.path.join(support.ROOT, 'docs', '*.md')))]
# The shell itself reads the commands; nothing but its own words is found, and of these python prints.
_SHELL = '''
python() { printf '%s\\0' "$@"; printf '\\n'; }
srun() { "$@"; }
bash() { eval "$2"; }
PATH=/nowhere
'''
# Flags that make a command tiny; the last of two equal ones counts.
_TRAINING = ('--base_architecture', tiny_net.TINY, '--pre_trained_model', 'none', '--crop_size', '33', '49',
             '--batch_size', '2', '--max_steps', '1', '--max_iter', '1', '--num_gpus', '1')
_TINY = {
    'train.py': _TRAINING,
    'evaluate.py': (), 'inference.py': (), 'export_inference_graph.py': (),
    'create_pascal_tf_record.py': ('--processes', '1'),
    'create_cityscapes_tf_record.py': ('--processes', '1', '--output_dir', 'cityscapes'),
    'tools/create_tf_record.py': (), 'tools/view_dataset.py': (), 'tools/plot_scalars.py': (),
    'dataset/make_sample_data.py': ('--num_train', '2', '--num_val', '1', '--size', '64', '80'),
}
# Commands that are parsed and not run, by a pattern of what they say, and why.
_NOT_RUN = {
    r'convert_checkpoint|xception|deeplabv3_pascal|mobilenet_v2_voc':
        'published checkpoints, which are downloaded',
    r'tools/(benchmark|gpu_)|benchmarks/|tests/(torture|fuzz)': 'minutes; these have tests of their own',
    r'/shared/|HOSTS': 'several machines, which tests/cluster_test.py has',
    r'leftImg8bit/test': "Cityscapes' own test split, which tests/evaluate_test.py stands in for",
    r'curves': 'the same training four times',
    r'--dataset cityscapes|--dataset dataset/|camvid': 'data that is downloaded',
}


def read(page):
  with open(os.path.join(support.ROOT, page), encoding='utf-8') as file:
    return file.read()


def commands(page):
  """Returns the arguments of each `python SCRIPT ...` in the page's blocks of shell, lists of str."""
  found = []
  for block in re.findall(r'^```(?:bash|sh)\n(.*?)^```', read(page), re.M | re.S):
    with tempfile.TemporaryDirectory() as folder:
      answer = subprocess.run(['bash', '-c', _SHELL + block], cwd=folder, capture_output=True, text=True,
                              env={'SLURM_PROCID': '0', 'SLURM_JOB_NODELIST': 'a'})
    calls = [line.split('\0')[:-1] for line in answer.stdout.splitlines()]
    found += [call for call in calls if call and call[0].endswith('.py')]
  return found


def module_of(script):
  return importlib.import_module(script.removesuffix('.py').replace('/', '.'))


class CommandsTest(unittest.TestCase):

  def test_every_command_of_every_page_is_one_that_the_scripts_take(self):
    count = 0
    for page in PAGES:
      for script, *argv in commands(page):
        argv = [text for text in argv if not re.fullmatch(r'\.\.\.|EVALUATION|FLAGS|TRAINING', text)]
        errors = io.StringIO()
        with self.subTest(page=page, command=(script, *argv)), contextlib.redirect_stderr(errors):
          try:
            module_of(script).make_parser().parse(argv)
          except SystemExit:
            self.fail(errors.getvalue())
        count += 1
    self.assertGreater(count, 20)

  def test_a_wrong_flag_in_the_page_would_be_seen(self):
    with tempfile.TemporaryDirectory() as folder:
      page = os.path.join(folder, 'page.md')
      with open(page, 'w') as file:
        file.write('Text\n```bash\nfor x in 1 2; do\n'
                   '  python train.py --seed $x \\\n  --bacth 3  # so\ndone\n```\n')
      self.assertEqual(commands(page), [['train.py', '--seed', x, '--bacth', '3'] for x in '12'])


class RunTest(unittest.TestCase):
  """The README's commands, in a folder that holds what it says was downloaded: first those that make data."""

  def setUp(self):
    stack = contextlib.ExitStack()
    self.addCleanup(stack.close)
    stack.enter_context(tiny_net.rows())
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    self.addCleanup(os.chdir, os.getcwd())
    os.chdir(folder)
    voc = 'dataset/VOCdevkit/VOC2012'
    support.write_layout(voc)
    os.makedirs(f'{voc}/ImageSets/Segmentation')
    for name in ('train', 'val'):
      shutil.copy(f'{voc}/{name}.txt', f'dataset/{name}.txt')
    shutil.copytree(f'{voc}/JPEGImages', 'photos')
    os.symlink(os.path.join(support.ROOT, 'recipes'), 'recipes')
    with open('photos.txt', 'w') as file:
      file.write('a.jpg\nb.jpg\n')
    shutil.copytree(f'{voc}/JPEGImages', 'mine/images')
    os.makedirs('mine/labels')
    for name in (*support.NAMES, *support.VAL_NAMES):
      with Image.open(f'{voc}/SegmentationClassAug/{name}.png') as label:
        Image.fromarray(np.where(np.asarray(label) == 1, 255, 0).astype(np.uint8)).save(
            f'mine/labels/{name}.png')
    for split in ('train', 'val'):
      for kind, ending in (('leftImg8bit', '_leftImg8bit'), ('gtFine', '_gtFine_labelIds')):
        os.makedirs(f'DIR/{kind}/{split}/ulm')
        shape = (33, 49, 3) if kind == 'leftImg8bit' else (33, 49)
        Image.fromarray(np.full(shape, 7, np.uint8)).save(
            f'DIR/{kind}/{split}/ulm/ulm_000000_000001{ending}.png')

  def place(self, command):
    makers = ('dataset/make_sample_data.py', 'create_cityscapes_tf_record.py', 'create_pascal_tf_record.py',
              'tools/create_tf_record.py')
    return makers.index(command[0]) if command[0] in makers else len(makers)

  def test_they_succeed(self):
    ran = set()
    pages = ('README.md', 'docs/data.md', 'docs/training.md', 'docs/evaluation.md')
    shown = {tuple(command): None for page in pages for command in commands(page)}  # each once, in order
    for script, *argv in sorted(shown, key=self.place):
      line = ' '.join((script, *argv))
      if script not in _TINY or any(re.search(pattern, line) for pattern in _NOT_RUN):
        continue
      with self.subTest(line), mock.patch('sys.stderr', io.StringIO()):
        printed = support.run(module_of(script), *argv, *_TINY[script])
        self.assertNotIn('Warning: there', printed)
        ran.add(script)
    self.assertLessEqual({'train.py', 'evaluate.py', 'inference.py', 'export_inference_graph.py',
                          'create_pascal_tf_record.py', 'create_cityscapes_tf_record.py',
                          'tools/create_tf_record.py'}, ran)
    for path in ('dataset/train.record', 'model/model_config.json', 'mine/train.record', 'masks/a_mask.png',
                 'export'):
      self.assertTrue(os.path.exists(path), path)


@unittest.skipUnless(shutil.which('make'), 'there is no make')
class MakeTest(unittest.TestCase):
  """What make does where a command fails, or has no stderr; this one stands in for Python."""

  def make(self, goal, shell):
    with tempfile.TemporaryDirectory() as folder:
      for name in ('.installed', '.installed-dev'):  # newer than what the requirements say
        open(os.path.join(folder, name), 'w').close()
      path = os.path.join(folder, 'run')
      with open(path, 'w') as file:
        file.write('echo "started $1"; [ "$1" != evaluate.py ] || exit 5; [ "$1" != -m ] || true >&2\n')
      return subprocess.run(['sh', '-c', f'"$@" {shell}', 'sh', 'make', goal, f'VENV={folder}',
                             f'RUN=sh {path}', f'DEMO={folder}'],
                            cwd=support.ROOT, stdout=subprocess.PIPE, text=True,
                            env={**os.environ, 'MAKEFLAGS': ''})  # not those of the make that runs tests

  def test_demo_ends_where_a_command_fails(self):
    done = self.make('demo', '2>/dev/null')
    self.assertEqual(done.returncode, 2)
    self.assertIn('started train.py', done.stdout)
    self.assertNotIn('started inference.py', done.stdout)

  def test_tests_run_without_stderr(self):
    self.assertEqual(self.make('test', '2>&-').returncode, 0)


class TablesTest(unittest.TestCase):

  def tables(self):
    """Yields (page, section's first line, cell) of the first column of each table of flags."""
    for page in PAGES:
      for table in re.findall(r'(?:^\|.*\n)+', read(page), re.M):
        head, _, *rows = table.splitlines()
        if head.split('|')[1].strip() == 'flag':
          for row in rows:
            yield page, row.split('|')[1]

  def test_every_flag_of_the_tables_is_a_flag_with_such_a_value(self):
    parsers = {script: module_of(script).make_parser() for script in (
        *(f'{name}.py' for name in support.SCRIPTS), 'tools/benchmark.py', 'tools/create_tf_record.py',
        'tools/view_dataset.py', 'tools/convert_checkpoint.py')}
    count = 0
    for page, cell in self.tables():
      for text in re.findall(r'`(--[^`]+)`', cell):
        name, *values = text.split()
        values = ['2' if re.fullmatch('[NX]', value) else value for value in values]
        with self.subTest(page=page, flag=text):
          takers = [script for script, parser in parsers.items() if name in parser._option_string_actions]
          self.assertTrue(takers, 'no script has the flag')
          self.assertTrue(any(self.takes(parsers[script], name, values) for script in takers))
          count += 1
    self.assertGreater(count, 30)

  def takes(self, parser, name, values):
    """Returns whether the parser takes the flag with these values; a bare one means any value."""
    action = parser._option_string_actions[name]
    if not values and action.nargs != 0:
      return True
    mode = ['train'] if any(not other.option_strings for other in parser._actions) else []
    with contextlib.redirect_stderr(io.StringIO()):
      try:
        parser.parse([*mode, name, *values])
      except SystemExit:
        return False
    return True

  def test_defaults_in_the_tables_are_those_of_the_parsers(self):
    # A number in a row of the table of training is the flag's default; words and N are examples.
    parser = module_of('train.py').make_parser()
    wanted = {'crop_size': (513, 513), 'batch_size': 10, 'output_stride': 16, 'save_checkpoints_secs': 600,
              'keep_checkpoint_max': 5}
    self.assertEqual({name: parser.defaults[name] for name in wanted}, wanted)
    cells = ' '.join(cell for _, cell in self.tables())
    shown = {name: tuple(map(int, values.split())) for name, values in re.findall(
        r'`--(\w+) (\d+(?: \d+)*)`', cells)}
    self.assertLessEqual(wanted.keys(), shown.keys())
    for name, values in shown.items():
      if name not in parser.defaults:  # of another script
        continue
      default = parser.defaults[name]
      with self.subTest(name):
        self.assertEqual(values, tuple(default) if isinstance(default, (tuple, list)) else (default,))


class PlacesTest(unittest.TestCase):
  """What texts say of files, in all pages and all code."""

  def test_files_that_are_named_exist_and_hold_what_is_named(self):
    listed = subprocess.run(['git', 'ls-files'], cwd=support.ROOT, capture_output=True, text=True)
    folders = '|'.join(name for name in os.listdir(support.ROOT) if os.path.isdir(f'{support.ROOT}/{name}'))
    path = re.compile(rf'(?<![\w./-])((?:{folders})/[\w/]+\.(?:py|flags|changes|json|html|md|sh|jpg|png))\b')
    for page in listed.stdout.split() or PAGES:  # of a copy without git the pages alone
      if page.endswith(('.py', '.md', '.sh', '.flags', '.changes')) and page != 'CHANGELOG.md':
        for named in set(path.findall(read(page))) - {'tools/x.py'}:
          self.assertTrue(os.path.exists(f'{support.ROOT}/{named}'), f'{page} names {named}')
    named = r'((?:`\w+`(?:, | or | and )?)+) of ([\w/]+\.py)'
    for names, file in re.findall(named, read('docs/architecture.md')):
      for name in re.findall(r'\w+', names.replace(' or ', ' ').replace(' and ', ' ')):
        self.assertRegex(read(file), rf'\b{name}\b', file)

  def test_links_lead_to_files_and_headings(self):
    def slugs(page):
      headings = re.findall(r'^#+ (.*)', re.sub(r'(?ms)^```.*?^```', '', read(page)), re.M)
      return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}

    for page in (*PAGES, 'CONTRIBUTING.md'):
      for link in re.findall(r'\]\(([^)\s]+)\)', read(page)):
        if re.match('https?:', link):
          continue
        path, _, anchor = link.partition('#')
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        with self.subTest(page=page, link=link):
          self.assertTrue(os.path.exists(os.path.join(support.ROOT, target)))
          self.assertTrue(not anchor or anchor in slugs(target))

  def test_limit_of_pixels_is_that_of_the_code(self):
    self.assertIn(f'{image_files.MAX_PIXELS:,} pixels', read('docs/reliability.md'))
    self.assertEqual(environment._VARIABLES['OPENCV_IO_MAX_IMAGE_PIXELS'], str(image_files.MAX_PIXELS))


if __name__ == '__main__':
  unittest.main()
