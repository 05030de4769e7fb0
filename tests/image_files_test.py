"""dataset/image_files.py: fingerprints, files of several pictures (records and inputs test the rest)."""
import io
import os
import tempfile
import unittest

import numpy as np
from PIL import Image, TiffImagePlugin

from dataset import image_files
from utils.errors import DataError


def photo(seed, size=(120, 90)):
  small = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.uint8)
  return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def saved(image):
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', quality=50)
  return Image.open(buffer)


class FingerprintTest(unittest.TestCase):

  def test_bits_say_where_it_grows_brighter(self):
    ramp = np.tile(np.arange(17, dtype=np.uint8) * 9, (16, 1))
    self.assertEqual(image_files.fingerprint(Image.fromarray(ramp)), b'\xff' * 32)
    self.assertEqual(image_files.fingerprint(Image.fromarray(ramp[:, ::-1])), b'\0' * 32)
    self.assertIsNone(image_files.fingerprint(Image.fromarray(np.full((30, 40), 77, np.uint8))))

  def test_copies_are_found_and_others_are_not(self):
    known = [image_files.fingerprint(photo(seed)) for seed in range(20)]
    known[3] = None
    asked = [photo(7).resize((77, 61)), photo(30), saved(photo(12)), photo(3)]
    asked = [None, *map(image_files.fingerprint, asked)]
    self.assertEqual(image_files.find_alike(asked, known), [-1, 7, -1, 12, -1])
    self.assertEqual(image_files.find_alike(asked, [None]), [-1] * 5)


class SeveralPicturesTest(unittest.TestCase):

  def read(self, name, others, tag=0):
    """Returns what is read of a file of one picture and others behind it, which have a tag 254."""
    with tempfile.TemporaryDirectory() as folder:
      path, first = os.path.join(folder, name), Image.fromarray(np.full((9, 13, 3), 20, np.uint8))
      if tag:
        with TiffImagePlugin.AppendingTiffWriter(path, True) as file:
          for image in (first, *others):
            image.save(file, 'TIFF', tiffinfo={} if image is first else {254: tag})
            file.newFrame()
      else:
        first.save(path, save_all=True, append_images=others)
      image_files.load(path, fast=False)
      return image_files.read_image(path)

  def test_films_and_pages_are_refused_in_which_one_would_be_taken(self):
    for name in ('a.gif', 'a.tif', 'a.webp', 'a.png'):
      others = [Image.fromarray(np.full((9, 13, 3), grey, np.uint8)) for grey in (90, 160)]
      with self.subTest(name), self.assertRaisesRegex(DataError, 'holds 3 pictures, and one is needed; save'):
        self.read(name, others)
      self.assertEqual(self.read(name, []).shape, (9, 13, 3))

  def test_smaller_copies_and_masks_of_a_tiff_do_not_count(self):
    for tag in (1, 4):
      other = Image.fromarray(np.full((5, 7, 3), 90, np.uint8))
      self.assertEqual(self.read('a.tif', [other], tag)[0, 0, 0], 20)
    with self.assertRaisesRegex(DataError, 'holds 2 pictures'):
      self.read('a.tif', [other], tag=2)


if __name__ == '__main__':
  unittest.main()
