"""A function of many items by several processes: the order, where it runs, and a process that is killed."""
import operator
import os
import subprocess
import sys
import unittest

from tests.support import ROOT
from utils import workers
from utils.errors import DataError


def process_of(item):
  return os.getpid()


def failing(item):
  if item == 11:
    raise ValueError(f'item {item}')
  return item


class MapInOrderTest(unittest.TestCase):

  def test_results_have_the_order_of_the_items(self):
    # 7 batches of 8 for 2 processes: more than wait at a time.
    results = list(workers.map_in_order(operator.neg, list(range(50)), 2))
    self.assertEqual(results, [-item for item in range(50)])

  def test_one_batch_or_one_process_stays_in_this_one(self):
    self.assertEqual(set(workers.map_in_order(process_of, list(range(8)), 4)), {os.getpid()})
    self.assertEqual(set(workers.map_in_order(process_of, list(range(50)), 1)), {os.getpid()})
    self.assertEqual(list(workers.map_in_order(process_of, [], 4)), [])

  def test_two_batches_are_computed_elsewhere(self):
    found = set(workers.map_in_order(process_of, list(range(9)), 4))
    self.assertNotIn(os.getpid(), found)
    self.assertLessEqual(len(found), 2)

  def test_errors_of_the_function_are_raised_here_after_what_came_before(self):
    results = []
    with self.assertRaisesRegex(ValueError, 'item 11'):
      for result in workers.map_in_order(failing, list(range(30)), 2):
        results.append(result)
    self.assertEqual(results, list(range(8)))  # its batch has none

  def test_killed_process_is_a_sentence(self):
    with self.assertRaisesRegex(DataError, 'was killed, maybe for want of memory; give fewer --processes'):
      list(workers.map_in_order(os._exit, [9] * 9, 2))

  def test_signals_of_a_terminal_are_left_to_this_process(self):
    # They come while a process starts; multiprocessing's own, which frees semaphores, gets them too.
    program = ('import os, signal\n'
               'from utils import workers\n'
               'for signum in (signal.SIGINT, signal.SIGHUP): signal.signal(signum, lambda *_: None)\n'
               'with workers.Pool(1) as pool:\n'
               '  found = pool.submit(abs, -7)\n'
               '  for signum in (signal.SIGINT, signal.SIGHUP): os.killpg(0, signum)\n'
               '  print(found.result())\n')
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True,
                          start_new_session=True, check=False)
    self.assertEqual((done.returncode, done.stdout, done.stderr), (0, '7\n', ''))

  def test_any_number_is_running_or_not(self):
    with subprocess.Popen([sys.executable, '-c', ''], stdout=subprocess.DEVNULL) as ended:
      ended.wait()
    for number in (0, -1, -os.getppid(), 99999999999, 10 ** 30, ended.pid, os.getpid(), True, 1.5, '1',
                   None, [1]):
      self.assertFalse(workers.is_running(number), number)
    self.assertTrue(workers.is_running(os.getppid()))
    self.assertTrue(workers.is_running(1))


if __name__ == '__main__':
  unittest.main()
