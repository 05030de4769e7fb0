"""Which images and videos inference.py takes, and where their outputs go."""
import collections
import glob
import os
import re
import typing

from dataset import lists
from utils.errors import DataError

# What is written of a photo, and of a video. Masks of a video's frames are files in a folder.
ENDINGS = {'mask': '_mask.png', 'overlay': '_overlay.png', 'probabilities': '_probabilities.npy'}
VIDEO_ENDING, FRAMES_ENDING, FRAME = '_overlay.mp4', '_mask', '{:06d}.png'
VIDEO_EXTENSIONS = ('.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v', '.qt', '.3gp', '.mpg', '.mpeg', '.mpe',
                    '.wmv', '.asf', '.mts', '.m2ts')
_PATTERN = re.compile('[*?[]')
_OUTPUT = re.compile(rf'(.+)({"|".join(map(re.escape, (*ENDINGS.values(), VIDEO_ENDING)))}'
                     rf'|{FRAMES_ENDING}/\d{{6,}}\.png)', re.DOTALL)


class Photo(typing.NamedTuple):
  """An image or a video: its path, and that of its outputs, less what comes after the name."""
  path: str
  output: str

  @property
  def is_video(self) -> bool:
    return self.path.lower().endswith(VIDEO_EXTENSIONS)


def list_photos(folder, names):
  """Returns the Photos of the names in a list, whose folders are kept below --output_dir."""
  paths = {name: lists.find_listed(folder, name) for name in names}
  return [Photo(path or os.path.join(folder, name), _output(os.path.relpath(path, folder) if path else name))
          for name, path in paths.items()]


def find_photos(given, output_dir):
  """Returns the Photos of --input; of those in folders and of patterns, the folders below it are kept.

  What is called like an output of another of them is left out: an earlier call has written it.

  Args:
    given: list of str: files, folders and patterns.
    output_dir: str; it is left out of folders.

  Raises:
    DataError: there is no such file or folder, or no image in it.
  """
  photos: dict[Photo, None] = {}
  others: collections.Counter[str] = collections.Counter()
  for text in given:
    if os.path.exists(text):
      found, root = [text], text if os.path.isdir(text) else os.path.dirname(text)
    else:
      is_pattern = _PATTERN.search(text)
      found = _matches(text) if is_pattern else []
      root = os.path.dirname(text[:is_pattern.start()]) if is_pattern else None
    if not found:
      raise DataError(f"--input '{text}' is no file or folder, and no pattern that fits one; check the path")
    paths: list[str] = []
    for path in found:
      paths.extend(_images_below(path, output_dir, others) if os.path.isdir(path) else [path])
    if not paths:
      raise DataError(f"--input '{text}' holds no image; in folders their names end in "
                      f"{', '.join(lists.IMAGE_EXTENSIONS)}")
    for path in map(os.path.normpath, paths):
      photo = Photo(path, _output(os.path.relpath(path, root or '.')))
      photos[photo] = None
  if others:
    print(f'Left out of the folders: {others.total()} file(s) that are no images by their names '
          f'({", ".join(sorted(others))}); give the files themselves to have them predicted', flush=True)
  return without_outputs(photos)


def without_outputs(photos):
  """Returns the Photos that are not called like an output of another of them, in any folder, and says so."""
  stems = {photo.output for photo in photos}

  def is_output(photo):
    match = _OUTPUT.fullmatch(photo.output + os.path.splitext(photo.path)[1])
    parts = match[1].split(os.sep) if match else []
    return any(os.path.join(*parts[first:]) in stems for first in range(len(parts)))

  written = {photo: None for photo in photos if is_output(photo)}
  if written:
    print(f'Left out: {len(written)} file(s) that are outputs of the others by their names, such as '
          f'{next(iter(written)).path}; give them by themselves to have them taken', flush=True)
  return [photo for photo in photos if photo not in written]


def _matches(pattern):
  """Returns the paths that fit a pattern, sorted; of several to one file, by links, the shortest."""
  paths: dict[str, str] = {}
  for path in sorted(glob.glob(pattern, recursive=True), key=lambda path: path.count(os.sep)):
    paths.setdefault(os.path.realpath(path), path)
  return sorted(paths.values())


def _output(name):
  """Returns a name without its extension, and without its folders if they lead out of the folder it is in."""
  stem = os.path.splitext(os.path.normpath(name))[0]
  return os.path.basename(stem) if os.path.isabs(stem) or stem.startswith(os.pardir + os.sep) else stem


def _images_below(folder, output_dir, others):
  """Returns the paths of the images in a folder and below, sorted; hidden ones and --output_dir are left out.

  Args:
    folder, output_dir: str.
    others: collections.Counter of extensions, to which those of other files are added.
  """
  def stop(error):
    raise DataError(f"folder '{error.filename}' cannot be read: {error.strerror}; check its permissions")

  paths, seen = [], {os.path.realpath(output_dir), os.path.realpath(folder)}
  for parent, folders, names in os.walk(folder, onerror=stop, followlinks=True):
    for name in sorted(name for name in names if not name.startswith('.')):
      if lists.has_extension(name, lists.IMAGE_EXTENSIONS + VIDEO_EXTENSIONS):
        paths.append(os.path.join(parent, name))
      else:
        others[os.path.splitext(name)[1].lower() or 'none'] += 1
    below = {os.path.realpath(os.path.join(parent, name)): name  # a link may lead back
             for name in sorted(folders) if not name.startswith('.')}
    folders[:] = [name for path, name in below.items() if path not in seen]
    seen.update(below)
  return paths
