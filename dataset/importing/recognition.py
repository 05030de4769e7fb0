"""Recognition of a folder: where its images and labels lie, for training, validation and test.

Images and labels may lie in two trees of folders, side by side in one, in folders of their own for each
split, or in several folders that are laid out alike. Once the folders are known, layouts.py says what each
file is. Free of TensorFlow.
"""
import collections
import functools
import os
import re
import typing

from dataset import label_files, lists
from dataset.importing import layouts, panoptic
from utils import files
from utils.errors import DataError

_SPLITS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val',
           'dev': 'val', 'test': 'test', 'testing': 'test'}
_KINDS = 'annot|labels?|masks?|images?|'
# 'train', 'train2017', 'trainannot', 'train_labels' and 'images-train', but no 'trains' or 'contest'.
_SPLIT = re.compile(rf'(?:.*[^a-z])?({"|".join(_SPLITS)})(?:[^a-z].*|{_KINDS})', re.IGNORECASE)
_IMAGE_WORDS = re.compile('image|img|photo|jpeg|still|frame|picture|leftimg', re.IGNORECASE)
_LABEL_STUDIO = re.compile(r'task-\d+-annotation-\d+-by-\d+-tag-.*\.png')
_JSON_BYTES = 1 << 28
_MOST_FOLDERS = 60  # that are compared with one another
_MOST_TRIED = 10    # pairs of folders whose files are looked into
_NO_SPLIT = ''      # stands for all files, whatever split their folders speak of


class Part(typing.NamedTuple):
  """The images of a split, or of all.

  Attributes:
    folders: lists.Folders.
    list_path: str, the list of the names; None takes all files of the folders.
    others: list of str, the paths of files in the folders of labels that are neither images nor labels.
    rivals: list of str, other folders whose files would serve as labels too.
  """
  folders: lists.Folders
  list_path: str = None
  others: list = ()
  rivals: list = ()


class _Rank(typing.NamedTuple):
  """How well a folder of images and one of labels fit: a larger one fits better; what comes first decides.

  Attributes:
    is_plain: bool, neither is called like what is drawn for people to look at.
    pairs: int, images that have a label.
    has_equal_names: bool, they need no affixes.
    shared_depth: int, how deep the folder lies that holds both.
    is_called_labels: bool.
    height: int, the less deep the labels lie, the more.
  """
  is_plain: bool
  pairs: int
  has_equal_names: bool
  shared_depth: int
  is_called_labels: bool
  height: int


class _Candidate(typing.NamedTuple):
  """lists.Folders of one folder each, and how well they fit."""
  rank: _Rank
  folders: lists.Folders


def find_files(root):
  """Returns the sorted paths of all files below a folder that may be images or labels."""
  return layouts.find_files(root, (*lists.IMAGE_EXTENSIONS, *lists.LABEL_EXTENSIONS))


def recognise(root, paths):
  """Returns {split or None: Part} of a folder in one of the usual layouts; None is for what is not split.

  Args:
    root: str.
    paths: list of str, its files, of find_files.

  Raises:
    DataError: no images and labels that belong together were found; the sentence says what there is.
  """
  paths = [path for path in paths if not _is_json(path) or _is_drawing(path)]
  groups = collections.defaultdict(list)
  for path in paths:
    groups[_split_of(os.path.dirname(path), root)].append(path)
  parts = {split: part for split, members in groups.items() if (part := _find_part(root, split, members))}
  if 'train' not in parts and 'val' in parts or {None, 'train'} <= parts.keys() and 'val' not in parts:
    parts = {None: _find_part(root, _NO_SPLIT, paths)}  # the words were names of something else
  if 'train' in parts and (other := parts.pop(None, None)):
    print(f"Left out: '{other.folders.images[0]}', which is of no split")
  if not any(parts.get(split) for split in ('train', None)):
    raise DataError(f"'{root}' {_what_there_is(paths)}")
  for part in parts.values():
    _check_single(part)
  return parts


