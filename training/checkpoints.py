"""Checkpoints: finding them, telling what is in them, and starting a model from one.

Variables are matched by name and shape. A checkpoint that does not fit is refused before any session runs,
with a sentence that says what it holds and what was asked for.
"""
import collections
import glob
import os
import re
import typing

import tensorflow.compat.v1 as tf

from nets.replicas import variable_name
from training import checkpoint_store, validation
from utils import failures, files
from utils.errors import DataError

_CLASSIFIER = re.compile('(decoder/|^)upsampling_logits/conv_1x1/(weights|biases)$|^logits/semantic/')
# Our names of the head's scopes and those of Google's DeepLab; backbones are called the same in both.
_OFFICIAL_SCOPES = (
    (r'^aspp/conv_1x1/', 'aspp0/'),
    (r'^aspp/conv_3x3_(\d)', r'aspp\1'),
    (r'^aspp/image_level_features/conv_1x1/', 'image_pooling/'),
    (r'^aspp/conv_1x1_concat/', 'concat_projection/'),
    (r'^decoder/low_level_features/conv_1x1/', 'decoder/feature_projection0/'),
    (r'^decoder/upsampling_logits/conv_3x3_1_', 'decoder/decoder_conv0_'),
    (r'^decoder/upsampling_logits/conv_3x3_2_', 'decoder/decoder_conv1_'),
    (r'^decoder/upsampling_logits/conv_3x3_(\d)/', r'decoder/decoder_conv0/decoder_conv0_\1/'),
    (r'^(decoder/)?upsampling_logits/conv_1x1/', 'logits/semantic/'),
)
AVERAGE = 'ExponentialMovingAverage'  # ends the names of averaged weights, after that of the variable
_SLOT = re.compile(rf'/(Momentum|Adam(_\d)?|{AVERAGE})$')


def latest_or_error(model_dir: str) -> str:
  """Returns the prefix of model_dir's newest good checkpoint; raises DataError if it has none."""
  if not os.path.isdir(model_dir):
    raise DataError(f'--model_dir {model_dir} is not a folder; give the folder that train.py wrote')
  prefix = checkpoint_store.find(model_dir).prefix
  if prefix is None:
    raise DataError(f'--model_dir {model_dir} holds no checkpoint (*.index); '
                    f'give the folder that train.py wrote, or train first')
  return prefix


def resolve(path: str) -> str:
  """Returns the prefix of the checkpoint that the user's `path` means.

  Args:
    path: a checkpoint's prefix, its .index (.meta, .data-*) file, the single file of the old format
      (as in the TF-Slim archives), or a folder that holds one of these.

  Raises:
    DataError: there is no checkpoint.
  """
  path = re.sub(r'\.(index|meta|data-\d{5}-of-\d{5})$', '', path)
  if os.path.isdir(path):
    old_format = sorted(glob.glob(os.path.join(glob.escape(path), '*.ckpt')))
    found = checkpoint_store.find(path).prefix or (old_format[-1] if old_format else None)
    if found is None:
      raise DataError(f'{path} holds no checkpoint: neither *.index nor *.ckpt is in it')
    return found
  if not (os.path.isfile(path) or os.path.isfile(path + '.index')):
    raise DataError(f'there is no checkpoint {path}; give a prefix, an .index file, the .ckpt file of a '
                    f'TF-Slim archive, or a folder that holds one')
  return path


def shapes(prefix: str) -> dict[str, list[int]]:
  """Returns a dict: variable name -> shape. Raises DataError for an unreadable checkpoint."""
  try:
    return dict(checkpoint_store.open_reader(prefix).get_variable_to_shape_map())
  except Exception as error:  # OpError, IndexError, ValueError, RuntimeError: TensorFlow leaves it open
    reason = failures.first_line(error)
    raise DataError(f'{prefix} is no readable checkpoint ({reason}); copy or download it again') from error


def is_folded(prefix: str) -> bool:
  """Whether batch norm was folded into a checkpoint's convolutions: every moving mean is 0."""
  try:
    reader = checkpoint_store.open_reader(prefix)
    means = [name for name in reader.get_variable_to_shape_map() if name.endswith('/moving_mean')]
    return bool(means) and not any(reader.get_tensor(name).any() for name in means)
  except Exception:  # TensorFlow leaves open which
    return False  # it is damaged, which is said when all of it is read


def describe(variables: dict[str, list[int]]) -> str:
  """Returns a few words on the model of variables, shapes by name; the scope of most is its backbone."""
  scopes = collections.Counter(
      name.split('/')[0] for name in variables
      if not re.match('(aspp|auxiliary|decoder|image_pooling|concat_projection)', name))
  backbone = scopes.most_common(1)[0][0] if scopes else 'nothing'
  num_classes = class_count(variables)
  return backbone + (f' with {num_classes} classes' if num_classes else ' without a DeepLab head')


