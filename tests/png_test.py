"""dataset/png.py: places in a PNG file, against files that Pillow writes, and the checksum of its header."""
import io
import struct
import unittest
import zlib

import numpy as np
from PIL import Image

from dataset import png


def written(mode, bits, size=(300, 7)):
  """Returns the bytes of a PNG, and the palette of one in mode P."""
  image, buffer = Image.new(mode, size), io.BytesIO()
  if mode == 'P':
    image.putpalette([9] * 3 * 2 ** bits)
  image.save(buffer, 'PNG', **({'bits': bits} if mode == 'P' else {}))
  return buffer.getvalue()


class PngTest(unittest.TestCase):

  def test_header_stands_where_it_is_said_to(self):
    for mode, bits, colour_type in (('P', 1, png.PALETTE), ('P', 4, png.PALETTE), ('P', 8, png.PALETTE),
                                    ('1', 1, png.GREY), ('L', 8, png.GREY), ('I;16', 16, png.GREY)):
      with self.subTest(mode=mode, bits=bits):
        content = written(mode, bits)
        self.assertTrue(content.startswith(png.SIGNATURE))
        self.assertTrue(content.endswith(png.END))
        self.assertEqual(struct.unpack_from('>II', content, png.SIZE), (300, 7))
        self.assertEqual((content[png.BITS], content[png.COLOUR_TYPE]), (bits, colour_type))
        checksum, = struct.unpack_from('>I', content, png.CHECKSUM)
        self.assertEqual(checksum, zlib.crc32(content[len(png.SIGNATURE) + 4:png.CHECKSUM]))
        length, = struct.unpack_from('>I', content, png.AFTER_HEADER)  # of the next chunk
        self.assertIn(content[png.AFTER_HEADER + 4:][:4], (b'PLTE', b'IDAT'))
        self.assertLess(length, len(content))

  def test_checksum_changes_by_a_constant_from_palette_to_grey(self):
    for size in ((1, 1), (300, 7), (65535, 513)):
      for bits in (1, 2, 4, 8):
        begin = b'IHDR' + struct.pack('>IIB', *size, bits)
        palette, grey = (zlib.crc32(begin + bytes([colour_type, 0, 0, 0])) for colour_type in (3, 0))
        self.assertEqual(struct.pack('>I', palette ^ grey), bytes(png.PALETTE_TO_GREY))

  def test_samples_are_stretched_to_255(self):
    self.assertEqual([png.stretch(bits) for bits in (1, 2, 4, 8)], [255, 85, 17, 1])
    np.testing.assert_array_equal(png.stretch(np.array([8, 2])), [1, 85])


if __name__ == '__main__':
  unittest.main()
