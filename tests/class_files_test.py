import json
import os
import tempfile
import unittest

from dataset.importing import class_files
from utils.errors import DataError


class ClassFilesTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def write(self, name, content):
    path = os.path.join(self.folder, name)
    with open(path, 'wb') as file:
      file.write((content if isinstance(content, str) else json.dumps(content)).encode())
    return path

  def read(self, name, content):
    return class_files.read(self.write(name, content))

  def assert_refused(self, name, content, sentence):
    path = self.write(name, content)
    with self.assertRaisesRegex(DataError, sentence) as caught:
      class_files.read(path)
    self.assertIn(f"class file '{path}'", str(caught.exception))


class TextTest(ClassFilesTest):

  def test_cvat_has_colours_which_may_be_missing_and_names_with_blanks(self):
    classes = self.read('labelmap.txt', '\ufeff# label:color_rgb:parts:actions\r\nbackground:0,0,0::\r\n'
                        'traffic light:250,170,30::\r\n\r\nno colour:::\r\na:b:1, 2, 3:hand,foot:run\r\n')
    self.assertEqual(classes.names, ('background', 'traffic light', 'no colour', 'a:b'))
    self.assertEqual(classes.colors,
                     {(0, 0, 0): 'background', (250, 170, 30): 'traffic light', (1, 2, 3): 'a:b'})
    self.assertEqual(classes.values, {})
    self.assertEqual(classes.path, os.path.join(self.folder, 'labelmap.txt'))

  def test_cvat_is_known_under_another_name(self):
    self.assertEqual(self.read('mine.txt', 'car:1,2,3::\n').colors, {(1, 2, 3): 'car'})
    self.assertEqual(self.read('other.txt', '# label:color_rgb:parts:actions\ncar:1,2,3::').names, ('car',))

  def test_roboflow_has_values(self):
    classes = self.read('_classes.csv',
                        '\ufeffPixel Value, Class\r\n0, background\r\n 2, "Cow, statue"\r\n7,Car')
    self.assertEqual(classes.names, ('background', 'Cow, statue', 'Car'))
    self.assertEqual(classes.values, {0: 'background', 2: 'Cow, statue', 7: 'Car'})
    self.assertEqual(classes.colors, {})

  def test_ade20k_has_columns_between_tabs(self):
    classes = self.read('objectInfo150.txt', 'Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.16\t9\t9\t1\twall\n'
                        '2\t0.12\t9\t9\t1\tbuilding, edifice  \n')
    self.assertEqual(classes[1:], (('wall', 'building, edifice'), {1: 'wall', 2: 'building, edifice'}, {}))

  def test_class_dict_has_colours_in_any_order_of_columns(self):
    expected = {(64, 128, 64): 'Animal', (0, 192, 64): 'Road Shoulder'}
    for text in ('name,r,g,b\nAnimal,64,128,64\nRoad Shoulder,0,192,64\n',
                 'Blue, Name, Red, Green\n64, Animal, 64, 128,\n64, Road Shoulder, 0, 192\n'):
      classes = self.read('class_dict.csv', text)
      self.assertEqual(classes.colors, expected)
      self.assertEqual(classes.values, {})

  def test_label_colors_has_numbers_before_or_behind_the_name(self):
    expected = {(64, 128, 64): 'Animal', (0, 192, 64): 'Road Shoulder', (9, 8, 7): 'lane 2'}
    for text in ('64 128 64\tAnimal\n0 192 64\t\tRoad Shoulder\n9 8 7 lane 2',
                 '# mine\nr,g,b,name\n64,128,64,Animal\n0,192,64,Road Shoulder\n9, 8, 7, lane 2\n',
                 'Animal 64 128 64\nRoad Shoulder\t0 192  64\nlane 2: 9, 8, 7\n'):
      self.assertEqual(self.read('label_colors.txt', text).colors, expected)
      self.assertEqual(self.read('labels.txt', text.replace('r,g,b,name\n', '')).colors, expected)

  def test_a_class_may_have_several_colours(self):
    classes = self.read('label_colors.txt', '0 0 0 void\n1 1 1 road\n2 2 2 void\n')
    self.assertEqual(classes.names, ('void', 'road'))
    self.assertEqual(classes.colors, {(0, 0, 0): 'void', (1, 1, 1): 'road', (2, 2, 2): 'void'})

  def test_the_place_of_a_name_is_its_value(self):
    for name in ('class_names.txt', 'labels.txt', 'classes.txt', 'obj.names', 'mine.txt'):
      classes = self.read(name, '# mine\n_background_\n\n road sign \r\ncar\n\n')
      self.assertEqual(classes.names, ('_background_', 'road sign', 'car'))
      self.assertEqual(classes.values, {0: '_background_', 1: 'road sign', 2: 'car'})

  def test_labelme_counts_from_minus_one_if_the_first_name_is_ignore(self):
    classes = self.read('labels.txt', '__ignore__\n_background_\ncar\n')
    self.assertEqual(classes.values, {-1: '__ignore__', 0: '_background_', 1: 'car'})

  def test_numbers_before_all_names_are_their_values(self):
    for text in ('7 road\n21 tree\n', '7: road\n21: tree', '7,road\n21, tree\n'):
      self.assertEqual(self.read('labels.txt', text).values, {7: 'road', 21: 'tree'})

  def test_names_that_begin_with_numbers_stay_names(self):
    self.assertEqual(self.read('labels.txt', '2 wheels\n4 wheels\n').values, {0: '2 wheels', 1: '4 wheels'})
    self.assertEqual(self.read('labels.txt', '2 wheels\ntruck\n').values, {0: '2 wheels', 1: 'truck'})

  def test_lines_that_are_not_understood_are_named(self):
    for name, text, sentence in (
        ('labelmap.txt', 'a:1,2,3::\nb\n', "line 2, 'b', is not understood.* 'name:red,green,blue::'"),
        ('labelmap.txt', '\na:1,2::\n', "line 2, 'a:1,2::', is not"),
        ('labelmap.txt', 'a:1,2,256::', "line 1 has '256'.* use 0..255"),
        ('labelmap.txt', 'a:1,2,3::\nb:1,2,3::', r"line 2 gives \(1, 2, 3\) to 'b', and it is 'a' already"),
        ('_classes.csv', 'filename, a, b\nx.jpg, 0, 1\n', "line 1, 'filename, a, b', .* header such as"),
        ('_classes.csv', 'Pixel Value, Class\nx, a\n', "line 2 has 'x' for a value"),
        ('_classes.csv', 'Pixel Value, Class\n1, a, b\n', 'line 2.* the 2 columns .* put quotes'),
        ('_classes.csv', 'Pixel Value, Class\n1\n', 'line 2.* the 2 columns'),
        ('_classes.csv', 'Pixel Value, Class\n1, a\n1, b\n', "line 3 gives 1 to 'b', and it is 'a' already"),
        ('_classes.csv', 'Pixel Value, Class\n1, a' + 'b' * 1000, 'line 2.* the 2 columns'),
        ('_classes.csv', 'Pixel Value, Class\n1, \n', 'line 2 has no name that can be printed'),
        ('class_dict.csv', 'name,r,g\na,1,2', 'line 1'),
        ('label_colors.txt', '1 2 3 a\n1 2 b\n', "line 2, '1 2 b', .* 'red green blue name'"),
        ('label_colors.txt', '1 2 3\n', 'line 1'), ('label_colors.txt', '7 1 2 3 a', 'line 1'),
        ('label_colors.txt', '7, 1, 2, 3', 'line 1'), ('label_colors.txt', '7 a 1 2 3', 'line 1'),
        ('label_colors.txt', '1 2 3 a\n' + '4 ' * 600, r"line 2, '4 4 .*\.\.\.', is not"),
        ('labels.txt', 'a\nb\na\n', "line 3 is 'a' once more"),
        ('labels.txt', 'a\x07\n', 'line 1 has no name that can be printed'),
        ('labels.txt', ''.join(f'n{i}\n' for i in range(257)), "line 257, 'n256'.* up to 256 names"),
        ('labels.txt', '7 a\n256 b\n', "line 2 has '256'"),
        ('labels.txt', '\n# only this\n', 'holds no class'),
        ('classes.txt', '', 'holds no class')):
      with self.subTest(name=name, text=text[:30]):
        self.assert_refused(name, text, sentence)

  def test_a_file_that_is_no_text_is_an_error(self):
    path = os.path.join(self.folder, 'labels.txt')
    with open(path, 'wb') as file:
      file.write(b'caf\xe9\n')
    with self.assertRaisesRegex(DataError, "class file '.*' is no UTF-8 text"):
      class_files.read(path)
    with self.assertRaisesRegex(DataError, 'cannot be read'):
      class_files.read(os.path.join(self.folder, 'none.txt'))


