"""Class-uniform sampling: part of each epoch is drawn by class, so that rare classes come as often as others.

As in Zhu et al., Improving Semantic Segmentation via Video Propagation and Label Relaxation (arXiv
1812.01593), and NVIDIA's code for it, a class is drawn, each as likely, and then an example that has it.
Which classes an example has stands in the index of the records (dataset/record_index.py).

Letters: N examples, P classes that are present.
"""
import dataclasses
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from dataset import preprocessing
from utils.errors import DataError

# Random numbers of an epoch that do not change its order; see preprocessing.stream.
_REST, _CLASSES = 1, 2


@dataclasses.dataclass(frozen=True)
class Plan:
  """What an epoch is filled with.

  Attributes:
    share: float, 0..1, of the places that are drawn by class.
    members: list of P lists of int, the numbers of the examples that have a class.
    file_sizes: list of int, the examples of each record file; the first example of the first is number 0.
  """
  share: float
  members: list[list[int]]
  file_sizes: list[int]

  @property
  def num_examples(self) -> int:
    """N."""
    return sum(self.file_sizes)

  @property
  def num_uniform(self) -> int:
    """The places of an epoch that are drawn by class."""
    return round(self.share * self.num_examples)


def plan(index: dict[str, typing.Any] | None, share: float, path: str) -> Plan | None:
  """Returns the Plan of a share, or None for a share of 0.

  Args:
    index: of the training records, see record_index.read.
    share: see Plan.
    path: of the index, for the message.

  Raises:
    DataError: the index does not say which classes the examples have, or none has any.
  """
  if not share:
    return None
  stored = index and index.get('classes_of_examples')
  if not index or not stored:
    raise DataError(f'--class_uniform needs the classes of each example in {path}, which is not there, does '
                    'not fit the records, or was written by an earlier version or with --fast; '
                    'convert the data again, or give --class_uniform 0')
  masks = [int(mask, 16) for mask in stored.split()]
  members = [[number for number, mask in enumerate(masks) if mask >> value & 1]
             for value in range(len(index['dataset']['class_names']))]
  if not any(members):
    raise DataError(f'--class_uniform finds no class in the records of {path}; give --class_uniform 0')
  return Plan(share, [of_class for of_class in members if of_class],
              [shard['examples'] for shard in index['shards']])


def counts(sampling, seed):
  """Returns int64 [N]: how often each example comes in an epoch; they add up to N.

  The places that are left take different examples, each as likely.

  Args:
    sampling: Plan.
    seed: int64 [2]; the counts are a pure function of it.
  """
  total, uniform = sampling.num_examples, sampling.num_uniform
  sizes = np.array([len(of_class) for of_class in sampling.members])
  begins = np.cumsum(sizes) - sizes
  # Doubles: the steps of a float32 are too coarse for millions of examples.
  draws = tf.random.stateless_uniform([2, uniform], preprocessing.stream(seed, _CLASSES), dtype=tf.float64)
  classes = tf.cast(draws[0] * len(sizes), tf.int32)
  places = tf.gather(begins, classes) + tf.cast(draws[1] * tf.gather(np.float64(sizes), classes), tf.int64)
  drawn = tf.gather(np.concatenate(sampling.members), places)
  by_chance = tf.random.stateless_uniform([total], preprocessing.stream(seed, _REST), dtype=tf.float64)
  rest = tf.cast(tf.argsort(by_chance, stable=True)[:total - uniform], tf.int64)
  chosen = tf.concat([rest, drawn], 0)
  return tf.math.unsorted_segment_sum(tf.ones_like(chosen), chosen, total)
