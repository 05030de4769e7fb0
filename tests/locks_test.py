"""One writer at a time: the second is refused, whoever ended is recognised."""
import contextlib
import errno
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from training import locks
from utils.errors import UsageError

_HOLD = """
import sys
from training import locks
with locks.locked(sys.argv[1]):
  print('held', flush=True)
  input()
"""


class LocksTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.path = os.path.join(self.folder, locks.FILE_NAME)
    self.output = io.StringIO()

  def lock(self):
    with contextlib.redirect_stdout(self.output), locks.locked(self.folder):
      with open(self.path) as file:
        self.assertEqual(json.load(file)['pid'], os.getpid())
    self.assertFalse(os.path.exists(self.path))

  def test_other_process_is_named_and_a_killed_one_recognised(self):
    with subprocess.Popen([sys.executable, '-c', _HOLD, self.folder], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
      other.stdout.readline()
      with self.assertRaisesRegex(UsageError, f'process {other.pid} on .* trains in {self.folder}'):
        self.lock()
      self.assertTrue(os.path.exists(self.path))
      other.kill()
      other.wait()
      self.lock()
    self.assertIn(f'process {other.pid} on', self.output.getvalue())
    self.assertIn('has ended without removing its lock; taken over', self.output.getvalue())

  def write(self, holder):
    with open(self.path, 'w') as file:
      json.dump(holder, file)

  def test_other_machine_counts_as_long_as_it_touches_the_file(self):
    self.write({'host': 'another', 'pid': 7})
    with mock.patch.object(locks, '_WATCH_SECONDS', 1):
      with mock.patch.object(locks, 'touched', side_effect=range(99)):
        with self.assertRaisesRegex(UsageError, 'process 7 on another trains'):
          self.lock()
      self.lock()
    self.assertIn('process 7 on another, which trained here, has ended', self.output.getvalue())

  def test_link_is_not_followed(self):
    victim = os.path.join(self.folder, 'victim')
    with open(victim, 'w') as file:
      file.write('content')
    os.symlink(victim, self.path)
    with self.assertRaises(OSError):
      self.lock()
    with open(victim) as file:
      self.assertEqual(file.read(), 'content')

  def test_touching_keeps_what_stands_in_a_file_and_leaves_none_open(self):
    self.assertIsNone(locks.touched(self.path))
    locks.touch(os.path.join(self.folder, 'none', 'file'))  # there is no such folder
    self.write({'host': 'another', 'pid': 7})
    os.utime(self.path, (1, 1))
    before = os.listdir('/dev/fd')
    locks.touch(self.path)
    with mock.patch.object(os, 'utime', side_effect=OSError):
      locks.touch(self.path)
    self.assertEqual(os.listdir('/dev/fd'), before)
    self.assertGreater(locks.touched(self.path), 2e9)
    with open(self.path) as file:
      self.assertEqual(json.load(file)['pid'], 7)

  def test_file_of_other_content_is_no_holder(self):
    for content in ('', '[]', '{', 'null', '[' * 4096):
      with open(self.path, 'w') as file:
        file.write(content)
      self.lock()

  def test_group_whose_umask_lets_it_may_take_over(self):
    self.addCleanup(os.umask, os.umask(0o002))
    with locks.locked(self.folder):
      self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o664)

  def test_number_of_a_dead_trainings_process_that_is_taken_again_holds_no_lock(self):
    # Where the file system knows no locks, a holder that runs here counts as long as it touches the file.
    self.write({'host': socket.gethostname(), 'pid': os.getppid()})
    with (mock.patch.object(locks.fcntl, 'flock', side_effect=OSError(errno.ENOLCK, '')),
          mock.patch.object(locks, '_WATCH_SECONDS', 1)):
      with (mock.patch.object(locks, 'touched', side_effect=range(99)),
            self.assertRaisesRegex(UsageError, f'process {os.getppid()} on .* trains')):
        self.lock()
      self.lock()
      self.write({'pid': os.getppid()})
      self.lock()
    self.assertIn(f'process {os.getppid()} on this machine; watching', self.output.getvalue())


if __name__ == '__main__':
  unittest.main()
