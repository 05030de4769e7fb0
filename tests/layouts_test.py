"""dataset/importing/layouts.py: which files are images, which are labels, and what belongs together."""
import os
import unittest

from dataset import lists
from dataset.importing import layouts
from tests.own_data import LayoutTest
from utils.errors import DataError


class LayoutsTest(LayoutTest):

  def pairable(self, images, labels, **affixes):
    return layouts.find_pairable(lists.Folders([self.path(images)], [self.path(labels)],
                                               lists.Affixes(**affixes)))

  def test_file_that_could_be_both_is_one_of_the_two(self):
    self.write('all/a.jpg', 'all/a.png', 'all/b.jpg', 'all/b.bmp')
    found = self.pairable('all', 'all')
    self.assertEqual([[os.path.basename(path) for path in paths] for paths in found],
                     [['a.jpg', 'b.jpg'], ['a.png', 'b.bmp']])
    self.write('all/a_m.png', 'all/b_m.png')
    found = self.pairable('all', 'all', label_suffix='_m')
    self.assertEqual([os.path.basename(path) for path in found.labels], ['a_m.png', 'b_m.png'])

  def test_sentences_name_the_cause(self):
    self.write('all/a.png', 'all/b.png', 'images/a.jpg', 'images/b.jpg', 'masks/a-mask.png',
               'masks/b-mask.png')
    with self.assertRaisesRegex(DataError, "all 2 files in '.*all' were taken for labels, since they lie in "
                                           '--labels too'):
      self.pairable('all', 'all')
    with self.assertRaisesRegex(DataError, "none of the 2 images and 2 labels belong together: an image is "
                                           "'a.jpg' and a label 'a-mask.png'; --label_suffix=-mask would"):
      self.pairable('images', 'masks')
    with self.assertRaisesRegex(DataError, r'there is no label in .* whose name ends in _x\.png'):
      self.pairable('images', 'masks', label_suffix='_x')
    os.mkdir(self.path('empty'))
    with self.assertRaisesRegex(DataError, "there is no image in '.*empty'; check --images"):
      self.pairable('empty', 'masks')


if __name__ == '__main__':
  unittest.main()
