"""Scores against the official evaluator and against counting by hand; predictions as files."""
import glob
import json
import os
import re
import shutil
import threading
import time
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

import create_cityscapes_tf_record
import evaluate
from commands import checkpoint_watch, evaluation
from dataset import descriptors, schema
from tests import support
from tests.color_model import EvaluateTest, read_index, write_model, write_photo
from tests.support import run
from training import checkpoint_store, locks
from utils.errors import DataError, UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]

SIZES = {'a': (33, 49), 'b': (41, 37), 'sub/a': (35, 35)}  # height, width


def read_scalars(folder):
  """Returns {(step, tag): value} of a folder's event files."""
  return {(event.step, value.tag): value.simple_value for path in glob.glob(f'{folder}/events*')
          for event in tf.train.summary_iterator(path) for value in event.summary.value}


class VocTest(EvaluateTest):
  dataset = descriptors.DATASETS['voc']

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    rng = np.random.RandomState(5)
    for name, size in SIZES.items():
      write_photo(f'{cls.folder}/images/{name}.png', size, rng)
      label = rng.choice([0, 3, 7, 12, 20, 255], size).astype(np.uint8)
      os.makedirs(os.path.dirname(f'{cls.folder}/labels/{name}'), exist_ok=True)
      Image.fromarray(label).save(f'{cls.folder}/labels/{name}.png')
    for name, lines in (('val', SIZES), ('two', ('a', 'b'))):
      with open(f'{cls.folder}/{name}.txt', 'w') as file:
        file.write('\n'.join(lines))

  def evaluate(self, *argv, listed='val'):
    return run(evaluate, '--model_dir', self.model, '--image_data_dir', f'{self.folder}/images',
               '--label_data_dir', f'{self.folder}/labels', '--evaluation_data_list',
               f'{self.folder}/{listed}.txt', *argv)

  def test_scores_are_those_of_the_saved_predictions_counted_by_hand(self):
    output, scores_path = self.temporary('predictions'), self.temporary('scores.json')
    printed = self.evaluate('--save_predictions', output, '--json', scores_path)
    with open(scores_path) as file:
      scores = json.load(file)
    os.remove(scores_path)
    matrix = np.zeros((21, 21), int)
    for name, size in SIZES.items():
      label, prediction = read_index(f'{self.folder}/labels/{name}.png'), read_index(f'{output}/{name}.png')
      self.assertEqual(prediction.shape, size)
      for true, predicted in zip(label.ravel(), prediction.ravel()):
        if true != 255:
          matrix[true, predicted] += 1
    ious = []
    for value, name in enumerate(self.dataset.class_names):
      union = sum(matrix[value, :]) + sum(matrix[:, value]) - matrix[value, value]
      iou = matrix[value, value] / union if union else None
      self.assertEqual(scores['iou'][name], iou, name)
      ious += [iou] if union else []
    self.assertGreater(np.count_nonzero(matrix.sum(0)), 4)  # a model of one answer would test little
    self.assertEqual(scores['confusion_matrix'], matrix.tolist())
    self.assertAlmostEqual(scores['mean_iou'], sum(ious) / len(ious), places=12)
    self.assertAlmostEqual(scores['px_accuracy'], np.trace(matrix) / matrix.sum(), places=12)
    self.assertEqual(scores['images'], 3)
    self.assertIn(f'mean Intersection over Union: {scores["mean_iou"]:.4f}', printed)
    self.assertIn(f'3 predictions are in {output}', printed)

  def test_table_follows_the_lines_that_scripts_read(self):
    lines = self.evaluate().splitlines()
    self.assertEqual(lines[1], 'Intersection over Union for each class:')
    self.assertRegex(lines[2], r'^    class 0: 0\.\d{4}  background$')
    self.assertRegex(lines[23], r'^mean Intersection over Union: 0\.\d{4}$')
    self.assertRegex(lines[24], r'^Pixel Accuracy: 0\.\d{4}$')
    table = lines[lines.index('') + 1:]
    self.assertEqual(table[0].split(), ['class', 'IoU', 'accuracy', 'precision', 'recall', 'dice', 'boundary',
                                        'pixels'])
    self.assertEqual(table[1].split()[:2], ['background', lines[2].split()[2]])
    self.assertEqual(table[-6].split(), ['mean', 'IoU', lines[23].split()[-1]])
    self.assertEqual(table[-3].split(), ['pixel', 'accuracy', lines[24].split()[-1]])
    self.assertRegex(table[-1], r'^boundary IoU +0\.\d{4}$')

  def test_scores_go_to_tensorboard_at_the_checkpoints_step_and_once(self):
    model, scores_path = self.temporary('model'), self.temporary('scores.json')
    write_model(model, self.dataset, [7])
    for _ in range(2):
      self.evaluate('--model_dir', model, '--json', scores_path)
    with open(scores_path) as file:
      scores = json.load(file)
    os.remove(scores_path)
    self.assertEqual(sorted(os.listdir(f'{model}/evaluate')), ['val'])
    self.assertEqual(len(os.listdir(f'{model}/evaluate/val')), 1)
    found = read_scalars(f'{model}/evaluate/val')
    self.assertEqual({step for step, _ in found}, {7})
    self.assertAlmostEqual(found[7, 'mean_iou'], scores['mean_iou'], places=6)
    self.assertAlmostEqual(found[7, 'px_accuracy'], scores['px_accuracy'], places=6)
    self.assertAlmostEqual(found[7, 'iou/background'], scores['iou']['background'], places=6)

  def test_folder_that_cannot_be_written_to_is_a_note(self):
    model = self.temporary('model')
    write_model(model, self.dataset)
    with open(f'{model}/evaluate', 'w'):
      pass
    printed = self.evaluate('--model_dir', model)
    self.assertRegex(printed, r'Note: TensorBoard does not get these scores, as .*/evaluate/val cannot be '
                              r'written to \(Not a directory\)')
    self.assertIn('mean Intersection over Union', printed)

  def test_all_checkpoints_are_scored_in_order_and_the_best_is_named(self):
    model, scores_path = self.temporary('model'), self.temporary('scores.json')
    write_model(model, self.dataset, (10, 2, 30))
    with open(f'{model}/model.ckpt-30.data-00000-of-00001', 'r+b') as file:
      file.truncate(20)
    printed = self.evaluate('--model_dir', model, '--all_checkpoints', '--json', scores_path)
    with open(scores_path) as file:
      scores = json.load(file)
    os.remove(scores_path)
    self.assertEqual([one['step'] for one in scores['evaluations']], [2, 10])
    best = max(scores['evaluations'], key=lambda one: one['mean_iou'])
    self.assertEqual(scores['best'], best['step'])
    self.assertRegex(printed, r'model.ckpt-30 is damaged .*; skipped')
    values = re.findall(r'^step (\d+): mean Intersection over Union (0.\d+), Pixel Accuracy (0.\d+)',
                        printed, re.M)
    self.assertEqual(values, [(str(one['step']), f'{one["mean_iou"]:.4f}', f'{one["px_accuracy"]:.4f}')
                              for one in scores['evaluations']])
    self.assertIn(f'The best of 2 is step {best["step"]}, mean Intersection over Union', printed)
    self.assertEqual({step for step, _ in read_scalars(f'{model}/evaluate/val')}, {2, 10})
    for step, one in zip((2, 10), scores['evaluations']):  # each by its own weights
      alone = self.temporary(f'alone{step}')
      write_model(alone, self.dataset, [step])
      self.assertIn(f'mean Intersection over Union: {one["mean_iou"]:.4f}',
                    self.evaluate('--model_dir', alone))

  def test_folder_without_a_checkpoint_is_an_error_before_anything_is_written(self):
    model, report = self.temporary('model'), self.temporary('report')
    os.makedirs(model)
    for flags in ((), ('--all_checkpoints',), ('--watch',)):
      with (self.subTest(flags), mock.patch.object(checkpoint_watch, 'POLL_SECONDS', .1),
            mock.patch.object(checkpoint_watch, 'PATIENCE_SECONDS', .2),
            self.assertRaisesRegex(DataError, 'holds no checkpoint')):
        self.evaluate('--model_dir', model, '--report', report, *flags)
    self.assertFalse(os.path.exists(report))

  def test_ctrl_c_without_watch_interrupts(self):
    model = self.temporary('model')
    write_model(model, self.dataset)
    for flags in ((), ('--all_checkpoints',)):
      with (mock.patch.object(evaluation.Predictor, '_predict', side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt)):
        self.evaluate('--model_dir', model, *flags)

  def test_checkpoint_that_vanishes_is_told_and_skipped(self):
    model = self.temporary('model')
    write_model(model, self.dataset, (2, 5, 8))
    predict, problem = evaluation.Predictor.__call__, checkpoint_store.problem

    def remove(step):
      for path in glob.glob(f'{model}/model.ckpt-{step}.*'):
        os.remove(path)

    def gone_at_once(prefix):
      if prefix.endswith('-2'):
        remove(2)
      return problem(prefix)

    def gone_later(predictor, *args, **kwargs):
      if predictor._checkpoint.endswith('-5'):
        remove(5)
      yield from predict(predictor, *args, **kwargs)
      remove(8)

    with (mock.patch.object(checkpoint_store, 'problem', gone_at_once),
          mock.patch.object(evaluation.Predictor, '__call__', gone_later)):
      printed = self.evaluate('--model_dir', model, '--all_checkpoints')
    self.assertEqual(re.findall(r'ckpt-(\d) was removed meanwhile, .*; skipped', printed), ['2', '5'])
    self.assertRegex(printed, 'The best of 1 is step 8, .*/model.ckpt-8, which has been removed since')

  def test_watch_scores_what_a_training_writes_until_it_ends(self):
    model = self.temporary('model')

    def train():
      os.makedirs(model)
      with locks.locked(model):
        for step in (1, 2):
          time.sleep(.5)
          write_model(f'{model}_new', self.dataset, [step])
          os.replace(f'{model}_new/model_config.json', f'{model}/model_config.json')
          for path in sorted(glob.glob(f'{model}_new/model.ckpt-{step}.*')):
            shutil.move(path, model)
          time.sleep(.5)

    self.addCleanup(shutil.rmtree, f'{model}_new', ignore_errors=True)
    training = threading.Thread(target=train)
    training.start()
    self.addCleanup(training.join)
    with (mock.patch.object(checkpoint_watch, 'POLL_SECONDS', .1),
          mock.patch.object(checkpoint_watch, 'PATIENCE_SECONDS', 4)):
      printed = self.evaluate('--model_dir', model, '--watch')
    self.assertEqual(re.findall(r'^step (\d):', printed, re.M), ['1', '2'])
    self.assertIn(f'Waiting for the first checkpoint in {model}; Ctrl-C ends this', printed)
    self.assertIn('s; it has ended', printed)
    self.assertIn('The best of 2 is step', printed)

  def test_watch_begins_with_the_newest_and_ends_by_ctrl_c(self):
    model = self.temporary('model')
    write_model(model, self.dataset, (1, 2))
    with mock.patch.object(checkpoint_watch.time, 'sleep', side_effect=KeyboardInterrupt):
      printed = self.evaluate('--model_dir', model, '--watch')
    self.assertEqual(re.findall(r'^step (\d):', printed, re.M), ['2'])
    self.assertIn('The best of 1 is step 2', printed)

  def test_voc_submission_has_the_layout_and_the_colours_of_the_development_kit(self):
    output, plain = self.temporary('submission'), self.temporary('plain')
    self.evaluate('--save_predictions', plain, listed='two')
    self.evaluate('--save_predictions', output, '--submission', 'voc', listed='two')
    files = [f'{output}/results/VOC2012/Segmentation/comp6_two_cls/{name}.png' for name in ('a', 'b')]
    self.assertEqual(sorted(glob.glob(f'{output}/**/*.*', recursive=True)), files)
    image = Image.open(files[0])
    self.assertEqual((image.mode, image.size), ('P', (49, 33)))
    # Of VOClabelcolormap: background, aeroplane, tvmonitor, void.
    palette = np.reshape(image.getpalette(), (-1, 3))[[0, 1, 20, 255]].tolist()
    self.assertEqual(palette, [[0, 0, 0], [128, 0, 0], [0, 64, 128], [224, 224, 192]])
    np.testing.assert_array_equal(read_index(files[0]), read_index(f'{plain}/a.png'))

  def test_images_without_labels_get_the_same_predictions_and_no_scores(self):
    scored, unscored = self.temporary('scored'), self.temporary('unscored')
    self.evaluate('--save_predictions', scored)
    printed = self.evaluate('--label_data_dir', 'none', '--save_predictions', unscored)
    self.assertNotIn('Intersection', printed)
    for name in SIZES:
      np.testing.assert_array_equal(read_index(f'{scored}/{name}.png'), read_index(f'{unscored}/{name}.png'))

  def test_records_give_the_scores_and_predictions_of_their_files(self):
    records, output = self.temporary('records'), self.temporary('predictions')
    os.makedirs(records)
    with tf.io.TFRecordWriter(f'{records}/two.record') as writer:
      for name in ('a', 'b'):
        writer.write(support.encode_example(f'{self.folder}/images/{name}.png',
                                              f'{self.folder}/labels/{name}.png', self.dataset))
    printed = run(evaluate, '--model_dir', self.model, '--data_dir', records, '--split', 'two',
                  '--save_predictions', output)
    self.assertEqual(sorted(os.listdir(output)), ['a.png', 'b.png'])
    of_files = self.evaluate('--save_predictions', self.temporary('of_files'), listed='two')
    # But for the first line, which says how much memory is unused, and the last, which names the folder.
    self.assertEqual(printed.splitlines()[1:-1], of_files.splitlines()[1:-1])

  def test_records_without_names_cannot_be_saved(self):
    records = self.temporary('records')
    os.makedirs(records)
    example = tf.train.Example.FromString(support.encode_example(
        f'{self.folder}/images/a.png', f'{self.folder}/labels/a.png', self.dataset))
    del example.features.feature[schema.IMAGE_FILENAME]
    with tf.io.TFRecordWriter(f'{records}/val.record') as writer:
      writer.write(example.SerializeToString())
    argv = ('--model_dir', self.model, '--data_dir', records)
    self.assertIn('mean Intersection over Union', run(evaluate, *argv))
    with self.assertRaisesRegex(DataError, r'example 0 .*val\.record.* does not hold the name'):
      run(evaluate, *argv, '--save_predictions', self.temporary('predictions'))

  def test_predictions_that_would_share_a_file_are_an_error_before_any_is_written(self):
    output = self.temporary('submission')
    with self.assertRaisesRegex(DataError, "two images, 'a' and 'sub/a', would both be written to .*a.png"):
      self.evaluate('--save_predictions', output, '--submission', 'voc')
    self.assertFalse(os.path.exists(output))

  def test_flags_that_need_or_exclude_each_other_are_usage_errors(self):
    for message, argv in (
        ('--submission needs --save_predictions', ('--submission', 'voc')),
        ('none leaves nothing to score', ('--label_data_dir', 'none')),
        ('none leaves nothing to score',
         ('--label_data_dir', 'none', '--save_predictions', 'x', '--json', 'y')),
        ('--data_dir means records and --evaluation_data_list files', ('--data_dir', self.folder)),
        ('--split would change nothing without --data_dir', ('--split', 'train')),
        ('--overlap would change nothing without --sliding_window', ('--overlap', 0.5)),
        ('--watch scores several checkpoints', ('--watch', '--save_predictions', 'x')),
        ('--all_checkpoints scores several', ('--all_checkpoints', '--save_predictions', 'x')),
        ('--submission cityscapes takes predictions of its 19 classes, but the model knows the 21',
         ('--submission', 'cityscapes', '--save_predictions', 'x')),
    ):
      with self.subTest(message), self.assertRaisesRegex(UsageError, message):
        self.evaluate(*argv)


