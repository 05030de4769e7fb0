"""model_config.json: what train.py leaves in model_dir so that no later command repeats it.

evaluate.py, inference.py and export_inference_graph.py read the architecture and the dataset from it. A flag
given explicitly wins if the weights allow it (output stride) and is an error if they do not (backbone,
classes). A folder without the file, such as one of the original scripts, falls back to the flags.
"""
import argparse
import dataclasses
import os
import platform
import typing

import numpy as np
import tensorflow.compat.v1 as tf

from commands import flags
from dataset import descriptors
from nets import backbones
from nets.architecture import GEOMETRY, Architecture, problem
from training import checkpoints, history
from utils import files
from utils.errors import DataError, UsageError

FILE_NAME = 'model_config.json'
_FORMAT = 1
_OF_DECODER = 'decoder_channels decoder_convs decoder_filters decoder_kernel decoder_output_stride'


class Stored(typing.NamedTuple):
  """What model_config.json holds; training/history.py describes the history."""
  architecture: Architecture
  dataset: descriptors.Dataset
  history: list[history.Entry]


def write(model_dir: str, architecture: Architecture, dataset: descriptors.Dataset,
          flags: dict[str, typing.Any], past: typing.Iterable[history.Entry] = ()) -> None:
  """Writes model_config.json into an existing folder; `flags` are all of the run."""
  config = {
      'format': _FORMAT,
      'architecture': dataclasses.asdict(architecture),
      'dataset': descriptors.to_json(dataset),
      'flags': flags,
      'history': list(past),
      'versions': {'python': platform.python_version(), 'tensorflow': tf.__version__,
                   'numpy': np.__version__},
  }
  files.write_json(os.path.join(model_dir, FILE_NAME), config)


def read(model_dir: str) -> Stored | None:
  """Returns the Stored of a model_dir, or None if it has none.

  Raises:
    DataError: the file cannot be read or lacks a key.
  """
  path = os.path.join(model_dir, FILE_NAME)
  if not os.path.exists(path):
    return None
  try:
    config = files.read_json(path, path, None)
    architecture = Architecture.from_dict(config['architecture'])
    past = history.read(config)
  except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
    raise DataError(f'{path} cannot be used ({error!r}); restore it from a backup, or remove it and '
                    f'give --base_architecture and --dataset') from error
  dataset = descriptors.from_json(config.get('dataset'), path)
  wrong = problem(architecture) or (
      architecture.num_classes != dataset.num_classes and
      f'num_classes {architecture.num_classes} differs from the {dataset.num_classes} class_names')
  if wrong:
    raise DataError(f'{path} cannot be used: {wrong}; restore it from a backup')
  return Stored(architecture, dataset, past)


def resolve(args: argparse.Namespace, stored: Stored | None) -> tuple[Architecture, descriptors.Dataset]:
  """Returns the (Architecture, Dataset) that flags and a stored model ask for together.

  Args:
    args: of flags.MODEL_FLAGS at least, with `explicit`.

  Raises:
    UsageError: a flag given explicitly contradicts what the stored weights are, or no model can be so.
  """
  if stored is None:
    dataset = descriptors.get_dataset(args.dataset)
    architecture = Architecture.from_dict({**vars(args), 'num_classes': dataset.num_classes})
    check(architecture)
    decodes = backbones.get(args.base_architecture).decoder if args.decoder is None else args.decoder
    flags.refuse_idle(args, (_OF_DECODER, decodes, 'without a decoder (--decoder off)'))
    return architecture, dataset
  architecture, dataset, _ = stored
  if 'dataset' in args.explicit:
    given = descriptors.get_dataset(args.dataset)
    if given.num_classes != dataset.num_classes:
      raise _contradiction(args, 'dataset', f'{dataset.name} with {dataset.num_classes} classes',
                           f'{given.name} with {given.num_classes} classes')
    if given.class_names != dataset.class_names:
      number, before, now = descriptors.first_difference(dataset.class_names, given.class_names)
      raise _contradiction(args, 'dataset', f"{dataset.name}, whose class {number} is '{before}'",
                           f"{given.name}, whose class {number} is '{now}'")
    dataset = given
  for field in dataclasses.fields(Architecture):
    if field.name in args.explicit:
      architecture = _with_flag(architecture, field.name, args)
  check(architecture)
  return architecture, dataset


def weights(args: argparse.Namespace, prefix: str) -> str:
  """Returns raw or ema: what --weights says, and else that by which a checkpoint in best was chosen."""
  return args.weights if 'weights' in args.explicit else checkpoints.weights_of(prefix)


def check(architecture: Architecture) -> None:
  """Raises UsageError, naming the flag, if no model can be built so."""
  if architecture.atrous_rates and len(architecture.atrous_rates) != 3:
    raise UsageError(f'--atrous_rates has {len(architecture.atrous_rates)} rates; give three, or none at all')
  strides = architecture.decoder_output_stride
  if list(strides) != sorted(set(strides), reverse=True):
    raise UsageError(f'--decoder_output_stride {" ".join(map(str, strides))} does not fall; '
                     f'give different strides, the largest first')
  if architecture.multi_grid and architecture.base_architecture.startswith('mobilenet'):
    raise UsageError(f'--multi_grid does not apply to {architecture.base_architecture}, whose last units are '
                     f'not dilated; leave it out')


def check_views(args: argparse.Namespace, stored: Stored | None) -> None:
  """Refuses flags.VIEW_FLAGS that change nothing, and warns of those that the training speaks against."""
  flags.refuse_idle(args, ('overlap', args.sliding_window, 'without --sliding_window'))
  if args.flip and stored and stored.history and stored.history[-1]['flags'].get('flip') is False:
    print(f'Warning: --flip averages with the mirrored image, but the model in {args.model_dir} was trained '
          'with --flip off, as where left and right differ; leave it out')


def _with_flag(architecture, name, args):
  """Returns the stored architecture with a flag's value, if the weights allow it."""
  stored, given = getattr(architecture, name), getattr(args, name)
  given = tuple(given) if isinstance(given, list) else given
  if stored == given:
    return architecture
  if name not in GEOMETRY:
    raise _contradiction(args, name, stored, given)
  print(f'{name}: {given} (the model was trained with {stored})')
  return dataclasses.replace(architecture, **{name: given})


def _contradiction(args, flag, stored, given):
  return UsageError(f'--{flag} is {given}, but the model in {args.model_dir} is {stored} '
                    f'({FILE_NAME}); leave the flag out, or give another --model_dir')
