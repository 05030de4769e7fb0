"""dataset/lists.py: what the lines of lists mean."""
import contextlib
import io
import os
import tempfile
import unicodedata
import unittest

from dataset import lists
from utils.errors import DataError


class ListsTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def file(self, name, content=b''):
    path = os.path.join(self.folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
      file.write(content)
    return path

  def test_lines_are_stripped_and_blank_ones_skipped(self):
    path = self.file('list.txt', '\ufeffa\r\n\n b c \n  \nd'.encode())
    self.assertEqual(lists.read_list(path), ['a', 'b c', 'd'])

  def test_unusable_list_is_an_error_that_names_it(self):
    wrong = {'is empty': b'\n \n', 'is no UTF-8': b'\xff\xfe', 'is no text': b'a\0b',
             'is no UTF-8 text': 'ab\n'.encode('utf-16'), 'is no text: it holds': 'ab\n'.encode('utf-16-le')}
    for sentence, content in wrong.items():
      path = self.file('list.txt', content)
      with self.subTest(sentence), self.assertRaisesRegex(DataError, f"list.txt' {sentence}"):
        lists.read_list(path)
    with self.assertRaisesRegex(DataError, "none.txt' cannot be read"):
      lists.read_list(os.path.join(self.folder, 'none.txt'))

  def test_list_that_is_no_file_or_has_gigabytes_of_holes_is_refused_at_once(self):
    pipe, large = os.path.join(self.folder, 'pipe'), self.file('large.txt')
    os.mkfifo(pipe)
    os.truncate(large, 10 << 30)
    for path, sentence in ((pipe, 'it is a device or pipe'), ('/dev/zero', 'it is a device or pipe'),
                           (self.folder, 'it is a folder'), (large, 'is no text: it holds the byte 0')):
      with self.subTest(path), self.assertRaisesRegex(DataError, f"list '{path}' (.* )?{sentence}"):
        lists.read_list(path)

  def test_repeated_lines_count_once_and_are_told(self):
    path, out = self.file('list.txt', b'b\na\nb\nc\na\n'), io.StringIO()
    with contextlib.redirect_stdout(out):
      self.assertEqual(lists.read_list(path), ['b', 'a', 'c'])
    self.assertEqual(out.getvalue(),
                     f"Note: list '{path}' holds 2 lines more than once, such as 'b'; each counts once\n")

  def test_every_kind_of_line_end_is_taken(self):
    self.assertEqual(lists.read_list(self.file('list.txt', b'a\rb\r\nc\n')), ['a', 'b', 'c'])

  def test_image_is_found_with_and_without_extension(self):
    jpg, png = self.file('a.jpg'), self.file('b.png')
    self.file('a.png')
    self.assertEqual(lists.find_image(self.folder, 'a'), jpg)  # .jpg wins
    self.assertEqual(lists.find_image(self.folder, 'a.jpg'), jpg)
    self.assertEqual(lists.find_image(self.folder, 'b'), png)
    self.assertEqual(lists.find_image(self.folder, 'b.png'), png)

  def test_first_word_is_used_unless_the_whole_line_is_a_file(self):
    first, whole = self.file('a.jpg'), self.file('a 1.jpg')
    self.assertEqual(lists.find_image(self.folder, 'a -1'), first)
    self.assertEqual(lists.find_image(self.folder, 'a 1'), whole)

  def test_image_that_is_missing_or_ambiguous_is_an_error(self):
    self.file('a.png')
    self.file('a.bmp')
    with self.assertRaisesRegex(DataError, r"'a' could be .*a\.png or .*a\.bmp; keep one"):
      lists.find_image(self.folder, 'a')
    with self.assertRaisesRegex(DataError, "image 'b' is not in"):
      lists.find_image(self.folder, 'b')
    with self.assertRaisesRegex(DataError, "image folder '.*none' does not exist"):
      lists.find_image(os.path.join(self.folder, 'none'), 'a')

  def test_pairs_have_the_images_stem_below_the_label_folder(self):
    images, labels = os.path.join(self.folder, 'images'), os.path.join(self.folder, 'labels')
    expected = [(self.file('images/town/x.0.jpg'), self.file('labels/town/x.0.png')),
                (self.file('images/y.bmp'), self.file('labels/y.png'))]
    self.assertEqual(lists.find_pairs(images, labels, ['town/x.0', 'y.bmp']), expected)

  def test_missing_label_is_an_error_that_names_it(self):
    self.file('images/a.jpg')
    images, labels = os.path.join(self.folder, 'images'), os.path.join(self.folder, 'labels')
    os.mkdir(labels)
    with self.assertRaisesRegex(DataError, r"label '.*labels/a\.png' of image '.*a\.jpg'"):
      lists.find_pairs(images, labels, ['a'])

  def test_all_that_is_missing_is_told_together(self):
    self.file('images/a.jpg')
    self.file('images/b.png')
    self.file('labels/b.png')
    images, labels = os.path.join(self.folder, 'images'), os.path.join(self.folder, 'labels')
    pairs, problems = lists.match_pairs(lists.Folders([images], [labels]), ['a', 'b', 'c'])
    self.assertEqual([pair.name for pair in pairs], ['b.png'])
    self.assertEqual(len(problems), 2)
    with self.assertRaisesRegex(DataError, r"(?s)labels/a\.png' of image.*\nimage 'c' is not in"):
      lists.find_pairs(images, labels, ['a', 'b', 'c'])
    with self.assertRaisesRegex(DataError, "label folder '.*none' does not exist"):
      lists.find_pairs(images, os.path.join(self.folder, 'none'), ['a'])

  def test_two_lines_with_one_label_are_a_problem(self):
    self.file('images/a.jpg')
    self.file('images/a.png')
    self.file('labels/a.png')
    images, labels = os.path.join(self.folder, 'images'), os.path.join(self.folder, 'labels')
    for line in ('a', 'a.png', 'a 2'):
      pairs, (problem,) = lists.match_pairs(lists.Folders([images], [labels]), ['a.jpg', line])
      self.assertEqual(len(pairs), 1)
      self.assertRegex(problem, rf"'a\.jpg' and '{line}' both have the label")

  def match(self, lines, images=('images',), labels=('labels',), affixes=()):
    """Returns [(image, label, name)] of the pairs, below the folder, and the problems."""
    folders = lists.Folders([os.path.join(self.folder, name) for name in images],
                            [os.path.join(self.folder, name) for name in labels], lists.Affixes(*affixes))
    pairs, problems = lists.match_pairs(folders, lines)
    return [(*(os.path.relpath(path, self.folder) for path in pair[:2]), pair.name)
            for pair in pairs], problems

  def test_second_column_names_the_label(self):
    for name in ('images/a b.jpg', 'images/c.png', 'images/a.jpg', 'labels/x y.png', 'labels/deep/c.bmp',
                 'labels/a.png'):
      self.file(name)
    for separator in ('\t', ', ', ' ', '   '):
      lines = [f'a b.jpg{separator}x y.png', f'/images/c{separator}/labels/deep/c', f'a{separator}1']
      self.assertEqual(self.match(lines), ([
          ('images/a b.jpg', 'labels/x y.png', 'a b.jpg'), ('images/c.png', 'labels/deep/c.bmp', 'c.png'),
          ('images/a.jpg', 'labels/a.png', 'a.jpg')], []), separator)
    pairs, (problem,) = self.match(['a.jpg missing/b.png'])
    self.assertEqual(pairs, [])
    self.assertRegex(problem, r"label 'missing/b\.png', which the list gives image '.*a\.jpg', is not in ")

  def test_affixes_may_be_on_either_side_and_extensions_of_any_spelling(self):
    for name in ('images/rgb_a b.JPG', 'labels/a b-mask.PNG', 'labels/a b.png'):
      self.file(name)
    self.assertEqual(self.match(['rgb_a b'], affixes=lists.Affixes('rgb_', '', '', '-mask')),
                     ([('images/rgb_a b.JPG', 'labels/a b-mask.PNG', 'rgb_a b.JPG')], []))
    _, (problem,) = self.match(['rgb_a b'], affixes=lists.Affixes('', '_x', '', ''))
    self.assertRegex(problem, "does not have the name that --image_prefix '' and --image_suffix '_x' ask for")

  def test_names_of_windows_are_taken_where_there_is_no_such_file(self):
    for name in ('images/a/x.jpg', 'images/y\\z.jpg', 'images/y/z.jpg', 'labels/a/x.png', 'labels/y\\z.png',
                 'labels/deep/w.png', 'images/w.jpg'):
      self.file(name)
    found, problems = self.match(['a\\x', 'y\\z.jpg', 'images\\w.jpg\tlabels\\deep\\w.png'])
    self.assertEqual((found, problems), ([
        ('images/a/x.jpg', 'labels/a/x.png', 'a/x.jpg'), ('images/y\\z.jpg', 'labels/y\\z.png', 'y\\z.jpg'),
        ('images/w.jpg', 'labels/deep/w.png', 'w.jpg')], []))
    images = os.path.join(self.folder, 'images')
    self.assertEqual(lists.find_listed(images, 'a\\x.jpg'), os.path.join(images, 'a/x.jpg'))
    self.assertIsNone(lists.find_listed(images, 'a\\x'))
    _, (problem,) = self.match(['images\\w.jpg\tno\\w.png'])
    self.assertRegex(problem, r"label 'no\\w.png', which the list gives")

  def test_extensions_of_one_format_are_all_taken(self):
    for number, extension in enumerate(('.jfif', '.JPE', '.jif', '.pjpeg', '.Pjp', '.dib')):
      self.file(f'images/{number}{extension}')
      self.file(f'labels/{number}.PNG')
      self.assertEqual(self.match([str(number)])[0][0][0], f'images/{number}{extension}')
    self.assertTrue(lists.has_extension('a/b.jPg', lists.IMAGE_EXTENSIONS))
    self.assertFalse(lists.has_extension('a/.b.jpg', lists.IMAGE_EXTENSIONS))

  def test_labels_of_every_extension_are_found_but_not_the_image_itself(self):
    for name in ('all/a.jpg', 'all/b.jpg', 'all/b.json', 'all/c.png', 'all/c.gif', 'all/d.jpg', 'all/d.jpeg'):
      self.file(name)
    found, problems = self.match(['a.jpg', 'b.jpg', 'c.png', 'd.jpg'], ('all',), ('all',))
    self.assertEqual([label for _, label, _ in found], ['all/b.json', 'all/c.gif', 'all/d.jpeg'])
    self.assertRegex(problems[0], r"label '.*all/a\.png' of image '.*all/a\.jpg' does not exist")

  def test_folders_of_labels_follow_those_of_images(self):
    for name in ('one/images/1.jpg', 'two/images/1.jpg', 'one/masks/1.png', 'two/masks/1.png'):
      self.file(name)
    found, problems = self.match(['one/images/1.jpg', 'two/images/1.jpg'], ('one/images', 'two/images'),
                                 ('one/masks', 'two/masks'))
    self.assertEqual((found, problems), ([
        ('one/images/1.jpg', 'one/masks/1.png', 'one/images/1.jpg'),
        ('two/images/1.jpg', 'two/masks/1.png', 'two/images/1.jpg')], []))

  def test_composed_and_decomposed_names_are_one(self):
    composed, decomposed = (unicodedata.normalize(form, 'Zürich') for form in ('NFC', 'NFD'))
    self.assertNotEqual(composed, decomposed)
    self.file(f'images/{decomposed}.jpg')
    self.file(f'labels/{composed}.png')
    self.assertEqual(self.match([composed])[0][0][:2],
                     (f'images/{decomposed}.jpg', f'labels/{composed}.png'))

  def test_image_of_two_splits_is_an_error_unless_it_is_the_only_one(self):
    one, two = (lists.Pair(self.file(f'{name}.jpg'), '', None, f'{name}.jpg') for name in 'ab')
    lists.check_apart({'train': ([one], []), 'val': ([two], [])})
    lists.check_apart({'train': ([one], []), 'val': ([one], [])})
    with self.assertRaisesRegex(DataError, "^1 images are both in train and in val, such as 'b.jpg'"):
      lists.check_apart({'train': ([one, two], []), 'val': ([two], [])})


if __name__ == '__main__':
  unittest.main()
