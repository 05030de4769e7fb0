"""Whole conversions: shards, index, bad pairs, several processes, and being killed."""
import contextlib
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from dataset import class_uniform, conversion, descriptors, lists, record_index, tf_records
from utils import files
from utils.errors import DataError, UsageError

pytestmark = pytest.mark.compat

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FRUIT = descriptors.Dataset('fruit', ('apple', 'pear', 'plum'), descriptors.voc_palette(3))


class ConversionTest(unittest.TestCase):
  """A test with a folder for images and labels, and one for records."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.output = os.path.join(self.folder, 'records')
    os.mkdir(self.output)

  def pair(self, name, height=5, width=8, value=0):
    """Writes a photo and a label of one value, but 255 in its first row and 1 at its end."""
    image, label = (os.path.join(self.folder, f'{name}.{end}') for end in ('jpg', 'png'))
    Image.fromarray(np.full((height, width, 3), 99, np.uint8)).save(image)
    values = np.full((height, width), value, np.uint8)
    values[0], values[-1, -1] = 255, 1
    Image.fromarray(values).save(label)
    return lists.Pair(image, label, FRUIT, f'{name}.jpg')

  def convert(self, problems=(), **splits):
    """Converts lists of pairs by the name of their split; returns what was printed."""
    options, dataset = splits.pop('options', {}), splits.pop('dataset', FRUIT)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
      conversion.convert({split: (pairs, list(problems)) for split, pairs in splits.items()}, dataset,
                         conversion.Options(self.output, **options))
    return out.getvalue()

  def written(self):
    return sorted(os.listdir(self.output))

  def names(self, split='train'):
    """Returns the file names in the records of a split, by file."""
    names = []
    for path in tf_records.record_files(self.output, split):
      examples = map(tf.train.Example.FromString, tf.io.tf_record_iterator(path))
      names.append([e.features.feature['image/filename'].bytes_list.value[0].decode() for e in examples])
    return names

  def index(self, split='train'):
    with open(os.path.join(self.output, f'{split}.json')) as file:
      return json.load(file)

  def content(self, name):
    with open(os.path.join(self.output, name), 'rb') as file:
      return file.read()


class WriteTest(ConversionTest):

  def test_splits_are_written_in_order_with_their_indexes(self):
    out = self.convert(train=[self.pair('b'), self.pair('a')], val=[self.pair('c')])
    self.assertEqual(self.written(), ['train.json', 'train.record', 'val.json', 'val.record'])
    self.assertEqual(self.names(), [['b.jpg', 'a.jpg']])
    self.assertEqual(self.names('val'), [['c.jpg']])
    self.assertTrue(out.startswith(f'Wrote 2 examples to {self.output}/train.record\n'
                                   f'Wrote 1 examples to {self.output}/val.record\nclass '))

  def test_classes_are_counted_and_those_without_a_pixel_told(self):
    pairs = [self.pair('a', 5, 8), self.pair('b', 2, 4, value=1)]
    out = self.convert(train=pairs, val=[self.pair('c', 4, 9, value=2)]).splitlines()[2:]
    self.assertEqual([line.split() for line in out[:5]], [
        ['class', 'train', 'pixels', 'share', 'images', 'val', 'pixels', 'share', 'images'],
        ['0', 'apple', '31', '64.58%', '1', '0', '0.00%', '0'],      # of 40 + 8, and of 36
        ['1', 'pear', '5', '10.42%', '2', '1', '2.78%', '1'],
        ['2', 'plum', '0', '0.00%', '0', '26', '72.22%', '1'],
        ['255', '(ignored)', '12', '25.00%', '2', '9', '25.00%', '1']])
    self.assertEqual(out[5:], ['Sizes: train 2 sizes, from 4x2 to 8x5 pixels, val all of 9x4 pixels',
                               'Warning: no pixel of train is plum',
                               'Warning: 25% of the pixels of train are ignored, and teach nothing',
                               'Warning: no pixel of val is apple',
                               'Warning: 25% of the pixels of val are ignored, and teach nothing'])

  def test_images_that_look_alike_in_two_splits_and_notes_are_told(self):
    pairs = [self.pair(name, 30, 40) for name in 'abcd']
    small = np.random.RandomState(0).randint(0, 256, (3, 6, 8, 3)).astype(np.uint8)
    for pair, pixels in zip(pairs, (small[0], small[1], small[2], small[1])):
      Image.fromarray(pixels).resize((40, 30), Image.Resampling.BICUBIC).save(pair.image)
    out = self.convert(train=pairs[:2], val=pairs[2:])
    self.assertIn("Warning: 1 images of val look like images of train, such as 'd.jpg' like 'b.jpg'; if "
                  'they show the same, scores are too good: put both on one side\n', out)
    self.assertNotIn('look like', self.convert(train=pairs[:2], val=pairs[2:3]))
    with Image.open(pairs[0].image) as image:
      exif = image.getexif()
      exif[0x112] = 3
      image.save(pairs[0].image, exif=exif)
    self.assertRegex(self.convert(train=pairs[:2], val=pairs[2:3]),
                     "Note: EXIF turns photos without changing .*; 1 images, such as 'a.jpg'\n")

  def test_palettes_that_differ_from_one_another_or_from_the_dataset_are_told(self):
    def convert(colors, dataset=FRUIT):
      pairs = [self.pair(name) for name in colors]
      for pair in pairs:
        image = Image.fromarray(np.uint8([[0, 1, 1, 0, 1, 2, 0, 0]] * 5))
        image.putpalette(colors[os.path.splitext(pair.name)[0]])
        image.save(pair.label)
      return self.convert(train=[pair._replace(dataset=dataset) for pair in pairs], dataset=dataset)

    black, red, green = FRUIT.palette
    self.assertNotIn('Warning', convert({'a': [*black, *red, *green], 'b': [*black, *red, *green]}))
    out = convert({'a': [*black, *red, *green], 'b': [*black, *green, *red], 'c': [*black, *red, *green]})
    self.assertIn("Warning: palettes differ: 1 ('pear') is #800000 in 2 labels, such as that of 'a.jpg' and "
                  "#008000 in 1 labels, such as that of 'b.jpg'; if the colours mean the classes, give", out)
    fruit = dataclasses.replace(FRUIT, palette=(red, black, green))
    out = convert({'a': [*black, *red, *green]}, fruit)
    self.assertIn('Warning: labels show 2 classes in the colours of others: '
                  "0 ('apple') has that of 'pear' in fruit", out)

  def test_foreground_that_is_ignored_as_a_whole_is_an_error(self):
    pair = self.pair('a', 5, 8)
    labels = np.zeros((5, 8), np.uint8)
    labels[1:3, 2:7] = 255
    Image.fromarray(labels).save(pair.label)
    with self.assertRaisesRegex(DataError, "every pixel that counts is 'apple', and 10 pixels .25.0%. are "
                                           'ignored.* line "values": {"0": "apple", "255": "pear"} '):
      self.convert(train=[pair])
    self.assertEqual(self.written(), [])
    labels[4, 4] = 2  # one pixel of another class
    Image.fromarray(labels).save(pair.label)
    self.assertIn('Warning: no pixel of train is pear\n', self.convert(train=[pair]))

  def test_foreground_that_the_descriptor_ignores_is_an_error_with_another_way_out(self):
    pair = self.pair('a', 5, 8)
    labels = np.zeros((5, 8), np.uint8)
    labels[1:3, 2:7] = 9  # ignored by name, and not because it is 255
    Image.fromarray(labels).save(pair.label)
    mapped = dataclasses.replace(FRUIT, values={0: 0, 9: 255})
    with self.assertRaisesRegex(DataError, "10 pixels .25.0%. are ignored, because the descriptor says so: .*"
                                           " a class in that of 'fruit'$"):
      self.convert(train=[pair._replace(dataset=mapped)], dataset=mapped)

  def test_background_alone_is_converted_with_a_warning(self):
    pair = self.pair('a', 5, 8)
    Image.fromarray(np.zeros((5, 8), np.uint8)).save(pair.label)
    self.assertIn('Warning: no pixel of train is pear, plum\n', self.convert(train=[pair]))

  def test_index_holds_counts_sizes_and_checksums(self):
    self.convert(train=[self.pair('a', 5, 8, value=2), self.pair('b', 4, 9), self.pair('c', 3, 4, value=2)],
                 options={'shards': 2})
    index = self.index()
    self.assertEqual(index['examples'], 3)
    self.assertEqual(index['class_pixels'], [26, 3, 38])    # 3 * 9 - 1; 3; 4 * 8 + 2 * 4 - 2
    self.assertEqual(index['ignored_pixels'], 21)           # 8 + 9 + 4
    self.assertEqual(index['class_image_pixels'], [36, 88, 52])  # of b; of all; of a and c
    self.assertEqual(index['mean_size'], [4, 7])
    self.assertEqual(index['skipped'], [])
    self.assertEqual(descriptors.from_json(index['dataset'], 'index'), FRUIT)
    self.assertEqual([shard['examples'] for shard in index['shards']], [1, 2])
    for shard in index['shards']:
      content = self.content(shard['file'])
      self.assertEqual(shard['bytes'], len(content))

  def test_index_holds_the_classes_of_each_example(self):
    dataset = dataclasses.replace(FRUIT, class_names=tuple('abcde'), palette=descriptors.voc_palette(5),
                                  ignore_label=3)
    pairs = [self.pair(str(number))._replace(dataset=dataset) for number in range(3)]
    for pair, values in zip(pairs, ([0, 2], [3, 3], [4, 1]), strict=True):
      Image.fromarray(np.uint8([values] * 5).repeat(4, 1)).save(pair.label)
    self.convert(train=pairs, dataset=dataset, options={'shards': 2})
    index = self.index()
    self.assertEqual(index['classes_of_examples'], '5 0 12')  # bits 0 and 2, none, 1 and 4
    self.assertEqual(index['class_image_pixels'], [40, 40, 40, 0, 40])
    self.assertEqual(record_index.read(self.output, 'train'), index)
    plan = class_uniform.plan(index, .5, 'train.json')
    self.assertEqual((plan.members, plan.file_sizes), ([[0], [2], [0], [2]], [1, 2]))

  def test_ignored_class_has_no_pixels(self):
    pair = self.pair('a', value=1)._replace(dataset=descriptors.Dataset('x', ('a', 'b'), ((0,) * 3,) * 2, 1))
    Image.fromarray(np.ones((5, 8), np.uint8)).save(pair.label)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
      conversion.convert({'train': ([pair], [])}, pair.dataset, conversion.Options(self.output))
    self.assertEqual((self.index()['class_pixels'], self.index()['ignored_pixels']), ([0, 0], 40))

  def test_fast_leaves_pixels_uncounted(self):
    self.convert(train=[self.pair('a', value=7)], options={'fast': True})
    self.assertEqual((self.index()['class_pixels'], self.index()['ignored_pixels']), (None, None))
    self.assertIsNone(self.index()['classes_of_examples'])
    self.assertIsNone(self.index()['class_image_pixels'])

  def test_shards_are_consecutive_and_no_more_than_examples(self):
    pairs = [self.pair(str(number)) for number in range(7)]
    self.convert(train=pairs, val=pairs[:2], options={'shards': 3})
    self.assertEqual(self.names(), [['0.jpg', '1.jpg'], ['2.jpg', '3.jpg'], ['4.jpg', '5.jpg', '6.jpg']])
    self.assertEqual(self.names('val'), [['0.jpg'], ['1.jpg']])

  def test_one_kind_of_records_replaces_the_other(self):
    pairs = [self.pair(str(number)) for number in range(3)]
    for other in ('train-old.record', 'my_train.record', 'val.record'):
      open(os.path.join(self.output, other), 'w').close()
    for shards, names in ((0, ['train.record']), (3, [f'train-0000{i}-of-00003.record' for i in range(3)]),
                          (2, [f'train-0000{i}-of-00002.record' for i in range(2)]), (0, ['train.record'])):
      self.convert(train=pairs, options={'shards': shards})
      self.assertEqual(self.written(), sorted([*names, 'train.json', 'train-old.record', 'my_train.record',
                                               'val.record']))

  def test_several_processes_write_the_same_bytes_as_one(self):
    pairs = [self.pair(f'ä {number}', 3 + number, 9, number % 3) for number in range(20)]  # three batches
    self.convert(train=pairs, options={'shards': 2})
    alone = {name: self.content(name) for name in self.written()}
    self.convert(train=pairs, options={'shards': 2, 'processes': 2})
    self.assertEqual({name: self.content(name) for name in self.written()}, alone)

  def test_descriptor_is_not_overwritten_by_an_index(self):
    path = os.path.join(self.output, 'train.json')
    with open(path, 'w') as file:
      json.dump(descriptors.to_json(FRUIT), file)
    with self.assertRaisesRegex(DataError, r"train\.json' is no index .* move it"):
      self.convert(train=[self.pair('a')])
    self.assertEqual(self.written(), ['train.json'])

  def test_leftovers_of_processes_that_do_not_run_are_removed(self):
    left = [f'train{end}.tmp' for end in ('.record.99999999999', '.record.0', f'.record.{os.getpid()}',
                                          '-00000-of-00003.record.99999999999', f'.json.{9 * 10 ** 30}')]
    kept = [f'train.record.{os.getppid()}.tmp', 'train.record.x.tmp', 'val.record.99999999999.tmp']
    for name in (*left, *kept):
      open(os.path.join(self.output, name), 'w').close()
    self.convert(train=[self.pair('a')])
    self.assertEqual(self.written(), sorted(['train.record', 'train.json', *kept]))

  def test_folder_that_vanishes_is_an_error(self):
    pair = self.pair('a')
    self.output = os.path.join(self.folder, 'none')
    with self.assertRaisesRegex(DataError, "cannot be written to '.*none'"):
      self.convert(train=[pair])


class BadPairsTest(ConversionTest):

  def setUp(self):
    super().setUp()
    self.pairs = [self.pair(str(number)) for number in range(4)]
    Image.fromarray(np.full((5, 8), 3, np.uint8)).save(self.pairs[1].label)
    with open(self.pairs[3].image, 'wb') as file:
      file.write(b'hello')

  def test_all_are_told_and_nothing_is_written(self):
    self.convert(train=self.pairs[:1])
    before = {name: self.content(name) for name in self.written()}
    with self.assertRaises(DataError) as caught:
      self.convert(["image 'x' is missing"], train=self.pairs[:3], val=self.pairs[3:])
    lines = str(caught.exception).splitlines()
    self.assertEqual(lines[0], '4 of 6 pairs of image and label are bad:')  # x is missing in both splits
    self.assertEqual([line for line in lines if 'x' in line and 'missing' in line],
                     ["image 'x' is missing"] * 2)
    self.assertTrue(any("1.png' holds the values 3" in line for line in lines))
    self.assertTrue(any("3.jpg' does not decode" in line for line in lines))
    self.assertRegex(lines[-1], r'nothing has been written\. .* --skip_bad 4')
    self.assertEqual({name: self.content(name) for name in self.written()}, before)

  def test_as_many_as_allowed_are_left_out_and_listed(self):
    out = self.convert(["image 'x' is missing"], train=self.pairs, options={'skip_bad': 3, 'shards': 4})
    self.assertEqual(self.names(), [['0.jpg'], [], ['2.jpg'], []])
    index = self.index()
    self.assertEqual(index['examples'], 2)
    self.assertEqual(len(index['skipped']), 3)
    self.assertRegex(index['skipped'][1], r"1\.png' holds the values 3")
    self.assertEqual(out.count('Left out: '), 3)

  def test_leaving_out_is_not_advised_if_all_are_bad(self):
    with self.assertRaisesRegex(DataError, r'(?s)^2 of 2 pairs.*nothing has been written\. Mend what they '
                                           'have in common: the folders, the descriptor or the export$'):
      self.convert(train=[self.pairs[1], self.pairs[3]])

  def test_one_more_than_allowed_is_too_many(self):
    with self.assertRaisesRegex(DataError, '^2 of 4 pairs'):
      self.convert(train=self.pairs, options={'skip_bad': 1})
    self.assertEqual(self.written(), [])

  def test_split_without_a_good_pair_is_an_error(self):
    with self.assertRaisesRegex(DataError, "(?s)no example is left for 'val'.*3.jpg"):
      self.convert(train=self.pairs[:1], val=self.pairs[3:], options={'skip_bad': 9})
    self.assertEqual(self.written(), [])


class IndexTest(ConversionTest):

  def test_records_that_are_not_those_of_the_index_are_refused(self):
    self.assertIsNone(record_index.read(self.output, 'train'))
    self.convert(train=[self.pair('a'), self.pair('b')], options={'shards': 2})
    self.assertEqual(record_index.read(self.output, 'train'), self.index())
    path, other = (os.path.join(self.output, f'train-0000{n}-of-00002.record') for n in (1, 0))
    with open(path, 'ab') as file:
      file.write(b'x')
    with self.assertRaisesRegex(DataError, 'is damaged: example 1'):
      record_index.read(self.output, 'train')
    with open(other, 'rb') as one, open(path, 'wb') as file:
      file.write(2 * one.read())
    with self.assertRaisesRegex(DataError, 'are not those of .*train.json.* says train-00001.* of 1 ex.* and '
                                r'[\d,]+ bytes; there is train-00001.* of 2 '):
      record_index.read(self.output, 'train')
    os.remove(path)
    with self.assertRaisesRegex(DataError, 'there is no such file: write the records again, or remove this'):
      record_index.read(self.output, 'train')

  def test_records_that_end_between_two_examples_are_refused(self):
    self.convert(train=[self.pair('a'), self.pair('b')])
    path = os.path.join(self.output, 'train.record')
    with open(path, 'rb') as file:
      length = int.from_bytes(file.read(8), 'little')
    os.truncate(path, 16 + length)
    self.assertEqual(tf_records.count_examples([path]), [1])
    with self.assertRaisesRegex(DataError, 'says train.record of 2 examples .* there is train.record of 1 '):
      record_index.read(self.output, 'train')
    self.assertEqual(record_index.load(self.output, 'train'), self.index())
    self.convert(train=[self.pair('a'), self.pair('b')])  # needs no file to be removed
    self.assertEqual(record_index.read(self.output, 'train'), self.index())

  def test_other_json_is_no_index_and_a_damaged_one_is_told(self):
    for text in ('[]', '{"name": "fruit"}'):
      self.write_index(text)
      self.assertIsNone(record_index.read(self.output, 'train'))
    for text in ('', '{', '[' * 100000):
      self.write_index(text)
      with self.assertRaisesRegex(DataError, "index '.*train.json' is .*remove it, and write the records"):
        record_index.read(self.output, 'train')

  def write_index(self, text):
    with open(os.path.join(self.output, 'train.json'), 'w') as file:
      file.write(text)

  def test_index_with_other_values_than_are_written_is_damaged(self):
    self.convert(train=[self.pair('a'), self.pair('b')])
    index = self.index()
    shard = index['shards'][0]
    for changes in ({'examples': 3}, {'examples': -2}, {'examples': '2'}, {'examples': 1e300}, {'shards': {}},
                    {'shards': []}, {'shards': [3]}, {'shards': [{**shard, 'examples': 3}], 'examples': 3},
                    {'shards': [{**shard, 'file': '../train.record'}]}, {'shards': [{**shard, 'file': 0}]},
                    {'shards': [{**shard, 'bytes': None}]}, {'shards': [shard, shard], 'examples': 4},
                    {'classes_of_examples': '3 8'}, {'classes_of_examples': '3'},
                    {'classes_of_examples': ['3', '3']}, {'classes_of_examples': '3 x'},
                    {'class_pixels': [1, -1, 2]}, {'class_pixels': 'abc'}, {'class_pixels': [1]},
                    {'class_image_pixels': [80, 80]}, {'class_image_pixels': [0, 80, 80]},
                    {'class_image_pixels': '80'}, {'class_pixels': None}, {'dataset': None}):
      with self.subTest(changes=changes):
        self.write_index(json.dumps({**index, **changes}))
        with self.assertRaisesRegex(DataError, 'train.json.*remove it|are not those of'):
          record_index.read(self.output, 'train')
    del index['classes_of_examples'], index['class_image_pixels']  # as earlier versions wrote it
    self.write_index(json.dumps(index))
    self.assertEqual(record_index.read(self.output, 'train'), index)

  def test_index_of_any_size_is_read(self):
    self.convert(train=[self.pair('a'), self.pair('b')])
    index = {**self.index(), 'skipped': ['a pair that was left out'] * 700_000}
    self.write_index(json.dumps(index))
    self.assertGreater(os.path.getsize(os.path.join(self.output, 'train.json')), files._MAX_JSON)
    self.assertEqual(record_index.read(self.output, 'train'), index)
    self.convert(train=[self.pair('a')])  # in its place
    self.assertEqual(record_index.read(self.output, 'train')['examples'], 1)

  def test_length_that_no_reader_of_tensorflow_survives_is_found_beside_a_fitting_index(self):
    self.convert(train=[self.pair('a'), self.pair('b')])
    path = os.path.join(self.output, 'train.record')
    with open(path, 'r+b') as file:  # with its right checksum TensorFlow ends in a segmentation fault
      file.write((1 << 40).to_bytes(8, 'little'))
    with self.assertRaisesRegex(DataError, "train.record' is damaged: example 0"):
      record_index.read(self.output, 'train')


class TrainTest(ConversionTest):
  """train.py takes the number of examples from the index, and compares its classes with its own."""

  def check(self, **changes):
    for split in ('train', 'val'):
      index = record_index.read(self.output, split)
      record_index.check_classes(index, dataclasses.replace(FRUIT, **changes), split, self.output)

  def test_records_of_other_classes_are_refused(self):
    self.convert(train=[self.pair('a')], val=[self.pair('b')])
    self.check()
    names = FRUIT.class_names
    with self.assertRaisesRegex(UsageError, f"class 1 of the train records .* is '{names[1]}', but .*'x'"):
      self.check(class_names=(names[0], 'x', names[2]))
    for changes, sentence in (({'class_names': ('a', 'b')}, "'fruit' has 2"),
                              ({'ignore_label': 0}, r'has 3 \(ignore label 0\)')):
      with self.assertRaisesRegex(UsageError, f"train records .* the 3 classes of 'fruit' .*{sentence}"):
        self.check(**changes)

  def test_examples_are_counted_where_there_is_no_index(self):
    self.convert(train=[self.pair(name) for name in 'abc'], options={'shards': 2})
    paths = tf_records.record_files(self.output, 'train')
    index = record_index.read(self.output, 'train')
    with mock.patch.object(tf_records, 'count_examples', return_value=[7, 8]):
      self.assertEqual(record_index.count_examples(index, paths), 3)
      self.assertEqual(record_index.count_examples(None, paths), 15)

  def test_records_without_index_are_taken(self):
    self.convert(train=[self.pair('a')], val=[self.pair('b')])
    for split in ('train', 'val'):
      os.remove(os.path.join(self.output, f'{split}.json'))
    self.check(class_names=('a', 'b'))


class KilledTest(ConversionTest):
  """A conversion in a process of its own that is killed while its processes work."""

  SLOW = '''
import sys, time
from dataset import conversion, descriptors, lists
names = lists.read_list('list.txt')
fruit = descriptors.from_json({'name': 'fruit', 'class_names': ['apple', 'pear', 'plum']}, '')

def main():
  pairs, problems = lists.match_pairs(lists.Folders(['.'], ['.']), names, fruit)
  if len(sys.argv) > 1:  # stops after the first shard, with all processes running
    # It stops before the last example of the first of three shards.
    add, first = conversion._add_example, iter(range(30))
    conversion._add_example = lambda *args: (
        next(first) == 9 and (print('shard', flush=True) or time.sleep(60)), add(*args))
  conversion.convert({'train': (pairs, problems)}, fruit, conversion.Options('records', 3, processes=2))

if __name__ == '__main__':
  main()
'''

  def test_records_are_complete_when_it_is_run_again(self):
    names = [self.pair(f'{number:02d}').name for number in range(30)]
    for name, text in (('list.txt', '\n'.join(names)), ('slow.py', self.SLOW)):
      with open(os.path.join(self.folder, name), 'w') as file:
        file.write(text)
    command = [sys.executable, 'slow.py']
    environment = {**os.environ, 'PYTHONPATH': ROOT, 'TF_CPP_MIN_LOG_LEVEL': '3'}
    killed = subprocess.Popen([*command, 'stop'], cwd=self.folder, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    with killed:
      self.assertEqual(killed.stdout.readline(), 'shard\n')
      workers = self.children(killed.pid)
      killed.send_signal(signal.SIGKILL)
    self.assertEqual([re.sub(r'\d+\.tmp', 'tmp', name) for name in self.written()],
                     ['train-00000-of-00003.record.tmp'])
    with self.assertRaisesRegex(DataError, 'does not exist'):
      tf_records.record_files(self.output, 'train')

    subprocess.run(command, cwd=self.folder, env=environment, check=True, capture_output=True)
    self.assertEqual(self.written(), ['train-00000-of-00003.record', 'train-00001-of-00003.record',
                                      'train-00002-of-00003.record', 'train.json'])
    self.assertEqual(sum(self.names(), []), names)
    self.assertGreaterEqual(len(workers), 2)
    self.assertFalse([pid for pid in workers if self.is_running(pid)], 'its processes live on')

  @staticmethod
  def children(pid):
    """Returns the ids of the processes that a process has started."""
    with open(f'/proc/{pid}/task/{pid}/children') as file:
      return file.read().split()

  @staticmethod
  def is_running(pid):
    """Returns whether a process still runs, after some seconds to end."""
    for _ in range(50):
      try:
        with open(f'/proc/{pid}/stat') as file:
          if file.read().rpartition(')')[2].split()[0] == 'Z':
            return False
      except FileNotFoundError:
        return False
      time.sleep(0.1)
    return True


if __name__ == '__main__':
  unittest.main()