def class_count(variables: dict[str, list[int]]) -> int | None:
  """Returns the number of classes that variables (shapes by name) tell apart, or None."""
  return next((shape[-1] for name, shape in variables.items() if _CLASSIFIER.search(name)), None)


def official_name(name: str) -> str:
  """Returns what Google's DeepLab calls one of our variables."""
  for ours, official in _OFFICIAL_SCOPES:
    name, count = re.subn(ours, official, name)
    if count:
      break
  return name


def stored_names(wanted: typing.Iterable[str], stored: typing.Container[str]) -> dict[str, str]:
  """Returns dict: our name -> its name in a checkpoint, ours or Google's.

  Args:
    wanted: our names.
    stored: the checkpoint's names.
  """
  official = 'concat_projection/weights' in stored
  return {name: official_name(name) if official else name for name in wanted}


def check(prefix: str, variables: dict[str, list[int]]) -> None:
  """Checks that a checkpoint holds all of a model's variables, in their shapes.

  Args:
    variables: shapes by name, the model's own; neither optimizer slots nor the global step.

  Raises:
    DataError: something is missing or of another shape.
  """
  stored = shapes(prefix)
  wrong = sorted(name for name, shape in variables.items() if stored.get(name) != shape)
  if wrong:
    raise DataError(
        f'{prefix} holds {describe(stored)}, but the flags ask for {describe(variables)} '
        f'({_difference(wrong[0], stored, variables)}, {len(wrong)} such in all); '
        f'check --base_architecture, --dataset and --model_dir')


def initialize(prefix: str, variables: dict[str, tf.Variable], backbone_scope: str) -> None:
  """Makes the initial values of `variables` those of a checkpoint, and prints what came from it.

  The backbone must be there as a whole; the head may be missing (an ImageNet checkpoint) or built in another
  way, and its last layer may be of another number of classes: these start anew. Checkpoints of Google's
  DeepLab are read by their own names. The global step and the optimizer's slots are not taken.

  Args:
    prefix: see resolve.
    variables: the model's own, by name.
    backbone_scope: the scope of the backbone's variables.

  Raises:
    DataError: the checkpoint is not of this backbone.
  """
  stored = shapes(prefix)
  wanted = {name: variable.shape.as_list() for name, variable in variables.items()}
  names = stored_names(wanted, stored)
  fitting = [name for name, shape in wanted.items() if stored.get(names[name]) == shape]
  new = sorted(set(wanted) - set(fitting))
  wrong = [name for name in new if name.startswith(backbone_scope + '/')]
  if wrong:
    raise DataError(
        f'--pre_trained_model {prefix} holds {describe(stored)}, but --base_architecture is '
        f'{backbone_scope} ({_difference(wrong[0], stored, wanted)}, {len(wrong)} such in all); '
        f'give the checkpoint of that backbone, or the --base_architecture of this checkpoint')
  what = checkpoint_store.problem(prefix)
  if what:
    raise DataError(f'--pre_trained_model {prefix} {what}; copy or download it again')
  tf.train.init_from_checkpoint(checkpoint_store.readable(prefix),
                                {names[name]: variables[name] for name in fitting})
  if tf.distribute.get_replica_context().replica_id_in_sync_group != 0:
    return
  is_of_averages = weights_of(prefix) == 'ema'
  print(f'pre-trained model {prefix}' + ', its raw weights, not the averaged ones' * is_of_averages + ':')
  unused = sorted(set(stored) - {names[name] for name in fitting})
  for title, group in (('restored', fitting), ('new', new), ('unused', unused)):
    print(f'  {title}: {len(group)} variables{_by_scope(group)}')
  if class_count(stored) and class_count(stored) != class_count(wanted):
    print(f'  the last layer starts anew: {class_count(stored)} classes became {class_count(wanted)}')


def has_averages(prefix: str) -> bool:
  """Whether a checkpoint holds averaged weights. Raises DataError if it cannot be read."""
  return any(name.endswith('/' + AVERAGE) for name in shapes(prefix))


def weights_of(prefix: str) -> str:
  """Returns the weights, raw or ema, by whose score a checkpoint was chosen as the best; raw elsewhere.

  Raises:
    DataError: the scores beside it cannot be read.
  """
  path = os.path.join(os.path.dirname(prefix), validation.SCORES_NAME)
  if not (os.path.exists(path) and has_averages(prefix)):
    return 'raw'
  scores = files.read_json(path, path)
  is_its = isinstance(scores, dict) and prefix.endswith(f'-{scores.get("step")}')
  # What evaluate.py --json writes under this name says nothing of how it was chosen.
  return 'ema' if is_its and scores.get('weights') == 'ema' and 'confusion_matrix' not in scores else 'raw'


