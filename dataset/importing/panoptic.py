"""COCO's panoptic labels: PNGs whose colours number segments, and a JSON that gives each segment its class.

The number of a pixel with the colour (R, G, B) is R + 256 G + 65536 B; 0 is no segment. Free of TensorFlow.
"""
import os
import typing

from utils import files
from utils.errors import DataError

MAX_BYTES = 1 << 30  # of the JSON, which describes all images of a split
KEY = b'"segments_info"'  # only panoptic annotations have it


class Panoptic(typing.NamedTuple):
  """What a JSON says.

  Attributes:
    path: str, the JSON.
    folder: str, the folder of the PNGs.
    categories: dict from id (int) to name (str), in the file's order; ids may share a name.
    segments: dict from the file name of a PNG to a dict from (red, green, blue) to a category's id. What it
      lacks, such as (0, 0, 0), is no segment.
  """
  path: str
  folder: str
  categories: dict
  segments: dict


def read(path):
  """Returns the Panoptic of a JSON file.

  The PNGs lie in the folder beside the JSON that is called as it is, without .json, or else in its own. One
  of them has to be there; whoever reads them says which others are missing.

  Raises:
    DataError: the file is missing or no JSON, lacks a key or has one that is not what it should be, gives a
      segment a category that it does not declare, describes a PNG twice, or there is none of the PNGs.
  """
  source = f"panoptic file '{path}'"
  content = files.read_json(path, source, MAX_BYTES)
  try:
    categories = _read_categories(_value(content, 'categories', list, 'the file'))
    segments = {}
    for number, annotation in enumerate(_value(content, 'annotations', list, 'the file'), 1):
      name = _value(annotation, 'file_name', str, f'annotation {number}')
      if name in segments:
        raise DataError(f"annotation {number} is the second of {name!r}; remove one")
      segments[name] = _read_segments(annotation, categories, f'the annotation of {name!r}')
  except DataError as error:
    raise DataError(f'{source}: {error}') from error
  return Panoptic(path, _find_folder(path, segments, source), categories, segments)


def _read_categories(items):
  """Returns the dict from id to name."""
  categories = {}
  for number, item in enumerate(items, 1):
    key, name = (_value(item, key, kind, f'category {number}') for key, kind in (('id', int), ('name', str)))
    if key in categories:
      raise DataError(f'category {number} has the id {key}, as one before; give each its own')
    categories[key] = name
  return categories


def _read_segments(annotation, categories, place):
  """Returns the dict from colours to the ids of categories."""
  segments = {}
  for item in _value(annotation, 'segments_info', list, place):
    number, category = (_value(item, key, int, f'a segment in {place}') for key in ('id', 'category_id'))
    if not 0 < number < 1 << 24:
      raise DataError(f'{place} has a segment with the id {number}; use 1..{(1 << 24) - 1}, as colours do')
    color = (number & 255, number >> 8 & 255, number >> 16)
    if color in segments:
      raise DataError(f'{place} has two segments with the id {number}; give each its own')
    if category not in categories:
      raise DataError(f'{place} has a segment of the category {category}, which is not among the categories; '
                      'add it')
    segments[color] = category
  return segments


def _value(item, key, kind, place):
  """Returns what an object has under a key; DataError if it is not of the kind, or an empty text."""
  kinds = {list: 'a list', int: 'a whole number', str: 'a text'}
  if not isinstance(item, dict) or key not in item:
    raise DataError(f"{place} has no '{key}'; give what COCO's panoptic format demands")
  value = item[key]
  if type(value) is not kind or value == '' or kind is int and abs(value) > 1 << 53:
    raise DataError(f"the '{key}' of {place} is not {kinds[kind]}; correct it")
  return value


def _find_folder(path, names, source):
  """Returns the folder that has one of the files, at least."""
  folders = (os.path.splitext(path)[0], os.path.dirname(path) or '.')
  for folder in folders:
    if os.path.isdir(folder) and any(os.path.isfile(os.path.join(folder, name)) for name in names):
      return folder
  raise DataError(f"{source} describes {len(names)} PNG files, and none is in '{folders[0]}' or "
                  f"'{folders[1]}'; put their folder there, under that name")