class CityscapesTest(EvaluateTest):
  dataset = descriptors.DATASETS['cityscapes']

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    rng = np.random.RandomState(7)
    for city, frame in (('frankfurt', 1), ('frankfurt', 23), ('lindau', 1)):
      stem = f'val/{city}/{city}_000000_{frame:06d}'
      write_photo(f'{cls.folder}/leftImg8bit/{stem}_leftImg8bit.png', (33, 49), rng)
      ids = rng.randint(0, 34, (3, 7)).repeat(11, 0).repeat(7, 1).astype(np.uint8)  # of all kinds
      os.makedirs(os.path.dirname(f'{cls.folder}/gtFine/{stem}'), exist_ok=True)
      Image.fromarray(ids).save(f'{cls.folder}/gtFine/{stem}_gtFine_labelIds.png')
    run(create_cityscapes_tf_record, '--cityscapes_dir', cls.folder, '--split_type', 'val', '--output_dir',
        cls.folder)

  def official_scores(self, results):
    """Returns what cityscapesScripts say of a folder of predictions."""
    evaluator = pytest.importorskip(
        'cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling',
        reason='the official evaluator, cityscapesscripts, is not installed')
    arguments = evaluator.args
    arguments.evalInstLevelScore = False  # it calls np.in1d, which NumPy 2.4 has dropped
    arguments.JSONOutput, arguments.quiet = False, True
    arguments.predictionPath, arguments.predictionWalk = results, None
    truth = sorted(glob.glob(f'{self.folder}/gtFine/val/*/*_gtFine_labelIds.png'))
    return evaluator.evaluateImgLists([evaluator.getPrediction(arguments, path) for path in truth], truth,
                                      arguments)

  def evaluate(self, *argv):
    return run(evaluate, '--model_dir', self.model, '--data_dir', self.folder, '--submission', 'cityscapes',
               *argv)

  def test_scores_are_those_of_the_official_evaluator(self):
    output, scores_path = self.temporary('results'), self.temporary('scores.json')
    self.evaluate('--save_predictions', output, '--json', scores_path)
    with open(scores_path) as file:
      scores = json.load(file)
    os.remove(scores_path)
    official = self.official_scores(output)
    scored = [name for name, iou in scores['iou'].items() if iou is not None]
    self.assertGreater(sum(scores['iou'][name] > 0 for name in scored), 4)
    for name, iou in scores['iou'].items():
      np.testing.assert_allclose(np.nan if iou is None else iou, official['classScores'][name], atol=1e-12)
    self.assertAlmostEqual(scores['mean_iou'], official['averageScoreClasses'], places=12)

  def test_submission_holds_grey_label_ids_under_the_servers_names(self):
    output = self.temporary('results')
    self.evaluate('--save_predictions', output)
    self.assertEqual(sorted(os.listdir(output)), [
        'frankfurt_000000_000001_pred_labelIds.png', 'frankfurt_000000_000023_pred_labelIds.png',
        'lindau_000000_000001_pred_labelIds.png'])
    image = Image.open(f'{output}/lindau_000000_000001_pred_labelIds.png')
    self.assertEqual((image.mode, image.size), ('L', (49, 33)))
    # The ids of the evaluated classes, of the table on cityscapes-dataset.com.
    self.assertLessEqual(set(np.unique(image)), {7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33})


