"""What a GPU would make of this project's graphs: kernels, copies through host memory, layouts.

  python benchmarks/gpu_graph.py train --base_architecture resnet_v2_101 --precision bf16
  python benchmarks/gpu_graph.py predict --compute_capability 7.5

No GPU is needed: TensorFlow's wheel for Linux registers its GPU kernels everywhere, and grappler,
which rewrites graphs before they run, believes in a GPU that it is told of. The graph is that of the
real model_fn, built as if a GPU were there. train is a step, evaluate the scoring of an image,
predict its class map, export what a SavedModel computes.

Placement: operations without a kernel for GPUs, which the CPU computes; those whose kernel works in
the host's memory (int32 has such kernels alone); and the tensors of more than 4 KiB that are copied
between the memories. The input pipeline is the CPU's. A kernel is counted for every operation that
computes something on the device; cuDNN may launch more than one for it, and assignments to variables,
which take over a buffer, launch none.

Layouts: how often each kind of operation stands in the graph before and after grappler, on a card of
--compute_capability. TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT=1 shows what train.py sets for half precision.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags

MODES = ('train', 'evaluate', 'predict', 'export')


def make_parser():
  parser = flags.Parser(__doc__)
  parser.add_argument('mode', choices=MODES, help='which graph')
  parser.shared('base_architecture', 'output_stride', *flags.COMPUTE_FLAGS)
  parser.flag('batch_size', 10, 'images of a training step', type=flags.positive_int, metavar='N')
  parser.flag('crop_size', (513, 513), 'their height and width', type=flags.positive_int, nargs=2,
              metavar=('H', 'W'))
  parser.flag('recompute', False, 'as in train.py')
  parser.flag('accumulate_steps', 1, 'as in train.py', type=flags.positive_int, metavar='N')
  parser.flag('compute_capability', '8.0', 'of the card that grappler is told of',
              choices=('6.0', '7.0', '7.5', '8.0', '8.6', '8.9', '9.0'))
  return parser


def main(args):
  from benchmarks import graph_analysis  # TensorFlow, which --help does without

  with graph_analysis.as_on_gpu(args.compute_capability):
    built = graph_analysis.build(
        args.mode, args.base_architecture, args.precision, args.data_format, args.batch_size, args.crop_size,
        output_stride=args.output_stride, recompute=args.recompute, accumulate_steps=args.accumulate_steps)
    for name, fetches in built.fetches.items():
      print(f'{name}: {graph_analysis.placement(built.graph, fetches)}')
    before, after = graph_analysis.layouts(built, args.compute_capability)
  print(f'grappler on compute capability {args.compute_capability}:')
  for kind in sorted({*before, *after}):
    print(f'  {before[kind]:5} -> {after[kind]:5}  {kind}')


if __name__ == '__main__':
  flags.run(main, make_parser())
