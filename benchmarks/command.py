"""The mode command of tools/benchmark.py: inference.py as a whole, beside the original's way."""
import glob
import os
import statistics
import subprocess
import sys
import tempfile
import time

from dataset import lists
from utils.errors import DataError, UsageError

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def measure(args):
  """Returns the seconds that each command took, a dict of lists by variant; they take turns.

  Args:
    args: the parsed flags.

  Raises:
    UsageError: a flag is missing.
    DataError: there is no image, or a command failed.
  """
  if args.model_dir is None or args.images is None:
    raise UsageError('command needs --model_dir, a trained model, and --images, a folder of photos')
  images = [path for path in sorted(glob.glob(os.path.join(glob.escape(args.images), '*')))
            if lists.has_extension(path, lists.IMAGE_EXTENSIONS)]
  if not images:
    raise DataError(f"--images '{args.images}' holds no image; give another folder")
  images, model_dir = list(map(os.path.abspath, images)), os.path.abspath(args.model_dir)
  seconds = {'ours': [], **({'reference': []} if args.reference else {})}
  with tempfile.TemporaryDirectory() as folder:
    commands = {
        'ours': ['inference.py', '--model_dir', model_dir, '--output_dir', f'{folder}/ours',
                 '--input', *images],
        'reference': ['-m', 'benchmarks.original', model_dir, f'{folder}/reference', *images]}
    for _ in range(args.repeats):
      for variant, taken in seconds.items():
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, *commands[variant]], cwd=_ROOT, capture_output=True, text=True)
        taken.append(time.perf_counter() - begun)
        if done.returncode:
          raise DataError(f'{commands[variant][0]} failed: {done.stderr.strip()[-500:]}')
  return {'images': len(images), **seconds}


def report(result):
  """Returns the result of `measure` as text."""
  lines = [f'command: inference.py on {result["images"]} images, start included, in seconds']
  lines += [f'  {variant:10} ' + ' '.join(f'{seconds:.1f}' for seconds in result[variant])
            for variant in ('ours', 'reference') if variant in result]
  if 'reference' in result:
    ratios = [theirs / ours for ours, theirs in zip(result['ours'], result['reference'])]
    lines.append(f'  ours is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to '
                 f'{max(ratios):.2f})')
  return '\n'.join(lines)
