"""commands/checkpoint_watch.py: which checkpoints come in which order, by a clock that the tests set."""
import contextlib
import io
import os
import tempfile
import unittest
from unittest import mock

from commands import checkpoint_watch


class WatchTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def save(self, *steps):
    for step in steps:
      open(os.path.join(self.folder, f'model.ckpt-{step}.index'), 'w').close()

  def watch(self, events, call):
    """Returns what call() gives and what it prints; each sleep does what `events` has for it, by number."""
    clock, naps = [1000], []

    def sleep(seconds):
      clock[0] += seconds
      naps.append(seconds)
      self.assertLess(len(naps), 200, 'it never ends')
      events.get(len(naps), lambda: None)()

    self.touched = None
    with (mock.patch.object(checkpoint_watch.time, 'sleep', sleep),
          mock.patch.object(checkpoint_watch.time, 'monotonic', lambda: clock[0]),
          mock.patch.object(checkpoint_watch.locks, 'touched', lambda _: self.touched),
          contextlib.redirect_stdout(io.StringIO()) as output):
      found = call()
    self.naps = len(naps)
    return found, output.getvalue()

  def touch(self, value):
    return lambda: setattr(self, 'touched', value)

  def steps(self, events=None, **options):
    found, printed = self.watch(
        events or {}, lambda: list(checkpoint_watch.checkpoints(self.folder, **options)))
    for step, prefix in found:
      self.assertEqual(prefix, os.path.join(self.folder, f'model.ckpt-{step}'))
    return [step for step, _ in found], printed

  def test_those_that_are_there_come_by_their_steps(self):
    self.save(10, 9, 100)
    self.assertEqual(self.steps(all_of_them=True, watch=False), ([9, 10, 100], ''))
    self.assertEqual(self.steps(all_of_them=False, watch=False), ([100], ''))
    self.assertEqual(self.naps, 0)

  def test_watch_ends_a_minute_after_the_last_sign_of_life(self):
    self.save(1)
    steps, printed = self.steps({15: lambda: self.save(2), 30: self.touch(5), 40: self.touch(5)},
                                all_of_them=False, watch=True)
    self.assertEqual(steps, [1, 2])
    # Of 3 s each: a checkpoint comes within the first 20, and a touch of the lock within 20 more.
    self.assertEqual(self.naps, 30 + 20)
    self.assertEqual(printed.count(f'Waiting for the next checkpoint in {self.folder}; Ctrl-C'), 2)
    self.assertIn(f'No training has written to {self.folder} for 60 s; it has ended', printed)

  def test_first_is_waited_for_while_a_training_lives(self):
    found, printed = self.watch({3: lambda: self.save(1)},
                                lambda: checkpoint_watch.wait_for_first(self.folder))
    self.assertEqual((found, self.naps), (None, 3))
    self.assertEqual(printed, f'Waiting for the first checkpoint in {self.folder}; Ctrl-C ends this\n')
    self.assertEqual(self.watch({}, lambda: checkpoint_watch.wait_for_first(self.folder)), (None, ''))
    _, printed = self.watch({}, lambda: checkpoint_watch.wait_for_first(os.path.join(self.folder, 'none')))
    self.assertEqual(self.naps, 20)
    self.assertIn('for 60 s; it has ended', printed)


if __name__ == '__main__':
  unittest.main()
