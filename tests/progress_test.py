"""utils/progress.py: plain lines by a clock that the tests set, and the bar of a terminal."""
import io
import unittest
from unittest import mock

from utils import progress


class Terminal(io.StringIO):

  def isatty(self):
    return True


class ProgressTest(unittest.TestCase):

  def setUp(self):
    self.addCleanup(setattr, progress, 'quiet', progress.quiet)
    progress.quiet = False

  def shown(self, *updates, total=10, stderr=io.StringIO):
    """Returns what is written to stderr by updates at these times: (seconds, count, note)."""
    clock, output = mock.Mock(return_value=1000), stderr()
    with mock.patch.object(progress.time, 'monotonic', clock), mock.patch('sys.stderr', output):
      with progress.Progress(total, 'converting', 'image') as shown:
        for seconds, count, note in updates:
          clock.return_value = 1000 + seconds
          shown.update(count, note)
      self.assertEqual(shown.done, sum(count for _, count, _ in updates))
    return output.getvalue()

  def test_lines_come_every_15_seconds(self):
    printed = self.shown((1, 1, ''), (14.9, 1, ''), (15, 1, ''), (29, 1, ''), (30, 1, 'half of the next'),
                         (45, 5, ''))
    self.assertEqual(printed, 'converting: 3 of 10 images\n'
                              'converting: 5 of 10 images, half of the next\n'
                              'converting: 10 of 10 images\n')

  def test_what_cannot_be_shown_ends_nothing(self):
    class Full(io.StringIO):
      def write(self, text):
        raise OSError(28, 'No space left on device')

    class FullTerminal(Full, Terminal):
      pass

    for stderr in (Full, FullTerminal):
      self.assertEqual(self.shown((20, 1, ''), (40, 1, 'a note'), stderr=stderr), '')

  def test_total_may_be_unknown(self):
    self.assertEqual(self.shown((20, 0, 'opened')), 'converting: 0 of 10 images, opened\n')
    self.assertEqual(self.shown((20, 7, ''), total=None), 'converting: 7 images\n')

  def test_quiet_shows_nothing(self):
    progress.quiet = True
    for stderr in (io.StringIO, Terminal):
      self.assertEqual(self.shown((20, 5, 'half'), (40, 5, ''), stderr=stderr), '')

  def test_terminal_has_a_bar_and_no_lines(self):
    printed = self.shown((0.4, 1, ''), (1, 3, 'half of the next'), (20, 1, ''), stderr=Terminal)
    self.assertIn('converting:  40%|', printed)
    self.assertIn('4/10', printed)
    self.assertIn('half of the next', printed)
    self.assertNotIn('converting: 5 of', printed)
    self.assertTrue(printed.endswith('\n'))  # what is printed next has a line of its own

  def test_duration_has_hours_minutes_and_seconds(self):
    self.assertEqual([progress.duration(seconds) for seconds in (0.4, 59.6, 3725, 360000)],
                     ['0:00:00', '0:01:00', '1:02:05', '100:00:00'])


if __name__ == '__main__':
  unittest.main()
