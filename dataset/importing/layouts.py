"""Layouts of folders: where images and labels lie, for each split, and which files belong together.

Images and labels may lie in two trees of folders, side by side in one, in folders of their own for each
split, or in several folders that are of one layout. Free of TensorFlow.
"""
import bisect
import collections
import functools
import os
import re
import typing

from dataset import label_files, lists
from dataset.importing import panoptic
from utils import files
from utils.errors import DataError

_SPLITS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val',
           'dev': 'val', 'test': 'test', 'testing': 'test'}
_KINDS = 'annot|labels?|masks?|images?|'
# 'train', 'train2017', 'trainannot', 'train_labels' and 'images-train', but no 'trains' or 'contest'.
_SPLIT = re.compile(rf'(?:.*[^a-z])?({"|".join(_SPLITS)})(?:[^a-z].*|{_KINDS})', re.IGNORECASE)
_IMAGE_WORDS = re.compile('image|img|photo|jpeg|still|frame|picture|leftimg', re.IGNORECASE)
_LABEL_WORDS = re.compile('mask|label|annot|seg|truth|target|index|^gt', re.IGNORECASE)
NOT_WANTED = re.compile('object|instance|visual|viz|overlay|preview|thumb|edge|depth|human|panoptic',
                        re.IGNORECASE)
_LABEL_STUDIO = re.compile(r'task-\d+-annotation-\d+-by-\d+-tag-.*\.png')
# Of files that lie among both images and labels, and whose names do not tell which they are.
_PHOTOS_ALONE = (*lists.JPEG_EXTENSIONS, '.webp')
_MOST_FOLDERS = 60  # that are compared with one another
_MOST_TRIED = 10    # pairs of folders whose files are looked into
_MOST_KINDS = 12    # of labels that an image may have
_SAMPLE = 40        # names by which two folders are compared
_NO_SPLIT = ''      # stands for all files, whatever split their folders speak of


class Files(typing.NamedTuple):
  """The files of lists.Folders: lists of paths, sorted."""
  images: list
  labels: list


class Part(typing.NamedTuple):
  """The images of a split, or of all.

  Attributes:
    folders: lists.Folders.
    list_path: str, the list of the names; None takes all files of the folders.
    others: list of str, the paths of files in the folders of labels that are neither images nor labels.
    rivals: list of str, other folders whose files would serve as labels too.
  """
  folders: lists.Folders
  list_path: str | None = None
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


