"""Training on several machines: what TF_CONFIG means, and two processes here in place of two machines."""
import contextlib
import functools
import glob
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import train
from commands import training_checks, training_loop
from tests.support import ROOT, FolderTest, ScriptsTest
from training import cluster, interrupts, locks
from utils.errors import UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]

WORKERS = {'worker': ['a:1', 'b:1', 'c:1']}


class TaskTest(unittest.TestCase):

  def task(self, jobs, job='worker', index=0):
    text = json.dumps({'cluster': jobs, 'task': {'type': job, 'index': index}, 'environment': 'cloud'})
    with mock.patch.dict(os.environ, {'TF_CONFIG': text}):
      return cluster.task_from_environment()

  def test_worker_0_is_the_chief_where_there_is_none(self):
    self.assertEqual(self.task(WORKERS), cluster.Task(3, 0))
    self.assertEqual(self.task(WORKERS, index='2'), cluster.Task(3, 2))
    both = {**WORKERS, 'chief': ['d:1']}
    self.assertEqual(self.task(both, 'chief'), cluster.Task(4, 0))
    self.assertEqual(self.task(both), cluster.Task(4, 1))
    self.assertEqual([cluster.Task(4, rank).is_chief for rank in range(4)], [True, False, False, False])

  def test_one_machine_is_no_cluster(self):
    self.assertEqual(self.task({'worker': ['a:1']}), cluster.Task())
    self.assertEqual(self.task({'chief': ['a:1'], 'worker': []}, 'chief'), cluster.Task())
    for text in ('', ' ', '{}', '{"cluster": {}}', '{"cluster": {"worker": []}}',
                 '{"task": {"type": "worker"}}'):
      with mock.patch.dict(os.environ, {'TF_CONFIG': text}):
        self.assertEqual(cluster.task_from_environment(), cluster.Task())
    with mock.patch.dict(os.environ):
      os.environ.pop('TF_CONFIG', None)
      self.assertEqual(cluster.task_from_environment(), cluster.Task())

  def test_what_cannot_work_gets_a_sentence(self):
    for jobs, job, index, sentence in (
        ({**WORKERS, 'ps': ['d:1']}, 'worker', 0, 'give workers and at most one chief alone'),
        (WORKERS, 'worker', 3, 'this is worker 3, which its cluster does not list'),
        ({'worker': ['a:1']}, 'worker', 1, 'this is worker 1, which its cluster does not list'),
        ({'worker': ['a:1']}, 'evaluator', 0, 'this is evaluator 0, which its cluster does not list'),
        ({'chief': ['a:1', 'b:1']}, 'chief', 0, 'at most one chief'),
        ({'chief': ['a:1'], 'worker': ['b:1', 'a:1']}, 'chief', 0, 'each with an address of its own')):
      with self.subTest(sentence), self.assertRaisesRegex(UsageError, sentence):
        self.task(jobs, job, index)

  def test_what_is_no_such_json_is_shown_beside_an_example(self):
    task = '"task": {"type": "worker", "index": 0}'
    for text in ('{', '[]', '5', 'null', '[' * 99999, '{"cluster": null}', '{"cluster": ["a:1"]}',
                 '{"cluster": {"worker": ["a:1"]}}', '{"cluster": {"worker": ["a:1", "b:1"]}}',
                 '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}',
                 *(f'{{"cluster": {{"worker": ["a:1"]}}, "task": {{"type": "worker", "index": {index}}}}}'
                   for index in ('"x"', '[0]', 'Infinity')),
                 *(f'{{"cluster": {{"worker": {addresses}}}, {task}}}'
                   for addresses in ('"a:1"', '["a"]', '[1]', '["a:1", null]', '{"0": "a:1"}'))):
      with (self.subTest(text[:60]), mock.patch.dict(os.environ, {'TF_CONFIG': text}),
            self.assertRaisesRegex(UsageError, '^TF_CONFIG is .* it should be JSON such as') as raised):
        cluster.task_from_environment()
      self.assertLess(len(str(raised.exception)), 500)

  def test_flags_of_one_machine_alone_are_refused(self):
    for flags, sentence in ((('--batch_size', 4), '--batch_size 4 cannot be shared by 3 devices'),
                            (('--batch_size', 3, '--accumulate_steps', 2), '--accumulate_steps works on one'),
                            (('--batch_size', 3, '--clean_model_dir'), '--clean_model_dir works on one')):
      args = train.make_parser().parse([str(flag) for flag in flags])
      with self.assertRaisesRegex(UsageError, sentence):
        training_checks.check_devices(args, cluster.Task(3))


