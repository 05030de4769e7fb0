"""The report of evaluate.py: its files by hand, and its page in headless Chromium."""
import csv
import glob
import json
import os
import re
import shutil
import subprocess
import unittest
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

import evaluate
from commands import evaluation_report
from dataset import descriptors, schema
from tests import support
from tests.color_model import EvaluateTest, read_index, write_model, write_photo
from tests.support import run
from utils.errors import UsageError

_CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
_FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
          '--disable-background-networking', '--disable-component-update', '--disable-sync',
          '--virtual-time-budget=20000')
# What a reader would do: wait for the pictures, and press buttons; what is seen is written into the page.
_READER = '''
<script>
addEventListener('load', () => {
  const names = () => [...document.querySelectorAll('#images figure')].map(card => card.dataset.name);
  const classes = () => [...document.querySelectorAll('#classes tr')].slice(1).map(
    row => Number(row.children[0].dataset.value));
  const pictures = [...document.images];
  const seen = {pictures: pictures.length, loaded: pictures.filter(one => one.naturalWidth > 1).length,
                wide: document.documentElement.scrollWidth > innerWidth, begin: names()};
  for (const button of document.querySelectorAll('button')) {
    button.click();
    seen[button.textContent] = names();
  }
  const head = [...document.querySelectorAll('th')].find(one => one.textContent == 'pixels');
  head.click();
  seen.most = classes();
  head.click();
  seen.least = classes();
  const place = document.createElement('pre');
  place.id = 'seen';
  place.textContent = JSON.stringify(seen);
  document.body.append(place);
});
</script>
'''


