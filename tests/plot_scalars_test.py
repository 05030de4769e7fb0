"""Scalars read back from event files, averaged and drawn."""
import os
import tempfile
import unittest

import tensorflow.compat.v1 as tf
from PIL import Image

from tests.scripts_test import run
from tools import plot_scalars
from utils.errors import DataError


def write_events(folder, name, values):
  """Writes an event file with values[i] at step 10 * i."""
  with tf.Graph().as_default():
    writer = tf.summary.FileWriter(folder)
    for index, value in enumerate(values):
      writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=value)]), 10 * index)
    writer.close()


class PlotScalarsTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def test_curves_are_drawn_and_their_ends_printed(self):
    for name, values in (('a', [8, 4, 2, 1, 3]), ('b', [5, 7])):
      write_events(os.path.join(self.folder, name), 'cross_entropy', values)
    folders, picture = [os.path.join(self.folder, name) for name in 'ab'], os.path.join(self.folder, 'p.png')
    printed = run(plot_scalars, '--window', 3, '--output', picture, *folders)
    self.assertIn(f'{folders[0]}: cross_entropy 4.6667 at step 20, 2.0000 at step 40', printed)
    self.assertIn(f'{folders[1]}: cross_entropy 6.0000 at step 10, 6.0000 at step 10', printed)
    with Image.open(picture) as image:
      self.assertEqual(image.size, (840, 480))

  def test_missing_scalar_is_named_with_those_that_are_there(self):
    write_events(self.folder, 'loss', [1])
    with self.assertRaisesRegex(DataError, "no scalar 'iou'; they hold loss"):
      plot_scalars.read_scalar(self.folder, 'iou')

  def test_folder_without_event_files_is_an_error(self):
    with self.assertRaisesRegex(DataError, 'holds no event files'):
      plot_scalars.read_scalar(self.folder, 'loss')


if __name__ == '__main__':
  unittest.main()
