"""The page of tools/view_dataset.py: one HTML file, its pictures in a folder beside it.

Its HTML stands in view_dataset_page.html, in parts that `_fill` fills in, and in utils/pages.html.
"""
import collections
import dataclasses
import os

import numpy as np

from utils import files, pages, visualization

_PICTURE_WIDTH = 480      # pixels of what is shown; larger photos are scaled down
_SHOWN_OF_A_PROBLEM = 6   # pictures
_UNFOLDED = 6             # lines on a problem that are seen without a click
_SHOWN_SIZES = 8
_MARK = '<label class="slider">overlay'  # what no other page holds
_fill = pages.Template(os.path.splitext(__file__)[0] + '.html').fill


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
  page = _fill('page', title=content.dataset.name, summary=_summary(content), controls=_fill('controls'),
               sections=[_problems(folder, content), _classes(content), _sizes(content),
                         *(_examples(folder, content, one) for one in (*content.crops, *content.sets))])
  pages.write(os.path.join(folder, 'index.html'), page)


def check_replaceable(folder):
  """Raises UsageError where the page would take the place of an index.html that is no such page."""
  pages.check_replaceable(folder, _MARK, '--output_dir')


# --- Sections ------------------------------------------------------------------------------------


def _summary(content):
  """Returns the line below the title."""
  sets = [_fill('set', number=f'{len(one.facts) + len(one.errors):,}', title=one.title)
          for one in content.sets]
  kinds = collections.Counter(problem.kind for problem in content.problems)
  badges = [_fill('badge', kind=kind, text=f'{number} {kind}{"s" * (number > 1)}')
            for kind, number in kinds.items()] or [_fill('badge', kind='fine', text='no problems')]
  return _fill('summary', sets=pages.Html(' + '.join(sets)), classes=content.dataset.num_classes,
               ignore_label=content.dataset.ignore_label, badges=pages.Html(' '.join(badges)))


def _problems(folder, content):
  parts = []
  for problem in content.problems:
    details = [_fill('detail', text=detail) for detail in problem.details]
    details = _fill('details', items=details) if details else ''
    if len(problem.details) > _UNFOLDED:
      details = _fill('folded', number=f'{len(problem.details):,}', details=details)
    cards = [_card(folder, content, title, facts) for title, facts in problem.examples[:_SHOWN_OF_A_PROBLEM]]
    parts.append(_fill('problem', kind=problem.kind, sentence=problem.sentence, details=details, cards=cards))
  return _fill('problems', problems=parts) if parts else ''


def _classes(content):
  """Returns the table of classes: pixels as bars, and the share of images that hold each."""
  shares = [one.pixels / max(one.pixels.sum(), 1) for one in content.sets]
  longest = max(max(share.max() for share in shares), 1e-9)
  rows = []
  for value, (name, colour) in enumerate(zip(content.dataset.class_names, content.dataset.palette)):
    cells = [_fill('class_cells', width=f'{100 * share[value] / longest:.2f}', colour=pages.css(colour),
                   pixels=f'{one.pixels[value]:,}', share=pages.percent(share[value]),
                   images=pages.percent(one.images[value] / max(len(one.facts), 1)))
             for one, share in zip(content.sets, shares)]
    rows.append(_fill('class_row', value=value, colour=pages.css(colour), name=name, cells=cells))
  ignored = [_fill('ignored_cells', share=pages.percent(one.ignored),
                   images=pages.percent(np.mean([facts.ignored > 0 for facts in one.facts] or [0])))
             for one in content.sets]
  return _fill('classes', heads=[_fill('class_heads', title=one.title) for one in content.sets], rows=rows,
               ignore_label=content.dataset.ignore_label, ignored=ignored)


def _sizes(content):
  """Returns the list of the most frequent sizes, and a plot where there are several."""
  blocks = []
  for one in content.sets:
    sizes = collections.Counter(facts.size[::-1] for facts in one.facts)  # width, height
    rows = [_fill('size', width=width, height=height, number=f'{number:,}')
            for (width, height), number in sizes.most_common(_SHOWN_SIZES)]
    if len(sizes) > _SHOWN_SIZES:
      rows.append(_fill('other_sizes', sizes=f'{len(sizes) - _SHOWN_SIZES:,}',
                        number=f'{sum(n for _, n in sizes.most_common()[_SHOWN_SIZES:]):,}'))
    blocks.append(_fill('sizes_of_set', title=one.title, rows=rows,
                        plot=_size_plot(sizes) if len(sizes) > 1 else ''))
  return _fill('sizes', sets=blocks)


def _size_plot(sizes):
  """Returns an SVG: a disk at each (width, height), its area that of the number of images."""
  side = max(max(size) for size in sizes)
  most = max(sizes.values())
  disks = [_fill('disk', x=f'{240 * width / side:.1f}', y=f'{240 - 240 * height / side:.1f}',
                 radius=f'{max(1.5, 9 * (number / most) ** .5):.1f}', width=width, height=height,
                 number=f'{number:,}')
           for (width, height), number in sizes.items()]
  return _fill('plot', disks=disks, side=side)


def _examples(folder, content, one):
  """Returns the contact sheet of a set."""
  if not one.facts:
    return ''
  legend = [_fill('legend', colour=pages.css(colour), name=name)
            for name, colour in zip(content.dataset.class_names, content.dataset.palette)]
  cards = [_card(folder, content, one.title, facts) for facts in _chosen(one, content.samples)]
  return _fill('examples', title=one.title, legend=legend, cards=cards)


def _chosen(one, samples):
  """Returns Facts at equal distances in a Set, and for each class that they lack the one with most of it."""
  places = dict.fromkeys(np.linspace(0, len(one.facts) - 1, min(samples, len(one.facts))).round().astype(int))
  pixels = np.stack([facts.pixels for facts in one.facts])  # [N, K]
  for value in np.flatnonzero(pixels.sum(0)):
    if not pixels[list(places), value].any():
      places[pixels[:, value].argmax()] = None
  return [one.facts[place] for place in places]


# --- Parts ---------------------------------------------------------------------------------------


def _card(folder, content, title, facts):
  """Writes an example's pictures and returns its photo, label, overlay and classes."""
  photo, label = _write_pictures(folder, content, title, facts)
  total = np.prod(facts.size)
  shares = [_fill('share', colour=pages.css(content.dataset.palette[value]),
                  name=content.dataset.class_names[value], share=pages.percent(facts.pixels[value] / total))
            for value in facts.pixels.argsort()[::-1] if facts.pixels[value]]
  if facts.ignored:
    shares.append(_fill('ignored_share', share=pages.percent(facts.ignored)))
  return _fill('card', title=title, name=facts.name, width=facts.size[1], height=facts.size[0],
               photo=photo, label=label, shares=shares)


def _write_pictures(folder, content, title, facts):
  """Writes a photo and its label, unless they are there already; returns their addresses in the page."""
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
  return stem + '.jpg', stem + '_label.png'
