"""Measure training, inference and the input pipeline: images/s, memory, FLOP/s, waiting for input.

  python tools/benchmark.py train
  python tools/benchmark.py train --precision bf16 --vs fp32 pytorch --reference
  python tools/benchmark.py all --data_dir ./dataset --reference --json speed.json
  python tools/benchmark.py memory --batch_size 10 --recompute

Modes: train is the whole training step; infer predicts one image of --image_size; input reads and
augments the records of --data_dir; all is these three. Without --data_dir training gets synthetic
images, and there is no input to measure. memory runs nothing: it tells from the graph of a training
step what it keeps for the backward pass, and the largest batch for GPUs of several sizes. command
times inference.py as a whole on the photos of --images.

--reference also measures the same network as the original DeepLabv3+ scripts build it, in fp32, --vs
fp32 ours with --precision fp32, and --vs pytorch the same network in plain PyTorch, where that is
installed. "faster" is how many times faster ours is.

Every variant lives in a process of its own. They take turns in blocks of --warmup and then --steps
measured steps, --repeats times; shown are the median and the range of the blocks. docs/benchmarks.md
says what each figure means.
"""
import importlib
import importlib.util
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from benchmarks import measure
from commands import flags
from dataset import descriptors
from utils import files
from utils.errors import UsageError

MODES = ('train', 'infer', 'input')


def make_parser():
  parser = flags.Parser(__doc__)
  parser.add_argument('mode', choices=(*MODES, 'all', 'memory', 'command'), help='what to measure')
  parser.shared('base_architecture', 'output_stride', 'dataset', *flags.COMPUTE_FLAGS)
  parser.flag('data_dir', None, 'folder of train.record; synthetic input without it', metavar='DIR')
  parser.flag('model_dir', None, 'in command, folder of a trained model', metavar='DIR')
  parser.flag('images', None, 'in command, folder of photos', metavar='DIR')
  parser.flag('crop_size', (513, 513), 'height and width in train, input and memory',
              type=flags.positive_int, nargs=2, metavar=('H', 'W'))
  parser.flag('image_size', (360, 480), 'height and width in infer', type=flags.positive_int,
              nargs=2, metavar=('H', 'W'))
  parser.flag('batch_size', 2, 'images per step in train, input and memory', type=flags.positive_int)
  parser.flag('recompute', False, 'in train and memory, as in train.py: less memory, more time')
  parser.flag('input_threads', 0, 'as in train.py', type=flags.non_negative_int, metavar='N')
  parser.flag('xla', False, 'compile the graph with XLA')
  for name, default, what in (('steps', 5, 'measured steps of a block'),
                              ('warmup', 2, 'steps before the measured ones of a block')):
    parser.flag(name, default, f'{what}; input takes {measure.INPUT_STEPS} times as many batches',
                type=flags.positive_int, metavar='N')
  parser.flag('repeats', 3, 'blocks of every variant', type=flags.positive_int, metavar='N')
  parser.flag('reference', False, 'also measure what the original scripts build')
  parser.flag('vs', (), 'also measure these: fp32, pytorch; not in input', nargs='+',
              choices=('fp32', 'pytorch'), metavar='WHAT')
  parser.flag('json', None, 'also write the results here', metavar='FILE')
  return parser


def main(args):
  check(args)
  dataset = descriptors.get_dataset(args.dataset)
  modes = MODES if args.mode == 'all' else (args.mode,)
  if args.data_dir is None and args.mode == 'all':
    print('input is left out, as there is no --data_dir')
    modes = ('train', 'infer')
  if args.json:
    files.check_json_output(args.json, '--json')
    files.make_folder_of(args.json, '--json')

  results = {'flags': flags.values(args)}
  if args.mode == 'memory':
    from benchmarks import memory
    results['memory'] = memory.measure(vars(args), dataset)
    print(memory.report(args, results['memory']))
    modes = ()
  if args.mode == 'command':
    from benchmarks import command
    results['command'] = command.measure(args)
    print(command.report(results['command']))
    modes = ()
  for mode in modes:
    results[mode] = measure.measure(mode, args, dataset)
    print(measure.report(mode, args, results[mode]), flush=True)
  if args.json:
    files.write_json(args.json, results)


def check(args):
  """Raises UsageError where the flags ask for what cannot be measured."""
  if args.data_dir is None and args.mode == 'input':
    raise UsageError('input has nothing to read; give --data_dir, a folder of train.record')
  flags.refuse_idle(args, ('reference vs', args.mode != 'memory', 'in memory, which looks at our graph'),
                    ('vs', args.mode != 'input', 'in input, which has no network'))
  if 'pytorch' not in args.vs:
    return
  if importlib.util.find_spec('torch') is None:
    raise UsageError('--vs pytorch needs PyTorch, which is not installed here; pip install torch')
  if not args.base_architecture.startswith('resnet_v2_'):
    raise UsageError(f'--vs pytorch has no {args.base_architecture}; '
                     'use --base_architecture resnet_v2_50 or resnet_v2_101')


if __name__ == '__main__':
  flags.run(main, make_parser())
