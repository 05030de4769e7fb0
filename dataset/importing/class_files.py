"""Class files: the names, values and colours of classes that labelling tools leave beside the labels.

A format is known by its file's name (`KNOWN`), and that of any other file by its first line or its keys.
Nothing is left out: a line that is not understood is an error. Free of TensorFlow.
"""
import csv
import io
import os
import re
import typing

from dataset import descriptors
from utils import files
from utils.errors import DataError
from utils.tables import shortened

# Names that usually mean that a pixel does not count. They are read as any other; see `is_ignored`.
IGNORED_NAMES = ('__ignore__', 'ignore', 'void', 'unlabeled', 'unlabelled')

_MAX_BYTES, _MAX_LINE = 1 << 20, 1000
_RGB = r'(?P<r>[0-9]{1,3})[\s,]+(?P<g>[0-9]{1,3})[\s,]+(?P<b>[0-9]{1,3})'
# A fourth number makes it unclear which three are the colour.
_RGB_NAME = re.compile(_RGB + r'[\s,]+(?![0-9]+(?:[\s,]|$))(?P<name>\S.*)')
_NAME_RGB = re.compile(r'(?![0-9]+[\s,])(?P<name>\S.*?)[\s,:]+' + _RGB)
_CVAT_HEADER = re.compile(r'#\s*label\s*:')
_CVAT_LINE = re.compile(r'(.+?):([0-9,\s]*):[^:]*:[^:]*')
_NUMBERED = re.compile(r'([0-9]{1,3})(?:\s*[:;,=]\s*|\s+)(\S.*)')
_COLUMNS = {'pixel value': 'value', 'value': 'value', 'id': 'value', 'idx': 'value', 'class': 'name',
            'name': 'name', 'label': 'name', 'r': 'r', 'red': 'r', 'g': 'g', 'green': 'g', 'b': 'b',
            'blue': 'b'}


class Classes(typing.NamedTuple):
  """What a class file says.

  Attributes:
    path: str.
    names: tuple of str, each once, in the file's order; they may include a background.
    values: dict from int to name, or empty. It is 0..255 in text files, -1 for labelme's `__ignore__` (which
      labelme writes as 255), and 0 or more in COCO's JSON.
    colors: dict from (red, green, blue), 0..255, to name, or empty. Several colours may have one name.
  """
  path: str
  names: tuple
  values: dict
  colors: dict


class _Entry(typing.NamedTuple):
  """What a line says; `place` is what errors call it."""
  place: str
  name: object
  value: int | None = None
  color: tuple | None = None


def is_ignored(name):
  """Returns whether a class of this name is likely to be what does not count."""
  return name.casefold() in IGNORED_NAMES


def find(folders):
  """Returns the path of the first class file of a known name in the folders, or None.

  Args:
    folders: list of str, by preference; one that does not exist has none. Within a folder, the order of
      `KNOWN` decides.
  """
  paths = (os.path.join(folder, name) for folder in folders for name in KNOWN)
  return next(filter(os.path.isfile, paths), None)


def read(path):
  """Returns the Classes of a file.

  Raises:
    DataError: the file is missing, holds no class, or a line or entry, which the error names, is not
      understood; or a value or a colour has two names.
  """
  source = f"class file '{path}'"
  if path.lower().endswith('.json'):
    content, reader = files.read_json(path, source), _read_json
  else:
    content = _numbered_lines(files.read_text(path, source, _MAX_BYTES))
    reader = KNOWN.get(os.path.basename(path), _read_any)
  try:
    return _collect(path, reader(content))
  except DataError as error:
    raise DataError(f'{source}: {error}') from error


def _collect(path, entries):
  """Returns the Classes of _Entry's."""
  names, values, colors = {}, {}, {}
  for place, name, value, color in entries:
    name = name.strip() if isinstance(name, str) else ''
    if not descriptors.is_text(name):
      raise DataError(f'{place} has no name that can be printed; give the class one')
    names[name] = None
    for key, table in ((value, values), (color, colors)):
      if key is not None and table.setdefault(key, name) != name:
        raise DataError(f"{place} gives {key} to '{name}', and it is '{table[key]}' already; give each class "
                        'its own')
  if not names:
    raise DataError('it holds no class; give one a line')
  return Classes(path, tuple(names), values, colors)


