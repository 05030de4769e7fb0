"""Colours: label maps as palette PNGs, label maps blended over photos, and both as pictures of pages."""
import contextlib
import functools
import importlib.util
import io
import os
import unicodedata

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from utils import files, tables

# With letters of Chinese, Japanese and Korean, of Linux's distributions and macOS; Pillow looks for them.
_MORE_FONTS = ('NotoSansCJK-Regular.ttc', 'wqy-microhei.ttc', 'wqy-zenhei.ttc', 'DroidSansFallbackFull.ttf',
               'Arial Unicode.ttf')
VOID_COLOR = (224, 224, 192)  # of PASCAL VOC's label pictures


def color_table(palette, ignore_label):
  """Returns uint8 [256, 3]: the colour of every label value; unused values are black.

  Args:
    palette: K colours (r, g, b), 0..255.
    ignore_label: int; shown in VOC's void colour if it is no class.
  """
  table = np.zeros((256, 3), np.uint8)
  if ignore_label >= len(palette):
    table[ignore_label] = VOID_COLOR
  table[:len(palette)] = palette
  return table


def save_mask(path, classes, palette, ignore_label):
  """Writes a label map as an 8-bit palette PNG: pixel value = class id, shown in the dataset's colours.

  Args:
    path: str; written under a temporary name first.
    classes: integer [H, W], 0..255.
    palette, ignore_label: see color_table.
  """
  mask = Image.fromarray(classes.astype(np.uint8))
  mask.putpalette(color_table(palette, ignore_label).tobytes())
  with files.replacing(path) as temporary:
    mask.save(temporary, format='PNG')


def overlay(image, classes, palette, alpha=0.5, background=None):
  """Returns the picture with the classes' colours blended over it, uint8 [H, W, 3].

  Args:
    image: uint8 [H, W, 3], RGB.
    classes: integer [H, W], 0..K-1.
    palette: K colours (r, g, b).
    alpha: float, 0..1, the weight of the colours.
    background: int or None, a class whose pixels are left as they are.
  """
  colors = np.asarray(palette, np.float32)[classes]  # [H, W, 3]
  blended = np.round((1 - alpha) * image + alpha * colors).astype(np.uint8)
  if background is not None:
    blended = np.where((classes == background)[:, :, None], image, blended)
  return blended


def with_legend(image, classes, names, palette, background=None):
  """Returns the picture with a legend of the classes found in its lower left corner, the largest first.

  If it would take more than a quarter of the picture, it names fewer classes, or there is none.

  Args:
    image: uint8 [H, W, 3], RGB.
    classes: integer [H, W], 0..K-1.
    names: K str.
    palette: K colours (r, g, b).
    background: int or None, a class that is not named.
  """
  height, width = classes.shape
  pixels = np.bincount(classes.ravel(), minlength=len(names))
  found = [label for label in np.argsort(-pixels, kind='stable') if pixels[label] and label != background]
  while found:
    box = legend(names, palette, found, max(10, min(height, width) // 28))
    if box.shape[0] <= height and box.shape[1] <= width and 4 * box.size <= image.size:
      image = image.copy()
      image[-box.shape[0]:, :box.shape[1]] = box
      return image
    found.pop()
  return image


def legend(names, palette, labels=None, size=14):
  """Returns a box with the names of classes beside their colours, uint8 [h, w, 3].

  Args:
    names: K str.
    palette: K colours (r, g, b).
    labels: the classes to name, ints, in this order; None is all.
    size: int, the height of letters in pixels.
  """
  labels = range(len(names)) if labels is None else labels
  texts = [lettering(names[label], f'class {label}', size) for label in labels]
  line, width = size + size // 3, max(int(font.getlength(text)) for text, font in texts)
  canvas = Image.new('RGB', (width + 5 * size // 2, line * len(texts) + size // 2), (255, 255, 255))
  pen = ImageDraw.Draw(canvas)
  for row, (label, (text, font)) in enumerate(zip(labels, texts)):
    y = size // 4 + row * line + size // 6
    pen.rectangle((size // 2, y, 3 * size // 2, y + size), tuple(palette[label]), (0, 0, 0))
    pen.text((2 * size, y + size // 2), text, (0, 0, 0), font, 'lm')
  return np.asarray(canvas)


@functools.lru_cache
def fonts(size):
  """Returns the fonts that there are, with letters of so many pixels; Matplotlib brings the first."""
  spec = importlib.util.find_spec('matplotlib')  # to import it takes time, and a folder to write to
  folder = os.path.dirname(spec.origin) if spec and spec.origin else ''
  found = []
  for name in (os.path.join(folder, 'mpl-data/fonts/ttf/DejaVuSans.ttf'), *_MORE_FONTS):
    with contextlib.suppress(OSError):
      found.append(ImageFont.truetype(name, size))
  return found or [ImageFont.load_default()]


@functools.lru_cache(4096)
def lettering(text, otherwise, size, longest=40):
  """Returns (text, font): how to draw a text; `otherwise` is drawn where no font has all its letters.

  Args:
    text, otherwise: str; otherwise such as 'class 3'.
    size: int, the height of letters in pixels.
    longest: int, to which the text is shortened.
  """
  text = unicodedata.normalize('NFC', text)
  is_leftward = any(unicodedata.bidirectional(letter) in ('R', 'AL') for letter in text)
  if not is_leftward or features.check_feature('raqm'):  # which Arabic and Hebrew need
    text = tables.shortened(text, longest)
    for font in fonts(size):
      missing = bytes(font.getmask('\U0010ffff'))
      if all(bytes(font.getmask(letter)) != missing for letter in set(text)):
        return text, font
  return otherwise, fonts(size)[0]


def save(path, image):
  """Writes a picture, uint8 [H, W] or [H, W, 3], as a PNG, under a temporary name first."""
  with files.replacing(path) as temporary:
    Image.fromarray(image).save(temporary, format='PNG')


def shown_size(shape, width):
  """Returns (width, height) of a picture on a page; shape is (height, width), and nothing is enlarged."""
  width = min(width, shape[1])
  return width, max(1, round(width * shape[0] / shape[1]))


def photo_jpeg(image, size):
  """Returns a PIL image, RGB, of a size (width, height) as the bytes of a JPEG."""
  encoded = io.BytesIO()
  image.resize(size, Image.Resampling.LANCZOS).save(encoded, 'JPEG', quality=88)
  return encoded.getvalue()


def label_png(label, size, palette, ignore_label):
  """Returns a label, uint8 [H, W], as the bytes of a palette PNG of a size (width, height).

  The ignore label is transparent: the hatching of a page shows through.
  """
  picture = Image.fromarray(label).resize(size, Image.Resampling.NEAREST)
  picture.putpalette(color_table(palette, ignore_label).tobytes())
  encoded = io.BytesIO()
  picture.save(encoded, 'PNG', transparency=ignore_label)
  return encoded.getvalue()
