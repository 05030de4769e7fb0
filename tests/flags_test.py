"""What flags may hold, and how a script starts and ends: what it prints, and with which status."""
import contextlib
import errno
import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from unittest import mock

import pytest

from cli import flags
from tests.tiny_net import TINY
from utils import ending

pytestmark = pytest.mark.compat

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SCRIPT = '''
import os, signal, sys, threading, time, warnings
sys.path.insert(0, {root!r})
from cli import flags
from utils import files
from utils.errors import DataError, UsageError

def make_parser():
  parser = flags.Parser('A script.')
  parser.flag('output_dir', {folder!r}, 'folder', metavar='DIR')
  return parser

def main(args):
{main}

if __name__ == '__main__':
  flags.run(main, make_parser())
'''
_REPORT = 'this is a defect of the program, not of your input: please report it with the output of --verbose'


class ScriptTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def write(self, main):
    """Writes script.py, whose main holds this code; returns its path."""
    path = os.path.join(self.folder, 'script.py')
    with open(path, 'w') as file:
      file.write(_SCRIPT.format(root=ROOT, folder=self.folder,
                                main=textwrap.indent(textwrap.dedent(main), '  ')))
    return path

  def run_script(self, main, *argv, env=None, shell='"$@"'):
    """Runs a script with that main through a line of the shell, in which "$@" is its command."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('TF_CPP_MIN_LOG_LEVEL', 'PYTHONUNBUFFERED')}
    return subprocess.run(['bash', '-c', shell, 'bash', sys.executable, self.write(main), *argv],
                          env={**environment, **(env or {})}, capture_output=True, text=True, timeout=120)


class QuietTest(ScriptTest):
  noise = '''
      import tensorflow.compat.v1 as tf
      from absl import logging
      print('a line')
      tf.train.checkpoint_exists('/nowhere')
      tf.logging.set_verbosity(tf.logging.INFO)
      tf.logging.error('an error of TensorFlow')
      logging.error('an error of absl')
      warnings.warn('a warning')
      os.write(2, b'a line on stderr\\n')
  '''

  def test_libraries_print_nothing(self):
    answer = self.run_script(self.noise)
    self.assertEqual((answer.stdout, answer.stderr), ('a line\n', 'a line on stderr\n'))

  def test_verbose_shows_what_they_print(self):
    answer = self.run_script(self.noise, '--verbose')
    for words in ('TensorFlow binary|oneDNN|cuda', 'is deprecated', 'an error of TensorFlow',
                  'an error of absl', 'a warning', 'a line on stderr'):
      self.assertRegex(answer.stderr, words)
    self.assertEqual(answer.stdout, 'a line\n')

  def test_spawned_processes_are_as_quiet(self):
    main = '''
      import multiprocessing
      process = multiprocessing.get_context('spawn').Process(target=noise)
      process.start()
      process.join()
    '''
    script = self.write(main)
    with open(script) as file:
      code = file.read()
    noise = 'def noise():\n' + textwrap.indent(textwrap.dedent(self.noise), '  ')
    with open(script, 'w') as file:
      file.write(code.replace('def main', noise + '\ndef main'))
    for argv, expected in ((), 'a line on stderr\n'), (('--verbose',), None):
      answer = subprocess.run([sys.executable, script, *argv], capture_output=True, text=True)
      self.assertEqual(answer.stdout, 'a line\n')
      if expected:
        self.assertEqual(answer.stderr, expected)
      else:
        self.assertIn('is deprecated', answer.stderr)

  def test_what_fails_in_an_import_of_tensorflow_is_told(self):
    os.mkdir(f'{self.folder}/tensorflow')
    with open(f'{self.folder}/tensorflow/__init__.py', 'w') as file:
      file.write('import os\nos.write(2, b"noise")\nraise ImportError("libcud.so is missing")\n')
    answer = self.run_script('import tensorflow')
    self.assertEqual(answer.stderr, 'script.py: error: libcud.so is missing; install what requirements.txt '
                                    'lists\n')
    self.assertEqual(answer.returncode, 1)

  def test_running_in_a_process_leaves_its_settings_alone(self):
    import logging
    import warnings
    before = [logging.root.manager.disable, list(warnings.filters), sys.unraisablehook,
              *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))]
    flags.run(lambda args: None, flags.Parser('A script.'), [])
    self.assertEqual([logging.root.manager.disable, list(warnings.filters), sys.unraisablehook,
                      *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))], before)


class EveryScriptTest(unittest.TestCase):

  def test_scripts_print_their_own_lines_alone(self):
    with tempfile.TemporaryDirectory() as folder:
      data, model = f'{folder}/data', f'{folder}/model'
      pictures = ('--data_dir', f'{data}/JPEGImages')
      with open(f'{folder}/list.txt', 'w') as file:
        file.write('val_0000.jpg\n')
      for script, argv, lines in (
          ('dataset/make_sample_data', (
              '--output_dir', data, '--num_train', 4, '--num_val', 1, '--size', 64, 80),
           ['4 training and 1 held-out', 'descriptor: ']),
          ('create_pascal_tf_record', (
              '--dataset', f'{data}/sample.json', '--data_dir', data, '--output_path', folder,
              '--train_data_list', f'{data}/train.txt', '--valid_data_list', f'{data}/val.txt'),
           ['Wrote 4 examples', 'Wrote 1 examples']),
          ('train', (
              '--dataset', f'{data}/sample.json', '--data_dir', folder, '--model_dir', model,
              '--base_architecture', TINY, '--pre_trained_model', 'none', '--batch_size', 4,
              '--train_epochs', 1, '--crop_size', 33, 33, '--batch_norm_decay', 0.5), None),
          ('evaluate', ('--model_dir', model, '--data_dir', folder), None),
          ('inference', ('--model_dir', model, *pictures, '--infer_data_list', f'{folder}/list.txt',
                         '--output_dir', f'{folder}/masks'),
           ['Predicting 1 images by .*; on the CPU: ', '1 masks are in']),
          ('export_inference_graph', ('--model_dir', model, '--export_dir', f'{folder}/export'),
           ['Exporting .*; on the CPU: ', '.*exported']),
      ):
        with self.subTest(script):
          environment = {name: value for name, value in os.environ.items() if name != 'TF_CPP_MIN_LOG_LEVEL'}
          command = [sys.executable, '-m', 'tests.tiny_net', f'{script}.py', *map(str, argv)]
          answer = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=environment)
          self.assertEqual(answer.returncode, 0, answer.stderr)
          printed = [line for line in re.split(r'[\r\n]+', answer.stderr) if line]
          self.assertEqual([line for line in printed if '%|' not in line], [])  # progress bars
          for words in ('WARNING', 'oneDNN', 'cuda', 'deprecated'):
            self.assertNotIn(words, answer.stdout)
          if lines:
            self.assertEqual(len(answer.stdout.splitlines()), len(lines))
            self.assertRegex(answer.stdout, '^' + '.*\n'.join(lines))


class ErrorTest(ScriptTest):

  def check(self, main, status, stderr, *argv, **kwargs):
    answer = self.run_script(main, *argv, **kwargs)
    self.assertEqual((answer.returncode, answer.stderr), (status, stderr))
    return answer

  def test_every_exception_is_one_sentence_and_a_status(self):
    for raised, status, sentence in (
        ('UsageError("no such thing")', 2, 'error: no such thing'),
        ('DataError("no such file")', 1, 'error: no such file'),
        ('KeyboardInterrupt', 130, 'interrupted'),
        ('KeyError("a\\nb")', 1, f"error: KeyError: 'a\\nb'; {_REPORT}"),
        ('ValueError("first\\nsecond")', 1, f'error: ValueError: first; {_REPORT}'),
        ('ValueError', 1, f'error: ValueError: no message; {_REPORT}'),
        ('MemoryError("Unable to allocate 37 GiB")', 2,
         'error: the memory is not enough (Unable to allocate), or other programs hold it; give smaller '
         'images, crops or batches, or fewer processes, or end other programs'),
        ('PermissionError(13, "Permission denied", "/x")', 1,
         "error: '/x' cannot be used (Permission denied); check who owns it and what its permissions are, or "
         'give another'),
        ('DataError("\\x1b[2J\\x07")', 1, 'error: \\x1b[2J\\x07'),
        ('DataError("\\udcff")', 1, 'error: \\udcff'),
    ):
      with self.subTest(raised):
        self.check(f'print("a line")\nraise {raised}', status, f'script.py: {sentence}\n')

  def test_verbose_shows_the_traceback_first(self):
    answer = self.run_script('raise DataError("no such file") from KeyError("x")', '--verbose')
    self.assertRegex(answer.stderr, r"(?s)^KeyError: 'x'\n.*Traceback.*DataError: no such file\n"
                                    r'script.py: error: no such file\n$')

  def test_what_the_system_refuses_says_what_to_do(self):
    def explained(error):
      status, sentence = ending.explain(error, lambda: [])
      self.assertIn(status, (1, 2))
      self.assertNotIn('defect', sentence)
      return sentence

    for code, words in ((errno.EIO, 'failing'), (errno.EMFILE, 'ulimit -n'), (errno.EROFS, 'only be read'),
                        (errno.EFBIG, 'limit of file sizes'), (errno.EAGAIN, 'ulimit -u'),
                        (errno.ENOMEM, 'smaller'), (errno.ENAMETOOLONG, 'check'),
                        (errno.ENOENT, 'not there')):
      sentence = explained(OSError(code, os.strerror(code), '/a/b'))
      self.assertIn(words, sentence)
      if code != errno.ENOMEM:
        self.assertIn("'/a/b'", sentence)
    self.assertIn("'b' cannot be used", explained(OSError(errno.EPERM, 'No', 'a', None, 'b')))
    # Libraries quote the system: TensorFlow, OpenCV, Python's threads.
    self.assertIn("no space is left in '/m'", explained(RuntimeError('/m/a.ckpt; No space left on device')))
    self.assertIn('not enough', explained(RuntimeError('(-4:Insufficient memory) Failed to allocate')))
    self.assertIn('ulimit -u', explained(RuntimeError("can't start new thread")))
    error = RuntimeError('writing failed')
    error.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), '/m/x')
    self.assertIn("no space is left in '/m' (Disk quota exceeded: '/m/x')", explained(error))

  def test_full_disk_is_looked_for_among_the_flags(self):
    sizes = {'/big': 8e9, self.folder: 2e6, '/cd': 0}
    devices = {place: index for index, place in enumerate(sizes)}

    def statvfs(path):
      return mock.Mock(f_bavail=sizes[path], f_frsize=1, f_flag=os.ST_RDONLY * (path == '/cd'))

    places = [('--data_dir', '/cd'), ('--model_dir', f'{self.folder}/new/model'), ('--json', '/big')]
    with (mock.patch.object(ending.os, 'statvfs', statvfs),
          mock.patch.object(ending.os, 'stat', lambda path: mock.Mock(st_dev=devices[path])),
          mock.patch.object(ending.os.path, 'exists', sizes.__contains__),
          mock.patch.object(ending.tempfile, 'gettempdir', lambda: '/big')):
      _, sentence = ending.explain(OSError(errno.ENOSPC, 'No space left on device'), lambda: places)
    self.assertEqual(sentence, 'error: no space is left on a disk, probably that of --model_dir '
                               f'{self.folder} (2.0 MB are free); what was complete before is kept. Free '
                               'some there, or give another folder, and start again')

  def test_full_disk_under_stdout_is_told_once(self):
    self.check('print("x")', 1, 'script.py: error: no space is left to write to (No space left on device: '
               "'standard output'); what was complete before is kept. Free some, or raise the quota or the "
               'limit of file sizes, and start again\n', shell='"$@" >/dev/full')
    answer = self.run_script('while True: print("x")', shell='"$@" >/dev/full')
    self.assertRegex(answer.stderr, r'^script.py: error: no space is left .*\n$')
    self.assertEqual(answer.returncode, 1)

  def test_a_reader_of_stdout_that_leaves_ends_the_script_without_a_word(self):
    for main, argv, status in (('while True: print("x")', (), 141), ('print("x" * 99999)', (), 141),
                               ('pass', ('--help',), 0)):
      answer = self.run_script(main, *argv, shell='"$@" | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}')
      self.assertEqual(answer.stderr, '')
      self.assertIn(int(answer.stdout), {status, 0} if argv else {status})

  def test_closed_standard_files_do_no_harm(self):
    code = '''
      with open(args.output_dir + '/data', 'w') as file:
        print('a line')
        sys.stderr and sys.stderr.write('a line')
        file.write(str(file.fileno()))
    '''
    for closed in ('>&-', '2>&-', '<&- >&- 2>&-'):
      self.assertEqual(self.run_script(code, shell='"$@" ' + closed).returncode, 0)
      with open(f'{self.folder}/data') as file:
        self.assertGreater(int(file.read()), 2)
    self.assertEqual(self.run_script('raise DataError("x")', shell='"$@" >&- 2>&-').returncode, 1)

  def test_names_that_are_no_text_can_be_printed(self):
    answer = self.run_script('print("\\udcff", "\\u00e9")', env={'PYTHONIOENCODING': 'ascii'})
    self.assertEqual((answer.stdout, answer.returncode), ('\\udcff \\xe9\n', 0))

  def test_a_progress_bar_does_not_share_the_line_of_the_error(self):
    answer = self.run_script('from tqdm import tqdm\nbar = tqdm(total=3)\nraise DataError("no such file")')
    self.assertRegex(answer.stderr, r'0/3.*\nscript.py: error: no such file\n$')

  def test_errors_in_other_threads_are_one_sentence_too(self):
    self.check('thread = threading.Thread(target=lambda: {}[1])\nthread.start()\nthread.join()', 0,
               f'script.py: error: KeyError: 1; {_REPORT}\n')


class SignalTest(ScriptTest):
  waiting = '''
      with files.replacing(args.output_dir + '/result') as temporary:
        open(temporary, 'w').close()
        try:
          print('ready', flush=True)
          WAIT
        finally:
          time.sleep(.5)
  '''

  def signalled(self, main, *signals, pause=0.):
    """Starts a script and sends it signals once it is ready; returns its status, stderr and seconds."""
    # A shell in the background lets its children ignore SIGINT, which they would pass on.
    process = subprocess.Popen([sys.executable, self.write(main)], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    self.assertEqual(process.stdout.readline(), 'ready\n')
    began = time.monotonic()
    for number, signum in enumerate(signals):
      time.sleep(pause if number else 0.1)
      process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.monotonic() - began

  def test_signals_end_a_script_with_a_word_and_remove_its_temporary_files(self):
    for signum, status, word in ((signal.SIGTERM, 143, 'terminated'), (signal.SIGINT, 130, 'interrupted'),
                                 (signal.SIGHUP, 129, 'hung up')):
      found = self.signalled(self.waiting.replace('WAIT', 'time.sleep(60)'), signum)
      self.assertEqual(found[:2], (status, f'script.py: {word}\n'))
      self.assertEqual(os.listdir(self.folder), ['script.py'])

  def test_two_at_once_count_as_one(self):
    found = self.signalled(self.waiting.replace('WAIT', 'time.sleep(60)'), *[signal.SIGTERM] * 3, pause=0.03)
    self.assertEqual(found[:2], (143, 'script.py: terminated\n'))
    self.assertEqual(os.listdir(self.folder), ['script.py'])

  def test_a_second_one_ends_even_an_operation_that_python_waits_for(self):
    wait = 'import hashlib; hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)'
    main = self.waiting.replace('WAIT', wait)
    status, errors, seconds = self.signalled(main, *[signal.SIGTERM] * 2, pause=1.3)
    self.assertEqual((status, errors), (143, '\nscript.py: terminated\n'))
    self.assertLess(seconds, 20)

  def test_handlers_of_a_scripts_own_take_precedence(self):
    main = '''
      got = []
      signal.signal(signal.SIGTERM, lambda *_: got.append(1))
      print('ready', flush=True)
      while not got:
        time.sleep(.01)
      sys.exit(7)
    '''
    self.assertEqual(self.signalled(main, signal.SIGTERM)[:2], (7, ''))

  def test_ignored_signals_stay_ignored(self):
    path = self.write('os.kill(os.getpid(), signal.SIGHUP)\nprint("done")')
    answer = subprocess.run(['bash', '-c', f'trap "" HUP; {sys.executable} {path}'], text=True,
                            capture_output=True)
    self.assertEqual((answer.stdout, answer.stderr, answer.returncode), ('done\n', '', 0))

  def test_one_that_comes_where_nothing_can_be_raised_is_not_lost(self):
    main = '''
      class Object:
        def __del__(self):
          print('ready', flush=True)
          time.sleep(1)
      Object()
      time.sleep(60)
    '''
    self.assertEqual(self.signalled(main, signal.SIGTERM)[:2], (143, 'script.py: terminated\n'))


class ParserTest(unittest.TestCase):

  def parser(self):
    parser = flags.Parser('A script.', prog='script.py')
    parser.flag('folder', './x', 'folder', metavar='DIR')
    parser.flag('name', None, 'name', metavar='NAME')
    parser.flag('suffix', '', 'text', metavar='TEXT')
    parser.flag('many', (), 'files', metavar='FILE', nargs='+')
    for kind in ('positive_int', 'non_negative_int', 'positive_float', 'non_negative_float', 'fraction',
                 'one_or_more', 'positive_int_or_auto'):
      parser.flag(kind, None, kind, type=getattr(flags, kind))
    return parser

  def refused(self, *argv):
    with (contextlib.redirect_stderr(io.StringIO()) as error, self.assertRaises(SystemExit) as ended):
      self.parser().parse(list(argv))
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
        ('fraction', ('1', '-0.1', 'nan', 'inf'))):
      for text in texts:
        sentence = self.refused(f'--{kind}={text}')
        self.assertRegex(sentence, f'argument --{kind}: .*is not allowed; give a')
        self.assertLess(len(sentence), 200)

  def test_numbers_in_range_are_taken(self):
    for kind, text, value in (('positive_int', '2147483647', 2**31 - 1), ('non_negative_int', '0', 0),
                              ('positive_float', '1e-30', 1e-30), ('non_negative_float', '0', 0),
                              ('one_or_more', '1', 1), ('fraction', '0.9997', 0.9997),
                              ('positive_int_or_auto', 'auto', 'auto')):
      self.assertEqual(getattr(self.parser().parse([f'--{kind}', text]), kind), value)

  def test_places_are_what_is_read_or_written(self):
    parser = self.parser()
    args = parser.parse(['--many', 'a', 'b', '--name', 'c', '--suffix', 'd'])
    self.assertEqual(parser.places(args), [('--folder', './x'), ('--many', 'a'), ('--many', 'b')])

  def test_help_does_not_wait_for_tensorflow(self):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, 'train.py', '--verbose', '--help'], cwd=ROOT, check=True,
                   capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


if __name__ == '__main__':
  unittest.main()
