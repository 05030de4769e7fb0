"""Scores of a training's evaluations: kept in a file, and counted since the best."""
import json
import os
import tempfile
import unittest

from training import validation
from utils import files
from utils.errors import DataError


class ValidationTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def write(self, name, text):
    with open(os.path.join(self.folder, name), 'w') as file:
      file.write(text)

  def test_later_evaluations_are_dropped_and_all_is_read_again(self):
    first = validation.Validation(self.folder)
    first.forget_later()
    self.assertEqual(os.listdir(self.folder), [])
    for step, value in ((6, .5), (8, .7), (10, .6), (8, .4)):  # the last replaces the second
      first.add(step, {'mean_iou': value, 'iou': {'a': value / 2}})
    self.assertEqual(first.evaluations_since_best(), 0)
    again = validation.Validation(self.folder, last=8)
    again.forget_later()
    self.assertEqual(again.evaluations, [{'step': 6, 'mean_iou': .5, 'iou': {'a': .25}},
                                         {'step': 8, 'mean_iou': .4, 'iou': {'a': .2}}])
    self.assertEqual(again.evaluations_since_best(), 1)
    self.assertEqual([entry['step'] for entry in validation.Validation(self.folder).evaluations], [6, 8])

  def test_more_evaluations_than_the_limit_of_a_foreign_json_are_read(self):
    iou = {f'class {number}' * 20: 0.5 for number in range(150)}
    path = os.path.join(self.folder, validation.FILE_NAME)
    evaluations = [{'step': step, 'mean_iou': 0.5, 'iou': iou} for step in range(800)]
    files.write_json(path, {'evaluations': evaluations})
    self.assertGreater(os.path.getsize(path), files._MAX_JSON)
    found = validation.Validation(self.folder, 798)
    self.assertEqual(len(found.evaluations), 799)
    self.assertEqual(found.evaluations[5], {'step': 5, 'mean_iou': 0.5, 'iou': iou})

  def test_file_of_earlier_versions_goes_on(self):
    self.write('validation.json', json.dumps({'format': 1, 'since': 0, 'evaluations': [
        {'step': step, 'mean_iou': value, 'images': 3, 'iou': {'a': 0.25}}
        for step, value in ((2, .75), (2, .5), (4, .25), (6, .125))]}))  # the last of a step counts
    found = validation.Validation(self.folder, 4, {'images': 3, 'records': 'abc', 'weights': 'raw'})
    self.assertEqual(found.evaluations_since_best(), 1)
    found.forget_later()
    self.assertEqual(os.listdir(self.folder), [validation.FILE_NAME])
    found.add(6, {'mean_iou': .25, 'images': 3, 'records': 'abc'})
    self.assertEqual(found.evaluations_since_best(), 2)
    self.assertEqual([entry['step'] for entry in validation.Validation(self.folder).evaluations], [2, 4, 6])

  def test_what_is_made_of_other_weights_or_records_does_not_compete(self):
    basis = {'images': 3, 'records': 'new', 'weights': 'ema'}
    found = validation.Validation(self.folder, basis=basis, since=7)
    for step, value, other in ((1, .9, {}), (2, .8, {'weights': 'ema', 'records': 'old'}),
                               (3, .7, {'weights': 'ema', 'images': 4}), (4, .1, {'weights': 'ema'}),
                               (5, .6, {'weights': 'ema', 'records': 'new', 'images': 3}),
                               (6, .4, {'weights': 'ema'}), (7, .4, {'weights': 'ema'})):
      found.add(step, {'mean_iou': value, **other})
    self.assertEqual([entry['step'] for entry in found.comparable(basis)], [4, 5, 6, 7])
    self.assertEqual(found.evaluations_since_best(), 0)  # trained on other records
    found.add(8, {'mean_iou': .5, 'weights': 'ema'})
    self.assertEqual(found.evaluations_since_best(), 1)
    self.assertEqual([entry['step'] for entry in found.comparable({**basis, 'weights': 'raw'})], [1])

  def test_score_of_the_best_counts_where_the_file_was_lost(self):
    os.mkdir(os.path.join(self.folder, 'best'))
    validation.write_best_scores(os.path.join(self.folder, 'best'), {'step': 4, 'mean_iou': .5})
    for last, expected in ((None, [4]), (4, [4]), (3, [])):
      found = validation.Validation(self.folder, last)
      self.assertEqual([entry['step'] for entry in found.comparable({})], expected)
    self.assertEqual(found.evaluations, [])

  def test_damaged_file_is_a_sentence(self):
    head = '{"evaluations": ['
    for content in ('', '{', '{"since": 3}', '{"since": 0, "evaluations": [{"step": "x"}]}', '[]',
                    '[' * 100000,
                    head + '3]}', head + '{"step": 1, "mean_iou": null}]}'):
      self.write(validation.FILE_NAME, content)
      with self.subTest(content[:99]), self.assertRaisesRegex(DataError, 'validation.json cannot be used'):
        validation.Validation(self.folder)

  def test_scores_of_the_best_are_read_back_or_none(self):
    self.assertIsNone(validation.best_scores(self.folder))
    validation.write_best_scores(self.folder, {'step': 7, 'mean_iou': .25, 'images': 3})
    self.assertEqual(validation.best_scores(self.folder), {'step': 7, 'mean_iou': .25, 'images': 3})
    with open(os.path.join(self.folder, validation.SCORES_NAME), 'w') as file:
      file.write('{"step": 7}')
    self.assertIsNone(validation.best_scores(self.folder))


if __name__ == '__main__':
  unittest.main()
