"""Turning images and labels into the records of a dataset: checked, sharded, several processes at a time.

Every pair is checked before a single file appears under its name, and all that is wrong is told
together. Processes encode the pairs, this one writes them in order, so the records do not depend on
how many processes there are. An interrupted conversion leaves nothing but temporary files, which the
next one removes. Beside the records of a split lies its index (dataset/record_index.py).

Letters: K classes.
"""
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from dataset import descriptors, image_files, label_files, lists, record_index, schema, tf_records
from utils import files, tables, workers
from utils.errors import DataError
from utils.progress import Progress

# Of images whose files' bytes are what a record holds.
_STORED_EXTENSIONS = (*lists.JPEG_EXTENSIONS, '.png')


@dataclasses.dataclass(frozen=True)
class Options:
  """How records are written.

  Attributes:
    output_dir: str, an existing folder.
    shards: int, record files of each split; 0 writes one, named `<split>.record`.
    skip_bad: int, the number of bad pairs that may be left out.
    fast: bool, read no more than headers if that is possible (schema.encode_pair).
    processes: int, of those that encode.
  """
  output_dir: str
  shards: int = 0
  skip_bad: int = 0
  fast: bool = False
  processes: int = 1


def read_flags(args, output_dir):
  """Returns the Options of parsed flags that hold flags.CONVERSION_FLAGS."""
  return Options(output_dir, args.shards, args.skip_bad, args.fast, args.processes)


class _Written(typing.NamedTuple):
  """What is kept of an example that was written."""
  name: str
  size: tuple  # (height, width)
  fingerprint: bytes | None  # see image_files.fingerprint
  values: int | None  # bit k says whether the label holds the value k; None after --fast


@dataclasses.dataclass
class _Split:
  """A split while it is written."""
  name: str
  pairs: list
  problems: list
  examples: list = dataclasses.field(default_factory=list)  # of _Written
  shards: list = dataclasses.field(default_factory=list)
  # Of each label value: pixels, examples that hold it, and all pixels of these; None after --fast.
  totals: np.ndarray | None = dataclasses.field(default_factory=lambda: np.zeros((3, 256), np.int64))


@dataclasses.dataclass
class _Report:
  """All splits, and what is said once of all."""
  splits: list
  # {label value: {color that palettes show: [name of the first image, number of labels]}}
  palettes: dict = dataclasses.field(default_factory=dict)
  notes: dict = dataclasses.field(default_factory=dict)  # {sentence: names of the images that it holds for}

  @property
  def has_counts(self):
    return all(split.totals is not None for split in self.splits)


def convert(splits, dataset, options):
  """Writes the records and the index of each split.

  Args:
    splits: dict from a split's name to what `lists.match_pairs` returned: its Pairs, and
      a sentence for each pair that is known to be bad.
    dataset: Dataset of the records.
    options: Options.

  Returns:
    dict from a split's name to the names of the images that were written.

  Raises:
    DataError: more pairs are bad than may be skipped, or files cannot be written. Then the records
      that were there before are as they were.
  """
  report = _Report([_Split(name, pairs, list(problems)) for name, (pairs, problems) in splits.items()])
  pairs = [pair for split in report.splits for pair in split.pairs]
  try:
    for split in report.splits:
      _check_index_path(options.output_dir, split.name)
      _remove_leftovers(options.output_dir, split.name)
    with contextlib.ExitStack() as stack:
      # What is opened first gets its name last: the indexes.
      indexes = [stack.enter_context(files.replacing(record_index.path_of(options.output_dir, split.name)))
                 for split in report.splits]
      encoded = stack.enter_context(contextlib.closing(_encode_all(pairs, options)))
      for split in report.splits:
        _write_shards(split, report, encoded, stack, options)
      _check_problems(report.splits, options)
      if report.has_counts:
        _check_labelled(report, dataset)
      for split, path in zip(report.splits, indexes):
        _write_index(path, split, dataset)
      for split in report.splits:
        _remove_replaced(split, options.output_dir)
  except OSError as error:
    raise DataError(f"records cannot be written to '{options.output_dir}': {error}") from error
  _print_report(report, dataset, options.output_dir)
  return {split.name: [example.name for example in split.examples] for split in report.splits}