class ViewsTest(support.ScriptsTest):
  """--eval_scales, --flip and --sliding_window."""

  def scores(self, *argv):
    path = self.temporary('scores.json')
    self.evaluate('--json', path, *argv)
    with open(path) as file:
      return json.load(file)

  def test_window_that_covers_the_images_scores_as_without_it(self):
    plain, covered = self.scores(), self.scores('--sliding_window', 90, 90)
    self.assertEqual(covered, plain)

  def test_scales_and_mirrored_images_change_what_is_predicted(self):
    folder = self.temporary('predictions')
    found = self.scores('--eval_scales', 0.5, 1.5, '--flip', '--save_predictions', folder)
    matrix = np.array(found['confusion_matrix'])
    self.assertEqual(matrix.sum(), np.array(self.scores()['confusion_matrix']).sum())
    self.assertNotEqual(found['confusion_matrix'], self.scores()['confusion_matrix'])
    predicted = sum(np.bincount(np.asarray(Image.open(os.path.join(folder, name))).ravel(), minlength=3)
                    for name in os.listdir(folder))
    self.assertTrue((predicted >= matrix.sum(axis=0)).all())  # they cover ignored pixels too

  def test_records_are_seen_in_windows_too(self):
    path = self.temporary('scores.json')
    support.run(evaluate, '--model_dir', self.model, '--data_dir', self.data, '--json', path,
                '--sliding_window', 90, 90)
    with open(path) as file:
      self.assertEqual(json.load(file)['confusion_matrix'], self.scores()['confusion_matrix'])


if __name__ == '__main__':
  unittest.main()
