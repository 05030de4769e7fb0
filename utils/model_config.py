"""model_config.json: what train.py leaves in model_dir so that no later command repeats it.

evaluate.py, inference.py and export_inference_graph.py read the architecture and the dataset from it. A flag
given explicitly wins where the weights allow it (output stride) and is an error where they do not (backbone,
classes). A folder without the file, such as one of the original scripts, falls back to the flags.
"""
import dataclasses
import json
import os
import platform
from importlib import metadata

from utils import datasets, files
from utils.architecture import Architecture
from utils.errors import DataError, UsageError

FILE_NAME = 'model_config.json'
_FORMAT = 1


def write(model_dir, architecture, dataset, flags):
  """Writes model_config.json.

  Args:
    model_dir: str, an existing folder.
    architecture: Architecture.
    dataset: datasets.Dataset.
    flags: dict of every flag of the run.
  """
  config = {
      'format': _FORMAT,
      'architecture': dataclasses.asdict(architecture),
      'dataset': datasets.to_json(dataset),
      'flags': flags,
      'versions': {'python': platform.python_version(),
                   **{name: _version(name) for name in ('tensorflow', 'numpy')}},
  }
  with files.replacing(os.path.join(model_dir, FILE_NAME)) as temporary:
    with open(temporary, 'w', encoding='utf-8') as file:
      json.dump(config, file, indent=2, sort_keys=True)
      file.write('\n')


def read(model_dir):
  """Returns the stored (Architecture, Dataset) of a model_dir, or None where it has none.

  Raises:
    DataError: the file cannot be read or lacks a key.
  """
  path = os.path.join(model_dir, FILE_NAME)
  if not os.path.exists(path):
    return None
  try:
    with open(path, encoding='utf-8') as file:
      config = json.load(file)
    architecture = Architecture(**config['architecture'])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise DataError(f'{path} cannot be used ({error!r}); restore it from a backup, or remove it and '
                    f'give --base_architecture and --dataset') from error
  return architecture, datasets.from_json(config['dataset'], path)


def resolve(args, stored):
  """Returns the (Architecture, Dataset) that flags and a stored model ask for together.

  Args:
    args: the parsed flags: model_dir, base_architecture, output_stride, dataset and `explicit`.
    stored: what `read` returned.

  Raises:
    UsageError: a flag given explicitly contradicts what the stored weights are.
  """
  if stored is None:
    dataset = datasets.get_dataset(args.dataset)
    return Architecture(args.base_architecture, dataset.num_classes, args.output_stride), dataset
  architecture, dataset = stored
  _check_same(args, 'base_architecture', architecture.base_architecture, args.base_architecture)
  if 'dataset' in args.explicit:
    given = datasets.get_dataset(args.dataset)
    _check_same(args, 'dataset', f'{dataset.name} with {dataset.num_classes} classes',
                f'{given.name} with {given.num_classes} classes',
                same=given.num_classes == dataset.num_classes)
    dataset = given
  if 'output_stride' in args.explicit and args.output_stride != architecture.output_stride:
    print(f'output stride: {args.output_stride} (trained at {architecture.output_stride})')
    architecture = dataclasses.replace(architecture, output_stride=args.output_stride)
  return architecture, dataset


def _check_same(args, flag, stored, given, same=None):
  same = stored == given if same is None else same
  if flag in args.explicit and not same:
    raise UsageError(f'--{flag} is {given}, but the model in {args.model_dir} is {stored} '
                     f'({FILE_NAME}); leave the flag out, or give another --model_dir')


def _version(package):
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:  # such as tensorflow-cpu, which goes by its own name
    return 'unknown'
