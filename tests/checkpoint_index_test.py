"""Indexes of checkpoints that claim what cannot be, with right checksums, are refused unread."""
import os
import struct
import tempfile
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import tensor_bundle_pb2
from tensorflow.core.util import saved_tensor_slice_pb2

from tests.fuzz import faults
from training import checkpoint_index, checkpoint_store, checkpoints
from utils.errors import DataError

pytestmark = pytest.mark.compat


def varint(value):
  parts = []
  while value > 127:
    parts.append(value & 127 | 128)
    value >>= 7
  return bytes([*parts, value])


def block(*entries):
  """Returns a block of (key, value), with what stands behind it."""
  content, places = b'', []
  for key, value in entries:
    places.append(len(content))
    content += varint(0) + varint(len(key)) + varint(len(value)) + key + value
  content += struct.pack(f'<{len(places) + 1}I', *places, len(places)) if places else struct.pack('<II', 0, 1)
  return content + b'\0' + struct.pack('<I', faults.masked_crc(content + b'\0'))


def table(*entries):
  """Returns a table of (key, value), one block."""
  data, meta = block(*entries), block()
  index = block((b'\xff', varint(0) + varint(len(data) - 5)))
  handles = [varint(len(data)) + varint(len(meta) - 5), varint(len(data + meta)) + varint(len(index) - 5)]
  return data + meta + index + b''.join(handles).ljust(40, b'\0') + struct.pack('<Q', 0xdb4775248b80fb57)


class IndexTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.prefix = os.path.join(folder.name, 'model.ckpt-1')

  def write(self, shape=(1000,), shards=1, unknown_rank=False, slices=None, **entry):
    """Writes a checkpoint of one variable, of 4000 bytes, whose entry has these fields."""
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=shards)
    proto = tensor_bundle_pb2.BundleEntryProto(**{'dtype': 1, 'size': 4000, **entry})
    for size in shape:
      proto.shape.dim.add(size=size)
    proto.shape.unknown_rank = unknown_rank
    for start, length in slices or ():
      (proto.slices[0] if proto.slices else proto.slices.add()).extent.add(start=start, length=length)
    with open(self.prefix + '.index', 'wb') as file:
      file.write(table((b'', header.SerializeToString()), (b'a/weights', proto.SerializeToString())))
    with open(self.prefix + '.data-00000-of-00001', 'wb') as file:
      file.write(bytes(4000))

  def test_what_is_built_here_is_an_index(self):
    self.write()
    self.assertEqual(checkpoints.shapes(self.prefix), {'a/weights': [1000]})

  def test_claims_that_cannot_be_are_refused_by_name(self):
    for sentence, fields in (
        ('has a shape that cannot be', {'shape': (1 << 40, 1 << 40)}),  # TensorFlow aborts at this and others
        ('has a shape that cannot be', {'shape': (1 << 40, 1 << 40, 0)}),
        ('has a shape that cannot be', {'shape': (-5,)}),
        ('has a shape that cannot be', {'shape': (1,) * 300}),
        ('has a shape that cannot be', {'unknown_rank': True}),
        ('is of a type that no variable has', {'dtype': 99}), ('is of a type', {'dtype': 0}),
        ('is of a type', {'dtype': 101}), ('is of a type', {'dtype': 20}), ('is of a type', {'dtype': 21}),
        ('has 4000 bytes for 1099511627776 values', {'shape': (1 << 40,)}),
        ('has 4000 bytes for 68719476736 values', {'shape': (1 << 36,), 'dtype': 7}),
        ('lies beyond the end of model.ckpt-1.data', {'shape': (1 << 42,), 'size': 1 << 44}),
        ('lies beyond the end', {'offset': 1}), ('lies beyond the end', {'offset': -5}),
        ('lies in none of its files', {'shard_id': 7}), ('lies in none of its files', {'shard_id': -1}),
        ('it has no header', {'shards': 1 << 30}), ('it has no header', {'shards': 0}),
        ('data-00000-of-00002 is missing', {'shards': 2}),
        ('a part of a/weights lies outside of it', {'slices': [(-5, 1 << 62)]}),
        ('a part of a/weights lies outside of it', {'slices': [(0, 1)] * 300}),
    ):
      self.write(**fields)
      with self.subTest(fields=fields):
        self.assertRegex(checkpoint_store.problem(self.prefix), f'is damaged .its index cannot.*{sentence}')
        with self.assertRaisesRegex(DataError, 'is no readable checkpoint'):
          checkpoints.shapes(self.prefix)

  def test_any_other_bytes_are_refused(self):
    self.write()
    with open(self.prefix + '.index', 'rb') as file:
      whole = file.read()
    random = np.random.RandomState(0)
    for number in range(3000):
      content = bytearray(whole)
      for place in random.randint(len(content), size=random.randint(1, 4)):
        content[place] = random.randint(256)
      if number % 3 == 0:
        content = content[:random.randint(len(content))]
      with open(self.prefix + '.index', 'wb') as file:
        file.write(content)
      try:
        checkpoint_index.check(self.prefix)  # some changes are not for it to find
      except DataError as error:
        self.assertRegex(str(error), '^its index (is damaged|cannot be right): .')

  def test_checkpoints_of_every_kind_pass(self):
    with tf.Graph().as_default(), tf.Session() as session:
      for number, kind in enumerate((tf.float32, tf.float16, tf.bfloat16, tf.int64, tf.bool, tf.uint8)):
        tf.get_variable(f'v{number}', initializer=tf.cast(tf.ones([3, number]), kind))
      tf.get_variable('text', initializer=tf.constant(['ab', 'c']))
      tf.get_variable('parts', [7, 3], partitioner=tf.fixed_size_partitioner(3))
      session.run(tf.global_variables_initializer())
      tf.train.Saver(sharded=True).save(session, self.prefix, write_meta_graph=False)
    checkpoint_index.check(self.prefix)
    self.assertEqual(checkpoints.shapes(self.prefix)['parts'], [7, 3])


