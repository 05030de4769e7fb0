"""Draws a sample dataset in PASCAL VOC's layout, to try the scripts on without a download.

  python dataset/make_sample_data.py --output_dir build/sample

Every scene shows a few padded toys on a blurred background, photographed with uneven light, noise and
JPEG artefacts. A toy's class is its shape with the pattern printed on it. Colours come from one
distribution for all classes and the background, so colour tells nothing about the class. Writes
JPEGImages/, SegmentationClassAug/ (palette PNG, 255 = void, as in VOC), train.txt, val.txt and the
descriptor sample.json for --dataset.
"""
import colorsys
import math
import os
import shutil
import sys
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from cli import flags
from dataset import descriptors
from utils import files, visualization
from utils.errors import DataError, UsageError

NAME = 'sample'
IGNORE_LABEL = 255
IMAGE_DIR = 'JPEGImages'
LABEL_DIR = 'SegmentationClassAug'
DESCRIPTOR = NAME + '.json'
SPLITS = ('train', 'val')
MIN_SIDE = 64  # in a smaller scene the prints are too fine to be told apart


@dataclass(frozen=True)
class Toy:
  """What makes a class: its look, and its colour in label images.

  Attributes:
    name: str.
    colour: (r, g, b) in the palette.
    corners: int, corners that lie on the unit circle.
    waist: float, distance from the centre of the points halfway between two corners.
    pattern: function of (x, y), float32 [H, W] in periods -> float32 [H, W], the print's level:
      positive where the ink is. Any scale or mirror image of it is still the same pattern.
  """
  name: str
  colour: tuple
  corners: int
  waist: float
  pattern: callable


def _wave(x):
  return np.sin(2 * np.pi * x)


# Dots and checks are laid wider than stripes, for they lose more of their look when a scene is reduced.
TOYS = (
    Toy('disk', (214, 69, 65), 32, 1.0, lambda x, y: _wave(0.85 * x) + _wave(0.85 * y) - 0.8),
    Toy('diamond', (38, 139, 210), 4, 0.71, lambda x, y: _wave(0.8 * x) * _wave(0.8 * y)),
    Toy('triangle', (133, 173, 0), 3, 0.5, lambda x, y: _wave(y)),
    Toy('star', (203, 145, 20), 5, 0.58, lambda x, y: _wave(x)),
)


def dataset(num_train, num_val):
  """Returns the Dataset record of a sample with so many scenes."""
  return descriptors.Dataset(
      name=NAME,
      class_names=('background', *(toy.name for toy in TOYS)),
      palette=((0, 0, 0), *(toy.colour for toy in TOYS)),
      ignore_label=IGNORE_LABEL,
      splits=dict(zip(SPLITS, (num_train, num_val), strict=True)))


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('output_dir', 'build/sample', 'folder to write; an earlier sample there is replaced',
              metavar='DIR')
  parser.flag('num_train', 240, 'scenes to train on', type=flags.positive_int, metavar='N')
  parser.flag('num_val', 48, 'held-out scenes', type=flags.positive_int, metavar='N')
  parser.flag('size', (120, 160), f'height and width of a scene, {MIN_SIDE} or more',
              type=flags.positive_int, nargs=2, metavar=('H', 'W'))
  parser.flag('seed', 0, 'the same seed draws the same scenes', type=flags.non_negative_int,
              metavar='N')
  return parser


def main(args):
  if min(args.size) < MIN_SIDE:
    raise UsageError(f'--size {args.size[0]} {args.size[1]} is too small; '
                     f'give {MIN_SIDE} pixels or more for both')
  write_dataset(args.output_dir, dataset(args.num_train, args.num_val), args.size, args.seed)
  print(f'{args.num_train} training and {args.num_val} held-out scenes in {args.output_dir}')
  print(f'descriptor: {os.path.join(args.output_dir, DESCRIPTOR)}')


# --- Files ---------------------------------------------------------------------------------------


def write_dataset(output_dir, sample, size, seed):
  """Writes the whole dataset, or nothing.

  Args:
    output_dir: str; must not exist, or be empty, or hold an earlier sample, which is replaced.
    sample: Dataset; its splits say how many scenes are drawn.
    size: (H, W) of a scene.
    seed: int; scene i of a split depends on it, the split and i alone.

  Raises:
    UsageError: output_dir holds something else.
    DataError: output_dir cannot be written.
  """
  output_dir = os.path.realpath(output_dir)
  _check_replaceable(output_dir)
  temporary, earlier = f'{output_dir}.{os.getpid()}.tmp', f'{output_dir}.{os.getpid()}.old.tmp'
  try:
    _write_files(temporary, sample, size, seed)
    if os.path.exists(output_dir):
      os.rename(output_dir, earlier)  # which a mount point, for one, does not allow
    os.rename(temporary, output_dir)
  except OSError as error:
    if os.path.exists(earlier):
      os.rename(earlier, output_dir)
    raise DataError(f'--output_dir {output_dir} cannot be written ({error.strerror}); '
                    'give a folder of your own') from error
  finally:
    for folder in (temporary, earlier):
      shutil.rmtree(folder, ignore_errors=True)


