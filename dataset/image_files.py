"""Image files: what may be read, and how PIL and OpenCV read it.

An image is what a viewer shows: EXIF says how its stored pixels are to be turned, and they are, in training,
evaluation and inference alike. Whatever comes from outside goes through `open_image`, which knows limits.

A record keeps the bytes of a JPEG or PNG file that need not be turned; anything else becomes a PNG. The
decoders of the training graph are dataset/preprocessing.py's. They know no EXIF, and PIL here accepts no file
that they would refuse or read as something else.
"""
import contextlib
import io
import re
import typing
import warnings

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from dataset import png
from utils import files
from utils.errors import DataError

# The most pixels of an image or a label, wherever it comes from, and the most bytes of its file. A few bytes
# can claim any size, and decoding reserves the memory for it.
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # 179 million, such as 13,000 x 13,000
MAX_BYTES = 1 << 30
ENDS_EARLY = 'the file ends early'
TOO_MANY_PIXELS = f' has more than the {MAX_PIXELS} pixels that are allowed; cut it into parts'

# PIL's formats whose bytes are stored as they are; MPO is a camera's JPEG with a preview appended.
STORED_FORMATS = {'JPEG': b'jpeg', 'MPO': b'jpeg', 'PNG': b'png'}
_STORED_MODES = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA')
# Bits in which fingerprints may differ, and the deviation in grey levels of images that are too plain. Of 80
# VOC photos, scaled by 2/3 and saved anew at quality 60, prints differed in up to 29 bits, those of others in
# 84.
_ALIKE, _PLAIN = 24, 3
PRINT_SIDE = 32  # pixels that an image has at least, if it is not smaller, to take its fingerprint
_MAX_SENSOR = 4095  # of cameras of 10 and 12 bits, whose values some programs store in 16 bits as they are
# Markers of a JPEG: any, and what ends the data of a scan, to which FF 00 and the restart markers belong. Of
# several FFs the last counts.
_JPEG_MARKER, _JPEG_SCAN_END = re.compile(rb'\xff[\x01-\xfe]'), re.compile(rb'\xff[\x01-\xcf\xd8-\xfe]')
_JPEG_SCAN, _JPEG_END, _JPEG_LONELY = 0xda, 0xd9, {0x01, *range(0xd0, 0xd9)}  # without a length
_EXIF_ORIENTATION = 0x0112
TIFF_BITS = 258  # the tag of the bits of each channel
_TIFF_KIND, _TIFF_PART = 254, 1 | 4  # the tag of what a picture is: a smaller copy of another, or its mask
_SEVERAL = ('GIF', 'TIFF', 'WEBP', 'PNG', 'AVIF')  # formats of films, pages and slices
# A PNG that PIL would turn holds one of these, maybe after its pixels.
_PNG_EXIF = (b'eXIf', b'Raw profile type exif', b'tiff:Orientation')
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# `open_image` refuses what PIL just warns of, at any number of threads.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', module=r'PIL\.')  # of damaged EXIF and such, without a name


class Stored(typing.NamedTuple):
  """An image as a record holds it.

  Attributes:
    encoded: bytes of a JPEG or PNG file whose pixels are as a viewer shows them.
    format: b'jpeg' or b'png'.
    size: (height, width).
    orientation: int, how the file's pixels were turned for that, 1..8 as EXIF counts; 1 is not at all.
    fingerprint: see the function; None also if the image was not decoded.
  """
  encoded: bytes
  format: bytes
  size: tuple
  orientation: int
  fingerprint: bytes | None = None

  @property
  def file_size(self):
    """Returns (height, width) of the pixels in the file."""
    return self.size[::-1] if self.orientation >= 5 else self.size


