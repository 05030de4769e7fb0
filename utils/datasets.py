"""Datasets: what their labels mean, and how the files of a list are found.

A `Dataset` is everything that the code knows about one: VOC and Cityscapes stand in a table here,
a user's own comes from a JSON descriptor with the same keys (dataset/camvid.json is one). A label
pixel counts where it differs from `ignore_label`, which may lie inside 0..K-1. The bytes of images
and labels are utils/tf_record.py's concern; nothing here needs TensorFlow.
"""
import dataclasses
import io
import os
import re
import typing
import unicodedata

from utils import files
from utils.errors import DataError, UsageError

# '.jpg' is tried before these, and wins: it is what VOC's lists mean.
OTHER_EXTENSIONS = ('.jpeg', '.JPG', '.png', '.bmp', '.tif', '.tiff', '.webp')
LABEL_EXTENSIONS = ('.png', '.PNG')


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The classes of a dataset and how they are stored and shown.

  Attributes:
    name: str.
    class_names: tuple of K str; the position of a name is its label value.
    palette: tuple of K (red, green, blue) tuples, 0..255.
    ignore_label: int, 0..255: the label value of pixels that do not count.
    splits: dict from split name to its number of images; may be empty.
    values: dict from the values, 0..255, that label files store to label values (a class, or
      ignore_label). Empty where label files store label values.
    colors: dict from the (red, green, blue) of colour-coded label files to label values, in place
      of `values`; or empty.
  """
  name: str
  class_names: tuple
  palette: tuple
  ignore_label: int = 255
  splits: dict = dataclasses.field(default_factory=dict)
  values: dict = dataclasses.field(default_factory=dict)
  colors: dict = dataclasses.field(default_factory=dict)

  @property
  def num_classes(self):
    return len(self.class_names)


class Pair(typing.NamedTuple):
  """An image and its label, as they go into a record.

  Attributes:
    image, label: str, the paths.
    dataset: Dataset, what the label file means.
    name: str, the image's path below the folder of the images.
  """
  image: str
  label: str
  dataset: Dataset
  name: str


def voc_palette(num_classes):
  """Returns VOC's colours of the first `num_classes` (0..256) label values, as RGB tuples.

  The bits of a label value go in turn to red, green and blue, the lowest three to their highest
  bits: 6 = 0b110 has those of green and blue, (0, 128, 128); 8 = 0b1000 red's second, (64, 0, 0).
  """
  def channel(label, offset):
    return sum((label >> (3 * i + offset) & 1) << (7 - i) for i in range(3))

  return tuple((channel(label, 0), channel(label, 1), channel(label, 2))
               for label in range(num_classes))


_VOC_NAMES = (
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
    'train', 'tvmonitor')

# The 19 classes that Cityscapes evaluates, in the order of its train ids.
_CITYSCAPES_COLOURS = {
    'road': (128, 64, 128), 'sidewalk': (244, 35, 232), 'building': (70, 70, 70),
    'wall': (102, 102, 156), 'fence': (190, 153, 153), 'pole': (153, 153, 153),
    'traffic light': (250, 170, 30), 'traffic sign': (220, 220, 0), 'vegetation': (107, 142, 35),
    'terrain': (152, 251, 152), 'sky': (70, 130, 180), 'person': (220, 20, 60),
    'rider': (255, 0, 0), 'car': (0, 0, 142), 'truck': (0, 0, 70), 'bus': (0, 60, 100),
    'train': (0, 80, 100), 'motorcycle': (0, 0, 230), 'bicycle': (119, 11, 32),
}

# The label id of each train id, from cityscapesScripts (github.com/mcordts/cityscapesScripts,
# cityscapesscripts/helpers/labels.py). Its label ids 0..33 that are not here are not scored.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_TRAIN_IDS = {
    **dict.fromkeys(range(34), 255),
    **{label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_LABEL_IDS)},
}

DATASETS = {
    # VOC 2012; 10,582 training images with the additional labels of SBD (SegmentationClassAug).
    'voc': Dataset('voc', _VOC_NAMES, voc_palette(21), splits={'train': 10582, 'val': 1449}),
    'cityscapes': Dataset(
        'cityscapes', tuple(_CITYSCAPES_COLOURS), tuple(_CITYSCAPES_COLOURS.values()),
        splits={'train': 2975, 'val': 500, 'test': 1525}),
}


def get_dataset(name_or_path):
  """Returns the Dataset of a name in the table or of a JSON descriptor.

  Args:
    name_or_path: str, 'voc', 'cityscapes' or a path that ends in .json.

  Raises:
    UsageError: neither a known name nor a .json path.
    DataError: the descriptor is missing or wrong.
  """
  if name_or_path in DATASETS:
    return DATASETS[name_or_path]
  if not name_or_path.endswith('.json'):
    raise UsageError(f"--dataset '{name_or_path}' is not known; use {', '.join(DATASETS)} or the "
                     'path of a .json descriptor')
  descriptor = files.read_json(name_or_path, f"dataset descriptor '{name_or_path}'")
  return from_json(descriptor, name_or_path)


def to_json(dataset):
  """Returns the Dataset as a dict that `json.dump` writes and `from_json` reads."""
  descriptor = {
      'name': dataset.name,
      'class_names': list(dataset.class_names),
      'palette': [list(colour) for colour in dataset.palette],
      'ignore_label': dataset.ignore_label,
      'splits': dict(dataset.splits),
  }
  if dataset.values:
    descriptor['values'] = {str(value): label for value, label in dataset.values.items()}
  if dataset.colors:
    descriptor['colors'] = {hex_color(color): label for color, label in dataset.colors.items()}
  return descriptor


def first_difference(names, others):
  """Returns (position, name, other name) of the first difference of two lists of as many class names."""
  return next((number, *pair) for number, pair in enumerate(zip(names, others)) if pair[0] != pair[1])


def hex_color(color):
  """Returns (red, green, blue), 0..255, as '#rrggbb'."""
  return '#' + bytes(color).hex()


def from_json(descriptor, source):
  """Returns the Dataset that a descriptor describes.

  Args:
    descriptor: dict with name and class_names (2..256 of them); the other attributes of Dataset are
      optional. Without a palette a class gets its first colour in `colors`, or else VOC's. The keys
      of `values` are texts such as "255", those of `colors` "#ff0080" or "[255, 0, 128]"; what they
      stand for is a class's number or name, or the ignore label or "ignore".
    source: str, where the descriptor comes from; errors name it.

  Raises:
    DataError: a key is missing or unknown, or a value is not what the key allows.
  """
  def demand(condition, sentence):
    if not condition:
      raise DataError(f"dataset descriptor '{source}': {sentence}")

  demand(isinstance(descriptor, dict), 'must be an object of keys and values')
  missing = {'name', 'class_names'} - descriptor.keys()
  demand(not missing, f"the key '{min(missing, default='')}' is missing")
  allowed = [field.name for field in dataclasses.fields(Dataset)]
  unknown = descriptor.keys() - set(allowed)
  demand(not unknown, f"the key '{min(unknown, default='')}' is unknown; use {', '.join(allowed)}")

  name, class_names = descriptor['name'], descriptor['class_names']
  demand(_is_text(name), 'name must be a text')
  demand(isinstance(class_names, list) and all(map(_is_text, class_names)),
         'class_names must be a list of texts without control characters')
  demand(2 <= len(class_names) <= 256, f'{len(class_names)} class_names; 2 to 256 are allowed')
  twice = sorted({n for n in class_names if class_names.count(n) > 1})
  demand(not twice, f'class_names holds {twice} more than once')

  ignore_label = descriptor.get('ignore_label', 255)
  demand(_is_byte(ignore_label), f'ignore_label {ignore_label!r} is not allowed; use 0..255')
  splits = descriptor.get('splits', {})
  demand(isinstance(splits, dict) and all(type(n) is int and n > 0 for n in splits.values()),
         'splits must give the number of images, 1 or more, of each split')
  coding = _read_coding(descriptor, class_names, ignore_label, demand)

  palette = descriptor.get('palette', _default_palette(len(class_names), coding['colors']))
  demand(isinstance(palette, (list, tuple)) and all(map(_is_colour, palette)),
         'palette must be a list of [red, green, blue], each 0..255')
  demand(len(palette) == len(class_names),
         f'{len(palette)} colours in palette for {len(class_names)} class_names; give one a class')
  return Dataset(name, tuple(class_names), tuple(map(tuple, palette)), ignore_label, dict(splits), **coding)


def _default_palette(num_classes, colors):
  """Returns the first colour of each class in `Dataset.colors`, or VOC's."""
  palette = dict(enumerate(voc_palette(num_classes)))
  palette.update((label, color) for color, label in reversed(colors.items()) if label < num_classes)
  return tuple(palette.values())


