"""The work of tools/view_dataset.py: every example is read, and the page and the figures are written.

tools/view_dataset_facts.py says what is found in an example, and tools/view_dataset_page.py draws the page.
"""
import collections
import concurrent.futures
import functools
import json
import os

import tensorflow.compat.v1 as tf
from PIL import Image

from commands import flags
from dataset import class_uniform, conversion, descriptors, image_files, inputs, lists, schema, tf_records
from nets import backbones
from tools import view_dataset_facts, view_dataset_page
from utils import devices, failures, files
from utils.errors import DataError, UsageError
from utils.progress import Progress


@failures.explaining('leave out the largest images, or end other programs that hold memory')
def main(args):
  """Looks the sets over, and writes the page, as the flags say."""
  check_augmented(args)
  dataset = descriptors.get_dataset(args.dataset)
  sources = open_sources(args, dataset)
  options = crop_options(args) if args.augmented else None
  view_dataset_page.check_replaceable(args.output_dir)
  files.check_json_output(args.json, '--json')
  files.make_folder(args.output_dir, '--output_dir')
  if args.json:
    files.make_folder_of(args.json, '--json')

  sets = [read_set(title, *source, dataset) for title, source in sources.items()]
  doubles = view_dataset_facts.near_identical(*sets) if len(sets) == 2 else []
  problems = view_dataset_facts.find_problems(sets, doubles, dataset)
  load = {title: functools.partial(decode, source, dataset) for title, (source, _) in sources.items()}
  crops = []
  if options and not sets[0].errors:  # which end the stream of crops, and are told of below
    crops, load[crops_title(args)] = read_crops(args, dataset, options)
  view_dataset_page.write(args.output_dir, view_dataset_page.Content(
      dataset, sets, problems, load, args.samples, crops))
  if args.json:
    with files.replacing(args.json) as temporary, open(temporary, 'w', encoding='utf-8') as file:
      json.dump(as_json(sets, problems, dataset), file, indent=2)
      file.write('\n')

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


def crops_title(args):
  """Returns what the crops of --augmented are called."""
  return f'{args.split}, augmented'


def crop_options(args):
  """Returns the inputs.TrainOptions of a training by the same flags.

  Raises:
    DataError: the index of the records does not say what --class_uniform needs.
  """
  records = tf_records.record_files(args.data_dir, args.split)
  index = conversion.read_index(args.data_dir, args.split)
  sampling = class_uniform.plan(index, args.class_uniform, os.path.join(args.data_dir, f'{args.split}.json'))
  return inputs.TrainOptions(
      **inputs.read_flags(args), images_per_replica=1, sampling=sampling,
      padding_color=backbones.get(args.base_architecture).padding_color,
      num_examples=conversion.count_examples(index, records))


def read_crops(args, dataset, options):
  """Returns the first --samples crops of the stream of training.

  Args:
    args: the parsed flags.
    dataset: Dataset.
    options: inputs.TrainOptions.

  Returns:
    list of one view_dataset_facts.Set.
    function of an index in it, and anything, that returns its name, image and label, as `decode` does.
  """
  paths = tf_records.record_files(args.data_dir, args.split)
  names = inputs.example_names(paths, options, args.samples)
  crops = []
  with devices.cpu_session() as session:
    batch = tf.data.make_one_shot_iterator(inputs.train_dataset(paths, dataset, options)).get_next()
    for name in names:
      (image,), (label,) = session.run(batch)
      crops.append((name, Image.fromarray(image), label[:, :, 0]))
  facts = [view_dataset_facts.examine(index, *crop, dataset) for index, crop in enumerate(crops)]
  return ([view_dataset_facts.Set(crops_title(args), facts, [], dataset.num_classes)],
          lambda index, _: crops[index])


def open_sources(args, dataset):
  """Returns {title: (source, sentences on what is missing)} of the one or two sets that the flags name.

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
  return {title: open_source(args, name, dataset) for title, name in zip(titles, names)}


def open_source(args, name, dataset):
  """Returns the source of one set, and a list of sentences on files that are missing."""
  if args.data_dir:
    records = tf_records.Records(tf_records.record_files(args.data_dir, name))
    conversion.read_index(args.data_dir, name)  # which refuses records that it does not describe
    return records, []
  folders = lists.Folders([args.image_data_dir], [args.label_data_dir])
  pairs, missing = lists.match_pairs(folders, lists.read_list(name), dataset)
  return tf_records.Files(pairs), missing


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
      name, image, label = decode(source, dataset, index, image_files.PRINT_SIDE)
    except DataError as error:
      return str(error)
    return view_dataset_facts.examine(index, name, image, label, dataset)

  with concurrent.futures.ThreadPoolExecutor(devices.cores()) as pool:
    results = []
    with Progress(len(source), title, 'image') as progress:
      for one in pool.map(examined, range(len(source))):
        results.append(one)
        progress.update()
  errors = errors + [one for one in results if isinstance(one, str)]
  return view_dataset_facts.Set(title, [one for one in results if not isinstance(one, str)], errors,
                           dataset.num_classes)


def decode(source, dataset, index, min_side):
  """Returns an example's name, image and label; see schema.decode."""
  where = source.source(index)
  features = tf_records.parse(source.load(index), where)
  return schema.file_name(features) or where, *schema.decode(features, dataset, where, min_side)


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
          'sizes': {f'{width}x{height}': number for (height, width), number
                    in collections.Counter(facts.size for facts in one.facts).most_common()},
      } for one in sets},
      'problems': [{'kind': problem.kind, 'sentence': problem.sentence, 'details': problem.details}
                   for problem in problems],
  }
