"""The devices that a script computes on: taken, refused, described; and TensorFlow's environment for them.

TensorFlow reads environment variables when it makes its first device, some of them only once, so `prepare`
comes before anything else and does not import it (commands/flags.py calls it for every script). What the user
has set stays, but for packages that need not be here. Children inherit it all.
"""
import contextlib
import ctypes
import math
import os
import pathlib
import re
import typing

from utils.errors import UsageError

_ENVIRONMENT = {
    # A session's option alone has no effect: training and predicting make TensorFlow's eager context before
    # it, and that would take all memory of the GPU, beside which no other script could run.
    'TF_FORCE_GPU_ALLOW_GROWTH': 'true',
    # Two threads of their own a GPU launch its kernels; decoding, in the shared ones, cannot hold them up.
    'TF_GPU_THREAD_MODE': 'gpu_private',
    'TF_GPU_THREAD_COUNT': '2',
    # What the driver has to compile for a card that TensorFlow's wheel knows as PTX alone takes a while, and
    # more room on disk than it may fill by default. 4 GiB is the most that it can be given.
    'CUDA_CACHE_MAXSIZE': '4294967296',
    # glibc gives threads arenas of their own; what one frees the others cannot have: the shuffle buffer of
    # each epoch took its memory anew.
    'MALLOC_ARENA_MAX': '1',
}
_M_ARENA_MAX = -8  # of malloc.h
# Limits of a container, or of a scheduler's job: by controller and whether the cgroup is of version 1.
_OWN_CGROUPS, _CGROUPS = '/proc/self/cgroup', '/sys/fs/cgroup'
_CGROUP_FILES = {
    ('cpu', False): ('cpu.max',),  # quota and period
    ('cpu', True): ('cpu.cfs_quota_us', 'cpu.cfs_period_us'),
    ('memory', False): ('memory.max', 'memory.current'),
    ('memory', True): ('memory.limit_in_bytes', 'memory.usage_in_bytes'),
}
_THREADS_PER_GPU = int(_ENVIRONMENT['TF_GPU_THREAD_COUNT'])
_AUTOTUNING = 'TF_CUDNN_USE_AUTOTUNE'
_FAST_BATCH_NORM = 'TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT'

AMPERE = (8, 0)  # computes bfloat16 and TF32 at full speed
_BLACKWELL = (10, 0)  # the first on which the PTX of TensorFlow's wheels, up to 2.21, fails
_CONTAINER = 'nvcr.io/nvidia/tensorflow:25.02-tf2-py3'
_SIGNS_OF_A_DRIVER = ('/dev/nvidia0', '/proc/driver/nvidia/version')
_SHOWS_WHY = 'TF_CPP_MIN_LOG_LEVEL=0 python -c "import tensorflow as tf; tf.config.list_physical_devices()"'


# --- The environment -----------------------------------------------------------------------------


def prepare() -> None:
  """Sets what TensorFlow is to find in its environment; to be called before it is imported."""
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  # What is set for other programs: tf.estimator asks for Keras, and no picture here is shown by Matplotlib.
  os.environ.update(KERAS_BACKEND='tensorflow', TF_USE_LEGACY_KERAS='0', MPLBACKEND='agg')
  # glibc has read its own before this process began. Other C libraries have neither arenas nor this call.
  with contextlib.suppress(AttributeError, OSError, TypeError, ValueError):
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, int(os.environ['MALLOC_ARENA_MAX']))


@contextlib.contextmanager
def without_autotuning() -> typing.Iterator[None]:
  """Within it cuDNN's kernels are picked by rule; for images of many sizes.

  By itself TensorFlow runs and times all kernels of cuDNN for every convolution at each new size of its input
  (0.5 to 2.5 s an image size, estimated), which pays in training, where all batches are of one size. It looks
  at the variable whenever a session first runs a convolution. A value that the user has set stays.
  """
  if _AUTOTUNING in os.environ:
    yield
    return
  os.environ[_AUTOTUNING] = '0'
  try:
    yield
  finally:
    del os.environ[_AUTOTUNING]


def use_fast_batch_norm(params: dict[str, typing.Any]) -> None:
  """Lets cuDNN train batch norm with channels last, as half precision has them; before the first session.

  Otherwise TensorFlow transposes each layer's activations to channels first and back, forward and backward.

  Args:
    params: with precision and data_format, of training.
  """
  if params['precision'] != 'fp32' and params['data_format'] == 'channels_last':
    os.environ.setdefault(_FAST_BATCH_NORM, '1')


