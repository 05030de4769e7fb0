"""Measurements of variants that take turns, each in a process of its own (tools/benchmark.py says how)."""
import concurrent.futures
import contextlib
import dataclasses
import importlib
import resource
import statistics
import sys
import time

from commands import flags
from utils import failures, workers
from utils.errors import DataError

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
INPUT_STEPS = 100  # batches that count as one step of the mode input: one batch is too short


def measure(mode, args, dataset):
  """Returns the measurements of a mode.

  Returns:
    dict of variant to dict: facts, and what is in _ROWS as median, min, max; and where there is more than
    one variant `faster`, a dict of variant to how many times faster ours is.
  """
  scale = INPUT_STEPS if mode == 'input' else 1
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


# An error of TensorFlow holds an operation, which cannot be sent to another process.
_EXPLAINED = failures.explaining('give a smaller --batch_size or --crop_size')

_bench = None  # the Bench of this process
_forward_passes = None  # int, what a step of this process's mode is worth


@_EXPLAINED
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


@_EXPLAINED
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
