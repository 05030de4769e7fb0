"""Look a dataset over before training: pictures, classes, sizes, and what is wrong with it.

  python tools/view_dataset.py --data_dir ./dataset --val val --output_dir report
  python tools/view_dataset.py --dataset mine.json --image_data_dir mine/JPEGImages \\
      --label_data_dir mine/SegmentationClassAug --list mine/train.txt --val mine/val.txt

Reads records, or images and labels by a list, and writes one page, <output_dir>/index.html, with its
pictures beside it: examples with their labels, the pixels of each class, sizes, and problems, such as
label values that the dataset does not know, classes that never occur, or training images that return
in the validation set. Exit status 1 says that examples cannot be used; warnings are advice.
"""
import collections
import concurrent.futures
import functools
import json
import os
import sys

# A script finds modules in its own folder, tools/; the repository's are in the one above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli import flags  # noqa: E402
from dataset import descriptors, lists  # noqa: E402
from utils import failures, files  # noqa: E402
from utils.errors import DataError, UsageError  # noqa: E402


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared('dataset')
  parser.flag('data_dir', None, 'folder of the records', metavar='DIR')
  parser.flag('split', 'train', 'the records of --data_dir to read', metavar='NAME')
  parser.flag('image_data_dir', None, 'folder of the images, in place of --data_dir', metavar='DIR')
  parser.flag('label_data_dir', None, 'folder of the label PNGs', metavar='DIR')
  parser.flag('list', None, 'file of the names, one a line', metavar='FILE')
  parser.flag('val', None, 'the validation set, to compare with: a name of records as in --split, or a file '
              'as in --list', metavar='SET')
  parser.flag('output_dir', './report', 'folder of the page', metavar='DIR')
  parser.flag('samples', 24, 'examples to show of each set; one more for every class that these lack',
              type=flags.positive_int, metavar='N')
  parser.flag('json', None, 'also write the figures and problems here', metavar='FILE')
  return parser


@failures.explaining('leave out the largest images, or end other programs that hold memory')
def main(args):
  from tools import view_dataset_facts, view_dataset_page

  dataset = descriptors.get_dataset(args.dataset)
  sources = open_sources(args, dataset)
  view_dataset_page.check_replaceable(args.output_dir)
  files.check_json_output(args.json, '--json')
  files.make_folder(args.output_dir, '--output_dir')
  if args.json:
    files.make_folder_of(args.json, '--json')

  sets = [read_set(title, *source, dataset) for title, source in sources.items()]
  doubles = view_dataset_facts.near_identical(*sets) if len(sets) == 2 else []
  problems = view_dataset_facts.find_problems(sets, doubles, dataset)
  load = {title: functools.partial(decode, source, dataset) for title, (source, _) in sources.items()}
  view_dataset_page.write(args.output_dir, view_dataset_page.Content(
      dataset, sets, problems, load, args.samples))
  if args.json:
    with files.replacing(args.json) as temporary, open(temporary, 'w', encoding='utf-8') as file:
      json.dump(as_json(sets, problems, dataset), file, indent=2)
      file.write('\n')

  for problem in problems:
    print(f'{problem.kind}: {problem.sentence}')
  print(f'The page is {os.path.join(args.output_dir, "index.html")}')
  errors = [error for one in sets for error in one.errors]
  if errors:
    raise DataError(f'{len(errors)} example{"s" * (len(errors) > 1)} cannot be used: {errors[0]}')


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
  from dataset import tf_records
  if args.data_dir:
    return tf_records.Records(tf_records.record_files(args.data_dir, name)), []
  pairs, missing = lists.match_pairs(args.image_data_dir, args.label_data_dir,
                                        lists.read_list(name), dataset)
  return tf_records.Files(pairs), missing


def read_set(title, source, errors, dataset):
  """Returns the view_dataset_facts.Set of a source, with a progress bar.

  Args:
    title: str.
    source: tf_records.Records or tf_records.Files.
    errors: list of str, what is known already.
    dataset: Dataset.
  """
  from tqdm import tqdm

  from tools import view_dataset_facts

  def examined(index):
    try:
      name, image, label = decode(source, dataset, index, view_dataset_facts.THUMBNAIL)
    except DataError as error:
      return str(error)
    return view_dataset_facts.examine(index, name, image, label, dataset)

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    results = list(tqdm(pool.map(examined, range(len(source))), title, len(source), unit='image'))
  errors = errors + [one for one in results if isinstance(one, str)]
  return view_dataset_facts.Set(title, [one for one in results if not isinstance(one, str)], errors,
                           dataset.num_classes)


def decode(source, dataset, index, min_side):
  """Returns an example's name, image and label; see schema.decode."""
  from dataset import schema, tf_records
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


if __name__ == '__main__':
  flags.run(main, make_parser())
