"""A model of a pixel's colour alone, which trains in no time, and what tests of evaluation do with it."""
import os
import shutil
import tempfile
import unittest
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

import deeplab_model
from commands import model_config
from nets.architecture import Architecture


def color_network(images, architecture, is_training, batch_norm_decay=None, *_):
  """Stands in for deeplab_model.network: a pixel's class is a linear function of its colour alone."""
  weights = tf.get_variable('weights', [3, architecture.num_classes])
  return tf.einsum('bhwc,ck->bhwk', tf.cast(images, tf.float32) - 128, weights)


def write_model(folder, dataset, steps=(1,)):
  """Writes color_networks of random weights, as train.py would leave them."""
  architecture = Architecture('resnet_v2_50', dataset.num_classes)
  os.makedirs(folder, exist_ok=True)
  for step in steps:
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(2 + step)
      color_network(tf.zeros([1, 33, 33, 3]), architecture, is_training=False)
      at_step = tf.train.create_global_step().assign(step)
      saver = tf.train.Saver()
      session.run(tf.global_variables_initializer())
      session.run(at_step)
      saver.save(session, os.path.join(folder, 'model.ckpt'), global_step=step)
  model_config.write(folder, architecture, dataset, {})


def write_photo(path, size, rng):
  """Writes an image of noise."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  Image.fromarray(rng.randint(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def read_index(path):
  """Returns a PNG's values, int [H, W]."""
  return np.asarray(Image.open(path)).astype(int)


class EvaluateTest(unittest.TestCase):
  dataset = None  # of the model that a class of tests shares

  @classmethod
  def setUpClass(cls):
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.folder = folder.name
    patch = mock.patch.object(deeplab_model, 'network', color_network)
    patch.start()
    cls.addClassCleanup(patch.stop)
    cls.model = os.path.join(cls.folder, 'model')
    write_model(cls.model, cls.dataset)

  def temporary(self, name):
    path = os.path.join(self.folder, f'{self._testMethodName}_{name}')
    self.addCleanup(shutil.rmtree, path, ignore_errors=True)
    return path
