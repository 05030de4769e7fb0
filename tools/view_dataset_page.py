"""The page of tools/view_dataset.py: one HTML file, its pictures in a folder beside it.

Its HTML stands in view_dataset_page.html, and in utils/pages.html.
"""
import collections
import dataclasses
import os

import numpy as np

from utils import files, pages, visualization

_PICTURE_WIDTH = 480      # pixels of what is shown; larger photos are scaled down
_SHOWN_OF_A_PROBLEM = 6   # pictures
_MARK = '<label class="slider">overlay'  # what no other page holds
_TEMPLATE = os.path.splitext(__file__)[0] + '.html'


@dataclasses.dataclass(frozen=True)
class Content:
  """What the page shows.

  Attributes:
    dataset: Dataset.
    sets: list of view_dataset_facts.Set.
    problems: list of view_dataset_facts.Problem.
    load: dict from a set's title to a function of (index, width) that returns (name, image, label): str,
      PIL image of at least that width if it has as much, uint8 [H, W].
    samples: int, examples to show of each set.
    crops: list of view_dataset_facts.Set, of crops as the network sees them; they are shown and not counted.
  """
  dataset: object
  sets: list
  problems: list
  load: dict
  samples: int
  crops: list = ()


def write(folder, content):
  """Writes index.html and pictures/ into a folder that exists."""
  os.makedirs(os.path.join(folder, 'pictures'), exist_ok=True)
  dataset, sets = content.dataset, content.sets
  shares = [one.pixels / max(one.pixels.sum(), 1) for one in sets]
  tables = [(one, share, one.images / max(len(one.facts), 1),
             np.mean([facts.ignored > 0 for facts in one.facts] or [0])) for one, share in zip(sets, shares)]
  pages.write(
      os.path.join(folder, 'index.html'), _TEMPLATE, dataset=dataset, sets=sets,
      classes=list(zip(dataset.class_names, dataset.palette)),
      kinds=list(collections.Counter(problem.kind for problem in content.problems).items()),
      problems=[(problem, [_card(folder, content, *example)
                           for example in problem.examples[:_SHOWN_OF_A_PROBLEM]])
                for problem in content.problems],
      tables=tables, longest=max(max(share.max() for share in shares), 1e-9),
      sizes=[(one.title, collections.Counter(facts.size[::-1] for facts in one.facts).most_common())
             for one in sets],  # of (width, height)
      examples=[(one.title, [_card(folder, content, one.title, facts)
                             for facts in _chosen(one, content.samples)])
                for one in (*content.crops, *sets)])


def check_replaceable(folder):
  """Raises UsageError where the page would take the place of an index.html that is no such page."""
  pages.check_replaceable(folder, _MARK, '--output_dir')


def _chosen(one, samples):
  """Returns Facts at equal distances in a Set, and for each class that they lack the one with most of it."""
  if not one.facts:
    return []
  places = dict.fromkeys(np.linspace(0, len(one.facts) - 1, min(samples, len(one.facts))).round().astype(int))
  pixels = np.stack([facts.pixels for facts in one.facts])  # [N, K]
  for value in np.flatnonzero(pixels.sum(0)):
    if not pixels[list(places), value].any():
      places[pixels[:, value].argmax()] = None
  return [one.facts[place] for place in places]


def _card(folder, content, title, facts):
  """Writes a photo and its label; returns the title, the facts, and the addresses of both in the page."""
  number = [one.title for one in (*content.sets, *content.crops)].index(title)
  stem = f'pictures/{number}_{facts.index:06d}'
  photo_path, label_path = (os.path.join(folder, stem + end) for end in ('.jpg', '_label.png'))
  _, image, label = content.load[title](facts.index, _PICTURE_WIDTH)
  size = visualization.shown_size(label.shape, _PICTURE_WIDTH)
  pictures = {photo_path: visualization.photo_jpeg(image, size), label_path: visualization.label_png(
      label, size, content.dataset.palette, content.dataset.ignore_label)}
  for path, picture in pictures.items():
    with files.replacing(path) as temporary, open(temporary, 'wb') as file:
      file.write(picture)
  return title, facts, stem + '.jpg', stem + '_label.png'
