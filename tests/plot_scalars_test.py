"""Scalars read back from event files, averaged and drawn."""
import contextlib
import io
import os
import tempfile
import unittest

from PIL import Image

from dataset import tf_records
from tests.support import run, write_events
from tools import plot_scalars, scalar_curves
from utils.errors import DataError, UsageError


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
      scalar_curves.read_scalar(self.folder, 'iou')

  def test_folder_without_event_files_is_an_error(self):
    with self.assertRaisesRegex(DataError, 'holds no event files'):
      scalar_curves.read_scalar(self.folder, 'loss')

  def test_what_comes_before_damage_is_used_and_a_line_says_so(self):
    write_events(self.folder, 'loss', range(10))
    path = os.path.join(self.folder, *os.listdir(self.folder))
    with open(path, 'rb') as file:
      whole = file.read()
    last = tf_records.whole_examples(path)[0]
    damaged = bytearray(whole)
    damaged[-10] ^= 1
    huge = whole + (1 << 40).to_bytes(8, 'little') + bytes(100)  # a length that TensorFlow may not survive
    for content, used in ((whole[:-5], last - 1), (bytes(damaged), last - 1), (huge, last),
                          (whole + b'x', last)):
      with open(path, 'wb') as file:
        file.write(content)
      with contextlib.redirect_stdout(io.StringIO()) as printed:
        steps, _ = scalar_curves.read_scalar(self.folder, 'loss')
      self.assertEqual(len(steps), 10 if used == last else 9)
      self.assertIn(f'is damaged or cut off; the {used} entries before are used', printed.getvalue())

  def test_folder_or_pipe_in_place_of_an_event_file_is_an_error(self):
    path = os.path.join(self.folder, 'events.out.tfevents.1')
    os.mkfifo(path)
    with self.assertRaisesRegex(DataError, 'it is a device or pipe'):
      scalar_curves.read_scalar(self.folder, 'loss')

  def test_names_that_would_be_formulas_are_drawn_as_they_are(self):
    folder = os.path.join(self.folder, '_a$^b$ $x_{')
    write_events(folder, 'lo$s', [1])
    run(plot_scalars, '--scalar', 'lo$s', '--output', os.path.join(self.folder, 'p.PNG'), folder)

  def test_names_that_no_font_has_the_letters_of_are_drawn_as_numbers(self):
    pictures = []
    for title, name in (('scalar', 'training 1'), ('\uffff', 'a/x\uffff'), ('скаляр', 'training 1')):
      path = os.path.join(self.folder, 'p.png')
      scalar_curves.draw(path, title, {name: ([1, 2], [3, 4])})
      with Image.open(path) as image:
        pictures.append(image.convert('RGB').tobytes())
    self.assertTrue(pictures[0] == pictures[1] != pictures[2])

  def test_picture_of_another_kind_is_a_usage_error(self):
    with self.assertRaisesRegex(UsageError, "p.xyz' cannot be written: Format 'xyz' is not supported .*png"):
      scalar_curves.draw(os.path.join(self.folder, 'p.xyz'), 'loss', {'a': ([1, 2], [3, 4])})
    self.assertEqual(os.listdir(self.folder), [])


if __name__ == '__main__':
  unittest.main()
