"""A graph built as on a GPU that need not be there: where it computes what, and what grappler makes of it.

benchmarks/gpu_graph.py prints it for the graphs of this project, and says what the words mean.
"""
import collections
import contextlib
import dataclasses
from unittest import mock

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import device_properties_pb2
from tensorflow.python.framework import function_def_to_graph, kernels, op_def_registry
from tensorflow.python.grappler import cluster, tf_optimizer

import deeplab_model
from dataset import inputs
from nets import cpu_convolution
from training import run_config
from training.tf_estimator import ModeKeys

SMALL = 4096  # bytes; tensors of shapes and other small ones, which are the host's anyway
ROOT = '/job:localhost/replica:0/task:0/device:'  # begins the names of devices
_SOURCES = {'IteratorGetNext', 'Placeholder'}  # what they give lies in the host's memory
# No kernel is launched for these: they hand on a buffer, or say something of it.
_FREE = {'Const', 'NoOp', 'Identity', 'IdentityN', 'VarHandleOp', 'ReadVariableOp', 'AssignVariableOp',
         'Shape', 'ShapeN', 'Size', 'Rank', 'Reshape', 'Squeeze', 'ExpandDims', 'StopGradient', 'Pack',
         'ControlTrigger'}
_CALLS = {'If', 'StatelessIf', 'PartitionedCall', 'StatefulPartitionedCall'}
_LAYOUTS = ('Conv2D', '_FusedConv2D', 'Conv2DBackpropInput', 'Conv2DBackpropFilter', 'DepthwiseConv2dNative',
            'DepthwiseConv2dNativeBackpropInput', 'DepthwiseConv2dNativeBackpropFilter', 'FusedBatchNormV3',
            '_FusedBatchNormEx', 'FusedBatchNormGradV3', 'BiasAdd', 'BiasAddGrad', 'MaxPool', 'MaxPoolGrad')
_OTHERS = ('Transpose', 'SpaceToBatchND', 'BatchToSpaceND', 'Relu', 'ResizeBilinear', 'Cast', 'MatMul')


# --- The graphs ----------------------------------------------------------------------------------


@contextlib.contextmanager
def as_on_gpu(compute_capability='8.0'):
  """Within it graphs are built as on a GPU of this compute capability, such as '8.0'."""
  gpu = tf.config.PhysicalDevice('/physical_device:GPU:0', 'GPU')
  details = {'device_name': 'a GPU', 'compute_capability': tuple(map(int, compute_capability.split('.')))}

  def devices(device_type=None):
    return [gpu] if device_type == 'GPU' else []

  with (mock.patch.object(tf.config, 'list_physical_devices', devices),
        mock.patch.object(tf.config, 'get_visible_devices', devices),
        mock.patch.object(tf.config.experimental, 'get_device_details', lambda device: details)):
    cpu_convolution.gpus.cache_clear()
    try:
      yield
    finally:
      cpu_convolution.gpus.cache_clear()


@dataclasses.dataclass(frozen=True)
class Built:
  """A graph.

  Attributes:
    graph: tf.Graph.
    fetches: dict of what a run of the session is for -> list of the tensors and operations that it fetches.
    data_format: str, of the features.
  """
  graph: object
  fetches: dict
  data_format: str


def build(mode, base_architecture, precision='fp32', data_format=None, batch_size=10, size=(513, 513),
          **params):
  """Returns the Built of a mode, one of gpu_graph.MODES; `size` is (height, width) of training crops."""
  training = mode == 'train'
  compute = {} if mode == 'export' else run_config.compute_params(precision, data_format, training)
  params = {'base_architecture': base_architecture, 'num_classes': 21, 'class_names': ['class'] * 21,
            'palette': [(0, 0, 0)] * 21, 'num_train': 10582, 'batch_size': batch_size,
            'portable': mode == 'export', 'max_steps': 9, **compute, **params}
  with tf.Graph().as_default() as graph:
    tf.set_random_seed(1)  # see devices.cpu_session
    tf.train.get_or_create_global_step()
    if training:
      data = inputs.synthetic_dataset(batch_size, size, 21)
      spec = deeplab_model.deeplabv3_plus_model_fn(
          *tf.data.make_one_shot_iterator(data).get_next(), ModeKeys.TRAIN, params)
      step, progress = [spec.train_op, spec.loss], list(spec.training_chief_hooks[0]._scalars.values())
      fetches = {'a step': step, 'a step that prints its progress': step + progress,
                 'a step that writes summaries': [*step, tf.summary.merge_all()]}
      if spec.training_hooks:
        fetches['a batch of gradients'] = [spec.training_hooks[0]._accumulate]
    else:
      of_export = mode == 'export'
      images = (tf.placeholder(tf.float32, [None, None, None, 3]) if of_export else
                tf.placeholder(tf.uint8, [1, None, None, 3]))
      labels = tf.placeholder(tf.uint8, [1, None, None, 1]) if mode == 'evaluate' else None
      key = ModeKeys.EVAL if mode == 'evaluate' else ModeKeys.PREDICT
      spec = deeplab_model.deeplabv3_plus_model_fn(images, labels, key, params)
      fetches = {'an image': {
          'evaluate': lambda: [spec.loss, *(update for _, update in spec.eval_metric_ops.values())],
          'predict': lambda: [spec.predictions['classes']],
          'export': lambda: list(spec.predictions.values())}[mode]()}
  return Built(graph, fetches, compute.get('data_format', 'channels_last'))


