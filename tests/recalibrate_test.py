"""tools/recalibrate.py: averages measured anew, and batch norm unfolded."""
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import deeplab_model
from commands import model_config
from dataset import descriptors, inputs
from nets import backbones
from tests import tiny_net
from tests.support import ScriptsTest, run
from tools import recalibrate, recalibration
from training import checkpoint_store, checkpoints, validation

pytestmark = [pytest.mark.compat, pytest.mark.slow]
_CROP = (33, 49)


class RecalibrateTest(ScriptsTest):

  def recalibrate(self, *argv, model_dir=None):
    output_dir = self.temporary('new')
    self.told = run(recalibrate, '--model_dir', model_dir or self.model, '--data_dir', self.data,
                    '--output_dir', output_dir, '--batch_size', 5, *argv)
    self.assertIn(f'{output_dir}/model.ckpt-5: 16 batch norms', self.told)
    return output_dir

  def batch(self, **flags):
    """Returns the first batch of training, uint8 [5, 33, 49, 3]."""
    options = inputs.TrainOptions(_CROP, 5, 0, backbones.get(tiny_net.TINY).padding_color, num_examples=5,
                                  **flags)
    with tf.Graph().as_default(), tf.Session() as session:
      batches = inputs.train_dataset([f'{self.data}/train.record'],
                                     descriptors.get_dataset(f'{self.data}/tiny.json'), options)
      return session.run(tf.data.make_one_shot_iterator(batches).get_next())[0]

  def logits(self, model_dir, images, is_training=False, weights='raw'):
    with tf.Graph().as_default(), tf.Session() as session:
      logits = deeplab_model.network(tf.constant(images), model_config.read(model_dir).architecture,
                                     is_training)
      checkpoints.Restorer(weights=weights).restore(session, checkpoint_store.find(model_dir).prefix)
      return session.run(logits)

  def test_of_one_batch_the_network_predicts_what_it_trains_on(self):
    images = self.batch()
    expected = self.logits(self.model, images, is_training=True)
    self.assertGreater(np.abs(self.logits(self.model, images) - expected).max(), 0.1)
    np.testing.assert_allclose(self.logits(self.recalibrate('--batches', 1), images), expected, atol=2e-4)

  def test_unfolded_it_predicts_as_before_and_trains_on_the_same(self):
    images = self.batch()
    expected = self.logits(self.model, images)
    new = self.recalibrate('--unfold', '--batches', 1)
    np.testing.assert_allclose(self.logits(new, images), expected, atol=2e-4)
    np.testing.assert_allclose(self.logits(new, images, is_training=True), expected, atol=2e-4)
    reader = tf.train.NewCheckpointReader(checkpoint_store.find(new).prefix)
    for name, axes in (('tiny_net/conv2/weights', (0, 1, 2)),
                       ('tiny_net/conv4_depthwise/depthwise_weights', (0, 1, 3))):
      norms = np.square(reader.get_tensor(name)).sum(axes)
      np.testing.assert_allclose(norms, 2, rtol=1e-5)

  def test_moments_of_several_batches_are_those_of_all_values(self):
    with tf.Graph().as_default(), tf.Session() as session:
      values = np.float32([[1, 10], [3, 10], [8, 40]])  # three batches of two values, one channel
      position = tf.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices(values)).get_next()
      moments = recalibration.Moments(*tf.nn.moments(position[:, tf.newaxis], [0]))
      found = recalibration.measure(session, {'a': moments}, 3)['a']
    np.testing.assert_allclose(found, [[12.0], [1874 / 6 - 144]], rtol=1e-6)

  def test_all_else_stays_beside_averages_of_averaged_weights_as_trained(self):
    model, argv = self.temporary('averaged'), ('--ema', 0.5, '--auxiliary_head', 0.4, '--flip', 'off',
                                               '--scale_range', 1, 1.25)
    self.train('--train_epochs', 2, *argv, model_dir=model)
    validation.write_best_scores(model, {'step': 5, 'weights': 'ema'})  # as best holds them
    images = self.batch(flip=False, min_scale=1.0, max_scale=1.25)
    expected = self.logits(model, images, is_training=True, weights='ema')
    new = self.recalibrate('--batches', 1, model_dir=model)
    self.assertIn('Crops as in training: crop_size [33, 49], scale_range [1.0, 1.25], ', self.told)
    self.assertIn(f', measured by the ema weights of {model}/model.ckpt-5 on 5 crops', self.told)
    np.testing.assert_allclose(self.logits(new, images, weights='ema'), expected, atol=2e-4)
    self.assertIn('model.ckpt-5, its averaged weights on 2 images', self.evaluate(model_dir=new))
    readers = [tf.train.load_checkpoint(checkpoint_store.find(folder).prefix) for folder in (model, new)]
    names, kept = (reader.get_variable_to_shape_map() for reader in readers)
    self.assertEqual(names, kept)
    changed = {name.rpartition('/')[2] for name in names
               if not np.array_equal(*(reader.get_tensor(name) for reader in readers))}
    self.assertEqual(changed, {'moving_mean', 'moving_variance'})
    printed = self.train('--train_epochs', 3, *argv, model_dir=new)
    self.assertIn('is at step 7', printed)
    self.assertNotIn('start anew', printed)

    shutil.rmtree(new)
    expected = self.logits(model, images, weights='ema')
    new = self.recalibrate('--batches', 1, '--unfold', '--flip', 'on', model_dir=model)
    self.assertRegex(self.told, 'Left out, .*: [0-9]+ slots of the optimizer and averages')
    self.assertNotIn('flip', self.told)
    np.testing.assert_allclose(self.logits(new, images), expected, atol=2e-4)
    self.assertFalse([name for name in checkpoints.shapes(f'{new}/model.ckpt-5')
                      if 'Momentum' in name or 'Average' in name or 'ema' in name])

  def test_training_warns_of_folded_batch_norm(self):
    reader = tf.train.NewCheckpointReader(checkpoint_store.find(self.model).prefix)
    names = [name for name in reader.get_variable_to_shape_map() if name != 'global_step']
    values = [reader.get_tensor(name) * (not name.endswith('moving_mean')) for name in names]
    os.mkdir(self.temporary('folded'))
    prefix = os.path.join(self.temporary('folded'), 'model.ckpt')
    with tf.Graph().as_default(), tf.Session() as session:
      session.run(tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, tensors=values,
                                    shape_and_slices=[''] * len(names)))
    for argv, count in ((('--pre_trained_model', prefix), 1), (('--pre_trained_model', self.model), 0),
                        (('--pre_trained_model', prefix, '--freeze_batch_norm', '--batch_norm_decay', 0.9997),
                         0)):
      printed = self.train('--max_steps', 1, *argv, '--clean_model_dir', model_dir=self.temporary('new'))
      self.assertEqual(printed.count('Warning: batch norm is folded into the convolutions of'), count)

  def test_what_cannot_be_done_is_said(self):
    flags = ['--model_dir', self.model, '--data_dir', self.data, '--crop_size', *_CROP]
    for argv, words in ((['--output_dir', self.model], 'holds a checkpoint already'),
                        (['--output_dir', self.temporary('x'), '--batch_size', 1], '--batch_size 1 has no'),
                        (['--output_dir', self.temporary('x'), '--weights', 'ema', '--batch_size', 5],
                         'holds no averaged weights, which --weights ema takes')):
      with self.assertRaisesRegex(ValueError, words):
        run(recalibrate, *flags, *argv)
      self.assertFalse(os.path.exists(self.temporary('x')))


def test_a_layer_stays_the_same_function():
  before = recalibration.Layer(*map(np.float32, ([2, 1], [1, -1], [0, 3], [3, 0])))
  moments = recalibration.Moments(*map(np.float32, ([5, 1], [7, 0])))
  after = recalibration.unfolded(before, moments, np.float32([2, 1]), epsilon=1.0)
  # By hand: y = 2 (x - 0) / 2 + 1 and y = (x - 3) / 1 - 1; then, of 2 x and x,
  # y = gamma (2 x - 10) / sqrt(29) + beta and y = gamma (x - 1) / 1 + beta.
  np.testing.assert_allclose(after, [[np.sqrt(29) / 2, 1], [6, -3], [10, 1], [28, 0]], rtol=1e-6)