def load(path, fast):
  """Returns the Stored of a file; if `fast`, bytes that are kept are not decoded."""
  source = f"image '{path}'"
  encoded = read_image_file(path, source)
  image = _open_if_known(encoded, source)
  orientation = 1 if image is None else _orientation(image, encoded, source)
  # Whether the graph's decoders read the file as PIL does.
  is_readable = (image is not None and image.format in STORED_FORMATS and image.mode in _STORED_MODES
                 and not _is_deep(image, encoded))
  if orientation == 1 and is_readable:
    size, image_format, print_ = size_of(image), STORED_FORMATS[image.format], None
    if not fast:
      image = decode(image, encoded, source, min_side=PRINT_SIDE)
      check_transparency(image, source)
      print_ = fingerprint(image)
    return Stored(encoded, image_format, size, orientation, print_)
  image = Image.fromarray(_pixels(image, encoded, orientation, source, check_transparency))
  return Stored(as_png(image), b'png', size_of(image), orientation, fingerprint(image))


def fingerprint(image):
  """Returns what images that look alike have in common, also if one was resized or saved anew.

  Args:
    image: PIL image.

  Returns:
    bytes [32], whose 256 bits say where the image, at 17 x 16 grey pixels, grows brighter to the right;
    prints of the same picture differ in few bits (_ALIKE). None if the image is too plain to tell.
  """
  small = np.asarray(image.convert('L').resize((17, 16), Image.Resampling.BOX), np.int16)
  return np.packbits(small[:, 1:] > small[:, :-1]).tobytes() if small.std() > _PLAIN else None


def find_alike(prints, others):
  """Returns, for each fingerprint, the position of one of `others` that is alike, or -1: a list of ints.

  Args:
    prints, others: lists of what fingerprint returned.
  """
  def signs(chosen):
    bits = np.unpackbits(np.frombuffer(b''.join(chosen), np.uint8)).reshape(-1, 256)
    return bits.astype(np.float32) * 2 - 1

  rows = [row for row, print_ in enumerate(others) if print_]
  found = [-1] * len(prints)
  if rows:
    known = signs([others[row] for row in rows])
    for position, print_ in enumerate(prints):
      if print_:
        agreed = known @ signs([print_])[0]  # 256 less twice the bits that differ
        best = int(agreed.argmax())
        found[position] = rows[best] if 256 - agreed[best] <= 2 * _ALIKE else -1
  return found


def _open_if_known(encoded, source):
  """Returns what open_image does, or None if PIL does not know the format; see check_single."""
  try:
    image = open_image(encoded, source)
  except DataError as error:
    if isinstance(error.__cause__, UnidentifiedImageError):
      return None
    raise
  check_single(image, source)
  return image


def check_single(image, source):
  """Raises DataError if a file, of which only the header has been read, holds several pictures."""
  count = 1
  with contextlib.suppress(Exception):  # of a damaged file, which is told when it is decoded
    if image.format in _SEVERAL and (count := getattr(image, 'n_frames', 1)) > 1 and image.format == 'TIFF':
      for page in range(image.n_frames):
        image.seek(page)
        count -= bool(page and image.tag_v2.get(_TIFF_KIND, 0) & _TIFF_PART)
      image.seek(0)
  if count > 1:
    raise DataError(f'{source} holds {count} pictures, and one is needed; save each by itself')


def _is_deep(image, encoded):
  """Returns whether a PNG or TIFF has more than 8 bits a channel, whatever PIL makes of it."""
  bits = (8,)
  if image.format == 'PNG':
    bits = encoded[png.BITS],
  elif image.format == 'TIFF':
    bits = image.tag_v2.get(TIFF_BITS, bits)
  return max(bits) > 8


def as_png(image):
  """Returns the bytes of a PNG file of a PIL image."""
  buffer = io.BytesIO()
  image.save(buffer, 'PNG')
  return buffer.getvalue()


def read_image_file(path, source):
  """Returns the bytes of the file of an image or label; `files.read_bytes` says what is refused."""
  return files.read_bytes(path, source, MAX_BYTES)


