"""Runs the project's scripts as child processes without paying each time for the import of TensorFlow.

A process per group of scripts, the zygote, imports TensorFlow and the project's modules once, and makes no
session. For each command it forks; the fork runs the script's file as `python SCRIPT.py` would, down to
sys.argv, `__main__` and the exit status, in a process group of its own, with its output in files. A child
starts in a few hundredths of a second, and trains to the bit what a process of its own would.

  with children.Children() as runner:
    child = runner.start('train.py', ['--model_dir', folder])
    child.kill(signal.SIGKILL)          # the whole group
    status = child.wait(timeout=60)     # -9, as subprocess says it; after a timeout child.timed_out
    print(child.stdout, child.stderr)

What it cannot show: variables that Python or TensorFlow read while they start (PYTHONUTF8, TF_*) act only
through `Children(env=...)`; and the code is that of the first start of each group.
"""
import atexit
import contextlib
import gc
import json
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, ROOT)  # where our modules are

from commands import flags  # noqa: E402

# TensorFlow decides at its import whether it uses oneDNN everywhere, and train.py alone asks for it
# (flags.enable_onednn). So the trainings have a zygote of their own.
_TRAINING = ('train.py',)
_TICK = 0.01  # seconds between two looks at whether a child has ended


class Child:
  """A script that runs, or has run.

  Attributes:
    command: list of str, to be shown: the script and its arguments.
    pid: int, the process, which leads a group of the same number.
    status: int, as subprocess says it (-9: killed by SIGKILL), or None while it runs.
    timed_out: bool, `wait` had to end it.
    seconds: float, how long it ran, or None while it runs.
  """

  def __init__(self, command, folder, kill):
    self.command = command
    self.pid = self.status = self.seconds = None
    self.timed_out = False
    self.started, self.ended = threading.Event(), threading.Event()
    self._begun = time.monotonic()
    self._folder = folder
    self._kill = kill

  def kill(self, number=signal.SIGKILL):
    """Sends a signal to the group of the process, unless that has ended."""
    if not self.ended.is_set():
      self._kill(number)

  def wait(self, timeout=None):
    """Returns the status; after `timeout` seconds ends the group by SIGKILL and sets `timed_out`."""
    if not self.ended.wait(timeout):
      self.timed_out = True
      self.kill()
      self.ended.wait()
    if self.status is None:
      raise RuntimeError('the process that all children are forked from has ended')
    return self.status

  @property
  def stdout(self):
    """What it has written to stdout so far, a str."""
    return _read(os.path.join(self._folder, 'stdout'))

  @property
  def stderr(self):
    """What it has written to stderr so far, a str."""
    return _read(os.path.join(self._folder, 'stderr'))

  @property
  def output(self):
    """Both, stdout before stderr, whatever their order was in time."""
    return self.stdout + self.stderr

  def _end(self, status):
    self.status, self.seconds = status, time.monotonic() - self._begun
    self.ended.set()


class Children:
  """Starts scripts as children; a context that ends what still runs when it is left."""

  def __init__(self, env=None):
    """Args: env, dict of variables that the zygotes and so all children get besides this process's own.

    The libraries keep silent as they do in scripts (utils/quiet.py), also with --verbose.
    """
    self._env = {'TF_CPP_MIN_LOG_LEVEL': '3', 'OPENCV_LOG_LEVEL': 'SILENT', **os.environ, **(env or {})}
    self._folder = tempfile.mkdtemp(prefix='children_')
    self._zygotes = {}
    self._count = 0
    atexit.register(self.close)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def start(self, script, argv=(), cwd=None, env=None, limits=None, uid=None):
    """Starts a script and returns its Child at once.

    Args:
      script: str, its path below the repository's folder, such as train.py or tools/create_tf_record.py.
      argv: list, the arguments; what is no str becomes one.
      cwd: str, the folder it runs in; None is the repository's.
      env: dict of variables to set, or where the value is None to remove.
      limits: dict of resource limits, {'FSIZE': 1 << 20} for RLIMIT_FSIZE, beyond which a write fails as on a
        full disk (EFBIG in place of ENOSPC). It also bounds the files of the output.
      uid: int, the user and group to become, for file permissions, which mean nothing to root; or None.
    """
    training = script in _TRAINING
    if training not in self._zygotes:
      self._zygotes[training] = _Zygote(training, self._env)
    self._count += 1
    folder = os.path.join(self._folder, str(self._count))
    os.makedirs(folder)
    for name in ('stdout', 'stderr'):  # a child may be killed before it has opened them
      open(os.path.join(folder, name), 'w').close()
    return self._zygotes[training].start(folder, dict(
        script=script, argv=[str(arg) for arg in argv], cwd=cwd or ROOT, env=env or {}, limits=limits or {},
        uid=uid))

  def run(self, script, argv=(), timeout=None, **options):
    """Starts a script, waits for its end, and returns its Child; see `start` and Child.wait."""
    child = self.start(script, argv, **options)
    child.wait(timeout)
    return child

  def close(self):
    """Ends all children and removes their output."""
    atexit.unregister(self.close)
    for zygote in self._zygotes.values():
      zygote.close()
    self._zygotes = {}
    shutil.rmtree(self._folder, ignore_errors=True)


