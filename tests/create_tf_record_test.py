"""tools/create_tf_record.py: one's own data, from the first look at the labels to the records."""
import collections
import io
import json
import os
import shlex
import subprocess
import sys
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from dataset import lists, tf_records
from tests.own_data import ToolTest, run
from tools import create_tf_record

pytestmark = pytest.mark.compat

BINARY = {'name': 'cells', 'class_names': ['plate', 'cell'], 'values': {'0': 'plate', '255': 'cell'}}


class ConvertTest(ToolTest):

  def setUp(self):
    super().setUp()
    self.write_text('cells.json', json.dumps(BINARY))

  def convert(self, *argv):
    return run('--images', self.path('images'), '--labels', self.path('labels'),
               '--dataset', self.path('cells.json'), '--output_dir', self.path('records'), *argv)

  def examples(self, split):
    """Returns {file name: label, uint8 [7, 11]} of a split's records."""
    labels = {}
    for path in tf_records.record_files(self.path('records'), split):
      for serialized in tf.io.tf_record_iterator(path):
        features = tf.train.Example.FromString(serialized).features.feature
        name = features['image/filename'].bytes_list.value[0].decode()
        labels[name] = np.asarray(Image.open(io.BytesIO(features['label/encoded'].bytes_list.value[0])))
    return labels

  def lists(self):
    return [lists.read_list(self.path('records', f'{split}.txt')) for split in ('train', 'val')]

  def test_any_names_and_folders_are_split_converted_and_listed(self):
    names = ['plain', 'with blanks', 'Zürich/ü 1', 'a/same', 'b/same', 'b/c/same', '日本']
    for name in names:
      self.write_pair(name)
    status, out, err = self.convert('--val_fraction', 0.3)
    self.assertEqual(status, 0, err)
    train, val = self.examples('train'), self.examples('val')
    self.assertEqual((len(train), len(val)), (5, 2))  # 0.3 * 7 = 2.1
    self.assertEqual(self.lists(), [list(train), list(val)])
    self.assertEqual({**train, **val}.keys(), {f'{name}.jpg' for name in names})
    for name, label in {**train, **val}.items():
      with Image.open(self.path('labels', name.replace('.jpg', '.png'))) as mask:
        np.testing.assert_array_equal(label, np.asarray(mask) // 255)

  def test_split_hangs_on_the_seed_and_on_nothing_else(self):
    for number in range(20):
      self.write_pair(f'{number}')
    self.assertEqual(self.convert()[0], 0)
    first = self.lists()
    self.assertEqual([len(names) for names in first], [18, 2])
    self.assertEqual(self.convert()[0], 0)
    self.assertEqual(self.lists(), first)
    self.assert_fails(self.convert('--seed', 1), 1, "train.txt' is there and is another list than that of "
                                                              'these 18 images, of which it lacks 1; give')
    self.assertEqual(self.convert('--seed', 1, '--output_dir', self.path('other'))[0], 0)
    self.assertNotEqual(lists.read_list(self.path('other/val.txt')), first[1])

  def test_lists_hold_what_the_records_hold_also_when_it_is_run_again(self):
    for number in range(6):
      self.write_pair(f'{number}')
    bad = self.path('images/3.jpg')
    with open(bad, 'r+b') as file:
      file.truncate(os.path.getsize(bad) // 2)
    for _ in range(2):
      status, _, err = self.convert('--skip_bad', 1)
      self.assertEqual(status, 0, err)
      self.assertEqual(self.lists(), [list(self.examples('train')), list(self.examples('val'))])
      self.assertEqual(sorted(sum(self.lists(), [])), [f'{number}.jpg' for number in (0, 1, 2, 4, 5)])

  def test_extensions_may_be_spelt_in_capitals(self):
    for number, extension in enumerate(('.JPEG', '.Jpg', '.PNG', '.TIF', '.BMP')):
      self.write_pair(f'{number}', extension)
    os.rename(self.path('labels/0.png'), self.path('labels/0.PNG'))
    os.rename(self.path('labels/1.png'), self.path('labels/1.Png'))
    self.assertEqual(self.convert()[0], 0)
    self.assertEqual(sorted(sum(self.lists(), [])), ['0.JPEG', '1.Jpg', '2.PNG', '3.TIF', '4.BMP'])

  def test_images_that_are_added_move_few_others(self):
    names = [f'{number}.jpg' for number in range(1000)]
    before = create_tf_record.split_names(names, 0.1, 0)
    after = create_tf_record.split_names([*names, *(f'new{number}' for number in range(100))], 0.1, 0)
    self.assertEqual((len(before['val']), len(after['val'])), (100, 110))
    self.assertLess(len(set(before['val']) - set(after['val'])), 15)

  def test_lists_can_be_given(self):
    for name in 'abcd':
      self.write_pair(name)
    self.write_text('mine.txt', 'c\na.jpg\n')
    self.write_text('val.txt', 'b\n')
    status, _, err = self.convert('--train_list', self.path('mine.txt'), '--val_list', self.path('val.txt'))
    self.assertEqual(status, 0, err)
    self.assertEqual(list(self.examples('train')), ['c.jpg', 'a.jpg'])
    self.assertEqual(list(self.examples('val')), ['b.jpg'])
    self.assertFalse(os.path.exists(self.path('records/train.txt')))
    self.assert_fails(self.convert('--train_list', self.path('mine.txt')), 2, 'go together')
    for argv, words in (
        (('--train_list', self.path('mine.txt'), '--val_list', self.path('val.txt'), '--seed', 3),
         '--seed would change nothing where lists or folders say'), (
         ('--val_fraction', 0, '--seed', 3), '--seed would change nothing with --val_fraction 0'),
        (('--suggest', '--shards', 2), '--output_dir --shards would change nothing with --suggest')):
      self.assert_fails(self.convert(*argv), 2, words)

  def test_labels_may_lie_beside_the_images(self):
    for name in 'ab':
      self.write_pair(name, suffix='_mask')
      os.rename(self.path(f'labels/{name}_mask.png'), self.path(f'images/{name}_mask.png'))
    status, _, err = self.convert('--labels', self.path('images'), '--label_suffix', '_mask')
    self.assertEqual(status, 0, err)
    self.assertEqual(sorted({**self.examples('train'), **self.examples('val')}), ['a.jpg', 'b.jpg'])

  def test_what_has_no_partner_is_told_and_can_be_skipped(self):
    for name in ('a', 'b', 'c', 'x/d'):
      self.write_pair(name)
    os.remove(self.path('labels/a.png'))
    os.remove(self.path('images/x/d.jpg'))
    self.write_pair('b', '.png')  # a second image of one label
    self.assert_fails(self.convert(), 1, r"(?s)3 of 5 pairs.*label '.*a\.png' of image .* does not exist")
    self.assert_fails(self.convert(), 1, r"'b.jpg' and 'b.png' both have the label")
    self.assert_fails(self.convert(), 1, r"label '.*x/d\.png' has no image")
    self.assertEqual(os.listdir(self.path('records')), [])

  def test_hidden_folders_and_links_to_a_folder_above_are_left_out_and_counted(self):
    for name in ('a', 'b', 'sub/c', '.ipynb_checkpoints/a-checkpoint'):
      self.write_pair(name)
    for kind in ('images', 'labels'):
      os.symlink('.', os.path.join(self.folder, kind, 'all'))
      os.symlink('..', os.path.join(self.folder, kind, 'sub', 'up'))
      os.symlink('loop', os.path.join(self.folder, kind, 'loop'))
    status, printed, _ = self.convert()
    self.assertEqual(status, 0)
    self.assertEqual(printed.count('hidden folders: 1; links to folders that are read already: 2'), 2)
    self.assertEqual(sorted(sum(self.lists(), [])), ['a.jpg', 'b.jpg', 'sub/c.jpg'])

  def test_missing_and_wrong_input_is_told(self):
    self.assert_fails(run('--labels', 'x', '--dataset', 'x.json'), 2, '--images is missing')
    self.assert_fails(self.convert(), 1, "folder '.*images' does not exist")
    self.write_pair('a')
    self.assert_fails(self.convert('--label_suffix', '_x'), 1, 'whose name ends in _x.png')
    self.write_pair(' b')
    self.assert_fails(self.convert(), 1, "' b.jpg' .* has a name that no list can hold")


  def test_suffix_may_begin_with_a_dash(self):
    for name in 'ab':
      self.write_pair(name, suffix='-mask')
    self.assert_fails(self.convert(), 1, 'none of the 2 images and 2 .* --label_suffix=-mask would fit')
    status, _, err = self.convert('--label_suffix', '-mask')
    self.assertEqual(status, 0, err)
    self.assertEqual(sorted(sum(self.lists(), [])), ['a.jpg', 'b.jpg'])

  def test_several_folders_and_folders_for_validation(self):
    for name in ('one/1', 'two/1', 'three/1'):
      self.write_pair(name)
    both = [self.path(kind, name) for kind in ('images', 'labels') for name in ('one', 'two')]
    status, _, err = run('--images', *both[:2], '--labels', *both[2:],
                         '--val_images', self.path('images/three'),
                         '--val_labels', self.path('labels/three'), '--dataset', self.path('cells.json'),
                         '--output_dir', self.path('records'))
    self.assertEqual(status, 0, err)
    self.assertEqual(self.lists(), [['one/1.jpg', 'two/1.jpg'], ['1.jpg']])
    self.assertEqual(list(self.examples('train')), ['one/1.jpg', 'two/1.jpg'])
    self.assert_fails(self.convert('--labels', *both[2:]), 2, '--images names 1 folders and --labels 2')
    self.assert_fails(self.convert('--val_images', both[0]), 2, '--val_images and --val_labels go together')

  def test_image_alone_is_for_training_and_validation(self):
    self.write_pair('only')
    status, out, err = self.convert()
    self.assertEqual(status, 0, err)
    self.assertIn("Note: 'only.jpg' is the only image", out)
    self.assertEqual(self.lists(), [['only.jpg'], ['only.jpg']])

  def test_no_image_is_for_validation_if_none_is_asked_for(self):
    for name in 'ab':
      self.write_pair(name)
    status, out, err = self.convert('--val_fraction', 0)
    self.assertEqual(status, 0, err)
    self.assertIn('no val.record is written; train.py needs it', out)
    self.assertEqual(sorted(os.listdir(self.path('records'))), ['train.json', 'train.record', 'train.txt'])

  def test_label_of_two_formats_counts_once(self):
    for name in 'ab':
      self.write_pair(name)
    Image.open(self.path('labels/a.png')).save(self.path('labels/a.bmp'))
    status, out, err = self.convert()
    self.assertEqual(status, 0, err)
    self.assertRegex(out, r"Left out: 1 labels beside others of the same name, which count, .* '.*a\.bmp'")


class DataTest(ToolTest):
  """--data: the folder is looked at, and its layout and names are found."""

  def run_both(self, *argv):
    """Runs the two commands; returns what they printed, and {name: class pixels} of both splits together."""
    data, dataset = self.path('data'), self.path('mine.json')
    status, suggested, err = run('--suggest', '--data', data, '--dataset', dataset)
    self.assertEqual(status, 0, err)
    command = shlex.split(suggested.splitlines()[-1])
    self.assertEqual(command[2:4], ['--data', data])
    status, converted, err = run(*command[2:], '--output_dir', self.path('records'), *argv)
    self.assertEqual(status, 0, err)
    pixels = collections.Counter()
    for index in map(self.index, ('train', 'val')):
      pixels.update(dict(zip(index['dataset']['class_names'], index['class_pixels'])))
    return suggested, converted, dict(pixels)

  def test_suffix_and_colours_beside_the_labels_are_found(self):
    colors, label = np.uint8([[9, 0, 0], [0, 9, 0]]), np.zeros((7, 11), int)
    label[2:4] = 1
    for name in ('a', 'b', 'c'):
      self.write(f'data/stills/{name}.png', self.random.randint(0, 256, (7, 11, 3)).astype(np.uint8))
      self.write(f'data/labels/{name}_L.png', colors[label])
    self.write_text('data/label_colors.txt', '9 0 0\tground\n0 9 0\tcat\n0 0 9\tdog\n')
    suggested, converted, pixels = self.run_both()
    self.assertIn('found: images in stills, labels in labels, named with --label_suffix=_L', suggested)
    self.assertIn(f"Took the names in '{self.path('data/label_colors.txt')}'", suggested)
    self.assertIn('No pixel is dog: kept as classes', suggested)
    self.assertEqual(pixels, {'ground': 3 * 5 * 11, 'cat': 3 * 2 * 11, 'dog': 0})
    self.assertIn('Warning: no pixel of train is dog', converted)

  def test_lists_in_vocs_layout_are_taken_if_they_fit(self):
    for name in 'abc':
      self.write(f'data/JPEGImages/{name}.jpg', self.random.randint(0, 256, (7, 11, 3)).astype(np.uint8))
      self.write(f'data/SegmentationClass/{name}.png', (np.arange(77) % 2).astype(np.uint8).reshape(7, 11))
    os.makedirs(self.path('data/ImageSets/Segmentation'))
    self.write_text('data/ImageSets/Segmentation/train.txt', 'c\na\n')
    self.write_text('data/ImageSets/Segmentation/val.txt', 'b\n')
    _, converted, _ = self.run_both()
    self.assertIn('those of', converted)
    self.assertEqual(self.index('train')['examples'], 2)
    self.write_text('data/ImageSets/Segmentation/val.txt', 'b\nx\n')
    status, out, err = run('--data', self.path('data'), '--dataset', self.path('mine.json'), '--output_dir',
                           self.path('other'))
    self.assertEqual(status, 0, err)
    self.assertRegex(out, 'Left out: the lists .* of whose names 1 have no image or no label here')

  def test_folders_for_training_and_validation_are_found_and_those_for_a_test_left_out(self):
    for split in ('train', 'valid', 'test'):
      for name in 'ab':
        self.write(f'data/{split}/{name}.jpg', self.random.randint(0, 256, (7, 11, 3)).astype(np.uint8))
        self.write(f'data/{split}/{name}_mask.png', np.uint8([[0, 1] * 5 + [2]] * 7))
    self.write_text('data/train/_classes.csv', 'Pixel Value, Class\n0, ground\n1, cat\n2, dog\n')
    suggested, _, pixels = self.run_both()
    self.assertIn('for a test, left out here: both in test, named with --label_suffix=_mask', suggested)
    self.assertEqual(pixels, {'ground': 4 * 35, 'cat': 4 * 35, 'dog': 4 * 7})

  def test_polygons_of_labelme_are_drawn(self):
    points = [[2, 1], [6, 1], [6, 4], [2, 4]]  # with its outline 5 x 4 pixels
    for name, label in (('a', 'cat'), ('b', 'dog'), ('c', 'cat')):
      self.write(f'data/{name}.jpg', self.random.randint(0, 256, (7, 11, 3)).astype(np.uint8))
      self.write_text(f'data/{name}.json', json.dumps({
          'imageHeight': 7, 'imageWidth': 11, 'imageData': None, 'shapes': [
              {'label': label, 'points': points, 'shape_type': 'polygon'}]}))
    suggested, _, pixels = self.run_both()
    self.assertRegex(suggested, r'\n +cat +66.6667% +2\n +dog +33.3333% +1\n')
    self.assertIn("Took what no shape covers for a class, 'background'", suggested)
    self.assertEqual(pixels, {'background': 3 * (77 - 20), 'cat': 40, 'dog': 20})
    self.write_text('cats.json', json.dumps({'name': 'cats', 'class_names': ['cat', 'rest'], 'names': {
        'dog': 'cat', '_background_': 'rest'}}))
    status, _, err = run('--images', self.path('data'), '--labels', self.path('data'), '--output_dir',
                         self.path('cats'), '--dataset', self.path('cats.json'), '--val_fraction', 0)
    self.assertEqual(status, 0, err)
    with open(self.path('cats/train.json')) as file:
      self.assertEqual(json.load(file)['class_pixels'], [60, 3 * 57])

  def test_panoptic_segments_become_categories(self):
    ids = np.zeros((7, 11), int)
    ids[1:3, 2:5], ids[4] = 70000, 5  # 6 pixels of one segment, 11 of another
    png = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2).astype(np.uint8)
    annotations = []
    for number, name in enumerate('ab'):
      self.write(f'photos/{name}.jpg', self.random.randint(0, 256, (7, 11, 3)).astype(np.uint8))
      self.write(f'panoptic/{name}.png', png)
      annotations.append({'file_name': f'{name}.png', 'image_id': number, 'segments_info': [
          {'id': 70000, 'category_id': 3}, {'id': 5, 'category_id': 7 if number else 3}]})
    self.write_text('panoptic.json', json.dumps({'annotations': annotations, 'categories': [
        {'id': 7, 'name': 'sky'}, {'id': 3, 'name': 'person'}, {'id': 9, 'name': 'rug'}]}))
    flags = ('--images', self.path('photos'), '--labels', self.path('panoptic.json'))
    status, out, err = run('--suggest', *flags, '--dataset', self.path('mine.json'))
    self.assertEqual(status, 0, err)
    status, _, err = run(*flags, '--dataset', self.path('mine.json'), '--output_dir', self.path('records'))
    self.assertEqual(status, 0, err)
    found = list(map(self.index, ('train', 'val')))
    self.assertEqual(found[0]['dataset']['class_names'], ['sky', 'person', 'rug'])
    self.assertEqual(sorted(index['class_pixels'] for index in found), [[0, 17, 0], [11, 6, 0]])
    self.assertEqual([index['ignored_pixels'] for index in found], [60, 60])
    self.write_text('two.json', json.dumps({'name': 'two', 'class_names': ['sky', 'rug']}))
    self.assert_fails(run(*flags, '--dataset', self.path('two.json'), '--output_dir', self.path('two')), 1,
                      'has the categories person, which two does not; add them')

  def test_other_flags_of_the_layout_are_refused_beside_it(self):
    self.assert_fails(run('--data', 'x', '--labels', 'y', '--dataset', 'z.json'), 2,
                      '--data finds folders and names by itself, and --labels gives one')


class SuggestTest(ToolTest):

  def suggest(self, *argv):
    return run('--suggest', '--labels', self.path('labels'), '--dataset', self.path('mine.json'), *argv)

  def test_descriptor_is_never_overwritten(self):
    self.write('labels/a.png', np.uint8([[0, 1]]))
    self.write_text('mine.json', 'precious')
    self.assert_fails(self.suggest(), 2, 'is there already')
    self.assert_fails(run('--suggest', '--labels', self.path('labels')), 2, '--dataset is missing')

  def test_suggestion_serves_for_the_conversion(self):
    colors = np.uint8([[0, 0, 0], [200, 0, 0], [0, 0, 200]])
    for name in 'abc':
      self.write_pair(name)
      self.write(f'labels/{name}.png', colors[self.random.randint(0, 3, (7, 11))])
    self.assertEqual(self.suggest()[0], 0)
    status, _, err = run('--images', self.path('images'), '--labels', self.path('labels'),
                         '--dataset', self.path('mine.json'), '--output_dir', self.path('records'))
    self.assertEqual(status, 0, err)

  def test_script_runs_from_anywhere_and_helps_at_once(self):
    done = subprocess.run([sys.executable, create_tf_record.__file__, '--help'], cwd=self.folder,
                          capture_output=True, text=True, timeout=20)
    self.assertIn('--suggest --data mine', done.stdout)


if __name__ == '__main__':
  unittest.main()
