import copy
import json
import os
import tempfile
import unittest

from dataset.importing import panoptic
from utils.errors import DataError

CONTENT = {
    'images': [{'id': 7, 'file_name': 'a.jpg'}, {'id': 9, 'file_name': 'b.jpg'}],
    'categories': [{'id': 92, 'name': 'road', 'isthing': 0}, {'id': 1, 'name': 'car', 'isthing': 1}],
    'annotations': [
        # By hand: 66051 = 3 + 256 * 2 + 65536 * 1, and 16777215 is white.
        {'image_id': 7, 'file_name': 'a.png', 'segments_info': [
            {'id': 66051, 'category_id': 92}, {'id': 1, 'category_id': 1, 'iscrowd': 1},
            {'id': 16777215, 'category_id': 1}]},
        {'image_id': 9, 'file_name': 'b.png', 'segments_info': []}],
}


class PanopticTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.path = os.path.join(folder.name, 'panoptic_val.json')
    self.write_png('panoptic_val/b.png')

  def write_png(self, name):
    path = os.path.join(self.folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, 'wb').close()

  def write(self, content):
    with open(self.path, 'w', encoding='utf-8') as file:
      file.write(content if isinstance(content, str) else json.dumps(content))

  def read(self, content):
    self.write(content)
    return panoptic.read(self.path)

  def assert_refused(self, content, sentence):
    with self.assertRaisesRegex(DataError, sentence) as caught:
      self.read(content)
    self.assertIn(f"panoptic file '{self.path}'", str(caught.exception))

  def test_segments_have_colours_and_categories_names(self):
    found = self.read(CONTENT)
    self.assertEqual(found.path, self.path)
    self.assertEqual(list(found.categories.items()), [(92, 'road'), (1, 'car')])
    self.assertEqual(found.segments, {
        'a.png': {(3, 2, 1): 92, (1, 0, 0): 1, (255, 255, 255): 1}, 'b.png': {}})

  def test_pngs_lie_in_the_folder_of_the_same_name_or_beside_the_json(self):
    self.assertEqual(self.read(CONTENT).folder, os.path.join(self.folder, 'panoptic_val'))
    self.write_png('a.png')
    self.assertEqual(self.read(CONTENT).folder, os.path.join(self.folder, 'panoptic_val'))
    os.remove(os.path.join(self.folder, 'panoptic_val/b.png'))
    self.assertEqual(self.read(CONTENT).folder, self.folder)
    os.remove(os.path.join(self.folder, 'a.png'))
    self.assert_refused(CONTENT, "describes 2 PNG files, and none is in '.*panoptic_val' or '.*'; put")

  def test_keys_that_are_missing_or_wrong_are_named(self):
    no_json = ('', '{')
    for text in no_json:
      self.assert_refused(text, 'is no JSON')
    self.assert_refused([], "the file has no 'categories'")
    for route, value, sentence in (
        (('categories',), None, "the file has no 'categories'"),
        (('annotations',), None, "the file has no 'annotations'"),
        (('annotations',), {}, "the 'annotations' of the file is not a list"),
        (('categories', 1, 'id'), None, "category 2 has no 'id'"),
        (('categories', 1, 'id'), True, "the 'id' of category 2 is not a whole number"),
        (('categories', 1, 'id'), 92, 'category 2 has the id 92, as one before'),
        (('categories', 0, 'name'), '', "the 'name' of category 1 is not a text"),
        (('annotations', 1), 5, "annotation 2 has no 'file_name'"),
        (('annotations', 1, 'file_name'), 'a.png', "annotation 2 is the second of 'a.png'; remove one"),
        (('annotations', 0, 'segments_info'), None, "annotation of 'a.png' has no 'segments_info'"),
        (('annotations', 0, 'segments_info', 0), [], "a segment in the annotation of 'a.png' has no 'id'"),
        (('annotations', 0, 'segments_info', 0, 'id'), 0, "'a.png' has .* the id 0; use 1..16777215"),
        (('annotations', 0, 'segments_info', 0, 'id'), 1 << 24, 'id 16777216; use 1..16777215'),
        (('annotations', 0, 'segments_info', 0, 'id'), 10 ** 400, "the 'id' of a segment in .* is not a"),
        (('annotations', 0, 'segments_info', 0, 'id'), 1, "'a.png' has two segments with the id 1; give"),
        (('annotations', 0, 'segments_info', 0, 'category_id'), 2, 'of the category 2, which is not among')):
      with self.subTest(route=route, value=value):
        content = copy.deepcopy(CONTENT)
        parent = content
        for key in route[:-1]:
          parent = parent[key]
        parent[route[-1]] = value
        if value is None:
          del parent[route[-1]]
        self.assert_refused(content, sentence)


if __name__ == '__main__':
  unittest.main()
