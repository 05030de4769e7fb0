"""Files that are never half written, and files that are refused before they are read."""
import json
import os
import tempfile
import unittest

from utils import files
from utils.errors import DataError, UsageError


class FilesTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def path(self, name, content=None):
    path = os.path.join(self.folder, name)
    if content is not None:
      with open(path, 'wb') as file:
        file.write(content)
    return path

  def test_file_is_replaced_on_success_alone(self):
    path = self.path('a', b'old')
    with self.assertRaises(KeyError), files.replacing(path) as temporary:
      with open(temporary, 'w') as file:
        file.write('half')
      raise KeyError
    self.assertEqual(files.read_text(path, 'a'), 'old')
    with files.replacing(path) as temporary:
      with open(temporary, 'w') as file:
        file.write('new')
    self.assertEqual(files.read_text(path, 'a'), 'new')
    self.assertEqual(os.listdir(self.folder), ['a'])

  def test_device_is_written_to_and_a_folder_is_an_error(self):
    with files.replacing('/dev/null') as path:
      self.assertEqual(path, '/dev/null')
    with self.assertRaises(OSError), files.replacing(self.folder):
      pass

  def test_json_is_read_as_it_was_written(self):
    path = self.path('a.json')
    files.write_json(path, {'a': [1, None, 'ü']})
    self.assertEqual(files.read_json(path, path), {'a': [1, None, 'ü']})
    with open(path) as file:
      self.assertEqual(json.load(file), {'a': [1, None, 'ü']})

  def test_what_is_no_json_or_no_file_is_named(self):
    os.mkfifo(self.path('pipe'))
    for path in (self.path('a', b'{'), self.path('b', b'\xff\xfe'), self.path('missing'), self.folder,
                 self.path('pipe'), '/dev/zero', self.path('deep', b'[' * 100000)):
      with self.subTest(path), self.assertRaisesRegex(DataError, 'the file of the test'):
        files.read_json(path, 'the file of the test')

  def test_larger_file_than_allowed_is_refused_unread(self):
    with self.assertRaisesRegex(DataError, 'a list'):
      files.read_text(self.path('a', b'12345'), 'a list', limit=4)
    self.assertEqual(files.read_text(self.path('a', b'1234'), 'a list', limit=4), '1234')

  def test_own_file_may_have_any_size_but_no_holes(self):
    path = self.path('own.json')
    own = {'names': 'ü' * 3_000_000}
    files.write_json(path, own)
    self.assertEqual(files.read_json(path, 'own', None), own)
    with self.assertRaisesRegex(DataError, 'own has .* bytes, and up to 16,777,216 are allowed'):
      files.read_json(path, 'own')
    files.check_json_output(path, '--json')
    os.truncate(path, 1 << 40)
    with self.assertRaisesRegex(DataError, 'own is no text: it holds the byte 0'):
      files.read_json(path, 'own', None)

  def test_output_does_not_take_the_place_of_what_is_read_or_is_something_else(self):
    path = self.path('a', b'text')
    os.symlink(path, self.path('link'))
    with self.assertRaisesRegex(UsageError, "--output would write over '.*link', which is read"):
      files.check_outputs([self.path('new'), self.path('link')], [path], '--output')
    files.check_outputs([self.path('new')], [path], '--output')
    with self.assertRaisesRegex(UsageError, '--json would write over what is no JSON'):
      files.check_json_output(path, '--json')
    for allowed in (None, self.path('new'), self.path('old.json', b'{}')):
      files.check_json_output(allowed, '--json')

  def test_folder_below_a_file_is_named_with_its_flag(self):
    path = self.path('a', b'')
    with self.assertRaisesRegex(DataError, '--output_dir .*/a/b cannot be written to'):
      files.make_folder(os.path.join(path, 'b'), '--output_dir')
    files.make_folder_of(self.path('c/d/e.json'), '--json')
    self.assertEqual(os.listdir(self.path('c')), ['d'])

  def test_csv_is_what_excel_reads_and_names_need_not_be_text(self):
    path = self.path('new')
    files.write_csv(path, [['Straße', '猫, "x"'], ['\udcff', 1]])
    self.assertEqual(files.read_bytes(path, path, 100), b'\xef\xbb\xbf' + (
        'Straße,"猫, ""x"""\r\n\\udcff,1\r\n').encode())
    self.assertEqual(files.read_text(path, path)[:6], 'Straße')


if __name__ == '__main__':
  unittest.main()
