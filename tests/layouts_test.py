"""dataset/layouts.py: which files are images, which are labels, and what belongs together."""
import contextlib
import io
import os
import tempfile
import unittest

import numpy as np
from PIL import Image

from dataset import layouts, lists
from utils.errors import DataError


class LayoutsTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.random = np.random.RandomState(0)

  def path(self, name):
    return os.path.join(self.folder, name)

  def write(self, *names):
    """Writes photos, or labels where the name says mask or label or ends in .png and photo is not in it."""
    for name in names:
      os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
      if name.endswith('.json'):
        with open(self.path(name), 'w') as file:
          file.write('{}')
        continue
      is_label = 'mask' in name or 'label' in name or 'Class' in name
      values = self.random.randint(0, 2, (9, 7)) if is_label else self.random.randint(0, 256, (9, 7, 3))
      Image.fromarray(values.astype(np.uint8)).save(self.path(name))

  def recognise(self, root=''):
    """Returns {split: (folder of images, folder of labels, affixes that are not empty, list)}."""
    with contextlib.redirect_stdout(io.StringIO()):
      parts = layouts.recognise(self.path(root))
    found = {}
    for split, (folders, _) in parts.items():
      paths = [os.path.relpath(paths[0], self.path(root)) for paths in folders[:2]]
      found[split] = (*paths, {name: value for name, value in folders.affixes._asdict().items() if value})
    return found

  def test_two_trees_are_told_apart_by_name_or_by_content(self):
    self.write('x/images/a.jpg', 'x/images/deep/b.png', 'x/masks/a.png', 'x/masks/deep/b.png')
    self.assertEqual(self.recognise('x'), {None: ('images', 'masks', {})})
    self.write('y/one/a_mask_0.png', 'y/one/b_mask_0.png', 'y/two/a_mask_0.jpg', 'y/two/b_mask_0.jpg')
    for name in 'ab':  # names that say nothing, so that the colours count
      Image.fromarray(self.random.randint(0, 256, (40, 30, 3)).astype(np.uint8)).save(
          self.path(f'y/two/{name}_mask_0.jpg'))
    self.assertEqual(self.recognise('y'), {None: ('two', 'one', {})})

  def test_one_folder_with_suffix_prefix_or_another_extension(self):
    self.write('s/a.rf.1f.jpg', 's/a.rf.1f_mask.png', 's/a2.rf.9.jpg', 's/a2.rf.9_mask.png')
    self.assertEqual(self.recognise('s'), {None: ('.', '.', {'label_suffix': '_mask'})})
    self.write('p/1.png', 'p/mask-1.png', 'p/11.png', 'p/mask-11.png', 'p/2.png', 'p/mask-2.png')
    self.assertEqual(self.recognise('p'), {None: ('.', '.', {'label_prefix': 'mask-'})})
    self.write('e/a.jpg', 'e/label.jpg', 'e/a.png', 'e/label.png')
    self.assertEqual(self.recognise('e'), {None: ('.', '.', {})})
    self.write('j/a.jpg', 'j/b.jpg', 'j/a.json', 'j/b.json', 'j/mine.json')
    self.assertEqual(self.recognise('j'), {None: ('.', '.', {})})

  def test_affixes_on_both_sides_of_two_trees(self):
    self.write(*(f'images/{name}_rgb.png' for name in ('k_1', 'k_2', 'k_31')),
               *(f'labels/{name}_ids.png' for name in ('k_1', 'k_2', 'k_31')))
    self.assertEqual(self.recognise(), {None: ('images', 'labels', {
        'image_prefix': 'k_', 'label_prefix': 'k_', 'image_suffix': '_rgb', 'label_suffix': '_ids'})})

  def test_folders_for_training_validation_and_test_on_either_level(self):
    self.write(*(f'x/{split}/{kind}/{number}.png' for split in ('train', 'valid', 'test')
                 for kind in ('images', 'masks') for number in (1, 2)))
    self.assertEqual(self.recognise('x'), {
        split: (f'{folder}/images', f'{folder}/masks', {})
        for split, folder in (('train', 'train'), ('val', 'valid'), ('test', 'test'))})
    self.write(*(f'y/{kind}/{split}/{number}.png' for split in ('train', 'val')
                 for kind in ('images', 'labels') for number in (1, 2)))
    self.assertEqual(self.recognise('y'), {split: (f'images/{split}', f'labels/{split}', {})
                                           for split in ('train', 'val')})

  def test_pictures_of_instances_and_for_people_are_not_taken_for_labels(self):
    folders = ('SegmentationClass', 'SegmentationObject', 'JPEGImages', 'SegmentationClassVisualization')
    self.write(*(f'{folder}/{name}.png' for folder in folders for name in 'abc'))
    self.assertEqual(self.recognise(), {None: ('JPEGImages', 'SegmentationClass', {})})

  def test_what_does_not_belong_together_is_an_error(self):
    self.write('images/a.jpg', 'masks/x.png', 'masks/y.png')
    with self.assertRaisesRegex(DataError, '3 images or labels, and none were found that belong together'):
      self.recognise()

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
