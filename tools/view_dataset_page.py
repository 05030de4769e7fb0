"""The page of tools/view_dataset.py: one HTML file, its pictures in a folder beside it.

Its HTML stands in view_dataset_page.html, in parts that `_fill` fills in.
"""
import collections
import dataclasses
import html
import os
import re
import string

import numpy as np
from PIL import Image

from utils import files, visualization
from utils.errors import UsageError

_PICTURE_WIDTH = 480      # pixels of what is shown; larger photos are scaled down
_SHOWN_OF_A_PROBLEM = 6   # pictures
_UNFOLDED = 6             # lines on a problem that are seen without a click
_SHOWN_SIZES = 8
_MARK = '<label class="slider">overlay'  # what no other page holds


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
  """
  dataset: object
  sets: list
  problems: list
  load: dict
  samples: int


def write(folder, content):
  """Writes index.html and pictures/ into a folder that exists."""
  os.makedirs(os.path.join(folder, 'pictures'), exist_ok=True)
  page = _fill('page', title=content.dataset.name, summary=_summary(content),
               sections=[_problems(folder, content), _classes(content), _sizes(content),
                         *(_examples(folder, content, one) for one in content.sets)])
  with files.replacing(os.path.join(folder, 'index.html')) as temporary:
    # Names of files need not be text.
    with open(temporary, 'w', encoding='utf-8', errors='backslashreplace') as file:
      file.write(page)


def check_replaceable(folder):
  """Raises UsageError where the page would take the place of an index.html that is no such page."""
  path = os.path.join(folder, 'index.html')
  if os.path.lexists(path):
    page = files.read_bytes(path, f"'{path}'", limit=1 << 30)
    if _MARK.encode() not in page:
      raise UsageError(f"--output_dir holds '{path}', which is no page of this tool; give another folder")


# --- Sections ------------------------------------------------------------------------------------


def _summary(content):
  """Returns the line below the title."""
  sets = [_fill('set', number=f'{len(one.facts) + len(one.errors):,}', title=one.title)
          for one in content.sets]
  kinds = collections.Counter(problem.kind for problem in content.problems)
  badges = [_fill('badge', kind=kind, text=f'{number} {kind}{"s" * (number > 1)}')
            for kind, number in kinds.items()] or [_fill('badge', kind='fine', text='no problems')]
  return _fill('summary', sets=_Html(' + '.join(sets)), classes=content.dataset.num_classes,
               ignore_label=content.dataset.ignore_label, badges=_Html(' '.join(badges)))


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
    cells = [_fill('class_cells', width=f'{100 * share[value] / longest:.2f}', colour=_css(colour),
                   pixels=f'{one.pixels[value]:,}', share=_percent(share[value]),
                   images=_percent(one.images[value] / max(len(one.facts), 1)))
             for one, share in zip(content.sets, shares)]
    rows.append(_fill('class_row', value=value, colour=_css(colour), name=name, cells=cells))
  ignored = [_fill('ignored_cells', share=_percent(one.ignored),
                   images=_percent(np.mean([facts.ignored > 0 for facts in one.facts] or [0])))
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
  legend = [_fill('legend', colour=_css(colour), name=name)
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
  shares = [_fill('share', colour=_css(content.dataset.palette[value]),
                  name=content.dataset.class_names[value], share=_percent(facts.pixels[value] / total))
            for value in facts.pixels.argsort()[::-1] if facts.pixels[value]]
  if facts.ignored:
    shares.append(_fill('ignored_share', share=_percent(facts.ignored)))
  return _fill('card', title=title, name=facts.name, width=facts.size[1], height=facts.size[0],
               photo=photo, label=label, shares=shares)


def _write_pictures(folder, content, title, facts):
  """Writes a photo and its label, unless they are there already; returns their addresses in the page."""
  number = [one.title for one in content.sets].index(title)
  stem = f'pictures/{number}_{facts.index:06d}'
  photo_path, label_path = (os.path.join(folder, stem + end) for end in ('.jpg', '_label.png'))
  _, image, label = content.load[title](facts.index, _PICTURE_WIDTH)
  width = min(_PICTURE_WIDTH, label.shape[1])
  size = width, max(1, round(width * label.shape[0] / label.shape[1]))
  with files.replacing(photo_path) as temporary:
    image.resize(size, Image.Resampling.LANCZOS).save(temporary, 'JPEG', quality=88)
  picture = Image.fromarray(label).resize(size, Image.Resampling.NEAREST)
  ignore_label = content.dataset.ignore_label
  picture.putpalette(visualization.color_table(content.dataset.palette, ignore_label).tobytes())
  with files.replacing(label_path) as temporary:
    picture.save(temporary, 'PNG', transparency=ignore_label)  # the page's hatching shows through
  return stem + '.jpg', stem + '_label.png'


def _css(colour):
  return '#' + bytes(colour).hex()


def _percent(share):
  """Returns 12 %, 1.2 % or 0.012 %: two digits that count."""
  percent = 100 * share
  if percent == 0 or percent >= 10:
    return f'{percent:.0f} %'
  return f'{percent:.{1 if percent >= 1 else 2 if percent >= .1 else 3}f} %'


# --- HTML ----------------------------------------------------------------------------------------


class _Html(str):
  """A str that is HTML already; any other is escaped."""


def _fill(part, **values):
  """Returns a part of the template, its $names replaced by values: text, numbers, _Html, or lists of them."""
  return _Html(_PARTS[part].substitute({name: _escaped(value) for name, value in values.items()}))


def _escaped(value):
  if isinstance(value, list):
    return ''.join(map(_escaped, value))
  return value if isinstance(value, _Html) else html.escape(str(value))


def _read_parts():
  """Returns the parts of view_dataset_page.html, a dict of string.Template."""
  with open(os.path.splitext(__file__)[0] + '.html', encoding='utf-8') as file:
    _, *pieces = re.split(r'<!-- part: (\w+) -->\n', file.read())
  parts = dict(zip(pieces[::2], pieces[1::2]))
  return {name: string.Template(text.strip() + '\n' if name == 'page' else re.sub(r'\n *', '', text))
          for name, text in parts.items()}


_PARTS = _read_parts()
