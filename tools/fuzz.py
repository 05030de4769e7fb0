"""Broken inputs for every script and tool: does each end in success, or in one sentence?

  python tools/fuzz.py --cases 400 --seed 0
  python tools/fuzz.py --seed 0 --case 17 --keep build/fuzz      # that case alone

A case is a pure function of the seed and its number: a script on tiny inputs (tools/fuzz_cases.py), of which
one has bytes flipped or cut off, another size, type, encoding or name, is missing, a folder, a pipe, a link
in a circle or unreadable (tools/fuzz_faults.py); or one of whose flags is out of range; or whose folders have
odd names. It has to end

  within a minute, with status 0, or with 1 or 2 and `<script>: error: <sentence>` on stderr;
  without a traceback, and without calling itself a defect;
  with nothing half written: what is new is whole, lies in the output folder, and no temporary file is left;
  and with everything as it was that was there before.

A case that fails is printed with the command that runs it again. The last line says how many failed; the
exit status is 1 if one did. Run by root, scripts lack the capability to pass over permissions.
"""
import collections
import contextlib
import ctypes
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile

# A script finds modules in its own folder, tools/; the repository's are in the one above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli import flags  # noqa: E402
from tools import children  # noqa: E402

TIMEOUT = 60   # seconds of a case
_MEMORY = 12 << 30  # bytes of data that a script may reserve; TensorFlow itself takes two
# prctl, and the capabilities of root for which permissions mean nothing (linux/capability.h).
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2
_TEMPORARY = re.compile(r'\.tmp|/temp-|/tmp[^/]{8}$|saving')
# Sentences that may go on over several lines, one for each bad file.
_LISTS = ('pairs of image and label are bad', 'no example is left for', 'is not in ', 'does not exist',
          'have the label', 'could be ')
_MEMORY_RAN_OUT = ('memory ran out', 'the memory is not enough', 'the memory of ')


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('cases', 400, 'how many to run', type=flags.positive_int, metavar='N')
  parser.flag('seed', 0, 'of all cases', type=flags.non_negative_int)
  parser.flag('first', 0, 'number of the first one', type=flags.non_negative_int, metavar='N')
  parser.flag('case', None, 'run the case of this number alone', type=flags.non_negative_int, metavar='N')
  parser.flag('only', None, 'of these run those alone whose description holds this, such as huge_length',
              metavar='TEXT')
  parser.flag('keep', None, 'leave the folders of failed cases here', metavar='DIR')
  return parser


def main(args):
  from tools import fuzz_cases

  obey_permissions()
  with (tempfile.TemporaryDirectory(prefix='fuzz_') as folder,
        children.Children({'TF_CPP_MIN_LOG_LEVEL': '3'}) as runner):
    lab = Lab(runner, folder)
    numbers = [args.case] if args.case is not None else range(args.first, args.first + args.cases)
    if args.only:
      numbers = [number for number in numbers if args.only in fuzz_cases.plan(args.seed, number).label]
    failed = 0
    for done, number in enumerate(numbers, 1):
      failed += lab.fails(args.seed, number, args.keep, verbose=args.case is not None)
      if done % 50 == 0:
        print(f'{done} of {len(numbers)} cases, {failed} failed so far; the last was {number}', flush=True)
    print('ends: ' + ', '.join(f'{what} {count}' for what, count in sorted(lab.ends.items())))
    if lab.skipped:
      print(f'{lab.skipped} cases about permissions were left out, which mean nothing to this user')
    print(f'{len(numbers)} cases, {failed} failed')
  if failed:
    sys.exit(1)


def obey_permissions():
  """Takes the capabilities that pass over permissions from all programs that this process starts later."""
  libc = ctypes.CDLL(None, use_errno=True)
  for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
    libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # which nobody but root needs, or can do