def needed(fetches):
  """Returns the set of operations that a run computes to fetch these; the input pipeline is left out."""
  found, left = set(), [getattr(fetch, 'op', fetch) for fetch in fetches]
  while left:
    op = left.pop()
    if op not in found:
      found.add(op)
      if op.type not in _SOURCES:
        left += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
  return found


# --- Placement -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Placement:
  """Where the operations of a run are computed.

  Attributes:
    operations: int.
    kernels: int, those that compute something on the GPU.
    on_cpu: Counter of descriptions of the operations with large tensors that have no kernel for GPUs.
    on_host: Counter of descriptions of those that work on large tensors in the host's memory all the same.
    down, up: dicts of the name of a large tensor that is copied to the host's memory, or to the GPU's, to its
      bytes; None if its shape is not known.
  """
  operations: int
  kernels: int
  on_cpu: collections.Counter
  on_host: collections.Counter
  down: dict
  up: dict

  def __str__(self):
    lines = [f'{self.operations} operations, {self.kernels} kernels']
    lines += [f'  on the CPU {count} x {kind}' for kind, count in sorted(self.on_cpu.items())]
    lines += [f'  in host memory {count} x {kind}' for kind, count in sorted(self.on_host.items())]
    for title, copies in (('GPU to host', self.down), ('host to GPU', self.up)):
      unknown = sum(size is None for size in copies.values())
      total = sum(size or 0 for size in copies.values())
      lines.append(f'  copied {title}: {total / 2**20:.1f} MiB'
                   + f' and {unknown} tensors of unknown shape' * bool(unknown))
    return '\n'.join(lines)


def placement(graph, fetches):
  """Returns the Placement of what a session of a tf.Graph computes to fetch these."""
  ops = needed(fetches)
  result = Placement(len(ops), 0, collections.Counter(), collections.Counter(), {}, {})
  in_host, wanted = set(), []  # tensors that lie there, and (operation, tensors that it takes from there)
  for op in [*ops, *_called(graph, ops)]:
    tensors = [*op.inputs, *op.outputs]
    kernel = None if op.type in _SOURCES | _CALLS else gpu_kernel(op)
    if op.type in _CALLS:
      continue
    if kernel is None:
      in_host.update(tensor.ref() for tensor in op.outputs)
      wanted.append((op, list(op.inputs)))
      if op.type not in _SOURCES and any(map(_is_large, tensors)):
        result.on_cpu[_description(op)] += 1
      continue
    takes, gives = _host_arguments(op, kernel)
    in_host.update(tensor.ref() for tensor in gives)
    wanted.append((op, takes))
    if any(map(_is_large, [*takes, *gives])):
      result.on_host[_description(op)] += 1
    if op.type not in _FREE and len(gives) < max(len(op.outputs), 1):
      result.kernels += 1
  for op, takes in wanted:
    from_host = {tensor.ref() for tensor in takes}
    for tensor in filter(_is_large, op.inputs):
      if (tensor.ref() in from_host) != (tensor.ref() in in_host):
        copies = result.down if tensor.ref() in from_host else result.up
        copies[tensor.name] = _size(tensor)
  return result


def gpu_kernel(op):
  """Returns the KernelDef by which a GPU computes an operation, or None."""
  def fits(kernel):
    return kernel.device_type in ('GPU', 'DEFAULT') and not kernel.label and all(
        set(_types(op, constraint.name)) <= set(constraint.allowed_values.list.type)
        for constraint in kernel.constraint)

  fitting = filter(fits, kernels.get_registered_kernels_for_op(op.type).kernel)
  return min(fitting, key=lambda kernel: kernel.device_type != 'GPU', default=None)


def _types(op, attribute):
  value = op.node_def.attr[attribute]
  return [value.type] if value.WhichOneof('value') == 'type' else list(value.list.type)


