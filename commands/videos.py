"""Videos: every frame is predicted, and shown with its classes in a video of its own."""
import itertools
import os
import tempfile

from commands import photos
from dataset import image_files
from utils import files
from utils.errors import DataError
from utils.progress import Progress

_CODEC = 'mp4v'
# Share of the frames, and of the seconds, that the header names. It is an estimate: sound may be longer.
_LEAST_SHARE = 0.9
# Their headers name frames that were trimmed off, but also the place of each; what is lost is known without.
_WITH_TABLES = ('.mp4', '.mov', '.m4v', '.qt', '.3gp')
_SLACK = 9  # bytes that writers of AVI may count too many: of a header, and one that makes lengths even
_EBML, _SEGMENT = b'\x1a\x45\xdf\xa3', b'\x18\x53\x80\x67'  # of MKV and WebM
_ASF = b'\x30\x26\xb2\x75'  # of WMV
_BOXES = {b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'moof', b'styp', b'sidx', b'mfra', b'meta',
          b'uuid', b'udta', b'pnot', b'emsg', b'prft'}  # of MP4, MOV and M4V


def predict(photo, predictor, writer):
  """Predicts a video and writes one with the classes over it; and masks of its frames, if they are asked for.

  Args:
    photo: photos.Photo.
    predictor: Predictor.
    writer: inference.Writer.

  Raises:
    DataError: OpenCV cannot read the video or write one, or the video is cut off or damaged.
  """
  import cv2  # slow to load, and of no use to photos

  source = f"video '{photo.path}'"
  if ends_early(photo.path, source):
    raise image_files.damaged(source, image_files.ENDS_EARLY)
  reader = cv2.VideoCapture(photo.path)
  rate, total = reader.get(cv2.CAP_PROP_FPS), int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
  if not reader.isOpened() or not rate > 0:
    raise DataError(f"{source} is nothing that OpenCV reads; convert it, such as by "
                    "'ffmpeg -i IN -c:v libx264 OUT.mp4'")
  total = total if 0 < total < os.path.getsize(photo.path) else 0  # which is not known of streams
  kept, end = {}, 0  # frames whose predictions have not come yet, and when the last one ends, in seconds

  def frames():
    nonlocal end
    for position in itertools.count():
      there, frame = reader.read()
      if not there:
        return
      end = reader.get(cv2.CAP_PROP_POS_MSEC) / 1000 + 1 / rate
      kept[position] = frame[:, :, ::-1]
      yield kept[position]

  folder = os.path.dirname(photo.output) or '.'
  os.makedirs(folder, exist_ok=True)
  number, out, mask_folder = 0, None, photo.output + photos.FRAMES_ENDING
  with (tempfile.TemporaryDirectory(prefix='.', dir=folder) as masks,
        files.replacing(photo.output + photos.VIDEO_ENDING) as temporary):
    path = f'{temporary}.mp4'  # OpenCV goes by the extension
    try:
      with Progress(total or None, os.path.basename(photo.path), 'frame') as progress:
        for position, prediction in predictor(frames(), read=lambda frame: frame):
          number, frame, classes = position + 1, kept.pop(position), prediction['classes']
          if out is None:
            size = frame.shape[1], frame.shape[0]
            out = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*_CODEC), rate, size)
            if not out.isOpened():
              raise DataError(f'OpenCV cannot write videos here ({_CODEC}); give --outputs mask, or the '
                              'frames as images')
          out.write(writer.overlay(frame, classes)[:, :, ::-1])
          if 'mask' in writer.video_outputs:
            writer.save_mask(os.path.join(masks, photos.FRAME.format(number)), classes)
          writer.count(photo, classes, number)
          progress.update()
    finally:
      reader.release()
      if out is not None:
        out.release()
        os.replace(path, temporary)
    if not number:
      raise DataError(f'{source} has no frame that OpenCV reads; convert it')
    if number < min(total - 2, _LEAST_SHARE * total):
      if end < _LEAST_SHARE * total / rate and not photo.path.lower().endswith(_WITH_TABLES):
        raise image_files.damaged(source, f'{number} of about {total} frames can be read; if a player '
                                  'shows it whole, convert it')
      print(f'Note: {source} has {number} frames, and its header names {total}; unless it was trimmed, or '
            'its rate varies, the others are damaged', flush=True)
    if 'mask' in writer.video_outputs:
      os.makedirs(mask_folder, exist_ok=True)
      for name in os.listdir(masks):
        os.replace(os.path.join(masks, name), os.path.join(mask_folder, name))


def ends_early(path, source):
  """Returns whether a video's file is shorter than its own headers say, as far as they do.

  AVI, WMV, Matroska and MP4 are chunks, one behind the other, that each begin with their length.

  Raises:
    DataError: it is no file that can be read; `source` is what the error calls it.
  """
  files.check_regular(path, source)
  with open(path, 'rb') as file:
    size, end, first = os.path.getsize(path), 0, file.read(4)
    while end < size:
      file.seek(end)
      length = _chunk_length(first, file.read(24).ljust(24, b'\0'))
      if length < 8:
        return False
      end += length
  return end > size + _SLACK * (first == b'RIFF')


def _chunk_length(first, head):
  """Returns the bytes of a chunk of a video's file, or 0 if it does not say so.

  Args:
    first: the first 4 bytes of the file.
    head: the first 24 of the chunk.
  """
  if first == b'RIFF':
    length = int.from_bytes(head[4:8], 'little')
    return 8 + length + length % 2 if head[:4] == first and length else 0
  if first == _ASF:
    return int.from_bytes(head[16:24], 'little')
  if first == _EBML:
    digits = 9 - head[4].bit_length()  # of the length, in 7 bits each
    length = int.from_bytes(head[4:4 + digits], 'big') & (all_ones := (1 << 7 * digits) - 1)
    return 4 + digits + length if head[:4] in (_EBML, _SEGMENT) and length != all_ones else 0
  length = int.from_bytes(head[:4], 'big')
  length = int.from_bytes(head[8:16], 'big') if length == 1 else length
  return length if head[4:8] in _BOXES else 0