class Lab:
  """A folder with the inputs of all commands, and the children that run them.

  Attributes:
    ends: Counter of how cases ended.
    skipped: int, cases that could not be run here.
  """

  def __init__(self, runner, folder):
    self.ends, self.skipped = collections.Counter(), 0
    self._runner, self._folder = runner, folder
    self._materials = os.path.join(folder, 'materials')
    os.mkdir(self._materials)
    from tools import fuzz_cases
    fuzz_cases.write_materials(self._materials, self._make)
    self._has_permissions = self._is_kept_out()

  def _make(self, script, argv):
    child = self._runner.run(script, argv, cwd=self._materials)
    if child.status:
      raise RuntimeError(f'{shlex.join(child.command)} failed:\n{child.output}')

  def _is_kept_out(self):
    """Returns whether scripts cannot read what their user may not read."""
    path = os.path.join(self._folder, 'closed')
    os.close(os.open(path, os.O_CREAT, mode=0))
    reads = [sys.executable, '-c', 'import sys; open(sys.argv[1])', path]
    return subprocess.run(reads, stderr=subprocess.DEVNULL, check=False).returncode != 0

  def fails(self, seed, number, keep=None, verbose=False):
    """Runs the case of a number; returns whether it failed, and prints how."""
    from tools import fuzz_cases

    return self.fails_at(fuzz_cases.plan(seed, number), f'--seed {seed} --case {number}', keep, verbose)

  def fails_at(self, case, again, keep=None, verbose=False):
    """Runs a case; returns whether it failed, and prints how.

    Args:
      case: fuzz_cases.Case.
      again: str, the flags that run it again.
      keep: str, the folder to which the files of a failed one are copied, or None.
      verbose: bool, print the output of one that is right, too.
    """
    number = case.number
    if case.needs_permissions and not self._has_permissions:
      self.skipped += 1
      return False
    folder = os.path.join(self._folder, f'case_{number}')
    try:
      argv, child, problem = self._run(case, folder)
      self.ends['timed out' if child.timed_out else f'status {child.status}'] += 1
      if problem:
        print(f'case {number}: FAILED ({case.label}): {problem}\n'
              f'  python tools/fuzz.py {again} --keep build/fuzz\n'
              f'  cd build/fuzz/{number}/in; python {shlex.join(argv)}')
      if problem or verbose:
        print(f'case {number} ({case.label}): status {child.status}, {child.seconds:.1f} s\n'
              f'{_shortened(child.stdout)}{_shortened(without_progress(child.stderr))}', flush=True)
      if keep and (problem or verbose):
        target = os.path.join(keep, str(number))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target, symlinks=True, copy_function=_copy, ignore=_ignore_special)
      return bool(problem)
    finally:
      _remove(folder)

  def _run(self, case, folder):
    """Returns the arguments, the Child, and what is wrong with how it ended, or None."""
    from tools import fuzz_cases

    here = os.path.join(folder, 'in')
    os.makedirs(os.path.join(here, 'out'))
    os.mkdir(os.path.join(folder, 'tmp'))
    for name in case.command.materials:
      source = os.path.join(self._materials, name)
      (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, os.path.join(here, name))
    argv = case.apply(here, random.Random(case.seed))
    before = snapshot(folder)
    child = self._runner.run(argv[0], argv[1:], timeout=TIMEOUT, cwd=here,
                             limits={'DATA': _MEMORY}, env={'TMPDIR': os.path.join(folder, 'tmp')})
    after = snapshot(folder)
    is_free = case.what.startswith('--')  # a flag may lead anywhere
    odd = [name + '/' for name in ('', *fuzz_cases.fuzz_faults.ODD_NAMES)]
    writable = [f'in/{name.lstrip("/")}{path}/' for name in odd for path in ('out', *case.command.writes)]
    problem = (wrong_end(child, argv)
               or changes(before, after, writable, is_free)
               or left_behind(before, after, folder, case.command.wholesome and child.status != 0))
    return argv, child, problem


# --- What has to hold ----------------------------------------------------------------------------