def _read_coding(descriptor, class_names, ignore_label, demand):
  """Returns {'values': dict, 'colors': dict} of a descriptor whose other keys are right."""
  demand(not (descriptor.get('values') and descriptor.get('colors')),
         "'values' and 'colors' exclude each other; give the one that the label files hold")
  labels = {'ignore': ignore_label, **{name: label for label, name in enumerate(class_names)}}
  coding = {}
  for kind, read_key, example in (('values', _read_value, '"255"'),
                                  ('colors', _read_color, '"#ff0080" or "[255, 0, 128]"')):
    entries = descriptor.get(kind, {})
    demand(isinstance(entries, dict), f"'{kind}' must be an object such as {{{example}: 1}}")
    coding[kind] = {}
    for text, target in entries.items():
      key = read_key(text)
      demand(key is not None, f"the key '{text}' of '{kind}' is not allowed; use {example}")
      demand(key not in coding[kind], f"'{kind}' holds '{text}' more than once")
      label = labels.get(target, target) if isinstance(target, str) else target
      demand(_is_byte(label) and (label < len(class_names) or label == ignore_label),
             f"'{kind}' turns '{text}' into {target!r}; use a class's name or number, 0.."
             f'{len(class_names) - 1}, or "ignore"')
      coding[kind][key] = label
    unused = [name for label, name in enumerate(class_names) if label not in coding[kind].values()]
    demand(not entries or not unused, f"'{kind}' has nothing for {unused}; add it, or take the class out")
  return coding


