"""A training that is interrupted, damaged and continued: bit by bit the one that was left alone."""
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import tempfile
import unittest
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf

import create_pascal_tf_record
import evaluate
import export_inference_graph
import train
from commands import training_loop
from dataset import make_sample_data
from tests import support, tiny_net
from tests.support import run
from training import training_hooks
from utils.errors import DataError, UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]


class Killed(BaseException):
  """Nobody catches it, as nobody does SIGKILL."""


@contextlib.contextmanager
def at_step(number, action):
  """Within it, trainings call `action` after the hook's work of a step."""
  after_run = training_hooks.TrainingHook.after_run

  def wrapped(self, *args):
    after_run(self, *args)
    if self.step == number:
      action()

  with mock.patch.object(training_hooks.TrainingHook, 'after_run', wrapped):
    yield


def kill():
  raise Killed()


def variables(prefix):
  reader = tf.train.load_checkpoint(prefix)
  return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


def curve(folder, kind='simple_value'):
  """Returns the points of a kind in all event files of a folder, in order: (tag, step, value)."""
  points = []
  for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'events*')), key=os.path.getmtime):
    for event in tf.train.summary_iterator(path):
      points += [(value.tag, event.step, value.simple_value) for value in event.summary.value
                 if value.HasField(kind) and value.tag not in ('global_step/sec', 'images_per_second')]
  return points


class ResumeTest(unittest.TestCase):
  """10 training images in batches of 5: 2 steps an epoch."""

  @classmethod
  def setUpClass(cls):
    stack = contextlib.ExitStack()
    cls.addClassCleanup(stack.close)
    stack.enter_context(tiny_net.rows())
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.folder = folder.name
    data = f'{cls.folder}/data'
    run(make_sample_data, '--output_dir', data, '--num_train', 10, '--num_val', 2, '--size', 64, 80)
    run(create_pascal_tf_record, '--dataset', f'{data}/sample.json', '--data_dir', data, '--output_path',
        cls.folder, '--train_data_list', f'{data}/train.txt', '--valid_data_list', f'{data}/val.txt',
        '--processes', 1)
    cls.dataset = f'{data}/sample.json'

  def train(self, name, *argv):
    return run(train, '--dataset', self.dataset, '--data_dir', self.folder, '--model_dir', self.model(name),
               '--base_architecture', tiny_net.LEAN, '--pre_trained_model', 'none',
               '--crop_size', 33, 33, '--batch_norm_decay', 0.5, '--batch_size', 5,
               '--save_summary_steps', 2, *argv)

  def model(self, name):
    return os.path.join(self.folder, name)

  def steps(self, name):
    return sorted(int(path.split('-')[-1][:-6]) for path in glob.glob(
        os.path.join(glob.escape(self.model(name)), '*.index')))

  def scores(self, name):
    return support.evaluations(self.model(name))

  def check_same(self, name, other, step):
    self.assertEqual(variables(f'{self.model(name)}/model.ckpt-{step}'),
                     variables(f'{self.model(other)}/model.ckpt-{step}'))
    for folder in ('', '/eval'):
      self.assertEqual(curve(self.model(name) + folder), curve(self.model(other) + folder))
    self.assertEqual(self.scores(name), self.scores(other))


