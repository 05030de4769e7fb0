"""tools/create_tf_record.py: one's own data, from the first look at the labels to the records."""
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from cli import flags
from dataset import descriptors, lists, tf_records
from tools import create_tf_record

pytestmark = pytest.mark.compat

BINARY = {'name': 'cells', 'class_names': ['plate', 'cell'], 'values': {'0': 'plate', '255': 'cell'}}


def run(*argv):
  """Runs the script's main; returns its exit status, standard output and standard error."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      flags.run(create_tf_record.main, create_tf_record.make_parser(), [str(arg) for arg in argv])
      status = 0
    except SystemExit as end:
      status = end.code
  return status, out.getvalue(), err.getvalue()


class ToolTest(unittest.TestCase):
  """A test with a folder of its own."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.random = np.random.RandomState(0)

  def path(self, *parts):
    return os.path.join(self.folder, *parts)

  def write(self, name, array, palette=None):
    os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
    image = Image.fromarray(array)
    if palette:
      image.putpalette(palette)
    image.save(self.path(name))

  def write_text(self, name, text):
    with open(self.path(name), 'w') as file:
      file.write(text)

  def write_pair(self, name, extension='.jpg', suffix=''):
    """Writes images/<name><extension> and labels/<name><suffix>.png, a mask of 0 and 255."""
    self.write(f'images/{name}{extension}', self.random.randint(0, 256, (7, 11, 3)).astype(np.uint8))
    self.write(f'labels/{name}{suffix}.png', (self.random.randint(0, 2, (7, 11)) * 255).astype(np.uint8))

  def assert_fails(self, result, status, sentence):
    self.assertEqual(result[0], status)
    self.assertRegex(result[2], sentence)


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
    self.assert_fails(self.convert('--seed', 1), 1, "train.txt' is there and differs from the split")
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
    self.assert_fails(run('--labels', 'x'), 2, '--images is missing')
    self.assert_fails(self.convert(), 1, "folder '.*labels' does not exist")
    self.write_pair('a')
    self.assert_fails(self.convert(), 1, "a.jpg' is the only image")
    self.assert_fails(self.convert('--label_suffix', '_x'), 1, 'whose name ends in _x.png')
    self.write_pair(' b')
    self.assert_fails(self.convert(), 1, "' b.jpg' .* has a name that no list can hold")


class SuggestTest(ToolTest):

  def suggest(self, *argv):
    return run('--suggest', '--labels', self.path('labels'), '--dataset', self.path('mine.json'), *argv)

  def descriptor(self):
    with open(self.path('mine.json')) as file:
      return json.load(file)

  def assert_suggests(self, expected):
    status, out, err = self.suggest()
    self.assertEqual(status, 0, err)
    self.assertEqual(self.descriptor(), {'name': 'mine', **expected})
    descriptors.get_dataset(self.path('mine.json'))
    return out

  def test_masks_become_two_classes_with_their_shares(self):
    mask = np.zeros((4, 10), np.uint8)
    mask[0, :6] = 255
    self.write('labels/a.png', mask)
    self.write('labels/deep/b.png', mask * 0)
    out = self.assert_suggests({'class_names': ['class_0', 'class_255'],
                                'values': {'0': 'class_0', '255': 'class_255'}})
    self.assertRegex(out, r'\n +0 +92.5000% +2\n +255 +7.5000% +1\n')  # 74 and 6 of 80

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
    self.assertNotIn('Took', out)
    label[label == 255], label[2] = 0, 255  # a border of 10 around 24
    self.write('labels/a.png', label)
    os.remove(self.path('mine.json'))
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

  def test_palettes_that_differ_mean_colours(self):
    self.write('labels/a.png', np.uint8([[0, 1, 1]]), [1, 2, 3, 4, 5, 6])
    self.write('labels/b.png', np.uint8([[0, 0, 0]]), [4, 5, 6, 1, 2, 3])
    self.assert_suggests({'class_names': ['class_040506', 'class_010203'],
                          'colors': {'#040506': 'class_040506', '#010203': 'class_010203'}})

  def test_colours_come_by_their_share(self):
    self.write('labels/a.png', np.uint8([[[0, 0, 0], [128, 0, 64], [128, 0, 64]]]))
    self.write('labels/b.png', np.uint8([[0, 9]]))  # grey among them
    out = self.assert_suggests({
        'class_names': ['class_000000', 'class_800040', 'class_090909'],
        'colors': {'#000000': 'class_000000', '#800040': 'class_800040', '#090909': 'class_090909'}})
    self.assertRegex(out, r'#800040 +40.0000% +1\n')

  def test_smoothed_labels_are_refused(self):
    self.write('labels/a.png', self.random.randint(0, 256, (40, 50, 3)).astype(np.uint8))
    self.assert_fails(self.suggest(), 1, r'hold 2000 values or colours.* export the labels anew')
    self.assertFalse(os.path.exists(self.path('mine.json')))

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
    self.assertIn('--suggest --labels mine/labels', done.stdout)


if __name__ == '__main__':
  unittest.main()
