"""What the index of a checkpoint says, checked before TensorFlow reads it.

TensorFlow trusts checkpoints: a shape or type that cannot be ends the whole process, and memory is reserved
for whatever size an entry claims. Here all of it is compared with what the files can hold.

An index is a table of LevelDB's format (tensorflow/core/lib/io/format.h): blocks of sorted keys and values, a
block that says where these lie, and a footer that says where that one lies. Since 2016 each variable has an
entry, and the data lie in files beside; before, one file held both, and its first value describes them all.
"""
import math
import os
import struct

from utils import files
from utils.errors import DataError

_MAX_INDEX = 1 << 26   # bytes; those of the largest models here take 100 KB
_MAX_SHARDS = 100000
_FOOTER, _TRAILER = 48, 5  # bytes at the end of a table, and behind each of its blocks
_MAGIC = 0xdb4775248b80fb57
_MAX_DIMENSIONS = 254
# Bytes of a file of the old format per byte of a tensor: it packs and compresses.
_LEAST_SHARE = 1 / 512
# Bytes of a value by the number of its type (tensorflow/core/framework/types.proto). Texts have any length.
_SIZES = {1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 8: 8, 9: 8, 10: 1, 11: 1, 12: 1, 13: 4, 14: 2, 15: 2, 16: 2,
          17: 2, 18: 16, 19: 2, 22: 4, 23: 8}
_TEXT = 7


def check(prefix: str) -> None:
  """Raises DataError if the index of a checkpoint is damaged, or cannot be right.

  Args:
    prefix: what TensorFlow calls the path, or the single file of the old format.
  """
  try:
    if os.path.exists(prefix + '.index'):
      _check_bundle(prefix)
    elif os.path.exists(prefix):
      _check_old_format(prefix)
  except DataError:
    raise
  except Exception as error:  # IndexError, struct.error, DecodeError and others: the bytes can be anything
    raise DataError(f'its index is damaged: {error}') from error


def _check_bundle(prefix):
  """`check` of an index with its data in files beside it."""
  from tensorflow.core.protobuf import tensor_bundle_pb2

  content = files.read_bytes(prefix + '.index', f"'{prefix}.index'", _MAX_INDEX)
  header, sizes = None, {}
  for handle in _data_blocks(content):
    for key, value in _entries(_block(content, *handle)):
      if header is None:
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(value)
        _demand(key == b'' and 1 <= header.num_shards <= _MAX_SHARDS, 'it has no header')
        continue
      entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
      name = key.decode(errors='replace')
      count = _count(entry.shape, entry.dtype, name)
      _check_slices(entry.slices, entry.shape, name)
      if entry.slices:  # the parts have entries of their own
        continue
      _demand(0 <= entry.shard_id < header.num_shards, f'{name} lies in none of its files')
      _demand(entry.size == count * _SIZES[entry.dtype] if entry.dtype != _TEXT else entry.size >= count,
              f'{name} has {entry.size} bytes for {count} values')
      path = f'{prefix}.data-{entry.shard_id:05d}-of-{header.num_shards:05d}'
      if path not in sizes:
        sizes[path] = os.path.getsize(path) if os.path.exists(path) else None
      _demand(sizes[path] is not None, f'{os.path.basename(path)} is missing')
      _demand(entry.offset >= 0 and entry.offset + entry.size <= sizes[path],
              f'{name} lies beyond the end of {os.path.basename(path)}')
  _demand(header is not None, 'it has no entries')


def _check_old_format(path):
  """`check` of a file of the format before 2016; what is no such file is left to TensorFlow."""
  from tensorflow.core.util import saved_tensor_slice_pb2

  size = os.path.getsize(path)
  with open(path, 'rb') as file:
    content = _Window(file, size)
    if size < _FOOTER or content[size - 8:size] != struct.pack('<Q', _MAGIC):
      return
    first, *_ = _data_blocks(content)
    key, value = next(iter(_entries(_block(content, *first))))
  _demand(key == b'', 'it has no header')
  for tensor in saved_tensor_slice_pb2.SavedTensorSlices.FromString(value).meta.tensor:
    count = _count(tensor.shape, tensor.type, tensor.name)
    _demand(count * _SIZES.get(tensor.type, 1) * _LEAST_SHARE <= size,
            f'{tensor.name} is larger than the file')
    _check_slices(tensor.slice, tensor.shape, tensor.name)


