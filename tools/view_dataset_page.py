"""The page of tools/view_dataset.py: one HTML file, its pictures in a folder beside it."""
import collections
import dataclasses
import html
import os
import string

import numpy as np
from PIL import Image

from utils import files, visualization
from utils.errors import UsageError

_PICTURE_WIDTH = 480      # pixels of what is shown; larger photos are scaled down
_SHOWN_OF_A_PROBLEM = 6   # pictures
_UNFOLDED = 6             # lines on a problem that are seen without a click
_SHOWN_SIZES = 8


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
  page = _PAGE.substitute(
      title=html.escape(content.dataset.name),
      summary=_summary(content),
      sections=(_problems(folder, content) + _classes(content) + _sizes(content)
                + ''.join(_examples(folder, content, one) for one in content.sets)))
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
  counts = [f'<b>{len(one.facts) + len(one.errors):,}</b> {html.escape(one.title)}' for one in content.sets]
  kinds = collections.Counter(problem.kind for problem in content.problems)
  badges = [f'<span class="badge {kind}">{number} {kind}{"s" * (number > 1)}</span>'
            for kind, number in kinds.items()] or ['<span class="badge fine">no problems</span>']
  return (f'{" + ".join(counts)} examples &middot; <b>{content.dataset.num_classes}</b> classes &middot; '
          f'ignore label <b>{content.dataset.ignore_label}</b> {" ".join(badges)}')


def _problems(folder, content):
  parts = []
  for problem in content.problems:
    details = ''.join(f'<li>{html.escape(detail)}</li>' for detail in problem.details)
    details = f'<ul>{details}</ul>' if details else ''
    if len(problem.details) > _UNFOLDED:
      details = f'<details><summary>{len(problem.details):,} in all</summary>{details}</details>'
    cards = ''.join(_card(folder, content, title, facts)
                    for title, facts in problem.examples[:_SHOWN_OF_A_PROBLEM])
    parts.append(f'<div class="problem {problem.kind}"><p>{html.escape(problem.sentence)}</p>{details}'
                 f'<div class="cards">{cards}</div></div>')
  return f'<section><h2>Problems</h2>{"".join(parts)}</section>' if parts else ''


def _classes(content):
  """Returns the table of classes: pixels as bars, and the share of images that hold each."""
  shares = [one.pixels / max(one.pixels.sum(), 1) for one in content.sets]
  longest = max(max(share.max() for share in shares), 1e-9)
  head = ''.join(f'<th class="bar">{html.escape(one.title)}: pixels</th><th>share</th><th>in images</th>'
                 for one in content.sets)
  rows = []
  for value, (name, colour) in enumerate(zip(content.dataset.class_names, content.dataset.palette)):
    cells = ''.join(
        f'<td class="bar"><i style="width:{100 * share[value] / longest:.2f}%;'
        f'background:{_css(colour)}"></i></td>'
        f'<td title="{one.pixels[value]:,} pixels">{_percent(share[value])}</td>'
        f'<td>{_percent(one.images[value] / max(len(one.facts), 1))}</td>'
        for one, share in zip(content.sets, shares))
    rows.append(f'<tr><td>{value}</td><th>{_swatch(colour)}{html.escape(name)}</th>{cells}</tr>')
  ignored = ''.join(
      f'<td class="bar">of all pixels</td><td>{_percent(one.ignored)}</td>'
      f'<td>{_percent(np.mean([facts.ignored > 0 for facts in one.facts] or [0]))}</td>'
      for one in content.sets)
  rows.append(f'<tr class="ignored"><td>{content.dataset.ignore_label}</td>'
              f'<th><i class="swatch hatched"></i>ignored</th>{ignored}</tr>')
  return (f'<section><h2>Classes</h2><table class="classes"><tr><th>value</th><th>class</th>{head}</tr>'
          f'{"".join(rows)}</table></section>')


def _sizes(content):
  """Returns the list of the most frequent sizes, and a plot where there are several."""
  blocks = []
  for one in content.sets:
    sizes = collections.Counter(facts.size[::-1] for facts in one.facts)  # width, height
    rows = ''.join(f'<tr><th>{width} &times; {height}</th><td>{number:,}</td></tr>'
                   for (width, height), number in sizes.most_common(_SHOWN_SIZES))
    if len(sizes) > _SHOWN_SIZES:
      rows += f'<tr><th>{len(sizes) - _SHOWN_SIZES:,} other sizes</th><td>'
      rows += f'{sum(n for _, n in sizes.most_common()[_SHOWN_SIZES:]):,}</td></tr>'
    plot = _size_plot(sizes) if len(sizes) > 1 else ''
    blocks.append(f'<div><table><tr><th>{html.escape(one.title)}: width &times; height</th><th>images</th>'
                  f'</tr>{rows}</table>{plot}</div>')
  return f'<section><h2>Sizes</h2><div class="sizes">{"".join(blocks)}</div></section>'


def _size_plot(sizes):
  """Returns an SVG: a disk at each (width, height), its area that of the number of images."""
  side = max(max(size) for size in sizes)
  most = max(sizes.values())
  disks = ''.join(
      f'<circle cx="{240 * width / side:.1f}" cy="{240 - 240 * height / side:.1f}" '
      f'r="{max(1.5, 9 * (number / most) ** .5):.1f}"><title>{width} x {height}: {number:,}</title></circle>'
      for (width, height), number in sizes.items())
  return (f'<svg viewBox="-12 -12 300 284" role="img"><path d="M0 0V240H240"/><path class="guide" d="M0 240'
          f'L240 0"/>{disks}<text x="240" y="256">width {side}</text><text x="4" y="-2" class="left">height '
          f'{side}</text></svg>')


