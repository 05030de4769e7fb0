"""Lists of names, and the images and labels that their lines mean. Free of TensorFlow."""
import io
import os
import typing

from dataset import descriptors
from utils import files
from utils.errors import DataError

# Of images, however they are spelt. '.jpg' itself wins over the others: it is what VOC's lists mean.
IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
LABEL_EXTENSIONS = ('.png',)


class Pair(typing.NamedTuple):
  """An image and its label, as they go into a record.

  Attributes:
    image, label: str, the paths.
    dataset: descriptors.Dataset, what the label file means.
    name: str, the image's path below the folder of the images.
  """
  image: str
  label: str
  dataset: descriptors.Dataset
  name: str


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

  The line is a file name with or without extension. If there is no such file, its first word is
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
    found = [file for extension in IMAGE_EXTENSIONS if (file := _existing(path, extension))]
    if len(found) > 1:
      raise DataError(f"'{name}' could be {' or '.join(found)}; keep one, or give the extension in "
                      'the list')
    if found:
      return found[0]
  if not os.path.isdir(folder):
    raise DataError(f"image folder '{folder}' does not exist; check the folder flags")
  raise DataError(f"image '{name}' is not in '{folder}', neither as that nor with "
                  f"{', '.join(IMAGE_EXTENSIONS)} added; check the list and the folder")


def spellings(extensions):
  """Returns how extensions are spelt, a tuple: of ('.jpg',) these are .jpg, .JPG and .Jpg."""
  return tuple(end for extension in extensions
               for end in (extension, extension.upper(), f'.{extension[1:].capitalize()}'))


def _existing(stem, extension):
  """Returns the path of the file with this stem and extension, however that is spelt, or None."""
  return next((stem + end for end in spellings((extension,)) if os.path.isfile(stem + end)), None)


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
    if path := _existing(stem, extension):
      return path
  raise DataError(f"label '{stem}.png' of image '{image}' does not exist; add it, or take the name "
                  'out of the list')
