"""Figures and problems of small sets of examples whose answers are known."""
import dataclasses
import unittest

import numpy as np
from PIL import Image, ImageFilter

from dataset import descriptors
from tools import view_dataset_report

DATASET = descriptors.Dataset('three', ('ground', 'cat', 'dog'), descriptors.voc_palette(3))


def photo(seed):
  """Returns a PIL image of smooth random blotches."""
  coarse = np.random.RandomState(seed).randint(0, 256, (6, 7, 3)).astype(np.uint8)
  return Image.fromarray(coarse).resize((91, 61), Image.Resampling.BICUBIC)


def facts(label, image=None, name='a'):
  label = np.asarray(label, np.uint8)
  return view_dataset_report.examine(0, name, image or Image.new('RGB', (9, 7)), label, DATASET)


def one_set(*all_facts, title='train', errors=()):
  return view_dataset_report.set_of(title, list(all_facts), list(errors), DATASET, None)


class ExamineTest(unittest.TestCase):

  def test_pixels_and_shares_are_counted(self):
    found = facts([[0, 0, 2, 255], [0, 2, 2, 255]])
    self.assertEqual(found.size, (2, 4))
    self.assertEqual(found.pixels.tolist(), [3, 0, 3])
    self.assertEqual(found.ignored, .25)
    total = one_set(found, facts([[1, 1]]))
    self.assertEqual(total.pixels.tolist(), [3, 2, 3])
    self.assertEqual(total.images.tolist(), [1, 1, 1])
    self.assertEqual(total.ignored, .2)  # 2 of 8 + 2 pixels

  def test_class_that_is_ignored_has_no_pixels(self):
    dataset = dataclasses.replace(DATASET, ignore_label=0)
    found = view_dataset_report.examine(0, 'a', Image.new('RGB', (9, 7)), np.uint8([[0, 0, 1, 2]]), dataset)
    self.assertEqual(found.pixels.tolist(), [0, 1, 1])
    self.assertEqual(found.ignored, .5)


class NearIdenticalTest(unittest.TestCase):

  def doubles(self, train, val):
    sets = [one_set(*(facts([[0]], image, f'{title}{index}') for index, image in enumerate(images)))
            for title, images in (('train', train), ('val', val))]
    return [detail for problem in view_dataset_report.find_problems(sets, DATASET)
            if 'nearly equal' in problem.sentence for detail in problem.details]

  def test_changed_copies_are_found(self):
    train = [photo(seed) for seed in range(5)]
    copies = (photo(3), photo(3).resize((45, 30)), photo(3).filter(ImageFilter.GaussianBlur(1)),
              photo(3).point(lambda value: value // 2 + 100))
    for copy in copies:
      self.assertEqual(self.doubles(train, [photo(9), copy]), ['val1 is train3'])

  def test_other_images_are_left_alone(self):
    self.assertEqual(self.doubles([photo(1), Image.new('RGB', (9, 9))], [photo(2), photo(4)]), [])
    self.assertEqual(self.doubles([], [photo(2)]), [])


class FindProblemsTest(unittest.TestCase):

  def sentences(self, *sets):
    return [(problem.kind, problem.sentence, problem.details)
            for problem in view_dataset_report.find_problems(sets, DATASET)]

  def test_good_set_has_none(self):
    self.assertEqual(self.sentences(one_set(facts([[0, 1, 2, 2, 2, 2, 2, 255]]))), [])

  def test_errors_come_first(self):
    found = self.sentences(one_set(facts([[0, 1]]), errors=['x.png is damaged']))
    self.assertEqual(found, [('error', 'train: 1 example of 2 cannot be used', ['x.png is damaged']),
                             ('warning', 'train: 1 class of 3 without a pixel', ['dog'])])

  def test_blank_labels_are_named(self):
    found = self.sentences(one_set(facts([[0, 1, 2] * 9]), facts([[255, 255]], name='blank')))
    self.assertEqual(found, [
        ('warning', 'train: 1 label holds nothing but the ignore label 255', ['blank'])])

  def test_doubles_are_told_with_both_names(self):
    train, val = (facts([[0, 1, 2]], photo(1), name) for name in ('a.jpg', 'b.jpg'))
    found = self.sentences(one_set(train), one_set(val, title='val'))
    self.assertEqual(found, [('warning', '1 image of val nearly equal one of train, so that scores will be '
                              'too good', ['b.jpg is a.jpg'])])


if __name__ == '__main__':
  unittest.main()
