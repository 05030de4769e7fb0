"""commands/inference.py and commands/videos.py: what is written of images and videos."""
import argparse
import csv
import os

import cv2
import numpy as np
import pytest
from PIL import Image

import inference
from commands.inference import Writer
from commands.photos import Photo
from dataset import descriptors
from tests import support
from utils.errors import DataError, UsageError

pytestmark = pytest.mark.compat


class OutputsTest(support.ScriptsTest):

  def infer(self, *argv):
    """Returns (folder of the outputs, what was printed)."""
    out = self.temporary('out')
    return out, support.run(inference, '--model_dir', self.model, '--output_dir', out, *argv)

  def read(self, *parts):
    with Image.open(os.path.join(*parts)) as image:
      return np.asarray(image)

  def test_masks_probabilities_and_counts_agree(self):
    out, printed = self.infer('--input', f'{self.data}/JPEGImages', '--outputs', 'mask', 'probabilities',
                              'csv')
    self.assertIn(f'7 masks, 7 probabilities, classes.csv are in {out}', printed)
    with open(f'{out}/classes.csv', newline='', encoding='utf-8-sig') as file:
      rows = list(csv.reader(file))
    self.assertEqual(rows[0][:3], ['image', 'height', 'width'])
    self.assertEqual(len(rows), 8)
    for row in rows[1:]:
      name = os.path.splitext(os.path.basename(row[0]))[0]
      mask, probabilities = self.read(out, f'{name}_mask.png'), np.load(f'{out}/{name}_probabilities.npy')
      self.assertEqual((probabilities.dtype, probabilities.shape),
                       (np.float16, (*mask.shape, len(rows[0]) - 3)))
      np.testing.assert_allclose(probabilities.astype(float).sum(axis=2), 1, atol=2e-3)
      self.assertGreater((probabilities.argmax(axis=2) == mask).mean(), 0.99)  # float16 makes ties
      pixels = np.bincount(mask.ravel(), minlength=len(row) - 3)
      self.assertEqual(list(map(int, row[1:])), [*mask.shape, *pixels])
    self.assertNotIn('Note: ', printed)
    _, printed = self.infer('--input', f'{self.data}/JPEGImages/a.jpg')
    self.assertRegex(printed, f'Note: {out} holds 14 files .*this call, such as {out}/a_prob')

  def test_rows_of_the_counts_stand_in_the_order_of_the_images(self):
    args = argparse.Namespace(outputs=['csv'], overlay=False, explicit=(), output_dir=self.temporary('out'))
    os.mkdir(args.output_dir)
    writer = Writer(descriptors.DATASETS['cityscapes'], args)
    found = [Photo(name, name) for name in ('b.jpg', 'a#2.jpg', 'ü.mp4')]
    for photo, frame in ((found[2], 2), (found[1], 0), (found[2], 1), (found[0], 0)):  # as threads end
      writer.count(photo, np.zeros((2, 3), int), frame)
    writer.count(Photo('cut.avi', 'cut'), np.zeros((2, 3), int), 1)
    writer.forget(Photo('cut.avi', 'cut'))  # or there would be no place for it
    writer.finish(found)
    with open(f'{args.output_dir}/classes.csv', 'rb') as file:
      content = file.read()
    self.assertTrue(content.startswith(b'\xef\xbb\xbfimage,'))  # or Excel shows ü as two letters
    self.assertEqual([row.split(',')[0] for row in content.decode('utf-8-sig').splitlines()],
                     ['image', 'b.jpg', 'a#2.jpg', 'ü.mp4#1', 'ü.mp4#2'])

  def test_window_that_covers_the_image_changes_nothing_and_a_smaller_one_does(self):
    flags = ('--input', f'{self.data}/JPEGImages/a.jpg', '--outputs', 'probabilities')
    whole = np.load(self.infer(*flags)[0] + '/a_probabilities.npy')
    window = np.load(self.infer(*flags, '--sliding_window', 90, 90)[0] + '/a_probabilities.npy')
    np.testing.assert_allclose(window, whole, atol=1e-3)
    small = np.load(self.infer(*flags, '--sliding_window', 33, 17)[0] + '/a_probabilities.npy')
    self.assertEqual(small.shape, whole.shape)
    self.assertGreater(np.abs(small - whole).max(), 0.01)
    mixed = np.load(self.infer(*flags, '--eval_scales', 0.5, 1, '--flip')[0] + '/a_probabilities.npy')
    self.assertGreater(np.abs(mixed - whole).max(), 0.01)
    np.testing.assert_allclose(mixed.astype(float).sum(axis=2), 1, atol=2e-3)

  def test_video_comes_out_with_as_many_frames(self):
    path, size = os.path.join(self.folder, 'clip.avi'), (48, 32)
    out = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 5, size)
    for value in range(0, 250, 50):
      out.write(np.full((32, 48, 3), value, np.uint8))
    out.release()
    folder, printed = self.infer('--input', path, '--outputs', 'mask', 'overlay', 'csv')
    self.assertIn(f'1 videos, classes.csv are in {folder}', printed)
    self.assertEqual(sorted(os.listdir(folder)), ['classes.csv', 'clip_mask', 'clip_overlay.mp4'])
    self.assertEqual(sorted(os.listdir(f'{folder}/clip_mask')), [f'{n:06d}.png' for n in range(1, 6)])
    reader, frames = cv2.VideoCapture(f'{folder}/clip_overlay.mp4'), 0
    self.assertEqual(reader.get(cv2.CAP_PROP_FPS), 5)
    while reader.read()[0]:
      frames += 1
    self.assertEqual(frames, 5)

  def test_what_is_no_video_is_told_and_the_others_are_predicted(self):
    with open(os.path.join(self.folder, 'x.mp4'), 'w') as file:
      file.write('no video')
    with self.assertRaisesRegex(DataError, "1 of 2 images could not be predicted: video '.*x.mp4' is "
                                           'nothing that OpenCV reads'):
      self.infer('--input', os.path.join(self.folder, 'x.mp4'), f'{self.data}/JPEGImages/a.jpg')
    self.assertEqual(os.listdir(self.temporary('out')), ['a_mask.png'])

  def test_flags_that_say_nothing_are_refused(self):
    with self.assertRaisesRegex(UsageError, '--overlap would change nothing without --sliding_window'):
      self.infer('--input', self.data, '--overlap', 0.5)