def open_image(encoded, source):
  """Returns the PIL image of a file of which only the header has been read.

  Args:
    encoded: bytes of the file.
    source: str, what errors call it.

  Raises:
    DataError: PIL does not know it (then UnidentifiedImageError is the cause), its header is damaged or
      claims more than MAX_PIXELS, or it is a program (EPS, which PIL hands to Ghostscript).
  """
  try:
    image = Image.open(io.BytesIO(encoded))
  except Image.DecompressionBombError as error:
    raise DataError(source + TOO_MANY_PIXELS) from error
  except Exception as error:
    raise _does_not_decode(source, encoded, error) from error
  if image.width * image.height > MAX_PIXELS:  # just below, PIL itself raises no error
    raise DataError(source + TOO_MANY_PIXELS)
  if image.format == 'EPS':
    raise DataError(f'{source} is an EPS file, which is a program and not an image; convert it to PNG')
  return image


def size_of(image):
  """Returns (height, width) of a PIL image, which says it the other way round."""
  return image.height, image.width


def decode(image, encoded, source, min_side=1):
  """Returns the decoded PIL image; a JPEG at the smallest eighth of its size whose sides suffice.

  Args:
    image: what `open_image` returned; it must not be used any more.
    encoded: bytes of the file.
    source: str, what errors call it.
    min_side: int, what suffices; 0 is the full size.

  Raises:
    DataError: any byte that matters is damaged.
  """
  try:
    if image.format == 'PNG':
      # load() skips the checksums that TensorFlow insists on; verify() compares all except the last.
      image.verify()
      if png.END not in encoded:
        raise OSError(ENDS_EARLY)
      image = Image.open(io.BytesIO(encoded))
    elif STORED_FORMATS.get(image.format) == b'jpeg':
      # All of the data is read at any scale, and the smallest takes half the time. PIL alone takes
      # zeros to the end of the file, as broken downloads leave, for grey pixels.
      if not _has_jpeg_end(encoded):
        raise OSError(ENDS_EARLY)
      image.draft(None, (min_side, min_side) if min_side else image.size)
    image.load()
  except Exception as error:  # OSError, SyntaxError, ValueError, struct.error: PIL leaves it open
    raise _does_not_decode(source, encoded, error) from error
  return image


def _has_jpeg_end(encoded):
  """Returns whether the first picture in a JPEG ends; a preview, a film or anything else may follow it."""
  position, pattern = 0, _JPEG_MARKER
  while found := pattern.search(encoded, position):
    marker, position = encoded[found.end() - 1], found.end()
    if marker == _JPEG_END:
      return True
    if marker not in _JPEG_LONELY:
      position += int.from_bytes(encoded[position:position + 2], 'big')
    pattern = _JPEG_SCAN_END if marker == _JPEG_SCAN else _JPEG_MARKER
  return False


def damaged(source, reason):
  """Returns the DataError of an image, label or video that cannot be read, or not to its end."""
  return DataError(f'{source} does not decode ({reason}); replace it')


def _does_not_decode(source, encoded, error):
  """Returns the DataError of a file that PIL refuses."""
  # PIL's 'cannot identify image file <_io.BytesIO object at 0x7f..>' is cut before the address.
  return damaged(source, str(error).partition(' <_io')[0] if encoded else 'the file is empty')


def check_transparency(image, source):
  """Raises DataError for an image that is not opaque: the graph would show what is hidden."""
  if image.has_transparency_data and (
      image.mode.startswith('I') or image.convert('RGBA').getextrema()[3][0] < 255):
    raise DataError(f'{source} has transparent pixels; flatten it to RGB')


def _orientation(image, encoded, source):
  """Returns how a viewer turns an image of which only the header has been read, 1..8 as EXIF counts.

  It stands in EXIF, or else in XMP, as for PIL's ImageOps.exif_transpose.

  What is no such number turns nothing, and is returned as 1.

  Args:
    image, encoded, source: see decode; the image may still be used.

  Raises:
    DataError: the EXIF data cannot be read, or a PNG, whose pixels may come before them, is damaged.
  """
  if image.format == 'PNG':
    if not any(mark in encoded for mark in _PNG_EXIF):
      return 1
    image = decode(open_image(encoded, source), encoded, source)
  try:
    orientation = image.getexif().get(_EXIF_ORIENTATION)
  except Exception as error:  # SyntaxError, struct.error, KeyError ...: PIL leaves it open
    raise DataError(f'{source} has EXIF data that cannot be read ({error}); remove them, such as by '
                    "'exiftool -all= FILE'") from error
  return int(orientation) if orientation in _TURNS else 1


