"""Layouts of datasets: which files of given folders are images, which are labels, and which belong together.

Free of TensorFlow.
"""
import bisect
import collections
import os
import re
import typing

from dataset import label_files, lists
from utils.errors import DataError

# Of files that lie among both images and labels, and whose names do not tell which they are.
PHOTOS_ALONE = (*lists.JPEG_EXTENSIONS, '.webp')
LABEL_WORDS = re.compile('mask|label|annot|seg|truth|target|index|^gt', re.IGNORECASE)
NOT_WANTED = re.compile('object|instance|visual|viz|overlay|preview|thumb|edge|depth|human|panoptic',
                        re.IGNORECASE)
_KINDS = 12   # of labels that an image may have
_SAMPLE = 40  # files by which two folders are compared


class Files(typing.NamedTuple):
  """The files of Folders: lists of paths, sorted."""
  images: list
  labels: list


def find_files(folder, extensions):
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
  stems = [{lists.stem_of(path, prefix, suffix) for path in paths} for paths, prefix, suffix in (
      (found.images, affixes.image_prefix, affixes.image_suffix),
      (found.labels, affixes.label_prefix, affixes.label_suffix))]
  if not stems[0] & stems[1]:
    other = find_affixes([stem(path) for path in found.images],
                         [stem(path) for path in _candidates(folders._replace(affixes=lists.Affixes()))[1]])
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
            for path in find_files(folder, lists.IMAGE_EXTENSIONS)
            if lists.stem_of(path, affixes.image_prefix, affixes.image_suffix) is not None]
  labels = [path for folder in folders.labels
            for path in find_files(folder, lists.LABEL_EXTENSIONS)
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
    are_labels = {path for path in both if not path.lower().endswith(PHOTOS_ALONE)}
  images = [path for path in images if path not in are_labels]
  stems = {lists.stem_of(path, affixes.image_prefix, affixes.image_suffix) for path in images}
  labels = [path for path in labels if path not in both - are_labels and (
      not path.lower().endswith(label_files.POLYGONS)
      or lists.stem_of(path, affixes.label_prefix, affixes.label_suffix) in stems or not images)]
  return Files(images, labels)


def stem(path):
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
  return _affixes_of_kinds(images, labels)


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
  best = None
  for (image_suffix, label_suffix), _ in votes.most_common(_KINDS):
    shared = ({lists.core_of(name, '', image_suffix) for name in images}
              & {lists.core_of(name, '', label_suffix) for name in labels}) - {None, ''}
    rank = (not NOT_WANTED.search(label_suffix), bool(LABEL_WORDS.search(label_suffix)), len(shared))
    if 2 * len(shared) >= len(images) and (best is None or rank > best[0]):
      best = rank, lists.Affixes('', image_suffix, '', label_suffix)
  return best and best[1]


def _affix_around(inner, outer):
  """Returns (prefix, suffix) by which most names of `outer` hold one of `inner`, or None."""
  sample = sorted(outer)[::max(1, len(outer) // _SAMPLE)]
  for affix, count in _affix_votes(sample, inner).most_common(1):
    named = {lists.core_of(name, *affix) for name in outer} - {None}
    if 2 * count >= len(sample) and 2 * len(named & inner) >= min(len(inner), len(outer)):
      return affix
  return None


def _affix_votes(sample, parts):
  """Returns the Counter of (prefix, suffix) by which names of a sample hold other names, of `parts`."""
  votes = collections.Counter()
  for name in sample:
    votes.update({(name[:at], name[at + len(part):]) for part in parts if part != name
                  for at in [name.find(part)] if at >= 0 and part})
  return votes


def find_affixes_among(stems):
  """Returns the Affixes of the labels among the names of images and labels, or None if there are none."""
  names = set(stems)
  sample = sorted(names)[::max(1, len(names) // (2 * _SAMPLE))]
  for affix, _ in _affix_votes(sample, names).most_common(1):
    labels = {name for name in names if lists.core_of(name, *affix) in names}
    if 3 * len(labels) >= len(names):
      return lists.Affixes('', '', *affix)
  return None
