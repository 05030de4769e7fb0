"""What was exported runs in a fresh process without this project's code, and is compared with the Estimator.

The process runs commands/export_runner.py, on the CPU. Pictures and answers pass through files one at a time.
"""
import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import typing

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from commands import export_runner, photos
from dataset import image_files, lists, make_sample_data
from utils.errors import DataError

_MADE_UP = ((129, 193), (97, 161))  # sizes of the pictures if none are given
_CLOSE = 1e-3  # of two probabilities that were computed in another order


class Fresh:
  """A model in a fresh process; see `fresh`."""

  def __init__(self, process, folder, what):
    self._process, self._folder, self._what = process, folder, what

  def predict(self, inputs: dict, signature: str = 'serving_default') -> dict:
    """Returns the outputs, dict of name to array, for dict of name to array; see export_runner.

    Raises:
      DataError: the runtime cannot read the model or compute it.
    """
    source, target = (os.path.join(self._folder, name) for name in ('inputs.npz', 'outputs.npz'))
    np.savez(source, **inputs)
    with contextlib.suppress(BrokenPipeError):  # it has ended already; a buffer would raise this once more
      os.write(self._process.stdin.fileno(), json.dumps([source, target, signature]).encode() + b'\n')
    for line in self._process.stdout:
      if line.strip() == 'answered':
        with np.load(target) as outputs:
          return dict(outputs)
    raise DataError(f'{self._what} does not run in a fresh process: {self._reason()}; nothing was left in '
                    '--export_dir. Try another --format or --size, or report this')

  def _reason(self):
    status = self._process.wait()
    with open(os.path.join(self._folder, 'errors'), encoding='utf-8', errors='replace') as file:
      lines = [line.strip() for line in file if re.match(r'[\w.]+: ', line)]  # the end of a traceback
    return lines[-1][:300] if lines else f'it ended with status {status}'


@contextlib.contextmanager
def fresh(runtime: str, path: str, what: str) -> typing.Iterator[Fresh]:
  """Yields a Fresh: a model that a process of its own has loaded by a runtime.

  Args:
    runtime: saved_model, tflite or onnx.
    path: what was exported.
    what: what errors call it.
  """
  with tempfile.TemporaryDirectory() as folder:
    link = os.path.join(folder, 'model' + os.path.splitext(path)[1])
    os.symlink(os.path.abspath(path), link)  # TensorFlow would take [ ] * ? in the path itself for a pattern
    command = [sys.executable, export_runner.__file__, runtime, link]
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': '-1', 'PYTHONIOENCODING': 'utf-8'}
    with (open(os.path.join(folder, 'errors'), 'wb') as errors,
          subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=errors, text=True) as process):
      try:
        yield Fresh(process, folder, what)
      finally:
        process.kill()


# --- Pictures ------------------------------------------------------------------------------------


def find(given: list[str], flag: str) -> list[str]:
  """Returns the paths of the images that a flag names, files and folders; sorted within a folder.

  Raises:
    DataError: there is no such file, or no image in a folder.
  """
  paths = []
  for text in given:
    found = [text]
    if os.path.isdir(text):
      names = [name for name in sorted(os.listdir(text)) if lists.has_extension(name, lists.IMAGE_EXTENSIONS)]
      found = [photo.path for photo in photos.without_outputs(photos.list_photos(text, names))]
      if not found:
        raise DataError(f"{flag} '{text}' is a folder without an image; give images, or a folder of them")
    elif not os.path.isfile(text):
      raise DataError(f"{flag} '{text}' is no file or folder; check the path")
    paths += found
  return paths


def pictures(paths: list[str] | None, size: list[int] | None) -> typing.Iterator[np.ndarray]:
  """Yields uint8 [H, W, 3], RGB: the images, or made-up ones if `paths` is None.

  Args:
    size: (height, width) to which they are scaled, or None for their own.
  """
  if paths is None:
    for seed, made_up in enumerate(_MADE_UP):
      yield scaled(make_sample_data.draw_scene(np.random.default_rng(seed), made_up)[0], size)
  else:
    for path in paths:
      yield scaled(image_files.read_image(path), size)