def described(prefix: str, weights: str) -> str:
  """Returns what a script says of a checkpoint of which it uses these weights, raw or ema."""
  return prefix + ', its averaged weights' * (weights == 'ema')


class Restorer(tf.train.Saver):
  """A Saver that checks what it restores, and reads it from a folder of any name.

  The graph's tf.model_variables() have to be in the checkpoint, in their shapes. With the weights ema those
  that have an average there get that: all that was trained, except batch norm's moving averages.

  Raises, when it restores:
    DataError: the checkpoint is not of this model, or holds no averages.
  """

  def __init__(self, *args: typing.Any, weights: str = 'raw', **kwargs: typing.Any) -> None:
    """Args: weights, raw or ema; the others are those of a Saver."""
    self._weights = weights
    super().__init__(*args, **kwargs)

  def restore(self, sess: tf.Session, save_path: str) -> None:
    check(save_path, {variable_name(v): v.shape.as_list() for v in tf.model_variables()})
    if self._weights == 'ema' and not has_averages(save_path):
      raise DataError(f'{save_path} holds no averaged weights, which --weights ema takes and train.py --ema '
                      'keeps; give --weights raw, or a checkpoint of a training with --ema')
    self.read(sess, save_path)

  def read(self, sess: tf.Session, save_path: str) -> None:
    """Restores what the Saver was built for, without a check."""
    if self.saver_def is None:  # an export does not build it, sessions of an Estimator do
      self.build()
    # TensorFlow's own method would first look for the file, by a pattern.
    path = checkpoint_store.readable(save_path)
    names = self._averages(sess.graph, shapes(save_path)) if self._weights == 'ema' else {}
    sess.run(self.saver_def.restore_op_name, {self.saver_def.filename_tensor_name: path, **names})

  def _averages(self, graph, stored):
    """Returns a dict to feed: the names that the graph's operation reads, those of averages where stored.

    Fed and not built in, as a graph is built before its checkpoint is known, and an export writes the
    averages by the names of the variables.
    """
    scope = self.saver_def.restore_op_name.rpartition('/')[0] + '/'
    fed = {}
    for op in graph.get_operations():
      if op.type == 'RestoreV2' and op.name.startswith(scope):
        names = [name.decode() for name in tf.make_ndarray(op.inputs[1].op.get_attr('value'))]
        averages = [f'{name}/{AVERAGE}' for name in names]
        fed[op.inputs[1]] = [average if average in stored else name
                             for name, average in zip(names, averages, strict=True)]
    return fed


class ResumeSaver(Restorer):
  """The Saver of a training run, which can also go on from a checkpoint that lacks optimizer slots.

  So a run with --freeze_batch_norm can be continued without it, one in fp32 in fp16, and the other way round:
  what the checkpoint lacks keeps its initial value, and an average that it lacks is that of its variable.
  """

  def __init__(self, resume_from: str | None) -> None:
    """Args: resume_from, a checkpoint's prefix."""
    variables = tf.global_variables()
    super().__init__(variables, sharded=True, max_to_keep=None)
    self._resume_from = resume_from
    stored = shapes(resume_from) if resume_from else {v.op.name for v in variables}
    self._missing = [v for v in variables if v.op.name not in stored]
    if self._missing:  # all operations are made now: the graph is final when the session restores
      self._initialize = tf.variables_initializer(self._missing)
      self._present = Restorer([v for v in variables if v.op.name in stored])
      averages = {v.op.name.removesuffix('/' + AVERAGE): v for v in self._missing if
                  v.op.name.endswith('/' + AVERAGE)}
      averages = {name: v for name, v in averages.items() if name in stored}
      self._averages_begin = Restorer(averages) if averages else None

  def restore(self, sess: tf.Session, save_path: str) -> None:
    # With several machines, TensorFlow may have looked for it before the one that writes has named it.
    save_path = self._resume_from or save_path
    if not self._missing:
      super().restore(sess, save_path)
      return
    names = [v.op.name for v in self._missing]
    check(save_path, {variable_name(v): v.shape.as_list() for v in tf.model_variables()})
    print(f'{save_path}: {len(names)} variables{_by_scope(names)} are not in it and start anew')
    sess.run(self._initialize)
    self._present.read(sess, save_path)
    if self._averages_begin:
      self._averages_begin.read(sess, save_path)


def _difference(name, stored, wanted):
  if name not in stored:
    return f'{name} is not in it'
  return f'{name} is {stored[name]} in it and {wanted[name]} in the model'


def _by_scope(names):
  """Returns ' (scope 12, scope 3)': how many of the names lie in each top-level scope."""
  counts = collections.Counter(
      'optimizer slots' if _SLOT.search(name) else name.split('/')[0] for name in names)
  listed = ', '.join(f'{scope} {count}' for scope, count in counts.items())
  return f' ({listed})' if listed else ''
