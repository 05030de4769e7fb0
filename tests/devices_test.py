"""What scripts do with the devices they find: fakes of GPUs, and the environment TensorFlow starts in."""
import contextlib
import ctypes
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf

import inference
import train
from commands import training_checks, training_loop, training_plan
from dataset import descriptors
from nets.architecture import Architecture
from tests.support import ROOT, ScriptsTest, run
from tests.tiny_net import LEAN
from training import cluster, run_config
from utils import devices, environment, scores, visualization

pytestmark = pytest.mark.compat

MODEL = training_plan.Model(Architecture('resnet_v2_50', 21), descriptors.get_dataset('voc'), None)
DATA = training_plan.Data({}, {'train': 9, 'val': 1}, {}, None, None)
POSITION = training_plan.Position(None, 5, 0, [], {})
V100, T4, A100, H100 = ('V100', (7, 0)), ('T4', (7, 5)), ('A100', (8, 0)), ('H100', (9, 0))


class Gpu:
  """Stands in for a tf.config.PhysicalDevice."""
  device_type = 'GPU'

  def __init__(self, name, capability):
    self.name = '/physical_device:GPU:x'
    self.details = {'device_name': name, **({'compute_capability': capability} if capability else {})}


@contextlib.contextmanager
def gpus(*cards):
  """Within it TensorFlow sees GPUs of these (name, compute capability); yields the calls that limit them."""
  physical = [Gpu(*card) for card in cards]
  visible, calls = list(physical), []

  def set_visible(some, kind):
    calls.append([physical.index(gpu) for gpu in some])
    visible[:] = some

  with (mock.patch.object(tf.config, 'list_physical_devices', lambda kind: list(physical)),
        mock.patch.object(tf.config, 'get_visible_devices', lambda kind: list(visible)),
        mock.patch.object(tf.config, 'set_visible_devices', set_visible),
        mock.patch.object(tf.config.experimental, 'get_device_details', lambda gpu: gpu.details)):
    yield calls


def taken():
  """Returns what `take` prints where TensorFlow sees no GPU."""
  with gpus(), contextlib.redirect_stdout(io.StringIO()) as printed:
    devices.take()
  return printed.getvalue()


class TakeTest(unittest.TestCase):

  def test_only_the_gpus_asked_for_are_taken_by_context_and_session_alike(self):
    with gpus(A100, A100, A100, A100) as calls:
      devices.take(2)
      config = run_config.run_config().session_config
      self.assertEqual(config.gpu_options.visible_device_list, '0,1')
      self.assertTrue(config.gpu_options.allow_growth)
      self.assertEqual(len(devices.taken()), 2)
    self.assertEqual(calls, [[0, 1]])

  def test_training_takes_what_num_gpus_says_and_other_scripts_one(self):
    for argv, task, expected in (((), cluster.Task(), [0]), (('--num_gpus', '2'), cluster.Task(), [0, 1]),
                                 (('--num_gpus', '3', '--batch_size', '6'), cluster.Task(2), [0, 1, 2])):
      with gpus(A100, A100, A100) as calls:
        training_checks.check_devices(train.make_parser().parse(list(argv)), task)
      self.assertEqual(calls, [expected])
    with gpus(A100, A100, A100) as calls:
      devices.take()
    self.assertEqual(calls, [[0]])

  def test_without_gpus_sessions_get_no_list(self):
    self.assertEqual(run_config.run_config().session_config.gpu_options.visible_device_list, '')
    self.assertEqual(devices.taken(), [])

  def test_input_gets_the_cores_that_launching_kernels_leaves(self):
    with mock.patch.object(environment, 'cores', return_value=16):
      self.assertEqual(devices.input_threads(), 0)  # the CPU computes
      for count, expected in ((1, 14), (4, 8), (8, 2)):
        with gpus(*[A100] * count):
          self.assertEqual(devices.input_threads(), expected)


class DescribeTest(unittest.TestCase):

  def test_gpus_are_named_with_their_capability(self):
    with gpus(A100):
      self.assertEqual(devices.describe(), '1 of 1 GPU: A100 (compute capability 8.0)')
    with gpus(A100, A100, T4, ('new', None)):
      self.assertEqual(devices.describe(), '4 of 4 GPUs: A100 (compute capability 8.0), T4 (compute '
                                           'capability 7.5), new')
      devices.limit(2)
      self.assertEqual(devices.describe(), '2 of 4 GPUs: A100 (compute capability 8.0)')

  def test_cpu_is_named_with_its_cores(self):
    with mock.patch.object(environment, 'cores', return_value=3):
      self.assertEqual(devices.describe(), 'the CPU: 3 cores')

  def test_a_container_has_the_cores_of_its_quota(self):
    with tempfile.NamedTemporaryFile('w+') as file, mock.patch.object(environment, '_QUOTA', file.name), \
        mock.patch.object(os, 'sched_getaffinity', lambda _: set(range(5)), create=True):
      for text, cores in (('150000 100000', 2), ('700000 100000', 5), ('max 100000', 5), ('', 5)):
        file.seek(0)
        file.truncate()
        file.write(text)
        file.flush()
        self.assertEqual(devices.describe(), f'the CPU: {cores} cores')
      with mock.patch.object(environment, '_QUOTA', '/nowhere'):
        self.assertEqual(devices.describe(), 'the CPU: 5 cores')


