"""What flags may hold."""
import argparse
import contextlib
import glob
import importlib
import io
import os
import resource
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import pytest

from commands import flags
from tests import flags_page
from tests.support import ROOT
from utils.errors import UsageError

pytestmark = pytest.mark.compat


def taken(action):
  """Returns those of some texts that the type of a flag takes."""
  texts = ('-1', '0', '0.05', '0.5', '1', '1.5', '2', '11', '1e39', '4294967296', 'auto', 'on', 'x', 'dice:2')
  for text in texts if action.type else ():
    with contextlib.suppress(argparse.ArgumentTypeError, ValueError):
      action.type(text)
      yield text


class ParserTest(unittest.TestCase):

  def parser(self):
    parser = flags.Parser('A script.', prog='script.py')
    parser.flag('folder', './x', 'folder', metavar='DIR')
    parser.flag('name', None, 'name', metavar='NAME')
    parser.flag('suffix', '', 'text', metavar='TEXT')
    parser.flag('many', (), 'files', metavar='FILE', nargs='+')
    parser.flag('switch', False, 'switch')
    for kind in ('positive_int', 'non_negative_int', 'positive_float', 'non_negative_float', 'fraction',
                 'share', 'one_or_more', 'positive_int_or_auto'):
      parser.flag(kind, None, kind, type=getattr(flags, kind))
    return parser

  def refused(self, *argv, parser=None):
    with (contextlib.redirect_stderr(io.StringIO()) as error, self.assertRaises(SystemExit) as ended):
      (parser or self.parser()).parse(list(argv))
    self.assertEqual(ended.exception.code, 2)
    self.assertRegex(error.getvalue(), r'^script.py: error: .*; see --help\n$')
    return error.getvalue()

  def test_text_that_cannot_be_a_name_is_refused(self):
    for flag, value, words in (('--folder', '', 'is empty'), ('--name', '', 'is empty'),
                               ('--folder', 'a\udcffb', 'is not UTF-8'),
                               ('--suffix', '\udc80', 'is not UTF-8'), ('--folder', 'a\0b', 'NUL byte')):
      self.assertRegex(self.refused(flag, value), f'argument {flag}: .*{words}')
    self.assertRegex(self.refused('--many', 'a', ''), 'argument --many: .* is empty')
    args = self.parser().parse(['--suffix', '', '--folder', ' [a]*\u00e9\n', '--many', 'a', 'b'])
    self.assertEqual((args.suffix, args.folder, args.many), ('', ' [a]*\u00e9\n', ['a', 'b']))

  def test_numbers_out_of_range_are_refused(self):
    for kind, texts in (
        ('positive_int', ('0', '-1', '1e5', '2.0', '', 'x', 'nan', 'inf', '2147483648', '9' * 5000)),
        ('non_negative_int', ('-1', '1e5', '2147483648')),
        ('positive_int_or_auto', ('0', 'Auto', '')),
        ('positive_float', ('0', '-1', 'nan', 'inf', '-inf', '1e39', '1e999', '1e-999', '', 'x')),
        ('non_negative_float', ('-1', 'nan', 'inf', '1e39')),
        ('one_or_more', ('0.99', 'nan', 'inf')),
        ('fraction', ('1', '-0.1', 'nan', 'inf')), ('share', ('0', '1.01', '-0.1', 'nan', 'inf'))):
      for text in texts:
        sentence = self.refused(f'--{kind}={text}')
        self.assertRegex(sentence, f'argument --{kind}: .*is not allowed; give a')
        self.assertLess(len(sentence), 200)

  def test_numbers_in_range_are_taken(self):
    for kind, text, value in (('positive_int', '2147483647', 2**31 - 1), ('non_negative_int', '0', 0),
                              ('positive_float', '1e-30', 1e-30), ('non_negative_float', '0', 0),
                              ('one_or_more', '1', 1), ('fraction', '0.9997', 0.9997), ('share', '1', 1),
                              ('positive_int_or_auto', 'auto', 'auto')):
      self.assertEqual(getattr(self.parser().parse([f'--{kind}', text]), kind), value)

  def test_a_path_that_is_none_of_this_machine_is_refused(self):
    for url in ('gs://b/x', 's3://b', 'hdfs://h:9/x', 'file:///x', 'file:/x', 'http://a/b', 'ram://x', 'C://x'):
      for flag in ('--folder', '--name', '--many', '--suffix'):
        if flag == '--suffix':  # a text
          self.assertEqual(self.parser().parse([flag, url]).suffix, url)
        else:
          self.assertIn(f'argument {flag}: {url} is a URL; give a path', self.refused(flag, url))
    paths = ['a//b', 'C:x', '//a', './gs://b', 'a/http://b', 'b:/c']
    self.assertEqual(self.parser().parse(['--many', *paths]).many, paths)

  def test_home_folder_stands_for_a_tilde_in_every_path(self):
    with mock.patch.dict(os.environ, HOME='/home/me'):
      args = self.parsed_recipe('--folder ~/x\n--name=~\n', '--many=~/y', '--suffix', '~/z')
      self.assertEqual((args.folder, args.name, args.many, args.suffix),
                       ('/home/me/x', '/home/me', ['/home/me/y'], '~/z'))
      self.assertEqual(self.parser().parse(['--many', './~', 'a~', 'a/~/b']).many, ['./~', 'a~', 'a/~/b'])

  def test_every_text_of_a_script_has_a_metavar_that_says_whether_it_is_a_path(self):
    for path in glob.glob(os.path.join(ROOT, '**', '*.py'), recursive=True):
      with open(path) as file:
        text = file.read()
      if '\ndef make_parser(' in text and os.sep + 'tests' + os.sep not in path:
        name = os.path.relpath(path, ROOT).removesuffix('.py').replace(os.sep, '.')
        for action in importlib.import_module(name).make_parser()._actions:
          if action.type is None and action.choices is None and action.nargs != 0:
            self.assertIn(action.metavar, (*flags._NAMES, 'TEXT'), f'{name}: {action.dest}')
      elif 'ArgumentParser(' in text:
        self.assertIn(os.path.relpath(path, ROOT), (
            'commands/flags.py', 'tests/study_test.py', 'tests/flags_test.py'))

  def test_no_flag_of_any_script_changes_its_name_default_or_what_it_takes(self):
    found = []
    for name in flags_page.SCRIPTS:
      parser = flags_page.parser_of(name)
      for action in sorted(parser._actions, key=lambda action: action.dest):
        # How many processes there are is the machine's matter.
        default = None if action.dest == 'processes' else parser.defaults.get(action.dest)
        found.append(f'{name} {"/".join(action.option_strings) or action.dest} {default!r} {action.nargs} '
                     + ' '.join(map(str, action.choices or taken(action))))
    with open(os.path.join(ROOT, 'tests', 'golden', 'flags.txt')) as file:
      self.assertEqual(found, file.read().splitlines())

  def test_page_of_flags_is_made_of_what_scripts_declare(self):
    with open(flags_page.PATH, encoding='utf-8') as file:
      self.assertEqual(file.read(), flags_page.page(), 'python -m tests.flags_page writes it')

  def test_a_recipe_gives_flags_and_the_command_line_wins(self):
    args = self.parsed_recipe("# What it is.\n--folder 'a b'  # a comment\n\n--positive_int=3\n--many x y\n",
                              '--positive_int', '4')
    self.assertEqual((args.folder, args.positive_int, args.many, args.name), ('a b', 4, ['x', 'y'], None))
    self.assertEqual(args.explicit, {'recipe', 'folder', 'positive_int', 'many'})

  def parsed_recipe(self, text, *argv):
    with tempfile.NamedTemporaryFile('wb') as file:
      file.write(text if isinstance(text, bytes) else text.encode())
      file.flush()
      return self.recipe_parser().parse(['--recipe', file.name, *argv])

  def test_a_recipe_reads_words_as_a_shell_does(self):
    words = ('T/exp#2', 'a"#"b', r'a\ b', r'a\ #b', "'a # b'", '"a # b"', '"a\'b"', "'#x'", r'\#x', '"$"',
             "'$HOME'", r'\$HOME', 'a\t# c', 'x # it is', 'x #"', r'C:\\d\\', '"a\u2028b"', '*', 'é', r'a\"b',
             'a# b#', "'a'#b", '5$', 'x\\\n#y', 'x \\\n  #y', '\\\nx', 'x # \\', "'`'")
    for word in words:
      shell = subprocess.run(['bash', '-c', f"set -f; printf '%s\\0' {word}\n"], capture_output=True,
                             check=True).stdout.decode().split('\0')[:-1]
      for text in (f'--many {word}', f'\n--many\t{word}\t\r\n--switch'):
        with self.subTest(text=text):
          self.assertEqual(self.parsed_recipe(text).many, shell)

  def test_a_recipe_is_taken_as_editors_and_command_lines_leave_it(self):
    for text in (b'\xef\xbb\xbf--folder x\n--name y', b'--folder x\r\n--name y\r\n',
                 b'--folder x --name y \\',
                 b'--folder=x\t\n\t--name y \n', b'--folder x \\\n  --name y \\\n',
                 b'--folder \\\nx\n\\\n--name y\n'):
      with self.subTest(text=text):
        args = self.parsed_recipe(text)
        self.assertEqual((args.folder, args.name, args.explicit), ('x', 'y', {'recipe', 'folder', 'name'}))
    self.assertEqual(self.parsed_recipe('').explicit, {'recipe'})

  def test_of_several_recipes_a_later_one_wins(self):
    with tempfile.NamedTemporaryFile('w') as file:
      file.write('--folder a\n--name b\n--many c d\n--switch')
      file.flush()
      args = self.parsed_recipe('--folder e\n--many f\n--suffix h\n', '--recipe', file.name, '--name', 'g')
      self.assertEqual((args.folder, args.name, args.many, args.switch, args.suffix),
                       ('a', 'g', ['c', 'd'], True, 'h'))
      args = self.recipe_parser().parse(['--recipe', file.name, '--no-switch'])
      self.assertEqual((args.switch, 'switch' in args.explicit), (False, True))

  def test_what_is_no_recipe_is_refused_with_its_line(self):
    for text, words in (('--positive_int 0', 'line 2: argument --positive_int: 0 is not'),
                        ('--unknown 1', 'line 2: unrecognized arguments: --unknown'),
                        ('--name\u00a0x', r"line 2: unrecognized arguments: '--name\\xa0x'"),
                        ('--switch \\ ', r"line 2: unrecognized arguments: ' ';"),
                        ('--folder ""', 'line 2: argument --folder: the text given is empty'),
                        ('--folder s3://b', 'line 2: argument --folder: s3://b is a URL'),
                        ('folder a', 'line 2: folder a is no flag'), ('\u200b--name x', r'\\u200b--name'),
                        ('--recipe=x', 'line 2: --recipe=x is no flag'),
                        ('--switch --recipe x', 'is no flag'), ('--switch --help', 'is no flag'),
                        ('--switch\n--no-switch', 'line 3: --switch stands in an earlier line'),
                        ('--folder a\n--folder b', 'line 3: --folder stands in an earlier line')):
      with tempfile.NamedTemporaryFile('w') as file:
        file.write(f'#\n{text}\n')
        file.flush()
        self.assertRegex(self.refused('--recipe', file.name, parser=self.recipe_parser()), words)
    for content, words in (
        (b'--folder "a', 'line 1: a quotation mark'), (b"\\\n--name 'a\n'", 'line 1: a quotation mark'),
        (b'--name $HOME/x', r'line 1: \$HOME/x is for a shell'), (b'--name "${X}"', r'\${X}'),
        (b'--name x`y`', '` is for a shell'), (b'\xff', 'is no UTF-8 text')):
      with self.assertRaisesRegex(UsageError, words):
        self.parsed_recipe(content)
    with self.assertRaisesRegex(UsageError, r'--recipe /none cannot be read .*recipes/demo\.flags'):
      self.recipe_parser().parse(['--recipe', '/none'])

  def recipe_parser(self):
    parser = self.parser()
    parser.shared('recipe')
    return parser

  def test_other_encoding_of_file_names_is_refused(self):
    done = subprocess.run([sys.executable, 'train.py', '--help'], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {'PYTHONCOERCECLOCALE': '0', 'LC_ALL': 'C', 'PYTHONUTF8': '0'})
    self.assertEqual(done.returncode, 2)
    self.assertRegex(done.stderr, r'^train.py: error: names of files are ascii here.*PYTHONUTF8=1')

  @unittest.skipUnless(hasattr(os, 'sched_setaffinity'), 'cores cannot be taken from a process here')
  def test_processes_are_one_for_each_core_that_is_allowed(self):
    code = ('import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from commands import flags; '
            'print(flags.SHARED["processes"]["default"])')
    answer = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    self.assertEqual(answer.stdout, '1\n', answer.stderr)

  def test_help_does_not_wait_for_tensorflow(self):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, 'train.py', '--verbose', '--help'], cwd=ROOT, check=True,
                   capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


if __name__ == '__main__':
  unittest.main()
