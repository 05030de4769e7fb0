"""dataset/importing/layouts.py: where the images and labels of a folder lie, and which belong together."""
import contextlib
import io
import os
import unittest

import numpy as np
from PIL import Image

from dataset import lists
from dataset.importing import layouts
from tests.own_data import LayoutTest
from utils.errors import DataError


class RecognitionTest(LayoutTest):

  def write_photo(self, *names):
    """Writes photos of more colours than a label can have."""
    for name in names:
      os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
      Image.fromarray(self.random.randint(0, 256, (40, 30, 3)).astype(np.uint8)).save(self.path(name))

  def parts(self, root=''):
    with contextlib.redirect_stdout(io.StringIO()) as self.printed:
      return layouts.recognise(self.path(root), layouts.find_files(self.path(root)))

  def recognise(self, root=''):
    """Returns {split: (folder of images, folder of labels, affixes that are not empty, list)}."""
    found = {}
    for split, (folders, *_) in self.parts(root).items():
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
    self.write_photo('images/a.jpg')
    with self.assertRaisesRegex(DataError, '3 images or labels, .* none were found that belong together'):
      self.recognise()

  def test_folders_of_a_tool_and_of_several_datasets_are_found_together(self):
    for name in ('ds0', 'ds1'):  # Supervisely
      self.write_photo(*(f'{name}/{folder}/{name}{number}.png' for number in (1, 2)
                         for folder in ('img', 'masks_human')))
      self.write(*(f'{name}/masks_machine/{name}{number}.png' for number in (1, 2)),
                 f'{name}/ann/mine1.png.json')
    (folders, *_), = self.parts().values()
    self.assertEqual([[os.path.relpath(path, self.folder) for path in paths] for paths in folders[:2]],
                     [['ds0/img', 'ds1/img'], ['ds0/masks_machine', 'ds1/masks_machine']])

  def test_one_kind_of_labels_is_taken_where_an_image_has_several(self):
    names = ('ulm/ulm_1', 'ulm/ulm_2', 'bonn/bonn_1')
    self.write_photo(*(f'leftImg8bit/train/{name}_leftImg8bit.png' for name in names))
    self.write(*(f'gtFine/train/{name}_gtFine_{kind}.png' for name in names
                 for kind in ('color', 'instanceIds', 'labelIds')))
    self.assertEqual(self.recognise(), {'train': ('leftImg8bit/train', 'gtFine/train', {
        'image_suffix': '_leftImg8bit', 'label_suffix': '_gtFine_labelIds'})})
    part, = self.parts().values()
    self.assertEqual(len(part.others), 6)

  def test_several_labels_for_each_object_are_refused(self):
    self.write_photo('images/a.jpg', 'images/b.jpg')
    self.write(*(f'masks/{name}_{number}.png' for name in 'ab' for number in range(3)))
    with self.assertRaisesRegex(DataError, "has several labels for an image, such as 'a_1.png'"):
      self.parts()

  def test_labels_lie_beside_images_in_any_depth(self):
    self.write_photo(*(f'{town}/{number}.jpg' for town in ('ulm', 'x/bonn') for number in range(3)))
    self.write(*(f'{town}/{number}_mask.png' for town in ('ulm', 'x/bonn') for number in range(3)))
    self.assertEqual(self.recognise(), {None: ('.', '.', {'label_suffix': '_mask'})})

  def test_names_of_folders_speak_of_splits_in_many_ways(self):
    for name, one, two in (('a', 'train', 'trainannot'), ('b', 'train_images', 'train_labels'),
                           ('c', 'images-train', 'masks-train'), ('d', 'train2017', 'masks_train2017')):
      for split in ('train', 'val'):
        folders = [f'{name}/{folder.replace("train", split)}' for folder in (one, two)]
        self.write_photo(*(f'{folders[0]}/{number}.jpg' for number in range(2)))
        self.write(*(f'{folders[1]}/{number}.png' for number in range(2)))
      self.assertEqual(self.recognise(name), {
          split: (*(folder.replace('train', split) for folder in (one, two)), {})
          for split in ('train', 'val')})

  def test_train_may_be_the_name_of_something_else(self):
    self.write_photo(*(f'{kind}/{kind}{number}.jpg' for kind in ('bus', 'train') for number in range(2)))
    self.write(*(f'{kind}/{kind}{number}_mask.png' for kind in ('bus', 'train') for number in range(2)))
    self.assertEqual(self.recognise(), {None: ('.', '.', {'label_suffix': '_mask'})})

  def test_folders_that_would_serve_too_are_told(self):
    self.write_photo(*(f'images/{name}.jpg' for name in 'abc'))
    self.write(*(f'{folder}/{name}.png' for name in 'abc' for folder in ('labels', 'predictions')))
    part, = self.parts().values()
    self.assertEqual([part.folders.labels, part.rivals], [[self.path('labels')], [self.path('predictions')]])

  def test_drawings_are_not_taken_for_images(self):
    self.write(*(f'Segmentation{kind}/{name}.png' for kind in ('Class', 'Object') for name in 'abc'))
    with self.assertRaisesRegex(DataError, 'holds 6 labels, such as a.png, and no images were found'):
      self.parts()

  def test_sentences_say_what_there_is(self):
    os.mkdir(self.path('empty'))
    with self.assertRaisesRegex(DataError, r"empty' holds no image \(.jpg, .*give the folder that holds"):
      self.parts('empty')
    self.write_photo('photos/ulm/ulm_1.jpg', 'photos/ulm/ulm_2.jpg', 'photos/bonn/bonn_1.jpg',
                     'photos/bonn/bonn_2.jpg')
    with self.assertRaisesRegex(DataError, 'holds 4 images, such as bonn_1.jpg, and no labels were found'):
      self.parts('photos')
    self.write('studio/task-1-annotation-2-by-1-tag-cat-0.png')
    with self.assertRaisesRegex(DataError, 'PNGs of Label Studio, .*: each has one class, and none'):
      self.parts('studio')

  def test_panoptic_labels_are_found_by_their_json(self):
    for split in ('train', 'val'):
      self.write_photo(f'{split}2017/a.jpg')
      self.write(f'annotations/panoptic_{split}2017/a.png', f'annotations/mine_{split}2017.json')
      with open(self.path(f'annotations/panoptic_{split}2017.json'), 'w') as file:
        file.write('{"annotations": [{"segments_info": []}]}')
    self.assertEqual(layouts.find_panoptic(layouts.find_files(self.folder)), {
        'images': [self.path('train2017')], 'labels': [self.path('annotations/panoptic_train2017.json')],
        'val_images': [self.path('val2017')], 'val_labels': [self.path('annotations/panoptic_val2017.json')]})


class PairableTest(LayoutTest):

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
