import errno
import os
import resource
import tempfile
import unittest

import pytest
import tensorflow.compat.v1 as tf

from utils import failures
from utils.errors import DataError, UsageError

pytestmark = pytest.mark.compat

ADVICE = 'give a smaller --batch_size'


def op_error(kind, message):
  return getattr(tf.errors, kind)(None, None, message)


def explained(error, find_bad_example=None):
  return failures.explain(error, ADVICE, find_bad_example)


def in_session(operation):
  """Returns what running an operation of its own graph raises."""
  with tf.Graph().as_default(), tf.Session() as session:
    try:
      session.run(operation())
    except Exception as error:
      return error


class MemoryTest(unittest.TestCase):

  def test_every_disguise_gives_the_advice(self):
    for kind, message in (
        ('ResourceExhaustedError', 'OOM when allocating tensor with shape[8,9] and type float'),
        ('ResourceExhaustedError', 'failed to allocate memory'),
        ('ResourceExhaustedError', 'Out of memory while trying to allocate 123 bytes.'),
        ('ResourceExhaustedError', 'MemoryError: \nTraceback (most recent call last):'),
        ('NotFoundError', 'No algorithm worked!\n\t [[{{node conv1/Conv2D}}]]'),
        ('NotFoundError', 'No algorithm worked!  Error messages:\n  Profiling failure'),
        ('InternalError', 'cudnn_status: CUDNN_STATUS_ALLOC_FAILED'),
        ('InternalError', 'Failed to call cudnnFind: CUDNN_STATUS_INTERNAL_ERROR'),
        ('InternalError', 'failed to initialize: CUBLAS_STATUS_ALLOC_FAILED'),
        ('InternalError', 'CUBLAS_STATUS_NOT_INITIALIZED'),
        ('InternalError', 'Failed to create cuBLAS handle: cublas error'),
        ('InternalError', 'CUDA runtime implicit initialization on GPU:0 failed. Status: out of memory'),
        ('InternalError', 'failed to alloc 17179869184 bytes: CUDA_ERROR_OUT_OF_MEMORY: out of memory'),
        ('InternalError', 'Dst tensor is not initialized.'),
        ('InternalError', 'Failed to allocate request for 2.36GiB (2532360192B) on device ordinal 0'),
        ('InternalError', 'RESOURCE_EXHAUSTED: Failed to allocate 123 bytes for new constant'),
        ('InternalError', 'cuSolverDN call failed with status 7: CUSOLVER_STATUS_ALLOC_FAILED'),
        ('InternalError', 'cufft: CUFFT_STATUS_ALLOC_FAILED'),
        ('InternalError', 'CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED'),
        ('InternalError', 'Blas GEMM launch failed : a.shape=(2, 3), b.shape=(3, 4)'),
        ('FailedPreconditionError', 'DNN library initialization failed. Look at the errors above'),
        ('UnknownError', 'CUDNN_STATUS_NOT_INITIALIZED\nin tensorflow/stream_executor/cuda/cuda_dnn.cc'),
        ('UnknownError', 'Failed to get convolution algorithm. This is probably because cuDNN failed to '
                         'initialize'),
        ('UnknownError', 'std::bad_alloc')):
      with self.subTest(message=message):
        error = op_error(kind, message)
        self.assertTrue(failures.is_out_of_memory(error))
        self.assertIsInstance(explained(error), UsageError)
        self.assertRegex(str(explained(error)), f'memory.* is not enough.*; {ADVICE}$')

  def test_python_errors_give_the_advice(self):
    for error in (MemoryError(), MemoryError('Unable to allocate 9 GiB'), RuntimeError('std::bad_alloc'),
                  OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))):
      with self.subTest(error=error):
        self.assertRegex(str(explained(error)), f'memory is not enough.*; {ADVICE}$')

  def test_sentence_names_device_and_shape(self):
    message = ('Graph execution error:\nOOM when allocating tensor with shape[1,2049,4097,256] and type '
               ' float on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc')
    self.assertEqual(str(explained(op_error('ResourceExhaustedError', message))),
                     'the memory is not enough, or other programs hold it (OOM when allocating tensor with '
                     'shape[1,2049,4097,256] and type  float on /job:localhost/replica:0/task:0/device:GPU:0 '
                     f'by allocator GPU_0_bfc); {ADVICE}')

  def test_real_session_on_the_host(self):
    error = in_session(lambda: tf.random.uniform([1 << 24, 1 << 24]))
    self.assertRegex(str(explained(error)), r'the memory is not enough.*shape\[16777216,16777216\].*CPU:0')

  def test_other_errors_are_no_memory(self):
    for error in (op_error('InternalError', 'DNN library is not found.'), RuntimeError('generator raised'),
                  op_error('NotFoundError', 'Key a not found in checkpoint'), ValueError('out of memory'),
                  op_error('ResourceExhaustedError', '/a/b; No space left on device')):
      with self.subTest(error=error):
        self.assertFalse(failures.is_out_of_memory(error))


