"""Signals: the first asks and is obeyed when the work allows it, the second ends the process at once."""
import signal
import subprocess
import sys
import time
import unittest

_WORK = '''
import hashlib, sys, time
from training import interrupts
from utils import ending
requests = interrupts.Requests()
with ending.raising_signals('test', last=True), requests.catching():
  try:
    requests.deferring = sys.argv[1] == 'deferring'
    print('ready', flush=True)
    end = time.monotonic() + 20
    while time.monotonic() < end:
      time.sleep(0.01) if sys.argv[2] == 'python' else hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)
      if requests.signal: break
    print('finished', requests.signal.name, flush=True)
  except interrupts.Interrupted:
    print('interrupted', requests.signal.name, flush=True)
sys.exit(requests.status)
'''

_REPLACED = '''
import time
from training import interrupts
requests = interrupts.Requests()
try:
  with requests.catching():
    print('ready', flush=True)
    try:
      time.sleep(20)
    except BaseException:
      raise TypeError('Expected string, but got 32')
except interrupts.Interrupted:
  print('interrupted', requests.signal.name, flush=True)
'''


class InterruptsTest(unittest.TestCase):

  def run_and_signal(self, mode, *signals, work='python', pause=0.3, code=_WORK):
    """Returns the status and the last line of a process that gets the signals, `pause` seconds apart."""
    with subprocess.Popen([sys.executable, '-c', code, mode, work],
                          stdout=subprocess.PIPE, text=True) as process:
      process.stdout.readline()
      for number in signals:
        process.send_signal(number)
        time.sleep(pause)
      return process.wait(timeout=20), process.stdout.read().strip()

  def test_request_is_noted_while_there_is_something_to_finish(self):
    self.assertEqual(self.run_and_signal('deferring', signal.SIGTERM), (143, 'finished SIGTERM'))
    self.assertEqual(self.run_and_signal('deferring', signal.SIGINT), (130, 'finished SIGINT'))

  def test_request_ends_other_work_at_once(self):
    self.assertEqual(self.run_and_signal('now', signal.SIGTERM), (143, 'interrupted SIGTERM'))

  def test_error_that_a_library_makes_of_it_is_none(self):
    self.assertEqual(self.run_and_signal('', signal.SIGINT, code=_REPLACED), (0, 'interrupted SIGINT'))

  def test_signal_within_the_same_moment_does_not_break_off_the_end(self):
    status, printed = self.run_and_signal('now', signal.SIGTERM, signal.SIGTERM, pause=0)
    self.assertEqual(printed, 'interrupted SIGTERM')
    self.assertIn(status, (143, -signal.SIGTERM))  # the latter if it comes when Python itself ends

  def test_second_signal_does_not_wait_for_the_work(self):
    begun = time.monotonic()
    status, printed = self.run_and_signal('deferring', signal.SIGTERM, signal.SIGTERM, work='one instruction')
    self.assertEqual((status, printed), (143, ''))
    self.assertLess(time.monotonic() - begun, 1.5)


if __name__ == '__main__':
  unittest.main()