# --- Which devices -------------------------------------------------------------------------------


def take(num_gpus: int = 1, precision: str = 'fp32') -> None:
  """Makes the first GPUs those of this process, and prints what its user should know of them.

  To be called before anything is computed, when TensorFlow opens all GPUs that it may use.

  Args:
    num_gpus: fewer are taken if there are fewer, and none is the CPU.
    precision: of the convolutions: fp32, bf16 or fp16.

  Raises:
    UsageError: this TensorFlow has no code for one of them.
  """
  limit(num_gpus)
  for sentence in _warnings(precision):
    print(sentence, flush=True)


def limit(num_gpus: int) -> None:
  """Makes the first GPUs those of this process; the others are left alone."""
  import tensorflow.compat.v1 as tf

  gpus = tf.config.list_physical_devices('GPU')[:num_gpus]
  try:
    tf.config.set_visible_devices(gpus, 'GPU')
  except RuntimeError as error:  # it has computed something already
    raise UsageError(f'this process has opened {len(taken())} GPUs and cannot change to {num_gpus}; start a '
                     'new one') from error


@contextlib.contextmanager
def cpu_session() -> typing.Iterator:
  """A context of a new graph and a session of it on the CPU, a tf.Session."""
  import tensorflow.compat.v1 as tf

  with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(device_count={'GPU': 0})) as session:
    tf.set_random_seed(1)  # without one TF_DETERMINISTIC_OPS and --deterministic refuse iterators too
    yield session


def taken() -> list:
  """Returns the GPUs of this process, a list of tf.config.PhysicalDevice; it is empty for the CPU."""
  import tensorflow.compat.v1 as tf

  return tf.config.get_visible_devices('GPU')


def visible_device_list() -> str:
  """Returns the GPUs of this process as GPUOptions of a session have them, such as '0,1'.

  The eager context is told by `limit`, and TensorFlow allows the two no difference.
  """
  import tensorflow.compat.v1 as tf

  gpus = tf.config.list_physical_devices('GPU')
  return ','.join(str(gpus.index(gpu)) for gpu in taken())


def capability() -> tuple[int, int] | None:
  """Returns the lowest compute capability of this process's GPUs, such as (8, 0); None if none is known."""
  return min((each for _, each in map(_details, taken()) if each), default=None)


def describe() -> str:
  """Returns in a few words what computes.

  '2 of 4 GPUs: NVIDIA A100-SXM4-40GB (compute capability 8.0)', or 'the CPU: 2 cores, 23.5 GiB of memory,
  20.1 of it unused'.
  """
  import tensorflow.compat.v1 as tf

  if gpus := taken():
    of = len(tf.config.list_physical_devices('GPU'))
    names = dict.fromkeys(_name(*_details(gpu)) for gpu in gpus)
    return f'{len(gpus)} of {of} GPU{"s" * (of > 1)}: {", ".join(names)}'
  try:
    page, unit = os.sysconf('SC_PAGE_SIZE'), 1 << 30
    free, total = (page * os.sysconf(name) for name in ('SC_AVPHYS_PAGES', 'SC_PHYS_PAGES'))
    for limit, used in _limits('memory'):
      free, total = min(free, max(0, limit - used)), min(total, limit)
    return f'the CPU: {cores()} cores, {total / unit:.1f} GiB of memory, {free / unit:.1f} of it unused'
  except (AttributeError, ValueError):  # not on Linux
    return f'the CPU: {cores()} cores'


def input_threads() -> int:
  """Returns how many threads of their own decode and augment; 0 is none of their own.

  With GPUs these are all cores but those of the threads that launch kernels. A CPU is busy with the network.
  """
  gpus = len(taken())
  return max(2, cores() - _THREADS_PER_GPU * gpus) if gpus else 0


def cores() -> int:
  """Returns how many cores this process may use: those allowed to it, or what its container's quota makes."""
  allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  return min([allowed, *(math.ceil(quota / period) for quota, period in _limits('cpu'))])


