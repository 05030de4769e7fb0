"""Two replicas against one with the batch of both, on two logical CPUs, in a process of its own.

They exchange values by the collectives that GPUs take, in which NCCL has the place of the ring of CPUs.
"""
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import pytest

pytestmark = [pytest.mark.compat, pytest.mark.slow]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Runs one_step for each (replicas, sync, recompute) of the command line, and writes what it gives.
_STEPS = '''
import sys
import numpy as np
import tensorflow.compat.v1 as tf

cpu = tf.config.list_physical_devices('CPU')[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from deeplab_model import deeplabv3_plus_model_fn
from tensorflow.python.distribute import cross_device_ops
from tests import tiny_net
from training import run_config
from training.tf_estimator import Estimator

folder = sys.argv[1]
rng = np.random.RandomState(0)
images = rng.randint(0, 256, (4, 33, 49, 3)).astype(np.uint8)
labels = rng.randint(0, 3, (4, 33, 49, 1)).astype(np.uint8)
labels[:2][rng.rand(2, 33, 49, 1) > 0.9] = 255  # 90% of one half are valid, 20% of the other
labels[2:][rng.rand(2, 33, 49, 1) > 0.2] = 255
shared = dict(base_architecture=tiny_net.TINY, num_classes=3, class_names='abc', palette=[(0, 0, 0)] * 3,
              batch_size=4, batch_norm_decay=0.5, initial_learning_rate=0.1)

def batches(replicas):
  examples = tf.data.Dataset.from_tensor_slices((images, labels))
  return examples.batch(4 // replicas, drop_remainder=True).repeat()

def start():  # the same weights for all: seeds depend on the graph
  with tf.Graph().as_default(), tf.Session() as session:
    tf.train.get_or_create_global_step()
    tf.set_random_seed(0)
    deeplabv3_plus_model_fn(*tf.data.make_one_shot_iterator(batches(1)).get_next(), 'train', shared)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(session, folder + '/start/model')

def evaluated(replicas):  # three images; the fourth, where it is needed, has no valid pixel
  rng = np.random.RandomState(1)
  sizes = ((33, 49), (40, 35), (37, 37), (33, 33))[:4 if replicas > 1 else 3]
  values = [tf.data.Dataset.from_tensors((rng.randint(0, 256, (1, *size, 3)).astype(np.uint8),
                                          np.where(size == (33, 33), 255, rng.randint(0, 3, (1, *size, 1)))
                                          .astype(np.uint8))) for size in sizes]
  data = values[0]
  for value in values[1:]:
    data = data.concatenate(value)
  return data

shown = {}
after_run = run_config.ProgressHook.after_run
def keep_shown(self, context, values):
  shown.update(values.results or {})
  after_run(self, context, values)
run_config.ProgressHook.after_run = keep_shown

class KeepLoss(tf.train.SessionRunHook):
  def after_create_session(self, session, coord):
    self.collectives = sum('CollectiveReduce' in op.type for op in session.graph.get_operations())
  def before_run(self, context):
    return tf.train.SessionRunArgs(tf.get_collection(tf.GraphKeys.LOSSES)[0])
  def after_run(self, context, values):
    self.loss = values.results

def one_step(replicas, sync, recompute):
  # Made in eager mode, as by train.py; and with both devices in the session, or both replicas would sit on
  # one and wait for each other.
  strategy = tf.distribute.MirroredStrategy(['/cpu:0', '/cpu:1']) if replicas > 1 else None
  config = run_config.run_config(0, strategy=strategy)
  if strategy:
    collective = strategy.extended._cross_device_ops
    assert type(collective).__name__ == 'CollectiveAllReduce', collective
    # CPUs would sum single values on one of them, GPUs never do.
    cross_device_ops.ReductionToOneDevice = lambda: collective
    config.session_config.device_count['CPU'] = 2
  model_dir = f'{folder}/{replicas}{sync}{recompute}'
  params = {**shared, 'pre_trained_model': initial, 'sync_batch_norm': sync, 'recompute': recompute}
  estimator = Estimator(deeplabv3_plus_model_fn, model_dir, config, params)
  keep = KeepLoss()
  saving = tf.train.CheckpointSaverHook(model_dir, save_steps=1)
  estimator.train(lambda: batches(replicas), hooks=[keep, saving], max_steps=1)
  matrix = estimator.evaluate(lambda: evaluated(replicas))['confusion_matrix']
  reader = tf.train.load_checkpoint(model_dir)
  values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
  np.savez(model_dir + '.npz', loss=keep.loss, confusion_matrix=matrix, collectives=keep.collectives,
           **{'shown ' + k: v for k, v in shown.items()},
           **{k.replace('/', '|'): v for k, v in values.items()})

with tiny_net.rows():
  initial = start()
  for which in sys.argv[2:]:
    one_step(*eval(which))
'''


