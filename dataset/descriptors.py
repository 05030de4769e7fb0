"""Datasets: what their labels mean. Free of TensorFlow.

A `Dataset` is everything that the code knows about one: VOC and Cityscapes stand in a table here, a user's
own comes from a JSON descriptor with the same keys (dataset/camvid.json is one). A label pixel counts if it
differs from `ignore_label`, which may lie inside 0..K-1.
"""
import dataclasses
import re
import unicodedata

from utils import files
from utils.errors import DataError, UsageError

# Keys of `values` and `colors`: pixels of alpha 0, and whatever is not listed.
TRANSPARENT, OTHER = 'transparent', 'other'
_TEXT_KEYS = (TRANSPARENT, OTHER)
MAX_VALUE = 65535  # that a label file may store

# Shapes of this name do not count. What no shape covers is the class of the first of these that there is.
IGNORED_NAME = '__ignore__'
BACKGROUND_NAMES = ('_background_', 'background')


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The classes of a dataset and how they are stored and shown.

  Attributes:
    name: str.
    class_names: tuple of K str; the position of a name is its label value.
    palette: tuple of K (red, green, blue) tuples, 0..255.
    ignore_label: int, 0..255: the label value of pixels that do not count.
    splits: dict from split name to its number of images; may be empty.
    values: dict from the values, 0..65535, that label files store to label values (a class, or
      ignore_label). Empty if label files store label values.
    colors: dict from the (red, green, blue) of colour-coded label files to label values, in place
      of `values`; or empty. Keys of both may also be TRANSPARENT and OTHER.
    names: dict from names in labels of polygons or segments to label values, beside class_names; or empty.
  """
  name: str
  class_names: tuple
  palette: tuple
  ignore_label: int = 255
  splits: dict = dataclasses.field(default_factory=dict)
  values: dict = dataclasses.field(default_factory=dict)
  colors: dict = dataclasses.field(default_factory=dict)
  names: dict = dataclasses.field(default_factory=dict)

  @property
  def num_classes(self):
    return len(self.class_names)

  def labels_of_names(self):
    """Returns {name: label value} of all names that labels of polygons or segments may use."""
    return {IGNORED_NAME: self.ignore_label, **{name: label for label, name in enumerate(self.class_names)},
            **self.names}


def voc_palette(num_classes):
  """Returns VOC's colours of the first `num_classes` (0..256) label values, as RGB tuples.

  The bits of a label value go in turn to red, green and blue, the lowest three to their highest
  bits: 6 = 0b110 has those of green and blue, (0, 128, 128); 8 = 0b1000 red's second, (64, 0, 0).
  """
  def channel(label, offset):
    return sum((label >> (3 * i + offset) & 1) << (7 - i) for i in range(3))

  return tuple((channel(label, 0), channel(label, 1), channel(label, 2))
               for label in range(num_classes))


# Black and the seven colours of Okabe and Ito (Color Universal Design, 2008), which the colour-blind can tell
# apart; then, of a grid, always the colour farthest in CIELAB from those before it, as any kind of colour
# blindness shows it (Machado et al. 2009). The closest two differ by 12, VOC's first 21 by 1.
_DISTINCT = (
    '000000', 'e69f00', '56b4e9', '009e73', 'f0e442', '0072b2', 'd55e00', 'cc79a7',
    '9933ff', 'ccffcc', '663300', '330099', '990066', '00ffff', '330033', '99cc66',
    'ff0066', '0000ff', 'cc66ff', '333333', '666633', '330066', '99ff99', 'cccccc',
    '6600cc', '999933', 'cc9999', '993399', '9933cc', 'cc0033', '00ff66', 'ffff33')


def distinct_palette(num_classes):
  """Returns `num_classes` (0..256) different colours; the colour-blind can tell the first 32 apart."""
  first = [tuple(bytes.fromhex(color)) for color in _DISTINCT]
  return tuple([*first, *(color for color in voc_palette(256) if color not in first)][:num_classes])


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
    descriptor['colors'] = {key if key in _TEXT_KEYS else hex_color(key): label
                            for key, label in dataset.colors.items()}
  if dataset.names:
    descriptor['names'] = dict(dataset.names)
  return descriptor


def first_difference(names, others):
  """Returns (position, name, other name) of the first difference of two lists of as many class names."""
  return next((number, *pair) for number, pair in enumerate(zip(names, others)) if pair[0] != pair[1])


def is_text(value):
  """Returns whether a value is a text that can be printed in UTF-8, on one line, and shows something."""
  kinds = [unicodedata.category(character) for character in value] if isinstance(value, str) else []
  return not {'Cc', 'Cs', 'Zl', 'Zp'} & {*kinds} and any(kind not in ('Cf', 'Zs') for kind in kinds)


def hex_color(color):
  """Returns (red, green, blue), 0..255, as '#rrggbb'."""
  return '#' + bytes(color).hex()


def from_json(descriptor, source):
  """Returns the Dataset that a descriptor describes.

  Args:
    descriptor: dict with name and class_names (2..256 of them); the other attributes of Dataset are
      optional. Without a palette a class gets its first colour in `colors`, or a distinct one. The keys
      of `values` are texts such as "255", those of `colors` "#ff0080" or "[255, 0, 128]", those of
      `names` any; what they stand for is a class's number or name, or the ignore label or "ignore".
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
  demand(is_text(name), 'name must be a text that shows something, without control characters')
  demand(isinstance(class_names, list) and all(map(is_text, class_names)),
         'class_names must be a list of texts that show something, without control characters')
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
  """Returns the first colour of each class in `Dataset.colors`, or one of its own."""
  palette = dict(enumerate(distinct_palette(num_classes)))
  palette.update((label, color) for color, label in reversed(colors.items())
                 if label < num_classes and color not in _TEXT_KEYS)
  return tuple(palette.values())


