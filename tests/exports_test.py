"""What labelling tools export, in small, by the two commands; pixels are counted on what was drawn."""
import collections
import json
import os
import shlex
import unittest

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.own_data import ToolTest, run

pytestmark = pytest.mark.compat

SIZE = HEIGHT, WIDTH = 30, 40
NAMES = ('a 1', 'ü2', 'c3', 'd4')
COLORS = np.uint8([[0, 0, 0], [250, 50, 83], [51, 221, 255]])
CLASSES = ('ground', 'cat', 'dog')


class ExportsTest(ToolTest):

  def setUp(self):
    super().setUp()
    self.drawn = collections.Counter()

  def photo(self, name):
    self.write(f'data/{name}', self.random.randint(0, 256, (*SIZE, 3)).astype(np.uint8))

  def label(self, names=CLASSES):
    """Returns uint8 [H, W], 0..2, whose pixels count as those of `names`."""
    label = np.zeros(SIZE, np.uint8)
    for value in (1, 2):
      top, left = self.random.randint(0, 15, 2)
      label[top:top + 9, left:left + 5 * value] = value
    self.drawn.update(names[value] for value in label.ravel().tolist())
    return label

  def text(self, name, content):
    os.makedirs(os.path.dirname(self.path('data', name)), exist_ok=True)
    self.write_text(f'data/{name}', content if isinstance(content, str) else json.dumps(content))

  def convert(self, ignored=0):
    """Runs the two commands, and compares the pixels; returns what the first printed."""
    data, dataset = self.path('data'), self.path('data/mine.json')
    status, suggested, err = run('--suggest', '--data', data, '--dataset', dataset)
    self.assertEqual(status, 0, err)
    words = shlex.split(suggested.splitlines()[-1])
    self.assertEqual(words[2:], ['--data', data, '--dataset', dataset, '--output_dir', data])
    status, _, err = run(*words[2:], '--processes', 1)
    self.assertEqual(status, 0, err)
    pixels, left_out = collections.Counter(), 0
    for split in ('train', 'val'):
      with open(self.path('data', f'{split}.json')) as file:
        index = json.load(file)
      pixels.update(dict(zip(index['dataset']['class_names'], index['class_pixels'])))
      left_out += index['ignored_pixels']
    self.assertEqual(+pixels, +self.drawn)
    self.assertEqual(left_out, ignored)
    return suggested

  def pairs(self, images='images/{}.jpg', labels='labels/{}.png', make=lambda label: label, names=CLASSES,
            **options):
    for name in NAMES:
      self.photo(images.format(name))
      label = make(self.label(names))
      image = label if isinstance(label, Image.Image) else Image.fromarray(label)
      path = self.path('data', labels.format(name))
      os.makedirs(os.path.dirname(path), exist_ok=True)
      image.save(path, **options)

  def test_labelme(self):
    for name in NAMES:
      self.photo(f'{name}.jpg')
      points, canvas = self.random.randint(0, 30, (3, 2)).tolist(), Image.new('L', (WIDTH, HEIGHT))
      ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=1, outline=1)
      inside = int(np.count_nonzero(canvas))
      self.drawn.update({'cat': inside, 'background': HEIGHT * WIDTH - inside})
      self.text(f'{name}.json', {'imageHeight': HEIGHT, 'imageWidth': WIDTH, 'imageData': None, 'shapes': [
          {'label': 'cat', 'points': points, 'shape_type': 'polygon'}]})
    self.convert()

  def test_labelme2voc(self):
    def make(label):
      label[0] = 255
      image = Image.fromarray(label)
      image.putpalette([*COLORS.ravel().tolist(), *[0] * 756, 224, 224, 192])
      return image

    self.pairs('JPEGImages/{}.jpg', 'SegmentationClass/{}.png', make)
    # The first row does not count.
    self.drawn = collections.Counter()
    for name in NAMES:
      label = np.asarray(Image.open(self.path('data/SegmentationClass', f'{name}.png')))
      self.drawn.update(CLASSES[value] for value in label[1:].ravel().tolist())
    self.text('class_names.txt', '\n'.join(CLASSES))
    self.convert(ignored=len(NAMES) * WIDTH)

  def test_cvat(self):
    self.pairs('JPEGImages/{}.jpg', 'SegmentationClass/{}.png', lambda label: COLORS[label])
    self.text('labelmap.txt', '# label:color_rgb:parts:actions\n' + ''.join(
        f'{name}:{",".join(map(str, color))}::\n' for name, color in zip(CLASSES, COLORS.tolist())))
    self.text('ImageSets/Segmentation/default.txt', '\n'.join(NAMES))
    self.convert()

  def test_roboflow(self):
    self.pairs('{}.rf.0a.jpg', '{}.rf.0a_mask.png')
    self.text('_classes.csv', 'Pixel Value, Class\n0, ground\n1, cat\n2, dog\n')
    self.convert()

  def test_supervisely(self):
    self.pairs('ds0/img/{}.jpg', 'ds0/masks_machine/{}.png', lambda label: np.stack([label] * 3, axis=2))
    self.text('meta.json', {'classes': [{'title': 'cat', 'color': '#FF0000', 'id': 987}]})
    self.text('obj_class_to_machine_color.json', {'cat': [1, 1, 1], 'dog': [2, 2, 2]})
    self.text('ds0/ann/c3.jpg.json', {'objects': []})
    self.convert(ignored=self.drawn.pop('ground'))

  def test_rgba_colours_with_their_names(self):
    self.pairs('stills/{}.png', 'labels/{}_L.png', lambda label: np.dstack(
        [COLORS[label], np.full(SIZE, 255, np.uint8)]))
    self.text('label_colors.txt', ''.join(
        f'{" ".join(map(str, color))}\t{name}\n' for name, color in zip(CLASSES, COLORS.tolist())))
    self.convert()

  def test_bmp_colours(self):
    self.pairs(labels='masks/{}.bmp', make=lambda label: COLORS[label],
               names=[f'class_{bytes(color).hex()}' for color in COLORS.tolist()])
    self.convert()

  def test_ids_in_three_channels_by_folders_of_splits(self):
    for split in ('train', 'val'):
      self.pairs(f'{split}/images/{split}{{}}.jpg', f'{split}/masks/{split}{{}}.png',
                 lambda label: np.stack([label] * 3, axis=2), ('class_0', 'class_1', 'class_2'))
    self.convert()

  def test_0_and_255(self):
    self.pairs(make=lambda label: np.uint8([0, 255, 255])[label], names=('class_0', 'class_255', 'class_255'))
    self.convert()

  def test_ids_of_16_bits(self):
    self.pairs(make=lambda label: np.uint16([0, 300, 65535])[label],
               names=('class_0', 'class_300', 'class_65535'))
    self.convert()

  def test_one_bit(self):
    self.pairs(make=lambda label: Image.fromarray(label > 0), names=('class_0', 'class_1', 'class_1'))
    self.convert()

  def test_coco_panoptic(self):
    annotations = {'train': [], 'val': []}
    for number, name in enumerate(NAMES):
      split = 'val' if number == 3 else 'train'
      self.photo(f'{split}2017/{name}.jpg')
      ids = np.array([0, 70000 + number, 5])[self.label()]
      png = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2).astype(np.uint8)
      self.write(f'data/annotations/panoptic_{split}2017/{name}.png', png)
      annotations[split].append({'file_name': f'{name}.png', 'image_id': number, 'segments_info': [
          {'id': 70000 + number, 'category_id': 9}, {'id': 5, 'category_id': 4}]})
    for split, items in annotations.items():
      self.text(f'annotations/panoptic_{split}2017.json', {'annotations': items, 'categories': [
          {'id': 4, 'name': 'dog'}, {'id': 9, 'name': 'cat'}]})
    self.convert(ignored=self.drawn.pop('ground'))

  def test_lists_of_two_columns(self):
    for separator in '\t, ':
      with self.subTest(separator=separator):
        self.setUp()
        lines = []
        for number, name in enumerate(NAMES):
          self.photo(f'x/{name}.jpg')
          self.write(f'data/y/{chr(113 + number)}.png', self.label(('class_0', 'class_1', 'class_2')))
          lines.append(f'x/{name}.jpg{separator}y/{chr(113 + number)}.png\n')
        self.text('train.txt', ''.join(lines[:3]))
        self.text('val.txt', lines[3])
        self.convert()


if __name__ == '__main__':
  unittest.main()