def _limits(controller):
  """Returns the limits of this process's cgroup and of those above it, pairs of ints: see _CGROUP_FILES."""
  found: list[tuple[int, int]] = []
  if not os.path.exists(_OWN_CGROUPS):  # not on Linux
    return found
  for line in pathlib.Path(_OWN_CGROUPS).read_text().splitlines():
    _, controllers, path = line.split(':', 2)
    if controllers and controller not in controllers.split(','):
      continue
    names = _CGROUP_FILES[controller, bool(controllers)]
    folder = pathlib.Path(_CGROUPS, controller if controllers else '', path.lstrip('/'))
    for place in (folder, *folder.parents):  # in a container the first may be the host's, and not be there
      with contextlib.suppress(OSError, ValueError):  # "max" is no limit, and so is -1
        limit, other = map(int, ' '.join(place.joinpath(name).read_text() for name in names).split())
        found += [(limit, other)] * (limit > 0)
  return found


def _details(gpu):
  """Returns a GPU's name and compute capability, such as 'NVIDIA A100' and (8, 0); None if not known."""
  import tensorflow.compat.v1 as tf

  details = tf.config.experimental.get_device_details(gpu)
  return details.get('device_name', gpu.name), details.get('compute_capability')


def _name(name, capability):
  return f'{name} (compute capability {_dotted(capability)})' if capability else name


def _dotted(capability):
  return '.'.join(map(str, capability))


# --- What to say of them -------------------------------------------------------------------------


def _warnings(precision):
  """Returns a list of sentences; see `take`."""
  cards = dict.fromkeys(_details(gpu) for gpu in taken())
  known = [card for card in cards if card[1]]
  found = [_missing_gpu()] if not cards else []
  for card in known:
    found.append(_checked(*card))
    if precision == 'bf16' and card[1] < AMPERE:
      found.append(f'Warning: {_name(*card)} computes --precision bf16 in float32 and casts around each '
                   'layer, slower than fp32; half precision for it is fp16')
  return [sentence for sentence in found if sentence]


def _missing_gpu():
  """Returns a warning if there is an NVIDIA driver and TensorFlow sees no GPU, unless that is intended."""
  import tensorflow.compat.v1 as tf

  if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1') or not any(
      map(os.path.exists, _SIGNS_OF_A_DRIVER)):
    return None
  why = (f'this shows why: {_SHOWS_WHY}' if tf.test.is_built_with_cuda() else
         'this build of it has no CUDA: pip install -r requirements-gpu.txt')
  return f'Warning: this machine has an NVIDIA driver, but TensorFlow sees no GPU and uses the CPU; {why}'


def _checked(name, capability):
  """Returns a note if the driver has to compile kernels for a card first, else None.

  Raises:
    UsageError: it cannot.
  """
  import tensorflow.compat.v1 as tf

  build = tf.sysconfig.get_build_info()
  listed = build.get('cuda_compute_capabilities', ())
  version = f'TensorFlow {tf.__version__}'
  code = code_for(capability, listed)
  if code is None:
    others = (f"use NVIDIA's container, {_CONTAINER}" if capability >= _BLACKWELL
              else 'use an earlier TensorFlow')
    raise UsageError(f'{version} has no code for {_name(name, capability)}, but for {", ".join(listed)}; '
                     f'{others}, or compute on the CPU by CUDA_VISIBLE_DEVICES=-1')
  if code == 'compute':
    return (f'Note: {version} has many kernels for {_name(name, capability)} as PTX alone, which the driver '
            'compiles and keeps in ~/.nv/ComputeCache: the first run starts later. The driver must know '
            f'CUDA {build.get("cuda_version", "")} or later (nvidia-smi shows what it knows)')
  return None


def code_for(capability: tuple[int, int], listed: typing.Iterable[str]) -> str | None:
  """Returns what TensorFlow's build has for a card: 'sm' (binary code), 'compute' (PTX), or None.

  Binary code runs on later cards of the same major number; PTX is compiled for any later one, but that of
  the wheels up to 2.21 fails on Blackwell ("CUDA_ERROR_INVALID_HANDLE"), which needs an entry of its own. Of
  an entry such as compute_90 the wheels hold some of the kernels as binary code too, and all as PTX.

  Args:
    listed: such as ['sm_80', 'compute_90']; an empty one says nothing, and counts as 'sm'.
  """
  found = [re.fullmatch(r'(sm|compute)_(\d+)(\d)\w?', entry) for entry in listed]
  entries = [(match[1], (int(match[2]), int(match[3]))) for match in found if match]
  if not entries:
    return 'sm'
  earlier = [(kind, each) for kind, each in entries if each <= capability]
  if any(kind == 'sm' and each[0] == capability[0] for kind, each in earlier):
    return 'sm'
  is_new = capability >= _BLACKWELL
  return 'compute' if any(kind == 'compute' and (each >= _BLACKWELL or not is_new)
                          for kind, each in earlier) else None
