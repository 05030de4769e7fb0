"""Decoding and augmenting one example, against PIL and against values worked out by hand."""
import io
import struct
import unittest
import zlib

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

from dataset import label_files, preprocessing
from dataset.descriptors import Dataset
from utils import failures

pytestmark = [pytest.mark.compat, pytest.mark.slow]

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SIZES = ((1, 1), (7, 13), (16, 5), (31, 33))


def png(values, bits, colour_type=GREY, transparency=b''):
  """Returns a PNG file of integer [H, W] or [H, W, C] samples, which no library has touched."""
  def chunk(name, data):
    return (struct.pack('>I', len(data)) + name + data
            + struct.pack('>I', zlib.crc32(name + data)))

  height, width = values.shape[:2]
  places = np.arange(bits - 1, -1, -1)
  rows = (values.reshape(height, -1, 1) >> places & 1).astype(np.uint8).reshape(height, -1)
  rows = np.packbits(rows, axis=1)
  data = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, colour_type, 0, 0, 0))
  if colour_type == PALETTE:
    colours = np.random.RandomState(bits).randint(256, size=(2 ** bits, 3)).astype(np.uint8)
    data += chunk(b'PLTE', colours.tobytes())
  if transparency:
    data += chunk(b'tRNS', transparency)
  data += chunk(b'IDAT', zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows)))
  return b'\x89PNG\r\n\x1a\n' + data + chunk(b'IEND', b'')


