"""The files that an export writes for other runtimes: TensorFlow Lite and ONNX.

Both are made of one graph, in which the checkpoint's weights are constants and what depends on nothing else
has been computed. It takes `image`, float32 [1, H, W, 3], RGB 0..255, and gives `classes`, int32
[1, H, W, 1], and `probabilities`, float32 [1, H, W, K].
"""
import importlib.util
import typing

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.grappler import tf_optimizer

try:
  import tf2onnx
except ImportError:  # see check_onnx
  tf2onnx = None

from training import run_config
from training.tf_estimator import ModeKeys
from utils.errors import UsageError

OUTPUTS = ('classes', 'probabilities')
_ONNX_OPSET = 17
# What --format onnx was tried with; requirements.txt does not have them, as nothing else needs them.
ONNX_PACKAGES = {'tf2onnx': '1.17.0', 'onnxruntime': '1.32.0'}


class Format(typing.NamedTuple):
  """A format other than the SavedModel.

  Attributes:
    file: name of the file that is written.
    write: function of the frozen graph, the path and the calibration's images.
    needs_size: whether it takes images of one size alone.
  """
  file: str
  write: typing.Callable
  needs_size: bool = True


def frozen_graph(model_fn, params, checkpoint, size):
  """Returns the GraphDef of a model as constants, whose outputs are OUTPUTS.

  Args:
    model_fn: deeplabv3_plus_model_fn.
    params: dict, its params.
    checkpoint: str.
    size: (height, width), or None for any.
  """
  with tf.Graph().as_default() as graph, tf.Session(config=run_config.run_config().session_config) as session:
    tf.set_random_seed(1)  # see devices.cpu_session
    image = tf.placeholder(tf.float32, [1, *(size or (None, None)), 3], 'image')
    spec = model_fn(image, None, ModeKeys.PREDICT, params)
    for name in OUTPUTS:
      tf.identity(spec.predictions[name], name)
    prepare = tf.tables_initializer()  # see Way.prepare
    spec.scaffold.saver.restore(session, checkpoint)
    session.run(prepare)
    constant = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), list(OUTPUTS))
  return _folded(constant)


def _folded(graph_def):
  """Returns a GraphDef in which everything that depends on constants alone is one."""
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    meta_graph = tf.train.export_meta_graph(graph=graph)
  meta_graph.collection_def['train_op'].node_list.value.extend(OUTPUTS)
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
    return dict(zip(OUTPUTS, tf.graph_util.import_graph_def(
        graph_def, {'image:0': image}, [f'{name}:0' for name in OUTPUTS])))

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
  sides = {node.name: node.attr['value'].tensor.tensor_shape.dim[0].size for node in graph_def.node
           if node.op == 'Const' and node.attr['value'].tensor.tensor_shape.dim}
  for node in graph_def.node:
    rate = max(node.attr['dilations'].list.i, default=1) if node.op == 'Conv2D' else 1
    if rate > 1:  # ONNX Runtime does not know SAME for these
      padding = rate * (sides[node.input[1]] - 1) // 2
      node.attr['padding'].s = b'EXPLICIT'
      node.attr['explicit_paddings'].list.i[:] = [0, 0, *[padding] * 4, 0, 0]
  tf2onnx.convert.from_graph_def(graph_def, input_names=['image:0'],
                                 output_names=[f'{name}:0' for name in OUTPUTS], opset=_ONNX_OPSET,
                                 output_path=path)


FORMATS = {
    'tflite': Format('model.tflite', write_tflite),
    'onnx': Format('model.onnx', write_onnx, needs_size=False),
}
