"""Unpacks and recognises a published checkpoint, and writes a model folder (tools/convert_checkpoint.py)."""
import collections
import os
import re
import shutil
import tarfile
import tempfile
import zlib

import tensorflow.compat.v1 as tf

import deeplab_model
from commands import model_config
from dataset import descriptors
from nets import backbones
from nets.architecture import Architecture
from training import checkpoint_store, checkpoints, locks
from utils import devices, failures, files
from utils.errors import DataError, UsageError

# The largest of Google's archives unpacks to 1 GiB.
_MAX_UNPACKED = 8 << 30  # bytes
_MAX_HEADER = 1 << 20    # bytes, of long names and such
# Crop sizes at which Google evaluated its models; the image-level feature depends on them.
_EVAL_CROP_SIZES = {'voc': (513, 513), 'cityscapes': (1025, 2049), 'ade20k': (513, 513)}


def main(args):
  """Converts a checkpoint as the flags say."""
  dataset = descriptors.get_dataset(args.dataset)
  if checkpoint_store.indexes(args.model_dir):
    raise UsageError(f'--model_dir {args.model_dir} holds a checkpoint already; give a new folder')
  with tempfile.TemporaryDirectory() as scratch:
    prefix = checkpoints.resolve(unpacked(args.checkpoint, scratch))
    stored = checkpoints.shapes(prefix)
    if any(re.search('(act|weights)_quant', name) for name in stored):
      raise DataError(f'{prefix} is a quantized 8-bit model, which cannot be converted; convert another')
    architecture = recognized(prefix, stored, args, dataset)
    convert(prefix, stored, architecture, dataset, args)


class _Member(tarfile.TarInfo):
  """A header of an archive; one whose own data would fill the memory is refused before they are read."""

  @classmethod
  def frombuf(cls, *args, **kwargs):
    member = super().frombuf(*args, **kwargs)
    if member.size < 0 or not member.isreg() and member.size > _MAX_HEADER:
      raise tarfile.ReadError(f'a header says {member.size:,} bytes')
    return member


def unpacked(path, scratch):
  """Returns the path itself, or the folder of the checkpoint in a .tar.gz archive, unpacked to `scratch`.

  Only regular files come out of it, by the last part of their names: nothing is written outside `scratch`.

  Raises:
    DataError: the archive is damaged, holds no checkpoint, or unpacks to more than any checkpoint.
  """
  if not (os.path.isfile(path) and path.endswith(('.tar', '.tar.gz', '.tgz', '.tar.bz2'))):
    return path
  total = 0
  try:
    with tarfile.open(path, tarinfo=_Member) as archive:
      for member in archive:
        total += member.size
        if member.size < 0:  # by an extended header; the position would go back
          raise tarfile.ReadError(f'a header says {member.size:,} bytes')
        if total > _MAX_UNPACKED:
          raise DataError(f'{path} unpacks to more than {_MAX_UNPACKED >> 30} GiB, which is no checkpoint of '
                          'a DeepLab; give another')
        name = os.path.basename(member.name)
        if member.isreg() and '.ckpt' in name:
          with archive.extractfile(member) as source, open(os.path.join(scratch, name), 'wb') as target:
            shutil.copyfileobj(source, target)
  except (EOFError, OSError, ValueError, RecursionError, tarfile.TarError, zlib.error) as error:
    if isinstance(error, DataError) or failures.is_full_disk(error):
      raise
    raise DataError(f'{path} cannot be unpacked: it is damaged, or no archive; download it again') from error
  if not os.listdir(scratch):
    raise DataError(f'{path} holds no checkpoint (no file named *.ckpt*); it may be a frozen graph alone')
  return scratch