def turn(image, orientation):
  """Returns a PIL image that is turned as EXIF's orientation, 1..8, says."""
  return image if orientation == 1 else image.transpose(_TURNS[orientation])


def read_image(path):
  """Returns uint8 [H, W, 3], RGB: an image file as a viewer shows it, turned as its EXIF says.

  Transparency is dropped, CMYK becomes RGB, and 16 bits are scaled to 8.

  Raises:
    DataError: the file is missing, damaged or of a format that neither PIL nor OpenCV reads, its EXIF cannot
      be read, or its values are floating-point numbers or lie at the dark end of 16 bits.
  """
  return _read(path)[0]


def read_opaque(path):
  """Returns the same, and how the pixels of the file were turned; a transparent image is a DataError too."""
  return _read(path, check_transparency)


def _read(path, *check):
  source = f"image '{path}'"
  encoded = read_image_file(path, source)
  image = _open_if_known(encoded, source)
  orientation = 1 if image is None else _orientation(image, encoded, source)
  return _pixels(image, encoded, orientation, source, *check), orientation


def _pixels(image, encoded, orientation, source, check=lambda image, source: None):
  """Returns uint8 [H, W, 3], RGB, of an image as a viewer shows it.

  Args:
    image: what _open_if_known returned; it must not be used any more.
    encoded, source: see decode.
    orientation: see _orientation.
    check: function of the decoded PIL image, if PIL knows it, and source; such as check_transparency.
  """
  if image is None:
    return _in_8_bits(_read_by_opencv(encoded, source), source)
  is_turned = image.format == 'TIFF'  # PIL and OpenCV themselves turn it
  is_deep, image_format = _is_deep(image, encoded), image.format
  image = decode(image, encoded, source, min_side=0)
  check(image, source)
  if image.mode[0] in 'IF':
    image = Image.fromarray(_in_8_bits(np.asarray(image), source))
  elif is_deep and image.mode in _STORED_MODES:  # PIL takes the high bytes
    image = Image.fromarray(_in_8_bits(_read_by_opencv(encoded, source), source))
  elif is_deep:
    raise DataError(f'{source} is a {image.mode} {image_format} of 16 bits; convert it to 8-bit RGB or grey')
  try:
    image = image.convert('RGB')
  except ValueError as error:
    raise DataError(f'{source} is a {image.mode} image; convert it to 8-bit RGB or grey') from error
  return np.array(image if is_turned else turn(image, orientation))


def _read_by_opencv(encoded, source):
  """Returns [H, W, 3], RGB, of any type: the pixels as they are stored, but a TIFF as a viewer shows it."""
  image, flags = None, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
  with contextlib.suppress(cv2.error):
    if not encoded.startswith(b'P7'):  # a PAM, of which OpenCV takes red for blue
      image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
  if image is None:
    raise _does_not_decode(source, encoded, 'neither PIL nor OpenCV reads it')
  return np.ascontiguousarray(image[:, :, ::-1])


def _in_8_bits(values, source):
  """Returns uint8: the values of an image, 0..255 if they are uint8, else 0..65535; DataError for others."""
  if values.dtype == np.uint8:
    return values
  if values.dtype.kind == 'f':
    raise DataError(f'{source} holds floating-point numbers; convert it to 8-bit RGB or grey')
  least, most = int(values.min()), int(values.max())
  if least < 0 or most > 65535:
    raise DataError(f'{source} holds values from {least} to {most}, and 16 bits have 0 to 65535; convert it '
                    'to 8-bit RGB or grey')
  if most <= _MAX_SENSOR:
    raise DataError(f'{source} has 16 bits and no value above {most}, as from a camera of 10 or 12 bits: '
                    'in 8 bits it would be black; scale it to 0..65535, or convert it to 8-bit RGB or grey')
  return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # values / 257, rounded
