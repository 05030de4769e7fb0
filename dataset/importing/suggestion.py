"""What a folder of labels holds, and the descriptor to start from that a person would write for it.

A key is what label files store: a value (int), a colour ((red, green, blue)), or descriptors.TRANSPARENT; or
the name of a labelme file's shapes.
"""
import collections
import json
import re
import typing

import numpy as np

from dataset import descriptors, label_files, polygons
from dataset.importing import class_files
from utils import workers
from utils.errors import DataError

_IGNORE = 255          # what labels of one channel usually hold if a pixel does not count
# Stray values have fewer pixels in a label, on average, and a smaller share of all; and there are few.
_STRAY_PIXELS, _STRAY_SHARE, _MOST_STRAYS = 10, 1e-4, 8
# Traces of a lossy format lie around a value that has most of the pixels, and far from the next such value.
_TRACE_SHARE, _TRACE_GAP = 0.8, 16


class Survey(typing.NamedTuple):
  """What labels hold.

  Attributes:
    pixels, labels: Counters of a key, its pixels and the labels that have it.
    palette: dict from values to colours, of palette PNGs; or empty.
    clash: (value, path, color, other path, other color) of two palettes that differ, or None.
    num_labels: int.
  """
  pixels: collections.Counter
  labels: collections.Counter
  palette: dict
  clash: tuple
  num_labels: int


def survey(paths, processes):
  """Returns the Survey of label files.

  Keys are colours, unless all labels store values and agree on what a palette's indices look like.

  Args:
    paths: list of str.
    processes: int.

  Raises:
    DataError: a file cannot be a label, or all hold more values or colours than there may be classes.
  """
  drawings = [path for path in paths if path.lower().endswith(label_files.POLYGONS)]
  if drawings and len(drawings) < len(paths):
    picture = next(path for path in paths if path not in drawings)
    raise DataError(f"labels are pictures and labelme's JSON files together, such as '{picture}' and "
                    f"'{drawings[0]}'; give folders that have one kind")
  read = _survey_drawing if drawings else label_files.survey_label
  contents, seen, clash, kinds = [], {}, None, set()
  for path, entries in zip(paths, workers.map_in_order(read, paths, processes)):
    contents.append(entries)
    for entry in entries:
      kinds.add(entry.color if entry.value is None else entry.value)
      if entry.color and entry.value is not None:
        before, color = seen.setdefault(entry.value, (path, entry.color))
        if color != entry.color and clash is None:
          clash = (entry.value, before, color, path, entry.color)
    if len(kinds) > label_files.MAX_CLASSES + 1:
      raise DataError(f"{label_files.source_of(path)} and those before it hold {len(kinds)} values or "
                      f'colours together, and there are at most {label_files.MAX_CLASSES} classes; they may '
                      'be ids of objects, or made by resizing, smoothing or JPEG: export the labels anew; '
                      'if all are classes, write a descriptor whose "values" join them, also by "other"')
  is_color = clash is not None or any(entry.value is None for entries in contents for entry in entries)
  pixels, labels = collections.Counter(), collections.Counter()
  for path, entries in zip(paths, contents):
    for entry in entries:
      key = entry.value
      if is_color and not entry.color and isinstance(key, int) and key > 255:
        raise DataError(f'{label_files.source_of(path)} holds ids of 16 bits, and other labels hold colours; '
                        'give folders, or a --label_suffix, that have one kind')
      if is_color and key != descriptors.TRANSPARENT:
        key = entry.color or (key,) * 3
      pixels[key] += entry.pixels
      labels[key] += 1
  palette = {} if is_color else {value: color for value, (_, color) in seen.items()}
  return Survey(pixels, labels, palette, clash, len(paths))


def _survey_drawing(path):
  """Returns what a labelme file holds: a list of label_files.Entry whose values are the names of shapes."""
  drawing = polygons.read(path)
  names = polygons.names(drawing)
  if len(names) > label_files.MAX_CLASSES - 1:
    raise DataError(f"label '{path}' has shapes of {len(names)} names, and there are at most "
                    f'{label_files.MAX_CLASSES} classes; name them by class, not by object')
  drawn = polygons.draw(drawing, {name: number for number, name in enumerate(names, 1)}, 0)
  pixels = np.bincount(drawn.ravel(), minlength=len(names) + 1)[1:].tolist()
  return [label_files.Entry(name, None, count) for name, count in zip(names, pixels)]


def in_order(found):
  """Returns the keys of a Survey: values by size, or colours by their share of pixels."""
  is_color = _is_color(found)
  return sorted(found.pixels, key=lambda key: (-found.pixels[key], str(key)) if is_color else
                (isinstance(key, str), key))


def _is_color(found):
  return any(isinstance(key, tuple) for key in found.pixels)


def key_text(key):
  """Returns a key as descriptors write it."""
  return descriptors.hex_color(key) if isinstance(key, tuple) else str(key)


class Suggestion(typing.NamedTuple):
  """A descriptor to start from.

  Attributes:
    descriptor: dict.
    remarks: list of str, sentences on what was taken for what.
  """
  descriptor: dict
  remarks: list


