"""What several test files share: how scripts are run, images, and a data set with a trained model."""
import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import unittest
import zlib
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

import create_pascal_tf_record
import evaluate
import train
from dataset import descriptors, lists, tf_records
from nets import layers
from tests import tiny_net
from tests.golden import formula
from utils import visualization

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = ('train', 'evaluate', 'inference', 'export_inference_graph', 'create_pascal_tf_record',
           'create_cityscapes_tf_record')
NAMES = ('a', 'b', 'c', 'd', 'e')
VAL_NAMES = ('v', 'w')  # which look like the first two
CLASSES = {'name': 'tiny', 'class_names': ['ground', 'left {%s}/Straße 猫', 'right'],
           'palette': [[10, 20, 30], [200, 0, 0], [0, 0, 200]], 'ignore_label': 255}

# Of a photo and its label, 7 x 13 pixels.
FRUIT = descriptors.Dataset('fruit', ('apple', 'pear', 'plum'), descriptors.voc_palette(3))
HEIGHT, WIDTH = 7, 13


def run(script, *argv):
  """Runs a script's main in this process; returns what it printed."""
  output = io.StringIO()
  with contextlib.redirect_stdout(output):
    script.main(script.make_parser().parse([str(arg) for arg in argv]))
  return output.getvalue()


def evaluations(model_dir):
  """Returns the evaluations that a training has written."""
  with open(f'{model_dir}/validation.json') as file:
    return json.load(file)['evaluations']


def scoring(*values):
  """Returns a context in which evaluations have these mean IoUs, one after another."""
  known, following = [], iter(values)

  def scores(matrix, names):
    if not any(matrix is other for other, _ in known):
      known.append((matrix, next(following)))
    mean_iou, = [value for other, value in known if matrix is other]
    return {'mean_iou': mean_iou, 'px_accuracy': 0, 'iou': {}}

  return mock.patch('utils.scores.of_matrix', scores)


def run_on_two_cpus(code):
  """Runs code in a process with two CPU devices, and two_replicas() that gives a strategy over them."""
  begin = '''
import tensorflow.compat.v1 as tf
cpu = tf.config.list_physical_devices('CPU')[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
def two_replicas():
  return tf.distribute.MirroredStrategy(
      ['/cpu:0', '/cpu:1'], cross_device_ops=tf.distribute.ReductionToOneDevice())
'''
  done = subprocess.run([sys.executable, '-c', begin + textwrap.dedent(code)], cwd=ROOT, capture_output=True,
                        text=True)
  if done.returncode:
    raise AssertionError(done.stderr[-2000:])


def write_picture(folder, name, size, seed):
  """Writes a photo whose left third is reddish and right third bluish, and its palette label."""
  height, width = size
  rng = np.random.RandomState(seed)
  label = np.zeros(size, np.uint8)
  label[:, :width // 3], label[:, -(width // 3):] = 1, 2
  label[0] = 255
  image = rng.randint(0, 80, (height, width, 3))
  image[label == 1, 0] += 150
  image[label == 2, 2] += 150
  Image.fromarray(image.astype(np.uint8)).save(os.path.join(folder, 'JPEGImages', name + '.jpg'), quality=95)
  visualization.save_mask(os.path.join(folder, 'SegmentationClassAug', name + '.png'), label,
                          CLASSES['palette'], 255)


def write_layout(folder):
  """Writes the sample in PASCAL VOC layout, its lists, its descriptor and its records."""
  for name in ('JPEGImages', 'SegmentationClassAug'):
    os.makedirs(os.path.join(folder, name))
  for names in (NAMES, VAL_NAMES):
    for index, name in enumerate(names):
      write_picture(folder, name, (41 + 2 * index, 67 - 3 * index), index)
  for split, names in (('train', NAMES), ('val', VAL_NAMES)):
    with open(os.path.join(folder, split + '.txt'), 'w') as file:
      file.write('\n'.join(names) + '\n')
  with open(os.path.join(folder, 'tiny.json'), 'w') as file:
    json.dump(CLASSES, file)
  run(create_pascal_tf_record, '--dataset', f'{folder}/tiny.json', '--data_dir', folder,
      '--output_path', folder, '--train_data_list', f'{folder}/train.txt',
      '--valid_data_list', f'{folder}/val.txt', '--processes', 1)


def write_events(folder, name, values):
  """Writes an event file with values[i] at step 10 * i."""
  with tf.Graph().as_default():
    writer = tf.summary.FileWriter(folder)
    for index, value in enumerate(values):
      writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=value)]), 10 * index)
    writer.close()


