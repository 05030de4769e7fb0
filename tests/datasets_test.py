import json
import os
import tempfile
import unittest

from utils import datasets
from utils.errors import DataError, UsageError

DESCRIPTOR = {'name': 'fruit', 'class_names': ['apple', 'pear', 'plum']}


class DatasetTableTest(unittest.TestCase):

  def test_voc_has_21_classes_in_order(self):
    voc = datasets.get_dataset('voc')
    self.assertEqual(voc.num_classes, 21)
    self.assertEqual(voc.class_names[0], 'background')
    self.assertEqual(voc.class_names[15], 'person')
    self.assertEqual(voc.class_names[20], 'tvmonitor')
    self.assertEqual(voc.ignore_label, 255)
    self.assertEqual(voc.splits, {'train': 10582, 'val': 1449})

  def test_cityscapes_has_19_classes_in_train_id_order(self):
    cityscapes = datasets.get_dataset('cityscapes')
    self.assertEqual(cityscapes.num_classes, 19)
    self.assertEqual(cityscapes.class_names[0], 'road')
    self.assertEqual(cityscapes.palette[13], (0, 0, 142))  # car
    self.assertEqual(cityscapes.class_names[18], 'bicycle')
    self.assertEqual(len(set(cityscapes.palette)), 19)
    self.assertEqual(cityscapes.splits, {'train': 2975, 'val': 500, 'test': 1525})

  def test_camvid_descriptor_has_11_classes_in_label_order(self):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    camvid = datasets.get_dataset(os.path.join(root, 'dataset', 'camvid.json'))
    self.assertEqual(camvid.class_names, (
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign_symbol', 'fence', 'car',
        'pedestrian', 'bicyclist'))
    self.assertEqual(camvid.palette[3], (128, 64, 128))  # road
    self.assertEqual(camvid.splits, {'train': 367, 'val': 101, 'test': 233})

  def test_unknown_name_is_an_error_that_lists_the_known_ones(self):
    with self.assertRaisesRegex(UsageError, "'vok' is not known; use voc, cityscapes or"):
      datasets.get_dataset('vok')


class VocPaletteTest(unittest.TestCase):

  def test_colours_are_vocs(self):
    palette = datasets.voc_palette(256)
    published = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0),
                 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    self.assertEqual({label: palette[label] for label in published}, published)

  def test_all_256_colours_differ(self):
    self.assertEqual(len(set(datasets.voc_palette(256))), 256)


class DescriptorTest(unittest.TestCase):

  def test_round_trip_through_json_changes_nothing(self):
    voc = datasets.get_dataset('voc')
    text = json.dumps(datasets.to_json(voc))
    self.assertEqual(datasets.from_json(json.loads(text), 'here'), voc)

  def test_optional_keys_have_defaults(self):
    fruit = datasets.from_json(DESCRIPTOR, 'here')
    self.assertEqual(fruit.palette, ((0, 0, 0), (128, 0, 0), (0, 128, 0)))
    self.assertEqual(fruit.ignore_label, 255)
    self.assertEqual(fruit.splits, {})

  def test_ignore_label_may_be_a_class(self):
    self.assertEqual(datasets.from_json({**DESCRIPTOR, 'ignore_label': 0}, 'here').ignore_label, 0)

  def test_wrong_values_are_errors_that_name_source_and_key(self):
    wrong = {
        'must be an object': ['apple'],
        "'class_names' is missing": {'name': 'fruit'},
        "'name' is missing": {'class_names': ['apple', 'pear']},
        "'colours' is unknown; use name, class_names, palette": {**DESCRIPTOR, 'colours': []},
        'name must be': {**DESCRIPTOR, 'name': 3},
        'class_names must be': {**DESCRIPTOR, 'class_names': 'apple'},
        '1 class_names; 2 to 256': {**DESCRIPTOR, 'class_names': ['apple']},
        "'pear'.* more than once": {**DESCRIPTOR, 'class_names': ['pear', 'apple', 'pear']},
        '2 colours in palette for 3': {**DESCRIPTOR, 'palette': [[0, 0, 0], [1, 1, 1]]},
        'palette must be': {**DESCRIPTOR, 'palette': [[0, 0, 0], [1, 1, 1], [2, 2, 256]]},
        'ignore_label 256': {**DESCRIPTOR, 'ignore_label': 256},
        'ignore_label True': {**DESCRIPTOR, 'ignore_label': True},
        'splits must': {**DESCRIPTOR, 'splits': {'train': 0}},
    }
    for sentence, descriptor in wrong.items():
      with self.subTest(sentence), self.assertRaisesRegex(DataError, f"'my.json': .*{sentence}"):
        datasets.from_json(descriptor, 'my.json')

  def test_missing_or_broken_file_is_an_error_that_names_it(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'fruit.json')
      with self.assertRaisesRegex(DataError, 'fruit.json.* cannot be read: No such file'):
        datasets.get_dataset(path)
      with open(path, 'w') as file:
        file.write('{"name": ')
      with self.assertRaisesRegex(DataError, 'fruit.json.* is no JSON: .*line 1'):
        datasets.get_dataset(path)


class ListTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def file(self, name, content=b''):
    path = os.path.join(self.folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
      file.write(content)
    return path

  def test_lines_are_stripped_and_blank_ones_skipped(self):
    path = self.file('list.txt', '\ufeffa\r\n\n b c \n  \nd'.encode())
    self.assertEqual(datasets.read_list(path), ['a', 'b c', 'd'])

  def test_unusable_list_is_an_error_that_names_it(self):
    wrong = {'is empty': b'\n \n', 'is no UTF-8': b'\xff\xfe',
             "holds 'b' more than once": b'b\na\nb\n'}
    for sentence, content in wrong.items():
      path = self.file('list.txt', content)
      with self.subTest(sentence), self.assertRaisesRegex(DataError, f"list.txt' {sentence}"):
        datasets.read_list(path)
    with self.assertRaisesRegex(DataError, "none.txt' cannot be read"):
      datasets.read_list(os.path.join(self.folder, 'none.txt'))

  def test_image_is_found_with_and_without_extension(self):
    jpg, png = self.file('a.jpg'), self.file('b.png')
    self.file('a.png')
    self.assertEqual(datasets.find_image(self.folder, 'a'), jpg)  # .jpg wins
    self.assertEqual(datasets.find_image(self.folder, 'a.jpg'), jpg)
    self.assertEqual(datasets.find_image(self.folder, 'b'), png)
    self.assertEqual(datasets.find_image(self.folder, 'b.png'), png)

  def test_first_word_is_used_unless_the_whole_line_is_a_file(self):
    first, whole = self.file('a.jpg'), self.file('a 1.jpg')
    self.assertEqual(datasets.find_image(self.folder, 'a -1'), first)
    self.assertEqual(datasets.find_image(self.folder, 'a 1'), whole)

  def test_image_that_is_missing_or_ambiguous_is_an_error(self):
    self.file('a.png')
    self.file('a.bmp')
    with self.assertRaisesRegex(DataError, r"'a' could be .*a\.png or .*a\.bmp; keep one"):
      datasets.find_image(self.folder, 'a')
    with self.assertRaisesRegex(DataError, "image 'b' is not in"):
      datasets.find_image(self.folder, 'b')
    with self.assertRaisesRegex(DataError, "image folder '.*none' does not exist"):
      datasets.find_image(os.path.join(self.folder, 'none'), 'a')

  def test_pairs_have_the_images_stem_below_the_label_folder(self):
    images, labels = os.path.join(self.folder, 'images'), os.path.join(self.folder, 'labels')
    expected = [(self.file('images/town/x.0.jpg'), self.file('labels/town/x.0.png')),
                (self.file('images/y.bmp'), self.file('labels/y.png'))]
    self.assertEqual(datasets.find_pairs(images, labels, ['town/x.0', 'y.bmp']), expected)

  def test_missing_label_is_an_error_that_names_it(self):
    self.file('images/a.jpg')
    images, labels = os.path.join(self.folder, 'images'), os.path.join(self.folder, 'labels')
    with self.assertRaisesRegex(DataError, r"label '.*labels/a\.png' of image '.*a\.jpg'"):
      datasets.find_pairs(images, labels, ['a'])


if __name__ == '__main__':
  unittest.main()
