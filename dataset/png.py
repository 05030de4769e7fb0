"""What stands where in a PNG file, as far as labels depend on it.

The bytes of the header are read directly because PIL and TensorFlow show a label otherwise than it is stored:
both stretch grey of 1, 2 and 4 bits to 0..255, and TensorFlow turns the indices of a palette into colours.
"""
SIGNATURE = b'\x89PNG\r\n\x1a\n'
# A file begins with the signature and the chunk IHDR. These are positions in it.
SIZE, BITS, COLOUR_TYPE, CHECKSUM, AFTER_HEADER = 16, 24, 25, 29, 33
GREY, PALETTE = 0, 3  # colour types
# IHDR's checksum changes by this (exclusive or) when its colour type changes from palette to grey: a CRC is
# linear, so the difference depends on nothing else in the chunk.
PALETTE_TO_GREY = (0x12, 0xb5, 0xaf, 0xee)
END = b'IEND\xaeB`\x82'


def stretch(bits):
  """Returns the factor by which samples of so many bits, 1 to 8, become 0..255; for ints and int tensors."""
  return 255 // (2 ** bits - 1)