class WatchingTest(FolderTest):

  def lost_after(self, changes):
    """Returns at which look, 5 s after one another, a machine whose file changes so is lost, or None."""
    values = iter([changes[0], *changes])
    with mock.patch.object(locks, 'touched', lambda path: next(values)):
      machine = cluster._Machine('')
      return next((look for look in range(len(changes)) if machine.is_lost(5)), None)

  def test_machine_is_lost_that_was_seen_alive_and_is_silent(self):
    last = 3
    for silence in ([last] * 20, [None] * 20):
      self.assertEqual(self.lost_after([None, 1, 2, last, *silence]), 3 + 9)  # over 40 s
    for never in ([None] * 50, [7] * 50, [None, *[7] * 50]):  # not there yet, or the file of an earlier run
      self.assertIsNone(self.lost_after(never))
    self.assertIsNone(self.lost_after([1, 2, 3, *[3] * 7, 4, *[4] * 7, 5]))
    # A share that tells of changes once a minute.
    late = [change for change in range(9) for _ in range(12)]
    self.assertIsNone(self.lost_after(late))
    self.assertEqual(self.lost_after(late + [8] * 20), 8 * 12 + 17)  # over 60 + 20 s

  def test_time_in_which_the_process_itself_was_stopped_is_nobodys_silence(self):
    asked = []
    clock = itertools.chain([0, 5, 5], itertools.repeat(1000))
    with (mock.patch.object(cluster, '_Machine') as machine, mock.patch.object(locks, 'TOUCH_SECONDS', 0.01),
          mock.patch.object(cluster.time, 'monotonic', lambda: next(clock))):
      machine().is_lost = lambda seconds: asked.append(seconds) or len(asked) > 1
      told = threading.Event()
      with cluster.watching(self.folder, cluster.Task(2), lambda: False, told.set):
        self.assertTrue(told.wait(60))
    self.assertEqual(asked[:2], [0.02, 0.02])

  def test_each_machine_shows_that_it_lives_until_its_end(self):
    later, told = os.path.join(self.folder, 'model'), [threading.Event() for _ in range(3)]
    with (mock.patch.object(locks, 'TOUCH_SECONDS', 0.02), mock.patch.object(cluster, '_SILENT_SECONDS', 1),
          contextlib.ExitStack() as stack):
      ends = [contextlib.ExitStack() for _ in range(3)]
      for rank, end in enumerate(ends):
        stack.enter_context(end)
        end.enter_context(cluster.watching(later, cluster.Task(4, rank + 1), lambda rank=rank: rank == 1,
                                           told[rank].set))
      os.mkdir(later)  # by the chief, whose lock is never seen
      self.wait(lambda: len(os.listdir(later)) == 3)
      time.sleep(0.2)
      self.assertEqual(sorted(os.listdir(later)), ['training.lock.1', 'training.lock.2', 'training.lock.3'])
      self.assertFalse(any(event.is_set() for event in told))
      ends[2].close()
      self.assertTrue(told[0].wait(60))
      self.assertFalse(told[1].is_set())  # which has done its last step
    self.assertEqual(os.listdir(later), [])

  def test_end_of_the_first_machine_is_no_error_for_one_that_was_told_to_stop_too(self):
    requests = interrupts.Requests()
    first, other = (functools.partial(training_loop.lose, cluster.Task(2, rank), requests) for rank in (0, 1))
    with self.assertRaisesRegex(UsageError, 'another machine of TF_CONFIG has stopped'):
      other()
    requests.signal = signal.SIGTERM
    with self.assertRaises(UsageError):
      first()
    with (mock.patch.object(os, '_exit', side_effect=SystemExit) as ended, self.assertRaises(SystemExit),
          contextlib.redirect_stdout(io.StringIO()) as printed):
      other()
    ended.assert_called_once_with(143)
    self.assertIn('Stopped by SIGTERM; all that was trained is saved', printed.getvalue())

  def wait(self, condition):
    end = time.monotonic() + 60
    while not condition():
      self.assertLess(time.monotonic(), end)
      time.sleep(0.02)