class ReportTest(EvaluateTest):
  dataset = descriptors.from_json(
      {'name': 'odd <set>', 'class_names': ['ground', 'cat & <b>dog</b>', 'nothing', '=sea'],
       'palette': [[10, 20, 30], [200, 0, 0], [0, 0, 200], [0, 90, 90]], 'ignore_label': 255}, 'a test')

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    rng = np.random.RandomState(11)
    cls.names = ['b', 'a "x"', 'sub/<i>c', 'd', 'void']
    os.makedirs(f'{cls.folder}/labels/sub')
    for index, name in enumerate(cls.names):
      size = (33 + index, 400 if name == 'd' else 41)
      write_photo(f'{cls.folder}/images/{name}.png', size, rng)
      label = rng.choice([0, 1, 3, 255], size).astype(np.uint8)
      Image.fromarray(np.full_like(label, 255) if name == 'void' else label).save(
          f'{cls.folder}/labels/{name}.png')
    with open(f'{cls.folder}/val.txt', 'w') as file:
      file.write('\n'.join(cls.names))

  def evaluate(self, *argv):
    return run(evaluate, '--model_dir', self.model, '--image_data_dir', f'{self.folder}/images',
               '--label_data_dir', f'{self.folder}/labels', '--evaluation_data_list',
               f'{self.folder}/val.txt', *argv)

  def read_csv(self, folder, name):
    with open(os.path.join(folder, name), newline='', encoding='utf-8-sig') as file:
      return list(csv.reader(file))

  def test_files_hold_what_is_counted_by_hand(self):
    report, output = self.temporary('report'), self.temporary('predictions')
    self.evaluate('--report', report, '--save_predictions', output)
    self.assertEqual(sorted(os.listdir(report)), sorted(evaluation_report.NAMES))
    head, *rows = self.read_csv(report, 'per_image.csv')
    self.assertEqual(head, ['name', 'IoU', 'accuracy', 'pixels', *self.dataset.class_names])
    self.assertEqual([row[0] for row in rows], self.names)
    total = np.zeros((4, 4), int)
    for row in rows:
      label, classes = read_index(f'{self.folder}/labels/{row[0]}.png'), read_index(f'{output}/{row[0]}.png')
      valid = label != 255
      np.add.at(total, (label[valid], classes[valid]), 1)
      self.assertEqual(int(row[3]), valid.sum())
      if not valid.any():
        self.assertEqual(row[1:], ['', '', '0', '', '', '', ''])
        continue
      self.assertAlmostEqual(float(row[2]), (label == classes)[valid].mean(), places=6)
      ious = []
      for value in range(4):
        is_true, is_found = (label == value) & valid, (classes == value) & valid
        union = (is_true | is_found).sum()
        iou = (is_true & is_found).sum() / max(union, 1)
        ious += [iou] if is_true.any() else []
        self.assertEqual(row[4 + value], f'{iou:.6f}' if union else '')
      self.assertAlmostEqual(float(row[1]), np.mean(ious), places=6)
    head, *rows = self.read_csv(report, 'confusion_matrix.csv')
    self.assertEqual(head[1:], [row[0] for row in rows])
    self.assertEqual([list(map(int, row[1:])) for row in rows], total.tolist())
    with open(f'{report}/scores.json') as file:
      found = json.load(file)
    self.assertEqual((found['step'], found['images'], found['confusion_matrix']), (1, 5, total.tolist()))

  def test_page_is_one_file_and_escapes_names(self):
    report = self.temporary('report')
    self.evaluate('--report', report, '--report_images', 1)
    with open(f'{report}/index.html', encoding='utf-8') as file:
      page = file.read()
    self.assertEqual(len(re.findall('<figure', page)), 2)
    self.assertEqual(re.findall(r'(?:src|href)="(?!data:image/(?:png|jpeg);base64,)', page), [])
    self.assertNotIn('<b>dog', page)
    self.assertIn('cat &amp; &lt;b&gt;dog&lt;/b&gt;', page)
    self.assertIn('odd &lt;set&gt;', page)
    self.assertIn('The 2 worst and best of 5 images', page)

  @unittest.skipUnless(_CHROMIUM, 'there is no Chromium to look at the page with')
  def test_page_loads_in_chromium_shows_its_pictures_and_sorts(self):
    report, profile = self.temporary('report'), self.temporary('profile')
    self.evaluate('--report', report)
    scored = [row for row in self.read_csv(report, 'per_image.csv')[1:] if row[1]]
    rising = [row[0] for row in sorted(scored, key=lambda row: float(row[1]))]
    with open(f'{report}/index.html', 'a', encoding='utf-8') as file:
      file.write(_READER)
    answer = subprocess.run([_CHROMIUM, *_FLAGS, f'--user-data-dir={profile}', '--window-size=1500,1200',
                             '--dump-dom', f'file://{report}/index.html'], capture_output=True, text=True,
                            timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', answer.stdout, re.S)
    self.assertTrue(found, answer.stderr[-2000:])
    seen = json.loads(found[1].replace('&lt;', '<').replace('&gt;', '>').replace('&amp;', '&'))
    self.assertEqual((seen['pictures'], seen['loaded']), (4 * 4 + 1, 4 * 4 + 1))
    self.assertFalse(seen['wide'])
    self.assertEqual(seen['begin'], rising)
    self.assertEqual(seen['lowest IoU first'], rising)
    self.assertEqual(seen['highest IoU first'], rising[::-1])
    self.assertEqual(seen['by name'], sorted(rising))
    with open(f'{report}/scores.json') as file:
      pixels = [one['pixels'] for one in json.load(file)['classes'].values()]
    self.assertEqual([pixels[number] for number in seen['most']], sorted(pixels, reverse=True))
    self.assertEqual([pixels[number] for number in seen['least']], sorted(pixels))

  def test_pictures_show_truth_prediction_and_errors(self):
    gallery, output = evaluation_report.Gallery(2), self.temporary('predictions')
    with mock.patch.object(evaluation_report, 'Gallery', lambda number: gallery):
      self.evaluate('--report', self.temporary('report'), '--save_predictions', output)
    for example in gallery.examples:
      name = example.scores.name
      label = read_index(f'{self.folder}/labels/{name}.png')
      if name == 'd':  # reduced to 320 pixels of 400
        self.assertEqual((example.photo.shape, example.label.shape), ((29, 320, 3), (29, 320)))
        continue
      np.testing.assert_array_equal(example.label, label)
      np.testing.assert_array_equal(example.classes, read_index(f'{output}/{name}.png'))
      np.testing.assert_array_equal(example.photo, Image.open(f'{self.folder}/images/{name}.png'))

  def test_records_without_names_are_called_by_their_places(self):
    records, report = self.temporary('records'), self.temporary('report')
    os.makedirs(records)
    example = tf.train.Example.FromString(support.encode_example(
        f'{self.folder}/images/b.png', f'{self.folder}/labels/b.png', self.dataset))
    del example.features.feature[schema.IMAGE_FILENAME]
    with tf.io.TFRecordWriter(f'{records}/val.record') as writer:
      writer.write(example.SerializeToString())
    run(evaluate, '--model_dir', self.model, '--data_dir', records, '--report', report)
    self.assertRegex(self.read_csv(report, 'per_image.csv')[1][0], r'^example 0 .*val\.record')

  def test_report_of_several_checkpoints_is_that_of_the_best(self):
    model, report = self.temporary('model'), self.temporary('report')
    write_model(model, self.dataset, (1, 2, 3))
    printed = self.evaluate('--model_dir', model, '--all_checkpoints', '--report', report)
    with open(f'{report}/scores.json') as file:
      self.assertIn(f'The best of 3 is step {json.load(file)["step"]},', printed)

  def test_what_is_no_report_is_not_replaced(self):
    report = self.temporary('report')
    os.mkdir(report)
    for name, message in (('index.html', 'which is no page of this tool'),
                          ('per_image.csv', 'is of no report')):
      with open(f'{report}/{name}', 'w') as file:
        file.write('mine')
      with self.subTest(name), self.assertRaisesRegex(UsageError, message):
        self.evaluate('--report', report)
      os.remove(f'{report}/{name}')
    for _ in range(2):
      self.evaluate('--report', report)
    self.assertFalse(glob.glob(f'{report}/*.tmp'))

  def test_flags_that_need_or_exclude_each_other(self):
    for message, argv in (('--report_images would change nothing without --report', ('--report_images', '3')),
                          ('leaves nothing to score', ('--label_data_dir', 'none', '--report', 'x'))):
      with self.subTest(message), self.assertRaisesRegex(UsageError, message):
        self.evaluate(*argv)


if __name__ == '__main__':
  unittest.main()
