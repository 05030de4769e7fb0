"""Tests of dataset/make_sample_data.py."""
import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import numpy as np
from PIL import Image

from dataset import descriptors, lists, make_sample_data
from utils.errors import DataError, UsageError

SCRIPT = make_sample_data.__file__
SIZE = (67, 90)
VOID = 255


def write(folder, num_train=2, num_val=1, size=SIZE, seed=0):
  make_sample_data.write_dataset(folder, make_sample_data.dataset(num_train, num_val), size, seed)


def contents(folder):
  """Returns {relative path: bytes} of all files below a folder."""
  found = {}
  for parent, _, names in os.walk(folder):
    for name in names:
      path = os.path.join(parent, name)
      with open(path, 'rb') as file:
        found[os.path.relpath(path, folder)] = file.read()
  return found


def read_split(folder, split):
  """Returns images uint8 [N, H, W, 3] and labels uint8 [N, H, W] of a split."""
  names = lists.read_list(os.path.join(folder, split + '.txt'))
  pairs = lists.find_pairs(os.path.join(folder, 'JPEGImages'),
                              os.path.join(folder, 'SegmentationClassAug'), names)
  return (np.stack([np.array(Image.open(image)) for image, _ in pairs]),
          np.stack([np.array(Image.open(label)) for _, label in pairs]))


class FilesTest(unittest.TestCase):

  def setUp(self):
    parent = tempfile.TemporaryDirectory()
    self.addCleanup(parent.cleanup)
    self.parent = parent.name
    self.folder = os.path.join(self.parent, 'sample')

  def put(self, name, text='mine'):
    os.makedirs(self.folder, exist_ok=True)
    with open(os.path.join(self.folder, name), 'w') as file:
      file.write(text)

  def assert_refused(self, sentence):
    before = contents(self.parent)
    with self.assertRaisesRegex(UsageError, sentence):
      write(self.folder)
    self.assertEqual(contents(self.parent), before)

  def test_new_folder_gets_voc_layout(self):
    write(self.folder)
    self.assertEqual(sorted(contents(self.parent)), [
        'sample/JPEGImages/train_0000.jpg', 'sample/JPEGImages/train_0001.jpg',
        'sample/JPEGImages/val_0000.jpg', 'sample/SegmentationClassAug/train_0000.png',
        'sample/SegmentationClassAug/train_0001.png', 'sample/SegmentationClassAug/val_0000.png',
        'sample/sample.json', 'sample/train.txt', 'sample/val.txt'])
    self.assertEqual(contents(self.folder)['train.txt'], b'train_0000\ntrain_0001\n')

  def test_images_and_labels_have_the_size_asked_for(self):
    write(self.folder)
    images, labels = read_split(self.folder, 'train')
    self.assertEqual(images.shape, (2, 67, 90, 3))
    self.assertEqual(labels.shape, (2, 67, 90))

  def test_label_is_palette_png_in_the_descriptors_colours(self):
    write(self.folder)
    sample = descriptors.get_dataset(os.path.join(self.folder, 'sample.json'))
    label = Image.open(os.path.join(self.folder, 'SegmentationClassAug/val_0000.png'))
    self.assertEqual(label.mode, 'P')
    indices, colours = np.array(label), np.array(label.convert('RGB'))
    self.assertGreater(len(np.unique(indices)), 2)
    for index in np.unique(indices):
      expected = (224, 224, 192) if index == VOID else sample.palette[index]
      self.assertTrue((colours[indices == index] == expected).all())

  def test_descriptor_describes_what_was_written(self):
    write(self.folder)
    sample = descriptors.get_dataset(os.path.join(self.folder, 'sample.json'))
    self.assertEqual(sample.class_names, ('background', 'disk', 'diamond', 'triangle', 'star'))
    self.assertEqual(sample.splits, {'train': 2, 'val': 1})
    self.assertEqual(sample.ignore_label, VOID)

  def test_same_seed_writes_the_same_bytes(self):
    write(self.folder)
    first = contents(self.folder)
    write(self.folder)
    self.assertEqual(contents(self.folder), first)

  def test_other_seed_and_other_split_draw_other_scenes(self):
    write(self.folder)
    write(self.folder + '1', seed=1)
    first, second = contents(self.folder), contents(self.folder + '1')
    name = 'SegmentationClassAug/train_0000.png'
    self.assertNotEqual(first[name], second[name])
    self.assertNotEqual(first[name], first[name.replace('train', 'val')])

  def test_scene_does_not_depend_on_how_many_are_drawn(self):
    write(self.folder, num_train=3)
    more = contents(self.folder)
    write(self.folder, num_train=1)
    for name, data in contents(self.folder).items():
      if name.startswith(('JPEG', 'Seg')):
        self.assertEqual(data, more[name], name)

  def test_earlier_sample_is_replaced(self):
    write(self.folder, num_train=3)
    write(self.folder, num_train=1)
    self.assertEqual(len(contents(self.folder)), 7)  # 2 images, 2 labels, 2 lists, descriptor

  def test_empty_folder_is_used(self):
    os.mkdir(self.folder)
    write(self.folder)
    self.assertEqual(len(contents(self.folder)), 9)

  def test_folder_with_another_file_is_refused(self):
    write(self.folder)
    self.put('SegmentationClassAug/mine.png')
    self.assert_refused('holds SegmentationClassAug/mine.png')

  def test_list_of_another_dataset_is_refused(self):
    self.put('train.txt', 'train_0000\n')
    self.assert_refused('holds train.txt')

  def test_descriptor_of_another_dataset_is_refused(self):
    write(self.folder)
    self.put('sample.json', '{"name": "mine"}')
    self.assert_refused('which is not of an earlier sample')

  def test_file_in_place_of_the_folder_is_refused(self):
    with open(self.folder, 'w'):
      pass
    self.assert_refused('is a file; give a folder')

  def test_failure_midway_keeps_the_earlier_sample_and_leaves_nothing(self):
    write(self.folder)
    before = contents(self.parent)
    drawn = make_sample_data.draw_scene(np.random.default_rng(0), SIZE)
    full = OSError(28, 'No space left on device')
    with mock.patch.object(make_sample_data, 'draw_scene', side_effect=[drawn, full]):
      with self.assertRaisesRegex(DataError, 'No space left on device'):
        write(self.folder, seed=1)
    self.assertEqual(contents(self.parent), before)
    self.assertEqual(os.listdir(self.parent), ['sample'])

  def test_script_runs_from_any_folder(self):
    command = [sys.executable, SCRIPT, '--output_dir', 'mine', '--num_train', '2', '--num_val', '1',
               '--size', '67', '90']
    subprocess.run(command, cwd=self.parent, check=True, stdout=subprocess.DEVNULL)
    write(self.folder)
    self.assertEqual(contents(os.path.join(self.parent, 'mine')), contents(self.folder))

  def test_size_below_the_smallest_is_a_usage_error(self):
    args = make_sample_data.make_parser().parse(['--size', '63', '90', '--output_dir', self.folder])
    with self.assertRaisesRegex(UsageError, '--size 63 90 is too small; give 64'):
      make_sample_data.main(args)
    self.assertFalse(os.path.exists(self.folder))


