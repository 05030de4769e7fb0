"""Polygons: the JSON files of labelme, which hold the outlines of objects, and the labels that they make.

Shapes are drawn as labelme draws them when it exports masks, with PIL, the later ones on top. The photo that
such a file may hold (`imageData`) is not looked at. Free of TensorFlow.
"""
import base64
import math
import typing

import numpy as np
from PIL import Image, ImageDraw

from dataset import image_files
from utils import files
from utils.errors import DataError
from utils.tables import shortened

_LINE_WIDTH, _POINT_RADIUS = 10, 5  # pixels; labelme's
_FAR = 10 ** 5  # the largest coordinate: far outside images; PIL takes 24 s for a circle three times as large


class Shape(typing.NamedTuple):
  """A shape of a drawing.

  Attributes:
    name: str, its class.
    kind: str, a key of `_KINDS`.
    points: tuple of (x, y), finite numbers in pixels; they may lie outside the image.
    mask: bool [h, w] of a shape of the kind 'mask', whose upper left corner is the first point; or None.
  """
  name: str
  kind: str
  points: tuple
  mask: object


class Drawing(typing.NamedTuple):
  """A file: the (height, width) of its image, its Shapes in the file's order, and its path."""
  size: tuple
  shapes: list
  path: str


def read(path):
  """Returns the Drawing of a labelme JSON file, whose path is a str.

  Raises:
    DataError: the file is missing, damaged or none of labelme's; its image has too many pixels; or a shape,
      which the error names, is of an unknown kind, or its points or its mask are not what the kind demands.
  """
  source = f"labelme file '{path}'"
  content = files.read_json(path, source, 1 << 28)  # it may hold the photo
  missing = [key for key in ('shapes', 'imageHeight', 'imageWidth')
             if not isinstance(content, dict) or key not in content]
  if missing or not isinstance(content['shapes'], list):
    lacks = missing[0] if missing else 'list of shapes'
    raise DataError(f"{source} is none of labelme's: it has no {lacks}; give what labelme saved")
  shapes = [_read_shape(shape, f"shape {number} of {source}")
            for number, shape in enumerate(content['shapes'], 1)]
  return Drawing(_read_size(content, source), shapes, path)


def names(drawing):
  """Returns the names of a drawing's shapes, each once, in the file's order: a list of str."""
  return list(dict.fromkeys(shape.name for shape in drawing.shapes))


def draw(drawing, labels, background):
  """Returns uint8 [H, W], the label of a drawing.

  Args:
    drawing: Drawing.
    labels: dict from the name of a shape to its label value, 0..255.
    background: int, 0..255, the value of what no shape covers.

  Raises:
    DataError: `labels` lacks the name of a shape.
  """
  unknown = [name for name in names(drawing) if name not in labels]
  if unknown:
    raise DataError(f"labelme file '{drawing.path}' has shapes that are called {unknown}; add these names to "
                    'the descriptor')
  height, width = drawing.size
  canvas = Image.new('L', (width, height), background)
  for shape in drawing.shapes:
    _KINDS[shape.kind].draw(canvas, shape, labels[shape.name])
  return np.array(canvas)


# --- Reading ----------------------------------------------------------------------------------------------


def _read_size(content, source):
  height, width = content['imageHeight'], content['imageWidth']
  if height is None and width is None:
    raise DataError(f'{source} does not say how large its image is (imageHeight is null); save it anew in '
                    'labelme')
  if not all(type(side) is int and side > 0 for side in (height, width)):
    raise DataError(f'{source} has the imageHeight {shortened(repr(height))} and the imageWidth '
                    f'{shortened(repr(width))}; use numbers of pixels')
  if height * width > image_files.MAX_PIXELS:
    raise DataError(source + image_files.TOO_MANY_PIXELS)
  return height, width


