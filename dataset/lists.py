"""Lists of names, and the images and labels that their lines mean. Free of TensorFlow."""
import collections
import functools
import io
import os
import re
import typing
import unicodedata

from dataset import descriptors
from utils import files
from utils.errors import DataError

# However they are spelt. '.jpg' wins over other images, since it is what VOC's lists mean, and '.png' over
# other labels; '.json' is a labelme file.
JPEG_EXTENSIONS = ('.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.pjpeg', '.pjp')
IMAGE_EXTENSIONS = (*JPEG_EXTENSIONS, '.png', '.bmp', '.dib', '.tif', '.tiff', '.webp')
LABEL_EXTENSIONS = ('.png', '.bmp', '.dib', '.tif', '.tiff', '.gif', *JPEG_EXTENSIONS, '.json')


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


class Affixes(typing.NamedTuple):
  """What the names of images and labels have before and after the part that they share."""
  image_prefix: str = ''
  image_suffix: str = ''
  label_prefix: str = ''
  label_suffix: str = ''


class Folders(typing.NamedTuple):
  """Where images and labels lie.

  Attributes:
    images: list of str.
    labels: list of str: one for all images, or one for each folder of images, of the same layout.
    affixes: Affixes.
  """
  images: list
  labels: list
  affixes: Affixes = Affixes()

  @property
  def base(self):
    """The folder below which an image's name is its path."""
    if len(self.images) == 1:
      return self.images[0]
    return os.path.commonpath(list(map(os.path.abspath, self.images)))

  def labels_of(self, number):
    """Returns the folder of the labels of the images in the folder of that number."""
    return self.labels[number if len(self.labels) > 1 else 0]


def has_extension(path, extensions):
  """Returns whether a file has one of the extensions, however it is spelt. Hidden ones have none."""
  return path.lower().endswith(extensions) and not os.path.basename(path).startswith('.')


def read_list(path):
  """Returns the lines of a list of names, stripped, without blank ones and repeated ones, which are told.

  Raises:
    DataError: the list is missing, no text, or empty.
  """
  try:
    text = files.read_text(path, f"list '{path}'", None)
  except DataError as error:
    raise DataError(f'{error}; a list is a text file with one name a line') from error
  names = [line.strip() for line in io.StringIO(text, newline=None) if line.strip()]
  if not names:
    raise DataError(f"list '{path}' is empty; give one name a line")
  repeated = [name for name, count in collections.Counter(names).items() if count > 1]
  if repeated:
    print(f"Note: list '{path}' holds {len(repeated)} lines more than once, such as '{repeated[0]}'; each "
          'counts once', flush=True)
  return list(dict.fromkeys(names))


def write_list(path, names):
  """Writes a list of names for evaluate.py, and for the next conversion."""
  files.make_folder_of(path, 'the folder of the lists')
  with files.replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
    file.writelines(f'{name}\n' for name in names)
  print(f'Wrote the list of the {len(names)} names to {path}')


def find_image(folder, name):
  """Returns the path of the image that a line of a list names.

  The line is a file name with or without extension. If there is no such file, its first column is
  tried (lists such as '2007_000032 1').

  Args:
    folder: str, the folder of the images.
    name: str, a line of `read_list`.

  Raises:
    DataError: there is no such image, or several with other extensions than .jpg.
  """
  return _find_columns(Folders([folder], []), name)[1]


def _find_columns(folders, line):
  """Returns (number of the folder, path of the image, text of the second column or None) of a line."""
  alone = None
  for text, second in _columns(line):
    images = ((number, _find_file(folder, text, IMAGE_EXTENSIONS, '.jpg'))
              for number, folder in enumerate(folders.images))
    number, image = next((found for found in images if found[1]), (0, None))
    if image and (second is None or folders.labels and _find_second(folders, number, second)):
      return number, image, second
    if image and alone is None:
      alone = number, image, second
  if alone:
    return alone
  for folder in folders.images:
    if not os.path.isdir(folder):
      raise DataError(f"image folder '{folder}' does not exist; check the folder flags")
  raise DataError(f"image '{line}' is not in {quoted(folders.images, 'or')}, neither as that nor with "
                  f"{', '.join(IMAGE_EXTENSIONS)} added; check the list and the folder")


def find_listed(folder, name):
  """Returns the path of the file that a list names with its extension, or None; see find_image."""
  return next(filter(None, map(_spelt, _places(folder, name))), None)


def _columns(line):
  """Yields what a line may mean: (image, None), or (image, second column) by tab, comma or blanks."""
  yield line, None
  for separator in '\t,':
    if separator in line:
      first, second = (part.strip() for part in line.split(separator)[:2])
      yield first, second or None
  for blanks in re.finditer(r'\s+', line):
    yield line[:blanks.start()], line[blanks.end():]


def _find_second(folders, number, text):
  """Returns the path of the label that the second column of a list names, or None."""
  return _find_file(folders.labels_of(number), text, LABEL_EXTENSIONS, '.png')


def _find_file(folder, text, extensions, favourite):
  """Returns the path of a file below a folder, or below one above it that its name begins with, or None.

  Args:
    folder: str.
    text: str, the name; its extension may be missing.
    extensions: tuple of str, those that may be missing.
    favourite: str, the extension that wins over others.

  Raises:
    DataError: several files fit.
  """
  for stem in _places(folder, text):
    for candidate in (stem, stem + favourite):
      path = _spelt(candidate)
      if path:
        return path
    found = [path for extension in extensions if (path := _existing(stem, extension))]
    if len(found) > 1:
      raise DataError(f"'{text}' could be {' or '.join(found)}; keep one, or give the extension in "
                      'the list')
    if found:
      return found[0]
  return None


