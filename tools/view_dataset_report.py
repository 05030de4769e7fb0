"""The work of tools/view_dataset.py: every example is read, and the page and the figures are written.

tools/view_dataset_facts.py says what is found in an example. The page is one HTML file, its pictures in a
folder beside it; its HTML stands in view_dataset_report.html, and in utils/pages.html.
"""
import collections
import concurrent.futures
import functools
import os

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from commands import flags
from dataset import class_uniform, descriptors, image_files, inputs, lists, record_index, schema, tf_records
from nets import backbones
from tools import view_dataset_facts
from utils import devices, environment, failures, files, pages, visualization
from utils.errors import DataError, UsageError
from utils.progress import Progress

_PICTURE_WIDTH = 480      # pixels of what is shown; larger photos are scaled down
_SHOWN_OF_A_PROBLEM = 6   # pictures
_MARK = '<label class="slider">overlay'  # what no other page holds
_TEMPLATE = os.path.splitext(__file__)[0] + '.html'


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
  problems = view_dataset_facts.find_problems(sets, dataset)
  load = {title: functools.partial(decode, source, dataset) for title, (source, _) in sources.items()}
  crops = []
  if options and not sets[0].errors:  # which end the stream of crops, and are told of below
    title = f'{args.split}, augmented'
    examples = read_crops(args, dataset, options)
    facts = [view_dataset_facts.examine(index, *crop, dataset) for index, crop in enumerate(examples)]
    crops, load[title] = [view_dataset_facts.Set(title, facts, [], dataset.num_classes)], examples.__getitem__
  write_page(args, dataset, sets, crops, problems, load)
  if args.json:
    files.write_json(args.json, as_json(sets, problems, dataset))

  for problem in problems:
    print(f'{problem.kind}: {problem.sentence}')
  page = os.path.join(args.output_dir, 'index.html')
  print(f'The page is {page}; look at it: {files.opening(page)}')
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
  """Returns the view_dataset_facts.Set of a source, with a progress bar.

  Args:
    title: str.
    source: tf_records.Records or tf_records.Files.
    errors: list of str, what is known already.
    dataset: Dataset.
  """
  def examined(index):
    try:
      example = decode(source, dataset, index, image_files.PRINT_SIDE)
      return view_dataset_facts.examine(index, *example, dataset)
    except DataError as error:
      return str(error)

  facts, errors = [], list(errors)
  with (concurrent.futures.ThreadPoolExecutor(environment.cores()) as pool,
        Progress(len(source), title, 'image') as progress):
    for one in pool.map(examined, range(len(source))):
      (errors if isinstance(one, str) else facts).append(one)
      progress.update()
  return view_dataset_facts.Set(title, facts, errors, dataset.num_classes)


def decode(source, dataset, index, min_side=_PICTURE_WIDTH):
  """Returns an example's name, image and label; see schema.decode."""
  where = source.source(index)
  features = tf_records.parse(source.load(index), where)
  return schema.file_name(features) or where, *schema.decode(features, dataset, where, min_side)


def crop_options(args):
  """Returns the inputs.TrainOptions of a training by the same flags.

  Raises:
    DataError: the index of the records does not say what --class_uniform needs.
  """
  records = tf_records.record_files(args.data_dir, args.split)
  index = record_index.read(args.data_dir, args.split)
  sampling = class_uniform.plan(index, args.class_uniform, os.path.join(args.data_dir, f'{args.split}.json'))
  return inputs.TrainOptions(
      **inputs.read_flags(args), images_per_replica=1, sampling=sampling,
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


# --- Writing -------------------------------------------------------------------------------------


def write_page(args, dataset, sets, crops, problems, load):
  """Writes index.html and pictures/ into --output_dir.

  Args:
    args: the parsed flags.
    dataset: Dataset.
    sets: list of view_dataset_facts.Set.
    crops: list of Sets of crops as the network sees them, which are shown and not counted.
    problems: list of view_dataset_facts.Problem.
    load: dict from a Set's title to a function of an index that returns what `decode` does.
  """
  os.makedirs(os.path.join(args.output_dir, 'pictures'), exist_ok=True)
  titles = [one.title for one in (*sets, *crops)]

  def card(title, facts):
    """Writes a photo and its label; returns the title, the facts, and the addresses of both in the page."""
    stem = f'pictures/{titles.index(title)}_{facts.index:06d}'
    _, image, label = load[title](facts.index)
    size = visualization.shown_size(label.shape, _PICTURE_WIDTH)
    pictures = {stem + '.jpg': visualization.photo_jpeg(image, size), stem + '_label.png':
                visualization.label_png(label, size, dataset.palette, dataset.ignore_label)}
    for name, picture in pictures.items():
      with files.replacing(os.path.join(args.output_dir, name)) as temporary, open(temporary, 'wb') as file:
        file.write(picture)
    return title, facts, *pictures

  pages.write(
      os.path.join(args.output_dir, 'index.html'), _TEMPLATE, dataset=dataset, sets=sets,
      classes=list(zip(dataset.class_names, dataset.palette)),
      kinds=list(collections.Counter(problem.kind for problem in problems).items()),
      problems=[(problem, [card(*example) for example in problem.examples[:_SHOWN_OF_A_PROBLEM]])
                for problem in problems],
      tables=[(one, one.pixels / max(one.pixels.sum(), 1), one.images / max(len(one.facts), 1),
               np.mean([facts.ignored > 0 for facts in one.facts] or [0])) for one in sets],
      sizes=[(one.title, _sizes(one)) for one in sets],
      examples=[(one.title, [card(one.title, facts) for facts in _chosen(one, args.samples)])
                for one in (*crops, *sets)])


def _sizes(one):
  """Returns [((width, height), number of examples), ...] of a Set, the most frequent first."""
  return collections.Counter(facts.size[::-1] for facts in one.facts).most_common()


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
          'sizes': {f'{width}x{height}': number for (width, height), number in _sizes(one)},
      } for one in sets},
      'problems': [{'kind': problem.kind, 'sentence': problem.sentence, 'details': problem.details}
                   for problem in problems],
  }
