"""Which images inference.py takes, and where their masks go."""
import contextlib
import io
import os
import tempfile
import unittest

from commands import photos
from utils.errors import DataError


class FindPhotosTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.addCleanup(os.chdir, os.getcwd())
    os.chdir(folder.name)
    for path in ('p/a.jpg', 'p/b.PNG', 'p/x/a.jpg', 'p/x/y/[1].tif', 'p/.h/a.jpg', 'p/.a.jpg', 'p/n.txt',
                 'p/raw', 'p/out/old.png', 'q/a.gif'):
      os.makedirs(os.path.dirname(path), exist_ok=True)
      open(path, 'w').close()
    os.symlink('..', 'p/x/up')
    os.symlink('../q', 'p/q')
    os.makedirs('empty')

  def found(self, *given):
    """Returns {output: path} of --input, and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      found = photos.find_photos(given, 'p/out')
    self.assertEqual(len(found), len({photo.output for photo in found}))
    return {photo.output: photo.path for photo in found}, printed.getvalue()

  def test_folder_gives_its_images_and_says_what_it_leaves_out(self):
    images = {'a': 'p/a.jpg', 'b': 'p/b.PNG', 'x/a': 'p/x/a.jpg', 'x/y/[1]': 'p/x/y/[1].tif'}
    for given in (('p',), ('p/',), ('./p', 'p'), ('p', 'p/a.jpg')):
      found, printed = self.found(*given)
      self.assertEqual(found, images)
      self.assertRegex(printed, 'Left out of the folders: [36] file.s. .*.gif, .txt, none.; give the files')

  def test_outputs_of_others_are_left_out_and_told(self):
    outputs = ('p/two/x/a_mask.png', 'p/two/b_overlay.png', 'p/b_mask.png', 'p/b_mask_mask.png',
               'p/v_overlay.mp4', 'p/two/v_mask/000001.png')
    photos_ = ('p/v.avi', 'p/face_mask.png', 'p/face_mask/000001.png', 'p/v_mask/1.png', 'p/a_masks.png')
    for path in (*outputs, *photos_):
      os.makedirs(os.path.dirname(path), exist_ok=True)
      open(path, 'w').close()
    for given, number in ((['p'], 6), (['p/**/*.*'], 6), (['p/two', 'p/x/a.jpg', 'p/v.avi', 'p/b.PNG'], 3),
                          (['p/b_mask.png', 'p/b.PNG'], 1)):
      with self.subTest(given):
        found, printed = self.found(*given)
        self.assertEqual(set(found.values()) & set(outputs), set())
        self.assertRegex(printed, f'Left out: {number} file.s. that are outputs of the others by their name')
        if number == 6:
          self.assertLessEqual(set(photos_), set(found.values()))
    self.assertEqual(self.found('p/b_mask.png')[0], {'b_mask': 'p/b_mask.png'})

  def test_files_and_patterns_give_any_file(self):
    for given, expected in (
        (['q/a.gif', 'p/x/y/[1].tif'], {'a': 'q/a.gif', '[1]': 'p/x/y/[1].tif'}),
        (['p/*.*'], {'a': 'p/a.jpg', 'b': 'p/b.PNG', 'n': 'p/n.txt'}),
        (['p/**/a.jpg'], {'a': 'p/a.jpg', 'x/a': 'p/x/a.jpg'}),
        (['*/x/y'], {'p/x/y/[1]': 'p/x/y/[1].tif'})):
      with self.subTest(given):
        self.assertEqual(self.found(*given)[0], expected)

  def test_what_is_not_there_is_an_error(self):
    for given, sentence in (('none', "--input 'none' is no file or folder"),
                            ('*.x', 'no pattern that fits one'),
                            ('empty', "--input 'empty' holds no image; .* .jpg, ")):
      with self.assertRaisesRegex(DataError, sentence):
        self.found('p', given)

  def test_listed_names_keep_their_folders_but_stay_below_the_output(self):
    names = {'a.jpg': 'a', 'x/../b.c.png': 'b.c', 'x/a.jpg': 'x/a', '../up.png': 'up', '/abs/c.png': 'c',
             '..a/d.jpg': '..a/d'}
    self.assertEqual([photo.output for photo in photos.list_photos('p', names)], list(names.values()))
    self.assertEqual(photos.list_photos('p', ['x\\a.jpg']), [photos.Photo('p/x/a.jpg', 'x/a')])


if __name__ == '__main__':
  unittest.main()