def _read_value(text):
  """Returns 0..255, or None where the text is none of them."""
  return int(text) if re.fullmatch('[0-9]{1,3}', text) and int(text) <= 255 else None


def _read_color(text):
  """Returns (red, green, blue), or None where the text is no colour."""
  if re.fullmatch('#[0-9a-fA-F]{6}', text):
    return tuple(bytes.fromhex(text[1:]))
  numbers = re.fullmatch(r'[\[(]? *([0-9]+) *, *([0-9]+) *, *([0-9]+) *[\])]?', text)
  color = tuple(map(int, numbers.groups())) if numbers else None
  return color if color and max(color) <= 255 else None


def _is_text(value):
  """Returns whether a value is a text that can be printed: on one line, and in UTF-8."""
  return isinstance(value, str) and value != '' and not any(
      unicodedata.category(character) in ('Cc', 'Cs', 'Zl', 'Zp') for character in value)


def _is_byte(value):
  return type(value) is int and 0 <= value <= 255


def _is_colour(value):
  return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_byte, value))


def read_list(path):
  """Returns the lines of a list of names, stripped, without blank ones.

  Raises:
    DataError: the list is missing, no text, empty, or holds a line twice.
  """
  try:
    text = files.read_text(path, f"list '{path}'")
  except DataError as error:
    raise DataError(f'{error}; a list is a text file with one name a line') from error
  names = [line.strip() for line in io.StringIO(text, newline=None) if line.strip()]
  if not names:
    raise DataError(f"list '{path}' is empty; give one name a line")
  seen = set()
  for name in names:
    if name in seen:
      raise DataError(f"list '{path}' holds '{name}' more than once; remove one")
    seen.add(name)
  return names


def find_image(folder, name):
  """Returns the path of the image that a line of a list names.

  The line is a file name with or without extension. Where no such file is there, its first word is
  tried (lists such as '2007_000032 1').

  Args:
    folder: str, the folder of the images.
    name: str, a line of `read_list`.

  Raises:
    DataError: there is no such image, or several with other extensions than .jpg.
  """
  for stem in dict.fromkeys((name, name.split()[0])):
    path = os.path.join(folder, stem)
    for candidate in (path, path + '.jpg'):
      if os.path.isfile(candidate):
        return candidate
    found = [path + end for end in OTHER_EXTENSIONS if os.path.isfile(path + end)]
    if len(found) > 1:
      raise DataError(f"'{name}' could be {' or '.join(found)}; keep one, or give the extension in "
                      'the list')
    if found:
      return found[0]
  if not os.path.isdir(folder):
    raise DataError(f"image folder '{folder}' does not exist; check the folder flags")
  raise DataError(f"image '{name}' is not in '{folder}', neither as that nor with .jpg, "
                  f"{', '.join(OTHER_EXTENSIONS)} added; check the list and the folder")


def find_pairs(image_dir, label_dir, names):
  """Returns [(image path, label path), ...] of a list's lines; a label is `<image's stem>.png`.

  Args:
    image_dir: str, the folder of the images.
    label_dir: str, the folder of the labels.
    names: list of str, lines of `read_list`.

  Raises:
    DataError: images or labels do not exist, or two lines mean one label; the error names all.
  """
  pairs, problems = match_pairs(image_dir, label_dir, names)
  if problems:
    raise DataError('\n'.join(problems))
  return [(pair.image, pair.label) for pair in pairs]


def match_pairs(image_dir, label_dir, names, dataset=None, label_suffix=''):
  """Returns the Pairs of a list's lines, and a sentence for each line that makes none.

  Args:
    image_dir: str, the folder of the images.
    label_dir: str, the folder of the labels, laid out as the other.
    names: list of str, lines of `read_list`.
    dataset: Dataset of the labels.
    label_suffix: str: a label is `<image's stem><label_suffix>.png`.

  Raises:
    DataError: a folder does not exist.
  """
  for kind, folder in (('image', image_dir), ('label', label_dir)):
    if not os.path.isdir(folder):
      raise DataError(f"{kind} folder '{folder}' does not exist; check the folder flags")
  pairs, problems, lines = [], [], {}
  for line in names:
    try:
      image = find_image(image_dir, line)
      name = os.path.relpath(image, image_dir)
      label = _find_label(os.path.join(label_dir, os.path.splitext(name)[0] + label_suffix), image)
      other = lines.setdefault(label, line)
      if other is not line:
        raise DataError(f"'{other}' and '{line}' both have the label '{label}'; keep one, or give "
                        'each image its own')
      pairs.append(Pair(image, label, dataset, name))
    except DataError as error:
      problems.append(str(error))
  return pairs, problems


def _find_label(stem, image):
  """Returns the path of a label from its path without the extension."""
  for extension in LABEL_EXTENSIONS:
    if os.path.isfile(stem + extension):
      return stem + extension
  raise DataError(f"label '{stem}.png' of image '{image}' does not exist; add it, or take the name "
                  'out of the list')
