"""The work of tools/view_dataset.py: every example is read, and the page and the figures are written.

`examine` reduces an example to its Facts, from which all else is computed. The page is one HTML file, its
pictures in a folder beside it; its HTML stands in view_dataset_report.html, and in utils/pages.html.
"""
import collections
import concurrent.futures
import functools
import os
import typing

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from commands import flags
from dataset import class_uniform, descriptors, image_files, inputs, lists, record_index, schema, tf_records
from nets import backbones
from utils import devices, environment, failures, files, pages, visualization
from utils.errors import DataError, UsageError
from utils.progress import Progress

_PICTURE_WIDTH = 480      # pixels of what is shown; larger photos are scaled down
_SHOWN_OF_A_PROBLEM = 6   # pictures
_MARK = '<label class="slider">overlay'  # what no other page holds
_TEMPLATE = os.path.splitext(__file__)[0] + '.html'


class Facts(typing.NamedTuple):
  """What is kept of an example: its place in the source, pixels of each class, the share that is ignored."""
  index: int
  name: str
  size: tuple[int, int]       # height, width
  pixels: np.ndarray          # int64 [K]; 0 for a class that is ignored
  ignored: float              # 0..1
  fingerprint: bytes | None   # see image_files.fingerprint


class Set(typing.NamedTuple):
  """A set of examples; `load` returns of one's index what `decode` does."""
  title: str
  facts: list[Facts]          # of the usable examples
  errors: list[str]           # a sentence on each of the others
  pixels: np.ndarray          # int64 [K], of each class
  images: np.ndarray          # int64 [K], examples that hold each class
  ignored: float              # 0..1, the share of ignored pixels
  sizes: list[tuple]          # ((width, height), number of examples), the most frequent first
  load: typing.Callable[[int], tuple]


class Problem(typing.NamedTuple):
  """Something to know before training, with examples worth looking at."""
  kind: str                   # 'error' (examples that cannot be used) or 'warning'
  sentence: str
  details: list[str]          # one for each example concerned
  examples: list[tuple[Set, Facts]]


@failures.explaining('leave out the largest images, or end other programs that hold memory')
def main(args):
  """Looks the sets over, and writes the page, as the flags say."""
  check_augmented(args)
  dataset = descriptors.get_dataset(args.dataset)
  sources = open_sources(args, dataset)
  options = crop_options(args) if args.augmented else None
  pages.check_replaceable(args.output_dir, _MARK, '--output_dir')
  files.check_json_output(args.json, '--json')
  files.make_folder(args.output_dir, '--output_dir')
  if args.json:
    files.make_folder_of(args.json, '--json')

  sets = [read_set(title, *source, dataset) for title, source in sources.items()]
  problems = find_problems(sets, dataset)
  crops = []
  if options and not sets[0].errors:  # which end the stream of crops, and are told of below
    examples = read_crops(args, dataset, options)
    facts = [examine(index, *crop, dataset) for index, crop in enumerate(examples)]
    crops = [set_of(f'{args.split}, augmented', facts, [], dataset, examples.__getitem__)]
  write_page(args, dataset, sets, crops, problems)
  if args.json:
    files.write_json(args.json, as_json(sets, problems, dataset))

  for problem in problems:
    print(f'{problem.kind}: {problem.sentence}')
  print(f'The page is {os.path.join(args.output_dir, "index.html")}')
  errors = [error for one in sets for error in one.errors]
  if errors:
    raise DataError(f'{len(errors)} example{"s" * (len(errors) > 1)} cannot be used: {errors[0]}')


def check_augmented(args):
  """Raises UsageError if flags of --augmented are given without it, or it cannot be."""
  names = {flags.SHARED[name].get('name', name) for name in flags.AUGMENTATION_FLAGS} | {'base_architecture'}
  flags.refuse_idle(args, (' '.join(sorted(names)), args.augmented, 'without --augmented'),
                    ('split', args.data_dir, 'without --data_dir'))
  if args.augmented and not args.data_dir:
    raise UsageError('--augmented shows crops of records; give --data_dir, a folder of records, in place of '
                     '--image_data_dir, --label_data_dir and --list')
  inputs.read_flags(args)


# --- Reading -------------------------------------------------------------------------------------


