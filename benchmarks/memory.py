"""The memory of a training step on a GPU, told from its graph alone: nothing of its size is computed.

The real model_fn is built as on a GPU, for a batch that is a prime number. A tensor's axis that is a
multiple of that prime grows with the batch, so that one graph gives the bytes for every batch. What a session
would run for the step, after grappler, is then walked through in the order in which TensorFlow's executor
takes operations on a GPU: first come, first served. A buffer lives from the operation that makes it to the
last one that reads it; the most that lives at one time is the peak.

Kept for the backward pass is what operations of the forward pass (those that the loss depends on) make and
others read. Buffers count once: reshapes share the memory of what they reshape, and an elementwise operation
that is the last to read a buffer writes into it, as TensorFlow's kernels do.

What is assumed, and can differ on a device:
  Grappler rewrites the graph here as for an Ampere GPU (layouts, fused kernels), but it is not told how much
    memory there is: where it expects too little, TensorFlow moves activations to the host and back, which
    fits more images at a lower speed.
  cuDNN's workspace is an estimate: as much as the largest convolution or batch norm reads and makes, which
    is what copies of both in another layout take. With less memory, slower algorithms are left.
  Kernels of several streams at once, XLA, synchronised batch norm and --accumulate_steps are not looked at.
  A card has less than its name says: its context and TensorFlow's kernels take about half a GiB, error
    correction (ECC) up to a sixteenth on some, and the allocator cannot use every gap. So a tenth of the
    card, at least 1 GiB, is left free.
"""
import collections
import dataclasses

import tensorflow.compat.v1 as tf

from benchmarks import graph_analysis
from deeplab_model import deeplabv3_plus_model_fn
from nets import backbones
from training import run_config
from training.tf_estimator import ModeKeys

CARDS = (8, 11, 16, 24, 40, 80)  # GiB
_ARCHITECTURE = '8.0'  # compute capability, Ampere's: from it on layouts are chosen alike
_LEFT_FREE = (0.1, 2**30)  # of the card, and at least these bytes

# So many images stand for any number. Channels are multiples of none of these primes; sizes may be of one.
_PRIMES = (211, 223, 227, 229, 233)
_LIMIT = 1 << 16  # images a step; more than this is not looked for

# Their output is the memory of their input, and no kernel runs.
_VIEWS = frozenset(('Identity', 'IdentityN', 'Reshape', 'Squeeze', 'ExpandDims', 'StopGradient',
                    'PreventGradient', 'CheckNumerics', 'EnsureShape', 'PlaceholderWithDefault', 'Snapshot'))
# Memory that is there before the step and after it.
_LASTING = frozenset(('Const', 'VarHandleOp', 'ReadVariableOp', 'VariableV2', 'NoOp'))
# These read shapes alone.
_OF_SHAPES = frozenset(('Shape', 'ShapeN', 'Size', 'Rank', 'ZerosLike', 'OnesLike'))
# These write into an input's buffer if nothing else wants to read it.
_IN_PLACE = frozenset((
    'Add', 'AddN', 'AddV2', 'BiasAdd', 'DivNoNan', 'FusedBatchNormV3', '_FusedBatchNormEx', 'Maximum',
    'Minimum', 'Mul', 'Neg', 'RealDiv', 'Relu', 'Relu6', 'Relu6Grad', 'ReluGrad', 'Rsqrt', 'Select',
    'SelectV2', 'Softmax', 'Sqrt', 'Square', 'Sub'))
_NORMS = ('FusedBatchNormV3', '_FusedBatchNormEx')
# These and their gradients copy what they read and make, where it lies in another order than they want.
_HEAVY = ('Conv2D', '_FusedConv2D', 'DepthwiseConv2dNative', 'FusedBatchNorm', '_FusedBatchNorm')


@dataclasses.dataclass(eq=False)
class Buffer:
  """Memory that tensors share: of `fixed` bytes, and `per_image` bytes for each image of the batch."""
  name: str
  op: tf.Operation
  fixed: int
  per_image: int

  def size(self, images):
    return self.fixed + self.per_image * images