def _check_replaceable(output_dir):
  if not os.path.exists(output_dir):
    return
  if not os.path.isdir(output_dir):
    raise UsageError(f'--output_dir {output_dir} is a file; give a folder')
  own = _own_files(output_dir)
  for folder, folders, names in os.walk(output_dir):
    found = {os.path.relpath(os.path.join(folder, name), output_dir) for name in folders + names}
    foreign = sorted(found - own)
    if foreign:
      raise UsageError(f'--output_dir {output_dir} holds {foreign[0]}, which is not of an earlier '
                       'sample; give a new folder, or remove that one')


def _own_files(folder):
  """Returns the relative paths that the sample in `folder` consists of, none if it holds no sample."""
  try:
    if files.read_json(os.path.join(folder, DESCRIPTOR), DESCRIPTOR)['name'] != NAME:
      return set()
    own = {DESCRIPTOR, IMAGE_DIR, LABEL_DIR}
    for split in SPLITS:
      own.add(split + '.txt')
      for name in files.read_text(os.path.join(folder, split + '.txt'), split).split():
        own |= {f'{IMAGE_DIR}/{name}.jpg', f'{LABEL_DIR}/{name}.png'}
    return own
  except (OSError, ValueError, KeyError, TypeError):
    return set()


def _write_files(folder, sample, size, seed):
  os.makedirs(os.path.join(folder, IMAGE_DIR))
  os.makedirs(os.path.join(folder, LABEL_DIR))
  for number, (split, count) in enumerate(sample.splits.items()):
    names = [f'{split}_{i:04d}' for i in range(count)]
    for i, name in enumerate(names):
      rng = np.random.default_rng((seed, number, i))
      image, label = draw_scene(rng, size)
      Image.fromarray(image).save(os.path.join(folder, IMAGE_DIR, name + '.jpg'),
                                  quality=int(rng.integers(80, 96)))
      visualization.save_mask(os.path.join(folder, LABEL_DIR, name + '.png'), label, sample.palette,
                              sample.ignore_label)
    with open(os.path.join(folder, split + '.txt'), 'w') as file:
      file.write(''.join(name + '\n' for name in names))
  files.write_json(os.path.join(folder, DESCRIPTOR), descriptors.to_json(sample))


# --- Scenes --------------------------------------------------------------------------------------
#
# All drawing is in float32 RGB, 0..1. H, W: a scene's height and width.


@dataclass(frozen=True)
class Pose:
  """Where a toy lies: centre (x, y) and radius in pixels, angle in radians."""
  centre: tuple
  radius: float
  angle: float


def draw_scene(rng, size):
  """Draws one scene.

  Args:
    rng: numpy Generator.
    size: (H, W), MIN_SIDE or more each.

  Returns:
    image: uint8 [H, W, 3], RGB.
    label: uint8 [H, W], 0 = background, 1.. = TOYS in order, 255 = the border of a toy.
  """
  light = np.float32([rng.choice((-0.7, 0.7)), -0.7])  # (x, y) towards the lamp
  scene = _background(rng, size)
  label = np.zeros(size, np.uint8)
  border = np.zeros(size, bool)
  for pose in _poses(rng, size):
    number = int(rng.integers(len(TOYS)))
    coverage = _coverage(TOYS[number], pose, size)
    inside = coverage > 0.5
    _cast_shadow(scene, coverage, pose, light)
    surface = _printed(rng, TOYS[number].pattern, pose, size) * _relief(inside, pose, light)
    scene += coverage[..., None] * (surface - scene)
    label[inside] = number + 1
    border = (border & ~inside) | _border(inside)
  label[border] = IGNORE_LABEL
  return _photograph(rng, scene), label


def _poses(rng, size):
  """Returns a list of three to five poses that may overlap, but never so far that one hides another."""
  height, width = size
  poses = []
  count = rng.integers(3, 6)
  for _ in range(200):  # tries; the last toys are left out if there is no room
    pose = Pose(centre=(rng.uniform(0.1, 0.9) * width, rng.uniform(0.14, 0.86) * height),
                radius=rng.uniform(0.15, 0.26) * min(size), angle=rng.uniform(-0.12, 0.12))
    if all(np.hypot(pose.centre[0] - other.centre[0], pose.centre[1] - other.centre[1])
           > 0.75 * (pose.radius + other.radius) for other in poses):
      poses.append(pose)
    if len(poses) == count:
      break
  return poses


def _coverage(toy, pose, size):
  """Returns float32 [H, W], the part of each pixel that the toy covers, 0..1."""
  fine = 4  # drawn at so many times the size, then averaged down
  turns = np.pi * np.arange(2 * toy.corners) / toy.corners + pose.angle
  reach = np.where(np.arange(2 * toy.corners) % 2, toy.waist, 1.0)
  # All toys of one radius have the disk's area, or the stars would be hard to come by.
  reach *= math.sqrt(math.pi / (toy.corners * toy.waist * math.sin(math.pi / toy.corners)))
  # The corners are rounded by a thick outline, so the polygon itself keeps clear of the radius.
  rounding = 0.12 * pose.radius
  points = (reach * (pose.radius - rounding))[:, None] * np.stack([np.sin(turns), -np.cos(turns)], 1)
  points = np.int32(np.round((points + pose.centre) * fine))[None]
  canvas = np.zeros((size[0] * fine, size[1] * fine), np.uint8)
  cv2.fillPoly(canvas, points, 255)
  cv2.polylines(canvas, points, True, 255, round(2 * rounding * fine))
  return np.float32(cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)) / 255