def load_formula(session):
  """Sets every variable but the global step and momentum slots to the value of its name."""
  variables = [variable for variable in tf.global_variables()
               if variable.op.name != 'global_step' and not variable.op.name.endswith('/Momentum')]
  # By one call: TensorFlow prepares the whole graph anew for each set of operations that is run.
  session.run([variable.initializer for variable in variables],
              {variable.initial_value: formula.fill(variable.op.name, variable.shape.as_list())
               for variable in variables})


def run_unit(build, inputs, **values):
  """Returns what a part of a network, build(inputs, norm), makes of inputs, with weights given by hand.

  Args:
    build: function of a tensor and a layers.BatchNorm that changes nothing while gamma, beta are 1 and 0.
    inputs: nested lists of numbers, [B, h, w, C].
    values: what variables are filled with whose names have this end, '__' standing for '/': a number, or
      an array that broadcasts to their shapes. All other weights are 0.
  """
  with tf.Graph().as_default(), tf.Session() as session:
    outputs = build(tf.constant(inputs, tf.float32), layers.BatchNorm(False, 0.9))
    session.run(tf.global_variables_initializer())
    for end, value in {'weights': 0, **values}.items():
      found = [variable for variable in tf.global_variables()
               if variable.op.name.endswith(end.replace('__', '/'))]
      assert found, f'no variable ends in {end}'
      for variable in found:
        variable.load(np.broadcast_to(np.float32(value), variable.shape.as_list()), session)
    return session.run(outputs)


def pixels():
  return np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def classes(first=0):
  """Label values first, first + 1, first + 2, first, ...: uint8 [7, 13]."""
  return (np.arange(HEIGHT * WIDTH) % 3 + first).astype(np.uint8).reshape(HEIGHT, WIDTH)


def encoded(image, image_format, **options):
  buffer = io.BytesIO()
  image.save(buffer, image_format, **options)
  return buffer.getvalue()


def png(array, **options):
  return encoded(Image.fromarray(array), 'PNG', **options)


def grey_png(values, bits):
  """A grey PNG of 1..8 bits whose stored samples are `values`; PIL writes such palettes only."""
  palette = Image.fromarray(values)
  palette.putpalette([0] * 3 * 2 ** bits)
  content = bytearray(encoded(palette, 'PNG', bits=bits))
  start, end = content.index(b'PLTE') - 4, content.index(b'IDAT') - 4
  del content[start:end]
  content[25] = 0  # colour type: grey
  content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
  return bytes(content)


def photo(orientation, image_format='JPEG', square=False):
  """An image file with EXIF's orientation."""
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {'lossless': True} if image_format == 'WEBP' else {}
  image = Image.fromarray(pixels()[:, :HEIGHT if square else WIDTH])
  return encoded(image, image_format, exif=exif, **options)


