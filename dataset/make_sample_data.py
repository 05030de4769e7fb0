"""Draws a sample dataset in PASCAL VOC's layout, to try the scripts on without a download.

  python dataset/make_sample_data.py --output_dir build/sample

Every scene shows a few printed toys on a blurred background. A toy's class is its shape with the pattern
printed on it. Colours come from one distribution for all classes and the background, so colour tells
nothing about the class. Writes JPEGImages/, SegmentationClassAug/ (palette PNG, 255 = void, as in VOC),
train.txt, val.txt and the descriptor sample.json for --dataset.
"""
import os
import re
import shutil
import sys

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags
from dataset import descriptors
from utils import files, visualization
from utils.errors import DataError, UsageError

NAME = 'sample'
DESCRIPTOR = NAME + '.json'
_BEGINNING = b'{\n  "name": "sample",'  # of an earlier sample's descriptor
IGNORE_LABEL = 255
MIN_SIDE = 64  # in a smaller scene the prints are too fine to be told apart
_OWN = re.compile(r'sample\.json|(train|val)\.txt|JPEGImages(/(train|val)_\d{4,}\.jpg)?|'
                  r'SegmentationClassAug(/(train|val)_\d{4,}\.png)?')


def _outline(corners, waist):
  """Returns complex [2 * corners], a star of the unit disk's area; waist: how far its inner points reach."""
  reach = np.where(np.arange(2 * corners) % 2, waist, 1)
  reach = reach * np.sqrt(np.pi / (corners * waist * np.sin(np.pi / corners)))
  return -1j * reach * np.exp(1j * np.pi * np.arange(2 * corners) / corners)


# Name, colour in label images, outline, and pattern: a function of points that is positive where ink is. A
# point (x, y) is the complex number z = x + yi. Stripes are laid closer, as they bear being reduced best.
TOYS = (
    ('disk', (214, 69, 65), _outline(32, 1), lambda z: np.sin(0.85 * z.real) + np.sin(0.85 * z.imag) - 0.8),
    ('diamond', (38, 139, 210), _outline(4, 0.71), lambda z: np.sin(0.8 * z.real) * np.sin(0.8 * z.imag)),
    ('triangle', (133, 173, 0), _outline(3, 0.5), lambda z: np.sin(z.imag)),
    ('star', (203, 145, 20), _outline(5, 0.58), lambda z: np.sin(z.real)),
)


def dataset(num_train, num_val):
  """Returns the Dataset record of a sample with so many scenes."""
  names, colours, *_ = zip(*TOYS)
  return descriptors.Dataset(name=NAME, class_names=('background', *names), palette=((0, 0, 0), *colours),
                             ignore_label=IGNORE_LABEL, splits={'train': num_train, 'val': num_val})


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('output_dir', 'build/sample', 'folder to write; an earlier sample there is replaced',
              metavar='DIR')
  parser.flag('num_train', 240, 'scenes to train on', type=flags.positive_int, metavar='N')
  parser.flag('num_val', 48, 'held-out scenes', type=flags.positive_int, metavar='N')
  parser.flag('size', (120, 160), f'height and width of a scene, {MIN_SIDE} or more',
              type=flags.positive_int, nargs=2, metavar=('H', 'W'))
  parser.flag('seed', 0, 'the same seed draws the same scenes', type=flags.non_negative_int, metavar='N')
  return parser


def main(args):
  if min(args.size) < MIN_SIDE:
    raise UsageError(f'--size {args.size[0]} {args.size[1]} is too small; '
                     f'give {MIN_SIDE} pixels or more for both')
  write_dataset(args.output_dir, dataset(args.num_train, args.num_val), args.size, args.seed)
  print(f'{args.num_train} training and {args.num_val} held-out scenes in {args.output_dir}')
  print(f'descriptor: {os.path.join(args.output_dir, DESCRIPTOR)}')


def write_dataset(output_dir, sample, size, seed):
  """Writes the whole dataset, or nothing.

  Args:
    output_dir: str; must not exist, or be empty, or hold an earlier sample, which is replaced.
    sample: Dataset; its splits say how many scenes are drawn.
    size: (H, W) of a scene.
    seed: int; scene i of a split depends on it, the split and i alone.

  Raises UsageError if output_dir holds something else, DataError if it cannot be written.
  """
  output_dir = os.path.realpath(output_dir)
  if os.path.exists(output_dir) and not os.path.isdir(output_dir):
    raise UsageError(f'--output_dir {output_dir} is a file; give a folder')
  path = os.path.join(output_dir, DESCRIPTOR)
  is_sample = os.path.isfile(path) and files.read_bytes(path, DESCRIPTOR, None).startswith(_BEGINNING)
  found = [os.path.relpath(os.path.join(folder, name), output_dir)
           for folder, folders, names in os.walk(output_dir) for name in folders + names]
  foreign = sorted(name for name in found if not (is_sample and _OWN.fullmatch(name)))
  if foreign:
    raise UsageError(f'--output_dir {output_dir} holds {foreign[0]}, which is not of an earlier sample; '
                     'give a new folder, or remove that one')
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


