"""Measure training, inference and the input pipeline: images/s, memory, FLOP/s, waiting for input.

  python tools/benchmark.py train
  python tools/benchmark.py train --precision bf16 --vs fp32 pytorch --reference
  python tools/benchmark.py all --data_dir ./dataset --reference --json speed.json
  python tools/benchmark.py memory --batch_size 10 --recompute

Modes: train is the whole training step; infer predicts one image of --image_size; input reads and
augments the records of --data_dir; all is these three. Without --data_dir training gets synthetic
images, and there is no input to measure. memory runs nothing: it tells from the graph of a training
step what it keeps for the backward pass, and the largest batch for GPUs of several sizes
(benchmarks/memory.py says how, and what is assumed). command times inference.py as a whole on the
photos of --images.

--reference also measures the same network as the original DeepLabv3+ scripts build it: in fp32;
atrous convolutions through SpaceToBatch; batch norm of its own in inference; a loss that picks the
valid pixels by dynamic_partition; a running confusion matrix with mean IoU, pixel accuracy and
every class's IoU at each step; predictions that include probabilities; and an input pipeline that
decodes, scales, pads, crops and flips one whole image after the other.

--vs fp32 also measures ours with --precision fp32. --vs pytorch also measures the same network in
plain PyTorch, where that is installed: channels_last, autocast, and torch.compile on a GPU, on
synthetic images. "faster" is how many times faster ours is.

Every variant lives in a process of its own, so its peak memory is its own too. They take turns in
blocks of --warmup and then --steps measured steps, --repeats times: what else the machine is doing
slows all of them, and the ratio is taken between neighbouring blocks. Shown are the median and the
range of the blocks. CPU s/step counts all threads of the process, and varies less.

FLOP: two for every multiply-add of the convolutions and matrix products of the network; a training
step counts as three forward passes, as is usual. The peak is the faster of a plain matrix product
and a plain convolution, which every process runs after each of its blocks, in the same precision.

Waiting for input: a step runs in two parts. The first takes the next batch out of the pipeline and
copies it to the device; the second trains on it, while the pipeline prepares further batches in
the background. Nothing can be computed before the batch is there, so the share of the first part
is the share of time spent waiting for input.
"""
import concurrent.futures
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import resource
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags
from dataset import descriptors
from utils import files, workers
from utils.errors import DataError, UsageError