def find_files(folder, extensions=(*lists.IMAGE_EXTENSIONS, *lists.LABEL_EXTENSIONS)):
  """Returns the sorted paths of the files below a folder that lists.has_extension says have one of those.

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
      elif lists.has_extension(entry.name, extensions):
        found.append(entry.path)
  left_out = [text for number, text in ((hidden, f'hidden folders: {hidden}'), (
      again, f'links to folders that are read already: {again}')) if number]
  if left_out:
    print(f"Left out in '{folder}': {'; '.join(left_out)}")
  return sorted(found)


def _is_hidden(name):
  return name.startswith('.') or name == '__MACOSX'


def recognise(root, paths):
  """Returns {split or None: Part} of a folder in one of the usual layouts; None is for what is not split.

  Args:
    root: str.
    paths: list of str, its files, of find_files.

  Raises:
    DataError: no images and labels that belong together were found; the sentence says what there is.
  """
  paths = [path for path in paths if not _is_json(path) or _holds(path, b'"shapes"')]  # labelme's
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
            for path in paths if _is_json(path) and _holds(path, panoptic.KEY)}
  for path, folder in tables.items():
    stems = {stem(other) for other in paths if os.path.dirname(other) == folder}
    shared = collections.Counter(os.path.dirname(other) for other in paths
                                 if stem(other) in stems
                                 and os.path.dirname(other) not in tables.values())
    if shared:
      split = _word_split(stem(path))
      images = max(shared, key=lambda place: (shared[place], _word_split(os.path.basename(place)) == split))
      prefix = 'val_' * (split == 'val')
      found.update({f'{prefix}images': [images], f'{prefix}labels': [path]})
  return found if 'images' in found else {name.removeprefix('val_'): path for name, path in found.items()}


def _check_single(part):
  """Raises DataError if an image has several numbered labels, of which only the first would be taken."""
  affixes = part.folders.affixes
  if re.fullmatch(r'[-_ ]?\d+', affixes.label_suffix):
    for path in part.others:
      name = stem(path).rstrip('0123456789')
      if name.endswith(affixes.label_suffix.rstrip('0123456789')):
        raise DataError(f"'{part.folders.labels[0]}' has several labels for an image, such as "
                        f"'{os.path.basename(path)}' beside one that ends in {affixes.label_suffix}; if each "
                        'shows one object, join those of an image into one that shows classes')


def _is_json(path):
  return path.lower().endswith('.json')


def _holds(path, key):
  """Returns whether a file can be read and holds some bytes."""
  try:
    return key in files.read_bytes(path, path, panoptic.MAX_BYTES)
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
  advice = ('give the folders by --images and --labels, and what differs in the names by --label_suffix '
            'or --label_prefix')
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
          if not _are_photos(_files_of(candidate.folders, trees).labels)]
  # Labels of many colours are told as such, if it is their names that make them labels.
  good = good or [candidate for candidate in candidates if _is_named(candidate.folders)]
  if not good:
    return None
  best = next((candidate for candidate in good if _are_photos(_files_of(candidate.folders, trees).images)),
              good[0])
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
  is_drawn = NOT_WANTED.search(os.path.relpath(labels, root)) or NOT_WANTED.search(os.path.basename(images))
  return _Rank(not is_drawn, pairs, not any(affixes), os.path.commonpath([images, labels]).count(os.sep),
               bool(_LABEL_WORDS.search(os.path.basename(labels))), -labels.count(os.sep))


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
      stems = [set(map(stem, trees[folder])) for folder in (images, labels)]
      affixes = find_affixes(*stems)
      if affixes is not None:
        yield lists.Folders([images], [labels], affixes), len(_shared_names(affixes, *stems))


def _one_folder(folder, paths):
  """Yields the same, of a folder in which each label lies beside its image."""
  if not paths:
    return
  places = collections.Counter((os.path.dirname(path), stem(path)) for path in paths)
  twice = sum(count > 1 for count in places.values())
  if 2 * twice >= len(places):  # a.jpg and a.png, or a.json
    yield lists.Folders([folder], [folder]), twice
    return
  affixes = _find_affixes_among({name for _, name in places})
  if affixes:
    yield lists.Folders([folder], [folder], affixes), sum(
        (place, lists.core_of(name, *affixes[2:])) in places for place, name in places)


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


def _is_named(folders):
  """Returns whether the labels of lists.Folders are called so, or lie each beside its image."""
  names = os.path.basename(folders.labels[0]), folders.affixes.label_prefix, folders.affixes.label_suffix
  return folders.images == folders.labels or any(map(_LABEL_WORDS.search, names))


def _is_drawn(folder, trees):
  """Returns whether a folder that would be one of images is called like labels, and holds such."""
  name = os.path.basename(folder)
  is_named = NOT_WANTED.search(name) or (
      _LABEL_WORDS.search(name) and not _IMAGE_WORDS.search(name))
  return bool(is_named) and _colorfulness(trees[folder]) <= label_files.MAX_CLASSES


def _is_within(folder, other):
  return folder == other or folder.startswith(other + os.sep)


def _merged(best, candidates):
  """Returns the lists.Folders of a candidate and of all others in which folders lie as in it."""
  def arrangement(candidate):
    (images,), (labels,), affixes = candidate.folders
    return candidate.rank.is_plain, os.path.basename(images), os.path.relpath(labels, images), affixes

  alike = [best.folders]
  for candidate in candidates:
    if arrangement(candidate) == arrangement(best) and not any(
        _is_within(one, other) or _is_within(other, one) for folders in alike
        for one, other in zip(folders[0] + folders[1], candidate.folders[0] + candidate.folders[1])):
      alike.append(candidate.folders)
  alike.sort()
  return lists.Folders([folders.images[0] for folders in alike], [folders.labels[0] for folders in alike],
                       best.folders.affixes)


def _files_of(folders, trees):
  """Returns the Files of a candidate."""
  return _classified(folders, *_candidates(folders, lambda folder, extensions: [
      path for path in trees[folder] if lists.has_extension(path, extensions)]))


def _others(folders, trees):
  """Returns the paths in the folders of labels whose names are neither those of labels nor of images."""
  if not any(folders.affixes):
    return []
  names = {path: lists.stem_of(path, *folders.affixes[2:])
           for labels in folders.labels for path in trees[labels]}
  known = {*names.values()} - {None}
  return [path for path, name in names.items()
          if name is None and lists.stem_of(path, *folders.affixes[:2]) not in known]


# --- Files ---------------------------------------------------------------------------------------


def find_labels(folders):
  """Returns the sorted paths of the files below the folders of labels that are named like labels."""
  return _classified(folders, *_candidates(folders)).labels


def find_pairable(folders):
  """Returns the Files below the folders of images and of labels, each file in no more than one of the two.

  Raises:
    DataError: there are no images or no labels, or none belong together; the sentence says why.
  """
  images, labels = _candidates(folders)
  found = _classified(folders, images, labels)
  affixes, where = folders.affixes, lists.quoted(folders.labels, 'and')
  if not labels:
    raise DataError(f"there is no label in {where} whose name "
                    + (f"begins with '{affixes.label_prefix}' and " * bool(affixes.label_prefix))
                    + f"ends in {affixes.label_suffix}.png (or {', '.join(lists.LABEL_EXTENSIONS[1:])}); "
                    'check --labels, --label_prefix and --label_suffix')
  if not found.images:
    there = lists.quoted(folders.images, 'and')
    if images:
      raise DataError(f'all {len(images)} files in {there} were taken for labels, since they lie in --labels '
                      'too and nothing in their names tells which are images; give --label_suffix or '
                      '--label_prefix, what only the labels have in their names')
    raise DataError(f'there is no image in {there}; check --images')
  if not _shared_names(affixes, map(stem, found.images), map(stem, found.labels)):
    other = find_affixes(set(map(stem, found.images)),
                         set(map(stem, _candidates(folders._replace(affixes=lists.Affixes()))[1])))
    advice = f'; {affix_flags(other)} would fit' if other and any(other) else (
        '; check the folders, or give --label_suffix, --label_prefix, --image_suffix or --image_prefix')
    raise DataError(f'none of the {len(found.images)} images and {len(found.labels)} labels belong together: '
                    f"an image is '{os.path.basename(found.images[0])}' and a label "
                    f"'{os.path.basename(found.labels[0])}'{advice}")
  return found


def _candidates(folders, files_below=find_files):
  """Returns the paths of what may be an image, and of what may be a label, by extension and affixes.

  Args:
    folders: lists.Folders.
    files_below: function of a folder and extensions that returns paths.
  """
  affixes = folders.affixes
  return tuple([path for folder in places for path in files_below(folder, extensions)
                if lists.stem_of(path, prefix, suffix) is not None]
               for places, extensions, (prefix, suffix) in (
                   (folders.images, lists.IMAGE_EXTENSIONS, affixes[:2]),
                   (folders.labels, lists.LABEL_EXTENSIONS, affixes[2:])))


def _classified(folders, images, labels):
  """Returns the Files of candidates: what is both goes to one side, and JSON of no image is none of ours."""
  affixes, both = folders.affixes, set(images) & set(labels)
  if any(affixes[2:]):
    are_labels = both
  elif any(affixes[:2]):
    are_labels = set()
  else:
    are_labels = {path for path in both if not path.lower().endswith(_PHOTOS_ALONE)}
  images = [path for path in images if path not in are_labels]
  names = {lists.stem_of(path, *affixes[:2]) for path in images}
  return Files(images, [path for path in labels if path not in both - are_labels and (
      not _is_json(path) or lists.stem_of(path, *affixes[2:]) in names or not images)])


def stem(path):
  """Returns the name of a file without its extension, composed."""
  return lists.stem_of(path, '', '')


# --- Affixes -------------------------------------------------------------------------------------


def affix_flags(affixes):
  """Returns the flags that say the same, such as '--label_suffix=_mask'."""
  return ' '.join(f'--{name}={value}' for name, value in affixes._asdict().items() if value)


def find_affixes(images, labels):
  """Returns the lists.Affixes by which most labels have the name of an image, or None.

  Args:
    images, labels: sets of names without extensions.
  """
  for affixes in _likely_affixes(images, labels):
    if 2 * len(_shared_names(affixes, images, labels)) >= min(len(images), len(labels)):
      return affixes
  return _affixes_of_kinds(images, labels)


def _likely_affixes(images, labels):
  """Yields Affixes: none, those of names that hold others, and what all names begin and end with."""
  yield lists.Affixes()
  if around := _affix_around(images, labels):
    yield lists.Affixes('', '', *around)
  if around := _affix_around(labels, images):
    yield lists.Affixes(*around, '', '')
  (image_prefix, image_suffix), (label_prefix, label_suffix) = (
      (os.path.commonprefix(list(names)), os.path.commonprefix([name[::-1] for name in names])[::-1])
      for names in (images, labels))
  yield lists.Affixes(image_prefix, image_suffix, label_prefix, label_suffix)
  yield lists.Affixes('', image_suffix, '', label_suffix)
  yield lists.Affixes(image_prefix, '', label_prefix, '')


def _shared_names(affixes, images, labels):
  """Returns the set of names that images and labels have in common without their affixes."""
  return ({lists.core_of(name, *affixes[:2]) for name in images}
          & {lists.core_of(name, *affixes[2:]) for name in labels}) - {None, ''}


def _affixes_of_kinds(images, labels):
  """Returns the Affixes of one kind of labels where each image has several, such as Cityscapes, or None."""
  ordered, votes = sorted(images), collections.Counter()
  for name in sorted(labels)[::max(1, len(labels) // (4 * _SAMPLE))]:
    at = bisect.bisect(ordered, name)
    shared, image = max((len(os.path.commonprefix([name, image])), image)
                        for image in ordered[max(0, at - 1):at + 1])
    core = name[:shared].rstrip('_-. ')
    if core:
      votes[image[len(core):], name[len(core):]] += 1
  fitting = {}
  for (image_suffix, label_suffix), _ in votes.most_common(_MOST_KINDS):
    affixes = lists.Affixes('', image_suffix, '', label_suffix)
    shared = len(_shared_names(affixes, images, labels))
    if 2 * shared >= len(images):
      is_drawn, is_called_label = (bool(words.search(label_suffix)) for words in (NOT_WANTED, _LABEL_WORDS))
      fitting[affixes] = (not is_drawn, is_called_label, shared)
  return max(fitting, key=fitting.get, default=None)


def _affix_around(inner, outer):
  """Returns (prefix, suffix) by which most names of `outer` hold one of `inner`, or None."""
  sample = sorted(outer)[::max(1, len(outer) // _SAMPLE)]
  return next((affix for affix, count in _affix_votes(sample, inner) if 2 * count >= len(sample)), None)


def _affix_votes(sample, parts):
  """Returns [((prefix, suffix), votes)], the most frequent, by which names of a sample hold `parts`."""
  votes = collections.Counter()
  for name in sample:
    votes.update({(name[:at], name[at + len(part):]) for part in parts if part != name
                  for at in [name.find(part)] if at >= 0 and part})
  return votes.most_common(1)


def _find_affixes_among(names):
  """Returns the Affixes of the labels among the names, a set, of images and labels, or None."""
  for affix, _ in _affix_votes(sorted(names)[::max(1, len(names) // (2 * _SAMPLE))], names):
    if 3 * sum(lists.core_of(name, *affix) in names for name in names) >= len(names):
      return lists.Affixes('', '', *affix)
  return None


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
