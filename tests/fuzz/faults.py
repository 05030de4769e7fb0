"""What can be wrong with a file: the faults that tests/fuzz/fuzz.py puts into the inputs of scripts.

Each fault is a function of (path, rng) that changes the file at the path; FAULTS has those of each kind of
file. A name that starts with `unreadable` needs a user for whom permissions count.
"""
import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import zlib

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from dataset import schema

ODD_NAMES = ('m[lr=0.1]', 'x*?', 'with blanks', "it's", 'quo"ted', 'é 空 😀', '-leading', '%s %d',
             'back\\slash', 'new\nline', 'a.record', '..hidden', '{x}', '$HOME', '~', '#x', 'x' * 200)
_PATHS_ELSEWHERE = ('../../escaped', '/tmp/escaped_by_absolute_name', 'a/../../../escaped', '..', '.',
                    '/dev/zero', '/dev/null', '/proc/self/mem', 'a\0b', '%s%n', '<script>', 'x' * 5000,
                    '\ud7ff', '-rf')


def read(path):
  with open(path, 'rb') as file:
    return file.read()


def write(path, content):
  with open(path, 'wb') as file:
    file.write(content)


def _remove(path):
  if os.path.isdir(path) and not os.path.islink(path):
    shutil.rmtree(path)
  else:
    os.remove(path)


# --- Any file ------------------------------------------------------------------------------------


def flip(path, rng):
  """Changes up to twenty bytes."""
  content = bytearray(read(path))
  for _ in range(rng.choice((1, 1, 3, 20))):
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  write(path, bytes(content))


def flip_early(path, rng):
  """Changes a byte of the first hundred, where headers are."""
  content = bytearray(read(path))
  content[rng.randrange(min(100, len(content)))] = rng.randrange(256)
  write(path, bytes(content))


def flip_late(path, rng):
  """Changes a byte of the last sixty, where indexes of checkpoints and PNGs end."""
  content = bytearray(read(path))
  content[-1 - rng.randrange(min(60, len(content)))] = rng.randrange(256)
  write(path, bytes(content))


def cut(path, rng):
  os.truncate(path, rng.randrange(1, os.path.getsize(path)))


def cut_a_little(path, rng):
  os.truncate(path, max(0, os.path.getsize(path) - rng.choice((1, 2, 8, 12))))


def empty(path, rng):
  os.truncate(path, 0)


def zero_the_end(path, rng):
  size = os.path.getsize(path)
  keep = rng.randrange(size)
  write(path, read(path)[:keep] + bytes(size - keep))


def append(path, rng):
  write(path, read(path) + rng.randbytes(rng.choice((1, 16, 4000))))