def find_panoptic(paths):
  """Returns the values of --images, --labels, --val_images and --val_labels for COCO's panoptic labels.

  Each is a list of one path; the dict has the first two, or all four, or none if there are no such labels.

  Args:
    paths: list of str, of find_files.
  """
  found = {}
  tables = {path: next(filter(os.path.isdir, (os.path.splitext(path)[0], os.path.dirname(path))))
            for path in paths if _is_json(path) and _is_panoptic(path)}
  for path, folder in tables.items():
    stems = {layouts.stem(other) for other in paths if os.path.dirname(other) == folder}
    shared = collections.Counter(os.path.dirname(other) for other in paths
                                 if layouts.stem(other) in stems
                                 and os.path.dirname(other) not in tables.values())
    if shared:
      split = _word_split(layouts.stem(path))
      images = max(shared, key=lambda place: (shared[place], _word_split(os.path.basename(place)) == split))
      prefix = 'val_' * (split == 'val')
      found.update({f'{prefix}images': [images], f'{prefix}labels': [path]})
  if 'images' not in found:
    return {name.removeprefix('val_'): value for name, value in found.items()}
  return found


def _check_single(part):
  """Raises DataError if an image has several numbered labels, of which only the first would be taken."""
  affixes = part.folders.affixes
  if re.fullmatch(r'[-_ ]?\d+', affixes.label_suffix):
    for path in part.others:
      name = layouts.stem(path).rstrip('0123456789')
      if name.endswith(affixes.label_suffix.rstrip('0123456789')):
        raise DataError(f"'{part.folders.labels[0]}' has several labels for an image, such as "
                        f"'{os.path.basename(path)}' beside one that ends in {affixes.label_suffix}; if each "
                        'shows one object, join those of an image into one that shows classes')


def _is_json(path):
  return path.lower().endswith('.json')


def _is_panoptic(path):
  try:
    return panoptic.is_panoptic(path)
  except DataError:
    return False


def _is_drawing(path):
  """Returns whether a JSON file may be one of labelme's."""
  try:
    return b'"shapes"' in files.read_bytes(path, path, _JSON_BYTES)
  except DataError:
    return False


def _what_there_is(paths):
  """Returns the end of the sentence on a folder in which nothing fits."""
  pictures = [path for path in paths if not _is_json(path)]
  named = f', such as {os.path.basename(pictures[0])}' if pictures else ''
  exports = [path for path in pictures if _LABEL_STUDIO.fullmatch(os.path.basename(path))]
  if exports:
    return (f"holds PNGs of Label Studio, such as '{os.path.basename(exports[0])}': each has one class, and "
            "none names its image; join those of a task into one, called as the image is (docs/data.md has "
            'the lines)')
  if not pictures:
    return (f"holds no image ({', '.join(lists.IMAGE_EXTENSIONS)}); give the folder that holds images and "
            'labels')
  advice = ('give the folders by --images and --labels, and what differs in the names by --label_suffix, '
            '--label_prefix and the like')
  firsts = list({os.path.dirname(path): path for path in reversed(pictures)}.values())[:_MOST_TRIED]
  are_photos = {_are_photos([path]) for path in firsts}
  if len(are_photos) == 1:
    there, lacking = ('images', 'labels') if are_photos == {True} else ('labels', 'images')
    return (f'holds {len(pictures)} {there}{named}, and no {lacking} were found among them (labelling tools '
            f'may leave them out unless they are asked to save them); put the {lacking} below it too, or '
            f'{advice}')
  return (f'holds {len(pictures)} images or labels{named}, and none were found that belong together; put '
          f'both below it, with equal names, or {advice}')


# --- Splits --------------------------------------------------------------------------------------


def _split_of(folder, root):
  """Returns the split, train, val or test, that the name of a folder below the root speaks of, or None."""
  below = os.path.relpath(folder, os.path.abspath(root)).split(os.sep)
  return next((split for part in below if (split := _word_split(part))), None)


def _word_split(name):
  match = _SPLIT.fullmatch(name)
  return match and _SPLITS[match[1].lower()]


# --- Folders -------------------------------------------------------------------------------------