def suggest(name, found, classes=None):
  """Returns the Suggestion for labels.

  Args:
    name: str, of the dataset.
    found: Survey.
    classes: class_files.Classes that a tool left beside the labels, or None.

  Raises:
    DataError: there are fewer than two classes.
  """
  if any(isinstance(key, str) and key != descriptors.TRANSPARENT for key in found.pixels):
    return _of_names(name, found, classes)
  known = _known_keys(found, classes) if classes else {}
  if known.keys() & found.pixels.keys():
    return _of_class_file(name, found, classes, known)
  left_out = [f"Left out '{classes.path}': the labels hold none of its values or colours"] if classes else []
  traces = _find_traces(found)
  strays = [key for key in _find_strays(found) if key not in traces]
  ignored = [*strays, *[_IGNORE] * (not traces and _is_border(found, strays))]
  order = in_order(found)
  names = {key: f'class_{key_text(key).strip("#")}' for key in order
           if key not in ignored and key not in traces}
  if len(names) < 2:
    raise DataError(f'the labels hold nothing but {" and ".join(map(key_text, order))}, and training takes '
                    'two classes or more; check --labels, and whether they were exported with their classes')
  targets = {key: names.get(traces.get(key, key), 'ignore') for key in order}
  return Suggestion(_descriptor(name, found, targets),
                    left_out + _remarks_on_values(found, traces, strays, _IGNORE in ignored))


def _descriptor(name, found, targets, colors=()):
  """Returns a descriptor by what keys mean: {key: class name or 'ignore'}, classes in their order.

  Args:
    name: str.
    found: Survey.
    targets: dict.
    colors: dict from class names to (red, green, blue) that are to be shown, if any.
  """
  names = _class_names(targets)
  descriptor, is_color = {'name': name, 'class_names': names}, _is_color(found)
  if not is_color:
    of_name = {label: max((key for key in targets if targets[key] == label), key=found.pixels.__getitem__)
               for label in names}
    if colors:
      descriptor['palette'] = [list(colors[label]) for label in names]
    elif found.palette and all(key in found.palette for key in of_name.values()):
      descriptor['palette'] = [list(found.palette[key]) for key in of_name.values()]
  # Labels that store class ids as they should be need no conversion.
  if {**targets, _IGNORE: 'ignore'} != {**dict(enumerate(names)), _IGNORE: 'ignore'}:
    coding = {key_text(key): target for key, target in targets.items()}
    descriptor['colors' if is_color else 'values'] = coding
  return descriptor


def _class_names(targets):
  """Returns the names of classes among {key: class name or 'ignore'}, each once."""
  return [target for target in dict.fromkeys(targets.values()) if target != 'ignore']


def _remarks_on_values(found, traces, strays, ignores_255):
  """Returns the sentences on what was taken for what, where no file names the values or colours."""
  remarks = []
  if traces:
    peaks = sorted(set(traces.values()))
    remarks.append(f'Took the {len(traces)} values beside {_listed(peaks)} for traces of JPEG or smoothing, '
                   'and gave each the class of the nearest; labels that are exported as PNG, without '
                   'smoothing, are better')
  remarks += [f'Took {key_text(key)} for stray pixels, which are ignored: {found.pixels[key]} of them, in '
              f'{found.labels[key]} of {found.num_labels} labels; if they are a class, give it a name'
              for key in strays]
  if ignores_255:
    remarks.append(f'Took {_IGNORE} for what is ignored, as in most datasets; if it is a class, give it a '
                   'name')
  elif found.pixels[_IGNORE] and not traces and len(found.pixels) > 2:
    remarks.append(f'Took {_IGNORE} for a class, since it has more pixels than borders have; if it does not '
                   'count, give it "ignore"')
  if found.clash:
    value, path, color, other, other_color = found.clash
    remarks.append(f"Took the colours for what counts, since palettes differ: {value} is "
                   f"{key_text(color)} in '{path}' and {key_text(other_color)} in '{other}'")
  if descriptors.TRANSPARENT in found.pixels:
    remarks.append('Took transparent pixels for a class of their own, such as the background')
  return remarks


def _known_keys(found, classes):
  """Returns {key: name} of the keys that a Survey may have and class_files.Classes name."""
  if _is_color(found):
    return classes.colors
  if not classes.values:
    # Palette PNGs of the listed colours, such as CVAT's, or ids that are listed as grey, as by Supervisely.
    shown = {found.palette.get(key, (key,) * 3): key for key in found.pixels}
    return {shown[color]: name for color, name in classes.colors.items() if color in shown}
  # labelme writes its -1, which does not count, as 255.
  return {_IGNORE if value == -1 else value: name for value, name in classes.values.items()}


