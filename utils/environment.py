"""What libraries find in their environment, and the cores that there are. Free of TensorFlow.

TensorFlow reads some environment variables only once, when it makes its first device, so every script calls
`prepare` first (commands/flags.py). What the user has set stays. Children inherit it all.
"""
import contextlib
import ctypes
import math
import os
import typing

_VARIABLES = {
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
    'OPENCV_IO_MAX_IMAGE_PIXELS': '178956970',  # image_files.MAX_PIXELS; OpenCV reads it when it is imported
}
THREADS_PER_GPU = int(_VARIABLES['TF_GPU_THREAD_COUNT'])
_M_ARENA_MAX = -8  # of malloc.h
_AUTOTUNING = 'TF_CUDNN_USE_AUTOTUNE'
_FAST_BATCH_NORM = 'TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT'
_QUOTA = '/sys/fs/cgroup/cpu.max'  # of a container


def prepare() -> None:
  """Sets what TensorFlow is to find in its environment; to be called before it is imported."""
  for name, value in _VARIABLES.items():
    os.environ.setdefault(name, value)
  # What is set for other programs: tf.estimator asks for Keras, and no picture here is shown by Matplotlib.
  os.environ.update(KERAS_BACKEND='tensorflow', TF_USE_LEGACY_KERAS='0', MPLBACKEND='agg')
  # glibc has read its own before this process began. Other C libraries have neither arenas nor this call.
  with contextlib.suppress(AttributeError, OSError, TypeError, ValueError):
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, int(os.environ['MALLOC_ARENA_MAX']))


@contextlib.contextmanager
def without_autotuning() -> typing.Iterator[None]:
  """Within it cuDNN's kernels are picked by rule; for images of many sizes.

  By itself TensorFlow times all kernels of cuDNN for every convolution at each new size of its input, which
  pays in training, where all batches are of one size. It looks at the variable whenever a session first runs
  a convolution. A value that the user has set stays.
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


def cores() -> int:
  """Returns how many cores this process may use: those allowed to it, or what its container's quota makes."""
  allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  with contextlib.suppress(OSError, ValueError):  # not in a container; "max" is no quota
    with open(_QUOTA, encoding='utf-8') as file:
      quota, period = map(int, file.read().split())
    allowed = min(allowed, math.ceil(quota / period))
  return allowed