def swap_halves(path, rng):
  content = read(path)
  write(path, content[len(content) // 2:] + content[:len(content) // 2])


def noise(path, rng):
  write(path, rng.randbytes(rng.choice((1, 50, 5000))))


def missing(path, rng):
  _remove(path)


def folder_instead(path, rng):
  _remove(path)
  os.mkdir(path)


def pipe_instead(path, rng):
  _remove(path)
  os.mkfifo(path)


def link_to_itself(path, rng):
  _remove(path)
  os.symlink(os.path.basename(path), path)


def link_to_nothing(path, rng):
  _remove(path)
  os.symlink('nowhere', path)


def link_to_zeros(path, rng):
  _remove(path)
  os.symlink('/dev/zero', path)


def ten_gigabytes(path, rng):
  """Makes the file 10 GB, of which the disk holds no more than before."""
  os.truncate(path, 10 << 30)


def unreadable(path, rng):
  os.chmod(path, 0)


def other_kind(path, rng):
  """Puts a file of another kind in place."""
  write(path, rng.choice((b'\x89PNG\r\n\x1a\n', b'{"name": 1}', b'a\nb\n', b'PK\3\4' + bytes(60),
                          b'\x1f\x8b\x08', b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'%PDF-1.7',
                          b'\x7fELF' + bytes(60), b'cos\nsystem\n(S"touch escaped"\ntR.',
                          _image('RGB', (7, 9), 'JPEG'))))


ANY = (flip, flip_early, flip_late, cut, cut_a_little, empty, zero_the_end, append, swap_halves, noise,
       missing, folder_instead, pipe_instead, link_to_itself, link_to_nothing, link_to_zeros, ten_gigabytes,
       unreadable, other_kind)


# --- Text ----------------------------------------------------------------------------------------


def utf_16(path, rng):
  write(path, read(path).decode().encode(rng.choice(('utf-16', 'utf-16-le', 'utf-32'))))


def latin_1(path, rng):
  write(path, read(path) + 'Straße é\n'.encode('latin-1'))


def byte_order_mark(path, rng):
  write(path, b'\xef\xbb\xbf' + read(path))


def zero_bytes(path, rng):
  content = read(path)
  place = rng.randrange(len(content))
  write(path, content[:place] + b'\0' + content[place:])


def line_ends(path, rng):
  write(path, read(path).replace(b'\n', rng.choice((b'\r', b'\r\n', b'\n\n', b'\x0b', '\u2028'.encode()))))


def doubled_line(path, rng):
  write(path, read(path) * 2)


def names_elsewhere(path, rng):
  """Adds a name that lies outside every folder, or can be none."""
  write(path, read(path) + rng.choice(_PATHS_ELSEWHERE).encode() + b'\n')


def names_that_are_missing(path, rng):
  write(path, read(path) + b'not_there\n')


def comments(path, rng):
  write(path, b'# a comment\n' + read(path))


def second_column(path, rng):
  write(path, read(path).replace(b'\n', b' 1 -1\n'))


def one_long_line(path, rng):
  write(path, b'x' * 3_000_000)


LIST = (utf_16, latin_1, byte_order_mark, zero_bytes, line_ends, doubled_line, names_elsewhere,
        names_that_are_missing, comments, second_column, one_long_line)


# --- JSON ----------------------------------------------------------------------------------------


_VALUES = (None, True, -1, 0, 1, 2.5, 1e300, 10**30, float('nan'), float('inf'), '', 'x', '../../escaped',
           '\ud800', 'a\nb', '\0', [], {}, [[]], [None], {'a': 1}, ['a', 'a'], list(range(300)), 'x' * 100000)


def other_value(path, rng):
  """Puts a value of another type or range in a random place."""
  content = json.loads(read(path))
  holder, key = rng.choice(list(_places(content)))
  holder[key] = rng.choice(_VALUES)
  write(path, json.dumps(content).encode())


def other_value_on_top(path, rng):
  content = json.loads(read(path))
  content[rng.choice(sorted(content))] = rng.choice(_VALUES)
  write(path, json.dumps(content).encode())


def missing_key(path, rng):
  content = json.loads(read(path))
  holder, key = rng.choice(list(_places(content)))
  del holder[key]
  write(path, json.dumps(content).encode())


def unknown_key(path, rng):
  content = json.loads(read(path))
  content[rng.choice(('extra', '', '\ud800', '__class__', 'palette2'))] = rng.choice(_VALUES)
  write(path, json.dumps(content).encode())


def other_top(path, rng):
  write(path, json.dumps(rng.choice(_VALUES)).encode())


def deeply_nested(path, rng):
  write(path, rng.choice((b'[', b'{"a":')) * 100000)


def nested_in_a_key(path, rng):
  content = json.loads(read(path))
  text = json.dumps({**content, rng.choice(sorted(content)): 'HERE'})
  write(path, text.replace('"HERE"', '[' * 3000 + ']' * 3000).encode())


def trailing_comma(path, rng):
  write(path, read(path).rstrip()[:-1] + b',}')


JSON = (utf_16, latin_1, byte_order_mark, zero_bytes, other_value, other_value_on_top, missing_key,
        unknown_key, other_top, deeply_nested, nested_in_a_key, trailing_comma)


def _places(content):
  """Yields (container, key) of every value in JSON."""
  keys = content.keys() if isinstance(content, dict) else range(len(content))
  for key in list(keys):
    yield content, key
    if isinstance(content[key], (dict, list)):
      yield from _places(content[key])


# --- Images --------------------------------------------------------------------------------------


def _image(mode, size, format_, **options):
  """Returns the file of an image of this mode, (width, height) and format."""
  buffer = io.BytesIO()
  Image.new(mode, size, options.pop('color', 0)).save(buffer, format_, **options)
  return buffer.getvalue()


def _of(path):
  with Image.open(path) as image:
    return image.copy()


def _save(image, path, format_, **options):
  buffer = io.BytesIO()
  image.save(buffer, format_, **options)
  write(path, buffer.getvalue())


def png_chunk(kind, data):
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def claiming(png, width, height):
  """Returns a PNG file whose header claims another size, by the rules."""
  return png[:8] + png_chunk(b'IHDR', struct.pack('>II', width, height) + png[24:29]) + png[33:]


def as_png(path):
  buffer = io.BytesIO()
  _of(path).save(buffer, 'PNG')
  return buffer.getvalue()


def claimed_size(path, rng):
  size = rng.choice(((100000, 100000), (0xffffffff, 0xffffffff), (20000, 20000), (0, 0), (1, 0x7fffffff),
                     (64, 0)))
  write(path, claiming(as_png(path), *size))


def claimed_size_of_jpeg(path, rng):
  buffer = io.BytesIO()
  _of(path).convert('RGB').save(buffer, 'JPEG')
  content = buffer.getvalue()
  frame = content.index(b'\xff\xc0') + 5
  height, width = rng.choice(((65500, 65500), (0, 0), (65500, 1)))
  write(path, content[:frame] + struct.pack('>HH', height, width) + content[frame + 4:])


def other_size(path, rng):
  image = _of(path)
  _save(image.resize((image.width + 1, image.height)), path, image.format or 'PNG')


def tiny(path, rng):
  _save(_of(path).resize((1, 1)), path, 'PNG')


def extreme_shape(path, rng):
  _save(_of(path).resize(rng.choice(((1, 3000), (3000, 1), (40000, 2)))), path, 'PNG')


def other_format(path, rng):
  _save(_of(path).convert('RGB'), path, rng.choice(('GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'ICO', 'TGA', 'PCX',
                                                    'JPEG2000', 'EPS', 'PDF', 'DDS', 'SGI', 'MPO')))


def other_mode(path, rng):
  mode, format_ = rng.choice((
      ('RGBA', 'PNG'), ('LA', 'PNG'), ('I;16', 'PNG'), ('CMYK', 'JPEG'), ('1', 'PNG'), ('P', 'PNG'),
      ('F', 'TIFF'), ('I', 'TIFF'), ('YCbCr', 'JPEG'), ('LAB', 'TIFF')))
  image = _of(path).convert('RGB')
  if mode in ('I;16', 'F', 'I'):
    image = image.convert('L').convert('I' if mode != 'F' else 'F')
    image = image.convert(mode) if mode != 'I' else image
  elif mode == 'LAB':
    image = Image.new('LAB', image.size)
  else:
    image = image.convert(mode)
  _save(image, path, format_)


def broken_exif(path, rng):
  _save(_of(path).convert('RGB'), path, 'JPEG', exif=b'Exif\0\0' + rng.choice((
      b'garbage!', b'', b'MM\0*\0\0\xff\xff', b'II*\0\x08\0\0\0\xff\xff' + rng.randbytes(60))), dpi=(72, 72))


def turned_by_exif(path, rng):
  exif = Image.Exif()
  exif[0x0112] = rng.choice((2, 3, 6, 8, 0, 99))
  _save(_of(path).convert('RGB'), path, 'JPEG', exif=exif)


def text_that_unpacks(path, rng):
  """Puts a text or colour profile of 200 MB, packed, into a PNG."""
  packed = zlib.compress(bytes(200 << 20), 9)
  kind, head = rng.choice(((b'zTXt', b'Comment\0\0'), (b'iTXt', b'Comment\0\1\0\0\0'), (b'iCCP', b'icc\0\0')))
  content = as_png(path)
  write(path, content[:33] + png_chunk(kind, head + packed) + content[33:])


def data_that_unpack(path, rng):
  """Lets a PNG's pixels unpack to far more than its size."""
  content = as_png(path)
  write(path, content[:33] + png_chunk(b'IDAT', zlib.compress(bytes(200 << 20), 9)) + png_chunk(b'IEND', b''))


def wrong_checksum(path, rng):
  content = bytearray(as_png(path))
  content[29 + rng.randrange(4)] ^= 1
  write(path, bytes(content))


def program(path, rng):
  write(path, b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 64\n%%EndComments\n'
              b'(escaped) (w) file closefile\n')


def progressive(path, rng):
  _save(_of(path).convert('RGB'), path, 'JPEG', progressive=True)


IMAGE = (claimed_size, claimed_size_of_jpeg, other_size, tiny, extreme_shape, other_format, other_mode,
         broken_exif, turned_by_exif, text_that_unpacks, data_that_unpack, wrong_checksum, program,
         progressive)


def other_classes(path, rng):
  """Puts values into a label that the dataset may not have."""
  values = np.asarray(_of(path)).copy()
  values[0, :3] = rng.choice((5, 77, 254, 255))
  image = Image.fromarray(values)
  if rng.random() < .5:
    image.putpalette(bytes(range(256)) * 3)
  _save(image, path, 'PNG')


def colour_label(path, rng):
  _save(_of(path).convert(rng.choice(('RGB', 'RGBA', 'LA'))), path, 'PNG')


def all_ignored(path, rng):
  write(path, _image('L', _of(path).size, 'PNG', color=255))


def jpeg_label(path, rng):
  _save(_of(path).convert('L'), path, 'JPEG')


LABEL = (claimed_size, other_size, tiny, other_format, other_mode, text_that_unpacks, data_that_unpack,
         wrong_checksum, other_classes, colour_label, all_ignored, jpeg_label)


# --- Records and event files ---------------------------------------------------------------------


def masked_crc(data, table=[]):  # noqa: B006 (the table is made once)
  """Returns the checksum of record files: CRC-32C, turned around."""
  if not table:
    for value in range(256):
      for _ in range(8):
        value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
      table.append(value)
  crc = 0xffffffff
  for byte in data:
    crc = table[(crc ^ byte) & 255] ^ crc >> 8
  crc ^= 0xffffffff
  return (crc >> 15 | crc << 17) + 0xa282ead8 & 0xffffffff


def framed(data, length=None):
  """Returns data as an entry of a record file, with the right checksums whatever the length says."""
  head = struct.pack('<Q', len(data) if length is None else length)
  return (head + struct.pack('<I', masked_crc(head)) + data + struct.pack('<I', masked_crc(data)))


def entries(path):
  """Returns the list of the data in a record file."""
  content, offset, found = read(path), 0, []
  while offset < len(content):
    length, = struct.unpack('<Q', content[offset:offset + 8])
    found.append(content[offset + 12:offset + 12 + length])
    offset += 16 + length
  return found


def huge_length(path, rng):
  """Lets the length of an entry, with its right checksum, be far more than the file."""
  content = [framed(data) for data in entries(path)]
  length = rng.choice((1 << 33, 1 << 40, 1 << 62, (1 << 63) - 1, (1 << 63), (1 << 64) - 1, (1 << 64) - 4))
  content.insert(rng.randrange(len(content) + 1), framed(b'x' * 40, length))
  write(path, b''.join(content))


def other_payload(path, rng):
  """Adds an entry that is no protocol buffer, or an empty one."""
  content = [framed(data) for data in entries(path)]
  payload = rng.choice((b'', b'no example', rng.randbytes(300)))
  content.insert(rng.randrange(len(content) + 1), framed(payload))
  write(path, b''.join(content))


def flipped_payload(path, rng):
  """Changes bytes of an entry, whose checksum is right nevertheless."""
  content = entries(path)
  number = rng.randrange(len(content))
  data = bytearray(content[number])
  for _ in range(rng.choice((1, 5))):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  content[number] = bytes(data)
  write(path, b''.join(map(framed, content)))


_PICTURES = (schema.IMAGE_ENCODED, schema.LABEL_ENCODED)
RECORD_ENTRIES = (huge_length, other_payload, flipped_payload)


def _change_example(path, rng, change):
  """Rewrites a random example of a record after `change(its features)`."""
  content = entries(path)
  number = rng.randrange(len(content))
  example = tf.train.Example.FromString(content[number])
  change(example.features.feature)
  content[number] = example.SerializeToString()
  write(path, b''.join(map(framed, content)))


def _set_bytes(name, *values):
  def change(features):
    features[name].Clear()
    features[name].bytes_list.value.extend(values)
  return change


def record_name(path, rng):
  """Lets an example carry a name that leads elsewhere."""
  name = rng.choice((*_PATHS_ELSEWHERE, '')).encode('utf-8', 'surrogatepass')
  name = rng.choice((name, b'\xff\xfe', b'a\n\x1b[2J'))
  _change_example(path, rng, _set_bytes(schema.IMAGE_FILENAME, name))


def record_bomb(path, rng):
  bomb = claiming(_image('L', (9, 7), 'PNG'), *rng.choice(((100000, 100000), (20000, 20000), (0, 0))))
  _change_example(path, rng, _set_bytes(rng.choice(_PICTURES), bomb))


def record_format(path, rng):
  content = _image('L', (80, 64), rng.choice(('GIF', 'BMP', 'TIFF', 'WEBP', 'PPM')))
  _change_example(path, rng, _set_bytes(rng.choice(_PICTURES), content))


def record_sizes(path, rng):
  content = _image('L', (rng.choice((1, 79, 80)), rng.choice((1, 63, 900))), 'PNG', color=1)
  _change_example(path, rng, _set_bytes(rng.choice(_PICTURES), content))


def record_values(path, rng):
  label = _image('L', (80, 64), 'PNG', color=rng.choice((5, 254)))
  _change_example(path, rng, _set_bytes(schema.LABEL_ENCODED, label))


def record_features(path, rng):
  """Takes a feature away, doubles it, or makes it numbers."""
  name = rng.choice((*_PICTURES, schema.IMAGE_FILENAME, schema.IMAGE_HEIGHT))

  def change(features):
    kind = rng.choice(('none', 'empty', 'two', 'int', 'float'))
    features[name].Clear()
    if kind == 'none':
      del features[name]
    elif kind == 'two':
      features[name].bytes_list.value.extend([b'a', b'b'])
    elif kind == 'int':
      features[name].int64_list.value.append(-1)
    elif kind == 'float':
      features[name].float_list.value.append(float('nan'))
  _change_example(path, rng, change)


RECORD = (*RECORD_ENTRIES, record_name, record_name, record_bomb, record_format, record_sizes, record_values,
          record_features)


# --- Checkpoints and archives --------------------------------------------------------------------


def state_elsewhere(path, rng):
  """Lets the file `checkpoint` name one that is not there, or cannot be."""
  name = rng.choice((*_PATHS_ELSEWHERE, '../model/model.ckpt-2', 'model.ckpt-999', 'checkpoint', ''))
  write(path, f'model_checkpoint_path: {json.dumps(name)}\n'.encode())


def state_nonsense(path, rng):
  write(path, rng.choice((
      b'model_checkpoint_path: ', b'model_checkpoint_path: 5\n', b'x: "y"\n', b'{' * 5000,
      'model_checkpoint_path: "é"\n'.encode('latin-1'), b'model_checkpoint_path: "a\\377"\n')))


def huge_block(path, rng):
  """Lets the footer of an index, which no checksum covers, point to a block of any size."""
  content = read(path)

  def varint(value):
    parts = []
    while value > 127:
      parts.append(value & 127 | 128)
      value >>= 7
    return bytes([*parts, value])

  size = rng.choice((1 << 31, 1 << 40, (1 << 62), (1 << 64) - 1, (1 << 64) - 6))
  handles = varint(0) + varint(8) + varint(rng.choice((0, len(content), 1 << 50))) + varint(size)
  write(path, content[:-48] + handles.ljust(40, b'\0') + content[-8:])


STATE = (state_elsewhere, state_nonsense, utf_16, latin_1, zero_bytes)
INDEX = (huge_block,)


def _archive(path, *members, mode='w:gz'):
  with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as file:
    for name, kind, target, content in members:
      member = tarfile.TarInfo(name)
      member.type, member.linkname, member.size = kind, target, len(content)
      file.addfile(member, io.BytesIO(content) if content else None)


def members_elsewhere(path, rng):
  file = tarfile.REGTYPE
  _archive(path, ('../../escaped.ckpt.index', file, '', b'x'), ('/tmp/escaped.ckpt.index', file, '', b'x'),
           ('l.ckpt', tarfile.SYMTYPE, '../..', b''), ('l.ckpt/escaped.ckpt', file, '', b'x'),
           ('h.ckpt', tarfile.LNKTYPE, '/etc/passwd', b''), ('f.ckpt', tarfile.FIFOTYPE, '', b''))


def member_of_any_size(path, rng):
  member = tarfile.TarInfo('model.ckpt.data-00000-of-00001')
  member.type = rng.choice((tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE,
                            tarfile.GNUTYPE_SPARSE))
  member.size = rng.choice((1 << 33, 1 << 40, 1 << 60))
  with gzip.open(path, 'wb') as file:
    file.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(100000))


def archive_of_zeros(path, rng):
  """Packs 256 MB of zeros."""
  packer = zlib.compressobj(1, zlib.DEFLATED, 31)
  block = bytes(1 << 24)
  write(path, b''.join([*(packer.compress(block) for _ in range(16)), packer.flush()]))


def other_archive(path, rng):
  _archive(path, ('model.ckpt.index', tarfile.REGTYPE, '', b'nothing'),
           mode=rng.choice(('w', 'w:bz2', 'w:xz')))


def archive_without_a_checkpoint(path, rng):
  _archive(path, ('frozen_inference_graph.pb', tarfile.REGTYPE, '', b'nothing'))


ARCHIVE = (members_elsewhere, member_of_any_size, archive_of_zeros, other_archive,
           archive_without_a_checkpoint)


# --- Folders -------------------------------------------------------------------------------------


def empty_folder(path, rng):
  shutil.rmtree(path)
  os.mkdir(path)


def file_instead(path, rng):
  shutil.rmtree(path)
  write(path, b'')


def unreadable_folder(path, rng):
  os.chmod(path, rng.choice((0, 0o444, 0o111)))


def link_to_above(path, rng):
  """Adds links in circles."""
  os.symlink('.', os.path.join(path, 'again'))
  os.symlink('..', os.path.join(path, 'above'))
  os.symlink('loop', os.path.join(path, 'loop'))


def clutter(path, rng):
  """Adds hidden files and folders, temporary files of others, and names that look like the real ones."""
  for name in ('.DS_Store', 'Thumbs.db', '._a.jpg', 'x.png.999999.tmp', 'desktop.ini'):
    write(os.path.join(path, name), b'x')
  os.mkdir(os.path.join(path, '.ipynb_checkpoints'))
  os.mkdir(os.path.join(path, 'folder.png'))
  os.mkfifo(os.path.join(path, 'pipe.jpg'))


FOLDER = (missing, empty_folder, file_instead, pipe_instead, link_to_itself, link_to_nothing,
          unreadable_folder, link_to_above, clutter)

# Kind of input -> its faults.
FAULTS = {
    'list': (*ANY, *LIST),
    'json': (*ANY, *JSON),
    'image': (*ANY, *IMAGE),
    'label': (*ANY, *LABEL),
    'record': (*ANY, *RECORD),
    'events': (*ANY, *RECORD_ENTRIES),
    'state': (*ANY, *STATE),
    'index': (*ANY, *INDEX),
    'data': ANY,
    'archive': (*ANY, *ARCHIVE),
    'folder': FOLDER,
}
