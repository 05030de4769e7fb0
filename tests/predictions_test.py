"""Where predictions are written: never outside their folder, never over what is read."""
import os
import tempfile
import unittest

from dataset import predictions
from utils import files
from utils.errors import DataError, UsageError


class OutputPathsTest(unittest.TestCase):

  def test_names_from_elsewhere_cannot_leave_the_folder(self):
    for name in ('../x', 'a/../../x', '/x', 'a/..', '..', 'a\0b', '../out/x', 'a/b/../../../x'):
      with self.subTest(name), self.assertRaisesRegex(DataError, 'lies outside the folder of all images'):
        predictions.output_paths('out', [name], None, 'val')

  def test_submissions_take_the_last_part_of_a_name(self):
    path, = predictions.output_paths('out', ['/a/../../x'], 'voc', 'val')
    self.assertEqual(path, 'out/results/VOC2012/Segmentation/comp6_val_cls/x.png')
    path, = predictions.output_paths('out', ['../../aachen_000000_000019_leftImg8bit'], 'cityscapes', 'val')
    self.assertEqual(path, 'out/aachen_000000_000019_pred_labelIds.png')

  def test_odd_names_stay_as_they_are(self):
    for name in ('a b', "it's %s [1]*?", '-x', '..x', 'x..', 'é/空', 'a\\b', 'a\nb'):
      self.assertEqual(predictions.output_paths('out', [name], None, 'val'), [f'out/{name}.png'])

  def test_two_spellings_of_one_path_are_told(self):
    with self.assertRaisesRegex(DataError, "'a/x' and 'a//./x', would both be written"):
      predictions.output_paths('out', ['a/x', 'a//./x'], None, 'val')


class CheckOutputsTest(unittest.TestCase):

  def test_what_is_read_is_not_written_over_by_any_path(self):
    with tempfile.TemporaryDirectory() as folder:
      image, link = os.path.join(folder, 'a.png'), os.path.join(folder, 'link')
      open(image, 'w').close()
      os.symlink(folder, link)
      for output in (image, os.path.join(link, 'a.png'), os.path.join(folder, 'b', '..', 'a.png')):
        with self.subTest(output), self.assertRaisesRegex(UsageError, "--out would write over '.*a.png'"):
          files.check_outputs([os.path.join(folder, 'b.png'), output], [image], '--out')
      files.check_outputs([os.path.join(folder, 'b.png')], [image], '--out')

  def test_json_replaces_json_alone(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'a.json')
      files.check_json_output(path, '--json')
      files.write_json(path, {'a': 1})
      files.check_json_output(path, '--json')
      files.check_json_output(None, '--json')
      for content in ('a\nb\n', '{'):
        with open(path, 'w') as file:
          file.write(content)
        with self.assertRaisesRegex(UsageError, '--json would write over what is no JSON'):
          files.check_json_output(path, '--json')

  def test_devices_are_written_to_and_stay(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'null')
      os.symlink('/dev/null', path)  # a link, so that no harm is done where this fails
      files.make_folder_of(path, '--json')
      files.check_json_output(path, '--json')
      files.write_json(path, {})
      self.assertEqual(os.readlink(path), '/dev/null')
      pipe = os.path.join(folder, 'pipe')
      os.mkfifo(pipe)
      for other in (folder, pipe):  # nobody reads the pipe
        with self.assertRaises(OSError), files.replacing(other):
          self.fail('opened')


if __name__ == '__main__':
  unittest.main()
