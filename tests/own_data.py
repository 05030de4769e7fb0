"""The scripts that write records, as tests run them, in folders of their own."""
import contextlib
import functools
import io
import json
import os
import tempfile
import unittest

import numpy as np
from PIL import Image

from commands import flags
from tools import create_tf_record


def run_script(script, *argv):
  """Runs a script's main; returns its exit status, standard output and standard error."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      flags.run(script.main, script.make_parser(), [str(arg) for arg in argv])
      status = 0
    except SystemExit as end:
      status = end.code
  return status, out.getvalue(), err.getvalue()


run = functools.partial(run_script, create_tf_record)


class ToolTest(unittest.TestCase):
  """A test with a folder of its own."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.random = np.random.RandomState(0)

  def path(self, *parts):
    return os.path.join(self.folder, *parts)

  def write(self, name, array, palette=None):
    os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
    image = Image.fromarray(array)
    if palette:
      image.putpalette(palette)
    image.save(self.path(name))

  def write_text(self, name, text):
    with open(self.path(name), 'w') as file:
      file.write(text)

  def index(self, split):
    with open(self.path('records', f'{split}.json')) as file:
      return json.load(file)

  def write_pair(self, name, extension='.jpg', suffix=''):
    """Writes images/<name><extension> and labels/<name><suffix>.png, a mask of 0 and 255."""
    self.write(f'images/{name}{extension}', self.random.randint(0, 256, (7, 11, 3)).astype(np.uint8))
    self.write(f'labels/{name}{suffix}.png', (self.random.randint(0, 2, (7, 11)) * 255).astype(np.uint8))

  def assert_fails(self, result, status, sentence):
    self.assertEqual(result[0], status)
    self.assertRegex(result[2], sentence)


class LayoutTest(unittest.TestCase):
  """A test with a folder in which files are images or labels by their names."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.random = np.random.RandomState(0)

  def path(self, name):
    return os.path.join(self.folder, name)

  def write(self, *names):
    """Writes photos, or labels if the name says mask, label or Class; JSON is labelme's, but of mine."""
    for name in names:
      os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
      if name.endswith('.json'):
        with open(self.path(name), 'w') as file:
          file.write('{}' if 'mine' in name else '{"shapes": []}')
        continue
      is_label = 'mask' in name or 'label' in name or 'Class' in name
      values = self.random.randint(0, 2, (9, 7)) if is_label else self.random.randint(0, 256, (9, 7, 3))
      Image.fromarray(values.astype(np.uint8)).save(self.path(name))
