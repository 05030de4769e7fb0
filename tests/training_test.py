"""A training: when rounds end, what is counted and weighed, and what is refused or warned of at once."""
import contextlib
import dataclasses
import glob
import io
import itertools
import json
import os
import shutil
import tempfile
import types
import unittest
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf

import train
from commands import flags, training_checks, training_folder, training_plan
from dataset import descriptors
from nets.architecture import Architecture
from tests.support import ROOT, FolderTest, write_events
from tools import scalar_curves
from training import batch_size, checkpoint_store, cluster, history, validation
from utils.errors import DataError, UsageError
from utils.settings import Settings

pytestmark = [pytest.mark.compat, pytest.mark.slow]


MODEL = training_plan.Model(Architecture('resnet_v2_50', 3), descriptors.get_dataset('voc'), None)


def position(step, images, checkpoint=None, validation=None):
  return training_plan.Position(checkpoint, step, images, [], {}, validation)


def parsed(*argv):
  return train.make_parser().parse([str(arg) for arg in argv])


def ends(args, num_train, step, position):
  """Returns the steps at which rounds end, from a step on."""
  last, is_end = training_plan.round_ends(args, num_train, step, position)
  return list(filter(is_end, range(step, last + 1)))


class RoundsTest(unittest.TestCase):

  def _ends(self, *argv, num_train=103, step=0):
    args = parsed(*argv)
    position = (step - args.initial_global_step) * args.batch_size
    return ends(args, num_train, step, position)

  def test_last_partial_round_is_trained_too(self):
    self.assertEqual(self._ends('--train_epochs', 26, '--epochs_per_eval', 10), [103, 206, 267])

  def test_stopped_run_trains_the_remaining_epochs_from_the_initial_step(self):
    # 12 of 26 epochs of 20 steps are done, counted from step 1000.
    ends = self._ends('--initial_global_step', 1000, num_train=200, step=1240)
    self.assertEqual(ends, [1000 + 20 * epoch for epoch in range(12, 27)])

  def test_max_steps_cuts_the_rounds(self):
    self.assertEqual(self._ends('--max_steps', 25), [10, 20, 25])
    self.assertEqual(self._ends('--max_steps', 25, step=25), [25])  # a round ends where it begins

  def test_as_many_epochs_as_one_likes_take_neither_memory_nor_time(self):
    for argv, last in ((('--train_epochs', 2**31 - 1), (2**31 - 1) * 103 // 10),
                       (('--train_epochs', 2**31 - 1, '--max_steps', 10**9), 10**9)):
      found, is_end = training_plan.round_ends(parsed(*argv), 103, 41, 410)
      self.assertEqual(found, last)
      self.assertEqual([is_end(step) for step in (50, 51, 60, 61, 10299999 + 10, last, last + 1)],
                       [False, True, False, True, False, True, False])

  def test_rounds_are_those_of_a_list_of_all(self):
    for flags_, num_train, step, position in itertools.product(
        itertools.product((1, 7, 26), (1, 3, 30), (1, 10, 64), (1, 9, 500)), (1, 103), (0, 9, 11), (0, 88)):
      args = types.SimpleNamespace(accumulate_steps=1, **dict(zip(
          ('train_epochs', 'epochs_per_eval', 'batch_size', 'max_steps'), flags_, strict=True)))
      epochs = [*range(args.epochs_per_eval, args.train_epochs, args.epochs_per_eval), args.train_epochs]
      all_ends = [step + (epoch * num_train - position) // args.batch_size for epoch in epochs]
      expected = sorted(end for end in {min(end, args.max_steps) for end in all_ends} if end >= step)
      last, is_end = training_plan.round_ends(args, num_train, step, position)
      self.assertEqual(last, max([step, *expected]))
      self.assertEqual([end for end in range(step, 3000) if is_end(end)], expected)

  def test_accumulated_batches_are_one_step(self):
    args = parsed('--batch_size', 5, '--accumulate_steps', 4, '--train_epochs', 3)
    self.assertEqual(training_plan.images_per_step(args), 20)
    # Epochs of 103 images: 5.15, 10.3 and 15.45 steps, of which one was done.
    self.assertEqual(ends(args, 103, 1, 20), [5, 10, 15])
    self.assertEqual(ends(args, 103, 11, 220), [15])  # the others lie before it


class PositionTest(unittest.TestCase):

  def test_images_are_counted_at_the_batch_sizes_of_their_time(self):
    args = parsed('--batch_size', 6, '--accumulate_steps', 2, '--initial_global_step', 40)
    past = [history.Entry(step=step, images_per_step=count, num_train=103, train_records=None, flags={})
            for step, count in ((0, 10), (100, 4))]
    self.assertEqual(training_plan.images_seen(args, past, 130), 60 * 10 + 30 * 4)
    self.assertEqual(training_plan.images_seen(args, [], 130), 90 * 12)
    self.assertEqual(training_plan.images_seen(args, past, 40), 0)

  def test_initial_step_ahead_is_refused(self):
    with self.assertRaisesRegex(UsageError, '--initial_global_step 40 lies ahead of .* starts, 39; give 39,'):
      training_plan.images_seen(parsed('--initial_global_step', 40), [], 39)


class CropTest(unittest.TestCase):

  def test_crop_has_a_feature_at_least(self):
    training_checks.check_crop(parsed('--crop_size', 16, 40, '--output_stride', 16))
    for height, width in ((15, 40), (40, 15)):
      with self.assertRaisesRegex(UsageError, f'--crop_size {height} {width} is smaller than .*stride 16;'):
        training_checks.check_crop(parsed('--crop_size', height, width, '--output_stride', 16))


class LossTest(unittest.TestCase):

  def test_flags_that_change_no_part_of_the_loss_are_refused(self):
    for argv in ((), ('--loss', 'dice,focal:2', '--hard_pixels', 0.2, '--hard_pixels_steps', 9),
                 ('--loss', 'dice', '--hard_pixels', 1)):
      training_checks.check_effects(parsed(*argv), 1)
    with self.assertRaisesRegex(UsageError, '--hard_pixels would change nothing without cross_entropy or '
                                            'focal in --loss, such as --loss dice:2,cross_entropy; leave'):
      training_checks.check_effects(parsed('--loss', 'dice:2', '--hard_pixels', 0.2), 1)
    with self.assertRaisesRegex(UsageError, '--label_smoothing would change nothing without cross_entropy in '
                                            '--loss, such as --loss focal,cross_entropy'):
      training_checks.check_effects(parsed('--loss', 'focal', '--label_smoothing', 0.1), 1)

  def test_flags_that_change_nothing_beside_the_others_are_refused(self):
    def refused(*argv, workers=1):
      with self.assertRaises(UsageError) as caught:
        training_checks.check_effects(parsed(*argv), workers)
      return str(caught.exception)

    def taken(*argv, workers=1):
      training_checks.check_effects(parsed(*argv), workers)

    for argv, words in (
        (('--batch_norm_decay', 0.9, '--freeze_batch_norm'), 'with --freeze_batch_norm'),
        (('--max_iter', 9, '--learning_rate_policy', 'piecewise'), 'with --learning_rate_policy piecewise'),
        (('--sync_batch_norm', 'off'), 'on one device'), (('--collectives', 'ring'), 'on one machine'),
        (('--weight_decay_scope', 'weights', '--weight_decay', 0), 'with --weight_decay 0'),
        (('--hard_pixels_steps', 9), 'with --hard_pixels 1'),
        (('--class_weight_limit', 5), 'without --class_weights median_frequency')):
      self.assertIn(f'{argv[0]} would change nothing {words}', refused(*argv))
    self.assertEqual(refused('--end_learning_rate', 0, '--initial_learning_rate', 1, '--max_iter', 30000,
                             '--learning_rate_policy', 'piecewise').split(' with')[0],
                     '--initial_learning_rate --end_learning_rate would change nothing')
    self.assertIn('--sync_batch_norm', refused('--sync_batch_norm', 'off', '--freeze_batch_norm', workers=2))
    taken('--sync_batch_norm', 'off', '--collectives', 'ring', workers=2)
    taken('--sync_batch_norm', 'off', '--num_gpus', 2)
    # At their defaults they are taken: that is how the command line undoes what a recipe gives.
    taken('--learning_rate_policy', 'piecewise', '--initial_learning_rate', 0.007, '--end_learning_rate',
          '1e-6', '--weight_decay', 0, '--weight_decay_scope', 'all', '--sync_batch_norm', 'on',
          '--collectives', 'nccl', '--hard_pixels_steps', 0, '--class_weight_limit', 10,
          '--freeze_batch_norm')
    recipe = os.path.join(ROOT, 'recipes', 'camvid_mobilenet_v2.flags')
    self.assertIn('over a recipe give --initial_learning_rate 0.007 --max_iter 30000',
                  refused('--recipe', recipe, '--learning_rate_policy', 'piecewise'))
    for path in glob.glob(os.path.join(ROOT, 'recipes', '**', '*.flags'), recursive=True):
      taken('--recipe', path)

  def test_what_is_history_is_said_where_a_flag_is_declared(self):
    parser = train.make_parser()
    args = parser.parse([])
    of_no_consequence = set(flags.values(args)) - args.recorded
    self.assertEqual(of_no_consequence, {
        'recipe', 'model_dir', 'clean_model_dir', 'debug', 'verbose', 'quiet', 'pre_trained_model',
        'input_threads', 'collectives', 'save_summary_steps', 'save_checkpoints_secs',
        'save_checkpoints_steps', 'keep_checkpoint_max', 'tensorboard_images_max_outputs'})
    before = flags.values(args)
    past = [history.Entry(step=0, images_per_step=10, num_train=50, train_records=None,  # as once kept
                          flags=dict.fromkeys(of_no_consequence, 'other') | {'seed': 0})]
    stored = mock.Mock(history=past)
    with contextlib.redirect_stdout(io.StringIO()) as output:
      found = training_plan.find_history(args, stored, 5, 50, None)
    self.assertEqual((found, output.getvalue()), (past, ''))
    with contextlib.redirect_stdout(io.StringIO()) as output:
      found = training_plan.find_history(parsed('--seed', 1, '--quiet'), stored, 5, 50, None)
    self.assertEqual(output.getvalue(), 'Changed from step 5 on: --seed 0 became 1\n')
    self.assertEqual(found[-1]['flags'], {name: value for name, value in before.items()
                                          if name in args.recorded} | {'seed': 1})


class EndTest(unittest.TestCase):

  def scored(self, **scores):
    """Returns a Validation in memory with a mean IoU for each step, such as s2=0.5."""
    with tempfile.TemporaryDirectory() as folder:
      found = validation.Validation(folder)
    found.evaluations = [{'step': int(step[1:]), 'mean_iou': value} for step, value in scores.items()]
    return found

  def test_nothing_is_left_after_the_last_round_or_evaluations_without_a_better_one(self):
    found = self.scored(s1=0.5, s2=0.4, s3=0.5)  # the first is the best of equals

    def finished(argv, last, validation=found):
      with contextlib.redirect_stdout(io.StringIO()) as output:
        is_finished = training_plan.is_finished(parsed(*argv), position(3, 0, 'm/model.ckpt-3', validation),
                                                training_plan.Rounds(last, None, False))
      return is_finished, output.getvalue()

    self.assertEqual(finished((), 9), (False, ''))
    self.assertEqual(finished(('--early_stopping_evals', 3), 9), (False, ''))
    self.assertEqual(finished(('--early_stopping_evals', 2), 9, None), (False, ''))
    is_finished, printed = finished(('--early_stopping_evals', 2), 9)
    self.assertTrue(is_finished)
    self.assertIn('the last 2 evaluations found no better mean IoU', printed)
    for argv, words in ((('--train_epochs', 7), 'raise --train_epochs 7, or give --initial_global_step 3 '),
                        (('--train_epochs', 7, '--max_steps', 3), 'raise --train_epochs 7 or --max_steps, ')):
      is_finished, printed = finished(argv, 3)
      self.assertTrue(is_finished)
      self.assertIn(f'm/model.ckpt-3 has reached step 3; {words}', printed)


class KeepingTest(FolderTest):
  """Trainings whose checkpoints hold a number and whose scores are given."""

  def setUp(self):
    super().setUp()
    self.model = os.path.join(self.folder, 'model')
    os.mkdir(self.model)
    with open(f'{self.model}/model_config.json', 'w') as file:
      file.write('{}')

  def save(self, step):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.get_variable('a', initializer=float(step))
      session.run(tf.global_variables_initializer())
      return checkpoint_store.save(tf.train.Saver(sharded=True), session, self.model, step, keep_max=2)

  def train(self, scores, last=0, is_new=True, is_pending=False, **basis):
    """Goes on from a step and evaluates after each step of `scores`; returns what is printed, as a list."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
      checkpoint_store.set_aside(self.model, last, [])
      is_aside = training_folder.forget_later(self.model, last, is_new, is_pending)
      scored = validation.Validation(self.model, last, basis)
      scored.forget_later()
      if is_aside:
        training_folder.keep_best(self.model, scored.comparable(basis))
      for step, mean_iou in scores.items():
        prefix, entry = self.save(step), {'mean_iou': mean_iou, 'iou': {'a': mean_iou}, **basis}
        competing = [*scored.comparable(basis), {'step': step, **entry}]
        training_folder.keep_best(self.model, competing, prefix)
        scored.add(step, entry)
    return output.getvalue().replace(self.model + '/', '').splitlines()

  def best(self):
    """Returns the step of the best checkpoint and its class's IoU."""
    with open(f'{self.model}/best/scores.json') as file:
      scores = json.load(file)
    self.assertEqual(checkpoint_store.find(f'{self.model}/best').prefix,
                     f'{self.model}/best/model.ckpt-{scores["step"]}')
    return scores['step'], scores['iou']['a']

  def remove(self, *patterns):
    for path in [path for pattern in patterns for path in glob.glob(f'{self.model}/{pattern}')]:
      os.remove(path)

  def test_first_of_equals_is_the_best(self):
    self.assertEqual(self.train({2: .5, 4: .5, 6: .4, 8: .7}), [
        'The best so far; kept in best', 'The best is still step 2, mean IoU 0.5000, in best',
        'The best is still step 2, mean IoU 0.5000, in best', 'The best so far; kept in best'])
    self.assertEqual(self.best(), (8, .7))

  def test_training_anew_has_no_best_and_what_was_left_is_set_aside(self):
    self.train({2: .9, 4: .8})
    os.mkdir(f'{self.model}/eval')
    open(f'{self.model}/events.out.tfevents.1', 'w').close()
    open(f'{self.model}/notes.txt', 'w').close()
    self.remove('model.ckpt-*', 'checkpoint')
    line, *others = self.train({2: .1, 4: .2})
    self.assertEqual(line, 'best, validation.json, eval, events.out.tfevents.1 were moved to set_aside: '
                           'training begins anew')
    self.assertEqual(others, ['The best so far; kept in best'] * 2)
    self.assertEqual(self.best(), (4, .2))
    self.assertEqual(sorted(os.listdir(f'{self.model}/set_aside')),
                     ['best', 'eval', 'events.out.tfevents.1', 'validation.json'])
    self.remove('model.ckpt-*')  # and the file that names one stays
    self.assertEqual(self.train({2: .3})[0], 'checkpoint, best, validation.json were moved to set_aside/2: '
                                             'training begins anew')
    self.assertTrue(os.path.exists(f'{self.model}/notes.txt'))

  def test_training_that_was_killed_before_its_first_checkpoint_leaves_nothing_to_set_aside(self):
    self.train({})
    open(f'{self.model}/events.out.tfevents.1', 'w').close()
    self.assertEqual(self.train({2: .5}), ['The best so far; kept in best'])

  def test_rollback_keeps_the_best_of_the_steps_before(self):
    self.train({2: .3, 4: .5, 6: .9})
    self.remove('model.ckpt-6.*')
    self.assertEqual(self.train({6: .4, 8: .6}, last=4, is_new=False), [
        'best was moved to set_aside: training goes on from step 4', 'The best is step 4; kept in best',
        'The best is still step 4, mean IoU 0.5000, in best', 'The best so far; kept in best'])
    self.assertEqual(self.best(), (8, .6))
    self.assertEqual(os.listdir(f'{self.model}/set_aside'), ['best'])
    self.assertEqual([entry['step'] for entry in validation.Validation(self.model).evaluations], [2, 4, 6, 8])

  def test_best_whose_checkpoint_is_gone_is_said(self):
    self.train({2: .9, 4: .3, 6: .8})
    shutil.rmtree(f'{self.model}/best')
    gone = ('The checkpoint of the highest mean IoU, 0.9000 at step 2, is gone; the best is sought among the '
            'others')
    self.assertEqual(self.train({8: .4, 10: .85, 12: .95}, last=6, is_new=False), [
        gone, 'The best is step 6; kept in best', gone, 'The best so far; kept in best',
        'The best so far; kept in best'])
    self.assertEqual(self.best(), (12, .95))

  def test_damaged_best_is_set_aside(self):
    self.train({2: .9, 4: .3, 6: .2})
    os.truncate(f'{self.model}/best/model.ckpt-2.index', 9)
    lines = self.train({8: .4}, last=6, is_new=False)
    self.assertRegex(lines[0], '^The best so far, step 2 in best, is damaged .*; it begins anew, and that '
                               'one is in set_aside$')
    self.assertEqual(self.best(), (8, .4))

  def test_best_by_other_weights_or_records_does_not_compete(self):
    self.train({2: .9, 4: .3}, records='a', images=3)
    self.assertEqual(self.train({6: .2}, last=4, is_new=False, records='b', images=3), [
        'The best so far, step 2 in best, was scored on other images or by other --weights; it begins '
        'anew, and that one is in set_aside', 'The best so far; kept in best'])
    self.assertEqual(self.train({8: .1}, last=6, is_new=False, records='b', images=3, weights='ema'), [
        'The best so far, step 6 in best, was scored on other images or by other --weights; it begins '
        'anew, and that one is in set_aside/2', 'The best so far by its averaged weights; kept in best'])
    self.assertEqual(self.train({10: .1}, last=8, is_new=False, records='b', images=3, weights='ema'), [
        'The best is still step 8, mean IoU 0.1000, in best'])

  def test_best_counts_though_the_scores_were_lost_or_a_kill_came_before_they_were_written(self):
    self.train({2: .5, 4: .3})
    self.remove('validation.json')
    self.assertEqual(self.train({6: .4}, last=4, is_new=False), [
        'The best is still step 2, mean IoU 0.5000, in best'])
    self.train({8: .6}, last=6, is_new=False)
    validation.Validation(self.model, last=6).forget_later()
    self.assertEqual(self.train({8: .6, 10: .4}, last=8, is_new=False, is_pending=True), [
        'The best is still step 8, mean IoU 0.6000, in best'] * 2)


class ClassWeightsFlagTest(unittest.TestCase):
  index = {'dataset': {'class_names': ['sky', 'bird', 'road', 'cat', 'dog']},
           'class_pixels': [9_000_000, 1, 30_000, 300, 0], 'class_image_pixels': [1 << 24] * 4 + [0]}

  def find(self, *argv, index=index):
    """Returns the weights, and what is printed."""
    args = parsed(*argv)
    with contextlib.redirect_stdout(io.StringIO()) as output:
      return training_plan.find_class_weights(args, index), output.getvalue()

  def test_weights_are_bounded_and_printed(self):
    weights, printed = self.find('--class_weights', 'median_frequency')
    self.assertEqual(weights, [0.1, 10, 0.505, 10, 1])
    self.assertEqual(printed, 'class weights: sky 0.1, bird 10, road 0.505, cat 10, dog 1; without a pixel: '
                              'dog\n')
    weights, _ = self.find('--class_weights', 'median_frequency', '--class_weight_limit', '1e6')
    self.assertEqual(weights[1], 15_150)

  def test_index_of_an_earlier_version_is_refused(self):
    before = {name: value for name, value in self.index.items() if name != 'class_image_pixels'}
    for index in (None, before, {**before, 'class_pixels': None, 'class_image_pixels': None}):
      with self.assertRaisesRegex(DataError, 'train.json.* earlier version or with --fast; convert the data'):
        self.find('--class_weights', 'median_frequency', index=index)

  def test_none_prints_nothing(self):
    self.assertEqual(self.find(), (None, ''))


class ForgetLaterTest(FolderTest):

  def test_step_that_is_still_to_be_evaluated_leaves_its_place_in_the_curve(self):
    for is_pending, expected in ((False, [0, 10]), (True, [0])):
      folder = os.path.join(self.folder, str(is_pending))
      write_events(os.path.join(folder, 'eval'), 'iou', [.1, .2, .3])
      training_folder.forget_later(folder, 10, False, is_pending)
      self.assertEqual(scalar_curves.read_scalar(f'{folder}/eval', 'iou')[0], expected)


class BatchSizeTest(unittest.TestCase):

  def test_what_auto_stood_for_is_checked_as_any_number(self):
    def found(value):
      with (contextlib.redirect_stdout(io.StringIO()),
            mock.patch.object(training_plan, 'largest_batch_size', return_value=7)):
        folder = mock.Mock(stored=mock.Mock(history=[{'flags': {'batch_size': value}}]))
        machines = training_checks.Machines(cluster.Task(), {})
        data = mock.Mock(counts={'train': 13})
        return training_plan.find_batch_size(parsed('--batch_size', 'auto'), machines, folder, None, data)

    self.assertEqual([found(value) for value in (13, 0, -4, '13', None, True, 2.0)], [13] + 6 * [7])
    folder = mock.Mock(stored=mock.Mock(history=[{'flags': {'batch_size': 13}}]))
    for workers, gpus, refused in ((1, 2, True), (1, 1, False), (13, 1, False)):
      args, machines = parsed('--batch_size', 'auto', '--num_gpus', gpus), mock.Mock()
      machines.task.workers = workers
      with (self.assertRaisesRegex(UsageError, '13 cannot be shared by 2 devices evenly') if refused
            else contextlib.nullcontext()), contextlib.redirect_stdout(io.StringIO()):
        training_plan.find_batch_size(args, machines, folder, None, mock.Mock(counts={'train': 13}))

  def test_all_gpus_get_as_many_and_no_more_than_there_are_examples(self):
    for num_train, expected in ((1000, 48), (41, 40), (3, 4)):
      args = parsed('--batch_size', 'auto', '--num_gpus', 4)
      with mock.patch.object(batch_size, 'largest_on_gpu', return_value=12):
        data = training_plan.Data({}, {'train': num_train}, {}, None, None)
        machines = training_checks.Machines(cluster.Task(), {})
        found = training_plan.largest_batch_size(args, machines, MODEL, data)
      self.assertEqual(found, expected)


class AnnounceTest(unittest.TestCase):

  def test_short_run_at_the_backbones_decay_is_warned_of(self):
    with contextlib.redirect_stdout(io.StringIO()) as output:
      training_checks.warn_of_slow_averages(0.9997, 300)
      training_checks.warn_of_slow_averages(0.983, 300)
      training_checks.warn_of_slow_averages(0.9997, 30000)
      training_checks.warn_of_slow_averages(0.9, 12)  # less would be no average any more
    self.assertRegex(output.getvalue(), r'^Warning: after 300 steps .* still 91% initial; '
                                        r'try --batch_norm_decay 0.983\n'
                                        r'Warning: after 12 steps .* still 28% initial; train longer\n$')

  def test_atrous_rates_beyond_the_crop_are_warned_of(self):
    for crop_size, output_stride, rates, words in (
        ((513, 513), 16, None, ''), ((289, 305), 16, None, ''),
        ((288, 513), 16, None, 'rate 18 see .*289 or more'),
        ((256, 256), 16, None, r'features of 16x16, .* rate 18 see .* smaller --atrous_rates\n$'),
        ((97, 129), 16, (6, 12, 18), 'features of 7x9, .* rate 12, 18 see'),
        ((513, 513), 8, None, ''), ((65, 65), 16, (), ''),
        ((257, 257), 8, (36, 1, 2), 'rate 36 see .*289 or more')):
      with contextlib.redirect_stdout(io.StringIO()) as output:
        training_checks.warn_of_untrained_weights(crop_size, Architecture(
            'resnet_v2_50', 21, output_stride=output_stride, atrous_rates=rates))
      self.assertRegex(output.getvalue(), f'^Warning: --crop_size .*{words}' if words else '^$')

  def test_rate_that_hardly_falls_is_said_before_training(self):
    with contextlib.redirect_stdout(io.StringIO()) as output:
      args = parsed('--max_iter', 100, '--batch_norm_decay', 0.5)
      settings = Settings(initial_learning_rate=0.1, end_learning_rate=0, max_iter=100, batch_norm_decay=0.5,
                          images_per_step=10, last_step=20)
      training_checks.announce(args, MODEL, settings, position(0, 0), num_train=50)
      later = dataclasses.replace(settings, last_step=100)
      training_checks.announce(args, MODEL, later, position(20, 200), num_train=50)
    line, warning, other = output.getvalue().splitlines()
    # 0.1 * (1 - 19/100)^0.9
    self.assertRegex(line, (r'Training steps 1 to 20: 200 images, epochs 0 to 4, 10 images a step; learning '
                            r'rate 0.1 to 0.0827 \(poly\); on the CPU: \d+ cores'))
    self.assertIn('give --max_iter 20', warning)
    self.assertRegex(other, 'Training steps 21 to 100: 800 images, epochs 4 to 20')

  def test_cosine_and_warmup_are_warned_of_too(self):
    def announced(steps, *argv):
      args = parsed('--batch_norm_decay', 0.5, '--max_iter', 100, *argv)
      with contextlib.redirect_stdout(io.StringIO()) as output:
        settings = Settings.from_params({**flags.values(args), 'num_train': 50, 'max_steps': steps})
        training_checks.announce(args, MODEL, settings, position(0, 0), 50)
      return output.getvalue().splitlines()

    line, warning = announced(20, '--learning_rate_policy', 'cosine', '--warmup_steps', 10)
    # A tenth of 0.007 first; (0.007 - 1e-6) * (1 + cos(0.19 pi)) / 2 + 1e-6 last.
    self.assertIn('learning rate 0.0007 to 0.00639 (cosine);', line)
    self.assertIn('give --max_iter 20', warning)
    self.assertIn('give --max_iter 200', announced(200, '--learning_rate_policy', 'cosine')[1])
    self.assertEqual(len(announced(100, '--learning_rate_policy', 'cosine', '--warmup_steps', 99)), 1)
    self.assertEqual(len(announced(20, '--learning_rate_policy', 'piecewise')), 1)
    _, warning = announced(100, '--warmup_steps', 100)
    self.assertIn('only rises: --warmup_steps 100 is not less than the 100 steps', warning)


if __name__ == '__main__':
  unittest.main()
