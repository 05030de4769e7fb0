"""A confusion matrix as a picture, drawn by Pillow: readable with two classes and with two hundred."""
import numpy as np
from PIL import Image, ImageDraw

from utils import visualization

_TITLE = 'Row: true class. Column: predicted class. % of the true class.'
_FONT = 15         # pixels
_LONGEST_NAME = 24
_GAP = 8
_TEXT, _EMPTY, _LINE = (31, 36, 48), (238, 239, 241), (255, 255, 255)
_DEEP = np.array((8, 64, 140))  # of 100 %; 0 % is white


def draw(matrix: np.ndarray, class_names: list[str]) -> Image.Image:
  """Returns the picture, RGB: each row is shown in shares of its pixels, grey if its class is never labelled.

  Args:
    matrix: integer [K, K]; rows are true classes, columns predicted ones.
    class_names: K of them.
  """
  count = len(class_names)
  cell = max(9, min(110, 480 // count)) if count < 11 or count > 45 else 42
  size = min(_FONT, cell - 1)
  font, large = visualization.fonts(size)[0], visualization.fonts(_FONT)[0]
  names = [visualization.lettering(name, f'class {index}', size, _LONGEST_NAME)
           for index, name in enumerate(class_names)]
  margin = max(_size(fitting, name)[0] for name, fitting in names) + 2 * _GAP
  left, top = margin, margin + _FONT + 2 * _GAP
  side = cell * count
  picture = Image.new('RGB', (left + max(side, _size(large, _TITLE)[0] - left) + 2 * _GAP, top + side + _GAP),
                      (255, 255, 255))
  pen = ImageDraw.Draw(picture)
  pen.text((_GAP, _GAP), _TITLE, _TEXT, large)
  for index, (name, fitting) in enumerate(names):
    middle = cell * index + cell // 2
    _write(picture, name, fitting, (left - _GAP, top + middle))
    _write(picture, name, fitting, (left + middle, top - _GAP), is_upright=True)
  pixels = np.asarray(matrix, np.float64)
  totals = pixels.sum(1)
  for row in range(count):
    for column in range(count):
      share = pixels[row, column] / totals[row] if totals[row] else None
      _draw_cell(pen, (left + cell * column, top + cell * row), cell, share, font)
  return picture


def _draw_cell(pen, corner, cell, share, font):
  """Draws a share, 0..1 or None, as a square whose upper left corner this is."""
  colour = _EMPTY if share is None else tuple(np.round(255 + (_DEEP - 255) * share).astype(int).tolist())
  line = 1 if cell > 12 else 0
  pen.rectangle((*corner, corner[0] + cell - 1 - line, corner[1] + cell - 1 - line), colour)
  if share is not None and cell >= 26 and share >= .005:
    text = f'{100 * share:.0f}'
    width, height = _size(font, text)
    pen.text((corner[0] + (cell - width) / 2, corner[1] + (cell - height) / 2 - 1), text,
             _LINE if share > .5 else _TEXT, font)


def _write(picture, text, font, end, is_upright=False):
  """Writes text that ends at a place: to its left, or, upright, above it."""
  width, height = _size(font, text)
  strip = Image.new('RGB', (width + 2, height + 2), (255, 255, 255))
  ImageDraw.Draw(strip).text((0, 0), text, _TEXT, font)
  if is_upright:
    strip = strip.transpose(Image.Transpose.ROTATE_90)
    picture.paste(strip, (end[0] - strip.width // 2, end[1] - strip.height))
  else:
    picture.paste(strip, (end[0] - strip.width, end[1] - strip.height // 2))


def _size(font, text):
  """Returns (width, height) in pixels; all texts are of one height, so that they stand on one line."""
  return int(np.ceil(font.getlength(text))), sum(font.getmetrics())