def open_sources(args, dataset):
  """Returns {title: (source, sentences on files that are missing)} of the one or two sets of the flags.

  Raises:
    UsageError: flags are missing or exclude one another.
    DataError: records, lists or folders are missing.
  """
  folders = (args.image_data_dir, args.label_data_dir, args.list)
  if args.data_dir and any(folders):
    raise UsageError('--data_dir means records; leave out --image_data_dir, --label_data_dir and --list')
  if not args.data_dir and not all(folders):
    raise UsageError('give --data_dir, a folder of records, or all of --image_data_dir, --label_data_dir '
                     'and --list')
  names = [args.split if args.data_dir else args.list] + ([args.val] if args.val else [])
  titles = names if args.data_dir else [os.path.splitext(os.path.basename(name))[0] for name in names]
  if len(set(titles)) < len(titles):
    raise UsageError(f'--val {args.val} is called as the set that it is compared with; give another')
  sources = {}
  for title, name in zip(titles, names):
    if args.data_dir:
      sources[title] = tf_records.Records(tf_records.record_files(args.data_dir, name)), []
      record_index.read(args.data_dir, name)  # which refuses records that it does not describe
    else:
      places = lists.Folders([args.image_data_dir], [args.label_data_dir])
      pairs, missing = lists.match_pairs(places, lists.read_list(name), dataset)
      sources[title] = tf_records.Files(pairs), missing
  return sources


def read_set(title, source, errors, dataset):
  """Returns the Set of a source, tf_records.Records or Files; `errors` are sentences on what is missing."""
  def examined(index):
    try:
      return examine(index, *decode(source, dataset, index, image_files.PRINT_SIDE), dataset)
    except DataError as error:
      return str(error)

  facts, errors = [], list(errors)
  with (concurrent.futures.ThreadPoolExecutor(environment.cores()) as pool,
        Progress(len(source), title, 'image') as progress):
    for one in pool.map(examined, range(len(source))):
      (errors if isinstance(one, str) else facts).append(one)
      progress.update()
  return set_of(title, facts, errors, dataset, functools.partial(decode, source, dataset))


def decode(source, dataset, index, min_side=_PICTURE_WIDTH):
  """Returns an example's name, image and label; see schema.decode."""
  where = source.source(index)
  features = tf_records.parse(source.load(index), where)
  return schema.file_name(features) or where, *schema.decode(features, dataset, where, min_side)


def examine(index, name, image, label, dataset):
  """Returns the Facts of an example: a PIL image, of any scale, and uint8 [H, W], 0..K-1 or ignored."""
  pixels = np.bincount(label.ravel(), minlength=256)[:dataset.num_classes]
  pixels[np.arange(dataset.num_classes) == dataset.ignore_label] = 0
  return Facts(index, name, label.shape, pixels, float((label == dataset.ignore_label).mean()),
               image_files.fingerprint(image))


def set_of(title, facts, errors, dataset, load):
  """Returns the Set of some Facts."""
  pixels = np.stack([one.pixels for one in facts] or [np.zeros(dataset.num_classes, np.int64)])  # [N, K]
  areas = [np.prod(one.size) for one in facts]
  ignored = float(np.dot([one.ignored for one in facts], areas) / max(sum(areas), 1))
  sizes = collections.Counter(one.size[::-1] for one in facts).most_common()
  return Set(title, facts, errors, pixels.sum(0), (pixels > 0).sum(0), ignored, sizes, load)


def crop_options(args):
  """Returns the inputs.TrainOptions of a training by the same flags.

  Raises:
    DataError: the index of the records does not say what --class_uniform needs.
  """
  records = tf_records.record_files(args.data_dir, args.split)
  index = record_index.read(args.data_dir, args.split)
  return inputs.TrainOptions(
      **inputs.read_flags(args), images_per_replica=1,
      sampling=class_uniform.plan(index, args.class_uniform, record_index.path_of(args.data_dir, args.split)),
      padding_color=backbones.get(args.base_architecture).padding_color,
      num_examples=record_index.count_examples(index, records))


def read_crops(args, dataset, options):
  """Returns [(name, image, label), ...] of the first --samples crops of training, as `decode` does."""
  paths = tf_records.record_files(args.data_dir, args.split)
  crops = []
  with devices.cpu_session() as session:
    batch = tf.data.make_one_shot_iterator(inputs.train_dataset(paths, dataset, options)).get_next()
    for name in inputs.example_names(paths, options, args.samples):
      (image,), (label,) = session.run(batch)
      crops.append((name, Image.fromarray(image), label[:, :, 0]))
  return crops


# --- Problems ------------------------------------------------------------------------------------


