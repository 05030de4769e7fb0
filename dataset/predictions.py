"""Predicted label maps as files: plain index PNGs, or what the test server of a benchmark takes.

Submissions follow the official tools: the development kit of PASCAL VOC 2012 (VOCopts.seg.clsrespath) and
cityscapesScripts (getPrediction in evaluation/evalPixelLevelSemanticLabeling.py).
"""
import os
import re

import numpy as np

from dataset import descriptors
from utils import visualization
from utils.errors import DataError, UsageError


def check_submission(submission, dataset):
  """Raises UsageError if a model has not as many classes as the benchmark.

  Args:
    submission: 'voc', 'cityscapes' or None.
    dataset: Dataset of the model.
  """
  if submission is None:
    return
  wanted = descriptors.DATASETS[submission].num_classes
  if dataset.num_classes != wanted:
    raise UsageError(f'--submission {submission} takes predictions of its {wanted} classes, but the model '
                     f"knows the {dataset.num_classes} of '{dataset.name}'; leave the flag out, or give "
                     'the --model_dir of a model of that benchmark')


def output_paths(folder, names, submission, split):
  """Returns the path of each image's prediction, a list.

  Args:
    folder: str, where all of them go.
    names: list of str, the images' paths below their folder, without extension.
    submission: 'voc', 'cityscapes' or None.
    split: str, what the images are of; part of VOC's layout.

  Raises:
    DataError: two images would share a path, or a name is not what the layout asks for.
  """
  names_of = {}
  for name in names:
    path = os.path.join(folder, os.path.normpath(_RELATIVE_PATH[submission](name, split)))
    if path in names_of:
      raise DataError(f"the predictions of two images, '{names_of[path]}' and '{name}', would both be "
                      f'written to {path}; evaluate them with two lists, into two folders')
    names_of[path] = name
  return list(names_of)


def _plain_path(name, split):
  # A name may come from a record, and a record from anywhere.
  if os.path.isabs(name) or os.pardir in name.split(os.sep) or '\0' in name:
    raise DataError(f"image '{name}' lies outside the folder of all images, whose layout the predictions "
                    'copy; give a folder that holds all of them, or write the records from one')
  return name + '.png'


def _voc_path(name, split):
  return f'results/VOC2012/Segmentation/comp6_{split}_cls/{os.path.basename(name)}.png'


def _cityscapes_path(name, split):
  image = re.match(r'[^_]+_\d{6}_\d{6}', os.path.basename(name))  # <city>_<sequence>_<frame>
  if image is None:
    raise DataError(f"image '{name}' is not named as those of Cityscapes, such as "
                    'frankfurt_000000_000294_leftImg8bit; leave --submission out')
  return image.group() + '_pred_labelIds.png'


_RELATIVE_PATH = {None: _plain_path, 'voc': _voc_path, 'cityscapes': _cityscapes_path}


def save(path, classes, dataset, submission):
  """Writes a prediction: a palette PNG of class ids; for Cityscapes a grey one of its label ids.

  Args:
    path: str; its folder is made, and the file written under a temporary name first.
    classes: integer [H, W], 0..K-1.
    dataset: Dataset of the model.
    submission: 'voc', 'cityscapes' or None.
  """
  os.makedirs(os.path.dirname(path), exist_ok=True)
  if submission == 'cityscapes':
    visualization.save(path, np.take(descriptors.CITYSCAPES_LABEL_IDS, classes).astype(np.uint8))
  elif submission == 'voc':
    visualization.save_mask(path, classes, descriptors.voc_palette(256),
                            descriptors.DATASETS['voc'].ignore_label)
  else:
    visualization.save_mask(path, classes, dataset.palette, dataset.ignore_label)