@dataclasses.dataclass
class Step:
  """What a session runs for a training step.

  order: list of (operation, list of Buffers that it reads, list of Buffers that it makes).
  readers: Counter of Buffers, how often each is read or fetched.
  kept: set of Buffers, made in the forward pass and read after it.
  lasting: int, bytes of the variables that training changes and of batch norm's averages.
  slots: int, bytes of the optimizer's variables.
  gradients: int, bytes of the variables' gradients, all together.
  unknown: list of names of tensors whose shape is not static, and which count nothing.
  """
  order: list
  readers: collections.Counter
  kept: set
  lasting: int = 0
  slots: int = 0
  gradients: int = 0
  unknown: list = dataclasses.field(default_factory=list)


def training_step(params, dataset, device='GPU'):
  """Returns the Step of a training on one GPU.

  Args:
    params: dict, the benchmark's flags.
    dataset: descriptors.Dataset.
    device: str, GPU, or CPU for the layout that grappler leaves there: to compare with steps that are run.
  """
  height, width = params['crop_size']
  prime = next(prime for prime in _PRIMES if not _divides(prime, (height, width, dataset.num_classes)))
  tf.logging.set_verbosity(tf.logging.ERROR)
  with graph_analysis.as_on_gpu(_ARCHITECTURE), tf.Graph().as_default():
    compute = run_config.compute_params(params['precision'], params['data_format'], training=True)
    params = {**params, **compute, 'num_classes': dataset.num_classes, 'class_names': dataset.class_names,
              'palette': dataset.palette, 'ignore_label': dataset.ignore_label, 'batch_size': prime}
    tf.train.get_or_create_global_step()
    images = tf.placeholder(tf.uint8, [prime, height, width, 3], 'images')
    labels = tf.placeholder(tf.uint8, [prime, height, width, 1], 'labels')
    tf.set_random_seed(1)  # see devices.cpu_session
    spec = deeplabv3_plus_model_fn(images, labels, ModeKeys.TRAIN, params)
    graph, fetches = _optimized([spec.train_op, spec.loss], device)
    step = step_of(fetches, fetches[1], prime)
    trained = {variable.ref() for variable in tf.trainable_variables()}
    for variable in tf.global_variables():
      size = variable.shape.num_elements() * variable.dtype.base_dtype.size
      is_slot = variable.name.endswith('/Momentum:0')
      step.slots += size * is_slot
      step.lasting += size * (not is_slot)
      step.gradients += size * (variable.ref() in trained)
  return params['data_format'], step