def scaled(image, size):
  """Returns an image, uint8 [H, W, 3], scaled to size, (height, width), or as it is if that is None."""
  return image if size is None else np.asarray(
      Image.fromarray(image).resize(tuple(size[::-1]), Image.Resampling.BILINEAR))


# --- Comparison ----------------------------------------------------------------------------------


def expectations(estimator, checkpoint, images):
  """Yields pairs of an image, float32 [1, H, W, 3], and the Estimator's prediction of it.

  Args:
    estimator: Estimator.
    checkpoint: str.
    images: function that returns an iterator of uint8 [H, W, 3].
  """
  # GPUs from Ampere on would round what they multiply to 10 bits (TF32), here and there in other kernels.
  tf.config.experimental.enable_tensor_float_32_execution(False)

  def batches():
    return (image[None].astype(np.float32) for image in images())

  def input_fn():
    spec = tf.TensorSpec([1, None, None, 3], tf.float32)
    return tf.data.Dataset.from_generator(batches, output_signature=spec)

  yield from zip(batches(), estimator.predict(input_fn, checkpoint_path=checkpoint))


@dataclasses.dataclass
class Agreement:
  """How far a model that was exported agrees with the Estimator.

  Attributes:
    checkpoint: str.
    pictures, pixels, equal: ints, how many were compared, and how many pixels have the same class.
    difference: float, the largest of a probability.
  """
  checkpoint: str
  pictures: int = 0
  pixels: int = 0
  equal: int = 0
  difference: float = 0.

  def add(self, actual, expected):
    """Counts a picture.

    Args:
      actual: dict with probabilities, float32 [1, H, W, K], and classes, integer [1, H, W, 1].
      expected: dict with probabilities [H, W, K] and classes [H, W, 1].

    Raises:
      DataError: probabilities are no numbers.
    """
    for what, values in ((self.checkpoint, expected['probabilities']),
                         (f'what was exported of {self.checkpoint}', actual['probabilities'])):
      if not np.isfinite(values).all():
        raise DataError(f'{what} predicts probabilities that are no finite numbers (NaN or infinity); '
                        'nothing was left in --export_dir. Export an earlier checkpoint, or train again')
    probabilities, of_model = actual['probabilities'][0], expected['probabilities']
    self.count(actual['classes'][0, :, :, 0], expected['classes'][:, :, 0])
    self.difference = max(self.difference, float(np.abs(probabilities - of_model).max()))

  def count(self, classes, expected):
    """Counts a picture whose classes alone are known, integer [H, W] each."""
    self.pictures += 1
    self.pixels += expected.size
    self.equal += int((classes == expected).sum()) if classes.shape == expected.shape else 0

  def require(self, least: float, is_float: bool) -> None:
    """Raises DataError if fewer than `least`, 0..1, of the pixels agree, or probabilities are not close.

    Args:
      is_float: whether probabilities have to be those of the model up to rounding.
    """
    if is_float and not self.difference <= _CLOSE:
      raise DataError(f'what was exported of {self.checkpoint} differs from it by {self.difference:.3g} in '
                      'the probabilities of the same image; nothing was left in --export_dir. Please '
                      'report this')
    if self.equal < least * self.pixels:
      advice = ('Please report this' if is_float else 'Give --calibration more photos, and --check_images '
                'some, of the kind that it is to see, or leave --calibration out')
      raise DataError(f'{self}, and {least:.1%} is the least that is allowed; nothing was left in '
                      f'--export_dir. {advice}')

  def __str__(self):
    share = 10000 * self.equal // self.pixels / 100  # rounded down: 100% is all of them
    return (f'{share:.2f}% of {self.pixels:,} pixels in {self.pictures} picture(s) have the same class; '
            f'probabilities differ by up to {self.difference:.2g}')
