"""Layouts of datasets: which files below a folder are images, which are labels, and which belong together.

Free of TensorFlow.
"""
import collections
import os
import re
import typing

from dataset import label_files, lists
from utils.errors import DataError

# Of files that lie among both images and labels, and whose names do not tell which they are.
_PHOTOS_ALONE = ('.jpg', '.jpeg', '.webp')
_SPLITS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val',
           'dev': 'val', 'test': 'test', 'testing': 'test'}
_LABEL_WORDS = re.compile('mask|label|annot|seg|truth|target|index|^gt', re.IGNORECASE)
_IMAGE_WORDS = re.compile('image|img|photo|jpeg|still|frame|picture|leftimg', re.IGNORECASE)
_NOT_WANTED = re.compile('object|instance|visual|viz|overlay|preview|thumb|edge|depth', re.IGNORECASE)
_MOST_FOLDERS = 60  # that are compared with one another
_SAMPLE = 40        # files by which two folders are compared


class Part(typing.NamedTuple):
  """The images of a split, or of all.

  Attributes:
    folders: lists.Folders.
    list_path: str, the list of the names; None takes all files of the folders.
  """
  folders: lists.Folders
  list_path: str = None


class Files(typing.NamedTuple):
  """The files of Folders: lists of paths, sorted."""
  images: list
  labels: list


def find_files(folder, endings):
  """Returns the sorted paths of the files below a folder whose names end so, hidden ones aside.

  Links to folders are followed, but no folder is entered twice: one may lead to a folder above it.
  """
  if not os.path.isdir(folder):
    raise DataError(f"folder '{folder}' does not exist; check --images and --labels")
  found, hidden, again, seen = [], 0, 0, set()
  folders, links = [os.path.abspath(folder)], []
  while folders or links:
    parent = folders.pop() if folders else links.pop()
    status = os.stat(parent)
    if (status.st_dev, status.st_ino) in seen:
      again += 1
      continue
    seen.add((status.st_dev, status.st_ino))
    for entry in sorted(os.scandir(parent), key=lambda entry: entry.name, reverse=True):
      if os.path.isdir(entry.path):
        hidden += _is_hidden(entry.name)
        if not _is_hidden(entry.name):
          (links if entry.is_symlink() else folders).append(entry.path)
      elif entry.name.endswith(endings) and not entry.name.startswith('.'):
        found.append(entry.path)
  left_out = [text for number, text in ((hidden, f'hidden folders: {hidden}'), (
      again, f'links to folders that are read already: {again}')) if number]
  if left_out:
    print(f"Left out in '{folder}': {'; '.join(left_out)}")
  return sorted(found)


def _is_hidden(name):
  return name.startswith('.') or name == '__MACOSX'


def find_labels(folders):
  """Returns the sorted paths of the files below the folders of labels that are named like labels."""
  return _without_images(folders, *_candidates(folders)).labels


def find_pairable(folders):
  """Returns the Files below the folders of images and of labels, each file in no more than one of the two.

  Raises:
    DataError: there are no images or no labels, or none belong together; the sentence says why.
  """
  images, labels = _candidates(folders)
  found = _without_images(folders, images, labels)
  affixes, where = folders.affixes, _listed(folders.labels)
  if not labels:
    raise DataError(f"there is no label in {where} whose name "
                    + (f"begins with '{affixes.label_prefix}' and " * bool(affixes.label_prefix))
                    + f"ends in {affixes.label_suffix}.png (or {', '.join(lists.LABEL_EXTENSIONS[1:])}); "
                    'check --labels, --label_prefix and --label_suffix')
  if not found.images:
    if images:
      raise DataError(f'all {len(images)} files in {_listed(folders.images)} were taken for labels, since '
                      'they lie in --labels too and nothing in their names tells which are images; give '
                      '--label_suffix or --label_prefix, what only the labels have in their names')
    raise DataError(f'there is no image in {_listed(folders.images)}; check --images')
  stems = [{lists.stem_of(path, prefix, suffix) for path in paths} for paths, prefix, suffix in (
      (found.images, affixes.image_prefix, affixes.image_suffix),
      (found.labels, affixes.label_prefix, affixes.label_suffix))]
  if not stems[0] & stems[1]:
    other = find_affixes([_stem(path) for path in found.images],
                         [_stem(path) for path in _candidates(folders._replace(affixes=lists.Affixes()))[1]])
    advice = f'; {affix_flags(other)} would fit' if other and any(other) else (
        '; check the folders, or give --label_suffix, --label_prefix, --image_suffix or --image_prefix')
    raise DataError(f'none of the {len(found.images)} images and {len(found.labels)} labels belong together: '
                    f"an image is '{os.path.basename(found.images[0])}' and a label "
                    f"'{os.path.basename(found.labels[0])}'{advice}")
  return found