class ReplicasTest(unittest.TestCase):

  @classmethod
  def setUpClass(cls):
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.folder = folder.name
    runs = [(1, True, False), (2, True, False), (2, False, False), (1, True, True)]
    done = subprocess.run([sys.executable, '-c', _STEPS, folder.name, *map(str, runs)], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cls.whole = cls.found(1)
    cls.matrix = cls.whole.pop('confusion_matrix')
    assert cls.whole.pop('collectives') == 0
    cls.shown = cls.pop_shown(cls.whole)
    cls.layers = sum(name.endswith('BatchNorm|gamma') for name in cls.whole)

  @classmethod
  def found(cls, replicas, sync=True, recompute=False):
    """Returns name -> value of all variables after one training step on 4 images, and of its loss."""
    with np.load(f'{cls.folder}/{replicas}{sync}{recompute}.npz') as values:
      return dict(values)

  @staticmethod
  def pop_shown(found):
    """Takes the numbers of the line of progress out of what was found."""
    return {name: found.pop(name) for name in list(found) if name.startswith('shown ')}

  def largest_error(self, found):
    """Returns the largest difference, relative to what is usual for variables of that kind."""
    self.pop_shown(found)
    found.pop('confusion_matrix', None)
    found.pop('collectives', None)
    self.assertEqual(set(found), set(self.whole))
    usual = {}
    for name, value in self.whole.items():
      kind = tuple(name.split('|')[-2:])
      usual[kind] = max(usual.get(kind, 0), np.abs(value).max())
    return max(np.abs(found[name] - value).max() / usual[tuple(name.split('|')[-2:])]
               for name, value in self.whole.items())

  def test_two_replicas_with_synchronised_batch_norm_equal_one(self):
    # Slots of Momentum hold the gradients; a checkpoint holds the averages, one copy of everything.
    found = self.found(2)
    # On each of two devices a layer exchanges one value forward and one back. So are the number of valid
    # pixels, all gradients together, and the loss that is reported.
    self.assertEqual(found['collectives'], 2 * (2 * self.layers + 3))
    # Evaluation counts each of three images once on two replicas, but for pixels on the edge of two classes.
    matrix = found['confusion_matrix']
    np.testing.assert_array_equal(matrix.sum(axis=1), self.matrix.sum(axis=1))
    self.assertEqual(matrix.sum(), 33 * 49 + 40 * 35 + 37 * 37)
    np.testing.assert_allclose(matrix, self.matrix, atol=0.02 * matrix.sum())
    self.assertLess(abs(found['loss'] / self.whole['loss'] - 1), 1e-6)
    # The line of progress is of both replicas' pixels, four times as many in one as in the other.
    shown = self.pop_shown(found)
    self.assertEqual(list(shown), [f'shown {name}' for name in (
        'loss', 'cross_entropy', 'learning_rate', 'train_px_accuracy', 'train_mean_iou')])
    for name, value in self.shown.items():
      tolerance = 2e-2 if 'train' in name else 2e-6  # pixels on the edge of two classes
      np.testing.assert_allclose(shown[name], value, tolerance, err_msg=name)
    # Layers of batch norm raise rounding: one replica with its images in another order also differs.
    self.assertLess(self.largest_error(found), 1e-2)

  def test_without_synchronisation_they_differ(self):
    found = self.found(2, sync=False)
    self.assertEqual(found['collectives'], 2 * 3)
    self.assertGreater(self.largest_error(found), 1)

  def test_recomputed_activations_give_the_same_gradients_and_averages(self):
    self.assertLess(self.largest_error(self.found(1, recompute=True)), 1e-6)