class FullDiskTest(unittest.TestCase):

  def check(self, error):
    self.assertTrue(failures.is_full_disk(error))
    self.assertFalse(failures.is_out_of_memory(error))
    self.assertIsInstance(explained(error), DataError)
    return str(explained(error))

  def test_every_form_names_the_folder(self):
    node = "Graph execution error:\n\nNode: 's'\n%s\n\t [[{{node s}}]]\nHint: when OOM happens, add"
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
      reason = os.strerror(number)
      for error in (op_error('ResourceExhaustedError', node % f'/m x/model.ckpt_temp/part-0; {reason}'),
                    op_error('OutOfRangeError', f'/m x/model.ckpt_temp/a.record; {reason}'),
                    OSError(number, reason, '/m x/model.ckpt_temp/mask.png')):
        with self.subTest(error=error):
          self.assertIn(f"no space is left in '/m x/model.ckpt_temp' ({reason}", self.check(error))

  def test_errors_that_tensorflow_raises_as_those_of_python(self):
    for kind in (IndexError, RuntimeError, ValueError):
      self.assertIn("no space is left in '/m'", self.check(kind('/m/events.out.tfevents.1; File too large')))

  def test_write_without_a_name(self):
    error = OSError(errno.ENOSPC, 'No space left on device')
    self.assertIn('no space is left to write to', self.check(error))

  def test_real_limit_of_file_sizes(self):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limit)
    with tempfile.TemporaryDirectory() as folder:
      with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable('v', [1000, 1000])
        session.run(variable.initializer)
        saver = tf.train.Saver()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, limit[1]))
        with self.assertRaisesRegex(DataError, f"no space is left in '{folder}/?") as caught:
          with failures.explaining(ADVICE):
            saver.save(session, os.path.join(folder, 'model.ckpt'))
        self.assertTrue(failures.is_full_disk(caught.exception.__cause__))
        with self.assertRaisesRegex(DataError, f"no space is left in '{folder}'"):
          with failures.explaining(ADVICE), tf.io.TFRecordWriter(os.path.join(folder, 'a')) as writer:
            writer.write(bytes(200000))


class OtherFilesTest(unittest.TestCase):

  def test_permission_is_named(self):
    for error in (PermissionError(errno.EACCES, 'Permission denied', '/x/a.png'),
                  op_error('PermissionDeniedError', '/x/a.png; Permission denied'),
                  op_error('PermissionDeniedError', '/x/a.png; Read-only file system')):
      self.assertRegex(str(explained(error)), r"'/x/a.png' cannot be used \([PR]")

  def test_file_that_disappeared_is_named(self):
    error = in_session(lambda: tf.io.read_file('/nowhere/a;b.record'))
    self.assertRegex(str(explained(error)), "^'/nowhere/a;b.record' cannot be used .No such file")

  def test_removed_checkpoint_advises_to_keep_more(self):
    with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default(), tf.Session() as session:
      tf.get_variable('v', [])
      prefix = os.path.join(folder, 'model.ckpt-7')
      for restore in (lambda: tf.train.Saver().restore(session, prefix),
                      lambda: session.run(tf.raw_ops.RestoreV2(
                          prefix=prefix, tensor_names=['v'], shape_and_slices=[''], dtypes=[tf.float32])),
                      lambda: tf.train.load_checkpoint(prefix)):
        with self.assertRaisesRegex(DataError, f"'{prefix}.* not there any more.*--keep_checkpoint_max"):
          with failures.explaining(ADVICE):
            restore()

  def test_other_failures_of_the_system_are_named(self):
    self.assertRegex(str(explained(op_error('FailedPreconditionError', '/x; Is a directory'))),
                     r"'/x' cannot be used \(Is a directory\)")
    self.assertRegex(str(explained(OSError(errno.EIO, 'Input/output error', b'/x'))), "'/x'.*Input/output")
    self.assertRegex(str(explained(op_error('ResourceExhaustedError', '/x; Too many open files'))), 'ulimit')