def _candidates(folders):
  """Returns the paths of what may be an image, and of what may be a label, by extension and affixes."""
  affixes = folders.affixes
  images = [path for folder in folders.images
            for path in find_files(folder, lists.spellings(lists.IMAGE_EXTENSIONS))
            if lists.stem_of(path, affixes.image_prefix, affixes.image_suffix) is not None]
  labels = [path for folder in folders.labels
            for path in find_files(folder, lists.spellings(lists.LABEL_EXTENSIONS))
            if lists.stem_of(path, affixes.label_prefix, affixes.label_suffix) is not None]
  return images, labels


def _without_images(folders, images, labels):
  """Returns the Files of candidates: what is both goes to one side, and JSON of no image is none of ours."""
  affixes, both = folders.affixes, set(images) & set(labels)
  if affixes.label_prefix or affixes.label_suffix:
    are_labels = both
  elif affixes.image_prefix or affixes.image_suffix:
    are_labels = set()
  else:
    are_labels = {path for path in both if not path.lower().endswith(_PHOTOS_ALONE)}
  images = [path for path in images if path not in are_labels]
  stems = {lists.stem_of(path, affixes.image_prefix, affixes.image_suffix) for path in images}
  labels = [path for path in labels if path not in both - are_labels and (
      not path.lower().endswith(label_files.POLYGONS)
      or lists.stem_of(path, affixes.label_prefix, affixes.label_suffix) in stems or not images)]
  return Files(images, labels)


def _listed(folders):
  return ' and '.join(f"'{folder}'" for folder in folders)


def _stem(path):
  return lists.stem_of(path, '', '')


# --- Affixes -------------------------------------------------------------------------------------


def affix_flags(affixes):
  """Returns the flags that say the same, such as '--label_suffix=_mask'."""
  return ' '.join(f'--{name}={value}' for name, value in affixes._asdict().items() if value)


def find_affixes(image_stems, label_stems):
  """Returns the Affixes by which most labels have the name of an image, or None if there are none.

  Args:
    image_stems, label_stems: lists of str, of different files.
  """
  images, labels = set(image_stems), set(label_stems)
  if 2 * len(images & labels) >= min(len(images), len(labels)):
    return lists.Affixes()
  label_side = _affix_around(images, labels)
  if label_side:
    return lists.Affixes('', '', *label_side)
  image_side = _affix_around(labels, images)
  if image_side:
    return lists.Affixes(*image_side, '', '')
  ends = [(os.path.commonprefix(list(names)), os.path.commonprefix([name[::-1] for name in names])[::-1])
          for names in (images, labels)]
  for (image_prefix, image_suffix), (label_prefix, label_suffix) in (
      ends, [('', suffix) for _, suffix in ends], [(prefix, '') for prefix, _ in ends]):
    affixes = lists.Affixes(image_prefix, image_suffix, label_prefix, label_suffix)
    shared = ({lists.core_of(name, image_prefix, image_suffix) for name in images}
              & {lists.core_of(name, label_prefix, label_suffix) for name in labels}) - {None, ''}
    if 2 * len(shared) >= min(len(images), len(labels)):
      return affixes
  return None