class FolderTest(unittest.TestCase):
  """A test with a folder of its own."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def file(self, name, content):
    path = os.path.join(self.folder, name)
    with open(path, 'wb') as file:
      file.write(content)
    return path

  def record(self, name, *examples):
    path = os.path.join(self.folder, name)
    with tf.io.TFRecordWriter(path) as writer:
      for serialized in examples:
        writer.write(serialized)
    return path


def encode_example(image_path, label_path, dataset):
  """Returns the serialized tf.train.Example of an image and its label."""
  pair = lists.Pair(image_path, label_path, dataset, os.path.basename(image_path))
  return tf_records.Files([pair]).load(0)


@functools.cache
def _sample():
  """Returns (folder, what training printed): the data set and the model of ScriptsTest, once a process."""
  folder = tempfile.TemporaryDirectory()
  atexit.register(folder.cleanup)
  data = os.path.join(folder.name, 'data')
  write_layout(data)
  umask = os.umask(0o002)  # of a group whose members go on with one another's trainings
  # 5 examples in batches of 2: epochs end at steps 2.5 and 5, rounds at 2 and 5.
  try:
    return folder.name, run(train, *training_flags(data, os.path.join(folder.name, 'model')),
                            '--train_epochs', 2)
  finally:
    os.umask(umask)


def training_flags(data, model_dir):
  """Returns the flags of a training on a folder of write_layout, a list of str."""
  return ['--dataset', f'{data}/tiny.json', '--data_dir', data, '--model_dir', model_dir,
          '--base_architecture', tiny_net.TINY, '--pre_trained_model', 'none', '--batch_size', '2',
          '--crop_size', '33', '49', '--batch_norm_decay', '0.5', '--save_summary_steps', '2']


class ScriptsTest(unittest.TestCase):
  """A data set and a model trained on it for 5 steps; a copy that the tests of a class share."""

  @classmethod
  def setUpClass(cls):
    stack = contextlib.ExitStack()
    cls.addClassCleanup(stack.close)
    stack.enter_context(tiny_net.rows())
    cls.folder = stack.enter_context(tempfile.TemporaryDirectory())
    sample, cls.printed = _sample()
    cls.data, cls.model = os.path.join(cls.folder, 'data'), os.path.join(cls.folder, 'model')
    for path in (cls.data, cls.model):
      shutil.copytree(os.path.join(sample, os.path.basename(path)), path)

  @classmethod
  def flags(cls, model_dir):
    """Returns the flags of training, a list of str."""
    return training_flags(cls.data, model_dir)

  @classmethod
  def train(cls, *argv, model_dir=None):
    return run(train, *cls.flags(model_dir or cls.model), *argv)

  @classmethod
  def evaluate(cls, *argv, model_dir=None):
    return run(evaluate, '--model_dir', model_dir or cls.model, '--image_data_dir', f'{cls.data}/JPEGImages',
               '--label_data_dir', f'{cls.data}/SegmentationClassAug',
               '--evaluation_data_list', f'{cls.data}/val.txt', *argv)

  def temporary(self, name):
    path = os.path.join(self.folder, f'{self._testMethodName}_{name}')
    self.addCleanup(shutil.rmtree, path, ignore_errors=True)
    return path

  def write_list(self, *lines):
    path = os.path.join(self.folder, f'{self._testMethodName}{len(lines[0])}.txt')
    with open(path, 'w') as file:
      file.write('\n'.join(lines) + '\n')
    return path


_SCRIPT = '''
import os, signal, sys, threading, time, warnings
sys.path.insert(0, {root!r})
from commands import flags
from utils import files
from utils.errors import DataError, UsageError

def make_parser():
  parser = flags.Parser('A script.')
  parser.flag('output_dir', {folder!r}, 'folder', metavar='DIR')
  return parser

def main(args):
{main}

if __name__ == '__main__':
  flags.run(main, make_parser())
'''


class ScriptTest(unittest.TestCase):
  """Runs scripts of a few lines that start as ours do."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def write(self, main):
    """Writes script.py, whose main holds this code; returns its path."""
    path = os.path.join(self.folder, 'script.py')
    with open(path, 'w') as file:
      file.write(_SCRIPT.format(root=ROOT, folder=self.folder,
                                main=textwrap.indent(textwrap.dedent(main), '  ')))
    return path

  def run_script(self, main, *argv, env=None, shell='"$@"'):
    """Runs a script with that main through a line of the shell, in which "$@" is its command."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('TF_CPP_MIN_LOG_LEVEL', 'PYTHONUNBUFFERED')}
    return subprocess.run(['bash', '-c', shell, 'bash', sys.executable, self.write(main), *argv],
                          env={**environment, **(env or {})}, capture_output=True, text=True, timeout=120)