def _examples(folder, content, one):
  """Returns the contact sheet of a set."""
  if not one.facts:
    return ''
  legend = ''.join(f'<span>{_swatch(colour)}{html.escape(name)}</span>'
                   for name, colour in zip(content.dataset.class_names, content.dataset.palette))
  cards = ''.join(_card(folder, content, one.title, facts) for facts in _chosen(one, content.samples))
  return (f'<section><h2>Examples of {html.escape(one.title)}</h2>'
          f'<div class="legend">{legend}<span><i class="swatch hatched"></i>ignored</span></div>'
          f'<div class="cards">{cards}</div></section>')


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
  order = [value for value in facts.pixels.argsort()[::-1] if facts.pixels[value]]
  total = np.prod(facts.size)
  classes = ''.join(f'<span>{_swatch(content.dataset.palette[value])}'
                    f'{html.escape(content.dataset.class_names[value])} '
                    f'<small>{_percent(facts.pixels[value] / total)}</small></span>' for value in order)
  if facts.ignored:
    classes += f'<span><i class="swatch hatched"></i>ignored <small>{_percent(facts.ignored)}</small></span>'
  return (f'<figure><figcaption><b>{html.escape(title)}</b> {html.escape(facts.name)} '
          f'<small>{facts.size[1]} &times; {facts.size[0]}</small></figcaption><div class="panels">'
          f'<img loading="lazy" src="{photo}" alt="photo"><img loading="lazy" class="label" src="{label}" '
          f'alt="label"><div class="overlay"><img loading="lazy" src="{photo}" alt="">'
          f'<img loading="lazy" class="over" src="{label}" alt="overlay"></div></div>'
          f'<div class="legend">{classes}</div></figure>')


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


def _swatch(colour):
  return f'<i class="swatch" style="background:{_css(colour)}"></i>'


def _css(colour):
  return '#' + bytes(colour).hex()


def _percent(share):
  """Returns 12 %, 1.2 % or 0.012 %: two digits that count."""
  percent = 100 * share
  if percent == 0 or percent >= 10:
    return f'{percent:.0f} %'
  return f'{percent:.{1 if percent >= 1 else 2 if percent >= .1 else 3}f} %'


_MARK = '<label class="slider">overlay'  # what no other page holds
_PAGE = string.Template('''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
:root { --opacity: .5; --line: #e3e5e8; --soft: #6b7280; --hatch: repeating-linear-gradient(
  45deg, #d4d7dc 0 2px, #f6f7f8 2px 6px); }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; background: #f6f7f8; margin: 0; }
header, main { max-width: 1500px; margin: auto; padding: 0 28px; }
header { padding-top: 28px; }
h1 { font-size: 30px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 0 0 14px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px;
  margin: 20px 0; }
small, summary { color: var(--soft); }
.badge { border-radius: 9px; padding: 1px 9px; margin-left: 6px; font-size: 13px; font-weight: 600; }
.badge.error { background: #fde2e1; color: #a3201b; } .badge.fine { background: #dcf3e3; color: #17663a; }
.badge.warning { background: #fdf0cf; color: #7c5300; }
.problem { border-left: 4px solid #e5a50a; padding-left: 14px; margin: 18px 0; }
.problem.error { border-color: #d93a34; } .problem p { margin: 0; }
.problem ul { margin: 4px 0 8px; padding-left: 20px; max-height: 260px; overflow: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 400; text-align: left; } tr:first-child th { color: var(--soft); font-size: 13px; }
td, th { padding: 3px 14px 3px 0; white-space: nowrap; } td { text-align: right; }
tr + tr { border-top: 1px solid var(--line); }
.classes { width: 100%; } .classes .bar { width: 34%; text-align: left; color: var(--soft); }
.bar i { display: block; height: 14px; border-radius: 3px; box-shadow: inset 0 0 0 1px #0002; }
.swatch { display: inline-block; width: 13px; height: 13px; border-radius: 3px; margin-right: 7px;
  vertical-align: -1px; box-shadow: inset 0 0 0 1px #0003; }
.hatched { background: var(--hatch); }
.sizes, .sizes div { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 28px 50px; }
svg { width: 300px; height: 284px; } svg path { stroke: #b8bcc4; fill: none; }
svg .guide { stroke-dasharray: 3 4; stroke: var(--line); } circle { fill: #2f6fdb88; }
text { font-size: 12px; fill: var(--soft); text-anchor: end; } text.left { text-anchor: start; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13.5px; }
section > .legend { position: sticky; top: 0; background: #fff; padding: 8px 0; z-index: 1; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(620px, 1fr)); gap: 26px; }
figure { margin: 14px 0 0; min-width: 0; }
figcaption { margin-bottom: 5px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
figcaption b { font-weight: 600; color: var(--soft); margin-right: 4px; }
.panels { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; margin-bottom: 5px; }
.panels img { width: 100%; display: block; border-radius: 4px; }
.label { background: var(--hatch); }
.overlay { position: relative; } .over { position: absolute; inset: 0; opacity: var(--opacity); }
.slider { float: right; color: var(--soft); font-size: 13.5px; } .slider input { vertical-align: middle; }
@media (max-width: 720px) { .cards { grid-template-columns: 1fr; } }
</style></head><body>
<header>
<label class="slider">overlay <input type="range" min="0" max="1" step=".05" value=".5"
oninput="document.documentElement.style.setProperty('--opacity', this.value)"></label>
<h1>$title</h1><div>$summary</div></header>
<main>$sections</main></body></html>
''')
