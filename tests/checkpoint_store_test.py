"""Checkpoints as files: the newest good one is found, what is written counts when it is whole and finite."""
import contextlib
import io
import os
import random as random_of_python
import shutil
import tempfile
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests.fuzz import faults
from training import checkpoint_store, checkpoints
from utils.errors import DataError

pytestmark = pytest.mark.compat


class StoreTest(unittest.TestCase):
  FOLDER = 'model'

  def setUp(self):
    super().setUp()
    scratch = tempfile.TemporaryDirectory()
    self.addCleanup(scratch.cleanup)
    self.folder = os.path.join(scratch.name, self.FOLDER)
    os.mkdir(self.folder)
    self.output = io.StringIO()
    redirect = contextlib.redirect_stdout(self.output)
    redirect.__enter__()
    self.addCleanup(redirect.__exit__, None, None, None)

  def path(self, *names):
    return os.path.join(self.folder, *names)

  def save(self, step, value=1.0, keep_max=0):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.get_variable('a/weights', [3000], initializer=tf.constant_initializer(value))
      tf.get_variable('b/weights', [2, 3], initializer=tf.constant_initializer(step))
      session.run(tf.global_variables_initializer())
      return checkpoint_store.save(tf.train.Saver(sharded=True), session, self.folder, step, keep_max)

  def names(self):
    return sorted(name for name in os.listdir(self.folder) if name.endswith('.index'))

  def cut(self, name, size):
    with open(self.path(name), 'r+b') as file:
      file.truncate(size)


