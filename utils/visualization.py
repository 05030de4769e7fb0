"""Colours: label maps as palette PNGs, and label maps blended over photos."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils import files

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
  """Returns the picture with a box in its lower left corner that names the classes found, the largest first.

  If the box would take more than a quarter of the picture, it names fewer classes, or there is none.

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
  size = max(10, min(height, width) // 28)
  font, line = ImageFont.load_default(size), size + size // 3
  canvas = Image.fromarray(image)
  pen = ImageDraw.Draw(canvas, 'RGBA')
  box_width = max([int(pen.textlength(names[label], font)) for label in found], default=0) + 5 * size // 2
  found = found[:max(0, int(height * width / 4 / box_width - size / 2) // line)]
  if not found or box_width > width:
    return image
  top = height - line * len(found) - size // 2
  pen.rectangle((0, top, box_width, height), fill=(255, 255, 255, 200))
  for row, label in enumerate(found):
    y = top + size // 4 + row * line
    pen.rectangle((size // 2, y + size // 6, size // 2 + size, y + size // 6 + size), tuple(palette[label]),
                  (0, 0, 0))
    pen.text((2 * size, y), names[label], (0, 0, 0), font)
  return np.asarray(canvas)


def save(path, image):
  """Writes a picture, uint8 [H, W, 3], as a PNG, under a temporary name first."""
  with files.replacing(path) as temporary:
    Image.fromarray(image).save(temporary, format='PNG')


def save_grey(path, values):
  """Writes integers [H, W], 0..255, as an 8-bit grey PNG; under a temporary name first."""
  with files.replacing(path) as temporary:
    Image.fromarray(values.astype(np.uint8)).save(temporary, format='PNG')