class WarningsTest(unittest.TestCase):

  def missing(self, *paths, cuda=True, **environment):
    """Returns what `take` prints where these paths exist and TensorFlow sees no GPU."""
    with (mock.patch.dict(os.environ, environment), mock.patch.object(os.path, 'exists', paths.__contains__),
          mock.patch.object(tf.test, 'is_built_with_cuda', return_value=cuda)):
      if not environment:
        os.environ.pop('CUDA_VISIBLE_DEVICES', None)
      return taken()

  def test_driver_without_a_gpu_is_told_with_a_command_that_shows_why(self):
    for path in ('/dev/nvidia0', '/proc/driver/nvidia/version'):
      printed = self.missing(path)
      self.assertRegex(printed, '^Warning: .* TensorFlow sees no GPU.*TF_CPP_MIN_LOG_LEVEL=0 python -c')
      self.assertEqual(printed.count('\n'), 1)
    self.assertRegex(self.missing('/dev/nvidia0', cuda=False), 'no CUDA: pip install -r requirements-gpu.txt')
    self.assertIn('Warning', self.missing('/dev/nvidia0', CUDA_VISIBLE_DEVICES='0'))

  def test_command_that_shows_why_runs(self):
    command = devices._SHOWS_WHY.replace('python', shlex.quote(sys.executable))
    self.assertEqual(subprocess.run(command, shell=True, capture_output=True).returncode, 0)

  def test_nothing_is_said_without_a_driver_or_where_gpus_are_hidden(self):
    self.assertEqual(self.missing(), '')
    self.assertEqual(self.missing('/dev/nvidia0', CUDA_VISIBLE_DEVICES=''), '')
    self.assertEqual(self.missing('/dev/nvidia0', CUDA_VISIBLE_DEVICES='-1'), '')


class EnvironmentTest(unittest.TestCase):

  def test_every_script_sets_it_before_tensorflow_is_there_and_children_have_it(self):
    code = '''
      import os, subprocess, sys
      from commands import flags
      def main(args):
        assert 'tensorflow' not in sys.modules
        child = 'import os; print(os.environ["TF_FORCE_GPU_ALLOW_GROWTH"])'
        subprocess.run([sys.executable, '-c', child])
        print(*(os.environ[name] for name in ('TF_GPU_THREAD_MODE', 'TF_GPU_THREAD_COUNT',
                                              'CUDA_CACHE_MAXSIZE')))
      flags.run(main, flags.Parser(''))
    '''
    others = {name: value for name, value in os.environ.items() if name not in environment._VARIABLES}
    for given, expected in (({}, ['true', 'gpu_private', '2', '4294967296']),
                            ({'TF_FORCE_GPU_ALLOW_GROWTH': 'false', 'TF_GPU_THREAD_COUNT': '3'},
                             ['false', 'gpu_private', '3', '4294967296'])):
      answer = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], cwd=ROOT, text=True,
                              capture_output=True, env={**others, **given})
      self.assertEqual(answer.stdout.split(), expected, answer.stderr)

  def test_settings_for_packages_that_need_not_be_here_do_not_count(self):
    given = {'TF_USE_LEGACY_KERAS': '1', 'KERAS_BACKEND': 'torch', 'MPLBACKEND': 'module://of_a_notebook'}
    code = ('from utils import environment; environment.prepare(); import matplotlib, tensorflow as tf; '
            'print(matplotlib.get_backend().lower(), tf.keras.metrics.Metric.__name__)')
    answer = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True,
                            env={**os.environ, **given})
    self.assertEqual(answer.stdout, 'agg Metric\n', answer.stderr[-2000:])

  @unittest.skipUnless(hasattr(ctypes.CDLL(None), 'mallopt'), 'no glibc')
  def test_memory_that_one_thread_frees_another_gets(self):
    code = """
      import ctypes, threading
      from utils import environment
      environment.prepare()
      libc = ctypes.CDLL(None)
      libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
      done = threading.Barrier(2)
      def work():
        blocks = [ctypes.c_void_p(libc.malloc(50000)) for _ in range(1000)]
        for block in blocks:
          ctypes.memset(block, 1, 50000)
        for block in blocks[:-1]:
          libc.free(block)
        done.wait()
        threading.Event().wait()  # once it ends, its arena goes to the next thread
      for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
        done.wait()
      print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')))
    """
    environment = {name: value for name, value in os.environ.items() if name != 'MALLOC_ARENA_MAX'}

    def megabytes(given):
      answer = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], cwd=ROOT, text=True,
                              capture_output=True, check=True, env={**environment, **given})
      return int(answer.stdout) / 1e3

    # Python itself takes 10, and each thread had 50.
    self.assertLess(megabytes({}), 110)
    self.assertGreater(megabytes({'MALLOC_ARENA_MAX': '9'}), 160)  # as the user likes it

  def test_autotuning_rests_within_and_the_users_choice_stays(self):
    name = 'TF_CUDNN_USE_AUTOTUNE'
    with mock.patch.dict(os.environ):
      os.environ.pop(name, None)
      for _ in range(2):
        with contextlib.suppress(KeyError), environment.without_autotuning():
          self.assertEqual(os.environ[name], '0')
          raise KeyError
        self.assertNotIn(name, os.environ)
      os.environ[name] = '1'
      with environment.without_autotuning():
        self.assertEqual(os.environ[name], '1')
      self.assertEqual(os.environ[name], '1')

  def test_half_precision_trains_with_the_fast_batch_norm(self):
    name = 'TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT'
    for argv, before, expected in (
        (('--precision', 'bf16'), None, '1'), (('--precision', 'fp16'), None, '1'), ((), None, None),
        (('--precision', 'fp16', '--data_format', 'channels_first'), None, None),
        (('--precision', 'fp16'), '0', '0')):
      with mock.patch.dict(os.environ), gpus(A100), self.subTest((argv, before)):
        os.environ.pop(name, None)
        if before:
          os.environ[name] = before
        training_checks.check_devices(train.make_parser().parse(list(argv)), cluster.Task())
        self.assertEqual(os.environ.get(name), expected)


