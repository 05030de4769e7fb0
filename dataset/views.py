"""Views: an image is predicted at several scales, mirrored and in windows, and probabilities are averaged.

One network predicts one view in a run of the session, so the graph stays as small as for whole images, and
only the rows that windows still add to are held in memory: 4 bytes x classes x width x height of a window.

DeepLabv3 (arXiv 1706.05587, sec. 4.1) averages over scales 0.5 to 1.75 and mirrored images.

Letters in shapes: H W size of the image, h w of a view's window, K classes.
"""
import argparse
import math
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from utils.errors import UsageError


class Views(typing.NamedTuple):
  """From where an image is looked at.

  Attributes:
    scales: tuple of floats, by which windows are resized.
    flip: bool, look at each mirrored, too.
    window: (height, width), ints, of windows that cover the image; None takes it whole.
    overlap: float, 0 to below 1, the share of a window that the next one sees too, at least.
  """
  scales: tuple = (1.0,)
  flip: bool = False
  window: tuple | None = None
  overlap: float = 1 / 3

  @property
  def is_plain(self) -> bool:
    """Whether there is one view, the image itself."""
    return self.scales == (1.0,) and not self.flip and not self.window

  @property
  def memory_advice(self) -> str:
    """What to do if the memory is not enough."""
    return 'give a smaller --sliding_window, or fewer and smaller --eval_scales'

  @property
  def signature(self) -> dict:
    """What `features` yields: tf.TensorSpec by name."""
    image = {'image': tf.TensorSpec([None, None, 3], tf.uint8)}
    return image if self.is_plain else {
        **image, 'scale': tf.TensorSpec([], tf.float32), 'mirrored': tf.TensorSpec([], tf.bool),
        'size': tf.TensorSpec([2], tf.int32)}

  def features(self, image: np.ndarray) -> typing.Iterator[dict]:
    """Yields the features of each view of an image, uint8 [H, W, 3], in the order of the plan.

    Of the image itself it is `image` alone; else `image` is the window, and beside it are the scale, whether
    it is mirrored, and the size of the whole image.
    """
    if self.is_plain:
      yield {'image': image}
      return
    size = image.shape[:2]
    for view in self.plan(size):
      yield {'image': view.of(image), 'scale': view.scale, 'mirrored': view.mirrored, 'size': size}

  def plan(self, size: tuple) -> list:
    """Returns the list of View of an image of (height, width), windows from the top to the bottom."""
    height, width = (min(pair) for pair in zip(self.window or size, size))
    return [View(top, left, height, width, scale, mirrored)
            for top in _positions(size[0], height, self.overlap)
            for left in _positions(size[1], width, self.overlap)
            for scale in self.scales for mirrored in (False, True)[:1 + self.flip]]


class View(typing.NamedTuple):
  """A window of an image, resized by `scale`, and mirrored or not."""
  top: int
  left: int
  height: int
  width: int
  scale: float
  mirrored: bool

  def of(self, image: np.ndarray) -> np.ndarray:
    """Returns the window of an image, [h, w, ...]."""
    return image[self.top:self.top + self.height, self.left:self.left + self.width]


def _positions(length, window, overlap):
  """Returns where windows begin so that they cover a length, evenly spread: a list of ints."""
  if window >= length:
    return [0]
  count = 1 + math.ceil((length - window) / max(1, window * (1 - overlap)))
  return [round(index * (length - window) / (count - 1)) for index in range(count)]


# --- In the graph --------------------------------------------------------------------------------


class Seen:
  """A view in the graph, which the model_fn takes in place of images."""

  def __init__(self, features):
    """Args: features, dict of batches of one, see Views.features."""
    self._image, self._scale, self._mirrored = (features[name] for name in ('image', 'scale', 'mirrored'))

  def images(self):
    """Returns float32 [1, h', w', 3], RGB 0..255: the window as the network is to see it.

    Sides of L pixels become int((L - 1) * scale + 1), so that the corners stay in place.
    """
    images = tf.cast(self._image, tf.float32)
    size = self.scaled(tf.shape(images)[1:3])
    return self._turned(tf.image.resize_bilinear(images, size, align_corners=True))

  def scaled(self, size):
    """Returns int32 [2], what (height, width), ints or an int32 tensor, become at the scale of the view."""
    return tf.cast((tf.cast(size, tf.float32) - 1) * self._scale[0] + 1, tf.int32)

  def restored(self, logits):
    """Returns the logits of `images`, float32 [1, h', w', K], at the size of the window."""
    return tf.image.resize_bilinear(self._turned(logits), tf.shape(self._image)[1:3], align_corners=True)

  def _turned(self, images):
    return tf.cond(self._mirrored[0], lambda: tf.reverse(images, [2]), lambda: images)


