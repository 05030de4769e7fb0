"""The files that an export writes for other runtimes: TensorFlow Lite, ONNX, and OpenCV's frozen graph.

All are made of one graph, in which the checkpoint's weights are constants and what depends on nothing else
has been computed. It takes `image`, float32 [1, H, W, 3], RGB 0..255, and gives `classes`, int32
[1, H, W, 1], and `probabilities`, float32 [1, H, W, K].
"""
import importlib.util
import typing

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.grappler import tf_optimizer

from training import run_config
from training.tf_estimator import ModeKeys
from utils.errors import UsageError

_ONNX_OPSET = 17
# What --format onnx was tried with; requirements.txt does not have them, as nothing else needs them.
ONNX_PACKAGES = {'tf2onnx': '1.17.0', 'onnxruntime': '1.32.0'}


class Format(typing.NamedTuple):
  """A format other than the SavedModel.

  Attributes:
    file: name of the file that is written.
    write: function of the frozen graph, the path and the calibration's images.
    outputs: names of the graph's outputs that the format has.
    needs_size: whether it takes images of one size alone.
  """
  file: str
  write: typing.Callable
  outputs: tuple[str, ...] = ('classes', 'probabilities')
  needs_size: bool = True


def frozen_graph(model_fn, params, checkpoint, size, outputs):
  """Returns the GraphDef of a model as constants.

  Args:
    model_fn: deeplabv3_plus_model_fn.
    params: dict, its params.
    checkpoint: str.
    size: (height, width), or None for any.
    outputs: names of `classes` and `probabilities`, or one of them.
  """
  with tf.Graph().as_default() as graph, tf.Session(config=run_config.run_config().session_config) as session:
    tf.set_random_seed(1)  # see devices.cpu_session
    image = tf.placeholder(tf.float32, [1, *(size or (None, None)), 3], 'image')
    spec = model_fn(image, None, ModeKeys.PREDICT, params)
    for name in outputs:
      tf.identity(spec.predictions[name], name)
    prepare = tf.tables_initializer()  # see Way.prepare
    spec.scaffold.saver.restore(session, checkpoint)
    session.run(prepare)
    constant = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), list(outputs))
  return _folded(constant, outputs)


def _folded(graph_def, outputs):
  """Returns a GraphDef in which everything that depends on constants alone is one."""
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    meta_graph = tf.train.export_meta_graph(graph=graph)
  meta_graph.collection_def['train_op'].node_list.value.extend(outputs)
  config = config_pb2.ConfigProto()
  rewrites = config.graph_options.rewrite_options
  rewrites.optimizers.extend(['pruning', 'constfold', 'dependency'])
  rewrites.min_graph_nodes = -1  # small ones too
  return tf_optimizer.OptimizeGraph(config, meta_graph)


# --- TensorFlow Lite -----------------------------------------------------------------------------


def write_tflite(graph_def, path, calibration):
  """Writes a TensorFlow Lite model; of 8-bit integers throughout, its input and output too, if calibrated.

  Args:
    graph_def: what frozen_graph returned, of a size.
    path: str.
    calibration: function that returns an iterator of uint8 [H, W, 3], or None.
  """
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    spec = tf.TensorSpec(graph.get_tensor_by_name('image:0').shape, tf.float32, 'image')

  def predict(image):
    names = ('classes', 'probabilities')
    return dict(zip(names, tf.graph_util.import_graph_def(
        graph_def, {'image:0': image}, [f'{name}:0' for name in names])))

  function = tf.function(predict, input_signature=[spec], autograph=False).get_concrete_function()
  lite = tf.compat.v2.lite
  converter = lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
  if calibration:
    converter.optimizations = [lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in calibration())
    converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
  model = converter.convert()
  with open(path, 'wb') as file:
    file.write(model)


# --- ONNX ----------------------------------------------------------------------------------------


def check_onnx() -> None:
  """Raises UsageError if what --format onnx needs is not installed."""
  missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
  if missing:
    tried = ' and '.join(f'{name} {version}' for name, version in ONNX_PACKAGES.items())
    raise UsageError(f'--format onnx needs {" and ".join(missing)}, not installed here ({tried} were '
                     f'tried); pip install {" ".join(missing)}, or give another --format')


