"""The devices that a script computes on: taken and described. What each GPU needs stands in docs/gpu.md."""
import contextlib
import os
import typing

import tensorflow.compat.v1 as tf

from utils import environment

_SIGNS_OF_A_DRIVER = ('/dev/nvidia0', '/proc/driver/nvidia/version')
_SHOWS_WHY = 'TF_CPP_MIN_LOG_LEVEL=0 python -c "import tensorflow as tf; tf.config.list_physical_devices()"'


def take(num_gpus: int = 1) -> None:
  """Makes the first GPUs those of this process, and warns if a driver is there and none of them.

  To be called before anything is computed, when TensorFlow opens all GPUs that it may use.

  Args:
    num_gpus: fewer are taken if there are fewer, and none is the CPU.
  """
  limit(num_gpus)
  if not taken() and os.environ.get('CUDA_VISIBLE_DEVICES') not in ('', '-1') and any(
      map(os.path.exists, _SIGNS_OF_A_DRIVER)):
    why = (f'this shows why: {_SHOWS_WHY}' if tf.test.is_built_with_cuda() else
           'this build of it has no CUDA: pip install -r requirements-gpu.txt')
    print(f'Warning: this machine has an NVIDIA driver, but TensorFlow sees no GPU and uses the CPU; {why}',
          flush=True)


def limit(num_gpus: int) -> None:
  """Makes the first GPUs those of this process; the others are left alone."""
  tf.config.set_visible_devices(tf.config.list_physical_devices('GPU')[:num_gpus], 'GPU')


@contextlib.contextmanager
def cpu_session() -> typing.Iterator[tf.Session]:
  """A context of a new graph and a session of it on the CPU."""
  with tf.Graph().as_default(), tf.Session(config=tf.ConfigProto(device_count={'GPU': 0})) as session:
    tf.set_random_seed(1)  # without one TF_DETERMINISTIC_OPS and --deterministic refuse iterators too
    yield session


def taken() -> list:
  """Returns the GPUs of this process, a list of tf.config.PhysicalDevice; it is empty for the CPU."""
  return tf.config.get_visible_devices('GPU')


def visible_device_list() -> str:
  """Returns the GPUs of this process as GPUOptions of a session have them, such as '0,1'.

  The eager context is told by `limit`, and TensorFlow allows the two no difference.
  """
  gpus = tf.config.list_physical_devices('GPU')
  return ','.join(str(gpus.index(gpu)) for gpu in taken())


def describe() -> str:
  """Returns what computes: '2 of 4 GPUs: NVIDIA A100 (compute capability 8.0)', or 'the CPU: 2 cores'."""
  gpus = taken()
  if not gpus:
    return f'the CPU: {environment.cores()} cores'
  of = len(tf.config.list_physical_devices('GPU'))
  names = dict.fromkeys(name + (f' (compute capability {each[0]}.{each[1]})' if each else '')
                        for name, each in map(_details, gpus))
  return f'{len(gpus)} of {of} GPU{"s" * (of > 1)}: {", ".join(names)}'


def _details(gpu):
  """Returns a GPU's name and compute capability, such as 'NVIDIA A100' and (8, 0); None if not known."""
  details = tf.config.experimental.get_device_details(gpu)
  return details.get('device_name', gpu.name), details.get('compute_capability')


def input_threads() -> int:
  """Returns how many threads of their own decode and augment; 0 is none of their own.

  With GPUs these are all cores but those of the threads that launch kernels. A CPU is busy with the network.
  """
  gpus = len(taken())
  return max(2, environment.cores() - environment.THREADS_PER_GPU * gpus) if gpus else 0