def _read_shape(shape, source):
  if not isinstance(shape, dict) or not isinstance(shape.get('label'), str) or not shape['label']:
    raise DataError(f'{source} has no label; give it the name of its class')
  kind = 'polygon' if shape.get('shape_type') is None else shape['shape_type']
  if not isinstance(kind, str) or kind not in _KINDS:
    raise DataError(f"{source} is of the unknown kind {shortened(repr(kind))}; use {', '.join(_KINDS)}")
  points = shape.get('points')
  if not isinstance(points, list) or not all(map(_is_point, points)):
    raise DataError(f'{source} has points that are no pairs of numbers between -{_FAR} and {_FAR}; draw it '
                    'anew')
  fewest, most = _KINDS[kind].points
  if not fewest <= len(points) <= most:
    allowed = fewest if most == fewest else f'{fewest} or more' if most == math.inf else f'{fewest} to {most}'
    raise DataError(f'{source}, a {kind}, has {len(points)} points, and {allowed} are allowed; draw it anew, '
                    'or remove it')
  mask = _read_mask(shape.get('mask'), points, f'mask of {source}') if kind == 'mask' else None
  return Shape(shape['label'], kind, tuple(map(tuple, points)), mask)


def _is_point(point):
  return isinstance(point, list) and len(point) == 2 and all(
      type(number) in (int, float) and -_FAR <= number <= _FAR for number in point)  # NaN is not between


def _read_mask(text, points, source):
  """Returns bool [h, w] of a base64 PNG that fills the box between two points, both of which belong to it."""
  try:
    encoded = base64.b64decode(text, validate=True)
  except (TypeError, ValueError) as error:
    raise DataError(f'{source} is no base64 text ({error}); draw it anew') from error
  image = image_files.decode(image_files.open_image(encoded, source), encoded, source, min_side=0)
  (left, top), (right, bottom) = [map(int, point) for point in points]
  box = (bottom - top + 1, right - left + 1)
  mask = np.asarray(image)
  if mask.ndim != 2 or max(abs(side - expected) for side, expected in zip(mask.shape, box)) > 1:
    raise DataError(f'{source} is a {image.width}x{image.height} image of {len(image.getbands())} channel(s) '
                    f'for a box of {box[1]}x{box[0]} pixels; draw it anew')
  return mask != 0


# --- Kinds of shapes: functions that draw a Shape, with a value, onto a PIL image ------------------------


def _draw_polygon(canvas, shape, value):
  ImageDraw.Draw(canvas).polygon(shape.points, fill=value, outline=value)


def _draw_rectangle(canvas, shape, value):
  """Draws the box around two opposite corners, or all four."""
  xs, ys = zip(*shape.points)
  ImageDraw.Draw(canvas).rectangle((min(xs), min(ys), max(xs), max(ys)), fill=value, outline=value)


def _draw_circle(canvas, shape, value):
  """Draws the circle around the first point through the second."""
  center, other = shape.points
  _draw_disc(canvas, center, math.dist(center, other), value)


def _draw_point(canvas, shape, value):
  _draw_disc(canvas, shape.points[0], _POINT_RADIUS, value)


def _draw_disc(canvas, center, radius, value):
  x, y = center
  ImageDraw.Draw(canvas).ellipse((x - radius, y - radius, x + radius, y + radius), fill=value, outline=value)


def _draw_line(canvas, shape, value):
  ImageDraw.Draw(canvas).line(shape.points, fill=value, width=_LINE_WIDTH)


def _draw_mask(canvas, shape, value):
  corner = tuple(map(int, shape.points[0]))
  canvas.paste(value, corner, Image.fromarray(shape.mask.astype(np.uint8) * 255))


class _Kind(typing.NamedTuple):
  """How shapes of a kind are drawn, and their fewest and most points."""
  draw: typing.Callable
  points: tuple


_KINDS = {
    'polygon': _Kind(_draw_polygon, (3, math.inf)),
    'rectangle': _Kind(_draw_rectangle, (2, 4)),
    'oriented_rectangle': _Kind(_draw_polygon, (4, 4)),
    'rotation': _Kind(_draw_polygon, (4, 4)),  # the same in X-AnyLabeling
    'circle': _Kind(_draw_circle, (2, 2)),
    'line': _Kind(_draw_line, (2, 2)),
    'linestrip': _Kind(_draw_line, (2, math.inf)),
    'point': _Kind(_draw_point, (1, 1)),
    'mask': _Kind(_draw_mask, (2, 2)),
}