def _of_class_file(name, found, classes, known):
  """Returns the Suggestion for labels beside which a tool left its classes, also those without a pixel."""
  unknown = [key for key in in_order(found) if key not in known]
  targets = {**{key: 'ignore' if class_files.is_ignored(label) else label for key, label in known.items()},
             **dict.fromkeys(unknown, 'ignore')}
  names = _class_names(targets)
  if len(names) < 2:
    raise DataError(f"'{classes.path}' names {len(names)} of the classes that the labels hold, and training "
                    'takes two or more; check that it belongs to them, or move it away')
  remarks = [f"Took the names in '{classes.path}'"]
  for key in unknown:
    what = 'what is ignored' if key == _IGNORE else 'ignored, since that file does not name it'
    is_large = found.pixels[key] > label_files.MUCH_IGNORED * sum(found.pixels.values())
    background = ('; if it is the background, put that name into class_names too, and in place of "ignore"'
                  if is_large and key in (0, (0, 0, 0)) else '')
    remarks.append(f'Took {key_text(key)} for {what}: {found.pixels[key]} pixels in {found.labels[key]} of '
                   f'{found.num_labels} labels{background}')
  present = {target for key, target in targets.items() if found.pixels[key]}
  if absent := [label for label in names if label not in present]:
    remarks.append(f'No pixel is {_listed(absent)}: kept as classes; take out what you do not need')
  is_grey = all(len(set(color)) == 1 for color in classes.colors)
  colors = {} if is_grey else {label: color for color, label in classes.colors.items()}
  return Suggestion(_descriptor(name, found, targets, colors), remarks)


def _of_names(name, found, classes):
  """Returns the Suggestion for labelme files."""
  listed = [label for label in classes.names if not class_files.is_ignored(label)] if classes else []
  names = [*listed, *(key for key in sorted(found.pixels) if key not in (*listed, descriptors.IGNORED_NAME))]
  background = next((label for label in names if label in descriptors.BACKGROUND_NAMES), None)
  remarks = [f"Took the order of the classes from '{classes.path}'"] if classes else []
  if background is None:
    background = descriptors.BACKGROUND_NAMES[-1]
    remarks.append(f"Took what no shape covers for a class, '{background}'; if it does not count, take that "
                   f'name out, and add "names": {{"{descriptors.BACKGROUND_NAMES[0]}": "ignore"}}')
  names = list(dict.fromkeys([background, *names]))
  return Suggestion({'name': name, 'class_names': names}, remarks)


def suggest_categories(name, tables):
  """Returns the Suggestion for COCO's panoptic labels.

  Args:
    name: str, of the dataset.
    tables: list of panoptic.Panoptic.
  """
  names = list(dict.fromkeys(label for table in tables for label in table.categories.values()))
  return Suggestion({'name': name, 'class_names': names}, [
      f'Took the {len(names)} categories for classes, and pixels of no segment for what is ignored; "names": '
      '{"one": "another", "third": "ignore"} joins categories or leaves them out'])


def _listed(values):
  """Returns 'a, b and c', of at most ten."""
  texts = [str(value) for value in values[:10]]
  if len(values) > 10:
    texts.append(f'{len(values) - 10} others')
  return ' and '.join([', '.join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _find_traces(found):
  """Returns {value: peak} of the values that a lossy format has made of others; empty if there are none.

  Such values lie around peaks that have most of the pixels of their neighbourhood, and neighbourhoods are far
  apart. Class ids count up and make one neighbourhood of several values, so two or more are asked for.
  """
  values = sorted(key for key in found.pixels if isinstance(key, int))
  runs = []
  for value in values:
    if runs and value - runs[-1][-1] < _TRACE_GAP:
      runs[-1].append(value)
    else:
      runs.append([value])
  if sum(len(run) > 1 for run in runs) < 2:
    return {}
  traces = {}
  for run in runs:
    peak = max(run, key=lambda value: found.pixels[value])
    if found.pixels[peak] < _TRACE_SHARE * sum(found.pixels[value] for value in run):
      return {}
    traces.update((value, peak) for value in run if value != peak)
  return traces


def _find_strays(found):
  """Returns the keys of stray pixels: a handful in each label that has them, and rare in all.

  An object, however small, is larger than that; a slip of the pen is not. If there are many such keys,
  smoothing or JPEG has made them, and none is taken for a stray.
  """
  limit = _STRAY_SHARE * sum(found.pixels.values())
  strays = [key for key in in_order(found) if key not in (0, _IGNORE, descriptors.TRANSPARENT)
            and found.pixels[key] < _STRAY_PIXELS * found.labels[key] and found.pixels[key] < limit]
  return strays if len(strays) <= _MOST_STRAYS else []


def _is_border(found, strays):
  """Returns whether 255 is a border, which does not count, and not a class of its own.

  A border has fewer pixels than what it surrounds. A 255 that has more than all classes but the largest is
  the foreground, or the background, of a mask.
  """
  others = sorted(found.pixels[key] for key in found.pixels if key != _IGNORE and key not in strays)
  return 0 < found.pixels[_IGNORE] <= sum(others[:-1])


def to_text(descriptor):
  """Returns the JSON with one entry of a list or object a line, to be edited."""
  text = json.dumps(descriptor, ensure_ascii=False, indent=2) + '\n'
  return re.sub(r'\[\s+(\d+),\s+(\d+),\s+(\d+)\s+\]', r'[\1, \2, \3]', text)
