"""Scripts run as children, and a few stories of tests/torture/torture.py."""
import os
import signal
import subprocess
import sys
import tempfile
import unittest

import tensorflow.compat.v1 as tf

from tests import children
from tests.support import write_events
from tests.torture import checks, lab, stories
from tests.torture.stories import Plan, Step

# Two steps an epoch on 20 images.
MODEL_FLAGS = ('--base_architecture', 'mobilenet_v2_dm05', '--pre_trained_model', 'none', '--crop_size', '33',
               '33', '--batch_norm_decay', '0.5', '--batch_size', '10')


def tensors(prefix):
  """Returns dict: name -> bytes of all that a checkpoint holds."""
  reader = tf.train.load_checkpoint(prefix)
  return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


class ChildrenTest(unittest.TestCase):

  @classmethod
  def setUpClass(cls):
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.folder = folder.name
    cls.runner = children.Children()
    cls.addClassCleanup(cls.runner.close)
    cls.runner.run('dataset/make_sample_data.py', ['--output_dir', f'{cls.folder}/data', '--num_train', 20,
                                                   '--num_val', 4, '--size', 64, 80])
    cls.conversion = cls.runner.run('create_pascal_tf_record.py', [
        '--dataset', f'{cls.folder}/data/sample.json', '--data_dir', f'{cls.folder}/data', '--output_path',
        cls.folder, '--train_data_list', f'{cls.folder}/data/train.txt', '--valid_data_list',
        f'{cls.folder}/data/val.txt', '--processes', 2])

  def training(self, model_dir, epochs):
    return ['--dataset', f'{self.folder}/data/sample.json', '--data_dir', self.folder, *MODEL_FLAGS,
            '--model_dir', f'{self.folder}/{model_dir}', '--train_epochs', str(epochs)]

  def test_child_trains_what_a_process_of_its_own_trains(self):
    child = self.runner.run('train.py', self.training('forked', 1), timeout=100)
    self.assertEqual(child.status, 0, child.output)
    subprocess.run([sys.executable, 'train.py', *self.training('alone', 1)], cwd=children.ROOT, check=True,
                   capture_output=True)
    self.assertEqual(tensors(f'{self.folder}/forked/model.ckpt-2'),
                     tensors(f'{self.folder}/alone/model.ckpt-2'))

  def test_script_with_processes_of_its_own_works(self):
    self.assertEqual(self.conversion.status, 0, self.conversion.output)
    self.assertIn('Wrote 20 examples', self.conversion.stdout)
    self.assertTrue(os.path.isfile(f'{self.folder}/train.record'))

  def test_status_and_sentence_are_the_scripts(self):
    child = self.runner.run('train.py', ['--bacth'])
    self.assertEqual((child.status, child.stdout, child.stderr),
                     (2, '', 'train.py: error: unrecognized arguments: --bacth; see --help\n'))

  def test_kill_and_timeout_end_it(self):
    child = self.runner.start('train.py', self.training('killed', 500))
    child.kill(signal.SIGKILL)
    self.assertEqual((child.wait(), child.timed_out), (-9, False))
    child = self.runner.start('train.py', self.training('late', 500))
    self.assertEqual((child.wait(1), child.timed_out), (-9, True))

  def test_limits_and_folder_reach_the_child(self):
    draw = ['--output_dir', 'below', '--num_train', 1, '--num_val', 1, '--size', 64, 80]
    child = self.runner.run('dataset/make_sample_data.py', draw, cwd=self.folder, limits={'FSIZE': 100})
    self.assertIn('File too large', child.output)
    child = self.runner.run('dataset/make_sample_data.py', draw, cwd=self.folder)
    self.assertEqual(child.status, 0, child.output)
    self.assertTrue(os.path.isdir(f'{self.folder}/below'))


class StoriesTest(unittest.TestCase):
  """Some of what `make torture` does, and that it would see what is wrong."""

  @classmethod
  def setUpClass(cls):
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.runner = children.Children()
    cls.addClassCleanup(cls.runner.close)
    cls.lab = lab.Lab(cls.runner, folder.name)

  def tell(self, name, *steps):
    """Tells a story of the shortest training in a folder of that name; returns what went wrong, or None."""
    story = stories.Story(self.lab, Plan('this story', 'short', name, False, list(steps)))
    self.addCleanup(story.remove)
    error = story.run()
    return error and story.report(error)

  def test_killed_damaged_and_refused_training_ends_as_the_undisturbed_one(self):
    each_step = ['--save_checkpoints_steps', 1]
    error = self.tell(
        'm[lr=0.1]',
        Step('train', neutral=each_step, interim=0),
        Step('use', script='evaluate.py', best=True, during=False, when=None, neutral=[], ended=None),
        Step('refused', how='swapped'),
        Step('kill', when=('files', 8, 0), signals=['KILL'], pause=0, neutral=each_step),
        Step('damage', what=[('newest data', 'zero tail', 0.5), ('checkpoint', 'garbage', 0.5)]),
        Step('train', neutral=each_step, interim=None))
    self.assertIsNone(error, error)
    self.assertEqual(self.lab.seen['ends equal to the undisturbed run'], 1)
    self.assertEqual(self.lab.seen['evaluate.py of best'], 1)  # its folder is known
    self.assertEqual(self.lab.seen['refused: swapped'], 1)

  def test_stories_are_functions_of_seed_and_number(self):
    plans = [stories.plan(*pair) for pair in ((3, 1), (3, 1), (3, 2), (4, 1))]
    told = [[(step.kind, step.options) for step in plan.steps] for plan in plans]
    self.assertEqual(told[0], told[1])
    self.assertEqual(len({str(steps) for steps in told}), 3)

  def test_files_that_a_model_folder_may_hold_are_known(self):
    with tempfile.TemporaryDirectory() as folder:
      for parent in ('evaluate/val', 'best/evaluate/val_ema', 'eval', 'other'):
        write_events(os.path.join(folder, parent), 'loss', [1])
      unknown = {path.split('/')[0] for path in checks.look(folder).unknown}
    self.assertEqual(unknown, {'other'})

  def test_wrong_values_gaps_and_doubled_points_are_seen(self):
    with tempfile.TemporaryDirectory() as folder:
      write_events(folder, 'loss', [3, 2, 1])
      curve, doubled = checks.curves(folder)
      self.assertEqual([step for step, _ in curve['loss']], [0, 10, 20])
      self.assertEqual(doubled, [])
      self.assertIsNone(checks.difference(curve, curve))
      self.assertIn('points at steps [0, 20]', checks.difference({'loss': curve['loss'][::2]}, curve))
      other = {'loss': [*curve['loss'][:2], (20, 'another value')]}
      self.assertIn('other values than in the undisturbed run at steps [20]',
                    checks.difference(other, curve))
      path, = (os.path.join(folder, name) for name in os.listdir(folder))
      with open(path, 'rb') as file:
        content = file.read()
      with open(path + '.2', 'wb') as file:
        file.write(content)
      _, doubled = checks.curves(folder)
      self.assertEqual(doubled[0], 'loss has a point at step 0 after one at 20')


if __name__ == '__main__':
  unittest.main()