class ExplainTest(unittest.TestCase):

  def test_sentence_of_ours_comes_first(self):
    error = op_error('InvalidArgumentError', "assertion failed: [<<<label \\'a\\' is out of memory>>>]")
    self.assertEqual(str(explained(error, lambda: self.fail('searched'))), "label 'a' is out of memory")

  def test_message_without_sentence_gives_none(self):
    self.assertEqual(failures.error_sentence("(0) <<<image 'a>>>.png' is bad>>> x (1) <<<other>>>"),
                     "image 'a>>>.png' is bad")
    self.assertIsNone(failures.error_sentence('OOM when allocating tensor <<<'))

  def test_lost_machine_is_named(self):
    self.assertIsInstance(explained(op_error('UnavailableError', 'Connection reset by peer')), UsageError)

  def test_search_for_a_bad_example_only_after_errors_of_data(self):
    bad = DataError('example 3 is bad')
    for kind in ('InvalidArgumentError', 'DataLossError', 'OutOfRangeError'):
      self.assertIs(explained(op_error(kind, 'x'), lambda: bad), bad)
    self.assertIs(explained(UnicodeDecodeError('utf-8', b'\x97', 0, 1, 'x'), lambda: bad), bad)
    for error in (op_error('InternalError', 'x'), op_error('ResourceExhaustedError', 'OOM when allocating'),
                  op_error('NotFoundError', 'x'), ValueError('x')):
      explained(error, lambda: self.fail('searched'))

  def test_driver_that_does_not_fit_is_told(self):
    for message in ('Failed to load PTX: CUDA_ERROR_UNSUPPORTED_PTX_VERSION', 'CUDA_ERROR_INVALID_PTX: a PTX '
                    'JIT compilation failed', "'cuLaunchKernel' failed with 'CUDA_ERROR_INVALID_HANDLE'",
                    'no kernel image is available for execution on the device'):
      self.assertRegex(str(explained(op_error('InternalError', message))),
                       'does not fit the GPU or its driver .*newer driver .555 or later .*container')
    self.assertIsInstance(explained(ValueError('INVALID_PTX')), ValueError)

  def test_search_that_fails_or_finds_nothing_leaves_the_error(self):
    error = op_error('InvalidArgumentError', 'x')
    self.assertIs(explained(error, lambda: None), error)
    self.assertIs(explained(error, lambda: 1 / 0), error)

  def test_damage_without_a_bad_example_is_an_error_of_data(self):
    message = ("Graph execution error:\n\nDetected at node 'r' defined at:\n  File \"a\"\nNode: 'r'\n"
               'Checksum does not match: stored 1 vs 2\n\t [[{{node r}}]]')
    self.assertRegex(str(explained(op_error('DataLossError', message))),
                     r'is damaged \(Checksum does not match: stored 1 vs 2\)')

  def test_context_raises_what_explains_and_leaves_the_rest(self):
    with self.assertRaises(UsageError) as caught, failures.explaining(ADVICE):
      raise MemoryError
    self.assertIsInstance(caught.exception.__cause__, MemoryError)
    for error in (DataError('a'), UsageError('b'), KeyError('c'), BrokenPipeError(errno.EPIPE, 'pipe')):
      with self.assertRaises(type(error)) as caught, failures.explaining(ADVICE):
        raise error
      self.assertIs(caught.exception, error)


if __name__ == '__main__':
  unittest.main()
