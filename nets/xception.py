"""Xception-41, -65 and -71 as modified for DeepLab (DeepLabv3+ sec. 3.2, arXiv 1610.02357) with atrous rates.

All max pooling is replaced by strided separable convolutions, with batch norm after every depthwise and
pointwise one. Names and geometry are those of Google's checkpoints.
"""
import tensorflow.compat.v1 as tf

from nets import layers

# Entry flow: (scope of the block, channels, stride); middle flow: number of units.
_ENTRY_65 = (('block1', 128, 2), ('block2', 256, 2), ('block3', 728, 2))
_ENTRY_71 = (('block1', 128, 2), ('block2', 256, 1), ('block3', 256, 2), ('block4', 728, 1),
             ('block5', 728, 2))
_VARIANTS = {
    'xception_41': (_ENTRY_65, 8),
    'xception_65': (_ENTRY_65, 16),
    'xception_71': (_ENTRY_71, 16),
}


def build(row, images, output_stride, norm, multi_grid):
  """Returns (high, low, middle) of an Xception; see nets/builders.py for the arguments.

  high: float32 [B, h, w, 2048]; low: 128, 256 and 728 channels at strides 2, 4 and 8, before any ReLU;
  middle: 728 channels, the middle flow's output.
  """
  entry, middle_units = _VARIANTS[row.name]
  strides = layers.AtrousStrides(output_stride)
  low, total_stride = {}, 2
  with tf.variable_scope(row.scope):
    with tf.variable_scope('entry_flow'):
      stride, _ = strides(2)
      net = layers.conv2d(images, 32, 3, 'conv1_1', norm, tf.nn.relu, stride=stride)
      net = layers.conv2d(net, 64, 3, 'conv1_2', norm, tf.nn.relu)
      for block, channels, stride in entry:
        net, second = _module(net, f'{block}/unit_1', (channels,) * 3, strides(stride), norm, shortcut='conv')
        low[total_stride] = second  # of the last block at this stride
        total_stride *= stride
    for unit in range(1, middle_units + 1):
      net, _ = _module(net, f'middle_flow/block1/unit_{unit}', (728,) * 3, strides(1), norm, shortcut='sum')
    middle = net
    net, _ = _module(net, 'exit_flow/block1/unit_1', (728, 1024, 1024), strides(2), norm, shortcut='conv')
    net, _ = _module(net, 'exit_flow/block2/unit_1', (1536, 1536, 2048), strides(1), norm, shortcut=None,
                     grid=multi_grid)
  return net, low, middle


@layers.recomputable
def _module(inputs, scope, channels, stride_and_rate, norm, shortcut, grid=(1, 1, 1)):
  """Three separable convolutions and a shortcut: returns the sum and the second convolution's output.

  With a shortcut, ReLU comes before each separable convolution and none inside it; without one (the last
  module), after the depthwise and the pointwise part.
  """
  stride, rate = stride_and_rate
  net, outputs = inputs, []
  inner = None if shortcut else tf.nn.relu
  with tf.variable_scope(f'{scope}/xception_module'):
    for index, depth in enumerate(channels):
      if shortcut:
        net = tf.nn.relu(net)
      net = layers.separable_conv2d(net, depth, f'separable_conv{index + 1}', norm, inner,
                                    stride=stride if index == 2 else 1, rate=rate * grid[index])
      outputs.append(net)
    if shortcut == 'conv':
      net += layers.conv2d(inputs, channels[-1], 1, 'shortcut', norm, stride=stride)
    elif shortcut == 'sum':
      net += inputs
  return net, outputs[1]