def _printed(rng, pattern, pose, size):
  """Returns float32 [H, W, 3], a two-coloured cloth with the pattern, turned as the toy is."""
  y, x = np.float32(np.mgrid[:size[0], :size[1]])
  x, y = x - pose.centre[0], y - pose.centre[1]
  sine, cosine = math.sin(pose.angle), math.cos(pose.angle)
  period = rng.uniform(0.085, 0.115) * min(size)
  shift = (rng.uniform(), rng.uniform())
  level = pattern((cosine * x + sine * y) / period + shift[0],
                  (cosine * y - sine * x) / period + shift[1])
  ink = np.clip(0.5 + 1.5 * level, 0, 1)[..., None]  # the slope keeps the edges soft
  dark, light = _dark_and_light(rng, rng.uniform())
  return light + (dark - light) * ink


def _dark_and_light(rng, hue):
  """Returns float32 [2, 3], a dark and a light colour in random order; there are no others."""
  hues = rng.normal(hue, 0.12, size=2) % 1
  return rng.permutation(np.float32([
      colorsys.hsv_to_rgb(hues[0], rng.uniform(0.35, 0.85), rng.uniform(0.2, 0.5)),
      colorsys.hsv_to_rgb(hues[1], rng.uniform(0.1, 0.6), rng.uniform(0.75, 1.0))]))


def _relief(inside, pose, light):
  """Returns float32 [H, W, 1], the light that each pixel of a padded toy sends back, about 1."""
  depth = cv2.distanceTransform(np.uint8(inside), cv2.DIST_L2, 5) / (0.5 * pose.radius)
  height = np.sqrt(1 - np.square(1 - np.minimum(depth, 1)))
  height = cv2.GaussianBlur(height, (0, 0), 0.08 * pose.radius)
  slope_y, slope_x = np.gradient(height * pose.radius)
  return (1.05 - 0.3 * np.clip(slope_x * light[0] + slope_y * light[1], -1.5, 1.5))[..., None]


def _cast_shadow(scene, coverage, pose, light):
  """Darkens `scene`, float32 [H, W, 3], in place, away from the lamp."""
  shift = np.float32([[1, 0, -0.2 * pose.radius * light[0]], [0, 1, -0.2 * pose.radius * light[1]]])
  shadow = cv2.warpAffine(coverage, shift, coverage.shape[::-1])
  scene *= 1 - 0.55 * cv2.GaussianBlur(shadow, (0, 0), 0.12 * pose.radius)[..., None]


def _border(inside):
  """Returns bool [H, W], True on the two pixels about the edge of bool [H, W] `inside`."""
  return cv2.morphologyEx(np.uint8(inside), cv2.MORPH_GRADIENT, np.ones([3, 3], np.uint8)) > 0


def _background(rng, size):
  """Returns float32 [H, W, 3], things out of focus: blotches of colour and blurred silhouettes."""
  hue = rng.uniform()
  blotches = [_dark_and_light(rng, hue)[0] for _ in range(20)]
  scene = cv2.resize(np.reshape(blotches, [4, 5, 3]), size[::-1], interpolation=cv2.INTER_CUBIC)
  for _ in range(rng.integers(3, 7)):
    pose = Pose(rng.uniform(size=2) * size[::-1], rng.uniform(0.1, 0.35) * min(size),
                rng.uniform(0, 2 * np.pi))
    shape = _coverage(TOYS[rng.integers(len(TOYS))], pose, size)
    shape = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.01, 0.04) * min(size))
    scene += rng.uniform(0.3, 0.8) * shape[..., None] * (_dark_and_light(rng, hue)[0] - scene)
  return np.clip(scene, 0, 1)


def _photograph(rng, scene):
  """Returns uint8 [H, W, 3]: `scene` under uneven light through a soft lens and a noisy sensor."""
  height, width = scene.shape[:2]
  y, x = np.float32(np.mgrid[-1:1:height * 1j, -1:1:width * 1j])
  tilt = 1 + rng.uniform(-0.2, 0.2) * x + rng.uniform(-0.2, 0.2) * y
  exposure = rng.uniform(0.85, 1.1) * tilt * (1 - 0.12 * (x * x + y * y))
  white_balance = np.float32(rng.uniform(0.94, 1.06, size=3))
  photo = scene * exposure[..., None] * white_balance
  photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.4, 0.8))
  # Read-out noise, and shot noise that grows with the root of the light.
  grain = np.sqrt(0.0001 + 0.0006 * np.maximum(photo, 0))
  photo += grain * rng.standard_normal(photo.shape, np.float32)
  return np.uint8(np.round(np.clip(photo, 0, 1) * 255))


if __name__ == '__main__':
  flags.run(main, make_parser())
