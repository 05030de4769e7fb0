"""Decoding and augmenting one example, in graph operations; dataset/inputs.py makes pipelines of them.

Training scales, crops and flips at random. What is cut away is not worth computing, so the crop is
chosen first, as a window of the stored image; only it is decoded, flipped and resized. The label
goes the same way by the same window, with nearest instead of bilinear sampling on the same grid.

Letters in shapes: H W stored size, h w size of the window, t u size that it is resized to, C channels.
"""
import collections

import numpy as np
import tensorflow.compat.v1 as tf

from dataset import image_files, label_files, png
from utils.failures import SENTENCE_BEGIN, SENTENCE_END

_BYTES = [bytes([value]) for value in range(256)]

# Luma and two axes of colour, of red, green and blue (NTSC).
_YIQ = np.array([[.299, .587, .114], [.596, -.274, -.322], [.211, -.523, .312]])

# Random numbers of an example that do not change those of its window; see `stream`.
_COLORS, _WINDOWS = 1, 2

_PLACES = 10  # of a window, that are tried

Window = collections.namedtuple('Window', 'begin size target flip')
Window.__doc__ = """A part of a stored image and what becomes of it.

begin: int32 [2], its first row and column. size: int32 [2], h and w. target: int32 [2], t and u.
flip: bool [], left and right change places.
"""


def require(condition, sentence):
  """Stops with a sentence for the user if the condition does not hold.

  Args:
    condition: bool [].
    sentence: function that returns a list of string [] and integer [] tensors; they are built into
      a branch of the graph that costs nothing while all is well.

  Returns:
    An operation to depend on.
  """
  def stop():
    parts = [part if part.dtype == tf.string else tf.as_string(part)
             for part in map(tf.convert_to_tensor, sentence())]
    return tf.Assert(False, [tf.strings.join([SENTENCE_BEGIN, *parts, SENTENCE_END])])

  return tf.cond(condition, tf.no_op, stop)


def image_shape(encoded, name):
  """Returns int32 [2], height and width from the header of a JPEG or PNG file.

  Args:
    encoded: string [], the file.
    name: string [], what errors call the image.

  Raises:
    tf.errors.InvalidArgumentError: neither JPEG nor PNG, or more pixels than are allowed.
  """
  def png_shape():
    is_png = tf.equal(tf.strings.substr(encoded, 0, len(png.SIGNATURE)), png.SIGNATURE)
    with tf.control_dependencies([require(
        is_png, lambda: [name, ' is neither a JPEG nor a PNG file; replace it'])]):
      size = tf.strings.substr(encoded, png.SIZE, 8)
    return tf.reverse(tf.io.decode_raw(size, tf.int32, little_endian=False), [0])  # from W, H

  shape = tf.cond(_is_jpeg(encoded), lambda: tf.image.extract_jpeg_shape(encoded)[:2], png_shape)
  with tf.control_dependencies([require(_is_allowed(shape), lambda: [name, image_files.TOO_MANY_PIXELS])]):
    return tf.identity(shape)


def _is_allowed(shape):
  """Returns bool [], whether sides that a header claims, int32 [2], make no more than the pixels allowed."""
  pixels = tf.reduce_prod(tf.cast(tf.bitcast(shape, tf.uint32), tf.int64))
  return tf.logical_and(pixels >= 0, pixels <= image_files.MAX_PIXELS)


def decode_image(encoded):
  """Returns uint8 [H, W, 3] of a JPEG or PNG file (string []), in the orientation that is stored."""
  return tf.cond(
      _is_jpeg(encoded),
      # As PIL and OpenCV decode, to the bit; TensorFlow's default is coarser and no faster.
      lambda: tf.image.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE'),
      lambda: tf.image.decode_png(encoded, channels=3))


def decode_window(encoded, window):
  """Returns uint8 [h, w, 3], the window of a JPEG or PNG file (string [])."""
  return tf.cond(
      _is_jpeg(encoded),
      lambda: tf.image.decode_and_crop_jpeg(
          encoded, tf.concat([window.begin, window.size], 0), channels=3,
          dct_method='INTEGER_ACCURATE'),
      lambda: cut_window(tf.image.decode_png(encoded, channels=3), window))


def cut_window(image, window):
  """Returns uint8 [h, w, 3], the window of an image (uint8 [H, W, 3])."""
  return tf.slice(image, [*tf.unstack(window.begin), 0], [*tf.unstack(window.size), 3])


