"""Averaged weights (--ema) from training to export, against averages in NumPy and a model made of them."""
import contextlib
import glob
import io
import json
import os
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

import export_inference_graph
import inference
from commands import export, export_formats, model_config
from deeplab_model import deeplabv3_plus_model_fn
from tests import support
from tests.support import evaluations
from training import checkpoints, validation
from utils.errors import DataError, UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]

END = '/ExponentialMovingAverage'


def values(prefix):
  """Returns name -> array of all variables in a checkpoint."""
  reader = tf.train.load_checkpoint(prefix)
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def averages(prefix):
  """Returns name -> average of the variable of that name."""
  return {name[:-len(END)]: value for name, value in values(prefix).items() if name.endswith(END)}


class AveragesTest(support.ScriptsTest):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.averaged = os.path.join(cls.folder, 'averaged')
    cls.output = cls.train('--train_epochs', 2, '--ema', 0.15, '--save_checkpoints_steps', 1,
                           '--keep_checkpoint_max', 0, model_dir=cls.averaged)
    cls.newest = f'{cls.averaged}/model.ckpt-5'
    # A model of another folder whose raw weights are the averages.
    cls.made = os.path.join(cls.folder, 'made')
    os.mkdir(cls.made)
    shutil.copyfile(f'{cls.averaged}/model_config.json', f'{cls.made}/model_config.json')
    with tf.Graph().as_default(), tf.Session() as session:
      for name, value in (values(cls.newest) | averages(cls.newest)).items():
        if not name.endswith(END):
          tf.get_variable(name, initializer=value)
      session.run(tf.global_variables_initializer())
      tf.train.Saver().save(session, f'{cls.made}/model.ckpt', 5, write_meta_graph=False)

  def test_averages_are_those_of_the_weights_of_each_step(self):
    expected = {}
    for step in range(1, 6):
      decay = min(0.15, (step - 1) / (8 + step))  # 0, 1/10, 0.15, ...
      weights = values(f'{self.averaged}/model.ckpt-{step}')
      for name in averages(self.newest):
        expected[name] = decay * expected.get(name, 0) + (1 - decay) * np.float64(weights[name])
    found = averages(self.newest)
    self.assertEqual({name.split('/')[-1] for name in found},
                     {'weights', 'depthwise_weights', 'biases', 'gamma', 'beta'})
    for name, value in found.items():
      np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
      self.assertTrue((value != values(self.newest)[name]).any(), name)
    self.assertEqual(values(self.newest)['ema/steps'], 5)

  def test_the_weights_are_bit_by_bit_those_of_a_training_without(self):
    found = values(self.newest)
    without = values(f'{self.model}/model.ckpt-5')
    for name, value in without.items():
      np.testing.assert_array_equal(found[name], value, err_msg=name)
    self.assertEqual({name for name in found if name not in without},
                     {name + END for name in averages(self.newest)} | {'ema/steps'})

  def test_both_are_scored_after_each_round(self):
    self.assertRegex(self.output, r'(?s)step 2, validation on .*step 2, averaged weights, validation on .*'
                                  r'step 5, validation on .*step 5, averaged weights, validation on ')
    self.assertEqual([(entry['step'], entry['weights']) for entry in evaluations(self.averaged)],
                     [(2, 'raw'), (5, 'raw')])
    self.assertEqual([{**entry, 'ema': None, 'weights': None} for entry in evaluations(self.averaged)],
                     [{**entry, 'ema': None, 'weights': None} for entry in evaluations(self.model)])
    points = [(event.step, value.simple_value) for path in glob.glob(f'{self.averaged}/eval_ema/events*')
              for event in tf.train.summary_iterator(path) for value in event.summary.value
              if value.tag == 'mean_iou']
    self.assertEqual([step for step, _ in points], [2, 5])
    for (_, value), entry in zip(points, evaluations(self.averaged), strict=True):
      self.assertAlmostEqual(value, entry['ema']['mean_iou'], places=6)

  def scored(self, *argv, model_dir):
    """Returns what evaluate.py finds out, and what it prints."""
    path = self.temporary('scores.json')
    printed = self.evaluate('--json', path, *argv, model_dir=model_dir)
    with open(path) as file:
      return json.load(file), printed

  def test_evaluation_is_that_of_a_model_made_of_the_averages(self):
    for views in ([], ['--flip']):
      found, printed = self.scored('--weights', 'ema', *views, model_dir=self.averaged)
      expected, _ = self.scored(*views, model_dir=self.made)
      raw, _ = self.scored(*views, model_dir=self.averaged)
      self.assertEqual(found['confusion_matrix'], expected['confusion_matrix'])
      self.assertNotEqual(found['confusion_matrix'], raw['confusion_matrix'])
      self.assertNotIn('weights', raw)
      self.assertIn('model.ckpt-5, its averaged weights on 2 images', printed)
      if not views:
        self.assertAlmostEqual(found['mean_iou'], evaluations(self.averaged)[-1]['ema']['mean_iou'], places=9)
    self.assertEqual({'val', 'val_ema'}, set(os.listdir(f'{self.averaged}/evaluate')))

  def test_masks_are_those_of_a_model_made_of_the_averages(self):
    masks = {}
    for title, model, weights in (('ema', self.averaged, 'ema'), ('made', self.made, 'raw'),
                                  ('raw', self.averaged, 'raw')):
      folder = self.temporary(title)
      support.run(inference, '--model_dir', model, '--weights', weights, '--output_dir', folder,
                  '--input', f'{self.data}/JPEGImages/v.jpg')
      masks[title] = np.asarray(Image.open(f'{folder}/v_mask.png'))
    np.testing.assert_array_equal(masks['ema'], masks['made'])
    self.assertTrue((masks['ema'] != masks['raw']).any())

  def test_exports_hold_the_averages_by_the_names_of_the_variables(self):
    folder = self.temporary('export')
    printed = support.run(export_inference_graph, '--model_dir', self.averaged, '--weights', 'ema',
                          '--export_dir', folder)
    self.assertIn('its averaged weights, and checked against it', printed)
    path, = os.listdir(folder)
    exported, expected = values(f'{folder}/{path}/variables/variables'), values(f'{self.made}/model.ckpt-5')
    self.assertNotIn(END, ''.join(exported))
    for name, value in averages(self.newest).items():
      np.testing.assert_array_equal(exported[name], value)
    for name in exported:
      np.testing.assert_array_equal(exported[name], expected[name])

  def test_frozen_graphs_hold_them_too(self):
    architecture = model_config.read(self.averaged).architecture
    graphs = [export_formats.frozen_graph(
        deeplabv3_plus_model_fn, {**vars(architecture), 'portable': True, 'weights': weights}, prefix,
        (33, 49)).SerializeToString(deterministic=True)
        for weights, prefix in (('ema', self.newest), ('raw', f'{self.made}/model.ckpt-5'),
                                ('raw', self.newest))]
    self.assertEqual(graphs[0], graphs[1])
    self.assertNotEqual(graphs[0], graphs[2])

  def test_their_score_decides_if_asked_to(self):
    model = self.temporary('decided')
    with support.scoring(.5, .2, .4, .3):
      printed = self.train('--train_epochs', 2, '--ema', 0.9, '--weights', 'ema', model_dir=model)
    self.assertIn('The best so far by its averaged weights; kept in', printed)
    self.assertEqual([(entry['mean_iou'], entry['weights'], entry['raw']['mean_iou'])
                      for entry in evaluations(model)], [(.2, 'ema', .5), (.3, 'ema', .4)])
    with open(f'{model}/best/scores.json') as file:
      self.assertEqual(json.load(file)['step'], 5)
    best = f'{model}/best'
    for argv, what in (([], 'model.ckpt-5, its averaged weights on 2'), (['--weights', 'raw'], 'ckpt-5 on 2'),
                       (['--all_checkpoints'], '/best, its averaged weights on 2 images')):
      self.assertIn(what, self.evaluate(*argv, model_dir=best))
    folder = self.temporary('masks')
    self.assertIn('ckpt-5, its averaged weights;', support.run(
        inference, '--model_dir', best, '--output_dir', folder, '--input', f'{self.data}/JPEGImages/v.jpg'))
    with mock.patch.object(export, 'write_saved_model', side_effect=KeyError), self.assertRaises(KeyError):
      with contextlib.redirect_stdout(io.StringIO()) as output:
        export_inference_graph.main(export_inference_graph.make_parser().parse(
            ['--model_dir', best, '--export_dir', folder]))
    self.assertIn('Exporting', output.getvalue())
    self.assertIn('ckpt-5, its averaged weights;', output.getvalue())
    with support.scoring(.1, .2):
      printed = self.train('--train_epochs', 3, '--ema', 0.9, '--early_stopping_evals', 1, model_dir=model)
    self.assertIn('step 5 in', printed)
    self.assertIn('was scored on other images or by other --weights; it begins anew', printed)
    self.assertNotIn('Stopping early', printed)
    with open(f'{best}/scores.json') as file:
      self.assertEqual(json.load(file)['mean_iou'], .1)

  def test_checkpoint_is_used_as_it_was_scored_where_it_is_the_best(self):
    folder = self.temporary('best')
    shutil.copytree(self.averaged, folder)
    prefix = f'{folder}/model.ckpt-5'
    self.assertEqual(checkpoints.weights_of(prefix), 'raw')
    for scores, expected in (({'step': 5, 'weights': 'ema'}, 'ema'), ({'step': 5, 'weights': 'raw'}, 'raw'),
                             ({'step': 2, 'weights': 'ema'}, 'raw'), ({'step': 5}, 'raw'), ([], 'raw'),
                             ({'step': 5, 'weights': 'ema', 'confusion_matrix': []}, 'raw')):
      with open(f'{folder}/scores.json', 'w') as file:
        json.dump(scores, file)
      self.assertEqual(checkpoints.weights_of(prefix), expected, scores)
    with open(f'{folder}/scores.json', 'w') as file:
      file.write('{"step": 5, "wei')
    with self.assertRaisesRegex(DataError, 'scores.json is no JSON'):
      checkpoints.weights_of(prefix)

  def test_checkpoints_without_averages_are_refused_or_skipped(self):
    for script, argv in ((inference, ['--input', f'{self.data}/JPEGImages/v.jpg', '--output_dir',
                                      self.temporary('masks')]),
                         (export_inference_graph, ['--export_dir', self.temporary('export')])):
      with self.assertRaisesRegex(DataError, 'ckpt-5 holds no averaged weights, which --weights ema takes'):
        support.run(script, '--model_dir', self.model, '--weights', 'ema', *argv)
    with self.assertRaisesRegex(DataError, 'ckpt-5 holds no averaged weights, which --weights ema takes'):
      self.evaluate('--weights', 'ema')
    mixed = self.temporary('mixed')
    shutil.copytree(self.averaged, mixed)
    for path in glob.glob(f'{self.model}/model.ckpt-2.*'):
      shutil.copy(path, mixed)
    printed = self.evaluate('--weights', 'ema', '--all_checkpoints', model_dir=mixed)
    self.assertIn('model.ckpt-2 holds no averaged weights; skipped', printed)
    self.assertIn('The best of 4 is', printed)

  def test_averages_cannot_decide_where_there_are_none(self):
    with self.assertRaisesRegex(UsageError, '--weights would change nothing .* such as --ema 0.9998'):
      self.train('--weights', 'ema', model_dir=self.temporary('none'))


