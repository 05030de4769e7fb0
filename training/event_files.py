"""Event files of TensorBoard: cut back to the step that a training goes on from, and written for one step.

A killed run has written points of steps that its last checkpoint does not know. The run that goes on writes
them again, so a curve would have them twice. An event file is a record file of tf.Event protocol buffers, in
the order of their steps.
"""
import glob
import os
import typing

import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from utils import files

OF_EVALUATION = 'evaluate'  # the folder of those that evaluate.py writes, in the model's
_FRAME = 16  # bytes around an event: its length, and two checksums


def cut(folder: str, is_past: typing.Callable[[tf.Event], bool]) -> None:
  """Cuts each event file of a folder before its first event that is not past; and damaged ends off.

  Args:
    folder: nothing happens if it does not exist.
    is_past: says whether an event, which holds a summary, stays.
  """
  # A link could lead to a file of somebody else.
  for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'events.out.tfevents.*'))):
    if os.path.islink(path):
      continue
    files.check_regular(path, f"event file '{path}'")
    size = _size_of_past(path, is_past)
    if size < os.path.getsize(path):
      os.truncate(path, size)


def write_scalars(folder: str, step: int, scalars: dict[str, float]) -> None:
  """Writes the scalars of a step into an event file of their own, in place of an earlier one of that step.

  Args:
    folder: an existing one.

  Raises:
    OSError, tf.errors.OpError: it cannot be written to.
  """
  suffix = f'.step-{step}'
  for path in glob.glob(os.path.join(glob.escape(folder), 'events.out.tfevents.*' + suffix)):
    os.remove(path)
  with tf.Graph().as_default():
    writer = tf.summary.FileWriter(folder, filename_suffix=suffix)
    writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=tag, simple_value=value)
                                         for tag, value in scalars.items()]), step)
    writer.close()


def _size_of_past(path, is_past):
  """Returns how many bytes of an event file hold whole events of past steps."""
  kept = 0
  try:
    for record in tf.io.tf_record_iterator(path):
      event = tf.Event.FromString(record)
      if event.HasField('summary') and not is_past(event):
        break
      kept += _FRAME + len(record)
  except (tf.errors.DataLossError, DecodeError):
    pass  # damaged
  return kept