def _count(shape, kind, name):
  """Returns the number of values of a TensorShapeProto."""
  _demand(kind in _SIZES or kind == _TEXT, f'{name} is of a type that no variable has ({kind})')
  dimensions = [dimension.size for dimension in shape.dim]
  _demand(not shape.unknown_rank and len(dimensions) <= _MAX_DIMENSIONS and all(n >= 0 for n in dimensions),
          f'{name} has a shape that cannot be')
  count = math.prod(dimensions)
  # TensorFlow multiplies them in turn, and none of the products may overflow.
  _demand(math.prod(max(1, n) for n in dimensions) < 1 << 60, f'{name} has a shape that cannot be')
  return count


def _check_slices(slices, shape, name):
  for part in slices:
    fits = len(part.extent) == len(shape.dim) and all(
        extent.start >= 0 and (not extent.HasField('length') or extent.length >= 1)
        and extent.start + extent.length <= dimension.size
        for extent, dimension in zip(part.extent, shape.dim))
    _demand(fits, f'a part of {name} lies outside of it')


def _demand(condition, sentence):
  if not condition:
    raise DataError(f'its index cannot be right: {sentence}')


# --- Tables --------------------------------------------------------------------------------------


class _Window:
  """The bytes of a large file, of which only slices are read."""

  def __init__(self, file, size):
    self._file, self._size = file, size

  def __len__(self):
    return self._size

  def __getitem__(self, part):
    self._file.seek(part.start)
    return self._file.read(part.stop - part.start)


def _data_blocks(content):
  """Yields the handle (offset, size) of each block of keys and values in a table."""
  footer = content[max(0, len(content) - _FOOTER):len(content)]
  _demand(len(footer) == _FOOTER and footer[-8:] == struct.pack('<Q', _MAGIC), 'it is cut off, or no index')
  _, _, place = _handle(footer, 0)
  offset, size, _ = _handle(footer, place)
  for _, value in _entries(_block(content, offset, size)):
    offset, size, _ = _handle(value, 0)
    yield offset, size


def _handle(content, place):
  """Returns offset, size, and where the next handle begins."""
  offset, place = _varint(content, place)
  size, place = _varint(content, place)
  return offset, size, place


def _block(content, offset, size):
  """Returns the bytes of a block, uncompressed."""
  _demand(size <= _MAX_INDEX and offset + size + _TRAILER <= len(content), 'a block lies beyond its end')
  block = content[offset:offset + size + 1]
  return bytes(block[:size]) if block[size] == 0 else _unpacked(block[:size])


def _entries(block):
  """Yields (key, value) of a block."""
  restarts, = struct.unpack('<I', block[-4:])
  end, place, key = len(block) - 4 - 4 * restarts, 0, b''
  _demand(end >= 0, 'a block is damaged')
  while place < end:
    shared, place = _varint(block, place)
    added, place = _varint(block, place)
    length, place = _varint(block, place)
    _demand(shared <= len(key) and place + added + length <= end, 'a block is damaged')
    key = key[:shared] + block[place:place + added]
    place += added
    yield key, block[place:place + length]
    place += length


def _varint(content, place):
  """Returns a number of up to 64 bits, 7 in a byte and low ones first, and where it ends."""
  value = 0
  for shift in range(0, 64, 7):
    byte = content[place]
    place += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, place
  raise DataError('its index is damaged: a number does not end')


def _unpacked(packed):
  """Returns what Snappy packed (github.com/google/snappy, format_description.txt)."""
  length, place = _varint(packed, 0)
  _demand(length <= _MAX_INDEX, 'a block is larger than any')
  out = bytearray()
  while place < len(packed):
    tag = packed[place]
    place += 1
    kind, size = tag & 3, tag >> 2
    if kind == 0:  # bytes as they are
      if size >= 60:
        extra = size - 59
        size = int.from_bytes(packed[place:place + extra], 'little')
        place += extra
      _demand(place + size < len(packed) and len(out) + size < length, 'a block is damaged')
      out += packed[place:place + size + 1]
      place += size + 1
      continue
    if kind == 1:  # a copy of what came before
      distance, size = (tag >> 5) << 8 | packed[place], (size & 7) + 4
      place += 1
    else:
      width = 2 if kind == 2 else 4
      distance, size = int.from_bytes(packed[place:place + width], 'little'), size + 1
      place += width
    _demand(0 < distance <= len(out) and len(out) + size <= length, 'a block is damaged')
    for _ in range(size):
      out.append(out[-distance])
  return bytes(out)