def write_onnx(graph_def, path, calibration):
  """Writes an ONNX model of a frozen graph; see check_onnx."""
  import tf2onnx

  tf2onnx.convert.from_graph_def(graph_def, input_names=['image:0'],
                                 output_names=['classes:0', 'probabilities:0'], opset=_ONNX_OPSET,
                                 output_path=path)


# --- OpenCV --------------------------------------------------------------------------------------


def write_frozen_graph(graph_def, path, calibration):
  """Writes a frozen graph that OpenCV's dnn module reads; TensorFlow reads it too."""
  with open(path, 'wb') as file:
    file.write(_for_opencv(graph_def).SerializeToString())


def _for_opencv(graph_def):
  """Returns a GraphDef, of a size, that computes the same in ways that OpenCV knows.

  It takes no notice of a convolution's dilations, but of space-to-batch around it; it cuts along other axes
  than StridedSlice says, but as Slice does; and it reads but constants whose values are all spelt out.
  """
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
  written = tf.GraphDef()
  for node in graph_def.node:
    if node.op == 'Conv2D' and max(node.attr['dilations'].list.i or [1]) > 1:
      _add_undilated(written, node, graph.get_operation_by_name(node.name))
      continue
    if node.op == 'StridedSlice':
      _add_slice(written, node, graph.get_operation_by_name(node.name))
      continue
    written.node.add().CopyFrom(node)
    if node.op == 'Const':
      value = tf.make_ndarray(node.attr['value'].tensor)
      written.node[-1].attr['value'].tensor.CopyFrom(tf.make_tensor_proto(value, shape=value.shape))
  return written


def _add_undilated(graph_def, node, op):
  """Adds an atrous convolution, of stride 1 and SAME padding, as an ordinary one on every rate-th pixel.

  Args:
    graph_def: GraphDef.
    node, op: the NodeDef and the Operation of the convolution.
  """
  height, width = op.inputs[0].shape.as_list()[1:3]
  size, rate = op.inputs[1].shape.as_list()[0], node.attr['dilations'].list.i[1]
  padding = rate * (size - 1) // 2
  beyond = [-(side + 2 * padding) % rate for side in (height, width)]  # to a multiple of the rate
  names = [f'{node.name}/{name}' for name in ('rates', 'paddings', 'crops', 'to_batch', 'convolution')]
  for name, value in zip(names, ([rate] * 2, [[padding, padding + n] for n in beyond],
                                 [[0, n] for n in beyond])):
    _add_constant(graph_def, name, value)
  rates, paddings, crops, to_batch, convolution = names
  undilated = graph_def.node.add()
  undilated.CopyFrom(node)
  undilated.name, undilated.input[0], undilated.attr['padding'].s = convolution, to_batch, b'VALID'
  undilated.attr['dilations'].list.i[:] = [1] * 4
  for name, kind, inputs, dtype in (
      (to_batch, 'SpaceToBatchND', (node.input[0], rates, paddings), 'Tpaddings'),
      (node.name, 'BatchToSpaceND', (convolution, rates, crops), 'Tcrops')):
    added = graph_def.node.add(name=name, op=kind, input=inputs)
    added.attr['T'].type = tf.float32.as_datatype_enum
    for attribute in ('Tblock_shape', dtype):
      added.attr[attribute].type = tf.int32.as_datatype_enum


def _add_slice(graph_def, node, op):
  """Adds the slice that leaves out the last rows and columns, which eval_crop_size added; see network."""
  begin, size = f'{node.name}/begin', f'{node.name}/size'
  _add_constant(graph_def, begin, [0] * 4)
  _add_constant(graph_def, size, op.outputs[0].shape.as_list())
  added = graph_def.node.add(name=node.name, op='Slice', input=(node.input[0], begin, size))
  added.attr['T'].type = tf.float32.as_datatype_enum
  added.attr['Index'].type = tf.int32.as_datatype_enum


def _add_constant(graph_def, name, value):
  constant = graph_def.node.add(name=name, op='Const')
  constant.attr['dtype'].type = tf.int32.as_datatype_enum
  constant.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(np.int32(value)))


FORMATS = {
    'tflite': Format('model.tflite', write_tflite),
    'onnx': Format('model.onnx', write_onnx, needs_size=False),
    'frozen_graph': Format('model.pb', write_frozen_graph, outputs=('probabilities',)),
}
