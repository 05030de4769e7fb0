"""The benchmark's reference of a whole command: images are predicted as the original inference.py does it.

  python -m benchmarks.original MODEL_DIR OUTPUT_DIR IMAGE [IMAGE ...]

The graph is that of benchmarks/reference.py, and predicts probabilities too. Python colours the label
map pixel by pixel, and matplotlib draws it without axes and saves it.
"""
import os
import sys

import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib import pyplot
from PIL import Image

from benchmarks import reference
from commands import model_config
from deeplab_model import deeplabv3_plus_model_fn
from training.tf_estimator import Estimator


def main(model_dir, output_dir, *paths):
  stored = model_config.read(model_dir)
  palette = stored.dataset.palette

  def colored(label):
    picture = Image.new('RGB', (label.shape[1], label.shape[0]))
    pixels = picture.load()
    for y, row in enumerate(label):
      for x, value in enumerate(row):
        pixels[x, y] = palette[value]
    return np.array(picture)

  def model_fn(features, labels, mode, params):
    with reference.as_the_originals():
      return deeplabv3_plus_model_fn(features, labels, mode, params)

  def images():
    def read(path):
      return tf.cast(tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False), tf.float32)

    return tf.data.Dataset.from_tensor_slices(list(paths)).map(read).prefetch(1).batch(1)

  os.makedirs(output_dir, exist_ok=True)
  estimator = Estimator(model_fn, model_dir, params={**vars(stored.architecture), 'portable': True})
  for path, prediction in zip(paths, estimator.predict(images)):
    pyplot.axis('off')
    pyplot.imshow(colored(prediction['classes'][:, :, 0]))
    stem = os.path.splitext(os.path.basename(path))[0]
    pyplot.savefig(os.path.join(output_dir, f'{stem}_mask.png'), bbox_inches='tight')
    pyplot.close()


if __name__ == '__main__':
  main(*sys.argv[1:])
