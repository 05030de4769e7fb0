"""dataset/importing/suggestion.py: descriptors to start from, for what labels hold."""
import os
import tempfile
import unittest

import numpy as np
from PIL import Image

from dataset import descriptors
from dataset.importing import class_files, suggestion
from utils.errors import DataError


class SuggestionTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.paths = []

  def write(self, name, array, palette=None, **options):
    """Writes a label, which counts as one of those that are looked at."""
    path = os.path.join(self.folder, os.path.basename(name))
    image = Image.fromarray(array)
    if palette:
      image.putpalette(palette)
    image.save(path, **options)
    self.paths = sorted({*self.paths, path})

  def suggest(self, classes=None):
    return suggestion.suggest('mine', suggestion.survey(self.paths, 1), classes)

  def assert_suggests(self, expected, classes=None):
    """Returns the remarks, as one text."""
    descriptor, remarks = self.suggest(classes)
    self.assertEqual(descriptor, {'name': 'mine', **expected})
    descriptors.from_json(descriptor, 'it')
    return '\n'.join(remarks)

  def test_masks_become_two_classes_with_their_shares(self):
    mask = np.zeros((4, 10), np.uint8)
    mask[0, :6] = 255
    self.write('labels/a.png', mask)
    self.write('labels/deep/b.png', mask * 0)
    out = self.assert_suggests({'class_names': ['class_0', 'class_255'],
                                'values': {'0': 'class_0', '255': 'class_255'}})
    self.assertEqual(out, '')

  def test_stray_pixels_become_no_class(self):
    mask = np.zeros((150, 200), np.uint8)
    mask[50:90, 20:80] = 255
    self.write('labels/a.png', mask)
    mask[0, 0] = 1  # one of 60,000
    self.write('labels/b.png', mask)
    out = self.assert_suggests({'class_names': ['class_0', 'class_255'],
                                'values': {'0': 'class_0', '1': 'ignore', '255': 'class_255'}})
    self.assertIn('Took 1 for stray pixels, which are ignored: 1 of them, in 1 of 2 labels; ', out)

  def test_a_small_object_in_one_of_many_labels_is_a_class(self):
    for name in 'abcd':
      label = np.zeros((150, 200), np.uint8)
      label[50:90, 20:80] = 1
      label[2:6, 4:7] = 2 if name == 'c' else 0  # 12 pixels of 120,000
      self.write(f'labels/{name}.png', label)
    self.assert_suggests({'class_names': ['class_0', 'class_1', 'class_2']})

  def test_255_is_a_class_if_it_is_larger_than_a_border_can_be(self):
    label = np.full((9, 10), 255, np.uint8)
    label[:2, :4] = 0
    label[3:6, 1:9] = 128
    self.write('labels/a.png', label)
    out = self.assert_suggests({'class_names': ['class_0', 'class_128', 'class_255'],
                                'values': {'0': 'class_0', '128': 'class_128', '255': 'class_255'}})
    self.assertIn('Took 255 for a class, since it has more pixels than borders have', out)
    label[label == 255], label[2] = 0, 255  # a border of 10 around 24
    self.write('labels/a.png', label)
    out = self.assert_suggests({'class_names': ['class_0', 'class_128'],
                                'values': {'0': 'class_0', '128': 'class_128', '255': 'ignore'}})
    self.assertIn('Took 255 for what is ignored', out)

  def test_class_ids_need_no_conversion(self):
    self.write('labels/a.png', np.uint8([[0, 1, 2, 255]]))
    self.assert_suggests({'class_names': ['class_0', 'class_1', 'class_2']})

  def test_ids_from_one_are_moved_and_255_is_ignored(self):
    self.write('labels/a.png', np.uint8([[1, 3]]))
    self.write('labels/b.png', np.uint8([[2, 255]]))
    self.assert_suggests({'class_names': ['class_1', 'class_2', 'class_3'], 'values': {
        '1': 'class_1', '2': 'class_2', '3': 'class_3', '255': 'ignore'}})

  def test_palette_of_index_labels_is_kept(self):
    self.write('labels/a.png', np.uint8([[0, 1]]), [1, 2, 3, 4, 5, 6])
    self.write('labels/b.png', np.uint8([[1, 0]]), [1, 2, 3, 4, 5, 6])
    self.assert_suggests({'class_names': ['class_0', 'class_1'], 'palette': [[1, 2, 3], [4, 5, 6]]})

  def test_palette_is_read_at_every_index(self):
    palette = [channel for index in range(256) for channel in (index, 0, 255 - index)]
    self.write('labels/a.png', np.array([[0, 85], [86, 254]], np.uint8), palette)
    self.assert_suggests({'class_names': ['class_0', 'class_85', 'class_86', 'class_254'],
                          'palette': [[0, 0, 255], [85, 0, 170], [86, 0, 169], [254, 0, 1]],
                          'values': {'0': 'class_0', '85': 'class_85', '86': 'class_86', '254': 'class_254'}})

  def test_palette_that_is_too_short_is_black_where_it_ends(self):
    self.write('a.png', np.uint8([[0, 1, 255]]), [9, 9, 9, 200, 0, 0], bits=8)
    self.write('b.png', np.uint8([[0, 1, 1]]), [9, 9, 9, 200, 0, 0], bits=8)
    self.assert_suggests({'class_names': ['class_0', 'class_1'], 'palette': [[9, 9, 9], [200, 0, 0]]})

  def test_palettes_that_differ_mean_colours(self):
    self.write('labels/a.png', np.uint8([[0, 1, 1]]), [1, 2, 3, 4, 5, 6])
    self.write('labels/b.png', np.uint8([[0, 0, 0]]), [4, 5, 6, 1, 2, 3])
    self.assert_suggests({'class_names': ['class_040506', 'class_010203'],
                          'colors': {'#040506': 'class_040506', '#010203': 'class_010203'}})

  def test_colours_come_by_their_share(self):
    self.write('labels/a.png', np.uint8([[[0, 0, 0], [128, 0, 64], [128, 0, 64]]]))
    self.write('labels/b.png', np.uint8([[0, 9]]))  # grey among them
    self.assert_suggests({
        'class_names': ['class_000000', 'class_800040', 'class_090909'],
        'colors': {'#000000': 'class_000000', '#800040': 'class_800040', '#090909': 'class_090909'}})

  def test_smoothed_labels_and_photos_are_refused_at_the_first(self):
    self.write('labels/b.png', np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8))
    self.write('labels/a.png', np.uint8([[0, 1]]))
    self.paths.append(os.path.join(self.folder, 'missing.png'))  # is not read any more
    with self.assertRaisesRegex(DataError, r"b\.png' holds 2000 values or colours.*if it is a photo.*anew$"):
      self.suggest()

  def test_colours_that_grow_from_label_to_label_are_refused(self):
    random = np.random.RandomState(0)
    for name in 'abc':
      self.write(f'{name}.png', random.randint(0, 256, (10, 10, 3)).astype(np.uint8))
    with self.assertRaisesRegex(DataError, r"c\.png' and those before it hold 300 values or colours"):
      self.suggest()

  def test_one_value_alone_is_refused_with_its_cause(self):
    self.write('a.png', np.zeros((3, 5), np.uint8))
    with self.assertRaisesRegex(DataError, 'hold nothing but 0, and training takes two classes'):
      self.suggest()

  def test_traces_of_a_lossy_format_go_to_the_nearest_class(self):
    label = np.zeros((30, 50), np.uint8)
    label[5:20, 10:40] = 255
    label[4, 10:18], label[5, 10:18] = np.arange(8), np.arange(248, 256)
    self.write('a.png', label)
    out = self.assert_suggests({'class_names': ['class_0', 'class_255'], 'values': {
        **{str(value): 'class_0' for value in range(8)},
        **{str(value): 'class_255' for value in range(248, 256)}}})
    self.assertRegex(out, '^Took the 14 values beside 0 and 255 for traces of JPEG or smoothing, and gave '
                          'each the class of the nearest; ')

  def test_ids_that_begin_at_1_beside_255_are_no_traces(self):
    label = np.full((10, 10), 1, np.uint8)
    label[0, :5], label[1, :5], label[2:4] = 2, 3, 255
    self.write('a.png', label)
    self.assert_suggests({'class_names': ['class_1', 'class_2', 'class_3', 'class_255'], 'values': {
        '1': 'class_1', '2': 'class_2', '3': 'class_3', '255': 'class_255'}})

  def test_transparent_pixels_become_a_class(self):
    rgba = np.zeros((6, 7, 4), np.uint8)
    rgba[2:4] = 255, 0, 0, 255
    self.write('a.png', rgba)
    out = self.assert_suggests({'class_names': ['class_transparent', 'class_ff0000'], 'colors': {
        'transparent': 'class_transparent', '#ff0000': 'class_ff0000'}})
    self.assertIn('Took transparent pixels for a class of their own', out)

  def test_ids_of_16_bits_and_in_three_channels_are_ids(self):
    self.write('a.png', np.uint16([[0, 300], [300, 1000]]))
    self.assert_suggests({'class_names': ['class_0', 'class_300', 'class_1000'], 'values': {
        '0': 'class_0', '300': 'class_300', '1000': 'class_1000'}})
    self.paths = []
    self.write('b.png', np.repeat(np.uint8([[0, 1], [2, 1]])[:, :, None], 3, axis=2))
    self.assert_suggests({'class_names': ['class_0', 'class_1', 'class_2']})

  def test_names_of_colours_are_taken_also_without_a_pixel(self):
    self.write('a.png', np.uint8([[[0, 0, 0], [1, 2, 3], [9, 9, 9]]]))
    out = self.assert_suggests({
        'class_names': ['sky', 'cat', 'dog'],
        'colors': {'#000000': 'sky', '#010203': 'cat', '#040506': 'dog', '#070707': 'ignore',
                   '#090909': 'ignore'},
    }, class_files.Classes('labelmap.txt', ('sky', 'cat', 'dog', 'void'), {}, {
        (0, 0, 0): 'sky', (1, 2, 3): 'cat', (4, 5, 6): 'dog', (7, 7, 7): 'void'}))
    self.assertEqual(out.split('\n'), [
        "Took the names in 'labelmap.txt'",
        'Took #090909 for ignored, since that file does not name it: 1 pixels in 1 of 1 labels',
        'No pixel is dog: kept as classes; take out what you do not need'])

  def test_ids_that_are_listed_as_grey_colours_get_their_names(self):
    self.write('a.png', np.uint8([[0, 0, 1, 2]]))
    out = self.assert_suggests({'class_names': ['cat', 'dog'], 'values': {
        '1': 'cat', '2': 'dog', '0': 'ignore'}}, class_files.Classes(
            'obj_class_to_machine_color.json', ('cat', 'dog'), {}, {(1, 1, 1): 'cat', (2, 2, 2): 'dog'}))
    self.assertIn('2 pixels in 1 of 1 labels; if it is the background, put that name into class_names', out)

  def test_ids_of_16_bits_beside_colours_are_refused(self):
    self.write('a.png', np.uint16([[0, 700]]))
    self.write('b.png', np.uint8([[[0, 0, 0], [1, 2, 3]]]))
    with self.assertRaisesRegex(DataError, "'.*a.png' holds ids of 16 bits, and other labels hold colours"):
      self.suggest()

  def test_names_that_do_not_fit_are_left_out(self):
    self.write('a.png', np.uint8([[0, 7]]))
    classes = class_files.Classes('labels.txt', ('sky', 'cat'), {30: 'sky', 31: 'cat'}, {})
    out = self.assert_suggests({'class_names': ['class_0', 'class_7'],
                                'values': {'0': 'class_0', '7': 'class_7'}}, classes)
    self.assertEqual(out, "Left out 'labels.txt': the labels hold none of its values or colours")

  def test_names_of_values_are_taken_and_minus_1_is_255(self):
    self.write('a.png', np.uint8([[0, 2, 255]]))
    classes = class_files.Classes('class_names.txt', ('__ignore__', 'ground', 'cat', 'dog'),
                                  {-1: '__ignore__', 0: 'ground', 1: 'cat', 2: 'dog'}, {})
    self.assert_suggests({'class_names': ['ground', 'cat', 'dog']}, classes)

  def test_colours_of_classes_serve_for_palettes_too(self):
    self.write('a.png', np.uint8([[0, 1, 2]]), [0, 0, 0, 4, 5, 6, 1, 2, 3])
    classes = class_files.Classes('labelmap.txt', ('sky', 'cat', 'dog'), {}, {
        (0, 0, 0): 'sky', (1, 2, 3): 'cat', (4, 5, 6): 'dog'})
    self.assert_suggests({'class_names': ['sky', 'cat', 'dog'],
                          'palette': [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
                          'values': {'0': 'sky', '1': 'dog', '2': 'cat'}}, classes)


if __name__ == '__main__':
  unittest.main()
