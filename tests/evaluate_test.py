"""Scores against the official evaluator and against counting by hand; predictions as files."""
import contextlib
import glob
import io
import json
import os
import shutil
import tempfile
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

import create_cityscapes_tf_record
import deeplab_model
import evaluate
from cli import model_config
from dataset import descriptors, schema, tf_records
from utils.architecture import Architecture
from utils.errors import DataError, UsageError

pytestmark = pytest.mark.compat

SIZES = {'a': (33, 49), 'b': (41, 37), 'sub/a': (35, 35)}  # height, width


def run(script, *argv):
  """Runs a script's main in this process; returns what it printed."""
  output = io.StringIO()
  with contextlib.redirect_stdout(output):
    script.main(script.make_parser().parse([str(arg) for arg in argv]))
  return output.getvalue()


def color_network(images, architecture, is_training, batch_norm_decay=None, *_):
  """Stands in for deeplab_model.network: a pixel's class is a linear function of its colour alone."""
  weights = tf.get_variable('weights', [3, architecture.num_classes])
  return tf.einsum('bhwc,ck->bhwk', tf.cast(images, tf.float32) - 128, weights)


def write_model(folder, dataset):
  """Writes a color_network of random weights, as train.py would leave it."""
  architecture = Architecture('resnet_v2_50', dataset.num_classes)
  os.makedirs(folder)
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(3)
    color_network(tf.zeros([1, 33, 33, 3]), architecture, is_training=False)
    tf.train.create_global_step()
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, os.path.join(folder, 'model.ckpt'), global_step=1)
  model_config.write(folder, architecture, dataset, {})


def write_photo(path, size, rng):
  """Writes an image of noise."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  Image.fromarray(rng.randint(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def read_index(path):
  """Returns a PNG's values, int [H, W]."""
  return np.asarray(Image.open(path)).astype(int)


class EvaluateTest(unittest.TestCase):
  dataset = None  # of the model that a class of tests shares

  @classmethod
  def setUpClass(cls):
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.folder = folder.name
    patch = mock.patch.object(deeplab_model, 'network', color_network)
    patch.start()
    cls.addClassCleanup(patch.stop)
    cls.model = os.path.join(cls.folder, 'model')
    write_model(cls.model, cls.dataset)

  def temporary(self, name):
    path = os.path.join(self.folder, f'{self._testMethodName}_{name}')
    self.addCleanup(shutil.rmtree, path, ignore_errors=True)
    return path


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
        writer.write(tf_records.encode_example(f'{self.folder}/images/{name}.png',
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
    example = tf.train.Example.FromString(tf_records.encode_example(
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
        ('--split means records', ('--split', 'val')),
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


if __name__ == '__main__':
  unittest.main()
