"""Measures what batch norm's layers see, and writes a model of these averages (tools/recalibrate.py)."""
import dataclasses
import typing

import numpy as np
import tensorflow.compat.v1 as tf

import deeplab_model
from commands import flags, model_config
from dataset import class_uniform, inputs, record_index, tf_records
from nets import backbones, layers
from training import checkpoint_store, checkpoints, locks, validation
from utils import devices, failures, files
from utils.errors import UsageError
from utils.progress import Progress


class Moments(typing.NamedTuple):
  """Mean and variance of each channel of what a layer sees, float32 [C]."""
  mean: np.ndarray
  variance: np.ndarray


class Layer(typing.NamedTuple):
  """The variables of a batch norm, float32 [C], in the order of its arguments."""
  gamma: np.ndarray
  beta: np.ndarray
  moving_mean: np.ndarray
  moving_variance: np.ndarray


def main(args):
  """Writes the recalibrated model as the flags say."""
  if args.batch_size < 2:
    raise UsageError('--batch_size 1 has no variance between images; give 2 or more')
  if checkpoint_store.indexes(args.output_dir):
    raise UsageError(f'--output_dir {args.output_dir} holds a checkpoint already; give a new folder')
  stored = model_config.read(args.model_dir)
  augment_as_trained(args, stored)
  architecture, dataset = model_config.resolve(args, stored)
  prefix = checkpoints.latest_or_error(args.model_dir)
  weights, step = model_config.weights(args, prefix), checkpoint_store.step_of(prefix)
  records = tf_records.record_files(args.data_dir, 'train')
  index = record_index.read(args.data_dir, 'train')
  options = inputs.TrainOptions(
      **inputs.read_flags(args), images_per_replica=args.batch_size,
      num_examples=record_index.count_examples(index, records),
      padding_color=backbones.get(architecture.base_architecture).padding_color,
      sampling=class_uniform.plan(index, args.class_uniform, record_index.path_of(args.data_dir, 'train')))
  # A class for every value, since the labels may be those of another dataset.
  labels = dataclasses.replace(dataset, class_names=tuple(map(str, range(256))))
  with devices.cpu_session() as session:
    measured = moments_in_graph(inputs.train_dataset(records, labels, options), architecture, args.unfold)
    tf.get_collection_ref(tf.GraphKeys.MODEL_VARIABLES).extend(tf.global_variables())
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    variables.update(others(prefix, variables, args.unfold))
    saver = checkpoints.Restorer(variables)
    with failures.explaining('give a smaller --batch_size or --crop_size',
                             lambda: tf_records.find_bad_example(records, labels)):
      checkpoints.Restorer(variables, weights=weights).restore(session, prefix)
      moments = measure(session, measured, args.batches)
    if not args.unfold:
      saver.read(session, prefix)  # the raw weights, which stay beside the averaged ones
    update(session, variables, moments, args.unfold)
    files.make_folder(args.output_dir, '--output_dir')
    with locks.locked(args.output_dir):
      model_config.write(args.output_dir, architecture, dataset, {'recalibrated_from': prefix},
                         stored.history if stored else ())
      if weights == 'ema' and not args.unfold:  # by which the other scripts tell what to use
        validation.write_best_scores(args.output_dir, {'step': step, 'weights': weights})
      written = checkpoint_store.save(saver, session, args.output_dir, step, keep_max=0)
  print(f'{written}: {len(moments)} batch norms, measured by the {weights} weights of {prefix} on '
        f'{args.batches * args.batch_size} crops of {args.data_dir}'
        + '; the predictions stay those of these weights' * args.unfold)


def augment_as_trained(args, stored):
  """Gives flags of augmentation that were left out the values of the last training, and says which."""
  trained = stored.history[-1]['flags'] if stored and stored.history else {}
  names = [flags.SHARED[name].get('name', name) for name in flags.AUGMENTATION_FLAGS]
  taken = {name: trained[name] for name in names if name in trained and name not in args.explicit}
  vars(args).update(taken)
  if taken:
    print('Crops as in training: ' + ', '.join(f'{name} {value}' for name, value in taken.items()))


