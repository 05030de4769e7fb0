"""dataset/image_files.py: fingerprints (what files may hold is tested through records and inputs)."""
import io
import unittest

import numpy as np
from PIL import Image

from dataset import image_files


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


if __name__ == '__main__':
  unittest.main()