def _divides(prime, sizes):
  """Returns whether a size, or what strides make of it, is a multiple of the prime."""
  return any(-(-size // stride) % prime == 0 for size in sizes for stride in (1, 2, 4, 8, 16, 32))


def _optimized(fetches, device):
  """Returns the current graph as grappler makes it for a device that need not be there, and its fetches."""
  optimized = graph_analysis.optimize(tf.get_default_graph(), fetches,
                                      [graph_analysis.virtual_device(device, _ARCHITECTURE)])
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(optimized, name='')
  return graph, [graph.as_graph_element(fetch.name) for fetch in fetches]


def step_of(fetches, loss, prime):
  """Returns the Step of running fetches in the current graph.

  Args:
    fetches: list of operations and tensors.
    loss: tensor; what it depends on is the forward pass.
    prime: int, the batch for which the graph was built.
  """
  order = _executor_order(_needed([getattr(fetch, 'op', fetch) for fetch in fetches]))
  forward = _needed([loss.op])
  buffers, steps, unknown = {}, [], []
  readers, kept = collections.Counter(), set()
  for op in order:
    assert not op.type.startswith('_Copy'), f'{op.name}: grappler moved activations to the host'
    read = [] if op.type in _OF_SHAPES else [
        buffers[tensor.ref()] for tensor in op.inputs if buffers[tensor.ref()] is not None]
    made = []
    for index, tensor in enumerate(op.outputs):
      if op.type in _LASTING or tensor.dtype in (tf.resource, tf.variant, tf.string):
        buffers[tensor.ref()] = None
      elif op.type in _VIEWS:
        buffers[tensor.ref()] = buffers[op.inputs[index if op.type == 'IdentityN' else 0].ref()]
      else:
        size = _bytes(tensor, prime)
        if size is None and not (op.type in _NORMS and index == 5):  # cuDNN's own: next to nothing
          unknown.append(tensor.name)
        buffer = Buffer(tensor.name, op, *(size or (0, 0)))
        buffers[tensor.ref()] = buffer
        made.append(buffer)
    for buffer in read:
      readers[buffer] += 1
      if op not in forward and buffer.op in forward:
        kept.add(buffer)
    steps.append((op, read, made))
  for fetch in fetches:
    if isinstance(fetch, tf.Tensor) and buffers[fetch.ref()] is not None:
      readers[buffers[fetch.ref()]] += 1
  return Step(steps, readers, kept, unknown=unknown)


def _bytes(tensor, prime):
  """Returns (fixed bytes, bytes per image) of a tensor, or None where its shape is not static."""
  if not tensor.shape.is_fully_defined():
    return None
  size = tensor.shape.num_elements() * tensor.dtype.base_dtype.size
  return (0, size // prime) if any(axis and axis % prime == 0 for axis in tensor.shape) else (size, 0)


def _needed(ops):
  """Returns the set of operations that these depend on, themselves included."""
  seen, todo = set(), list(ops)
  while todo:
    op = todo.pop()
    if op not in seen:
      seen.add(op)
      todo += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
  return seen


def _executor_order(needed):
  """Returns a list of the operations: each is queued when all that it waits for is done."""
  ops = sorted(needed, key=lambda op: op._id)
  waits = {op: len(op.inputs) + len(op.control_inputs) for op in ops}
  next_of = collections.defaultdict(list)
  for op in ops:
    for before in [*(tensor.op for tensor in op.inputs), *op.control_inputs]:
      next_of[before].append(op)
  queue, order = collections.deque(op for op in ops if not waits[op]), []
  while queue:
    op = queue.popleft()
    order.append(op)
    for after in next_of[op]:
      waits[after] -= 1
      if not waits[after]:
        queue.append(after)
  assert len(order) == len(ops), 'the graph has a loop'
  return order


# --- What lives when ---


def peak(step, images):
  """Returns (bytes, Operation, list of Buffers): the most that lives at one time, when, and what it is."""
  left = dict(step.readers)
  live, total, most = {}, 0, (0, None, [])
  size = {}
  for op, read, made in step.order:
    reusable = [buffer for buffer in read if buffer in live] if op.type in _IN_PLACE else []
    for position, buffer in enumerate(made):
      size[buffer] = buffer.size(images)
      donor = None if position else next(
          (other for other in reusable if size[other] == size[buffer]
           and left[other] == read.count(other)), None)
      if donor is not None:  # its memory goes over
        total -= size[donor]
        del live[donor]
      live[buffer] = buffer
      total += size[buffer]
    if total > most[0]:
      most = (total, op, list(live.values()))
    for buffer in read:
      left[buffer] -= 1
    for buffer in [*read, *made]:
      if not left.get(buffer) and buffer in live:
        total -= size[buffer]
        del live[buffer]
  return most


def workspace(step, images):
  """Returns an estimate in bytes: what the largest convolution or batch norm reads and makes."""
  return max((sum(buffer.size(images) for buffer in [*read, *made] if buffer.per_image)
              for op, read, made in step.order if op.type.startswith(_HEAVY)), default=0)


def total(step, images):
  """Returns the bytes that a training of so many images a step needs on the device."""
  return step.lasting + step.slots + peak(step, images)[0] + workspace(step, images)


def largest_batch(step, limit):
  """Returns the most images a step that need no more than `limit` bytes; 0 where not even one does."""
  low, high = 0, 1
  while high <= _LIMIT and total(step, high) <= limit:
    low, high = high, 2 * high
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if total(step, middle) <= limit else (low, middle)
  return low


def usable(card):
  """Returns the bytes of a card of so many GiB that a training may plan with."""
  share, least = _LEFT_FREE
  return int(card * 2**30 - max(share * card * 2**30, least))


def group(buffer, row):
  """Returns the part of the network that a buffer of the forward pass belongs to."""
  if not buffer.per_image:
    return 'weights as computed with'
  name = buffer.name.split(':')[0]
  _, _, inside = f'/{name}'.partition(f'/{row.scope}/')  # grappler puts words of its own before names
  if inside:
    part, *rest = inside.split('/')
    if row.family == 'xception':
      return 'root' if part == 'entry_flow' and rest[0].startswith('conv1') else part
    if part.startswith('expanded_conv'):
      first = int(part.removeprefix('expanded_conv').strip('_') or 0) // 6 * 6
      return f'units {first} to {first + 5}'  # by six, of 17
    return part if part.startswith('block') else 'root'
  for part, shown in (('aspp', 'ASPP'), ('decoder', 'decoder')):
    if f'/{part}/' in f'/{name}':
      return shown
  depends_on_weights = any(op.type == 'VarHandleOp' for op in _needed([buffer.op]))
  return 'logits and loss' if depends_on_weights else 'input'


# --- For the user ---

_GROUPS = ('input', 'root', 'ASPP', 'decoder', 'logits and loss', 'weights as computed with')


def measure(params, dataset):
  """Returns a dict of what `report` prints; see the module's docstring.

  Args:
    params: dict, the benchmark's flags; batch_size is the batch of the table.
    dataset: descriptors.Dataset.
  """
  data_format, step = training_step(params, dataset)
  images = params['batch_size']
  row = backbones.get(params['base_architecture'])
  kept = collections.defaultdict(int)
  for _, _, made in step.order:
    for buffer in step.kept.intersection(made):
      kept[group(buffer, row)] += buffer.size(images)
  kept = {name: kept[name] for name in (  # in the order of the network; those of backbones as they come
      'input', 'root', *(name for name in kept if name not in _GROUPS), *_GROUPS[2:]) if name in kept}
  most, op, live = peak(step, images)
  kept_at_peak = sum(buffer.size(images) for buffer in step.kept.intersection(live))
  return {
      'data_format': data_format, 'batch_size': images, 'kept': kept, 'kept_bytes': sum(kept.values()),
      'kept_bytes_per_image': sum(buffer.per_image for buffer in step.kept),
      'peak_bytes': most, 'peak_at': f'{op.type} ({group(Buffer(op.name, op, 0, 1), row)})',
      'peak_kept_bytes': kept_at_peak,
      'variables_bytes': step.lasting, 'momentum_bytes': step.slots, 'gradients_bytes': step.gradients,
      'workspace_bytes': workspace(step, images), 'total_bytes': total(step, images),
      'unknown': step.unknown,
      'largest_batch': {card: largest_batch(step, usable(card)) for card in CARDS}}


def report(args, results):
  """Returns the measurements as text."""
  def row(name, size, note=''):
    return f'  {name:42}{size / 2**20:10,.0f}{f"  {note}" if note else ""}'

  height, width = args.crop_size
  images = results['batch_size']
  lines = [f'memory: {args.base_architecture}, height {height}, width {width}, batch {images}, '
           f'{args.precision}, {results["data_format"]}, output stride {args.output_stride}'
           f'{", --recompute" if args.recompute else ""}; from the graph, not measured; MiB',
           'kept for the backward pass:']
  lines += [row(name, size) for name, size in results['kept'].items()]
  lines += [
      row('together', results['kept_bytes'], f'{results["kept_bytes_per_image"] / 2**20:,.1f} an image'),
      'needed on the device:',
      row('variables', results['variables_bytes']),
      row('momentum', results['momentum_bytes']),
      row('most that lives at one time in a step', results['peak_bytes'], f'at {results["peak_at"]}'),
      row('  of it kept for the backward pass', results['peak_kept_bytes']),
      row('  of it gradients and what is computed now', results['peak_bytes'] - results['peak_kept_bytes'],
          f'variables\' gradients are {results["gradients_bytes"] / 2**20:,.0f} in the end'),
      row('workspace of convolutions, an estimate', results['workspace_bytes']),
      row('together', results['total_bytes']),
      'largest batch, with a tenth of the card (1 GiB at least) left free for its context, kernels and gaps:',
      '  ' + ', '.join(f'{card} GB: {batch or "none"}' for card, batch in results['largest_batch'].items())]
  if results['unknown']:
    lines.append(f'  not counted, as their shapes are not static: {", ".join(results["unknown"][:3])}')
  return '\n'.join(lines)