def others(prefix, variables, is_unfolding):
  """Returns new variables, by name, for all that a checkpoint holds beside `variables`: slots, averages, ...

  Unfolding leaves out, and says so, what is about the weights that it changes.
  """
  reader = checkpoint_store.open_reader(prefix)
  shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
  stale = {name for name in shapes if is_unfolding and name not in variables and (
      name.startswith('ema/') or name.rpartition('/')[0] in shapes)}
  if stale:
    print(f'Left out, as they are about the weights before: {len(stale)} slots of the optimizer and averages')
  return {name: tf.get_variable(f'other_{number}', shapes[name], dtypes[name])
          for number, name in enumerate(sorted(shapes.keys() - variables.keys() - stale))}


def moments_in_graph(batches, architecture, is_unfolding):
  """Builds the network on batches of training; returns scope -> Moments of tensors, of every batch norm.

  To measure new averages, the network normalises as in training; to unfold it, as it predicts.
  """
  images, _ = tf.data.make_one_shot_iterator(batches).get_next()
  with layers.way(fold=False):
    deeplab_model.network(images, dataclasses.replace(architecture, eval_crop_size=None),
                          is_training=not is_unfolding)
  return {scope: Moments(*tf.nn.moments(tf.cast(operation.inputs[0], tf.float32), [0, 1, 2]))
          for scope, operation in norms_in_graph().items()}


def norms_in_graph():
  """Returns scope -> operation of every batch norm in the graph."""
  operations = [operation for operation in tf.get_default_graph().get_operations()
                if operation.type.startswith('FusedBatchNorm')]
  return {operation.name.rsplit('/', 1)[0]: operation for operation in operations}


def measure(session, measured, batches):
  """Returns scope -> Moments over all batches together (arXiv 2105.07576 sec. 3.1).

  Args:
    session: tf.Session.
    measured: scope -> Moments, tensors of a batch each.
    batches: int.
  """
  sums = {scope: [0.0, 0.0] for scope in measured}
  with Progress(batches, 'measuring', 'step') as bar:
    for _ in range(batches):
      for scope, (mean, variance) in session.run(measured).items():
        sums[scope][0] += mean.astype(np.float64) / batches
        sums[scope][1] += (variance + np.square(mean, dtype=np.float64)) / batches
      bar.update()
  return {scope: Moments(mean.astype(np.float32), np.float32(np.maximum(square - mean ** 2, 0)))
          for scope, (mean, square) in sums.items()}


def update(session, variables, moments, is_unfolding):
  """Gives the variables, a dict by name, the values that belong to scope -> Moments."""
  epsilons = {scope: operation.get_attr('epsilon') for scope, operation in norms_in_graph().items()}
  for scope, found in moments.items():
    named = {name: variables[f'{scope}/{name}'] for name in Layer._fields}
    before = Layer(**session.run(named))
    after = before._replace(moving_mean=found.mean, moving_variance=found.variance)
    if is_unfolding:
      scale = rescale(session, variables, scope.rsplit('/', 1)[0])
      after = unfolded(before, found, scale, epsilons[scope])
    for name, variable in named.items():
      variable.load(getattr(after, name), session)


def rescale(session, variables, scope):
  """Gives the filters of a scope's convolution the norm that new weights have, the square root of 2.

  Batch norm undoes the scale of a filter, but a step of training turns it by an angle that falls with the
  square of its norm. Filters that had batch norm folded into them have norms that differ a hundredfold.

  Returns:
    float32 [C], by what they were multiplied; or 1.0 if the scope has no convolution, as those of resnet_v2
    that come before theirs.
  """
  for name, axes in (('weights', (0, 1, 2)), ('depthwise_weights', (0, 1, 3))):  # [k, k, C', C], [k, k, C, 1]
    if (variable := variables.get(f'{scope}/{name}')) is not None:
      values = session.run(variable)
      norms = np.sqrt(np.sum(np.square(values), axis=axes, keepdims=True))
      scale = np.where(norms > 0, np.sqrt(2) / np.maximum(norms, 1e-12), 1).astype(np.float32)
      variable.load(values * scale, session)
      return scale.ravel()
  return 1.0


def unfolded(layer, moments, scale, epsilon):
  """Returns the Layer that is the same function of the inputs times `scale`, and averages as these have.

  Args:
    layer: Layer.
    moments: Moments of the inputs, before they are scaled.
    scale: float32 [C], or a float.
    epsilon: float, of batch norm.
  """
  factor = layer.gamma / np.sqrt(layer.moving_variance + epsilon)
  variance = moments.variance * scale ** 2
  return Layer(gamma=factor / scale * np.sqrt(variance + epsilon),
               beta=layer.beta + factor * (moments.mean - layer.moving_mean),
               moving_mean=moments.mean * scale, moving_variance=variance)