class ExactTest(ResumeTest):

  def test_killed_training_goes_on_as_if_it_had_not_been(self):
    flags = ('--train_epochs', 4, '--epochs_per_eval', 2, '--save_checkpoints_steps', 3)
    self.train('whole', *flags)
    with at_step(1, kill), self.assertRaises(Killed):  # nothing was saved
      self.train('parts', *flags)
    with mock.patch.object(training_loop.Training, 'evaluate', side_effect=Killed), self.assertRaises(Killed):
      self.train('parts', *flags)  # at step 4, where a round has been saved and not yet scored
    self.assertFalse(os.path.exists(f'{self.model("parts")}/validation.json'))
    with at_step(5, kill), self.assertRaises(Killed):  # the round is scored first, then comes a lost step
      self.train('parts', *flags)
    self.assertEqual([entry['step'] for entry in self.scores('parts')], [4])
    self.train('parts', *flags, '--input_threads', 2)
    self.check_same('parts', 'whole', 8)
    self.assertEqual([tag[1] for tag in curve(self.model('parts')) if tag[0] == 'loss'], [1, 3, 5, 7])
    told = [step for tag, step, _ in curve(self.model('parts'), 'tensor') if tag == 'configuration']
    self.assertEqual(told, [0, 4])  # once for each start of which something is left
    self.assertEqual(self.steps('parts'), [3, 4, 6, 8])

  def test_also_with_accumulated_batches_cached_images_and_dropout(self):
    flags = ('--train_epochs', 3, '--accumulate_steps', 2, '--batch_size', 2, '--cache',
             '--epochs_per_eval', 3, '--save_checkpoints_steps', 2, '--auxiliary_head', 0.4,
             '--loss', 'cross_entropy,dice', '--hard_pixels', 0.5, '--hard_pixels_steps', 9)
    self.train('whole_sum', *flags)
    with at_step(5, kill), self.assertRaises(Killed):
      self.train('parts_sum', *flags)
    self.train('parts_sum', *flags)
    self.check_same('parts_sum', 'whole_sum', 7)


class FoldersTest(ResumeTest):

  def test_folder_of_any_name_is_scored_by_its_weights(self):
    for name in ('plain', "m[lr=0.1] *?'ü"):
      self.train(name, '--train_epochs', 1)
      self.train(name, '--train_epochs', 2)
    self.assertEqual(self.scores('plain'), self.scores(name))
    printed = [run(evaluate, '--model_dir', self.model(folder), '--data_dir', self.folder)
               for folder in ('plain', name)]
    self.assertEqual(*(text.split('\n', 1)[1] for text in printed))
    best = os.path.join(self.model(name), 'best')  # and it is evaluated and exported
    mean = f'{max(entry["mean_iou"] for entry in self.scores(name)):.4f}'
    self.assertIn(f'mean Intersection over Union: {mean}',
                  run(evaluate, '--model_dir', best, '--data_dir', self.folder))
    self.assertIn('checked against it', run(export_inference_graph, '--model_dir', best, '--export_dir',
                                            self.model('export')))

  def test_resumed_checkpoint_may_be_removed_while_training_goes_on(self):
    self.train('kept', '--train_epochs', 2)
    printed = self.train('kept', '--train_epochs', 4, '--keep_checkpoint_max', 1)
    self.assertEqual(re.findall(r'^step (\d), validation', printed, re.M), ['6', '8'])
    self.assertEqual(self.steps('kept'), [8])
    self.train('kept', '--train_epochs', 7, '--keep_checkpoint_max', 2)
    self.assertEqual(self.steps('kept'), [12, 14])

  def test_other_batch_size_counts_the_images(self):
    self.train('images', '--train_epochs', 2)
    printed = self.train('images', '--train_epochs', 4, '--batch_size', 2)
    self.assertIn('--batch_size 5 became 2', printed)
    self.assertIn('Training steps 5 to 14: 20 images, epochs 2 to 4, 2 images a step', printed)
    printed = self.train('images', '--train_epochs', 5, '--batch_size', 10)
    self.assertIn('Training steps 15 to 15: 10 images, epochs 4 to 5', printed)
    with open(f'{self.model("images")}/model_config.json') as file:
      history = json.load(file)['history']
    self.assertEqual([(entry['step'], entry['images_per_step']) for entry in history],
                     [(0, 5), (4, 2), (14, 10)])

  def test_signal_saves_the_step(self):
    with at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM)), self.assertRaises(SystemExit) as ended:
      self.train('stopped', '--train_epochs', 4, '--epochs_per_eval', 4)
    self.assertEqual(ended.exception.code, 143)
    self.assertEqual(self.steps('stopped'), [3])
    self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

  def test_model_folder_of_an_earlier_version_keeps_its_curve(self):
    self.train('older', '--train_epochs', 2)
    os.remove(f'{self.model("older")}/validation.json')
    for epochs in (3, 4):  # the first resume begins a new file, the second one goes on with it
      self.train('older', '--train_epochs', epochs)
    steps = [step for tag, step, _ in curve(self.model('older') + '/eval') if tag == 'mean_iou']
    self.assertEqual(steps, [2, 4, 6, 8])

  def test_empty_folder_may_be_cleaned(self):
    os.mkdir(self.model('empty'))
    self.train('empty', '--max_steps', 1, '--clean_model_dir')
    self.assertEqual(self.steps('empty'), [1])

  def test_clean_model_dir_keeps_the_folder_and_follows_a_link(self):
    self.train('content', '--max_steps', 1)
    os.symlink(self.model('content'), self.model('link'))
    self.train('link', '--max_steps', 2, '--clean_model_dir', '--epochs_per_eval', 26)
    self.assertTrue(os.path.islink(self.model('link')))
    self.assertEqual(self.steps('content'), [2])


