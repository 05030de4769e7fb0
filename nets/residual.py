"""The blocks of residual units that ResNet-v1 and -v2 share: their depths, and their order."""
import tensorflow.compat.v1 as tf

# (depth of the bottleneck, units, stride of the last unit); a block's output has four times the depth.
BLOCKS = {
    50: ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)),
    101: ((64, 3, 2), (128, 4, 2), (256, 23, 2), (512, 3, 1)),
}


def stack(net, blocks, strides, multi_grid, scope, unit):
  """Returns the output of all units, one after the other, and what lies before it.

  As in TF-Slim the stride of a block sits on its last unit.

  Args:
    net: float [B, h, w, C].
    blocks: a value of BLOCKS.
    strides: layers.AtrousStrides.
    multi_grid: three ints, factors of the rates of the last block's units (DeepLabv3 sec. 3.2).
    scope: str, the variable scope of a unit within block<i>/unit_<j>.
    unit: function of (net, depth, stride, rate) that builds a unit, and returns its output and the features.

  Returns:
    net: float [B, h', w', 2048]. middle: float [B, h'', w'', 1024], the last block's input. offered: list of
    a list of the features of each unit, for each block.
  """
  offered: list[list] = []
  for index, (depth, units, last_stride) in enumerate(blocks, 1):
    grid = multi_grid if index == len(blocks) else (1,) * units
    middle = net
    offered.append([])
    for number in range(1, units + 1):
      stride, rate = strides(last_stride if number == units else 1)
      with tf.variable_scope(f'block{index}/unit_{number}/{scope}'):
        net, features = unit(net, depth, stride, rate * grid[number - 1])
      offered[-1].append(features)
  return net, middle, offered
