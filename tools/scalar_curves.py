"""Curves of several trainings: read from event files, averaged and drawn (tools/plot_scalars.py)."""
import contextlib
import glob
import itertools
import os
import pathlib

import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError
from matplotlib.figure import Figure

from dataset import tf_records
from utils import files, visualization
from utils.errors import DataError, UsageError


def main(args):
  """Draws the curves, and prints how they compare, as the flags say."""
  curves = {path: read_scalar(path, args.scalar) for path in args.model_dirs}
  files.make_folder_of(args.output, '--output')
  means = {path: running_mean(values, args.window) for path, (_, values) in curves.items()}
  for path, (steps, _) in curves.items():
    print(f'{path}: {args.scalar} {means[path][0]:.4f} at step {steps[min(args.window, len(steps)) - 1]}, '
          f'{means[path][-1]:.4f} at step {steps[-1]}')
  draw(args.output, args.scalar, {path: (curves[path][0], means[path]) for path in curves})


def read_scalar(model_dir, name):
  """Returns (steps, values), lists in the order of steps.

  Raises:
    DataError: there are no event files, or none of them holds the scalar.
  """
  paths = glob.glob(os.path.join(glob.escape(model_dir), 'events.out.tfevents.*'))
  if not paths:
    raise DataError(f"'{model_dir}' holds no event files; give the --model_dir of a training")
  found, others = {}, set()
  for path in sorted(paths):
    for event in read_events(path):
      for value in event.summary.value:
        if value.tag != name:
          others.add(value.tag)
        elif value.HasField('simple_value'):
          found[event.step] = value.simple_value
  if not found:
    raise DataError(f"the event files in '{model_dir}' hold no scalar '{name}'; they hold "
                    f"{', '.join(sorted(others)) or 'none'}")
  return tuple(map(list, zip(*sorted(found.items()), strict=True)))


def read_events(path):
  """Yields the events of a file; where it is damaged or cut off, those before, and a line says so."""
  files.check_regular(path, f"event file '{path}'")
  # An event file is a record file. TensorFlow is not shown lengths beyond its end, which it may not survive.
  whole, rest = tf_records.whole_examples(path)
  used = 0
  with contextlib.suppress(tf.errors.DataLossError, DecodeError):
    for event in itertools.islice(tf.train.summary_iterator(path), whole):
      yield event
      used += 1
  if rest or used < whole:
    print(f'{path} is damaged or cut off; the {used} entries before are used')


def running_mean(values, window):
  """Returns the mean of each `window` values in a row; of all, where there are fewer."""
  window = min(window, len(values))
  return [sum(values[start:start + window]) / window for start in range(len(values) - window + 1)]


def draw(path, title, curves):
  """Writes a picture of curves, a dict of name to (steps, means); the means belong to the last steps.

  Raises:
    UsageError: Matplotlib draws no pictures of this extension.
  """
  figure = Figure(figsize=(7, 4), layout='constrained')
  axes = figure.subplots()
  styles = [style for style in ('-', '--', ':', '-.') for _ in range(10)]  # Matplotlib has ten colours
  lines = [axes.plot(steps[-len(means):], means, style, linewidth=1.5)[0]
           for (steps, means), style in zip(curves.values(), itertools.cycle(styles))]
  axes.set(xlabel='step', ylabel=title)
  axes.grid(alpha=0.3)
  legend = figure.legend(lines, [os.path.basename(os.path.normpath(name)) for name in curves],
                         loc='outside right upper')
  for number, text in enumerate((axes.yaxis.label, *legend.get_texts())):
    text.set_parse_math(False)  # a $ in a name is no formula
    shown, font = visualization.lettering(text.get_text(), f'training {number}' if number else 'scalar', 10)
    text.set(text=shown, font=pathlib.Path(font.path))
  with files.replacing(path) as temporary:
    try:
      figure.savefig(temporary, format=os.path.splitext(path)[1][1:] or 'png', dpi=120)
    except ValueError as error:  # which says what is supported
      raise UsageError(f"the picture '{path}' cannot be written: {error}; give another extension") from error