# --- On the host ---------------------------------------------------------------------------------


class Average:
  """The mean of the probabilities of an image's views, which come in the order of the plan."""

  def __init__(self, size: tuple, views: Views, num_classes: int, on_rows: typing.Callable) -> None:
    """Starts with nothing.

    Args:
      size: (height, width) of the image.
      views: Views.
      num_classes: int, K.
      on_rows: function of a row's number and the mean probabilities from there on, float32 [rows, W, K];
        called for the next rows as soon as no later view adds to them.
    """
    rows = min((views.window or size)[0], size[0])
    self._sum = np.zeros((rows, size[1], num_classes), np.float32)
    self._count = np.zeros((rows, size[1], 1), np.float32)
    self._top, self._height, self._on_rows = 0, size[0], on_rows

  def add(self, view: View, probabilities: np.ndarray) -> None:
    """Adds the probabilities of a view, float32 [h, w, K]."""
    self._finish(view.top)
    rows, columns = slice(view.height), slice(view.left, view.left + view.width)
    self._sum[rows, columns] += probabilities
    self._count[rows, columns] += 1

  def finish(self) -> None:
    """Hands out what is left, after the last view."""
    self._finish(self._height)

  def _finish(self, top):
    done = top - self._top
    if done > 0:
      self._on_rows(self._top, self._sum[:done] / self._count[:done])
      for kept in (self._sum, self._count):
        kept[:-done or None] = kept[done:].copy() if done < len(kept) else 0
        kept[len(kept) - done:] = 0
      self._top = top


def merged(predictions, views, num_classes, on_view=None, keep_probabilities=False):
  """Yields the prediction of each image from those of its views.

  Args:
    predictions: iterator of dicts with `probabilities`, float32 [h, w, K], of the views of all images, and
      the `position` and `size` of the image.
    views: Views.
    num_classes: int, K.
    on_view: function of how many views of an image are done, and how many there are; or None.
    keep_probabilities: bool.

  Yields:
    dict of `position`, `classes`, uint8 [H, W, 1], and `probabilities`, float32 [H, W, K], if they are kept.
  """
  for prediction in predictions:
    size = tuple(prediction['size'].tolist())
    found = {'position': prediction['position'], 'classes': np.empty((*size, 1), np.uint8)}
    if keep_probabilities:
      found['probabilities'] = np.empty((*size, num_classes), np.float32)

    def take(top, rows, found=found):
      found['classes'][top:top + len(rows), :, 0] = rows.argmax(axis=2)
      if 'probabilities' in found:
        found['probabilities'][top:top + len(rows)] = rows

    average, plan = Average(size, views, num_classes, take), views.plan(size)
    for number, view in enumerate(plan, 1):
      average.add(view, (prediction if number == 1 else next(predictions))['probabilities'])
      if on_view:
        on_view(number, len(plan))
    average.finish()
    yield found


def read_flags(args: argparse.Namespace, output_stride: int) -> Views:
  """Returns the Views of parsed flags that hold flags.VIEW_FLAGS.

  Args:
    args: the parsed flags.
    output_stride: int; windows are to be no smaller.

  Raises:
    UsageError: flags need one another, or a window is too small.
  """
  window = args.sliding_window and tuple(args.sliding_window)
  if window and min(window) < output_stride:
    raise UsageError(f'--sliding_window {window[0]} {window[1]} is smaller than --output_stride '
                     f'{output_stride}; give larger windows')
  return Views(tuple(args.eval_scales), args.flip, window, args.overlap)