def _find_part(root, split, paths):
  """Returns the Part of the paths of one split, or None."""
  root = os.path.abspath(root)
  trees = collections.defaultdict(list)
  for path in paths:
    folder = os.path.dirname(path)
    while len(folder) >= len(root) and (split == _NO_SPLIT or _split_of(folder, root) == split):
      trees[folder].append(path)
      folder = os.path.dirname(folder)
  if len(trees) > _MOST_FOLDERS:
    depth = sorted(folder.count(os.sep) for folder in trees)[_MOST_FOLDERS]
    trees = {folder: members for folder, members in trees.items() if folder.count(os.sep) <= depth}
  candidates = sorted((_Candidate(_rank(root, folders, pairs), folders)
                       for folders, pairs in _possible_folders(trees) if pairs), reverse=True,
                      key=lambda candidate: candidate.rank)
  good = [candidate for candidate in candidates[:_MOST_TRIED]
          if not _are_photos(_labels_of(candidate.folders, trees))]
  # Labels of many colours are told as such, if it is their names that make them labels.
  good = good or [candidate for candidate in candidates if _is_named(candidate.folders)]
  if not good:
    return None
  best = next((candidate for candidate in good if _are_photos(_images_of(candidate.folders, trees))), good[0])
  folders = _merged(best, candidates)
  rivals = {candidate.folders.labels[0] for candidate in candidates
            if candidate.folders.images == best.folders.images
            and (candidate.rank.is_plain, candidate.rank.pairs) == (best.rank.is_plain, best.rank.pairs)}
  return Part(folders, None, _others(folders, trees), sorted(
      rival for rival in rivals if not any(_is_within(rival, one) or _is_within(one, rival)
                                           for one in (*folders.labels, *folders.images))))


def _rank(root, folders, pairs):
  """Returns the _Rank of lists.Folders of one folder each."""
  (images,), (labels,), affixes = folders
  is_drawn = (layouts.NOT_WANTED.search(os.path.relpath(labels, root))
              or layouts.NOT_WANTED.search(os.path.basename(images)))
  return _Rank(not is_drawn, pairs, not any(affixes), os.path.commonpath([images, labels]).count(os.sep),
               bool(layouts.LABEL_WORDS.search(os.path.basename(labels))), -labels.count(os.sep))


def _possible_folders(trees):
  """Yields (lists.Folders, number of pairs) of folders that hold files which belong together.

  Args:
    trees: dict from folders to the paths of all files below them.
  """
  names = sorted(trees)
  for position, one in enumerate(names):
    yield from _one_folder(one, trees[one])
    direct = [path for path in trees[one] if os.path.dirname(path) == one]
    if len(direct) < len(trees[one]):
      yield from _one_folder(one, direct)
    for other in names[position + 1:]:
      if _is_within(other, one):
        continue
      images, labels = _in_order(one, other, trees)
      if _is_drawn(images, trees):
        continue
      image_stems, label_stems = (list(map(layouts.stem, trees[folder])) for folder in (images, labels))
      affixes = layouts.find_affixes(image_stems, label_stems)
      if affixes is not None:
        shared = ({lists.core_of(name, *affixes[:2]) for name in image_stems}
                  & {lists.core_of(name, *affixes[2:]) for name in label_stems}) - {None}
        yield lists.Folders([images], [labels], affixes), len(shared)


def _one_folder(folder, paths):
  """Yields the same, of a folder in which each label lies beside its image."""
  if not paths:
    return
  places = collections.Counter((os.path.dirname(path), layouts.stem(path)) for path in paths)
  twice = sum(count > 1 for count in places.values())
  if 2 * twice >= len(places):  # a.jpg and a.png, or a.json
    yield lists.Folders([folder], [folder]), twice
    return
  affixes = layouts.find_affixes_among([stem for _, stem in places])
  if affixes:
    yield lists.Folders([folder], [folder], affixes), sum(
        (place, lists.core_of(stem, *affixes[2:])) in places for place, stem in places)