class FindTest(StoreTest):

  def test_folder_without_checkpoint_has_none(self):
    self.assertEqual(checkpoint_store.find(self.folder), (None, {}))
    with self.assertRaisesRegex(DataError, 'holds no checkpoint'):
      checkpoints.latest_or_error(self.folder)

  def test_checkpoint_file_decides(self):
    for step in (9, 10, 11):
      self.save(step)
    self.assertEqual(checkpoint_store.find(self.folder).prefix, self.path('model.ckpt-11'))
    checkpoint_store.choose(self.folder, self.path('model.ckpt-9'))
    self.assertEqual(checkpoint_store.find(self.folder).prefix, self.path('model.ckpt-9'))
    self.assertEqual(tf.train.latest_checkpoint(self.folder), self.path('model.ckpt-9'))

  def test_signal_that_breaks_off_its_writing_leaves_no_other_file(self):
    for step in (7, 9):
      self.save(step)
    with mock.patch('os.replace', side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
      checkpoint_store.choose(self.folder, self.path('model.ckpt-7'))
    self.assertEqual([name for name in os.listdir(self.folder) if 'ckpt' not in name], ['checkpoint'])
    self.assertEqual(tf.train.latest_checkpoint(self.folder), self.path('model.ckpt-9'))

  def test_tf_estimator_finds_the_newest_of_a_relative_folder_too(self):
    before = os.getcwd()
    self.addCleanup(os.chdir, before)
    os.chdir(os.path.dirname(self.folder))
    for folder in ('model', './model/', '../' + os.path.basename(os.getcwd()) + '/model'):
      self.folder = folder
      self.save(7)
      checkpoint_store.choose(folder, os.path.join(folder, 'model.ckpt-7'))
      self.assertTrue(tf.train.latest_checkpoint(folder), folder)
      with open(os.path.join(folder, 'checkpoint')) as file:
        self.assertIn('model_checkpoint_path: "model.ckpt-7"', file.read())

  def test_every_kind_of_damage_is_named_and_the_one_before_used(self):
    data, index = 'model.ckpt-12.data-00000-of-00001', 'model.ckpt-12.index'

    def zero_the_end():
      with open(self.path(data), 'r+b') as file:
        file.seek(-4000, os.SEEK_END)
        file.write(bytes(4000))

    self.save(11)
    for damage in (
        lambda: self.cut(data, 5000), lambda: self.cut(data, 0), lambda: os.remove(self.path(data)),
        lambda: self.cut(index, 40), lambda: self.cut(index, 0), zero_the_end):
      self.save(12)
      damage()
      self.output.truncate(0)
      found = checkpoint_store.find(self.folder)
      self.assertEqual(found.prefix, self.path('model.ckpt-11'))
      self.assertEqual(list(found.rejected), [self.path('model.ckpt-12')])
      self.assertRegex(self.output.getvalue(),
                       r'ckpt-12 is damaged \(.*\); using .*ckpt-11, the newest good one')

  def test_index_of_any_bytes_is_damaged_or_good(self):
    with tf.Graph().as_default(), tf.Session() as session:
      old = self.path('old.ckpt')  # a single file, as of TF-Slim's archives
      session.run(tf.raw_ops.Save(filename=old, tensor_names=['a/weights'], data=[tf.zeros([300, 200])]))
    new, random = self.save(3), np.random.RandomState(0)
    for prefix, path in ((new, new + '.index'), (old, old)):
      self.assertIsNone(checkpoint_store.problem(prefix))
      with open(path, 'rb') as file:
        whole = file.read()
      for number in range(400):
        content = bytearray(whole)
        for _ in range(random.randint(1, 4)):  # every other time in the footer, which no checksum covers
          content[-1 - random.randint((48, len(content))[number % 2])] = random.randint(256)
        with open(path, 'wb') as file:
          file.write(content if number % 5 else content[:random.randint(len(content))])
        self.assertRegex(checkpoint_store.problem(prefix) or '', '^$|^is damaged [(].')
      with open(path, 'wb') as file:
        file.write(whole)
      faults.huge_block(path, random_of_python.Random(0))
      self.assertEqual(checkpoint_store.problem(prefix),
                       'is damaged (its index tells of a block beyond its end)')

  def test_pipes_are_waited_for_by_nobody(self):
    self.save(3)
    self.save(5)
    os.remove(self.path('checkpoint'))
    os.mkfifo(self.path('checkpoint'))
    for end in ('index', 'data-00000-of-00001'):
      os.rename(self.path('model.ckpt-5.' + end), self.path('kept'))
      os.mkfifo(self.path('model.ckpt-5.' + end))
      found = checkpoint_store.find(self.folder)
      self.assertEqual(found.prefix, self.path('model.ckpt-3'))
      self.assertIn('it is a device or pipe', found.rejected[self.path('model.ckpt-5')])
      with self.assertRaisesRegex(DataError, 'it is a device or pipe'):
        checkpoints.shapes(self.path('model.ckpt-5'))
      os.replace(self.path('kept'), self.path('model.ckpt-5.' + end))

  def test_weights_that_are_not_finite_are_refused_by_name(self):
    self.save(1)
    with tf.Graph().as_default(), tf.Session() as session:  # as earlier versions wrote
      tf.get_variable('a/weights', [4], initializer=tf.constant_initializer(np.array([1, 2, np.inf, 4])))
      session.run(tf.global_variables_initializer())
      tf.train.Saver().save(session, self.path('model.ckpt'), 2)
    self.assertEqual(checkpoint_store.find(self.folder).prefix, self.path('model.ckpt-1'))
    self.assertIn('ckpt-2 holds values that are not finite in a/weights; using', self.output.getvalue())
    os.remove(self.path('model.ckpt-1.index'))
    with self.assertRaisesRegex(DataError, 'no checkpoint in .* can be used: .*ckpt-2 holds'):
      checkpoint_store.find(self.folder)

  def test_folder_copied_from_elsewhere_uses_its_own_files(self):
    self.save(900)
    self.save(1200)
    with open(self.path('checkpoint'), 'w') as file:
      file.write('model_checkpoint_path: "/home/somebody/model.ckpt-900"\n')
    self.assertEqual(checkpoint_store.find(self.folder).prefix, self.path('model.ckpt-900'))
    with open(self.path('checkpoint'), 'w') as file:
      file.write('model_checkpoint_path: "/home/somebody/model.ckpt-7"\n')
    self.assertEqual(checkpoint_store.find(self.folder).prefix, self.path('model.ckpt-1200'))
    self.assertIn('/home/somebody/model.ckpt-7, which is not here', self.output.getvalue())

  def test_unreadable_checkpoint_file_gives_the_newest(self):
    self.save(900)
    self.save(1200)
    for content in (b'', b'\xff\xfe\x00', b'what is this', b'model_checkpoint_path: 7'):
      with open(self.path('checkpoint'), 'wb') as file:
        file.write(content)
      self.assertEqual(checkpoint_store.find(self.folder).prefix, self.path('model.ckpt-1200'))


  def test_complete_checkpoint_that_the_checkpoint_file_does_not_know_yet_is_the_newest(self):
    self.save(3)
    shutil.copy(self.path('checkpoint'), self.path('earlier'))
    self.save(4)
    os.replace(self.path('earlier'), self.path('checkpoint'))  # killed before the file was written
    self.assertEqual(checkpoint_store.find(self.folder).prefix, self.path('model.ckpt-4'))

  def test_checkpoint_in_another_folder_stays_named(self):
    prefix = self.save(3)
    other = self.path('other')
    os.mkdir(other)
    checkpoint_store.choose(other, prefix)
    self.assertEqual(checkpoint_store.find(other).prefix, prefix)


class OddFolderTest(StoreTest):
  FOLDER = 'm[lr=0.1]*?\\x ü'

  def test_checkpoints_are_found_checked_and_restored(self):
    prefix = self.save(5, value=3)
    self.assertEqual(checkpoint_store.find(self.folder).prefix, prefix)
    self.assertEqual(checkpoints.shapes(prefix), {'a/weights': [3000], 'b/weights': [2, 3]})
    with tf.Graph().as_default(), tf.Session() as session:
      variable = tf.get_variable('a/weights', [3000])
      checkpoints.Restorer([variable]).restore(session, prefix)
      self.assertEqual(session.run(variable)[7], 3)


class SaveTest(StoreTest):

  def test_newest_are_kept_whoever_wrote_them(self):
    for step in (3, 20, 100):
      self.save(step)
    self.save(101, keep_max=2)
    self.assertEqual(self.names(), ['model.ckpt-100.index', 'model.ckpt-101.index'])
    self.assertEqual(tf.train.get_checkpoint_state(self.folder).all_model_checkpoint_paths,
                     [self.path('model.ckpt-100'), self.path('model.ckpt-101')])

  def test_copies_under_other_names_are_nobodys_to_remove(self):
    self.save(1)
    for name in os.listdir(self.folder):
      if 'ckpt-1.' in name:
        shutil.copy(self.path(name), self.path(name.replace('model.ckpt', 'good')))
    self.save(2, keep_max=1)
    checkpoint_store.set_aside(self.folder, 0, [])
    self.assertEqual(self.names(), ['good-1.index'])

  def test_file_in_the_place_of_the_folder_to_write_in_goes(self):
    open(self.path('saving.tmp'), 'w').close()
    self.save(1)
    os.symlink('/nowhere', self.path('saving.tmp'))
    self.save(2)
    self.assertEqual(self.names(), ['model.ckpt-1.index', 'model.ckpt-2.index'])

  def test_weights_that_are_not_finite_are_not_kept(self):
    self.save(1)
    before = sorted(os.listdir(self.folder))
    with self.assertRaisesRegex(checkpoint_store.NotFinite, 'the values of a/weights are not finite'):
      self.save(2, value=np.nan, keep_max=1)
    self.assertEqual(sorted(os.listdir(self.folder)), before)

  def test_disk_that_fills_up_leaves_what_was_there(self):
    import resource

    prefix = self.save(1)
    before = sorted(os.listdir(self.folder))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
      with self.assertRaises((OSError, tf.errors.OpError)):
        self.save(2, keep_max=1)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    self.assertEqual(sorted(os.listdir(self.folder)), before)
    self.assertEqual(checkpoint_store.find(self.folder), (prefix, {}))


class BestTest(StoreTest):

  def test_best_is_a_folder_with_one_checkpoint_that_outlives_its_origin(self):
    best = self.path('best')
    os.mkdir(best)
    for step in (1, 2):
      checkpoint_store.keep_best(self.save(step, keep_max=1), best)
    self.save(3, keep_max=1)
    self.assertEqual(sorted(os.listdir(best)), ['checkpoint', 'model.ckpt-2.data-00000-of-00001',
                                                'model.ckpt-2.index'])
    self.assertEqual(checkpoint_store.find(best), (os.path.join(best, 'model.ckpt-2'), {}))
    with open(os.path.join(best, 'checkpoint')) as file:
      self.assertNotIn('ckpt-1"', file.read())
    for name in (None, 'checkpoint', 'model.ckpt-2.index'):
      if name:
        os.remove(os.path.join(best, name))
      self.assertEqual(checkpoint_store.held(best), None if name == 'model.ckpt-2.index' else (
          2, os.path.join(best, 'model.ckpt-2')))


class SetAsideTest(StoreTest):

  def test_later_and_damaged_ones_are_moved_not_removed(self):
    for step in (1, 2, 3):
      self.save(step)
    self.cut('model.ckpt-2.index', 9)
    os.remove(self.path('model.ckpt-3.index'))
    os.mkdir(self.path('saving.tmp'))  # a process was killed while it saved
    open(self.path('validation.json.123.tmp'), 'w').close()
    for _ in range(2):
      checkpoint_store.set_aside(self.folder, 1, [self.path('model.ckpt-2')])
    self.assertEqual(sorted(os.listdir(self.folder)), ['checkpoint', 'model.ckpt-1.data-00000-of-00001',
                                                       'model.ckpt-1.index', 'set_aside'])
    self.assertEqual(sorted(os.listdir(self.path('set_aside'))), [
        'model.ckpt-2.data-00000-of-00001', 'model.ckpt-2.index', 'model.ckpt-3.data-00000-of-00001'])
    self.save(2)
    checkpoint_store.set_aside(self.folder, 1, [])
    self.assertEqual(len(os.listdir(self.path('set_aside', '2'))), 2)


if __name__ == '__main__':
  unittest.main()