class TwoWorkersTest(ScriptsTest):
  """One step of two workers, and a run of theirs in which one hangs."""

  # As the script, but for machines that are missed sooner.
  SOON = ('import runpy; from training import cluster, locks; '
          'cluster._SILENT_SECONDS, locks.TOUCH_SECONDS = 10, 1; '
          'runpy.run_module("tests.tiny_net", run_name="__main__", alter_sys=True)')

  def worker(self, index, model_dir, *argv):
    config = {'cluster': {'worker': self.addresses}, 'task': {'type': 'worker', 'index': index}}
    command = [sys.executable, '-u', '-c', self.SOON, 'train.py', *self.flags(model_dir),
               *map(str, argv)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, 'TF_CONFIG': json.dumps(config)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

  def setUp(self):
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
      each.bind(('localhost', 0))
    self.addresses = [f'localhost:{each.getsockname()[1]}' for each in sockets]
    for each in sockets:
      each.close()

  @staticmethod
  def values(model_dir):
    """Returns name -> value of the variables; biases before batch norm are left out: their gradient is 0."""
    reader = tf.train.load_checkpoint(model_dir)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if 'biases' not in name}

  @staticmethod
  def loss(model_dir):
    path, = glob.glob(f'{model_dir}/events*')
    return [value.simple_value for event in tf.train.summary_iterator(path)
            for value in event.summary.value if value.tag == 'loss']

  def test_two_workers_equal_one(self):
    first, alone, together = (self.temporary(name) for name in ('first', 'alone', 'together'))
    self.train('--max_steps', 1, model_dir=first)
    start = ('--pre_trained_model', first, '--max_steps', 1)
    line = r'step 1/1  loss (\d+\.\d+)  cross'
    shown = float(re.search(line, self.train(*start, model_dir=alone))[1])
    workers = [self.worker(index, together, *start) for index in (0, 1)]
    printed = [worker.communicate()[0] for worker in workers]
    self.assertEqual([worker.returncode for worker in workers], [0, 0])
    self.assertIn('validation on', printed[0])
    self.assertNotIn('validation on', printed[1])
    np.testing.assert_allclose(self.loss(together), self.loss(alone), rtol=1e-5)
    self.assertEqual(len(self.loss(alone)), 1)
    self.assertAlmostEqual(float(re.search(line, printed[0])[1]), shown, delta=2e-4)
    found, expected = self.values(together), self.values(alone)
    self.assertEqual(set(found), set(expected))
    usual = {}
    for name, value in expected.items():
      kind = tuple(name.split('/')[-2:])
      usual[kind] = max(usual.get(kind, 0), np.abs(value).max())
    for name, value in expected.items():  # layers of batch norm raise rounding
      self.assertLessEqual(np.abs(found[name] - value).max(), 0.01 * usual[tuple(name.split('/')[-2:])], name)
    # The chief alone has written: no folders of other workers.
    folders = {name for name in os.listdir(together) if os.path.isdir(f'{together}/{name}')}
    self.assertEqual(folders, {'best', 'eval'})

  def test_they_resume_and_end_when_one_hangs(self):
    model = self.temporary('model')
    self.train('--max_steps', 1, model_dir=model)
    long = ('--train_epochs', 9999, '--epochs_per_eval', 9999)
    chief, other = (self.worker(index, model, *long) for index in (0, 1))
    self.assertRegex(chief.stdout.readline(), 'Resuming from .*model.ckpt-1\n')
    for line in chief.stdout:
      if line.startswith('step'):
        break
    other.send_signal(signal.SIGSTOP)  # of which TensorFlow never tells
    try:
      _, errors = chief.communicate(timeout=300)
    finally:
      for each in (chief, other):
        each.kill()
        each.communicate()
    self.assertEqual(chief.returncode, 2)
    self.assertRegex(errors.splitlines()[-1], '^train.py: error: another machine of TF_CONFIG has stopped .*'
                                              'start all of them again: training goes on from the last')


if __name__ == '__main__':
  unittest.main()