def _in_order(one, other, trees):
  """Returns (folder of images, folder of labels) of two folders, by their names or else by what they hold."""
  def is_labels(folder):
    name = os.path.basename(folder)
    is_label, is_image = bool(layouts.LABEL_WORDS.search(name)), bool(_IMAGE_WORDS.search(name))
    return None if is_label == is_image else is_label

  first, second = is_labels(one), is_labels(other)
  if first is None and second is None:
    first, second = _colorfulness(trees[one]) < _colorfulness(trees[other]), None
  return (other, one) if first or second is False else (one, other)


def _is_named(folders):
  """Returns whether the labels of lists.Folders are called so, or lie each beside its image."""
  names = os.path.basename(folders.labels[0]), folders.affixes.label_prefix, folders.affixes.label_suffix
  return folders.images == folders.labels or any(map(layouts.LABEL_WORDS.search, names))


def _is_drawn(folder, trees):
  """Returns whether a folder that would be one of images is called like labels, and holds such."""
  name = os.path.basename(folder)
  is_named = layouts.NOT_WANTED.search(name) or (
      layouts.LABEL_WORDS.search(name) and not _IMAGE_WORDS.search(name))
  return bool(is_named) and _colorfulness(trees[folder]) <= label_files.MAX_CLASSES


def _is_within(folder, other):
  return folder == other or folder.startswith(other + os.sep)


def _merged(best, candidates):
  """Returns the lists.Folders of a candidate and of all others in which folders lie as in it."""
  def way(folders):
    (images,), (labels,), affixes = folders
    return os.path.basename(images), os.path.relpath(labels, images), affixes

  alike = [best.folders]
  for candidate in candidates:
    is_alike = (candidate.rank.is_plain == best.rank.is_plain
                and way(candidate.folders) == way(best.folders))
    if is_alike and not any(
        _is_within(one, other) or _is_within(other, one) for folders in alike
        for one, other in zip(folders[0] + folders[1], candidate.folders[0] + candidate.folders[1])):
      alike.append(candidate.folders)
  alike.sort()
  return lists.Folders([folders.images[0] for folders in alike], [folders.labels[0] for folders in alike],
                       best.folders.affixes)


def _labels_of(folders, trees):
  """Returns the paths of the labels of a candidate."""
  paths = [path for path in trees[folders.labels[0]] if lists.stem_of(path, *folders.affixes[2:]) is not None]
  if folders.images == folders.labels and not any(folders.affixes):
    pictures = [path for path in paths if not path.lower().endswith(layouts.PHOTOS_ALONE)]
    return pictures or paths
  return paths


def _images_of(folders, trees):
  """Returns the paths of the images of a candidate."""
  labels = set(_labels_of(folders, trees)) if folders.images == folders.labels else ()
  return [path for path in trees[folders.images[0]] if path not in labels and not _is_json(path)]


def _others(folders, trees):
  """Returns the paths in the folders of labels whose names are neither those of labels nor of images."""
  if not any(folders.affixes):
    return []
  (image_prefix, image_suffix, label_prefix, label_suffix) = folders.affixes
  paths = [path for labels in folders.labels for path in trees[labels]]
  cores = {lists.stem_of(path, label_prefix, label_suffix) for path in paths}
  return [path for path in paths if lists.stem_of(path, label_prefix, label_suffix) is None
          and lists.stem_of(path, image_prefix, image_suffix) not in cores - {None}]


# --- Content -------------------------------------------------------------------------------------


def _are_photos(paths):
  """Returns whether the first of some files have more values or colours than labels can have."""
  return bool(paths) and not any(map(_is_json, paths)) and _colorfulness(paths) > label_files.MAX_CLASSES


def _colorfulness(paths):
  """Returns how many values or colours a few of the files have on average; labels have fewer than photos."""
  return sum(map(_number_of_colors, paths[:3])) / len(paths[:3])


@functools.lru_cache(maxsize=1024)
def _number_of_colors(path):
  try:
    return 1 if _is_json(path) else len(label_files.survey_label(path))
  except DataError:
    return 2 * label_files.MAX_CLASSES
