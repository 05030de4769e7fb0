"""Datasets: what their labels mean, and how the files of a list are found.

A `Dataset` is everything that the code knows about one: VOC and Cityscapes stand in a table here,
a user's own comes from a JSON descriptor with the same keys (dataset/camvid.json is one). A label
pixel counts where it differs from `ignore_label`, which may lie inside 0..K-1. The bytes of images
and labels are utils/tf_record.py's concern; nothing here needs TensorFlow.
"""
import dataclasses
import json
import os

from utils.errors import DataError, UsageError

# '.jpg' is tried before these, and wins: it is what VOC's lists mean.
OTHER_EXTENSIONS = ('.jpeg', '.JPG', '.png', '.bmp', '.tif', '.tiff', '.webp')


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The classes of a dataset and how they are stored and shown.

  Attributes:
    name: str.
    class_names: tuple of K str; the position of a name is its label value.
    palette: tuple of K (red, green, blue) tuples, 0..255.
    ignore_label: int, 0..255: the label value of pixels that do not count.
    splits: dict from split name to its number of images; may be empty.
  """
  name: str
  class_names: tuple
  palette: tuple
  ignore_label: int = 255
  splits: dict = dataclasses.field(default_factory=dict)

  @property
  def num_classes(self):
    return len(self.class_names)


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
  try:
    with open(name_or_path, encoding='utf-8') as file:
      descriptor = json.load(file)
  except OSError as error:
    raise DataError(f"dataset descriptor '{name_or_path}' cannot be read: "
                    f'{error.strerror}') from error
  except ValueError as error:
    raise DataError(f"dataset descriptor '{name_or_path}' is no JSON: {error}") from error
  return from_json(descriptor, name_or_path)


def to_json(dataset):
  """Returns the Dataset as a dict that `json.dump` writes and `from_json` reads."""
  return {
      'name': dataset.name,
      'class_names': list(dataset.class_names),
      'palette': [list(colour) for colour in dataset.palette],
      'ignore_label': dataset.ignore_label,
      'splits': dict(dataset.splits),
  }


def from_json(descriptor, source):
  """Returns the Dataset that a descriptor describes.

  Args:
    descriptor: dict with name and class_names (2..256 of them); palette, ignore_label (255) and
      splits are optional. Without a palette the classes get VOC's colours, continued.
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
  demand(isinstance(name, str) and name, 'name must be a text')
  demand(isinstance(class_names, list) and all(isinstance(n, str) and n for n in class_names),
         'class_names must be a list of texts')
  demand(2 <= len(class_names) <= 256, f'{len(class_names)} class_names; 2 to 256 are allowed')
  twice = sorted({n for n in class_names if class_names.count(n) > 1})
  demand(not twice, f'class_names holds {twice} more than once')

  palette = descriptor.get('palette', voc_palette(len(class_names)))
  demand(isinstance(palette, (list, tuple)) and all(map(_is_colour, palette)),
         'palette must be a list of [red, green, blue], each 0..255')
  demand(len(palette) == len(class_names),
         f'{len(palette)} colours in palette for {len(class_names)} class_names; give one a class')
  ignore_label = descriptor.get('ignore_label', 255)
  demand(_is_byte(ignore_label), f'ignore_label {ignore_label!r} is not allowed; use 0..255')
  splits = descriptor.get('splits', {})
  demand(isinstance(splits, dict) and all(type(n) is int and n > 0 for n in splits.values()),
         'splits must give the number of images, 1 or more, of each split')
  return Dataset(name, tuple(class_names), tuple(map(tuple, palette)), ignore_label, dict(splits))


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
    with open(path, encoding='utf-8-sig') as file:
      names = [line.strip() for line in file if line.strip()]
  except OSError as error:
    raise DataError(f"list '{path}' cannot be read: {error.strerror}; give a text file with one "
                    'name a line') from error
  except UnicodeDecodeError as error:
    raise DataError(f"list '{path}' is no UTF-8 text; give one name a line") from error
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
    DataError: an image or a label does not exist.
  """
  pairs = []
  for name in names:
    image_path = find_image(image_dir, name)
    stem = os.path.splitext(os.path.relpath(image_path, image_dir))[0]
    label_path = os.path.join(label_dir, stem + '.png')
    if not os.path.isfile(label_path):
      raise DataError(f"label '{label_path}' of image '{image_path}' does not exist; add it, "
                      'or take the name out of the list')
    pairs.append((image_path, label_path))
  return pairs