def _host_arguments(op, kernel):
  """Returns the inputs and the outputs that a kernel wants in the host's memory, two lists of tensors."""
  names = set(kernel.host_memory_arg)
  definition = op_def_registry.get(op.type)
  return tuple([tensor for name, tensor in _by_argument(op, arguments, tensors) if name in names]
               for arguments, tensors in ((definition.input_arg, list(op.inputs)),
                                          (definition.output_arg, list(op.outputs))))


def _by_argument(op, arguments, tensors):
  """Yields (name of the argument, tensor); an argument may be a list of tensors."""
  left = iter(tensors)
  for argument in arguments:
    count = (op.get_attr(argument.number_attr) if argument.number_attr else
             len(_types(op, argument.type_list_attr)) if argument.type_list_attr else 1)
    for _ in range(count):
      yield argument.name, next(left)


def _called(graph, ops):
  """Yields the operations of the functions that these call, such as the branches of a condition."""
  left, done = list(ops), set()
  while left:
    op = left.pop()
    if op.type not in _CALLS:
      continue
    attributes = op.node_def.attr.values()
    for name in {value.func.name for value in attributes if value.func.name} - done:
      done.add(name)
      function = graph._get_function(name)
      definition = getattr(function, 'cached_definition', None) or function.definition
      inner = [op for op in function_def_to_graph.function_def_to_graph(definition).get_operations()
               if op.type != 'Placeholder']  # the arguments, which lie where the caller has them
      yield from inner
      left += inner


def _size(tensor):
  """Returns bytes, 0 for what is no numbers, None where the shape is not known."""
  if tensor.dtype.base_dtype.name in ('resource', 'variant', 'string'):
    return 0
  count = tensor.shape.num_elements()
  return None if count is None else count * tensor.dtype.base_dtype.size


def _is_large(tensor):
  size = _size(tensor)
  if size is None:  # vectors and matrices of unknown sizes are shapes and paddings
    return tensor.shape.rank is None or tensor.shape.rank > 2
  return size > SMALL


def _description(op):
  kinds = sorted({tensor.dtype.base_dtype.name for tensor in [*op.inputs, *op.outputs]})
  return f'{op.type} [{" ".join(kinds)}]'


# --- Layouts -------------------------------------------------------------------------------------


def layouts(built, compute_capability):
  """Returns Counters of the kinds of operations, before and after grappler, of the first of the fetches.

  Args:
    built: Built.
    compute_capability: str, of the GPU that grappler is told of.
  """
  fetches = next(iter(built.fetches.values()))
  on_cpu = {op.name for op in built.graph.get_operations() if op.type in _SOURCES or not gpu_kernel(op)}
  optimized = optimize(built.graph, fetches,
                       [virtual_device('GPU', compute_capability), virtual_device('CPU')], on_cpu)
  return _kinds(op.node_def for op in needed(fetches)), _kinds(optimized.node)


def optimize(graph, fetches, devices, on_second=()):
  """Returns the GraphDef that grappler makes of a tf.Graph, as a session of this project configures it.

  Args:
    graph: tf.Graph.
    fetches: list of tensors and operations.
    devices: list of NamedDevice, see virtual_device; operations are on the first of them.
    on_second: set of the names of those that are on the second.
  """
  with graph.as_default():
    meta = tf.train.export_meta_graph(graph=graph, clear_devices=True)
  for node in meta.graph_def.node:
    node.device = devices[node.name in on_second].name
  train_ops = meta.collection_def['train_op'].node_list  # what grappler takes for the fetches
  train_ops.value[:] = [fetch.name for fetch in fetches]
  return tf_optimizer.OptimizeGraph(run_config.run_config().session_config, meta,
                                    cluster=cluster.Cluster(devices=devices))


def virtual_device(kind, compute_capability='8.0'):
  """Returns a NamedDevice for grappler, a GPU or a CPU that need not be there.

  Its memory is endless: if grappler expected too little it would have activations wait on the host.
  """
  # No decision depends on cores and such, but that they are there.
  properties = device_properties_pb2.DeviceProperties(
      type=kind, num_cores=100, frequency=1500, bandwidth=10**9, memory_size=2**50)
  if kind == 'GPU':
    properties.environment.update({'architecture': compute_capability, 'cuda': '12050', 'cudnn': '9300'})
  return device_properties_pb2.NamedDevice(name=ROOT + kind + ':0', properties=properties)


def _kinds(nodes):
  found = collections.Counter()
  for node in nodes:
    if node.op in _LAYOUTS:
      found[f'{node.op} {node.attr["data_format"].s.decode()} {tf.as_dtype(node.attr["T"].type).name}'] += 1
    elif node.op in _OTHERS:
      found[node.op] += 1
  return found