def _write_files(folder, sample, size, seed):
  for part in ('JPEGImages', 'SegmentationClassAug'):
    os.makedirs(f'{folder}/{part}')
  for number, (split, count) in enumerate(sample.splits.items()):
    with open(f'{folder}/{split}.txt', 'w') as file:
      for i in range(count):
        name, rng = f'{split}_{i:04d}', np.random.default_rng((seed, number, i))
        image, label = draw_scene(rng, size)
        Image.fromarray(image).save(f'{folder}/JPEGImages/{name}.jpg', quality=int(rng.integers(80, 96)))
        visualization.save_mask(f'{folder}/SegmentationClassAug/{name}.png', label, sample.palette,
                                sample.ignore_label)
        file.write(name + '\n')
  files.write_json(f'{folder}/{DESCRIPTOR}', descriptors.to_json(sample))


def draw_scene(rng, size):
  """Draws one scene of a size (H, W), MIN_SIDE or more each, by a numpy Generator.

  Returns:
    image: uint8 [H, W, 3], RGB.
    label: uint8 [H, W], 0 = background, 1.. = TOYS in order, 255 = the border of a toy.
  """
  blotches = np.reshape([_dark_and_light(rng)[0] for _ in range(20)], [4, 5, 3])
  scene = np.clip(cv2.resize(blotches, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
  toys, places, classes, count = np.zeros(size, np.uint8), [], [0], rng.integers(3, 6)
  for _ in range(200):  # tries; the last toys are left out if there is no room
    centre = rng.uniform(0.1, 0.9) * size[1] + 1j * rng.uniform(0.14, 0.86) * size[0]
    radius = rng.uniform(0.15, 0.26) * min(size)
    if len(places) == count or any(abs(centre - other) < 0.75 * (radius + reach) for other, reach in places):
      continue
    places.append((centre, radius))
    classes.append(int(rng.integers(len(TOYS))) + 1)
    coverage, cloth = _toy(rng, TOYS[classes[-1] - 1], centre, radius, size)
    scene *= 1 - 0.4 * cv2.GaussianBlur(coverage, (0, 0), 0.12 * radius)[..., None]  # a shadow all around
    scene += coverage[..., None] * (cloth - scene)
    toys[coverage > 0.5] = len(places)
  label = np.uint8(classes)[toys]
  label[cv2.dilate(toys, np.ones([3, 3])) != cv2.erode(toys, np.ones([3, 3]))] = IGNORE_LABEL
  scene *= np.linspace(*rng.uniform(0.8, 1.1, size=2), size[1])[:, None]  # uneven light
  scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.4, 0.8)) + rng.normal(0, 0.02, scene.shape)
  return np.uint8(np.round(np.clip(scene, 0, 1) * 255)), label


def _toy(rng, toy, centre, radius, size):
  """Returns float [H, W], 0..1, the part of each pixel that a toy covers, and its print, [H, W, 3], RGB."""
  *_, outline, pattern = toy
  turn, period = np.exp(1j * rng.uniform(-0.12, 0.12)), rng.uniform(0.0135, 0.0183) * min(size)
  points = centre + radius * turn * outline
  coverage = np.zeros(size, np.uint8)
  cv2.fillPoly(coverage, np.int32([np.stack([points.real, points.imag], 1) * 16]), 255, cv2.LINE_AA, shift=4)
  y, x = np.mgrid[:size[0], :size[1]]
  ink = pattern((x + 1j * y - centre) / turn / period + rng.uniform(0, 6.3) * (1 + 1j))
  dark, light = _dark_and_light(rng)
  return coverage / 255, light + (dark - light) * np.clip(0.5 + 1.5 * ink, 0, 1)[..., None]


def _dark_and_light(rng):
  """Returns float [2, 3], RGB, a dark and a light colour in random order; there are no others."""
  return rng.permutation([rng.uniform(0, 0.5, size=3), rng.uniform(0.6, 1, size=3)])


if __name__ == '__main__':
  flags.run(main, make_parser())