class CollectivesTest(unittest.TestCase):

  def test_machines_with_gpus_use_nccl_unless_told_otherwise(self):
    code = '''
      import sys
      from unittest import mock
      import tensorflow.compat.v1 as tf
      from training import run_config
      from utils import devices
      for count, collectives in (argument.split() for argument in sys.argv[1:]):
        with mock.patch.object(devices, 'taken', return_value=['a GPU'] * int(count)):
          strategy = run_config.strategy(1, 2, collectives)
        config = strategy.update_config_proto(tf.ConfigProto())
        run_config.run_config(strategy=strategy)
        print(config.experimental.collective_nccl)
    '''
    cluster_of_two = ('{"cluster": {"worker": ["localhost:1", "localhost:2"]}, '
                      '"task": {"type": "worker", "index": 0}}')
    answer = subprocess.run([sys.executable, '-c', textwrap.dedent(code), '1 nccl', '1 ring', '0 nccl'],
                            cwd=ROOT, text=True, capture_output=True,
                            env={**os.environ, 'TF_CONFIG': cluster_of_two})
    self.assertEqual(answer.stdout.split(), ['True', 'False', 'False'], answer.stderr[-1000:])


class TrainingTest(unittest.TestCase):

  def estimators(self, *argv):
    """Returns the arguments of the Estimators that a training makes on an A100: of itself, of validation."""
    args = train.make_parser().parse(['--model_dir', '/m', *argv])
    with (gpus(A100), mock.patch.dict(os.environ), mock.patch.object(training_loop, 'Estimator') as made,
          contextlib.redirect_stdout(io.StringIO())):
      machines = training_checks.Machines(cluster.Task(), training_checks.check_devices(args, cluster.Task()))
      settings = training_plan.read_settings(args, machines, MODEL, DATA)
      training_loop.Training(args, machines, None, MODEL, DATA, POSITION, settings)
    return [call.args for call in made.call_args_list]

  def test_validation_has_the_format_of_inference_and_all_else_of_training(self):
    (_, folder, _, params), (_, same_folder, _, validation_params) = self.estimators()
    self.assertEqual((folder, same_folder), ('/m', '/m'))
    self.assertEqual((params['precision'], params['data_format'], params['num_classes']),
                     ('fp32', 'channels_first', 21))
    self.assertEqual(validation_params, {**params, 'data_format': 'channels_last', 'weights': 'raw'})
    for _, _, _, params in self.estimators('--precision', 'fp16', '--data_format', 'channels_first'):
      self.assertEqual((params['precision'], params['data_format']), ('fp16', 'channels_first'))

  def test_variable_for_the_same_bits_counts_as_deterministic(self):
    for value, is_set in (('1', True), ('True', True), ('0', False), ('', False)):
      with mock.patch.dict(os.environ, TF_DETERMINISTIC_OPS=value):
        params = run_config.compute_params('fp32', None, training=False)
      self.assertEqual(params.get('deterministic', False), is_set, value)

  def test_xla_is_for_training_alone(self):
    levels = [config.session_config.graph_options.optimizer_options.global_jit_level
              for _, _, config, _ in self.estimators('--xla')]
    self.assertEqual(levels, [tf.OptimizerOptions.ON_1, tf.OptimizerOptions.DEFAULT])

  def test_input_threads_are_those_given_or_the_free_ones(self):
    for argv, expected in (((), 14), (('--input_threads', '0'), 0), (('--input_threads', '3'), 3)):
      args = train.make_parser().parse(list(argv))
      with gpus(A100), mock.patch.object(environment, 'cores', return_value=16):
        options = training_loop.train_options(args, training_checks.Machines(cluster.Task(), {}), MODEL, DATA,
                                              POSITION)
      self.assertEqual(options.threads, expected)