def find_problems(sets, dataset):
  """Returns the Problems of one Set, or of two: training and validation; errors first."""
  found = []
  for one in sets:
    if one.errors:
      found.append(Problem('error', f'{one.title}: {_count(len(one.errors), "example")} of '
                           f'{len(one.errors) + len(one.facts)} cannot be used', one.errors, []))
    names = [name for value, (name, pixels) in enumerate(zip(dataset.class_names, one.pixels))
             if not pixels and value != dataset.ignore_label]
    if one.facts and names:
      found.append(Problem('warning', f'{one.title}: {_count(len(names), "class", "classes")} of '
                           f'{dataset.num_classes} without a pixel', names, []))
    if blank := [facts for facts in one.facts if facts.ignored == 1]:
      found.append(Problem('warning', f'{one.title}: {_count(len(blank), "label holds", "labels hold")} '
                           f'nothing but the ignore label {dataset.ignore_label}',
                           [facts.name for facts in blank], [(one, facts) for facts in blank]))
  if len(sets) == 2:
    train, val = sets
    rows = image_files.find_alike(*([one.fingerprint for one in each.facts] for each in (val, train)))
    if pairs := [(train.facts[row], facts) for row, facts in zip(rows, val.facts) if row >= 0]:
      found.append(Problem('warning', f'{_count(len(pairs), "image")} of {val.title} nearly equal one of '
                           f'{train.title}, so that scores will be too good',
                           [f'{one.name} is {other.name}' for other, one in pairs],
                           [shown for pair in pairs for shown in zip(sets, pair)]))
  return sorted(found, key=lambda problem: problem.kind)


def _count(number, singular, plural=None):
  return f'{number:,} {singular if number == 1 else plural or singular + "s"}'


# --- Writing -------------------------------------------------------------------------------------


def write_page(args, dataset, sets, crops, problems):
  """Writes index.html and pictures/ into --output_dir; `crops` are Sets that are shown and not counted."""
  os.makedirs(os.path.join(args.output_dir, 'pictures'), exist_ok=True)
  titles = [one.title for one in (*sets, *crops)]

  def card(one, facts):
    """Writes a photo and its label; returns the title, the facts, and the addresses of both in the page."""
    stem = f'pictures/{titles.index(one.title)}_{facts.index:06d}'
    _, image, label = one.load(facts.index)
    size = visualization.shown_size(label.shape, _PICTURE_WIDTH)
    pictures = {stem + '.jpg': visualization.photo_jpeg(image, size), stem + '_label.png':
                visualization.label_png(label, size, dataset.palette, dataset.ignore_label)}
    for name, picture in pictures.items():
      with files.replacing(os.path.join(args.output_dir, name)) as temporary, open(temporary, 'wb') as file:
        file.write(picture)
    return one.title, facts, *pictures

  pages.write(
      os.path.join(args.output_dir, 'index.html'), _TEMPLATE, dataset=dataset, sets=sets,
      classes=list(zip(dataset.class_names, dataset.palette)),
      kinds=list(collections.Counter(problem.kind for problem in problems).items()),
      problems=[(problem, [card(*example) for example in problem.examples[:_SHOWN_OF_A_PROBLEM]])
                for problem in problems],
      tables=[(one, one.pixels / max(one.pixels.sum(), 1), one.images / max(len(one.facts), 1),
               np.mean([facts.ignored > 0 for facts in one.facts] or [0])) for one in sets],
      examples=[(one.title, [card(one, facts) for facts in _chosen(one, args.samples)])
                for one in (*crops, *sets)])


def _chosen(one, samples):
  """Returns Facts at equal distances in a Set, and for each class that they lack the one with most of it."""
  if not one.facts:
    return []
  places = dict.fromkeys(np.linspace(0, len(one.facts) - 1, min(samples, len(one.facts))).round().astype(int))
  pixels = np.stack([facts.pixels for facts in one.facts])  # [N, K]
  for value in np.flatnonzero(one.pixels):
    if not pixels[list(places), value].any():
      places[pixels[:, value].argmax()] = None
  return [one.facts[place] for place in places]


def as_json(sets, problems, dataset):
  """Returns what the page says, without its pictures, as a dict for JSON."""
  return {
      'dataset': dataset.name,
      'sets': {one.title: {
          'examples': len(one.facts),
          'errors': one.errors,
          'pixels': dict(zip(dataset.class_names, one.pixels.tolist())),
          'images': dict(zip(dataset.class_names, one.images.tolist())),
          'ignored': one.ignored,
          'sizes': {f'{width}x{height}': number for (width, height), number in one.sizes},
      } for one in sets},
      'problems': [{'kind': problem.kind, 'sentence': problem.sentence, 'details': problem.details}
                   for problem in problems],
  }