class _Zygote:
  """This process's end of a zygote: requests and answers, a JSON text a line, over a socket."""

  def __init__(self, training, env):
    self._socket, theirs = socket.socketpair()
    with theirs:
      self._process = subprocess.Popen(
          [sys.executable, os.path.abspath(__file__), str(theirs.fileno()), 'train' if training else 'other'],
          env=env, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
          stderr=subprocess.DEVNULL, start_new_session=True)
    self._children = {}
    self._lock = threading.Lock()
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def start(self, folder, request):
    name = os.path.basename(folder)
    child = Child(['python', request['script'], *request['argv']], folder,
                  lambda number: self._send(dict(kill=name, signal=int(number))))
    self._children[name] = child
    self._send(dict(start=name, folder=folder, **request))
    child.started.wait()
    if child.pid is None:
      raise RuntimeError('TensorFlow or a module of the project could not be imported')
    return child

  def close(self):
    self._socket.shutdown(socket.SHUT_RDWR)  # at which the zygote ends its children, and then itself
    self._process.wait()
    self._reader.join()
    self._socket.close()

  def _send(self, message):
    with self._lock, contextlib.suppress(OSError):  # it has ended: the reader tells
      self._socket.sendall(json.dumps(message).encode() + b'\n')

  def _read(self):
    with self._socket.makefile('rb') as lines, contextlib.suppress(OSError):
      for line in lines:
        answer = json.loads(line)
        child = self._children[answer['name']]
        if 'pid' in answer:
          child.pid = answer['pid']
          child.started.set()
        else:
          child._end(answer['status'])
    for child in self._children.values():
      child.started.set()
      child.ended.set()


def _read(path):
  with open(path, encoding='utf-8', errors='replace') as file:
    return file.read()


# What follows runs in the zygote and its forks.


def _serve(channel, training):
  """Forks a process for each request that comes in over a socket.

  Returns in each fork: the request, a dict. In the zygote it does not return.
  """
  _import_all(training)
  running = {}  # names of children to process ids
  waiting = b''
  while True:
    if select.select([channel], [], [], _TICK if running else None)[0]:
      received = channel.recv(1 << 16)
      if not received:
        break
      *lines, waiting = (waiting + received).split(b'\n')
      for request in map(json.loads, lines):
        if 'kill' in request:
          _signal_group(running.get(request['kill']), request['signal'])
          continue
        pid = os.fork()
        if not pid:
          channel.close()
          # nohup, or a shell in the background, lets its children ignore them; a script is to obey here too.
          signal.signal(signal.SIGINT, signal.default_int_handler)
          signal.signal(signal.SIGHUP, signal.SIG_DFL)
          return request
        os.setpgid(pid, pid)  # here too, so that a signal sent at once finds the group
        running[request['start']] = pid
        _answer(channel, name=request['start'], pid=pid)
    for name, pid in list(running.items()):
      ended, status = os.waitpid(pid, os.WNOHANG)
      if ended:
        del running[name]
        _signal_group(pid, signal.SIGKILL)  # what it left running
        _answer(channel, name=name, status=os.waitstatus_to_exitcode(status))
  for pid in running.values():
    _signal_group(pid, signal.SIGKILL)
  os._exit(0)


def _import_all(training):
  """Imports what takes time in every child. No session is made and no device looked at: no thread starts."""
  if training:
    flags.enable_onednn()
  import cv2  # noqa: F401
  import tqdm  # noqa: F401

  import deeplab_model  # noqa: F401
  from dataset import conversion, inputs, predictions, tf_records  # noqa: F401
  from training import batch_size, tf_estimator  # noqa: F401
  gc.collect()
  gc.freeze()  # so that collections in the forks do not copy the memory they share


def _answer(channel, **answer):
  with contextlib.suppress(OSError):  # nobody is there: the next look at the channel tells
    channel.sendall(json.dumps(answer).encode() + b'\n')


def _signal_group(pid, number):
  if pid is not None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(pid, number)


def _become(request):
  """Runs the script of a request in this process, as `python SCRIPT ARGUMENTS` would."""
  os.setpgid(0, 0)
  for number, name in enumerate(('stdout', 'stderr'), 1):
    file = os.open(os.path.join(request['folder'], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, number)
    os.close(file)
  for name, value in request['env'].items():
    os.environ.pop(name, None)
    if value is not None:
      os.environ[name] = value
  for name, most in request['limits'].items():
    kind = getattr(resource, 'RLIMIT_' + name)
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
  if request['uid'] is not None:
    os.setgroups([])
    os.setgid(request['uid'])
    os.setuid(request['uid'])
  os.chdir(request['cwd'])
  script = os.path.join(ROOT, request['script'])
  sys.path[0] = os.path.dirname(script)
  sys.argv = [script, *request['argv']]
  runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
  _become(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2] == 'train'))
