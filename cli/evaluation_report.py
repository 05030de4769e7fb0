"""The report of an evaluation (evaluate.py --report): a page in one file, and its figures beside it.

Its HTML stands in evaluation_report.html, and in utils/pages.html.
"""
import heapq
import io
import os
import typing

import cv2
import numpy as np
from PIL import Image

from utils import confusion_picture, files, pages, scores, validation, visualization
from utils.errors import UsageError

PAGE, IMAGES, MATRIX, PICTURE, SCORES = NAMES = (
    'index.html', 'per_image.csv', 'confusion_matrix.csv', 'confusion_matrix.png', 'scores.json')
_WIDTH = 320  # pixels of a picture
_MARK = '<section class="images four">'  # what no other page holds
_RIGHT, _WRONG = (60, 66, 80), (232, 54, 44)
_MOST_CLASSES = 8  # that are named below an image
_COLUMNS = ('iou', 'accuracy', 'precision', 'recall', 'dice', 'boundary_iou', 'pixels')
_fill = pages.Template(os.path.splitext(__file__)[0] + '.html').fill


class Example(typing.NamedTuple):
  """An image of the page: its scores.ImageScores, and all at the size shown, uint8 [h, w, 3] and [h, w]."""
  scores: scores.ImageScores
  photo: np.ndarray
  label: np.ndarray
  classes: np.ndarray


class Gallery:
  """Keeps the images with the lowest and the highest IoU of all that come by."""

  def __init__(self, number: int) -> None:
    """Args: number, of images to keep of each kind."""
    self._number = number
    self._worst: list[tuple[float, int, Example]] = []  # heaps, whose first is the next to be dropped
    self._best: list[tuple[float, int, Example]] = []
    self._seen = 0

  def add(self, found: scores.ImageScores, photo: np.ndarray, label: np.ndarray, classes: np.ndarray) -> None:
    """Keeps an image if it is one of them.

    Args:
      found: its scores; one without is never shown.
      photo: uint8 [H, W, 3], RGB.
      label, classes: uint8 [H, W].
    """
    self._seen += 1
    if found.iou is None:
      return
    example = None
    for heap, key in ((self._worst, -found.iou), (self._best, found.iou)):
      if len(heap) < self._number or key > heap[0][0]:
        example = example or _reduced(found, photo, label, classes)
        (heapq.heappush if len(heap) < self._number else heapq.heapreplace)(heap, (key, -self._seen, example))

  def examples(self) -> list[Example]:
    """Returns the images kept, each once, by rising IoU."""
    kept = {-number: example for _, number, example in (*self._worst, *self._best)}
    return sorted(kept.values(), key=lambda example: example.scores.iou or 0.0)


def _reduced(found, photo, label, classes):
  size = visualization.shown_size(label.shape, _WIDTH)
  label, classes = (cv2.resize(values, size, interpolation=cv2.INTER_NEAREST) for values in (label, classes))
  return Example(found, cv2.resize(photo, size, interpolation=cv2.INTER_AREA), label, classes)


def check(folder: str, inputs: typing.Iterable[str]) -> None:
  """Raises UsageError if the report would replace what is no report, or what is read.

  Args:
    inputs: paths of all that is read.
  """
  paths = [os.path.join(folder, name) for name in NAMES]
  files.check_outputs(paths, inputs, '--report')
  pages.check_replaceable(folder, _MARK, '--report')
  there = [path for path in paths if os.path.lexists(path)]
  if there and not os.path.lexists(paths[0]):
    raise UsageError(f"--report would replace '{there[0]}', which is of no report ({PAGE} is missing); give "
                     'another folder')