class OldFormatTest(IndexTest):
  """A single file, as of TF-Slim's archives."""

  def save(self, values):
    with tf.Graph().as_default(), tf.Session() as session:
      session.run(tf.raw_ops.Save(filename=self.prefix, tensor_names=['a/weights', 'b'],
                                  data=[tf.constant(values), tf.constant(7)]))

  def test_file_that_tensorflow_writes_passes(self):
    for values in (np.zeros([300, 200], np.float32), np.random.RandomState(0).rand(99, 7).astype(np.float32)):
      self.save(values)  # its blocks are packed by Snappy
      checkpoint_index.check(self.prefix)
      self.assertEqual(checkpoints.shapes(self.prefix), {'a/weights': list(values.shape), 'b': []})

  def test_claims_that_cannot_be_are_refused_by_name(self):
    for sentence, kind, shape in (('has a shape that cannot be', 1, (-1,)), ('is of a type', 77, (2,)),
                                  ('has a shape that cannot be', 1, (1 << 40, 1 << 40)),
                                  ('is larger than the file', 1, (1 << 40,))):
      slices = saved_tensor_slice_pb2.SavedTensorSlices()
      tensor = slices.meta.tensor.add(name='a/weights', type=kind)
      for size in shape:
        tensor.shape.dim.add(size=size)
      with open(self.prefix, 'wb') as file:
        file.write(table((b'', slices.SerializeToString())))
      with self.subTest(shape=shape), self.assertRaisesRegex(DataError, f'a/weights {sentence}'):
        checkpoints.shapes(self.prefix)

  def test_other_files_are_left_to_tensorflow(self):
    with open(self.prefix, 'wb') as file:
      file.write(b'no checkpoint' * 9)
    checkpoint_index.check(self.prefix)
    with self.assertRaisesRegex(DataError, 'is no readable checkpoint'):
      checkpoints.shapes(self.prefix)

  test_what_is_built_here_is_an_index = test_any_other_bytes_are_refused = None
  test_checkpoints_of_every_kind_pass = None


if __name__ == '__main__':
  unittest.main()
