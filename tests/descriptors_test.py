import json
import os
import tempfile
import unittest

import numpy as np

from dataset import descriptors
from utils.errors import DataError, UsageError

DESCRIPTOR = {'name': 'fruit', 'class_names': ['apple', 'pear', 'plum']}


class DatasetTableTest(unittest.TestCase):

  def test_voc_has_21_classes_in_order(self):
    voc = descriptors.get_dataset('voc')
    self.assertEqual(voc.num_classes, 21)
    self.assertEqual(voc.class_names[0], 'background')
    self.assertEqual(voc.class_names[15], 'person')
    self.assertEqual(voc.class_names[20], 'tvmonitor')
    self.assertEqual(voc.ignore_label, 255)
    self.assertEqual(voc.splits, {'train': 10582, 'val': 1449})

  def test_cityscapes_has_19_classes_in_train_id_order(self):
    cityscapes = descriptors.get_dataset('cityscapes')
    self.assertEqual(cityscapes.num_classes, 19)
    self.assertEqual(cityscapes.class_names[0], 'road')
    self.assertEqual(cityscapes.palette[13], (0, 0, 142))  # car
    self.assertEqual(cityscapes.class_names[18], 'bicycle')
    self.assertEqual(len(set(cityscapes.palette)), 19)
    self.assertEqual(cityscapes.splits, {'train': 2975, 'val': 500, 'test': 1525})

  def test_camvid_descriptor_has_11_classes_in_label_order(self):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    camvid = descriptors.get_dataset(os.path.join(root, 'dataset', 'camvid.json'))
    self.assertEqual(camvid.class_names, (
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign_symbol', 'fence', 'car',
        'pedestrian', 'bicyclist'))
    self.assertEqual(camvid.palette[3], (128, 64, 128))  # road
    self.assertEqual(camvid.splits, {'train': 367, 'val': 101, 'test': 233})

  def test_cityscapes_label_ids_become_train_ids(self):
    # By hand from the official table: road 7, sky 23, bicycle 33; parking 9 and caravan 29 do not count.
    train_ids = descriptors.CITYSCAPES_TRAIN_IDS
    self.assertEqual([train_ids[i] for i in (0, 7, 9, 23, 26, 29, 33)], [255, 0, 255, 10, 13, 255, 18])
    self.assertEqual(sorted(train_ids), list(range(34)))

  def test_unknown_name_is_an_error_that_lists_the_known_ones(self):
    with self.assertRaisesRegex(UsageError, "'vok' is not known; use voc, cityscapes or"):
      descriptors.get_dataset('vok')


class VocPaletteTest(unittest.TestCase):

  def test_colours_are_vocs(self):
    palette = descriptors.voc_palette(256)
    published = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0),
                 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    self.assertEqual({label: palette[label] for label in published}, published)

  def test_all_256_colours_differ(self):
    self.assertEqual(len(set(descriptors.voc_palette(256))), 256)