def _affix_around(inner, outer):
  """Returns (prefix, suffix) by which most names of `outer` hold one of `inner`, or None."""
  votes = collections.Counter()
  sample = sorted(outer)[::max(1, len(outer) // _SAMPLE)]
  for name in sample:
    votes.update({(name[:at], name[at + len(part):]) for part in inner if part != name
                  for at in [name.find(part)] if at >= 0 and part})
  for affix, count in votes.most_common(1):
    named = {lists.core_of(name, *affix) for name in outer} - {None}
    if 2 * count >= len(sample) and 2 * len(named & inner) >= min(len(inner), len(outer)):
      return affix
  return None


def find_affixes_among(stems):
  """Returns the Affixes of the labels among the names of images and labels, or None if there are none."""
  names, votes = set(stems), collections.Counter()
  sample = sorted(names)[::max(1, len(names) // (2 * _SAMPLE))]
  for name in sample:
    votes.update({(name[:at], name[at + len(part):]) for part in names if part != name
                  for at in [name.find(part)] if at >= 0 and part})
  for affix, _ in votes.most_common(1):
    labels = {name for name in names if lists.core_of(name, *affix) in names}
    if 3 * len(labels) >= len(names):
      return lists.Affixes('', '', *affix)
  return None


# --- Recognition ---------------------------------------------------------------------------------


def recognise(root):
  """Returns {split or None: Part} of a folder in one of the usual layouts; None is for what is not split.

  Images and labels may lie in two trees of folders, side by side in one, and in folders of their own for
  training, validation and test; what is laid out for a test is not returned.

  Args:
    root: str.

  Raises:
    DataError: no images and labels that belong together were found.
  """
  paths = find_files(root, lists.spellings((*lists.IMAGE_EXTENSIONS, *lists.LABEL_EXTENSIONS)))
  groups = collections.defaultdict(list)
  for path in paths:
    groups[_split_of(os.path.dirname(path), root)].append(path)
  parts = {}
  for split, members in groups.items():
    folders = _find_folders(os.path.abspath(root), split, members)
    if folders:
      parts[split] = Part(folders)
  if not any(split in parts for split in ('train', None)):
    raise DataError(f"'{root}' holds {len(paths)} images or labels, and none were found that belong "
                    'together; give the folders by --images and --labels, and what differs in the names by '
                    '--label_suffix')
  return parts


def _split_of(folder, root):
  """Returns the split, train, val or test, that the name of a folder below the root speaks of, or None."""
  below = os.path.relpath(folder, os.path.abspath(root)).split(os.sep)
  return next((_SPLITS[part.lower()] for part in below if part.lower() in _SPLITS), None)


def _find_folders(root, split, paths):
  """Returns the lists.Folders of the paths of one split, or None."""
  trees = collections.defaultdict(list)
  for path in paths:
    folder = os.path.dirname(path)
    while len(folder) >= len(root) and _split_of(folder, root) == split:
      trees[folder].append(path)
      folder = os.path.dirname(folder)
  if len(trees) > _MOST_FOLDERS:
    depth = sorted(folder.count(os.sep) for folder in trees)[_MOST_FOLDERS]
    trees = {folder: members for folder, members in trees.items() if folder.count(os.sep) <= depth}
  best = None
  for folders, pairs in _possible_folders(trees):
    labels = folders.labels[0]
    # As many pairs as possible, of what is called like labels, and not of what is drawn for people to look
    # at.
    rank = (not _NOT_WANTED.search(os.path.relpath(labels, root)), pairs,
            bool(_LABEL_WORDS.search(os.path.basename(labels))), -labels.count(os.sep))
    if best is None or rank > best[0]:
      best = rank, folders
  return best and best[1]


def _possible_folders(trees):
  """Yields (lists.Folders, number of pairs) of folders that hold files which belong together.

  Args:
    trees: dict from folders to the paths of all files below them.
  """
  names = sorted(trees)
  for position, one in enumerate(names):
    stems = [_stem(path) for path in trees[one] if os.path.dirname(path) == one]
    exact = collections.Counter(stems)
    twice = sum(count > 1 for count in exact.values())
    if 2 * twice >= len(exact) > 0:  # a.jpg and a.png, or a.json
      yield lists.Folders([one], [one]), twice
    elif stems:
      affixes = find_affixes_among(stems)
      if affixes:
        yield lists.Folders([one], [one], affixes), sum(
            lists.core_of(stem, affixes.label_prefix, affixes.label_suffix) in exact for stem in stems)
    for other in names[position + 1:]:
      if other.startswith(one + os.sep):
        continue
      images, labels = _in_order(one, other, trees)
      below = [{os.path.relpath(path, folder) for path in trees[folder]} for folder in (images, labels)]
      image_stems, label_stems = ([_stem(path) for path in paths] for paths in below)
      affixes = find_affixes(image_stems, label_stems)
      if affixes is not None:
        shared = ({lists.core_of(name, *affixes[:2]) for name in image_stems}
                  & {lists.core_of(name, *affixes[2:]) for name in label_stems}) - {None}
        yield lists.Folders([images], [labels], affixes), len(shared)


def _in_order(one, other, trees):
  """Returns (folder of images, folder of labels) of two folders, by their names or else by what they hold."""
  def is_labels(folder):
    name = os.path.basename(folder)
    is_label, is_image = bool(_LABEL_WORDS.search(name)), bool(_IMAGE_WORDS.search(name))
    return None if is_label == is_image else is_label

  first, second = is_labels(one), is_labels(other)
  if first is None and second is None:
    first, second = _colorfulness(trees[one]) < _colorfulness(trees[other]), None
  return (other, one) if first or second is False else (one, other)


def _colorfulness(paths):
  """Returns how many values or colours a few of the files have on average; labels have fewer than photos."""
  counts = []
  for path in paths[:3]:
    try:
      counts.append(len(label_files.survey_label(path)))
    except DataError:
      counts.append(2 * label_files.MAX_CLASSES)
  return sum(counts) / len(counts)