_TRAIN = """
    import os, sys
    from unittest import mock
    import train
    from dataset import inputs
    from tests import tiny_net
    from training import run_config
    def shown(hook, *_):
      print('files', len(os.listdir(sys.argv[1])), flush=True)
    # XLA on the CPU would also take the pipeline's functions, and fail on them; see run_config.
    data = lambda *_: inputs.synthetic_dataset(2, (33, 49), 3)
    with (tiny_net.rows(), mock.patch.object(run_config.ProgressBarHook, 'begin', shown),
          mock.patch.object(inputs, 'train_dataset', data),
          mock.patch.object(run_config.ProgressBarHook, 'end', shown)):
      train.main(train.make_parser().parse(sys.argv[2:]))
"""


class ScriptsOnDevicesTest(ScriptsTest):

  def test_autotuning_rests_in_all_but_training(self):
    name, seen = 'TF_CUDNN_USE_AUTOTUNE', []

    def noted(kind, function):
      def call(*args, **kwargs):
        seen.append((kind, os.environ.get(name)))
        return function(*args, **kwargs)
      return call

    with (mock.patch.dict(os.environ),
          mock.patch.object(run_config.ProgressHook, 'after_run',
                            noted('training', run_config.ProgressHook.after_run)),
          mock.patch.object(run_config.ProgressBarHook, 'after_run',
                            noted('evaluating', run_config.ProgressBarHook.after_run)),
          mock.patch.object(scores.Tally, 'add', noted('evaluating', scores.Tally.add)),
          mock.patch.object(visualization, 'save_mask', noted('predicting', visualization.save_mask))):
      os.environ.pop(name, None)
      self.train('--max_steps', 3, model_dir=self.temporary('model'))
      two = [('evaluating', '0')] * 2
      self.assertEqual(seen, [('training', None)] * 2 + two + [('training', None)] + two)
      seen.clear()
      self.evaluate()
      run(inference, '--model_dir', self.model, '--data_dir', f'{self.data}/JPEGImages', '--infer_data_list',
          self.write_list('a.jpg'), '--output_dir', self.temporary('masks'))
      self.assertEqual(seen, [*two, ('predicting', '0')])
      self.assertNotIn(name, os.environ)

  def test_xla_compiles_training_and_no_validation(self):
    dumped = self.temporary('dumped')
    os.mkdir(dumped)
    xla = {'TF_XLA_FLAGS': '--tf_xla_cpu_global_jit',
           'XLA_FLAGS': f'--xla_dump_to={dumped} --xla_dump_hlo_as_text'}
    answer = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(_TRAIN), dumped, *self.flags(self.temporary('model')),
         '--base_architecture', LEAN, '--xla', '--max_steps', '1'], cwd=ROOT, text=True,
        capture_output=True, env={**os.environ, **xla})
    self.assertEqual(answer.returncode, 0, answer.stderr[-1000:])
    begin, end = map(int, re.findall(r'^files (\d+)$', answer.stdout, re.M))
    self.assertGreater(begin, 0)
    self.assertEqual(end, begin)

  def test_every_script_says_what_it_runs_on(self):
    cpu = r'on the CPU: \d+ cores'
    self.assertRegex(self.printed, r'Training steps 1 to 5: .*' + cpu)
    self.assertRegex(self.evaluate(), r'^Evaluating .*/model.ckpt-5 on 2 images; ' + cpu)


if __name__ == '__main__':
  unittest.main()