def encoded(pixels, kind, **options):
  """Returns the file that PIL makes of an array."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()


def in_graph(function, *args):
  """Returns the result of a function that is run as tf.data runs it, inside a graph."""
  dataset = tf.data.Dataset.from_tensors(tuple(map(tf.constant, args)))
  return next(iter(dataset.map(tf.autograph.experimental.do_not_convert(function))))


def claiming(file, width, height):
  """Returns a PNG file whose header claims another size, with the right checksum."""
  header = b'IHDR' + struct.pack('>II', width, height) + file[24:29]
  return file[:12] + header + struct.pack('>I', zlib.crc32(header)) + file[33:]


def labels(values):
  return np.uint8(values).reshape(-1, 1, 1)


class TestCase(unittest.TestCase):

  def check_refused(self, sentence, function, *args):
    """Asserts that the graph stops with exactly this sentence."""
    with self.assertRaises(tf.errors.InvalidArgumentError) as caught:
      in_graph(function, *args)
    self.assertEqual(failures.error_sentence(str(caught.exception)), sentence)


class SizeTest(TestCase):
  """Memory is reserved for no more pixels than are allowed, whatever a header claims."""

  SIZES = ((100000, 100000), (0xffffffff, 0xffffffff), (0xffffffff, 1), (0x80000000, 2), (13378, 13378))

  def test_png_that_claims_too_many_pixels_is_refused(self):
    small = png(np.zeros((2, 3, 3), int), 8, RGB)
    for size in self.SIZES:
      with self.subTest(size=size):
        self.check_refused('x has more than the 178956970 pixels that are allowed; cut it into parts',
                           lambda file: preprocessing.image_shape(file, 'x'), claiming(small, *size))
    shape = in_graph(lambda file: preprocessing.image_shape(file, 'x'), claiming(small, 13377, 13377))
    self.assertEqual(shape.numpy().tolist(), [13377, 13377])

  def test_jpeg_that_claims_too_many_pixels_is_refused(self):
    jpeg = encoded(np.zeros((8, 8, 3), np.uint8), 'JPEG')
    frame = jpeg.index(b'\xff\xc0') + 5
    self.check_refused('x has more than the 178956970 pixels that are allowed; cut it into parts',
                       lambda file: preprocessing.image_shape(file, 'x'),
                       jpeg[:frame] + struct.pack('>HH', 65500, 65500) + jpeg[frame + 4:])

  def test_label_that_claims_too_many_pixels_is_refused(self):
    for size in self.SIZES:
      self.check_refused('x has more than the 178956970 pixels that are allowed; cut it into parts',
                         lambda file: preprocessing.decode_label(file, 'x'),
                         claiming(png(np.zeros((2, 3), int), 8), *size))


class DecodeLabelTest(TestCase):

  def decoded(self, files):
    """Returns the labels of PNG files, [H, W] each, by one graph."""
    dataset = tf.data.Dataset.from_tensor_slices(files).map(preprocessing.decode_label)
    labels = [label.numpy() for label in dataset]
    self.assertEqual({(label.dtype, label.shape[2]) for label in labels}, {(np.dtype('uint8'), 1)})
    return [label[:, :, 0] for label in labels]

  def test_grey_and_palette_of_every_depth_give_stored_values(self):
    random = np.random.RandomState(0)
    for bits in (1, 2, 4, 8):
      for colour_type, stretch in ((GREY, 255 // (2 ** bits - 1)), (PALETTE, 1)):
        values = [random.randint(2 ** bits, size=size) for size in SIZES]
        files = [png(value, bits, colour_type) for value in values]
        for value, file, label in zip(values, files, self.decoded(files), strict=True):
          with self.subTest(bits=bits, size=value.shape, colour_type=colour_type):
            np.testing.assert_array_equal(label, value)
            pil = Image.open(io.BytesIO(file))
            seen = np.asarray(pil.convert('L') if pil.mode == '1' else pil)
            np.testing.assert_array_equal(seen, value * stretch)

  def test_palette_saved_by_pil_gives_its_indices(self):
    values = np.random.RandomState(1).randint(21, size=(9, 14)).astype(np.uint8)
    values[2:4] = 255
    image = Image.fromarray(values)
    image.putpalette(list(range(255, -1, -1)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    self.assertEqual(image.mode, 'P')
    np.testing.assert_array_equal(self.decoded([buffer.getvalue()])[0], values)

  def test_transparency_of_palette_entries_changes_nothing(self):
    values = np.arange(35).reshape(5, 7) % 4
    files = [png(values, 2, PALETTE, entries) for entries in (b'\0', b'\0\xff', b'\0\1\2\3')]
    for label in self.decoded(files):
      np.testing.assert_array_equal(label, values)

  def test_other_files_are_refused(self):
    eight = np.zeros((3, 4, 4), int)
    files = (png(eight[:, :, :3], 8, RGB), png(eight, 8, RGBA), png(eight[:, :, :2], 8, GREY_ALPHA),
             png(eight[:, :, 0], 16), encoded(np.zeros((8, 8), np.uint8), 'JPEG'), b'',
             png(eight[:, :, 0], 8)[:20], b'\x89PNG\r\n\x1a\n')
    for file in files:
      self.check_refused(
          f"label 'a' is something else: {label_files.WHAT_IT_IS}",
          lambda file: preprocessing.decode_label(file, "label 'a'"), file)

  def test_damaged_file_is_an_error(self):
    file = bytearray(png(np.arange(80).reshape(8, 10), 8, PALETTE))
    file[-20] ^= 1
    with self.assertRaises(tf.errors.InvalidArgumentError):
      in_graph(preprocessing.decode_label, bytes(file))


class DecodeImageTest(TestCase):

  def setUp(self):
    super().setUp()
    noise = np.random.RandomState(2).randint(256, size=(6, 9, 3)).astype(np.uint8)
    self.photo = np.asarray(Image.fromarray(noise).resize((45, 31), Image.Resampling.BICUBIC))

  def test_jpeg_and_png_equal_pil_and_opencv(self):
    grey = self.photo[:, :, 0]
    for file in (encoded(self.photo, 'JPEG'), encoded(self.photo, 'JPEG', progressive=True),
                 encoded(self.photo, 'JPEG', quality=97, subsampling=0),
                 encoded(self.photo, 'PNG'), encoded(grey, 'JPEG'), encoded(grey, 'PNG'),
                 encoded(np.dstack([self.photo, grey]), 'PNG')):
      expected = np.asarray(Image.open(io.BytesIO(file)).convert('RGB'))
      np.testing.assert_array_equal(in_graph(preprocessing.decode_image, file), expected)
      opencv = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
      np.testing.assert_array_equal(opencv[:, :, ::-1], expected)

  def test_shape_comes_from_header(self):
    for kind in ('JPEG', 'PNG'):
      shape = in_graph(lambda file: preprocessing.image_shape(file, 'x'),
                       encoded(self.photo, kind))
      self.assertEqual(shape.numpy().tolist(), [31, 45])

  def test_other_format_is_refused(self):
    for file in (b'', b'GIF89a', encoded(self.photo, 'BMP')):
      self.check_refused("image 'b' is neither a JPEG nor a PNG file; replace it",
                         lambda file: preprocessing.image_shape(file, "image 'b'"), file)

  def test_window_is_part_of_image(self):
    def decoded(file):
      return preprocessing.decode_window(file, preprocessing.Window(
          tf.constant([5, 11]), tf.constant([17, 23]), None, None))

    for file in (encoded(self.photo, 'PNG'), encoded(self.photo, 'JPEG', subsampling=0)):
      whole = in_graph(preprocessing.decode_image, file)
      np.testing.assert_array_equal(in_graph(decoded, file), whole[5:22, 11:34])


class CheckTest(TestCase):

  def checked(self, ignore_label):
    dataset = Dataset('tiny', ('a', 'b', 'c'), ((0, 0, 0),) * 3, ignore_label)

    def checked(label):
      with tf.control_dependencies([preprocessing.check_label(label, dataset, "label 'x'")]):
        return tf.identity(label)

    return checked

  def test_classes_and_ignore_label_pass(self):
    in_graph(self.checked(255), labels([0, 1, 2, 255]))
    in_graph(self.checked(7), labels([0, 1, 2, 7]))

  def test_ignore_label_may_be_a_class(self):
    in_graph(self.checked(0), labels([0, 1, 2]))

  def test_other_value_is_named(self):
    for values, ignore_label, wrong in (([0, 3, 255], 255, 3), ([1, 254], 255, 254),
                                        ([255, 2], 7, 255), ([1, 9, 4], 0, 9)):
      self.check_refused(f"label 'x' holds the value {wrong}; tiny allows 0..2 and {ignore_label} "
                         '(ignored); recode the label, or use the dataset that it belongs to',
                         self.checked(ignore_label), labels(values))

  def test_different_sizes_are_named(self):
    def checked(image, label):
      with tf.control_dependencies([preprocessing.check_sizes(image, label, "label 'ü'")]):
        return tf.identity(label)

    in_graph(checked, [4, 5], [4, 5])
    self.check_refused("label 'ü' is 6x4, its image 5x4 (width x height); make them equal",
                       checked, [4, 5], [4, 6])


class RandomWindowTest(TestCase):

  def windows(self, size, crop_size, scales, number=300, **options):
    dataset = tf.data.Dataset.range(number).map(
        lambda position: preprocessing.random_window(
            tf.constant(size), crop_size, scales, tf.stack([tf.constant(3, tf.int64), position]), **options))
    return [preprocessing.Window(*(value.numpy() for value in window)) for window in dataset]

  def test_small_image_is_taken_whole_at_its_scaled_size(self):
    for window in self.windows((13, 7), (29, 31), (2., 2.), 9):
      self.assertEqual(window.begin.tolist(), [0, 0])
      self.assertEqual(window.size.tolist(), [13, 7])
      self.assertEqual(window.target.tolist(), [26, 14])

  def test_large_image_is_cut_to_the_crop_anywhere(self):
    # At half scale a crop of 8x5 shows 16x10 pixels of the 19x12: 4 x 3 places.
    windows = self.windows((19, 12), (8, 5), (.5, .5))
    self.assertEqual({tuple(window.size) for window in windows}, {(16, 10)})
    self.assertEqual({tuple(window.target) for window in windows}, {(8, 5)})
    self.assertEqual({tuple(window.begin) for window in windows},
                     {(top, left) for top in range(4) for left in range(3)})

  def test_one_side_may_be_cut_and_the_other_padded(self):
    for window in self.windows((10, 40), (30, 30), (1., 1.), 9):
      self.assertEqual(window.size.tolist(), [10, 30])
      self.assertEqual(window.target.tolist(), [10, 30])

  def test_windows_lie_inside_and_keep_the_scale(self):
    for window in self.windows((360, 480), (257, 321), (.5, 2.)):
      self.assertTrue((window.begin >= 0).all())
      self.assertTrue((window.begin + window.size <= (360, 480)).all())
      self.assertTrue((window.target <= (257, 321)).all())
      down, right = window.target / window.size
      self.assertLess(abs(down / right - 1), .01)
      self.assertTrue(.495 < down < 2.02)

  def test_scale_and_flip_are_evenly_spread(self):
    windows = self.windows((100, 100), (1000, 1000), (.5, 2.))
    scales = [window.target[0] / 100 for window in windows]
    self.assertAlmostEqual(np.mean(scales), 1.25, delta=.08)
    self.assertLess(min(scales), .55)
    self.assertGreater(max(scales), 1.95)
    self.assertAlmostEqual(np.mean([window.flip for window in windows]), .5, delta=.1)

  def test_scales_of_a_step_are_each_as_likely_and_the_places_stay(self):
    windows = self.windows((100, 100), (1000, 1000), (.5, 2.), 700, scale_step=.25)
    scales, counts = np.unique([window.target[0] for window in windows], return_counts=True)
    self.assertEqual(scales.tolist(), [50, 75, 100, 125, 150, 175, 200])
    self.assertLess(np.abs(counts - 100).max(), 4 * 100 ** .5)
    for most in (2., 2.05):  # (2 - .1) / .1 is a little less than 19
      windows = self.windows((100, 100), (1000, 1000), (.1, most), 300, scale_step=.1)
      self.assertEqual({window.target[0] for window in windows}, set(range(10, 201, 10)))

  def test_without_flips_nothing_else_changes(self):
    flipped, plain = (self.windows((60, 50), (31, 33), (.5, 2.), 40, flips=flips) for flips in (True, False))
    self.assertTrue(any(window.flip for window in flipped))
    for one, other in zip(flipped, plain, strict=True):
      self.assertFalse(other.flip)
      np.testing.assert_array_equal(np.concatenate(one[:3]), np.concatenate(other[:3]))

  def test_tiny_image_keeps_a_pixel(self):
    for window in self.windows((1, 1), (8, 8), (.2, .3), 9):
      self.assertEqual(window.target.tolist(), [1, 1])


class MixedWindowTest(TestCase):
  """A label whose left two thirds are class 0; the right third has stripes of 1, 2 and what is ignored."""

  def setUp(self):
    super().setUp()
    self.label = np.zeros((50, 90), np.uint8)
    self.label[:, 60:] = np.arange(50)[:, None] % 3
    self.label[self.label == 0] = 255
    self.label[:, :60] = 0

  def windows(self, max_share, number=300, size=(20, 24), label=None, scales=(1., 1.)):
    """Returns the windows as drawn, and those that are taken."""
    label = self.label if label is None else label

    def both(position):
      seed = tf.stack([tf.constant(3, tf.int64), position])
      window = preprocessing.random_window(tf.constant(label.shape), size, scales, seed)
      mixed = preprocessing.mixed_window(window, tf.constant(label[:, :, None]), 255, max_share, seed)
      return window, mixed

    return zip(*([preprocessing.Window(*(value.numpy() for value in one)) for one in pair]
                 for pair in tf.data.Dataset.range(number).map(both)))

  def share(self, window):
    """Returns the largest share of a class in the valid pixels of a window, 1 if none is valid."""
    (top, left), (height, width) = window.begin, window.size
    counts = np.bincount(self.label[top:top + height, left:left + width].ravel(), minlength=256)[:255]
    return counts.max() / counts.sum() if counts.sum() else 1.

  def test_no_window_has_too_much_of_a_class_unless_ten_had(self):
    drawn, taken = self.windows(.75)
    before, after = (np.array([self.share(window) for window in windows]) for windows in (drawn, taken))
    rate = (before > .75).mean()
    self.assertTrue(.4 < rate < .8)
    self.assertLess((after > .75).mean(), 3 * rate ** 10 + .01)
    self.assertEqual({tuple(window.size) for window in taken}, {(20, 24)})

  def test_window_that_is_mixed_stays_and_all_else_of_the_others_too(self):
    for one, other in zip(*self.windows(.75)):
      if self.share(one) <= .75:
        self.assertEqual(one.begin.tolist(), other.begin.tolist())
      else:
        self.assertNotEqual(one.begin.tolist(), other.begin.tolist())
      for name in ('size', 'target', 'flip'):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))

  def test_share_is_of_the_valid_pixels_and_may_be_reached(self):
    label = np.full((20, 48), 255, np.uint8)
    label[::5, ::4], label[::10, ::4] = 1, 0  # in rows 0 and 10 class 0, in rows 5 and 15 as much of class 1
    for max_share, is_same in ((.5, True), (.49, False)):
      drawn, taken = self.windows(max_share, 20, label=label)
      self.assertEqual(all((a.begin == b.begin).all() for a, b in zip(drawn, taken)), is_same)

  def test_large_windows_are_counted_in_part(self):
    self.label = self.label.repeat(7, 0).repeat(7, 1)  # 350 x 630, windows of 199 x 203: every third pixel
    drawn, taken = self.windows(.75, 100, (199, 203))
    before, after = (np.array([self.share(window) for window in windows]) for windows in (drawn, taken))
    rate = (before > .75).mean()
    self.assertGreater(rate, .4)
    self.assertLess((after > .76).mean(), 3 * rate ** 10 + .01)

  def test_places_of_the_last_resort_are_all_over_the_image(self):
    _, taken = self.windows(.2, label=np.zeros((23, 27), np.uint8))
    self.assertEqual({tuple(window.begin) for window in taken},
                     {(top, left) for top in range(4) for left in range(4)})
    drawn, taken = self.windows(.2, 30, label=np.full((23, 27), 255, np.uint8))  # nothing but ignored pixels
    self.assertGreater(sum((a.begin != b.begin).any() for a, b in zip(drawn, taken)), 20)

  def test_image_that_is_taken_whole_stays(self):
    for one, other in zip(*self.windows(.2, 9, (60, 95), scales=(.9, 1.))):
      self.assertEqual(other.begin.tolist(), [0, 0])
      self.assertEqual(one.size.tolist(), other.size.tolist())


class ResizeTest(TestCase):

  def window(self, begin, size, target, flip=False):
    return preprocessing.Window(tf.constant(begin), tf.constant(size), tf.constant(target),
                                tf.constant(flip))

  def image(self, rows, target, flip=False):
    """Returns the resized red channel; green is its complement, so that channels cannot mix."""
    red = np.uint8(rows)
    image = np.dstack([red, 255 - red, np.full_like(red, 9)])
    resized = in_graph(lambda image: preprocessing.resize_image(
        image, self.window([0, 0], red.shape, target, flip)), image).numpy()
    self.assertEqual(resized.dtype, np.uint8)
    np.testing.assert_array_equal(resized[:, :, 2], 9)
    return resized[:, :, 0].tolist()

  def label(self, rows, begin, size, target, flip=False):
    label = in_graph(lambda label: preprocessing.resize_label(
        label, self.window(begin, size, target, flip)), np.uint8(rows)[:, :, None]).numpy()
    self.assertEqual((label.dtype, label.shape[2]), (np.uint8, 1))
    return label[:, :, 0].tolist()

  def test_image_is_interpolated_between_pixel_centres(self):
    # Pixel i of 4 lies at (i + 1/2) * 2/4 - 1/2: -1/4 (the edge), 1/4, 3/4, 5/4 (the edge).
    self.assertEqual(self.image([[0, 100]], [1, 4]), [[0, 25, 75, 100]])
    self.assertEqual(self.image([[0], [100]], [4, 1]), [[0], [25], [75], [100]])
    # Pixel i of 2 lies at (i + 1/2) * 4/2 - 1/2: 1/2, 5/2.
    self.assertEqual(self.image([[10, 20, 40, 80]], [1, 2]), [[15, 60]])

  def test_image_is_rounded(self):
    self.assertEqual(self.image([[0, 3]], [1, 4]), [[0, 1, 2, 3]])  # 0, 0.75, 2.25, 3
    self.assertEqual(self.image([[252, 255]], [1, 4]), [[252, 253, 254, 255]])

  def test_image_at_its_own_size_is_unchanged(self):
    rows = np.random.RandomState(4).randint(256, size=(5, 8)).tolist()
    self.assertEqual(self.image(rows, [5, 8]), rows)

  def test_image_is_flipped_left_to_right(self):
    self.assertEqual(self.image([[1, 2, 3], [4, 5, 6]], [2, 3], flip=True), [[3, 2, 1], [6, 5, 4]])

  def test_label_takes_nearest_pixel(self):
    # Pixel i of 5 lies in pixel floor((i + 1/2) * 3/5) = 0, 0, 1, 2, 2.
    self.assertEqual(self.label([[5, 6, 7]], [0, 0], [1, 3], [1, 5]), [[5, 5, 6, 7, 7]])
    self.assertEqual(self.label([[5], [6], [7]], [0, 0], [3, 1], [5, 1]), [[5], [5], [6], [7], [7]])
    # Pixel i of 2 lies in pixel floor((i + 1/2) * 5/2) = 1, 3.
    self.assertEqual(self.label([[5, 6, 7, 8, 9]], [0, 0], [1, 5], [1, 2]), [[6, 8]])

  def test_label_is_cut_to_window(self):
    rows = np.arange(30).reshape(5, 6)
    self.assertEqual(self.label(rows, [1, 2], [2, 3], [2, 3]), [[8, 9, 10], [14, 15, 16]])
    self.assertEqual(self.label(rows, [1, 2], [2, 3], [2, 3], flip=True),
                     [[10, 9, 8], [16, 15, 14]])

  def test_flipped_label_is_mirror_of_the_other(self):
    rows = np.random.RandomState(5).randint(256, size=(9, 11))
    for target in ([7, 9], [13, 5], [4, 22]):
      # No pixel's centre falls between two of an odd number of pixels.
      plain, flipped = (self.label(rows, [1, 2], [7, 9], target, flip) for flip in (False, True))
      self.assertEqual(np.shape(flipped), tuple(target))
      np.testing.assert_array_equal(flipped, np.fliplr(plain))


class ColorsTest(TestCase):

  YIQ = np.array([[.299, .587, .114], [.596, -.274, -.322], [.211, -.523, .312]])

  def recolored(self, image, brightness=0., contrast=1., saturation=1., hue=0.):
    amounts = map(np.float32, (brightness, contrast, saturation, hue))
    recolored = in_graph(preprocessing.recolor, image, *amounts)
    self.assertEqual((recolored.dtype, recolored.shape), (tf.uint8, image.shape))
    return recolored.numpy()

  def check_within_rounding(self, image, expected):
    expected = np.clip(expected, 0, 255)
    self.assertLess(np.abs(image - expected).max(), .501)

  def setUp(self):
    super().setUp()
    self.image = np.random.RandomState(8).randint(256, size=(7, 11, 3)).astype(np.uint8)

  def test_no_change_keeps_every_value(self):
    every = np.arange(256 * 3).astype(np.uint8).reshape(16, 16, 3)
    for image in (every, self.image):
      np.testing.assert_array_equal(self.recolored(image), image)

  def test_brightness_is_added_and_contrast_multiplies_after_it(self):
    pixels = self.image.astype(float)
    self.check_within_rounding(self.recolored(self.image, -31.6), pixels - 31.6)
    self.check_within_rounding(self.recolored(self.image, 20., 1.4), 1.4 * (pixels + 20))

  def test_saturation_mixes_with_luma(self):
    luma = self.image @ np.array([.299, .587, .114])
    for factor in (0., .5, 1.5):
      self.check_within_rounding(self.recolored(self.image, saturation=factor),
                                 luma[..., None] + factor * (self.image - luma[..., None]))

  def test_hue_turns_colours_about_the_greys(self):
    luma, first, second = np.moveaxis(self.image @ self.YIQ.T, 2, 0)
    turned = (first + 1j * second) * np.exp(.3j)
    expected = np.linalg.solve(self.YIQ, np.stack([luma, turned.real, turned.imag]).reshape(3, -1))
    self.check_within_rounding(self.recolored(self.image, hue=.3), expected.T.reshape(self.image.shape))
    greys = np.arange(256).astype(np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(self.recolored(greys, saturation=1.5, hue=-.3), greys)

  def test_colours_are_drawn_as_ssd_draws_them(self):
    draws = [[value.numpy() for value in colors] for colors in tf.data.Dataset.range(1000).map(
        lambda position: preprocessing.random_colors(tf.stack([tf.constant(3, tf.int64), position])))]
    draws = (np.float64(draws) - [0, 1, 1, 0]) / [32, .5, .5, np.radians(18)]
    changed = draws != 0
    np.testing.assert_allclose(changed.mean(0), .5, atol=3.5 * .5 / 1000 ** .5)
    self.assertLess(np.abs(np.corrcoef(changed.T) - np.eye(4)).max(), .12)
    for values in draws.T:
      values = values[values != 0]
      self.assertLess(np.abs(values).max(), 1)
      self.assertLess(abs(values.mean()), .09)
      self.assertAlmostEqual(values.std(), 3 ** -.5, delta=.04)  # of a uniform distribution

  def test_streams_of_a_seed_are_others(self):
    seed = tf.constant([2 ** 31 - 1, 5], tf.int64)
    draws = [tf.random.stateless_uniform([4], one).numpy().tolist()
             for one in (seed, preprocessing.stream(seed, 1), preprocessing.stream(seed, 2), seed + [1, 0])]
    self.assertEqual(len({tuple(draw) for draw in draws}), 4)
    self.assertEqual(preprocessing.stream(seed, 1).numpy().tolist(), [2 ** 31 - 1 + 2 ** 32, 5])


class PadTest(TestCase):

  def padded(self, image, crop_size, colour):
    padded = in_graph(lambda image: preprocessing.pad(image, crop_size, colour), image)
    self.assertEqual(padded.dtype, tf.uint8)
    return padded.numpy()

  def test_right_and_bottom_take_the_colour(self):
    image = np.random.RandomState(6).randint(256, size=(3, 5, 3)).astype(np.uint8)
    for crop_size in ((3, 5), (4, 5), (3, 9), (7, 6)):
      padded = self.padded(image, crop_size, (124, 117, 104))
      self.assertEqual(padded.shape, (*crop_size, 3))
      np.testing.assert_array_equal(padded[:3, :5], image)
      for part in (padded[3:], padded[:, 5:]):
        np.testing.assert_array_equal(part, np.broadcast_to([124, 117, 104], part.shape))

  def test_label_takes_ignore_label(self):
    padded = self.padded(np.uint8([[[1], [2]]]), (2, 3), (255,))
    self.assertEqual(padded[:, :, 0].tolist(), [[1, 2, 255], [255, 255, 255]])