def _is_jpeg(encoded):
  return tf.equal(tf.strings.substr(encoded, 0, 3), b'\xff\xd8\xff')


def decode_label(encoded, name='the label'):
  """Returns uint8 [H, W, 1], the sample values that a label PNG stores: a palette's indices.

  TensorFlow turns a palette into colours. So the file is declared to be grey before it is decoded,
  and the stretching of 1, 2 and 4 bits to 0..255, as befits grey, is undone.

  Args:
    encoded: string [], a PNG of one channel, grey or palette, with 1, 2, 4 or 8 bits.
    name: string [] or str, what errors call the label.

  Raises:
    tf.errors.InvalidArgumentError: any other file, or more pixels than are allowed.
  """
  # A file that is too short gets zeros, which are no header of a PNG.
  head = tf.strings.join([tf.strings.substr(encoded, 0, png.AFTER_HEADER),
                          bytes(png.AFTER_HEADER)])
  size = tf.io.decode_raw(tf.strings.substr(head, png.SIZE, 8), tf.int32, little_endian=False)
  head = tf.io.decode_raw(head, tf.uint8)
  bits, colour_type = tf.cast(head[png.BITS], tf.int32), head[png.COLOUR_TYPE]
  is_palette = tf.equal(colour_type, png.PALETTE)
  is_label = tf.reduce_all([
      tf.equal(tf.strings.substr(encoded, 0, len(png.SIGNATURE)), png.SIGNATURE),
      tf.logical_or(is_palette, tf.equal(colour_type, png.GREY)), bits > 0, bits <= 8])
  with tf.control_dependencies([require(tf.logical_and(is_label, _is_allowed(size)), lambda: [
      name, tf.where(is_label, image_files.TOO_MANY_PIXELS,
                     f' is something else: {label_files.WHAT_IT_IS}')])]):
    grey = tf.cond(is_palette, lambda: _as_grey(encoded), lambda: encoded)
    bits = tf.identity(bits)
  label = tf.image.decode_png(grey, channels=1)
  return tf.cond(tf.equal(bits, 8), lambda: label,
                 lambda: label // tf.cast(png.stretch(bits), tf.uint8))


def _as_grey(encoded):
  """Returns the palette PNG (string []) with a header that calls its indices shades of grey."""
  after_type = png.COLOUR_TYPE + 1
  checksum = tf.io.decode_raw(tf.strings.substr(encoded, png.CHECKSUM, 4), tf.uint8)
  checksum = tf.bitwise.bitwise_xor(checksum, tf.constant(png.PALETTE_TO_GREY, tf.uint8))
  return tf.strings.join([
      tf.strings.substr(encoded, 0, png.COLOUR_TYPE), _BYTES[png.GREY],
      tf.strings.substr(encoded, after_type, png.CHECKSUM - after_type),
      tf.strings.reduce_join(tf.gather(_BYTES, tf.cast(checksum, tf.int32))),
      tf.strings.substr(encoded, png.AFTER_HEADER, tf.strings.length(encoded)),
  ])


def check_label(label, dataset, name):
  """Returns an operation that stops if a label holds a value that the dataset does not allow.

  Args:
    label: uint8 [H, W, 1].
    dataset: Dataset.
    name: string [], what the sentence calls the label.
  """
  is_wrong = tf.logical_and(label > dataset.num_classes - 1,
                            tf.not_equal(label, dataset.ignore_label))
  return require(tf.logical_not(tf.reduce_any(is_wrong)), lambda: [
      name, ' holds the value ', tf.reduce_max(tf.boolean_mask(label, is_wrong)),
      label_files.allowed_values(dataset)])


def check_sizes(image_size, label_size, name):
  """Returns an operation that stops if an image and its label differ in size.

  Args:
    image_size, label_size: int32 [2], height and width.
    name: string [], what the sentence calls the label.
  """
  return require(tf.reduce_all(tf.equal(image_size, label_size)),
                 lambda: label_files.different_sizes(name, label_size, image_size))


def stream(seed, number):
  """Returns another seed, int64 [2]: stateless draws by it have nothing to do with those by `seed`.

  Args:
    seed: int64 [2], of which the first is below 2^31, as --seed is.
    number: int, 1 or more.
  """
  return tf.cast(seed, tf.int64) + tf.constant([number << 32, 0], tf.int64)


def random_window(size, crop_size, scales, seed, scale_step=0., flips=True):
  """Returns the Window of a random scale, crop and flip.

  The stored image times the scale is cut, if it is larger than the crop, to a part of the crop's
  size (each place is as likely as any other); if it is smaller, all of it is taken.

  Args:
    size: int32 [2], H and W.
    crop_size: (height, width), ints.
    scales: (smallest, largest), floats; uniform between.
    seed: int64 [2]; the window is a pure function of it.
    scale_step: float; above 0 the scale is one of smallest, smallest + scale_step, ... up to largest.
    flips: bool, whether half of the windows are flipped.
  """
  scale, top, left, flip = tf.unstack(tf.random.stateless_uniform([4], seed))
  if scale_step:
    number = 1 + int((scales[1] - scales[0]) / scale_step + 1e-6)  # 2.0 of 0.1, 0.2, ... is one of them
    scale = scales[0] + tf.floor(scale * number) * scale_step
  else:
    scale = scales[0] + scale * (scales[1] - scales[0])
  size = tf.cast(size, tf.float32)
  crop_size = tf.cast(tf.constant(crop_size), tf.float32)
  target = tf.maximum(1., tf.minimum(tf.round(size * scale), crop_size))  # [2]: t, u
  is_cut = target < tf.round(size * scale)
  part = tf.where(is_cut, tf.clip_by_value(tf.round(crop_size / scale), 1., size), size)
  begin = tf.floor(tf.stack([top, left]) * (size - part + 1.))
  return Window(*(tf.cast(value, tf.int32) for value in (begin, part, target)),
                flip < .5 if flips else tf.constant(False))


def mixed_window(window, label, ignore_label, max_share, seed):
  """Returns a Window of the same size, scale and flip where no class takes up too much, if one is found.

  Up to ten places are tried, the window's own first. The first is taken whose most frequent class has no more
  than max_share of the valid pixels, or else the last: mmsegmentation's cat_max_ratio and detectron2's
  CategoryAreaConstraint. Counted are the pixels of every nth row and column, at least 64 of each if there are
  as many.

  Args:
    window: Window.
    label: uint8 [H, W, 1], the stored label.
    ignore_label: int.
    max_share: float, below 1.
    seed: int64 [2]; the places are a pure function of it.
  """
  shape = tf.shape(label)[:2]
  places = tf.random.stateless_uniform([_PLACES - 1, 2], stream(seed, _WINDOWS))
  places = tf.cast(tf.floor(places * tf.cast(shape - window.size + 1, tf.float32)), tf.int32)
  places = tf.concat([window.begin[None], places], 0)  # [_PLACES, 2]
  stride = tf.maximum(1, tf.reduce_min(window.size) // 64)
  of_class = tf.constant([value != ignore_label for value in range(256)])

  def is_mixed(begin):
    end = begin + window.size
    part = label[begin[0]:end[0]:stride, begin[1]:end[1]:stride, 0]
    counts = tf.raw_ops.Bincount(arr=tf.cast(part, tf.int32), size=256, weights=tf.zeros([0]))
    counts = tf.where(of_class, counts, tf.zeros_like(counts))
    most, valid = tf.reduce_max(counts), tf.reduce_sum(counts)
    return tf.logical_and(valid > 0, most <= max_share * valid)

  has_choice = tf.reduce_any(window.size < shape)
  chosen = tf.while_loop(
      lambda number: tf.logical_and(number < _PLACES - 1, tf.logical_not(is_mixed(places[number]))),
      lambda number: number + 1, [tf.where(has_choice, 0, _PLACES - 1)])
  return window._replace(begin=tf.where(has_choice, places[chosen], window.begin))


def resize_image(image, window):
  """Returns uint8 [t, u, 3]: the window of an image (uint8 [h, w, 3]), flipped or not, bilinear."""
  image = tf.cond(window.flip, lambda: tf.reverse(image, [1]), lambda: image)
  # TensorFlow interpolates floats twice as fast as bytes. Half a grey level more on the way in turns
  # the truncation on the way out into rounding.
  image = tf.expand_dims(tf.cast(image, tf.float32) + .5, 0)
  image = tf.raw_ops.ResizeBilinear(images=image, size=window.target, half_pixel_centers=True)
  return tf.squeeze(tf.cast(image, tf.uint8), 0)


def resize_label(label, window):
  """Returns uint8 [t, u, 1]: the window of a label (uint8 [H, W, 1]), flipped or not, nearest.

  Of n pixels, number i (from 0) takes the window's number floor((i + 1/2) * size / n), on the grid
  of `resize_image`. Columns are picked as rows of the transposed label: rows are copied whole,
  which is ten times faster than TensorFlow's own resize, which copies a single value at a time.
  """
  def nearest(axis):
    size, target = window.size[axis], window.target[axis]
    return (2 * tf.range(target) + 1) * size // (2 * target)

  columns = nearest(1)
  columns = tf.where(window.flip, window.size[1] - 1 - columns, columns)
  label = tf.slice(tf.squeeze(label, 2), window.begin, window.size)  # [h, w]
  label = tf.gather(tf.transpose(label), columns)                    # [u, h]
  label = tf.gather(tf.transpose(label), nearest(0))                 # [t, u]
  return tf.expand_dims(label, 2)


def distort(image, seed):
  """Returns uint8 [t, u, 3]: an image (the same) of other brightness, contrast, saturation and hue, or not.

  Args:
    image: uint8 [t, u, 3].
    seed: int64 [2]; the colours are a pure function of it.
  """
  return recolor(image, *random_colors(seed))


def random_colors(seed):
  """Returns brightness, contrast, saturation and hue, float32 [] each, for `recolor`.

  As in SSD (arXiv 1512.02325, section 2.2 and its code), each of the four changes with probability 1/2:
  brightness by up to 32 grey levels, contrast and saturation to 0.5..1.5, hue by up to 18 degrees.

  Args:
    seed: int64 [2].
  """
  draws = tf.random.stateless_uniform([2, 4], stream(seed, _COLORS), -1., 1.)
  brightness, contrast, saturation, hue = tf.unstack(tf.where(draws[0] < 0., draws[1], tf.zeros([4])))
  return 32. * brightness, 1. + .5 * contrast, 1. + .5 * saturation, np.pi / 10 * hue


def recolor(image, brightness, contrast, saturation, hue):
  """Returns uint8 [t, u, 3]: an image of other colours, rounded.

  Saturation and hue stretch and turn the plane of colours, I and Q of YIQ, and leave the luma Y. The usual
  ones of HSV do about the same, cost ten times as much, and change the luma. So all is one matrix and one
  offset: greys stay grey, and contrast comes before or after the rest to the same effect. Values are clipped
  once, at the end.

  Args:
    image: uint8 [t, u, 3], RGB.
    brightness: float32 [], grey levels to add. contrast, saturation: float32 [], factors, 1 for none.
    hue: float32 [], radians.
  """
  cos, sin = saturation * tf.cos(hue), saturation * tf.sin(hue)
  turn = tf.reshape(tf.stack([1., 0., 0., 0., cos, -sin, 0., sin, cos]), [3, 3])
  matrix = contrast * tf.matmul(np.float32(np.linalg.inv(_YIQ)), tf.matmul(turn, np.float32(_YIQ)))
  pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
  pixels = tf.matmul(pixels, matrix, transpose_b=True) + (contrast * brightness + .5)  # which rounds
  return tf.reshape(tf.saturate_cast(pixels, tf.uint8), tf.shape(image))


def pad(image, crop_size, colour):
  """Returns uint8 [height, width, C]: an image or label (uint8 [t, u, C]) padded right and bottom.

  Args:
    image: uint8 [t, u, C], not larger than the crop.
    crop_size: (height, width), ints.
    colour: tuple of C ints, 0..255.
  """
  (height, width), channels = crop_size, len(colour)
  t, u = tf.unstack(tf.shape(image)[:2])
  # In two dimensions, as TensorFlow cuts and joins these by whole rows.
  canvas = tf.constant(np.tile(np.uint8(colour), (height, width)))  # [height, width * C]
  rows = tf.reshape(image, [t, u * channels])
  rows = tf.cond(u < width, lambda: tf.concat([rows, canvas[:t, u * channels:]], 1), lambda: rows)
  rows = tf.cond(t < height, lambda: tf.concat([rows, canvas[t:]], 0), lambda: rows)
  return tf.reshape(rows, [height, width, channels])