def write(folder: str, split: str, found: dict[str, typing.Any], images: list[scores.ImageScores],
          gallery: Gallery, dataset: typing.Any) -> None:
  """Writes the page and the files beside it into an existing folder.

  Args:
    split: what the images are called together.
    found: the scores for JSON, of scores.Tally and with checkpoint, step, images and confusion_matrix.
    images: those of scores.Tally.
    gallery: Gallery.
    dataset: descriptors.Dataset of the model.
  """
  matrix, names = np.array(found['confusion_matrix']), list(dataset.class_names)
  picture = _png(confusion_picture.draw(matrix, names))
  page = _fill('page', title=f'Evaluation: {dataset.name}', controls='', summary=_fill(
      'summary', step=found['step'], images=f'{found["images"]:,}', split=split,
      checkpoint=found['checkpoint']),
      sections=[_tiles(found), _classes(found, dataset),
                _fill('matrix', picture=pages.data_uri('image/png', picture)),
                _images(gallery, found['images'], dataset), _fill('script')])
  pages.write(os.path.join(folder, PAGE), page)
  with files.replacing(os.path.join(folder, PICTURE)) as temporary, open(temporary, 'wb') as file:
    file.write(picture)
  files.write_csv(os.path.join(folder, MATRIX), [[r'true \ predicted', *names], *(
      [name, *row] for name, row in zip(names, found['confusion_matrix']))])
  files.write_csv(os.path.join(folder, IMAGES), [['name', 'IoU', 'accuracy', 'pixels', *names], *(
      [one.name, _number(one.iou), _number(one.accuracy), one.pixels,
       *map(_number, validation.as_json(one.class_iou))] for one in images)])
  files.write_json(os.path.join(folder, SCORES), found)


def _number(value):
  return '' if value is None else f'{value:.6f}'


def _png(picture):
  encoded = io.BytesIO()
  picture.save(encoded, 'PNG', optimize=True)
  return encoded.getvalue()


# --- Sections ------------------------------------------------------------------------------------


def _tiles(found):
  has_pixels = any(map(any, found['confusion_matrix']))
  return _fill('tiles', tiles=[_fill('tile', title=title, value=_shown(value if has_pixels else None))
                               for title, value in scores.means(found)])


def _classes(found, dataset):
  """Returns the table of classes, with a bar for the IoU of each."""
  heads = [_fill('class_head', column=place, title=scores.title(column))
           for place, column in enumerate(_COLUMNS, 2)]
  rows = []
  for number, (name, colour) in enumerate(zip(dataset.class_names, dataset.palette)):
    of_class = found['classes'][name]
    cells = [_fill('class_cell', value=-1 if of_class[column] is None else of_class[column],
                   text=f'{of_class[column]:,}' if column == 'pixels' else _shown(of_class[column]))
             for column in _COLUMNS]
    rows.append(_fill('class_row', number=number, name=name, colour=pages.css(colour), cells=cells,
                      width=f'{100 * (of_class["iou"] or 0):.2f}'))
  return _fill('classes', heads=heads, rows=rows)


def _images(gallery, count, dataset):
  examples = gallery.examples()
  legend = [_fill('legend', colour=pages.css(colour), name=name)
            for name, colour in zip(dataset.class_names, dataset.palette)]
  title = 'Images' if len(examples) == count else f'The {len(examples)} worst and best of {count:,} images'
  return _fill('images', title=title, legend=legend, right=pages.css(_RIGHT), wrong=pages.css(_WRONG),
               cards=[_card(example, dataset) for example in examples])


def _card(example, dataset):
  found, size = example.scores, example.label.shape[::-1]
  is_ignored = example.label == dataset.ignore_label
  errors = np.where(is_ignored, 255, example.label != example.classes).astype(np.uint8)
  truth, prediction, wrong = (
      pages.data_uri('image/png', visualization.label_png(values, size, palette, ignore_label))
      for values, palette, ignore_label in (
          (example.label, dataset.palette, dataset.ignore_label),
          (example.classes, dataset.palette, dataset.ignore_label), (errors, (_RIGHT, _WRONG), 255)))
  photo = pages.data_uri('image/jpeg', visualization.photo_jpeg(Image.fromarray(example.photo), size))
  occurring = [value for value in np.argsort(found.class_iou) if not np.isnan(found.class_iou[value])]
  shares = [_fill('share', colour=pages.css(dataset.palette[value]), name=dataset.class_names[value],
                  share=_shown(found.class_iou[value])) for value in occurring[:_MOST_CLASSES]]
  return _fill('card', name=found.name, iou=found.iou, shown_iou=_shown(found.iou),
               accuracy=_shown(found.accuracy), photo=photo, truth=truth, prediction=prediction, errors=wrong,
               shares=shares)


def _shown(value):
  return '–' if value is None else f'{value:.4f}'