class ResumeTest(support.ScriptsTest):

  def test_averages_begin_where_the_flag_is_given_and_go_on_bit_by_bit(self):
    model = self.temporary('model')
    shutil.copytree(self.model, model)
    flags = ('--ema', 0.9, '--save_checkpoints_steps', 1, '--keep_checkpoint_max', 0, '--epochs_per_eval', 4)
    printed = self.train('--max_steps', 7, *flags, model_dir=model)
    self.assertIn('are not in it and start anew', printed)
    first, second = values(f'{model}/model.ckpt-6'), values(f'{model}/model.ckpt-7')
    for name, value in averages(f'{model}/model.ckpt-6').items():
      np.testing.assert_array_equal(value, first[name])
    for name, value in averages(f'{model}/model.ckpt-7').items():
      np.testing.assert_allclose(value, 0.1 * first[name] + 0.9 * second[name], rtol=1e-5, atol=1e-7)
    self.train('--max_steps', 9, *flags, model_dir=model)
    whole = self.temporary('whole')
    shutil.copytree(self.model, whole)
    self.train('--max_steps', 9, *flags, model_dir=whole)
    found, expected = (values(f'{path}/model.ckpt-9') for path in (model, whole))
    self.assertEqual(set(found), set(expected))
    for name, value in expected.items():
      np.testing.assert_array_equal(found[name], value, err_msg=name)
    self.train('--max_steps', 10, model_dir=model)  # without them
    self.assertFalse(averages(f'{model}/model.ckpt-10'))

  def test_what_was_frozen_before_is_averaged_from_its_value_on(self):
    model = self.temporary('model')
    shutil.copytree(self.model, model)
    self.train('--max_steps', 8, '--ema', 0.9, '--freeze_batch_norm', '--batch_norm_decay', 0.9997,
               model_dir=model)
    self.assertNotIn('gamma', ''.join(averages(f'{model}/model.ckpt-8')))
    self.train('--max_steps', 9, '--ema', 0.9, model_dir=model)
    before, after = values(f'{model}/model.ckpt-8'), values(f'{model}/model.ckpt-9')
    found = averages(f'{model}/model.ckpt-9')
    count = 0
    for name in (name for name in found if name.endswith('gamma')):
      np.testing.assert_allclose(found[name], 3 / 12 * before[name] + 9 / 12 * after[name], rtol=1e-6)
      count += 1
    self.assertGreater(count, 5)

  def test_round_that_was_saved_without_averages_is_scored_by_its_weights(self):
    model = self.temporary('model')
    shutil.copytree(self.model, model)
    validation.Validation(model, last=2).forget_later()
    printed = self.train('--train_epochs', 2, '--ema', 0.9, '--weights', 'ema', model_dir=model)
    self.assertIn('step 5, validation on', printed)
    self.assertNotIn('averaged', printed)
    self.assertEqual([entry.get('weights') for entry in evaluations(model)], [None, 'raw'])


class ReplicasTest(support.FolderTest):

  def test_all_replicas_get_the_averages(self):
    support.run_on_two_cpus(f"""
      import numpy as np
      from training import checkpoints
      folder = {self.folder!r}
      with tf.Graph().as_default(), tf.Session() as session:
        for name, value in (('w', [1., 2]), ('w{END}', [5., 7]), ('mean', [3., 4])):
          tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, folder + '/model.ckpt', 1)
      for weights, expected in (('raw', [1, 2]), ('ema', [5, 7])):
        strategy = two_replicas()
        with tf.Graph().as_default(), strategy.scope(), tf.Session() as session:
          variables = [tf.get_variable(name, [2]) for name in ('w', 'mean')]
          tf.get_collection_ref(tf.GraphKeys.MODEL_VARIABLES).extend(variables)
          checkpoints.Restorer(defer_build=True, weights=weights).restore(session, folder + '/model.ckpt-1')
          for variable, value in zip(variables, (expected, [3, 4])):
            for found in session.run(strategy.experimental_local_results(variable)):
              np.testing.assert_array_equal(found, value)
    """)