class EarlierResultsTest(ResumeTest):
  """Scores, patience and the best count for the training, weights and records that they are of."""

  def test_other_records_begin_anew_and_so_does_a_training_without_a_checkpoint(self):
    flags = ('--train_epochs', 40, '--early_stopping_evals', 1)
    with support.scoring(.9, .8):
      self.train('earlier', *flags)
    moved = self.model('data_moved')  # the same records, and no index
    os.mkdir(moved)
    for split in ('train', 'val'):
      shutil.copyfile(f'{self.folder}/{split}.record', f'{moved}/{split}.record')
    self.assertIn('Nothing left to train: the last 1', self.train('earlier', *flags, '--data_dir', moved))
    other = self.model('data_other')
    os.mkdir(other)
    for split, source in (('train', 'val'), ('val', 'train')):
      shutil.copyfile(f'{self.folder}/{source}.record', f'{other}/{split}.record')
    with support.scoring(.5):
      printed = self.train('earlier', *flags, '--data_dir', other, '--batch_size', 2, '--max_steps', 5)
    self.assertIn('The training records hold other examples than before: earlier evaluations do', printed)
    self.assertIn('The validation records hold other examples than before: earlier scores count no', printed)
    self.assertRegex(printed, 'The best so far, step 2 in .*, was scored on other images or by')
    self.assertEqual([entry['mean_iou'] for entry in self.scores('earlier')], [.9, .8, .5])

    for path in glob.glob(f'{self.model("earlier")}/model.ckpt-*'):
      os.remove(path)
    with self.assertRaisesRegex(UsageError, 'model_dir, which a new one begins without; give another'):
      self.train('earlier', *flags, '--pre_trained_model', self.model('earlier/best'))
    with support.scoring(.2):
      printed = self.train('earlier', *flags, '--max_steps', 1)
    self.assertRegex(printed, 'best, .*/validation.json, .*/eval, .* were moved to .*: training begins anew')
    self.assertEqual([entry['mean_iou'] for entry in self.scores('earlier')], [.2])
    points = curve(self.model('earlier/eval'))
    self.assertEqual([step for tag, step, _ in points if tag == 'mean_iou'], [1])


class BadNumbersTest(ResumeTest):

  def test_overflow_stops_before_it_is_saved_and_names_the_batch(self):
    self.train('diverged', '--train_epochs', 1)
    with self.assertRaises(DataError) as raised:
      self.train('diverged', '--train_epochs', 3, '--initial_learning_rate', 1e30)
    self.assertRegex(str(raised.exception), (
        r'the loss of step 4 is (nan|inf), at the learning rate 1e\+30; nothing of it was saved, and '
        r'.*model.ckpt-2 is the last good checkpoint\. The step was trained on (train_\d{4}\.jpg, ){4}'
        r'train_\d{4}\.jpg\. Lower --initial_learning_rate'))
    self.assertEqual(self.steps('diverged'), [2])
    self.assertIn('model.ckpt-2', self.train('diverged', '--train_epochs', 2))

  def test_weights_that_overflow_in_a_step_that_is_to_be_saved(self):
    with self.assertRaisesRegex(
        DataError, 'after step 1 the values of .* are not finite.*nothing was saved yet'):
      self.train('overflown', '--max_steps', 1, '--initial_learning_rate', 3e38, '--weight_decay', 1e9)
    self.assertEqual(self.steps('overflown'), [])

  def test_damaged_newest_checkpoint_is_trained_again(self):
    self.train('damaged', '--train_epochs', 3)
    shutil.copytree(self.model('damaged'), self.model('intact'))
    with open(f'{self.model("damaged")}/model.ckpt-6.data-00000-of-00001', 'r+b') as file:
      file.truncate(1000)
    self.assertIn('model.ckpt-6 is damaged', run(evaluate, '--model_dir', self.model('damaged'), '--data_dir',
                                                 self.folder))
    printed = self.train('damaged', '--train_epochs', 3)
    self.assertIn('set_aside', printed)
    self.check_same('damaged', 'intact', 6)


