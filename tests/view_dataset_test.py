"""The dataset's page, from files and from records, as a user asks for it."""
import contextlib
import io
import json
import os
import re
import shutil
import tempfile
import unittest
import zlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from markupsafe import escape
from PIL import Image

import train
from dataset import descriptors, inputs, schema
from nets import backbones
from tests import support
from tools import view_dataset
from utils.errors import DataError, UsageError

pytestmark = [pytest.mark.compat, pytest.mark.slow]

DESCRIPTOR = {'name': 'tiny <set>', 'class_names': ['ground', 'cat', 'dog & co'],
              'palette': [[1, 2, 3], [200, 0, 16], [0, 0, 200]]}


def write_pair(folder, name, label, bits=8):
  """Writes an image of smooth noise and its label, integers [H, W], as a palette PNG of so many bits."""
  for kind in ('images', 'labels'):
    os.makedirs(os.path.dirname(f'{folder}/{kind}/{name}'), exist_ok=True)
  label = np.asarray(label, np.uint8)
  rng = np.random.RandomState(zlib.crc32(name.encode()))  # each another photo
  photo = Image.fromarray(rng.randint(0, 256, (5, 6, 3)).astype(np.uint8))
  photo.resize(label.shape[::-1], Image.Resampling.BICUBIC).save(f'{folder}/images/{name}.jpg', quality=95)
  Image.fromarray(label).convert('P').save(f'{folder}/labels/{name}.png', bits=bits)


