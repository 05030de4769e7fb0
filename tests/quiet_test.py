"""What scripts print: their own lines, and none of the libraries."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

import pytest

from commands import flags
from tests.support import ROOT, ScriptTest
from tests.tiny_net import TINY

pytestmark = pytest.mark.compat


class QuietTest(ScriptTest):
  noise = '''
      import tensorflow.compat.v1 as tf
      from absl import logging
      print('a line')
      tf.train.checkpoint_exists('/nowhere')
      tf.logging.set_verbosity(tf.logging.INFO)
      tf.logging.error('an error of TensorFlow')
      logging.error('an error of absl')
      warnings.warn('a warning')
      os.write(2, b'a line of a library in C\\n')
  '''

  def test_libraries_print_nothing(self):
    answer = self.run_script(self.noise)
    self.assertEqual((answer.stdout, answer.stderr), ('a line\n', ''))

  def test_verbose_shows_what_they_print(self):
    answer = self.run_script(self.noise, '--verbose')
    for words in ('TensorFlow binary|oneDNN|cuda', 'is deprecated', 'an error of TensorFlow',
                  'an error of absl', 'a warning', 'a line of a library in C'):
      self.assertRegex(answer.stderr, words)
    self.assertEqual(answer.stdout, 'a line\n')

  def test_spawned_processes_are_as_quiet(self):
    main = '''
      import multiprocessing
      process = multiprocessing.get_context('spawn').Process(target=noise)
      process.start()
      process.join()
    '''
    script = self.write(main)
    with open(script) as file:
      code = file.read()
    noise = 'def noise():\n' + textwrap.indent(textwrap.dedent(self.noise), '  ')
    with open(script, 'w') as file:
      file.write(code.replace('def main', noise + '\ndef main'))
    for argv in (), ('--verbose',):
      answer = subprocess.run([sys.executable, script, *argv], capture_output=True, text=True)
      self.assertEqual(answer.stdout, 'a line\n')
      if argv:
        self.assertIn('is deprecated', answer.stderr)
      else:
        self.assertEqual(answer.stderr, '')

  def test_libraries_that_decode_print_nothing(self):
    answer = self.run_script('''
      import io
      from PIL import Image
      from dataset import image_files
      from utils.errors import DataError
      for format_, options, place in ('PNG', {}, 29), ('TIFF', {'compression': 'tiff_lzw'}, 9):
        buffer = io.BytesIO()
        Image.radial_gradient('L').save(buffer, format_, **options)
        content = bytearray(buffer.getvalue())
        content[place] ^= 255
        try:
          image_files._pixels(image_files._open_if_known(bytes(content), 'x'), bytes(content), 1, 'x')
          print('it decodes')
        except DataError:
          pass
    ''')
    self.assertEqual((answer.stdout, answer.stderr), ('', ''))

  def test_the_end_of_a_process_in_a_library_is_told(self):
    for main, words in (('os.abort()', '^Fatal Python error: Aborted\n'),
                        ("quiet.show_fatal_errors()\nos.write(2, b'why\\n')\nos.abort()", '^why\nFatal')):
      answer = self.run_script('from utils import quiet\n' + main)
      self.assertEqual(answer.returncode, -signal.SIGABRT)
      self.assertRegex(answer.stderr, words)

  def test_what_fails_in_an_import_of_tensorflow_is_told(self):
    os.mkdir(f'{self.folder}/tensorflow')
    with open(f'{self.folder}/tensorflow/__init__.py', 'w') as file:
      file.write('import os\nos.write(2, b"noise")\nraise ImportError("libcud.so is missing")\n')
    answer = self.run_script('import tensorflow')
    self.assertEqual(answer.stderr, 'script.py: error: libcud.so is missing; install what requirements.txt '
                                    'lists\n')
    self.assertEqual(answer.returncode, 1)

  def test_running_in_a_process_leaves_its_settings_alone(self):
    import logging
    import warnings
    before = [logging.root.manager.disable, list(warnings.filters), sys.unraisablehook,
              *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))]
    flags.run(lambda args: None, flags.Parser('A script.'), [])
    self.assertEqual([logging.root.manager.disable, list(warnings.filters), sys.unraisablehook,
                      *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))], before)


class EveryScriptTest(unittest.TestCase):

  def test_scripts_print_their_own_lines_alone(self):
    with tempfile.TemporaryDirectory() as folder:
      data, model = f'{folder}/data', f'{folder}/model'
      pictures = ('--data_dir', f'{data}/JPEGImages')
      with open(f'{folder}/list.txt', 'w') as file:
        file.write('val_0000.jpg\n')
      for script, argv, lines in (
          ('dataset/make_sample_data', (
              '--output_dir', data, '--num_train', 4, '--num_val', 1, '--size', 64, 80),
           ['4 training and 1 held-out', 'descriptor: ']),
          ('create_pascal_tf_record', (
              '--dataset', f'{data}/sample.json', '--data_dir', data, '--output_path', folder,
              '--train_data_list', f'{data}/train.txt', '--valid_data_list', f'{data}/val.txt'),
           ['Wrote 4 examples', 'Wrote 1 examples', 'class ', *(f'    {label} ' for label in range(5)),
            '  255 ', 'Sizes: ', 'Warning: no pixel of val is diamond']),
          ('train', (
              '--dataset', f'{data}/sample.json', '--data_dir', folder, '--model_dir', model,
              '--base_architecture', TINY, '--pre_trained_model', 'none', '--batch_size', 4,
              '--train_epochs', 1, '--crop_size', 33, 33, '--batch_norm_decay', 0.5), None),
          ('evaluate', ('--model_dir', model, '--data_dir', folder), None),
          ('inference', ('--model_dir', model, *pictures, '--infer_data_list', f'{folder}/list.txt',
                         '--output_dir', f'{folder}/masks'),
           ['Predicting 1 images by .*; on the CPU: ', '1 masks are in']),
          ('export_inference_graph', ('--model_dir', model, '--export_dir', f'{folder}/export'),
           ['Exporting .*; on the CPU: ', '.*exported']),
      ):
        with self.subTest(script):
          environment = {name: value for name, value in os.environ.items() if name != 'TF_CPP_MIN_LOG_LEVEL'}
          command = [sys.executable, '-m', 'tests.tiny_net', f'{script}.py', *map(str, argv)]
          answer = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=environment)
          self.assertEqual(answer.returncode, 0, answer.stderr)
          printed = [line for line in re.split(r'[\r\n]+', answer.stderr) if line]
          self.assertEqual([line for line in printed if '%|' not in line], [])  # progress bars
          for words in ('WARNING', 'oneDNN', 'cuda', 'deprecated'):
            self.assertNotIn(words, answer.stdout)
          if lines:
            self.assertEqual(len(answer.stdout.splitlines()), len(lines))
            self.assertRegex(answer.stdout, '^' + '.*\n'.join(lines))


if __name__ == '__main__':
  unittest.main()
