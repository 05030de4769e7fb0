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
  margin = max(int(fitting.getlength(name)) for name, fitting in names) + 2 * _GAP
  left, top = margin, margin + _FONT + 2 * _GAP
  side = cell * count
  picture = Image.new('RGB', (max(left + side, int(large.getlength(_TITLE))) + 2 * _GAP, top + side + _GAP),
                      (255, 255, 255))
  heads = Image.new('RGB', (margin, side), (255, 255, 255))  # of the columns, as they lie before they stand
  pen, pen_of_heads = ImageDraw.Draw(picture), ImageDraw.Draw(heads)
  pen.text((_GAP, _GAP), _TITLE, _TEXT, large)
  for index, (name, fitting) in enumerate(names):
    middle = cell * index + cell // 2
    pen.text((left - _GAP, top + middle), name, _TEXT, fitting, 'rm')
    pen_of_heads.text((_GAP, middle), name, _TEXT, fitting, 'lm')
  picture.paste(heads.transpose(Image.Transpose.ROTATE_90), (left, top - margin))
  totals = np.sum(matrix, axis=1, keepdims=True)
  shares = np.where(totals > 0, matrix / np.maximum(totals, 1), np.nan)
  for (row, column), share in np.ndenumerate(shares):
    _draw_cell(pen, (left + cell * column, top + cell * row), cell, share, font)
  return picture


def _draw_cell(pen, corner, cell, share, font):
  """Draws a share, 0..1 or NaN, as a square whose upper left corner this is."""
  colour = _EMPTY if np.isnan(share) else tuple(np.round(255 + (_DEEP - 255) * share).astype(int).tolist())
  line = 1 if cell > 12 else 0
  pen.rectangle((*corner, corner[0] + cell - 1 - line, corner[1] + cell - 1 - line), colour)
  if cell >= 26 and share >= .005:
    middle = (corner[0] + (cell - line) / 2, corner[1] + (cell - line) / 2)
    pen.text(middle, f'{100 * share:.0f}', _LINE if share > .5 else _TEXT, font, 'mm')
