"""Event files cut back to a step."""
import os
import tempfile
import unittest

import pytest
import tensorflow.compat.v1 as tf

from training import event_files
from utils.errors import DataError

pytestmark = pytest.mark.compat


class CutTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = os.path.join(folder.name, 'a[b]')
    with tf.Graph().as_default():
      writer = tf.summary.FileWriter(self.folder, tf.get_default_graph())
    for step in (1, 3, 5, 7):
      writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag='loss', simple_value=step)]), step)
    writer.close()
    self.path, = (os.path.join(self.folder, name) for name in os.listdir(self.folder))

  def steps(self):
    return [event.step for event in tf.train.summary_iterator(self.path) if event.HasField('summary')]

  def test_later_points_go_and_the_graph_stays(self):
    event_files.cut(self.folder, lambda event: event.step <= 4)
    self.assertEqual(self.steps(), [1, 3])
    self.assertEqual(sum(bool(event.graph_def) for event in tf.train.summary_iterator(self.path)), 1)

  def test_nothing_changes_where_all_is_past(self):
    size = os.path.getsize(self.path)
    event_files.cut(self.folder, lambda event: event.step <= 7)
    self.assertEqual(os.path.getsize(self.path), size)

  def test_half_written_event_is_cut_off(self):
    with open(self.path, 'r+b') as file:
      file.truncate(os.path.getsize(self.path) - 3)
    event_files.cut(self.folder, lambda event: event.step <= 7)
    self.assertEqual(self.steps(), [1, 3, 5])

  def test_zeros_and_lengths_that_cannot_be_are_cut_off_at_once(self):
    size = os.path.getsize(self.path)
    for end in b'', (1 << 33).to_bytes(8, 'little'):
      with open(self.path, 'ab') as file:
        file.write(end)
        file.truncate(10 << 30)  # of which the disk holds nothing
      event_files.cut(self.folder, lambda event: True)
      self.assertEqual(os.path.getsize(self.path), size)

  def test_pipe_is_not_waited_for(self):
    os.mkfifo(os.path.join(self.folder, 'events.out.tfevents.9'))
    with self.assertRaisesRegex(DataError, "event file '.*9' cannot be read: it is a device or pipe"):
      event_files.cut(self.folder, lambda event: False)

  def test_link_to_another_file_is_left_alone(self):
    other = os.path.join(os.path.dirname(self.folder), 'other')
    os.rename(self.path, other)
    os.symlink(other, self.path)
    size = os.path.getsize(other)
    event_files.cut(self.folder, lambda event: False)
    self.assertEqual(os.path.getsize(other), size)

  def test_missing_folder_has_nothing_to_cut(self):
    event_files.cut(self.folder + 'x', lambda event: False)


if __name__ == '__main__':
  unittest.main()