class ContradictionsTest(ResumeTest):

  def test_class_names_in_another_order_are_refused(self):
    self.train('named', '--max_steps', 1)
    with open(self.dataset) as file:
      descriptor = json.load(file)
    names = descriptor['class_names']
    names[1], names[2] = names[2], names[1]
    other = f'{self.folder}/other.json'
    with open(other, 'w') as file:
      json.dump(descriptor, file)
    with self.assertRaisesRegex(UsageError, "class 1 is 'diamond'.*whose class 1 is 'disk'"):
      self.train('named', '--max_steps', 2, '--dataset', other)
    with self.assertRaisesRegex(UsageError, "class 1 of the train records .* is 'disk', but .* is 'diamond'"):
      self.train('unborn', '--max_steps', 2, '--dataset', other)
    with self.assertRaisesRegex(UsageError, "class 1 is 'diamond'.*whose class 1 is 'disk'"):
      run(evaluate, '--model_dir', self.model('named'), '--data_dir', self.folder, '--dataset', other)
    os.remove(f'{self.model("named")}/model_config.json')  # the records' index still tells
    with self.assertRaisesRegex(UsageError, "class 1 of the val records .* is 'disk', but .* is 'diamond'"):
      run(evaluate, '--model_dir', self.model('named'), '--data_dir', self.folder, '--dataset', other,
          '--base_architecture', tiny_net.LEAN)

  def test_dataset_of_another_name_is_refused_on_resume(self):
    self.train('first', '--max_steps', 1)
    with open(self.dataset) as file:
      descriptor = json.load(file)
    with open(f'{self.folder}/second.json', 'w') as file:
      json.dump({**descriptor, 'name': 'second'}, file)
    with self.assertRaisesRegex(UsageError, "--dataset is 'second' .* was trained on 'sample'"):
      self.train('first', '--max_steps', 2, '--dataset', f'{self.folder}/second.json')

  def test_stops_early_and_stays_stopped(self):
    with support.scoring(.2, .3, .3, .1, .4):
      printed = self.train('early', '--train_epochs', 5, '--early_stopping_evals', 2)
      self.assertEqual(self.steps('early'), [2, 4, 6, 8])
      self.assertIn('Stopping early: no better mean IoU in the last 2 evaluations', printed)
      self.assertIn('Nothing left to train: the last 2 evaluations',
                    self.train('early', '--train_epochs', 5, '--early_stopping_evals', 2))
    scores = f'{self.model("early")}/best/scores.json'
    with open(scores) as file:
      self.assertEqual(json.load(file)['step'], 4)
    with open(f'{self.model("early")}/best/model.ckpt-4.index', 'r+b') as file:
      file.truncate(9)
    self.assertRegex(self.train('early', '--train_epochs', 5),
                     r'(?s)best so far, step 4 .*, is damaged .*; it begins anew.*\nThe best is step 4; kept')
    with open(scores) as file:
      self.assertEqual(json.load(file)['step'], 4)  # of which there is another checkpoint

  def test_tf_config_of_one_machine_is_one_machine(self):
    one = json.dumps({'cluster': {'worker': ['localhost:2222']}, 'task': {'type': 'worker', 'index': 0}})
    two = json.dumps({'cluster': {'chief': ['localhost:1'], 'worker': ['localhost:2']},
                      'task': {'type': 'worker', 'index': 0}})
    with mock.patch.dict(os.environ, TF_CONFIG=one):
      self.train('alone', '--max_steps', 1)
    for text in (one, two, '{'):
      with mock.patch.dict(os.environ, TF_CONFIG=text):
        self.assertIn('mean', run(evaluate, '--model_dir', self.model('alone'), '--data_dir', self.folder))


if __name__ == '__main__':
  unittest.main()
