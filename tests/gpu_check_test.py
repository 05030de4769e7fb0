"""tools/gpu_check.sh, in small: it goes on after a failure, and says what it could not check."""
import os
import subprocess
import sys
import tempfile
import unittest

import pytest

pytestmark = pytest.mark.laboratory
_SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'tools', 'gpu_check.sh')


class GpuCheckTest(unittest.TestCase):

  def test_it_ends_after_a_failure_with_a_table_and_what_was_not_checked(self):
    with tempfile.TemporaryDirectory() as folder:
      report = os.path.join(folder, 'the report.txt')
      # There is no model to export, as there is no training.
      done = subprocess.run([_SCRIPT, 'the report.txt'], cwd=folder, capture_output=True, text=True, env={
          **os.environ, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': '-1',
          'GPU_CHECK_PARTS': 'data export steps memory gpus', 'GPU_CHECK_NETWORKS': 'mobilenet_v2_dm05',
          'GPU_CHECK_PRECISIONS': 'fp32', 'GPU_CHECK_CROP': '65 49', 'GPU_CHECK_IMAGES': '5',
          'GPU_CHECK_SIZES': '2'})
      self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
      with open(report) as file:
        text = file.read()
    self.assertEqual(done.stdout, text)
    self.assertIn('5 images of 2 sizes, from (95, 72) to (96, 72), width first', text)
    self.assertIn('failed: 1\n  export_inference_graph.py (status ', text)
    self.assertIn('No figure here is one of a GPU.', text)
    self.assertIn('\n  two GPUs (here: 0)\n', text)
    self.assertRegex(text, r'mobilenet_v2_dm05 fp32: predicted \d+ MiB, of which \d+ are workspace, an '
                           'estimate; no such step was measured on a GPU\n')
    self.assertRegex(text, r'\nmobilenet_v2_dm05 fp32 +[0-9.]+ +[0-9.e-]+ +[0-9.e-]+ +[0-9.e-]+ +-\n')
    self.assertNotIn('=== devices', text)


class ManyGpusTest(unittest.TestCase):
  """What runs on GPUs alone, with stand-ins for nvidia-smi and for Python, which sees two of them."""

  def test_all_parts_are_asked_of_gpus_and_their_memory_is_watched(self):
    with tempfile.TemporaryDirectory() as folder:
      calls = os.path.join(folder, 'calls')
      self._write(folder, 'nvidia-smi', 'echo "0, 100"; echo "1, $((300 + SECONDS))"')
      self._write(folder, 'python', f'''
        case "$*" in *'print(len(tf.config.list_physical_devices'*) echo 2 ;; esac
        case "$1" in *.py) [ -e "$1" ] || exit 3 ;; esac  # not from the repository
        printf '%s ' "$TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT" "$@" >> {calls}; echo >> {calls}
        case "$1" in train.py) sleep 1.2 ;; esac''')
      link = os.path.join(folder, 'check')
      os.symlink(_SCRIPT, link)
      done = subprocess.run([link, 'out.txt'], cwd=folder, capture_output=True, text=True, env={
          **os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}', 'PYTHON': os.path.join(folder, 'python'),
          'GPU_CHECK_PARTS': 'training variants auto gpus'})
      with open(calls) as file:
        lines = file.read().splitlines()
    self.assertIn('its number, before, most, after\n0 100 100 100\n1 300 300 300\n', done.stdout)
    trainings = [line for line in lines if 'train.py' in line]
    self.assertEqual(len(trainings), 4, lines)
    self.assertEqual(sum('--num_gpus 2 --sync_batch_norm' in line for line in trainings), 2)
    self.assertEqual(sum('--batch_size auto' in line for line in trainings), 1)
    steps = [line for line in lines if 'tools/benchmark.py train' in line]
    self.assertEqual(len(steps), 2 + 2 * 2 + 3, lines)
    self.assertEqual(sum('--xla' in line for line in steps), 3)
    self.assertEqual([line for line in steps if line.startswith('0 ')],
                     [line for line in steps if 'slow batch norm' in line])
    self.assertTrue(all('--crop_size 513 513' in line for line in steps))

  def _write(self, folder, name, body):
    path = os.path.join(folder, name)
    with open(path, 'w') as file:
      file.write(f'#!/usr/bin/env bash\n{body}\n')
    os.chmod(path, 0o755)


if __name__ == '__main__':
  unittest.main()