def _read_coding(descriptor, class_names, ignore_label, demand):
  """Returns the dicts `values`, `colors` and `names`, by name, of a descriptor whose other keys are right."""
  demand(not (descriptor.get('values') and descriptor.get('colors')),
         "'values' and 'colors' exclude each other; give the one that the label files hold")
  labels = {'ignore': ignore_label, **{name: label for label, name in enumerate(class_names)}}
  coding = {}
  for kind, read_key, example in (('values', _read_value, '"255" (up to 65535), "transparent" or "other"'),
                                  ('colors', _read_color, '"#ff0080", "[255, 0, 128]", "transparent" or '
                                                          '"other"'),
                                  ('names', str, '"cat"')):
    entries = descriptor.get(kind, {})
    demand(isinstance(entries, dict), f"'{kind}' must be an object from keys such as {example} to classes")
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
    demand(not entries or not unused or kind == 'names',
           f"'{kind}' has nothing for {unused}; add it, or take the class out")
  return coding


def _read_value(text):
  """Returns 0..65535 or one of _TEXT_KEYS, or None if the text is none of them."""
  if text in _TEXT_KEYS:
    return text
  return int(text) if re.fullmatch('[0-9]{1,5}', text) and int(text) <= MAX_VALUE else None


def _read_color(text):
  """Returns (red, green, blue) or one of _TEXT_KEYS, or None if the text is none of them."""
  if text in _TEXT_KEYS:
    return text
  if re.fullmatch('#[0-9a-fA-F]{6}', text):
    return tuple(bytes.fromhex(text[1:]))
  numbers = re.fullmatch(r'[\[(]? *([0-9]+) *, *([0-9]+) *, *([0-9]+) *[\])]?', text)
  color = tuple(map(int, numbers.groups())) if numbers else None
  return color if color and max(color) <= 255 else None


def _is_byte(value):
  return type(value) is int and 0 <= value <= 255


def _is_colour(value):
  return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_byte, value))