class JsonTest(ClassFilesTest):

  def test_mapillary_has_its_names_in_the_order_of_the_values(self):
    classes = self.read('config_v1.2.json', {'version': '1.2', 'labels': [
        {'name': f'x--{name}', 'readable': name, 'evaluate': True, 'color': [1, 2, 3]}
        for name in ('Bird', 'Sky')]})
    self.assertEqual(classes[1:], (('Bird', 'Sky'), {0: 'Bird', 1: 'Sky'}, {}))

  def test_supervisely_has_colours_and_ids_that_are_no_values(self):
    classes = self.read('meta.json', {'tags': [], 'classes': [
        {'title': 'car', 'shape': 'bitmap', 'color': '#0A10fF', 'id': 9}, {'title': 'lane', 'color': None}]})
    self.assertEqual(classes[1:], (('car', 'lane'), {}, {(10, 16, 255): 'car'}))

  def test_coco_has_values_and_perhaps_colours(self):
    classes = self.read('x.json', {'images': [], 'categories': [
        {'id': 3, 'name': 'car', 'color': [1, 2, 3]}, {'id': 700, 'name': 'car'}, {'id': 0, 'name': 'sky'}]})
    self.assertEqual(classes[1:], (('car', 'sky'), {3: 'car', 700: 'car', 0: 'sky'}, {(1, 2, 3): 'car'}))

  def test_plain_objects_and_lists_are_read(self):
    for content, expected in (
        ({'car': [1, 2, 3], 'sky': '#000102'}, (('car', 'sky'), {}, {(1, 2, 3): 'car', (0, 1, 2): 'sky'})),
        ({'5': 'car', '0': 'sky'}, (('car', 'sky'), {5: 'car', 0: 'sky'}, {})),
        (['sky', 'car'], (('sky', 'car'), {0: 'sky', 1: 'car'}, {})),
        ([{'name': 'car', 'color': '#000102'}], (('car',), {}, {(0, 1, 2): 'car'})),
        ({'labels': [{'name': 'car'}]}, (('car',), {}, {}))):
      self.assertEqual(self.read('classes.json', content)[1:], expected)

  def test_entries_that_are_not_understood_are_named(self):
    for content, sentence in (
        ('{', 'is no JSON'), (7, 'has no classes'), ({'a': 7}, 'has no classes'), ({}, 'holds no class'),
        ([], 'holds no class'), ({'categories': [{'name': 'a'}]}, 'class 1 has the id None; use 0 or more'),
        ({'categories': ['a']}, "class 1 is 'a'; use an object"),
        ({'categories': [{'id': 1, 'name': 'a'}, {'id': 1, 'name': 'b'}]}, "class 2 gives 1 to 'b'"),
        ({'classes': [{'title': 5}]}, 'class 1 has no name'),
        ({'classes': [{'title': 'a', 'color': 'red'}]}, "class 1 has the color 'red'; use \"#rrggbb\""),
        ({'a': [1, 2, 256]}, r"the key 'a' has the color \[1, 2, 256\]")):
      with self.subTest(content=content):
        self.assert_refused('classes.json', content, sentence)


class FindTest(ClassFilesTest):

  def test_the_order_of_folders_and_then_of_formats_decides(self):
    other = os.path.join(self.folder, 'labels')
    os.mkdir(other)
    folders = [other, os.path.join(self.folder, 'none'), self.folder]
    self.assertIsNone(class_files.find(folders))
    self.write('mine.txt', 'a\n')
    self.assertIsNone(class_files.find(folders))
    names = self.write('classes.txt', 'a\n')
    self.assertEqual(class_files.find(folders), names)
    cvat = self.write('labelmap.txt', 'a:1,2,3::\n')
    self.assertEqual(class_files.find(folders), cvat)
    first = self.write('labels/meta.json', {'classes': []})
    self.assertEqual(class_files.find(folders), first)

  def test_names_that_do_not_count_are_known_in_any_case(self):
    for name in ('__ignore__', 'Void', 'UNLABELED', 'unlabelled', 'Ignore'):
      self.assertTrue(class_files.is_ignored(name))
    self.assertFalse(class_files.is_ignored('background'))


if __name__ == '__main__':
  unittest.main()