def wrong_end(child, argv):
  """Returns what is wrong with status and output, or None."""
  # A number may ask for memory, and a name be two lines.
  is_flag = any('=' in word or '\n' in word for word in argv)
  if child.timed_out:
    return f'it ran longer than {TIMEOUT} s'
  if child.status not in (0, 1, 2):
    return f'status {child.status}'
  stderr = without_progress(child.stderr)
  for text in (child.stdout, stderr):
    if 'Traceback' in text:
      return 'a traceback'
  if child.status == 0:
    return f'stderr after success: {stderr[:300]!r}' if stderr else None
  lines = stderr.rstrip('\n').split('\n')
  script = os.path.basename(argv[0])
  if not lines[0].startswith(f'{script}: error: '):
    return f'stderr does not begin with the sentence: {stderr[:300]!r}'
  if 'this is a defect' in stderr:
    return 'it calls itself a defect'
  if any(words in stderr for words in _MEMORY_RAN_OUT) and not is_flag:
    return 'a file took up the memory'
  if len(lines) > 1 and not any(words in stderr for words in _LISTS) and not is_flag:
    return f'{len(lines)} lines on stderr'
  if re.search(r'[\x00-\x08\x0b-\x1f\x7f]', stderr):
    return 'control characters on stderr'
  return None


def changes(before, after, writable, is_free):
  """Returns which of the files that were there has changed, or what is new elsewhere than it should be."""
  for path, state in before.items():
    if after.get(path) != state and not any((path + '/').startswith(place) for place in writable):
      return f'{path} is gone' if path not in after else f'{path} has changed'
  for path in after.keys() - before.keys():
    if not is_free and not any(path.startswith(place) for place in writable):
      return f'{path} is new, outside the output folder'
  return None


def left_behind(before, after, folder, is_failed):
  """Returns which new file is temporary, half written, or should not be there after a failure."""
  for path in sorted(after.keys() - before.keys()):
    if path.startswith('tmp/') or _TEMPORARY.search('/' + path):
      return f'{path} is left behind'
    if is_failed and os.path.isfile(os.path.join(folder, path)):
      return f'{path} was written by a command that failed'
    with contextlib.suppress(FileNotFoundError):
      problem = unreadable(os.path.join(folder, path))
      if problem:
        return f'{path} is half written: {problem}'
  return None


def unreadable(path):
  """Returns why a file that a script wrote cannot be read, or None."""
  from PIL import Image

  try:
    if path.endswith(('.png', '.jpg')) and os.path.isfile(path):
      with Image.open(path) as image:
        image.load()
    elif path.endswith('.json') and os.path.isfile(path):
      with open(path, encoding='utf-8') as file:
        json.load(file)
  except (OSError, SyntaxError, ValueError) as error:
    return str(error)
  return None


def without_progress(text):
  """Returns stderr without progress bars: what a line shows last, unless it is one."""
  bar = re.compile(r'.*\|.*(it|image)/s\]|.*\d+%\||.*\d+image \[.*/s\]')
  lines = [line.rsplit('\r', 1)[-1] for line in text.split('\n')]
  return '\n'.join(line for line in lines if not bar.match(line)).strip('\n')


def snapshot(folder):
  """Returns {path below a folder: what it is}: type, permissions, link target or digest of the content."""
  found = {}
  for parent, folders, names in os.walk(folder):
    for name in folders + names:
      path = os.path.join(parent, name)
      status = os.lstat(path)
      content = None
      if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
      elif stat.S_ISREG(status.st_mode):
        content = (status.st_size, _digest(path) if status.st_size < 1 << 28 else status.st_mtime_ns)
      found[os.path.relpath(path, folder)] = (status.st_mode, content)
  return found


def _digest(path):
  with open(path, 'rb') as file:
    return hashlib.sha256(file.read()).hexdigest()


# --- Files ---------------------------------------------------------------------------------------


def _remove(folder):
  """Removes a folder, whatever its permissions are."""
  for parent, folders, _ in os.walk(folder):
    for name in folders:
      path = os.path.join(parent, name)
      if not os.path.islink(path):
        os.chmod(path, 0o755)
  shutil.rmtree(folder, ignore_errors=True)


def _copy(source, target):
  """Copies a file, but no more of a large one than its name."""
  if os.path.getsize(source) < 1 << 30:
    shutil.copy2(source, target)


def _ignore_special(parent, names):
  """Returns the names of pipes and such, which cannot be copied."""
  return [name for name in names if stat.S_ISFIFO(os.lstat(os.path.join(parent, name)).st_mode)]


def _shortened(text, length=3000):
  text = text if len(text) <= length else f'{text[:length // 2]}\n...\n{text[-length // 2:]}'
  return text if not text or text.endswith('\n') else text + '\n'


if __name__ == '__main__':
  flags.run(main, make_parser())