def striped(height, width, *values):
  """Returns a label of equal columns, one a value."""
  return np.repeat([values], height, 0).repeat(width // len(values), 1)


class ViewDatasetTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.report = f'{self.folder}/report'
    with open(f'{self.folder}/tiny.json', 'w') as file:
      json.dump(DESCRIPTOR, file)
    write_pair(self.folder, 'one', striped(31, 40, 0, 1))
    write_pair(self.folder, 'sub/two <i>', striped(20, 60, 0, 255, 2))
    write_pair(self.folder, 'three', striped(30, 44, 0, 1), bits=1)
    self.write_list('train', 'one', 'sub/two <i>')
    self.write_list('val', 'three')

  def write_list(self, split, *names):
    with open(f'{self.folder}/{split}.txt', 'w') as file:
      file.write('\n'.join(names))

  def view(self, *argv):
    """Returns what is printed, and the figures."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
      view_dataset.main(view_dataset.make_parser().parse(
          ['--dataset', f'{self.folder}/tiny.json', '--output_dir', self.report,
           '--json', f'{self.folder}/report.json', *argv]))
    return output.getvalue(), self.figures()

  def figures(self):
    with open(f'{self.folder}/report.json') as file:
      return json.load(file)

  def page(self):
    with open(f'{self.report}/index.html', encoding='utf-8') as file:
      return file.read()

  def view_files(self, *argv):
    return self.view('--image_data_dir', f'{self.folder}/images', '--label_data_dir', f'{self.folder}/labels',
                     '--list', f'{self.folder}/train.txt', *argv)

  def write_record(self, split, *serialized):
    with tf.io.TFRecordWriter(f'{self.folder}/{split}.record') as writer:
      for example in serialized:
        writer.write(example)

  def encode(self, name):
    return support.encode_example(f'{self.folder}/images/{name}.jpg', f'{self.folder}/labels/{name}.png',
                                    descriptors.get_dataset(f'{self.folder}/tiny.json'))

  def test_figures_are_those_counted_by_hand(self):
    _, figures = self.view_files('--val', f'{self.folder}/val.txt')
    self.assertEqual(figures['sets']['train'], {
        'examples': 2, 'errors': [], 'ignored': 400 / 2440,
        'pixels': {'ground': 31 * 20 + 20 * 20, 'cat': 31 * 20, 'dog & co': 20 * 20},
        'images': {'ground': 2, 'cat': 1, 'dog & co': 1}, 'sizes': {'40x31': 1, '60x20': 1}})
    self.assertEqual(figures['sets']['val']['pixels'], {'ground': 660, 'cat': 660, 'dog & co': 0})
    self.assertEqual([(problem['kind'], problem['details']) for problem in figures['problems']],
                     [('warning', ['dog & co'])])

  def test_records_give_the_figures_of_their_files(self):
    self.write_record('train', self.encode('one'), self.encode('sub/two <i>'))
    self.write_record('val', self.encode('three'))
    _, of_records = self.view('--data_dir', self.folder, '--val', 'val')
    _, of_files = self.view_files('--val', f'{self.folder}/val.txt')
    self.assertEqual(of_records, of_files)

  def test_page_shows_pictures_that_are_there_and_escapes_names(self):
    self.view_files()
    page = self.page()
    self.assertNotIn('<i>two', page)
    for text in ('tiny &lt;set&gt;', 'two &lt;i&gt;.jpg', 'dog &amp; co', '#c80010', '30 %', '60 &times; 20'):
      self.assertIn(text, page)
    pictures = set(re.findall(r'src="([^"]+)"', page))
    self.assertEqual(pictures, {f'pictures/{name}' for name in os.listdir(f'{self.report}/pictures')})
    self.assertEqual(len(pictures), 4)
    for path in pictures:
      self.assertIn(Image.open(f'{self.report}/{path}').size, ((40, 31), (60, 20)))

  def test_names_in_records_are_escaped_and_no_paths(self):
    example = tf.train.Example.FromString(self.encode('one'))
    names = ('<script>alert(1)</script>', '../../../x" onload="y', "/etc/passwd'", '{{ title }}', 'a\nb')
    serialized = []
    for name in (*names, b'\xff\xfe<b>'):
      name = name if isinstance(name, bytes) else name.encode()
      example.features.feature[schema.IMAGE_FILENAME].bytes_list.value[0] = name
      serialized.append(example.SerializeToString())
    self.write_record('train', *serialized)
    before = set(os.listdir(self.folder))
    self.view('--data_dir', self.folder)
    page = self.page()
    self.assertEqual(set(os.listdir(self.folder)) - before, {'report', 'report.json'})
    self.assertEqual(set(re.findall(r'src="([^"]+)"', page)),
                     {f'pictures/0_{index:06d}{end}' for index in range(6) for end in ('.jpg', '_label.png')})
    self.assertNotIn('<script', page)
    self.assertNotIn('<b>\n', page)
    for name in names:
      self.assertIn(escape(name), page)
    self.assertIn('\\udcff\\udcfe&lt;b&gt;', page)

  def test_page_of_another_tool_and_other_files_are_not_written_over(self):
    os.mkdir(self.report)
    with open(f'{self.report}/index.html', 'w') as file:
      file.write('<p>mine</p>')
    with self.assertRaisesRegex(UsageError, "index.html', which is no page of this tool"):
      self.view_files()
    os.remove(f'{self.report}/index.html')
    self.view_files()
    self.view_files()
    with self.assertRaisesRegex(UsageError, '--json would write over what is no JSON: .*train.txt'):
      self.view_files('--json', f'{self.folder}/train.txt')

  def test_label_picture_has_the_classes_colours_and_shows_through_where_ignored(self):
    self.view_files()
    label = Image.open(f'{self.report}/pictures/0_000001_label.png').convert('RGBA')
    self.assertEqual([label.getpixel((x, 7)) for x in (3, 45)], [(1, 2, 3, 255), (0, 0, 200, 255)])
    self.assertEqual(label.getpixel((30, 7))[3], 0)

  def test_samples_are_few_but_show_every_class(self):
    for index in range(5):
      write_pair(self.folder, f'more{index}', striped(9, 12, 0, 1))
    self.write_list('train', 'one', *(f'more{index}' for index in range(5)), 'sub/two <i>', 'three')
    self.view_files('--samples', '2')  # the first and the last, and the only one with dogs
    names = re.findall(r'</b> (\S+) ?(?:&lt;i&gt;.jpg )?<small>', self.page())
    self.assertEqual([name.split('.')[0] for name in names], ['one', 'three', 'sub/two'])

  def test_bad_examples_are_all_told_and_end_with_an_error_after_the_page(self):
    write_pair(self.folder, 'seven', striped(9, 12, 0, 7))
    write_pair(self.folder, 'torn', striped(9, 12, 0, 1))
    os.truncate(f'{self.folder}/images/torn.jpg', 200)
    self.write_list('train', 'one', 'gone', 'seven', 'torn')
    with self.assertRaisesRegex(DataError, '^3 examples cannot be used: .*gone'):
      self.view_files()
    errors = self.figures()['sets']['train']['errors']
    for name, error in zip(('gone', 'seven.png.* 7', 'torn.jpg'), errors, strict=True):
      self.assertRegex(error, name)
      self.assertIn(escape(error), self.page())

  def test_bad_records_name_record_and_position(self):
    write_pair(self.folder, 'seven', striped(9, 12, 0, 1))
    good = self.encode('seven')
    write_pair(self.folder, 'seven', striped(9, 12, 0, 7))
    bad = tf.train.Example.FromString(good)
    with open(f'{self.folder}/labels/seven.png', 'rb') as file:
      bad.features.feature[schema.LABEL_ENCODED].bytes_list.value[0] = file.read()
    self.write_record('train', good, bad.SerializeToString(), b'no example', good)
    with self.assertRaisesRegex(DataError, r'^2 examples cannot .*example 1 \(from 0\).*train\.record'):
      self.view('--data_dir', self.folder)
    first, second = self.figures()['sets']['train']['errors']
    self.assertIn('holds the values 7; tiny <set> allows 0..2 and 255 (ignored)', first)
    self.assertRegex(second, 'example 2 .* is no tf.train.Example')

  def test_validation_images_out_of_training_are_told(self):
    shutil.copy(f'{self.folder}/images/one.jpg', f'{self.folder}/images/again.jpg')
    shutil.copy(f'{self.folder}/labels/one.png', f'{self.folder}/labels/again.png')
    self.write_list('val', 'three', 'again')
    printed, _ = self.view_files('--val', f'{self.folder}/val.txt')
    self.assertIn('warning: 1 image of val nearly equal one of train', printed)
    self.assertIn('again.jpg is one.jpg', self.page())

  def test_crops_are_those_of_training_and_change_no_figures(self):
    self.write_record('train', self.encode('one'), self.encode('sub/two <i>'))
    _, before = self.view('--data_dir', self.folder)
    self.assertNotIn('augmented', self.page())
    augmentation = ('--crop_size', '45', '33', '--photometric_distortion', '--seed', '3')
    _, figures = self.view('--data_dir', self.folder, '--samples', '5', '--augmented', *augmentation,
                           '--base_architecture', 'mobilenet_v2')
    self.assertEqual(figures, before)
    self.assertIn('Examples of train, augmented', self.page())
    args = train.make_parser().parse(augmentation)
    options = inputs.TrainOptions(**inputs.read_flags(args), images_per_replica=1, num_examples=2,
                                  padding_color=backbones.get('mobilenet_v2').padding_color)
    stream = inputs.train_dataset([f'{self.folder}/train.record'],
                                  descriptors.get_dataset(f'{self.folder}/tiny.json'), options).take(5)
    palette = np.array([*DESCRIPTOR['palette'], [0, 0, 0]])
    for index, (image, label) in enumerate(stream):
      stem = f'{self.report}/pictures/1_{index:06d}'
      shown = np.asarray(Image.open(f'{stem}.jpg')).astype(int)
      self.assertLess(np.abs(shown - image[0].numpy()).mean(), 12)  # of a small JPEG
      shown = np.asarray(Image.open(f'{stem}_label.png').convert('RGBA'))
      np.testing.assert_array_equal(shown[..., 3] == 0, label[0, :, :, 0] == 255)
      seen = shown[..., 3] > 0
      np.testing.assert_array_equal(shown[seen][:, :3], palette[np.minimum(label[0, :, :, 0], 3)][seen])
    self.assertFalse(os.path.exists(f'{self.report}/pictures/1_000005.jpg'))
    with self.assertRaisesRegex(DataError, '--class_uniform needs the classes of each .*train.json'):
      self.view('--data_dir', self.folder, '--augmented', '--class_uniform', '.5')

  def test_flags_that_need_or_exclude_each_other_are_usage_errors(self):
    for message, argv in (
        ('give --data_dir, a folder of records, or all of', ('--list', 'x')),
        ('--data_dir means records', ('--data_dir', 'x', '--list', 'y')),
        ('--val train is called as the set', ('--data_dir', 'x', '--val', 'train')),
        ('--flip would change nothing without --augmented', ('--data_dir', 'x', '--flip', 'off')),
        ('--split would change nothing without --data_dir', ('--list', 'x', '--split', 'val')),
        ('--augmented shows crops of records; give --data_dir', ('--augmented', '--list', 'y')),
        ('--scale_range 2 1 begins above', ('--augmented', '--data_dir', 'x', '--scale_range', '2', '1')),
    ):
      with self.subTest(message), self.assertRaisesRegex(UsageError, message):
        self.view(*argv)
    self.assertFalse(os.path.exists(self.report))


if __name__ == '__main__':
  unittest.main()
