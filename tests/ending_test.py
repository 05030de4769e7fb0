"""How a script ends: with which status and sentence, on errors and on signals."""
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import pytest

from tests.support import ROOT, ScriptTest
from utils import ending

pytestmark = pytest.mark.compat

_REPORT = 'this is a defect of the program, not of your input: please report it with the output of --verbose'


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
         'error: the memory is not enough, or other programs hold it (Unable to allocate 37 GiB); give '
         'smaller images, crops or batches, or fewer processes, or end other programs'),
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
      status, sentence = ending.explain(error)
      self.assertIn(status, (1, 2))
      self.assertNotIn('defect', sentence)
      return sentence

    for code, words in ((errno.EIO, 'Input/output'), (errno.EMFILE, 'ulimit -n'),
                        (errno.EROFS, 'only be read'), (errno.EFBIG, 'limit of file sizes'),
                        (errno.ENOMEM, 'smaller'), (errno.ENAMETOOLONG, 'check'),
                        (errno.ENOENT, 'No such file')):
      sentence = explained(OSError(code, os.strerror(code), '/a/b'))
      self.assertIn(words, sentence)
      if code != errno.ENOMEM:
        self.assertIn("'/a/b'", sentence)
    self.assertIn("'b' cannot be used", explained(OSError(errno.EPERM, 'No', 'a', None, 'b')))
    # Libraries quote the system: TensorFlow, OpenCV, Python's threads.
    self.assertIn("no space is left in '/m'", explained(RuntimeError('/m/a.ckpt; No space left on device')))
    self.assertIn('not enough', explained(RuntimeError('(-4:Insufficient memory) Failed to allocate')))
    self.assertIn('fewer processes', explained(RuntimeError("can't start new thread")))
    with (mock.patch.object(tempfile, '_candidate_tempdir_list', lambda: ['/dev/null/a']),
          mock.patch.object(tempfile, 'tempdir', None)):
      try:
        tempfile.mkdtemp()
      except OSError as error:
        self.assertIn("No usable temporary directory found in ['/dev/null/a']", explained(error))
    error = RuntimeError('writing failed')
    error.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), '/m/x')
    self.assertIn("no space is left in '/m' (Disk quota exceeded: '/m/x')", explained(error))

  def test_full_disk_under_stdout_is_told_once(self):
    self.check('print("x")', 1, 'script.py: error: no space is left to write to (No space left on device: '
               "'standard output'); what was complete before is kept. Free some, or raise the quota or the "
               'limit of file sizes, and start again\n', shell='"$@" >/dev/full')

  def test_a_reader_of_stdout_that_leaves_ends_the_script_without_a_word(self):
    for main, argv, status in (('while True: print("x")', (), 141), ('print("x" * 99999)', (), 141),
                               ('pass', ('--help',), 0)):
      answer = self.run_script(main, *argv, shell='"$@" | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}')
      self.assertEqual(answer.stderr, '')
      self.assertIn(int(answer.stdout), {status, 0} if argv else {status})

  def test_closed_standard_files_do_no_harm(self):
    code = '''
      import subprocess
      from utils import progress
      with open(args.output_dir + '/data', 'w') as file:
        with progress.Progress(2, 'reading', 'image') as shown:
          shown.update()
        for stream in (sys.stdout, sys.stderr):
          stream.write('a line')
          stream.flush()
        sys.stdin.readline()
        file.write(f'{file.fileno()} ')
        file.flush()
        subprocess.run([sys.executable, '-c', 'import sys; assert sys.stdin and sys.stdout and sys.stderr'],
                       check=True)
    '''
    for closed in ('<&-', '>&-', '2>&-', '<&- >&- 2>&-'):
      with self.subTest(closed):
        self.assertEqual(self.run_script(code, shell=f'"$@" {closed}').returncode, 0)
        with open(f'{self.folder}/data') as file:
          self.assertGreater(int(file.read()), 2)
    self.assertEqual(self.run_script('raise DataError("x")', shell='"$@" >&- 2>&-').returncode, 1)

  def test_names_that_are_no_text_can_be_printed(self):
    answer = self.run_script('print("\\udcff", "\\u00e9")', env={'PYTHONIOENCODING': 'ascii'})
    self.assertEqual((answer.stdout, answer.returncode), ('\\udcff \\xe9\n', 0))

  def test_errors_in_other_threads_are_one_sentence_too(self):
    self.check('thread = threading.Thread(target=lambda: {}[1])\nthread.start()\nthread.join()', 0,
               f'script.py: error: KeyError: 1; {_REPORT}\n')

  def test_usage_error_in_another_thread_ends_the_process_whatever_the_main_one_waits_for(self):
    self.check("""
        def watch():
          raise UsageError('a machine is lost')
        threading.Thread(target=watch).start()
        time.sleep(600)""", 2, 'script.py: error: a machine is lost\n')


class SystemTest(ScriptTest):

  def test_windows_is_told_what_to_use(self):
    script = self.write('print("runs")')
    for begin in ('sys.modules["fcntl"] = None', 'del signal.SIGHUP'):  # neither is there on Windows
      with open(script) as file:
        code = file.read()
      with open(script, 'w') as file:
        file.write(f'import signal, sys\n{begin}\n{code}')
      answer = subprocess.run([sys.executable, script], capture_output=True, text=True)
      self.assertEqual((answer.returncode, answer.stdout), (1, ''))
      self.assertRegex(answer.stderr, r'^script.py: error: .* has no signals .* Linux or macOS, .*WSL 2.*\n$')


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
    process = subprocess.Popen([sys.executable, self.write(main)], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE)
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

  def test_error_that_a_library_makes_of_a_signal_is_none(self):
    main = '''
      try:
        print('ready', flush=True)
        time.sleep(60)
      except BaseException:
        raise TypeError('Expected string, but got 32')
    '''
    self.assertEqual(self.signalled(main, signal.SIGINT)[:2], (130, 'script.py: interrupted\n'))

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
    answer = subprocess.run(['bash', '-c', f'trap "" HUP; "{sys.executable}" {path}'], text=True,
                            capture_output=True)
    self.assertEqual((answer.stdout, answer.stderr, answer.returncode), ('done\n', '', 0))

  def test_children_of_tests_that_nohup_or_a_background_began_ignore_none(self):
    shown = 'import signal; print([n for n in (1, 2, 15) if signal.getsignal(n) == signal.SIG_IGN])'
    code = f'import subprocess, sys, tests.conftest; subprocess.run([sys.executable, "-c", "{shown}"])'
    answer = subprocess.run(['bash', '-c', f"trap '' HUP INT TERM; '{sys.executable}' -c '{code}'"],
                            cwd=ROOT, text=True, capture_output=True)
    self.assertEqual(answer.stdout, '[]\n', answer.stderr)


if __name__ == '__main__':
  unittest.main()
