"""The hook of a training, in a session of its own: what it writes at which step, and when it stops."""
import os
import signal
import tempfile
import unittest
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf

from training import interrupts, training_hooks
from utils.errors import DataError, UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]


class TrainingHookTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.evaluated = []
    self.requests = interrupts.Requests()

  def train(self, losses, stops_at=None, at_step=lambda step: None, **plan):
    """Trains one step for each loss; returns the hook."""
    def evaluate(step, checkpoint):
      self.evaluated.append((step, os.path.basename(checkpoint)))
      return step == stops_at

    hook = training_hooks.TrainingHook(
        training_hooks.Plan(self.folder, **plan), tf.train.Saver, self.requests, evaluate,
        lambda step: [f'image {step}', 'another'])
    with tf.Graph().as_default():
      step = tf.train.get_or_create_global_step()
      loss = tf.gather(tf.constant(losses), step)
      with tf.control_dependencies([loss]):
        train_op = tf.assign_add(step, 1)
      training_hooks.watch(loss, tf.constant(0.25))
      tf.summary.scalar('loss', loss)
      with tf.train.MonitoredSession(tf.train.ChiefSessionCreator(), hooks=[hook]) as session:
        while not session.should_stop() and hook.step < len(losses):
          at_step(hook.step)
          session.run(train_op)
    return hook

  def checkpoints(self):
    return sorted(name for name in os.listdir(self.folder) if name.endswith('.index'))

  def test_it_saves_at_the_ends_of_rounds_and_at_multiples_and_keeps_the_newest(self):
    hook = self.train([1.] * 7, is_end={4, 7}.__contains__, save_steps=3, keep_max=3)
    self.assertEqual(self.checkpoints(), [f'model.ckpt-{step}.index' for step in (4, 6, 7)])  # not 3
    self.assertEqual(self.evaluated, [(4, 'model.ckpt-4'), (7, 'model.ckpt-7')])
    self.assertEqual(hook.saved, os.path.join(self.folder, 'model.ckpt-7'))

  def test_points_are_those_of_the_first_step_and_then_of_every_so_many(self):
    self.train([4., 3., 2., 1., 0.5], is_end={5}.__contains__, summary_steps=2)
    self.assertEqual(self.points('loss'), {1: 4, 3: 2, 5: 0.5})

  def points(self, tag):
    """Returns step -> value of a curve."""
    events = (event for name in os.listdir(self.folder) if 'tfevents' in name
              for event in tf.train.summary_iterator(os.path.join(self.folder, name)))
    return {event.step: value.simple_value for event in events for value in event.summary.value
            if value.tag == tag}

  def test_an_evaluation_can_end_the_training(self):
    self.assertEqual(self.train([1.] * 9, stops_at=4, is_end={2, 4, 6}.__contains__).step, 4)
    self.assertEqual([step for step, _ in self.evaluated], [2, 4])

  def test_a_signal_saves_the_step_and_evaluates_nothing(self):
    def at_step(step):
      if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)

    with self.requests.catching():
      hook = self.train([1.] * 9, at_step=at_step, is_end={3}.__contains__)
    self.assertEqual((hook.step, self.checkpoints(), self.evaluated), (3, ['model.ckpt-3.index'], []))

  def test_a_loss_that_is_not_finite_is_not_saved_and_names_step_rate_and_images(self):
    with self.assertRaisesRegex(DataError, (
        'the loss of step 3 is nan, at the learning rate 0.25; nothing of it was saved, and .*model.ckpt-2 '
        'is .* trained on image 3, another')):
      self.train([1., 1., float('nan')], is_end={3}.__contains__, save_steps=2)
    self.assertEqual(self.checkpoints(), ['model.ckpt-2.index'])

  def test_an_error_that_sessions_take_for_the_end_of_the_data_ends_nothing_as_done(self):
    for message, kind, expected in (
        ('m/model.ckpt-2.data; File too large', DataError, "no space is left in 'm'"),
        ('Read fewer bytes than requested', RuntimeError, 'Read fewer bytes than requested')):
      error = tf.errors.OutOfRangeError(None, None, message)
      with (self.subTest(message), self.assertRaisesRegex(kind, expected),
            mock.patch.object(training_hooks.checkpoint_store, 'save', side_effect=error)):
        self.train([1.] * 2, is_end={2}.__contains__)

  def test_a_session_at_another_step_is_refused(self):
    with self.assertRaisesRegex(UsageError, 'the session is at step 0 and not at 5'):
      self.train([1.] * 6, is_end={6}.__contains__, first=5)

  def test_a_machine_that_does_not_write_writes_nothing(self):
    self.train([1.] * 3, is_end={3}.__contains__, save_steps=1, writes=False)
    self.assertEqual((os.listdir(self.folder), self.evaluated), ([], []))


if __name__ == '__main__':
  unittest.main()