MODES = ('train', 'infer', 'input')
# Variant -> the module whose function `bench` makes it, and flags that it has its own way.
VARIANTS = {
    'ours': ('benchmarks.project', {}),
    'fp32': ('benchmarks.project', {'precision': 'fp32'}),
    'reference': ('benchmarks.reference', {'precision': 'fp32', 'data_format': 'channels_last',
                                                'recompute': False, 'xla': False}),
    'pytorch': ('benchmarks.pytorch', {}),
}
_ROWS = {  # what run_block measures, and how it is called
    'images_per_s': 'images/s',
    's_per_step': 's/step',
    'cpu_s_per_step': 'CPU s/step',
    'input_wait_share': 'share waiting for input',
    'peak_host_mib': 'peak memory, MiB',
    'peak_device_mib': 'on the device, MiB',
    'tflop_per_s': 'TFLOP/s',
    'matrix_product_tflop_per_s': 'plain matrix product, TFLOP/s',
    'convolution_tflop_per_s': 'plain convolution, TFLOP/s',
    'share_of_peak': 'share of the faster one',
}
_INPUT_STEPS = 100  # batches that count as one step of the mode input: one batch is too short


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
    parser.flag(name, default, f'{what}; input takes {_INPUT_STEPS} times as many batches',
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
    from tools import benchmark_command
    results['command'] = benchmark_command.measure(args)
    print(benchmark_command.report(results['command']))
    modes = ()
  for mode in modes:
    results[mode] = measure(mode, args, dataset)
    print(report(mode, args, results[mode]), flush=True)
  if args.json:
    with files.replacing(args.json) as temporary, open(temporary, 'w', encoding='utf-8') as file:
      json.dump(results, file, indent=2)
      file.write('\n')


def check(args):
  """Raises UsageError where the flags ask for what cannot be measured."""
  if args.data_dir is None and args.mode == 'input':
    raise UsageError('input has nothing to read; give --data_dir, a folder of train.record')
  if args.mode == 'memory' and (args.vs or args.reference):
    raise UsageError('memory looks at our graph alone; leave out --vs and --reference')
  if args.vs and args.mode == 'input':
    raise UsageError('--vs compares networks, and input has none; leave it out, or give --reference')
  if 'pytorch' not in args.vs:
    return
  if importlib.util.find_spec('torch') is None:
    raise UsageError('--vs pytorch needs PyTorch, which is not installed here; pip install torch')
  if not args.base_architecture.startswith('resnet_v2_'):
    raise UsageError(f'--vs pytorch has no {args.base_architecture}; '
                     'use --base_architecture resnet_v2_50 or resnet_v2_101')
  if args.batch_size == 1 and args.mode in ('train', 'all'):
    raise UsageError('--batch_size 1 is not for --vs pytorch, whose batch norm cannot train on the one '
                     'value of the image-level features; give 2 or more')


def measure(mode, args, dataset):
  """Returns the measurements of a mode.

  Returns:
    dict of variant to dict: facts, and what is in _ROWS as median, min, max; and where there is more than
    one variant `faster`, a dict of variant to how many times faster ours is.
  """
  scale = _INPUT_STEPS if mode == 'input' else 1
  others = ['reference'] * args.reference + (list(args.vs) if mode != 'input' else [])
  with contextlib.ExitStack() as stack:
    processes = {variant: stack.enter_context(workers.Pool(1)) for variant in ('ours', *others)}
    blocks = {variant: [] for variant in processes}
    try:
      ready = {variant: process.submit(prepare, mode, variant, args, dataset)
               for variant, process in processes.items()}
      results = {variant: facts.result() for variant, facts in ready.items()}
      check_same_work(results)
      for _ in range(args.repeats):
        for variant, process in processes.items():
          process.submit(run_block, args.warmup * scale).result()
          block = process.submit(run_block, args.steps * scale).result()
          if 'tflop_per_s' in block:
            block.update(process.submit(compare_with_peak, block['tflop_per_s']).result())
          blocks[variant].append(block)
    except concurrent.futures.process.BrokenProcessPool as error:
      raise DataError(f'the process that measured {mode} was killed, as happens when memory runs '
                      'out; give a smaller --batch_size or --crop_size') from error
  for variant, result in results.items():
    result.update({name: spread([block[name] for block in blocks[variant]])
                   for name in blocks[variant][0]})
  if others:
    results['faster'] = {other: spread([
        theirs['s_per_step'] / ours['s_per_step'] for ours, theirs in
        zip(blocks['ours'], blocks[other], strict=True)]) for other in others}
  return results


def check_same_work(results):
  counts = {variant: facts['multiply_adds'] for variant, facts in results.items()}
  assert max(counts.values()) <= 1.005 * min(counts.values()), f'not the same network: {counts}'


def spread(values):
  return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def report(mode, args, results):
  """Returns the measurements of a mode as text: a table with a column for each variant."""
  variants = [name for name in results if name != 'faster']
  height, width = args.image_size if mode == 'infer' else args.crop_size
  ours = results['ours']
  title = (f'{mode}: {args.base_architecture}, height {height}, width {width}, '
           f'batch {ours["images_per_step"]}, {args.precision}, {ours["device"]}')
  if ours['multiply_adds']:
    title += f', {short(ours["flop_per_step"] / 1e12)} TFLOP/step'

  def row(name, values):
    return [name, *(shown(values[variant]) if variant in values else '' for variant in variants)]

  table = [['', *variants], ['', *(results[variant]['framework'] for variant in variants)]]
  table += [row(name, {variant: results[variant][key] for variant in variants})
            for key, name in _ROWS.items() if key in ours]
  if 'faster' in results:
    table.append(row('ours is faster, times', results['faster']))
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  padded = ('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
  return '\n'.join([title, *(f'  {line.rstrip()}' for line in padded)])


def shown(values):
  return '{} ({}..{})'.format(*(short(values[name]) for name in ('median', 'min', 'max')))


def short(value):
  return f'{value:.0f}' if value >= 1000 else f'{value:.4g}'


# --- In the process of a variant ---


@dataclasses.dataclass(frozen=True)
class Bench:
  """What a variant's module makes in its process.

  load: function, takes the next batch out of the pipeline.
  compute: function, runs the step on it; a GPU may still be at work when it returns.
  wait: function, returns when the device has done all of its work.
  images: int, how many are in a batch.
  multiply_adds: int, of one forward pass of a batch; 0 in the mode input.
  framework, device: str, for the user.
  on_gpu: bool.
  plain_products: function of a Plain; a context manager of a dict of name to function that runs it.
  device_peak_mib: function, the most memory that was in use on the GPU so far.
  """
  load: callable
  compute: callable
  wait: callable
  images: int
  multiply_adds: int
  framework: str
  device: str
  on_gpu: bool
  plain_products: callable
  device_peak_mib: callable


@dataclasses.dataclass(frozen=True)
class Plain:
  """What the step is compared with, each `chain` times in a row so that a GPU has enough to do.

  matrix_product: [size, size] by [size, size]; convolution: 3x3 on [batch, side, side, channels], to as
  many channels, with padding.
  """
  size: int = 2048
  batch: int = 8
  side: int = 65
  channels: int = 256
  chain: int = 1

  def multiply_adds(self):
    """Returns name -> multiply-adds."""
    return {'matrix_product': self.chain * self.size**3,
            'convolution': self.chain * 9 * self.batch * (self.side * self.channels)**2}


_bench = None  # the Bench of this process
_forward_passes = None  # int, what a step of this process's mode is worth


def prepare(mode, variant, args, dataset):
  """Makes this process's Bench and runs its first step; returns a dict of facts about it."""
  global _bench, _forward_passes
  module, own_way = VARIANTS[variant]
  if mode == 'train' and variant != 'reference':  # as train.py; the original scripts left it to TensorFlow
    flags.enable_onednn()
  params = {**vars(args), **own_way, 'num_classes': dataset.num_classes,
            'class_names': dataset.class_names, 'palette': dataset.palette,
            'ignore_label': dataset.ignore_label}
  _bench = importlib.import_module(module).bench(mode, params, dataset)
  _forward_passes = 3 if mode == 'train' else 1
  run_block(1)
  return {'framework': _bench.framework, 'device': _bench.device, 'images_per_step': _bench.images,
          'multiply_adds': _bench.multiply_adds, 'flop_per_step': flop_per_step()}


def flop_per_step():
  return 2 * _bench.multiply_adds * _forward_passes


def run_block(steps):
  """Returns what is in _ROWS but the peak: means of the steps; peak memory is that of all so far."""
  waited, start, cpu_start = 0, time.perf_counter(), time.process_time()
  for _ in range(steps):
    before = time.perf_counter()
    _bench.load()
    waited += time.perf_counter() - before
    _bench.compute()
  _bench.wait()
  seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
  unit = 1 if sys.platform == 'darwin' else 2 ** 10  # macOS counts bytes, Linux KiB
  result = {'images_per_s': steps * _bench.images / seconds, 's_per_step': seconds / steps,
            'cpu_s_per_step': cpu_seconds / steps, 'input_wait_share': waited / seconds,
            'peak_host_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20}
  if _bench.on_gpu:
    result['peak_device_mib'] = _bench.device_peak_mib()
  if _bench.multiply_adds:
    result['tflop_per_s'] = flop_per_step() * steps / seconds / 1e12
  return result


def compare_with_peak(tflop_per_s):
  """Runs the plain products; returns what they reach, and the share of the faster that the step does."""
  plain = Plain(8192, 16, 129, chain=16) if _bench.on_gpu else Plain()
  counts = plain.multiply_adds()
  with _bench.plain_products(plain) as products:
    peaks = {name: 2 * counts[name] / fastest(run) / 1e12 for name, run in products.items()}
  return {'share_of_peak': tflop_per_s / max(peaks.values()),
          **{f'{name}_tflop_per_s': peak for name, peak in peaks.items()}}


def fastest(run, seconds=0.3):
  """Returns the seconds of the fastest of a few runs after the first."""
  run()
  times = []
  while len(times) < 3 or sum(times) < seconds:
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return min(times)


if __name__ == '__main__':
  flags.run(main, make_parser())
