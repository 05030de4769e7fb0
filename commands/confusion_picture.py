"""A confusion matrix as a picture, drawn by Matplotlib: readable with two classes and with two hundred."""
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from utils import visualization


@matplotlib.rc_context({'text.parse_math': False})  # a $ in a name is no formula
def draw(matrix: np.ndarray, class_names: list[str]) -> Image.Image:
  """Returns the picture, RGB: each row is shown in shares of its pixels, or grey if it is never labelled.

  Args:
    matrix: integer [K, K]; rows are true classes, columns predicted ones.
    class_names: K of them.
  """
  count, totals = len(class_names), np.sum(matrix, axis=1, keepdims=True)
  shares = np.where(totals > 0, 100 * matrix / np.maximum(totals, 1), np.nan)
  side = count * (1.1 if count < 5 else .42 if count < 46 else .1)  # inches
  figure = Figure(figsize=(side + 1, side + 1))
  axes = figure.add_axes((0, 0, 1, 1), facecolor='#eeeff1')
  axes.imshow(shares, 'Blues', vmin=0, vmax=100)
  axes.set_title('Row: true class. Column: predicted class. % of the true class.', loc='left', pad=12)
  axes.xaxis.tick_top()
  names = [visualization.lettering(name, f'class {index}', 10, longest=24)
           for index, name in enumerate(class_names)]
  for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
    axis.set_ticks(range(count), [text for text, _ in names], rotation=rotation)
    for label, (_, font) in zip(axis.get_ticklabels(), names):
      label.set_fontproperties(FontProperties(fname=font.path, size=10 if count < 46 else 5))
  if count < 46:  # larger ones have no room for numbers
    for (row, column), share in np.ndenumerate(shares):
      if share >= .5:
        axes.text(column, row, f'{share:.0f}', ha='center', va='center', color='w' if share > 50 else 'k')
  encoded = io.BytesIO()
  figure.savefig(encoded, format='png', bbox_inches='tight')
  return Image.open(encoded).convert('RGB')