class ScenesTest(unittest.TestCase):

  @classmethod
  def setUpClass(cls):
    with tempfile.TemporaryDirectory() as parent:
      folder = os.path.join(parent, 'sample')
      write(folder, num_train=80, num_val=24, size=(120, 160))
      cls.train = read_split(folder, 'train')
      cls.val = read_split(folder, 'val')
    cls.num_classes = 5

  def test_every_class_has_its_share_of_the_pixels(self):
    shares = np.bincount(self.train[1].ravel(), minlength=256) / self.train[1].size
    self.assertEqual(set(np.flatnonzero(shares)), {0, 1, 2, 3, 4, VOID})
    self.assertTrue(0.4 < shares[0] < 0.65, shares[0])
    self.assertGreater(shares[1:5].min(), 0.05)
    self.assertTrue(0.03 < shares[VOID] < 0.12, shares[VOID])

  def test_void_border_parts_all_regions(self):
    labels = self.train[1].astype(int)
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[:, :, 1:], labels[:, :, :-1])):
      meet = (one != other) & (one != VOID) & (other != VOID)
      self.assertEqual(meet.sum(), 0)

  def test_colour_alone_stays_under_two_fifths(self):
    for balanced in (False, True):
      score = colour_mean_iou(self.train, self.val, self.num_classes, balanced)
      self.assertLess(score, 0.4)

  def test_colour_classifier_scores_high_where_each_class_has_a_colour(self):
    """The same classifier on the same scenes, tinted by class: so the test above can fail."""
    for balanced in (False, True):
      score = colour_mean_iou(tinted(self.train), tinted(self.val), self.num_classes, balanced)
      self.assertGreater(score, 0.8)


def colour_mean_iou(train, val, num_classes, balanced):
  """Returns the mean IoU on `val` of the best guess by a pixel's colour, learnt from `train`.

  Args:
    train, val: (images, labels) of `read_split`.
    num_classes: int.
    balanced: bool, whether all classes are taken to be equally frequent (maximum likelihood), which
      finds rare classes more often, or as frequent as they are (Bayes), which errs least.
  """
  images, labels = train
  valid = labels != VOID
  seen = count_pairs(colour_bins(images)[valid], labels[valid], (16 ** 3, num_classes))
  guess = np.argmax(seen / seen.sum(0) if balanced else seen, axis=1)

  images, labels = val
  valid = labels != VOID
  predictions = guess[colour_bins(images)[valid]]
  confusion = count_pairs(labels[valid], predictions, (num_classes, num_classes))
  hits = np.diag(confusion)
  return np.mean(hits / (confusion.sum(0) + confusion.sum(1) - hits))


def count_pairs(rows, columns, shape):
  """Returns float [rows, columns], how often each pair of indices occurs."""
  pairs = np.ravel_multi_index((rows, columns), shape)
  return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape).astype(float)


def colour_bins(images):
  """Returns int [N, H, W], 0..4095: four bits of each colour channel."""
  bits = images.astype(int) >> 4
  return bits[..., 0] * 256 + bits[..., 1] * 16 + bits[..., 2]


def tinted(scenes):
  """Returns the scenes with every pixel mixed half and half with a colour of its class."""
  images, labels = scenes
  colours = np.zeros([256, 3], int)
  colours[:5] = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
  return ((images + colours[labels]) // 2).astype(np.uint8), labels


if __name__ == '__main__':
  unittest.main()
