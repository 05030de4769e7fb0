"""Runs the cases of tests/fuzz/fuzz.py, and says what of what has to hold does not."""
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

from PIL import Image

from tests.fuzz import cases

TIMEOUT = 60   # seconds of a case, where nothing else runs
_MEMORY = 12 << 30  # bytes of data that a script may reserve; TensorFlow itself takes two
# prctl, and the capabilities of root for which permissions mean nothing (linux/capability.h).
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2
_TEMPORARY = re.compile(r'\.tmp|/temp-|/tmp[^/]{8}$|saving')
# Sentences that may go on over several lines, one for each bad file.
_LISTS = ('pairs of image and label are bad', 'no example is left for', 'is not in ', 'does not exist',
          'have the label', 'could be ')
_MEMORY_RAN_OUT = ('memory ran out', 'the memory is not enough')


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
    cases.write_materials(self._materials, self._make)
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
    return self.fails_at(cases.plan(seed, number), f'--seed {seed} --case {number}', keep, verbose)

  def fails_at(self, case, again, keep=None, verbose=False):
    """Runs a case; returns whether it failed, and prints how.

    Args:
      case: cases.Case.
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
              f'  python tests/fuzz/fuzz.py {again} --keep build/fuzz\n'
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
    here = os.path.join(folder, 'in')
    os.makedirs(os.path.join(here, 'out'))
    os.mkdir(os.path.join(folder, 'tmp'))
    for name in case.command.materials:
      source = os.path.join(self._materials, name)
      (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, os.path.join(here, name))
    argv = case.apply(here, random.Random(case.seed))
    before = snapshot(folder)
    shared = max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
    child = self._runner.run(argv[0], argv[1:], timeout=TIMEOUT * shared, cwd=here,
                             limits={'DATA': _MEMORY}, env={'TMPDIR': os.path.join(folder, 'tmp')})
    after = snapshot(folder)
    is_free = case.what.startswith('--')  # a flag may lead anywhere
    odd = [name + '/' for name in ('', *cases.faults.ODD_NAMES)]
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
    if not is_free and not any((path + '/').startswith(place) for place in writable):
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
  """Returns stderr without the lines that tell how far something is (utils/progress.py)."""
  line = re.compile(r'(?!.*error: ).+: \d+( of \d+)? \w+s(, .*)?')
  return '\n'.join(found for found in text.split('\n') if not line.fullmatch(found)).strip('\n')


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