# --- Text files: functions from [(line number, stripped line), ...] to _Entry's ---------------------------


def _numbered_lines(text):
  lines = [(number, line.strip()) for number, line in enumerate(io.StringIO(text, newline=None), 1)]
  return [(number, line) for number, line in lines if line]


def _without_comments(lines):
  return [(number, line) for number, line in lines if not line.startswith('#')]


def _read_any(lines):
  """Reads a list of names, unless the first line looks like that of another format."""
  first = next((line for _, line in lines), '')
  rest = next((line for _, line in _without_comments(lines)), '')
  if _CVAT_HEADER.match(first) or _CVAT_LINE.fullmatch(rest[:_MAX_LINE]):
    return _read_cvat(lines)
  if _columns(rest):
    return _read_columns(lines)
  if _match_color(rest):
    return _read_colors(lines)
  return _read_names(lines)


def _read_cvat(lines):
  """Reads CVAT's labelmap.txt: lines such as 'traffic light:250,170,30::', whose colour may be missing."""
  for number, line in _without_comments(lines):
    match = _fullmatch(_CVAT_LINE, line)
    color = match and match[2].strip() and re.fullmatch(_RGB, match[2].strip())
    if not match or color is None:
      raise _not_understood(number, line, "'name:red,green,blue::'")
    yield _Entry(f'line {number}', match[1], None, _color(color.groups(), number) if color else None)


def _read_colors(lines):
  """Reads label_colors.txt: lines such as '250 170 30 traffic light', or the name before the numbers."""
  for index, (number, line) in enumerate(_without_comments(lines)):
    if index == 0 and set('rgb') <= set(re.split(r'[\s,]+', line.casefold())):
      continue  # a header
    match = _match_color(line)
    if not match:
      raise _not_understood(number, line, "'red green blue name'")
    yield _Entry(f'line {number}', match['name'], None, _color(match.group('r', 'g', 'b'), number))


def _match_color(line):
  return _fullmatch(_RGB_NAME, line) or _fullmatch(_NAME_RGB, line)


def _read_columns(lines):
  """Reads CSV files with a header: Roboflow's 'Pixel Value, Class', or class_dict.csv's 'name,r,g,b'."""
  lines = _without_comments(lines)
  if not lines:
    return
  columns = _columns(lines[0][1])
  if not columns:
    raise _not_understood(*lines[0], "a header such as 'Pixel Value, Class' or 'name,r,g,b'")
  for number, line in lines[1:]:
    cells = _cells(line)
    if len(cells) < len(columns) or any(cells[len(columns):]):
      raise _not_understood(number, line, f'the {len(columns)} columns of the header; put quotes around a '
                                          'name with a comma')
    row = dict(zip(columns, cells))
    color = tuple(row[key] for key in 'rgb') if set('rgb') <= row.keys() else None
    yield _Entry(f'line {number}', row['name'], _byte(row['value'], number) if 'value' in row else None,
                 color and _color(color, number))


def _columns(header):
  """Returns what each column of a CSV header holds, or None if it is no header of classes."""
  columns = [_COLUMNS.get(cell.casefold(), cell) for cell in _cells(header)]
  is_header = 'name' in columns and ('value' in columns or set('rgb') <= set(columns))
  return columns if is_header and len(set(columns)) == len(columns) else None


def _cells(line):
  if len(line) > _MAX_LINE:
    return []
  separator = '\t' if '\t' in line else ','
  try:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
  except csv.Error:
    return []


def _read_names(lines):
  """Reads one name a line, whose place is its value: 0, 1, ...; -1 is a first name `__ignore__`.

  If all lines begin with a number of their own, such as '7 road' or '7: road', that is the value.
  """
  lines = _without_comments(lines)
  matches = [_fullmatch(_NUMBERED, line) for _, line in lines]
  if all(matches) and all(len({match[group] for match in matches}) == len(matches) for group in (1, 2)):
    for (number, _), match in zip(lines, matches):
      yield _Entry(f'line {number}', match[2], _byte(match[1], number))
    return
  begin = -1 if lines and lines[0][1].casefold() == '__ignore__' else 0
  seen = set()
  for value, (number, name) in enumerate(lines, begin):
    if name in seen:
      raise DataError(f"line {number} is '{shortened(name)}' once more; give each class its own name")
    if len(name) > _MAX_LINE or value > 255:
      raise _not_understood(number, name, 'one of up to 256 names, one a line')
    seen.add(name)
    yield _Entry(f'line {number}', name, value)