class DistinctPaletteTest(unittest.TestCase):

  def test_all_differ(self):
    palette = descriptors.distinct_palette(256)
    self.assertEqual(len(set(palette)), 256)
    self.assertEqual(descriptors.distinct_palette(2), ((0, 0, 0), (230, 159, 0)))

  def test_the_red_green_blind_can_tell_them_apart(self):
    # Machado et al. 2009, deuteranopia, on linear RGB; and CIELAB of sRGB's primaries and white.
    blind = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                      [-0.011820, 0.042940, 0.968881]])
    to_xyz = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]])

    def closest(palette):
      rgb = np.array(palette) / 255
      linear = np.where(rgb <= .04045, rgb / 12.92, ((rgb + .055) / 1.055) ** 2.4)
      xyz = np.clip(linear @ blind.T, 0, 1) @ to_xyz.T / [.9505, 1, 1.089]
      f = np.where(xyz > .008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
      lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
      distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
      return distances[np.triu_indices(len(palette), 1)].min()

    self.assertGreater(closest(descriptors.distinct_palette(32)), 12)
    self.assertLess(closest(descriptors.voc_palette(32)), 4)


class DescriptorTest(unittest.TestCase):

  def test_round_trip_through_json_changes_nothing(self):
    voc = descriptors.get_dataset('voc')
    text = json.dumps(descriptors.to_json(voc))
    self.assertEqual(descriptors.from_json(json.loads(text), 'here'), voc)

  def test_optional_keys_have_defaults(self):
    fruit = descriptors.from_json(DESCRIPTOR, 'here')
    self.assertEqual(fruit.palette, ((0, 0, 0), (230, 159, 0), (86, 180, 233)))
    self.assertEqual(fruit.ignore_label, 255)
    self.assertEqual(fruit.splits, {})

  def test_ignore_label_may_be_a_class(self):
    self.assertEqual(descriptors.from_json({**DESCRIPTOR, 'ignore_label': 0}, 'here').ignore_label, 0)

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
        descriptors.from_json(descriptor, 'my.json')

  def test_names_may_be_any_text_that_shows_something_on_its_line(self):
    for name in ('Straße', '猫', '👩\u200d🌾', '/a/..', '%s {} $x', '"', 'n' * 99, ' x', '\ue000', 'e\u0301'):
      self.assertTrue(descriptors.is_text(name), name)
    for name in ('', ' ', '\u3000', '\u200b', 'a\nb', 'a\tb', 'a\u2028b', '\udcff', 3, None):
      self.assertFalse(descriptors.is_text(name), repr(name))

  def test_values_and_colours_stand_for_classes_by_number_or_name_or_are_ignored(self):
    values = descriptors.from_json({**DESCRIPTOR, 'values': {
        '0': 'plum', '255': 1, '7': 'ignore', '3': 0}}, 'here')
    self.assertEqual(values.values, {0: 2, 255: 1, 7: 255, 3: 0})
    colors = descriptors.from_json({**DESCRIPTOR, 'ignore_label': 9, 'colors': {
        '#0a0B0c': 'pear', '[1,2,3]': 'apple', ' 4, 5, 255': 9, '(7, 8, 9)': 'ignore',
        '#000000': 2}}, 'here')
    self.assertEqual(colors.colors, {
        (10, 11, 12): 1, (1, 2, 3): 0, (4, 5, 255): 9, (7, 8, 9): 9, (0, 0, 0): 2})
    for dataset in (values, colors):
      text = json.dumps(descriptors.to_json(dataset))
      self.assertEqual(descriptors.from_json(json.loads(text), 'here'), dataset)

  def test_class_takes_its_first_colour_where_there_is_no_palette(self):
    colors = descriptors.from_json({**DESCRIPTOR, 'colors': {
        '#010203': 'plum', '#040506': 'apple', '#070809': 'plum', '#0a0b0c': 'pear'}}, 'here')
    self.assertEqual(colors.palette, ((4, 5, 6), (10, 11, 12), (1, 2, 3)))
    values = descriptors.from_json({**DESCRIPTOR, 'values': {'0': 0, '1': 1, '2': 2}}, 'here')
    self.assertEqual(values.palette, descriptors.distinct_palette(3))

  def test_descriptor_without_values_and_colours_stays_as_it_was(self):
    self.assertEqual(set(descriptors.to_json(descriptors.get_dataset('voc'))),
                     {'name', 'class_names', 'palette', 'ignore_label', 'splits'})

  def test_what_is_transparent_or_not_listed_and_names_of_shapes_may_stand_for_classes(self):
    keys = {'values': {'0': 0, '40000': 'pear', 'transparent': 'plum', 'other': 'ignore'},
            'names': {'Birne': 'pear', 'sky': 'ignore'}}
    dataset = descriptors.from_json({**DESCRIPTOR, **keys}, 'my.json')
    self.assertEqual(dataset.values, {0: 0, 40000: 1, 'transparent': 2, 'other': dataset.ignore_label})
    self.assertEqual(descriptors.from_json(descriptors.to_json(dataset), 'its json'), dataset)
    self.assertEqual(dataset.labels_of_names(), {
        '__ignore__': dataset.ignore_label, 'apple': 0, 'pear': 1, 'plum': 2, 'Birne': 1,
        'sky': dataset.ignore_label})
    colors = descriptors.from_json({'name': 'fruit', 'class_names': ['apple', 'pear'], 'colors': {
        'transparent': 'apple', '#010203': 'pear'}}, 'my.json')
    self.assertEqual(colors.palette, ((0, 0, 0), (1, 2, 3)))  # VOC's where there is none
    self.assertEqual(descriptors.from_json(descriptors.to_json(colors), 'its json'), colors)

  def test_wrong_values_and_colours_are_errors(self):
    wrong = {
        "'values' has nothing for .'pear', 'plum'.": {'values': {'0': 0}},
        'exclude each other': {'values': {'0': 0}, 'colors': {'#000000': 0}},
        "'values' must be an object": {'values': [0, 1]},
        "key '65536' of 'values' is not allowed": {'values': {'65536': 0}},
        "key '-1' of 'values'": {'values': {'-1': 0}},
        "'00' more than once": {'values': {'0': 0, '00': 1}},
        "turns '1' into 3; use .* 0..2": {'values': {'1': 3}},
        "turns '1' into 'grape'": {'values': {'1': 'grape'}},
        "turns '1' into True": {'values': {'1': True}},
        "key '#12345' of 'colors' is not allowed": {'colors': {'#12345': 0}},
        "key '1,2,256' of 'colors'": {'colors': {'1,2,256': 0}},
        "key '1,2' of 'colors'": {'colors': {'1,2': 0}},
    }
    for sentence, keys in wrong.items():
      with self.subTest(sentence), self.assertRaisesRegex(DataError, f"'my.json': .*{sentence}"):
        descriptors.from_json({**DESCRIPTOR, **keys}, 'my.json')

  def test_missing_or_broken_file_is_an_error_that_names_it(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'fruit.json')
      with self.assertRaisesRegex(DataError, 'fruit.json.* cannot be read: No such file'):
        descriptors.get_dataset(path)
      with open(path, 'w') as file:
        file.write('{"name": ')
      with self.assertRaisesRegex(DataError, 'fruit.json.* is no JSON: .*line 1'):
        descriptors.get_dataset(path)

  def test_deep_or_unprintable_descriptor_is_refused(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'fruit.json')
      for text, sentence in (('[' * 100000, 'nested too deeply'),
                             (json.dumps({**DESCRIPTOR, 'class_names': ['a', 'b\nc']}), 'control characters'),
                             (json.dumps({**DESCRIPTOR, 'class_names': ['a', '\ud800']}), 'class_names must'),
                             (json.dumps({**DESCRIPTOR, 'name': '\x1b[2J'}), 'name must be a text')):
        with open(path, 'w') as file:
          file.write(text)
        with self.subTest(sentence), self.assertRaisesRegex(DataError, f'fruit.json.*{sentence}'):
          descriptors.get_dataset(path)
      with open(path, 'w', encoding='utf-8-sig') as file:  # as editors on Windows save it
        json.dump({'name': 'ok', 'class_names': ['été', '空 😀']}, file, ensure_ascii=False)
      self.assertEqual(descriptors.get_dataset(path).class_names, ('été', '空 😀'))


if __name__ == '__main__':
  unittest.main()