# --- Encoding ------------------------------------------------------------------------------------


def _encode_all(pairs, options):
  """Yields the schema.Encoded of each pair, in order, beside a progress bar."""
  work = functools.partial(schema.encode_pair, fast=options.fast)
  # Headers are read faster than files are handed from process to process.
  processes = 1 if options.fast and all(map(_is_copied, pairs)) else options.processes
  with (contextlib.closing(workers.map_in_order(work, pairs, processes)) as encoded,
        Progress(len(pairs), 'converting', 'image') as progress):
    for example in encoded:
      progress.update()
      yield example


def _is_copied(pair):
  """Returns whether image and label are stored as they are, so that --fast need not decode them."""
  is_recoded = pair.dataset.values or pair.dataset.colors
  return not is_recoded and lists.has_extension(pair.image, _STORED_EXTENSIONS)


# --- Writing -------------------------------------------------------------------------------------


def _write_shards(split, report, encoded, stack, options):
  """Writes a split's examples, fills in its fields, and leaves the renaming to the stack.

  Args:
    split: _Split.
    report: _Report.
    encoded: iterator of schema.Encoded; those of the split's pairs are taken from it.
    stack: contextlib.ExitStack.
    options: Options.
  """
  names = _shard_names(split, options.shards)
  bounds = [index * len(split.pairs) // len(names) for index in range(len(names) + 1)]
  for name, begin, end in zip(names, bounds, bounds[1:]):
    path = stack.enter_context(files.replacing(os.path.join(options.output_dir, name)))
    written = len(split.examples)
    try:
      with tf.io.TFRecordWriter(path) as writer:
        for pair, example in zip(split.pairs[begin:end], itertools.islice(encoded, end - begin)):
          _add_example(split, report, pair.name, example, writer)
    except tf.errors.OpError as error:
      raise DataError(f"record '{os.path.join(options.output_dir, name)}' cannot be written: "
                      f'{error.message}') from error
    split.shards.append({'file': name, 'examples': len(split.examples) - written,
                         'bytes': os.path.getsize(path)})


def _shard_names(split, shards):
  """Returns the names of a split's record files; there are no more shards than pairs."""
  if not shards:
    return [f'{split.name}.record']
  shards = max(1, min(shards, len(split.pairs)))
  return [f'{split.name}-{index:05d}-of-{shards:05d}.record' for index in range(shards)]


def _add_example(split, report, name, example, writer):
  """Writes an example, or adds to the split's problems."""
  if example.problems:
    split.problems.append('\n'.join(example.problems))
    return
  writer.write(tf_records.serialize(example.features))
  values = None
  if example.counts is None:
    split.totals = None
  else:
    counts = np.array(example.counts)
    held = counts > 0
    values = int.from_bytes(np.packbits(held, bitorder='little').tobytes(), 'little')
    if split.totals is not None:
      split.totals += [counts, held, held * counts.sum()]
  split.examples.append(_Written(name, example.size, example.fingerprint, values))
  for note in example.notes:
    report.notes.setdefault(note, []).append(name)
  for value, color in example.palette_uses:
    report.palettes.setdefault(value, {}).setdefault(color, [name, 0])[1] += 1


def _check_problems(splits, options):
  """Raises DataError if too many pairs are bad or a split has no good one."""
  problems = [problem for split in splits for problem in split.problems]
  if len(problems) > options.skip_bad:
    good = sum(len(split.examples) for split in splits)
    total = good + len(problems)
    remedy = f'Mend them, or leave them out with --skip_bad {len(problems)}' if good else (
        'Mend what they have in common: the folders, the descriptor or the export')
    raise DataError('\n'.join([
        f'{len(problems)} of {total} pairs of image and label are bad:', *problems,
        f'These are the {len(problems)} bad pairs of {total}; nothing has been written. {remedy}']))
  for split in splits:
    if not split.examples:
      raise DataError(f"no example is left for '{split.name}'; mend what --skip_bad leaves out:\n"
                      + '\n'.join(split.problems))


def _check_labelled(report, dataset):
  """Raises DataError if one class alone has pixels, and others are ignored: a foreground that is not taken.

  Borders that are ignored, as VOC's, surround objects, and those have a class.
  """
  counts = sum(split.totals[0] for split in report.splits)
  classes = [label for label in range(dataset.num_classes) if label != dataset.ignore_label]
  present = [label for label in classes if counts[label]]
  ignored = counts[dataset.ignore_label]
  if len(classes) < 2 or len(present) > 1 or not ignored:
    return
  only = present[0] if present else classes[0]
  held = f"every pixel that counts is '{dataset.class_names[only]}'" if present else 'no pixel counts'
  if dataset.values or dataset.colors:
    why, remedy = 'the descriptor says so', f"Give what is to be learnt a class in that of '{dataset.name}'"
  else:
    other = next(label for label in classes if label != only)
    names = {value: dataset.class_names[label] for value, label in
             sorted(((only, only), (dataset.ignore_label, other)))}
    why = f'they hold {dataset.ignore_label}'
    remedy = (f"If {dataset.ignore_label} stands for a class, say '{dataset.class_names[other]}', the "
              f"descriptor of '{dataset.name}' needs the line \"values\": {json.dumps(names)} "
              '(tools/create_tf_record.py --suggest writes one)')
  raise DataError(f'{held}, and {ignored:,} pixels ({ignored / sum(counts):.1%}) are ignored, because {why}: '
                  f'there is nothing to learn, and nothing has been written. {remedy}')


def _write_index(path, split, dataset):
  """Writes the index of a split; dataset/record_index.py says what it holds."""
  pixels, masks, areas = None, None, None
  if split.totals is not None:
    is_class = np.arange(256) < dataset.num_classes
    is_class[dataset.ignore_label] = False
    pixels, _, areas = (split.totals * is_class)[:, :dataset.num_classes].tolist()
    of_class = sum(1 << label for label in np.flatnonzero(is_class).tolist())
    masks = ' '.join(f'{example.values & of_class:x}' for example in split.examples)
  index = {
      'dataset': descriptors.to_json(dataset),
      'examples': len(split.examples),
      'class_pixels': pixels,
      'ignored_pixels': pixels and int(split.totals[0].sum()) - sum(pixels),
      'class_image_pixels': areas,
      'classes_of_examples': masks,
      'mean_size': [sum(sides) / len(sides) for sides in zip(*(example.size for example in split.examples))],
      'shards': split.shards,
      'skipped': split.problems,
  }
  with open(path, 'w', encoding='utf-8') as file:
    json.dump(index, file, indent=1)
    file.write('\n')


# --- What is printed -----------------------------------------------------------------------------


def _print_report(report, dataset, folder):
  """Prints what was written, and what to look at."""
  for split in report.splits:
    path = os.path.join(folder, split.shards[0]['file'])
    more = f' and {len(split.shards) - 1} more' if len(split.shards) > 1 else ''
    print(f'Wrote {len(split.examples)} examples to {path}{more}', flush=True)
    for problem in split.problems:
      print(f'Left out: {problem}', flush=True)
  if report.has_counts:
    _print_classes(report.splits, dataset)
  print('Sizes: ' + ', '.join(
      f'{split.name} {_sizes_text([example.size for example in split.examples])}' for split in report.splits))
  warnings = [*(_class_warnings(report.splits, dataset) if report.has_counts else ()),
              *_palette_warnings(report.palettes, dataset), *_twin_warnings(report.splits)]
  for warning in warnings:
    print(f'Warning: {warning}')
  for note, names in report.notes.items():
    print(f"Note: {note}; {len(names)} images, such as '{names[0]}'")


def _print_classes(splits, dataset):
  """Prints what each class has of the pixels, and in how many images."""
  ignored = dataset.ignore_label
  names = {label: name for label, name in enumerate(dataset.class_names) if label != ignored} | {
      ignored: '(ignored)'}
  names = dict(zip(names, tables.column(names.values())))
  print(f'{"class":>5} {"":{len(names[ignored])}}' + ''.join(
      f'{split.name + " pixels":>18} {"share":>8} {"images":>8}' for split in splits))
  for label, name in names.items():
    cells = (f'{pixels[label]:18,} {pixels[label] / pixels.sum():8.2%} {images[label]:8,}'
             for pixels, images, _ in (split.totals for split in splits))
    print(f'{label:5} {name}' + ''.join(cells))


def _sizes_text(sizes):
  """Returns what is said of sizes, a list of (height, width)."""
  by_pixels = sorted(sizes, key=lambda size: size[0] * size[1])
  least, most = (f'{width}x{height}' for height, width in (by_pixels[0], by_pixels[-1]))
  number = len(set(sizes))
  return f'all of {most} pixels' if number == 1 else f'{number} sizes, from {least} to {most} pixels'


def _class_warnings(splits, dataset):
  """Yields warnings of classes without a pixel, and of much that is ignored."""
  ignored = dataset.ignore_label
  for split in splits:
    pixels = split.totals[0]
    missing = [name for label, name in enumerate(dataset.class_names)
               if label != ignored and not pixels[label]]
    if missing:
      yield f'no pixel of {split.name} is {", ".join(missing)}'
    share = pixels[ignored] / pixels.sum()
    if share > label_files.MUCH_IGNORED:
      yield f'{share:.0%} of the pixels of {split.name} are ignored, and teach nothing'


def _palette_warnings(palettes, dataset):
  """Yields warnings of a value that palettes show in different colours, or in the colour of another class."""
  classes = {value: colors for value, colors in sorted(palettes.items()) if value != dataset.ignore_label}
  for value, colors in classes.items():
    if len(colors) > 1:
      shown = ' and '.join(f"{descriptors.hex_color(color)} in {count} labels, such as that of '{first}'"
                           for color, (first, count) in list(colors.items())[:3])
      yield (f"palettes differ: {value} ('{dataset.class_names[value]}') is {shown}; if the colours mean the "
             "classes, give the descriptor 'colors' (--suggest writes them)")
  is_default = dataset.palette == descriptors.distinct_palette(dataset.num_classes)
  if is_default and dataset.name not in descriptors.DATASETS:
    return  # the descriptor says nothing of colours
  of_color = dict(zip(dataset.palette, dataset.class_names))
  swapped = {value: of_color[color] for value, colors in classes.items() for color in colors
             if of_color.get(color, dataset.class_names[value]) != dataset.class_names[value]}
  if swapped:
    value, other = min(swapped.items())
    yield (f"labels show {len(swapped)} classes in the colours of others: {value} "
           f"('{dataset.class_names[value]}') has that of '{other}' in {dataset.name}; check the order of "
           'class_names')


def _twin_warnings(splits):
  """Yields warnings of images that look like one of another split."""
  for number, split in enumerate(splits):
    for other in splits[:number]:
      names = [[example.name for example in part.examples] for part in (split, other)]
      if len(names[0]) == 1 and names[0] == names[1]:
        continue  # one image for both splits, which has been told
      alike = image_files.find_alike(*([example.fingerprint for example in part.examples]
                                       for part in (split, other)))
      twins = [(example.name, other.examples[twin].name)
               for example, twin in zip(split.examples, alike) if twin >= 0]
      if twins:
        yield (f"{len(twins)} images of {split.name} look like images of {other.name}, such as "
               f"'{twins[0][0]}' like '{twins[0][1]}'; if they show the same, scores are too good: put both "
               'on one side')


# --- Files ---------------------------------------------------------------------------------------


def _check_index_path(folder, split):
  """Raises DataError if the index would overwrite something else, such as a descriptor."""
  path = record_index.path_of(folder, split)
  if os.path.exists(path) and record_index.load(folder, split) is None:
    raise DataError(f"'{path}' is no index of records and would be overwritten by one; move it, or give "
                    'another folder for the records')


def _remove_replaced(split, folder):
  """Deletes the old index and shards. A single file that the new single file will overwrite is kept.

  From here until the new ones have their names, an interruption leaves a split with shards missing,
  which is an error to whoever reads it; never old and new shards together.
  """
  single = [f'{split.name}.record']
  kept = single if [shard['file'] for shard in split.shards] == single else []
  for name, _ in record_index.files_of(folder, split.name):
    if name not in kept:
      os.remove(os.path.join(folder, name))


def _remove_leftovers(folder, split):
  """Removes the temporary files of conversions that were killed."""
  for name, match in record_index.files_of(folder, split, r'\.(?P<pid>\d+)\.tmp'):
    if not workers.is_running(int(match['pid'])):
      os.remove(os.path.join(folder, name))