def _fullmatch(pattern, line):
  return pattern.fullmatch(line) if len(line) <= _MAX_LINE else None


def _byte(text, number):
  if not re.fullmatch('[0-9]{1,3}', text) or int(text) > 255:
    raise DataError(f"line {number} has '{shortened(text)}' for a value or a part of a colour; use 0..255")
  return int(text)


def _color(texts, number):
  return tuple(_byte(text, number) for text in texts)


def _not_understood(number, line, expected):
  return DataError(f"line {number}, '{shortened(line)}', is not understood; it should be {expected}")


# --- JSON -------------------------------------------------------------------------------------------------


def _read_json(content):
  """Reads COCO's categories, Supervisely's meta.json, {"name": colour}, {"7": "name"}, or a list of these.

  The value of a class is the `id` of COCO's categories, or its place in a list of texts, or in Mapillary's
  labels. The `id` of other tools numbers the rows of their data bases.
  """
  keys = ('categories', 'classes', 'labels') if isinstance(content, dict) else ()
  key = next((key for key in keys if isinstance(content.get(key), list)), None)
  if key is None and isinstance(content, dict):
    yield from _read_pairs(content)
    return
  items = content if key is None else content[key]
  if not isinstance(items, list):
    raise _no_classes()
  for index, item in enumerate(items):
    place = f'class {index + 1}'
    if isinstance(item, str) and key != 'categories':
      yield _Entry(place, item, index)
    elif isinstance(item, dict):
      if 'readable' in item and 'evaluate' in item:  # Mapillary's, of which some share a colour
        yield _Entry(place, item['readable'], index)
        continue
      value = item.get('id') if key == 'categories' else None
      if key == 'categories' and not (type(value) is int and value >= 0):
        raise DataError(f"{place} has the id {shortened(repr(value))}; use 0 or more")
      yield _Entry(place, item.get('name', item.get('title')), value, _json_color(item.get('color'), place))
    else:
      raise DataError(f'{place} is {shortened(repr(item))}; use an object with a name')


def _read_pairs(content):
  for key, item in content.items():
    place = f'the key {shortened(repr(key))}'
    if isinstance(item, str) and re.fullmatch('[0-9]{1,3}', key):
      yield _Entry(place, item, int(key))
    elif isinstance(item, list) or isinstance(item, str) and item.startswith('#'):
      yield _Entry(place, key, None, _json_color(item, place))
    else:
      raise _no_classes()


def _no_classes():
  return DataError("it has no classes; use COCO's \"categories\", Supervisely's \"classes\", or "
                   '{"name": [red, green, blue]}')


def _json_color(color, place):
  """Returns (red, green, blue) of '#rrggbb' or [red, green, blue], or None of None."""
  if isinstance(color, str) and re.fullmatch('#[0-9a-fA-F]{6}', color):
    return tuple(bytes.fromhex(color[1:]))
  is_color = isinstance(color, list) and len(color) == 3 and all(
      type(part) is int and 0 <= part <= 255 for part in color)
  if not is_color and color is not None:
    raise DataError(f'{place} has the color {shortened(repr(color))}; use "#rrggbb" or [red, green, blue], '
                    'each 0..255')
  return tuple(color) if is_color else None


KNOWN = {
    'labelmap.txt': _read_cvat,         # CVAT
    '_classes.csv': _read_columns,      # Roboflow
    'label_colors.txt': _read_colors,   # CamVid and others
    'class_names.txt': _read_any, 'labels.txt': _read_any,  # labelme
    'classes.txt': _read_any, 'obj.names': _read_any,       # YOLO and others
    'class_dict.csv': _read_columns, 'class_dict_seg.csv': _read_columns,
    'obj_class_to_machine_color.json': _read_json, 'meta.json': _read_json,  # Supervisely
    '_annotations.coco.json': _read_json, 'categories.json': _read_json, 'classes.json': _read_json,
    'objectInfo150.txt': _read_columns,                                      # ADE20K
    **dict.fromkeys(('config_v2.0.json', 'config_v1.2.json', 'config.json'), _read_json),  # Mapillary
}