def _places(folder, text):
  """Returns where a name may lie: below the folder, or the name begins with the end of the folder's path.

  'JPEGImages/a', '/JPEGImages/a' and Windows' 'JPEGImages\\a' mean 'a' in the folder VOC2012/JPEGImages.
  """
  places = [os.path.join(folder, text)]
  if '\\' in text:
    return [*places, *_places(folder, text.replace('\\', '/'))]
  parts = [part for part in text.split('/') if part not in ('', '.')]
  above = os.path.abspath(folder).split('/')
  for count in range(1, len(parts)):
    if above[-count:] == parts[:count]:
      places.append(os.path.join(folder, *parts[count:]))
  return places


def _spelt(path):
  """Returns the path of a file, whose name may be composed (NFC) or decomposed (NFD) Unicode, or None."""
  if os.path.isfile(path):
    return path
  if path.isascii():
    return None
  forms = (unicodedata.normalize(form, path) for form in ('NFC', 'NFD'))
  return next((form for form in forms if os.path.isfile(form)), None)


def quoted(folders, joint):
  """Returns folders as text: 'a' or 'b', if the joint is or."""
  return f' {joint} '.join(f"'{folder}'" for folder in folders)


def _existing(stem, extension):
  """Returns the path of the file with this stem and extension, such as .jpg, .JPG or .Jpg, or None."""
  spellings = extension, extension.upper(), f'.{extension[1:].capitalize()}'
  return next((path for end in spellings if (path := _spelt(stem + end))), None)


def find_pairs(image_dir, label_dir, names):
  """Returns [(image path, label path), ...] of a list's lines; a label is `<image's stem>.png`.

  Args:
    image_dir: str, the folder of the images.
    label_dir: str, the folder of the labels.
    names: list of str, lines of `read_list`.

  Raises:
    DataError: images or labels do not exist, or two lines mean one label; the error names all.
  """
  pairs, problems = match_pairs(Folders([image_dir], [label_dir]), names)
  if problems:
    raise DataError('\n'.join(problems))
  return [(pair.image, pair.label) for pair in pairs]


def match_pairs(folders, names, dataset=None):
  """Returns the Pairs of a list's lines, and a sentence for each line that makes none.

  A label has its image's path below the folder of the labels, its stem, and the affixes; or it stands in the
  second column of the list.

  Args:
    folders: Folders.
    names: list of str, lines of `read_list`.
    dataset: Dataset of the labels.

  Raises:
    DataError: a folder does not exist, or no line makes a pair.
  """
  for kind, paths in (('image', folders.images), ('label', folders.labels)):
    for folder in paths:
      if not os.path.isdir(folder):
        raise DataError(f"{kind} folder '{folder}' does not exist; check the folder flags")
  pairs, problems, lines = [], [], {}
  for line in names:
    try:
      number, image, second = _find_columns(folders, line)
      label = _find_label(folders, number, image, second)
      other = lines.setdefault(label, line)
      if other is not line:
        raise DataError(f"'{other}' and '{line}' both have the label '{label}'; keep one, or give "
                        'each image its own')
      pairs.append(Pair(image, label, dataset, os.path.relpath(image, folders.base)))
    except DataError as error:
      problems.append(str(error))
  return pairs, problems


def check_apart(splits):
  """Raises DataError if an image is in two splits, unless each has no other, as to try a training.

  Args:
    splits: dict from a split's name to what match_pairs returned.
  """
  owners, shared = {}, []
  for split, (pairs, _) in splits.items():
    for pair in pairs:
      other = owners.setdefault(os.path.realpath(pair.image), split)
      if other != split:
        shared.append((pair.name, other, split))
  if shared and any(len(pairs) > 1 for pairs, _ in splits.values()):
    name, one, other = shared[0]
    raise DataError(f"{len(shared)} images are both in {one} and in {other}, such as '{name}'; scores would "
                    'be of what was learnt: take them out of one list or folder')


def stem_of(path, prefix, suffix):
  """Returns a file's name without extension and affixes, composed; None if it lacks one of them."""
  return core_of(os.path.splitext(os.path.basename(path))[0], prefix, suffix)


def core_of(name, prefix, suffix):
  """Returns a name without affixes, composed (NFC); None if it lacks one of them."""
  if len(name) < len(prefix) + len(suffix) or not (name.startswith(prefix) and name.endswith(suffix)):
    return None
  return unicodedata.normalize('NFC', name[len(prefix):len(name) - len(suffix)])


def _find_label(folders, number, image, second):
  """Returns the path of an image's label.

  Args:
    folders: Folders.
    number: int, of the image's folder.
    image: str, its path.
    second: str, what stands behind it in the list, or None.
  """
  if second:
    label = _find_second(folders, number, second)
    if label:
      return label
    if re.search(r'[/\\]', second) or has_extension(second, LABEL_EXTENSIONS):
      raise DataError(f"label '{second}', which the list gives image '{image}', is not in "
                      f"'{folders.labels_of(number)}'; check the list and the folder")
  affixes = folders.affixes
  name = stem_of(image, affixes.image_prefix, affixes.image_suffix)
  if name is None:
    raise DataError(f"image '{image}' does not have the name that --image_prefix '{affixes.image_prefix}' "
                    f"and --image_suffix '{affixes.image_suffix}' ask for; leave it out of the list")
  below = os.path.dirname(os.path.relpath(image, folders.images[number]))
  stem = os.path.join(folders.labels_of(number), below, affixes.label_prefix + name + affixes.label_suffix)
  is_image = functools.partial(os.path.samefile, image)
  for extension in LABEL_EXTENSIONS:
    path = _existing(stem, extension)
    if path and not is_image(path):
      return path
  raise DataError(f"label '{stem}.png' of image '{image}' does not exist; add it, or take the name "
                  'out of the list')
