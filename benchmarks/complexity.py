"""How much a network computes: its multiply-adds, read off the graph."""
import math


def multiply_adds(graph):
  """Returns the multiply-adds of all convolutions and matrix products of a graph, as papers count them.

  A convolution counts its kernel once at every position of its output, padding or not. An atrous one that
  goes through space-to-batch counts at the positions of the result that comes back from there.

  Args:
    graph: tf.Graph of one forward pass, every shape static.
  """
  return sum(_OPS[op.type](op) for op in graph.get_operations() if op.type in _OPS)


def _conv2d(op):
  kernel_height, kernel_width, depth_in, _ = op.inputs[1].shape.as_list()
  return kernel_height * kernel_width * depth_in * _outputs(op)


def _depthwise_conv2d(op):
  kernel_height, kernel_width, _, _ = op.inputs[1].shape.as_list()
  return kernel_height * kernel_width * _outputs(op)


def _matrix_product(op):
  axis = 0 if op.get_attr('transpose_a') else 1
  return op.inputs[0].shape.as_list()[axis] * _outputs(op)


def _outputs(op):
  """Returns how many numbers an operation, or the batch-to-space after it, puts out."""
  back = [user for user in op.outputs[0].consumers() if user.type == 'BatchToSpaceND']
  return math.prod((back[0] if back else op).outputs[0].shape.as_list())


_OPS = {'Conv2D': _conv2d, 'DepthwiseConv2dNative': _depthwise_conv2d, 'MatMul': _matrix_product}