def recognized(prefix, stored, args, dataset):
  """Returns the Architecture that a checkpoint's variables (dict of name to shape) make up."""
  row = _backbone(prefix, stored)
  num_classes = checkpoints.class_count(stored)
  if num_classes and num_classes != dataset.num_classes:
    raise UsageError(f'{prefix} tells {num_classes} classes apart, but --dataset {dataset.name} has '
                     f'{dataset.num_classes}; give a descriptor of {num_classes} class names')
  base = dict(base_architecture=row.name, num_classes=dataset.num_classes, output_stride=args.output_stride)
  if num_classes is None:
    return Architecture(**base)  # an ImageNet checkpoint; the head is the published one's
  official = 'concat_projection/weights' in stored
  first = checkpoints.official_name if official else str
  first = first('decoder/low_level_features/conv_1x1/weights')
  atrous = 'aspp1' if official else 'aspp/conv_3x3_1'
  return Architecture(
      **base,
      atrous_rates=None if any(name.startswith(atrous) for name in stored) else (),
      image_level_feature=any('image_pooling/' in n or 'image_level_features/' in n for n in stored),
      separable_head=any(re.match('(aspp|decoder).*/depthwise_weights$', name) for name in stored),
      decoder=first in stored,
      decoder_channels=stored[first][-1] if first in stored else Architecture.decoder_channels,
      eval_crop_size=tuple(args.eval_crop_size) if args.eval_crop_size
      else _EVAL_CROP_SIZES.get(dataset.name) if official else None)


def _backbone(prefix, stored):
  rows = [row for row in backbones.BACKBONES.values() if any(n.startswith(row.scope + '/') for n in stored)]
  if row_of_width := [row for row in rows if row.family != 'mobilenet_v2'
                      or stored.get('MobilenetV2/Conv/weights', [0])[-1] == round(32 * row.depth_multiplier)]:
    return row_of_width[0]
  scopes = sorted({name.split('/')[0] for name in stored})
  raise DataError(f'{prefix} is no model that is known here; its variables lie in the scopes '
                  f'{", ".join(scopes[:8])}, and known are {", ".join(backbones.names())}')


def convert(prefix, stored, architecture, dataset, args):
  """Writes the model folder, and prints what became of every variable."""
  what = checkpoint_store.problem(prefix)
  if what:
    raise DataError(f'--checkpoint {prefix} {what}; copy or download it again')
  with devices.cpu_session() as session:
    deeplab_model.network(tf.placeholder(tf.float32, [1, 65, 65, 3]), architecture, is_training=False)
    tf.train.get_or_create_global_step()
    variables = {v.op.name: v for v in tf.global_variables() if v.op.name != 'global_step'}
    names = checkpoints.stored_names(variables, stored)
    missing = [name for name in variables if names[name] not in stored]
    trained_head = checkpoints.class_count(stored) is not None
    scope = backbones.get(architecture.base_architecture).scope + '/'
    if wrong := [name for name in missing if trained_head or name.startswith(scope)]:
      raise DataError(f'{prefix} looks like {architecture.base_architecture}, but lacks {names[wrong[0]]} '
                      f'({len(wrong)} such in all); nothing was written')
    if wrong := [name for name, v in variables.items()
                 if name not in missing and stored[names[name]] != v.shape.as_list()]:
      raise DataError(f'{prefix} looks like {architecture.base_architecture}, but its {names[wrong[0]]} is '
                      f'{stored[names[wrong[0]]]} and not {variables[wrong[0]].shape.as_list()}; '
                      f'nothing was written')
    tf.train.init_from_checkpoint(checkpoint_store.readable(prefix),
                                  {names[n]: v for n, v in variables.items() if n not in missing})
    session.run(tf.global_variables_initializer())
    files.make_folder(args.model_dir, '--model_dir')
    with locks.locked(args.model_dir):
      model_config.write(args.model_dir, architecture, dataset, {'converted_from': os.path.basename(prefix)})
      checkpoint_store.save(tf.train.Saver(), session, args.model_dir, step=0, keep_max=0)
  print(f'{args.model_dir}: {architecture}')
  print(f'mapped: {len(variables) - len(missing)} variables')
  kinds = collections.Counter(name.rpartition('/')[2] for name in set(stored) - set(names.values()))
  if kinds:
    print('left out, as no part of the model: '
          + ', '.join(f'{count} named {kind}' for kind, count in sorted(kinds.items())))
  if missing:
    print(f'new, to be trained: {len(missing)} variables of the head')
