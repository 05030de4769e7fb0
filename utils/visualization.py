"""Colours: label maps as palette PNGs, and label maps blended over photos."""
import numpy as np
from PIL import Image

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


def save_overlay(path, image, classes, palette, alpha, background=None):
  """Writes the picture with the classes' colours blended over it, as a PNG.

  Args:
    path: str; written under a temporary name first.
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
  with files.replacing(path) as temporary:
    Image.fromarray(blended).save(temporary, format='PNG')


def save_grey(path, values):
  """Writes integers [H, W], 0..255, as an 8-bit grey PNG; under a temporary name first."""
  with files.replacing(path) as temporary:
    Image.fromarray(values.astype(np.uint8)).save(temporary, format='PNG')
