"""Videos: every frame is predicted, and shown with its classes in a video of its own."""
import itertools
import os
import tempfile

import cv2

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
  video = _Video(photo.path)
  folder = os.path.dirname(photo.output) or '.'
  os.makedirs(folder, exist_ok=True)
  number, out, mask_folder = 0, None, photo.output + photos.FRAMES_ENDING
  with (tempfile.TemporaryDirectory(prefix='.', dir=folder) as masks,
        files.replacing(photo.output + photos.VIDEO_ENDING) as temporary):
    path = f'{temporary}.mp4'  # OpenCV goes by the extension
    try:
      with Progress(video.total or None, os.path.basename(photo.path), 'frame') as progress:
        for position, prediction in predictor(video.frames(), read=lambda frame: frame):
          number, frame, classes = position + 1, video.kept.pop(position), prediction['classes']
          out = out or _writer(path, video.rate, frame)
          out.write(writer.overlay(frame, classes)[:, :, ::-1])
          if 'mask' in writer.video_outputs:
            writer.save_mask(os.path.join(masks, photos.FRAME.format(number)), classes)
          writer.count(photo, classes, number)
          progress.update()
    finally:
      if out is not None:
        out.release()
        os.replace(path, temporary)
    video.check_end(number)
    if 'mask' in writer.video_outputs:
      os.makedirs(mask_folder, exist_ok=True)
      for name in os.listdir(masks):
        os.replace(os.path.join(masks, name), os.path.join(mask_folder, name))


def _writer(path, rate, frame):
  """Returns OpenCV's writer of a video of frames of this size."""
  out = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*_CODEC), rate, frame.shape[1::-1])
  if not out.isOpened():
    raise DataError(f'OpenCV cannot write videos here ({_CODEC}); give --outputs mask, or the frames as '
                    'images')
  return out


class _Video:
  """A video that is read: its frames a second, how many its header names (0: unknown), and those still kept.

  A frame, uint8 [H, W, 3], is kept under its position until its prediction takes it.
  """

  def __init__(self, path):
    self._path, self._source, self._seconds = path, f"video '{path}'", 0
    if ends_early(path, self._source):
      raise image_files.damaged(self._source, image_files.ENDS_EARLY)
    self._reader, self.kept = cv2.VideoCapture(path), {}
    self.rate = self._reader.get(cv2.CAP_PROP_FPS)
    total = int(self._reader.get(cv2.CAP_PROP_FRAME_COUNT))
    if not self._reader.isOpened() or not self.rate > 0:
      raise DataError(f"{self._source} is nothing that OpenCV reads; convert it, such as by "
                      "'ffmpeg -i IN -c:v libx264 OUT.mp4'")
    self.total = total if 0 < total < os.path.getsize(path) else 0

  def frames(self):
    for position in itertools.count():
      there, frame = self._reader.read()
      if not there:
        return
      self._seconds = self._reader.get(cv2.CAP_PROP_POS_MSEC) / 1000 + 1 / self.rate
      self.kept[position] = frame[:, :, ::-1]
      yield self.kept[position]

  def check_end(self, number):
    """Raises DataError if far fewer frames came than the header names, or none; says if some are missing."""
    if not number:
      raise DataError(f'{self._source} has no frame that OpenCV reads; convert it')
    if number < min(self.total - 2, _LEAST_SHARE * self.total):
      has_table = self._path.lower().endswith(_WITH_TABLES)
      if self._seconds < _LEAST_SHARE * self.total / self.rate and not has_table:
        raise image_files.damaged(self._source, f'{number} of about {self.total} frames can be read; if a '
                                  'player shows it whole, convert it')
      print(f'Note: {self._source} has {number} frames, and its header names {self.total}; unless it was '
            'trimmed, or its rate varies, the others are damaged', flush=True)


def ends_early(path, source):
  """Returns whether a video's file is shorter than its own headers say, as far as they do.

  AVI, Matroska and MP4 are chunks, one behind the other, that each begin with their length.

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
  if first == _EBML:
    digits = 9 - head[4].bit_length()  # of the length, in 7 bits each
    length = int.from_bytes(head[4:4 + digits], 'big') & (all_ones := (1 << 7 * digits) - 1)
    return 4 + digits + length if head[:4] in (_EBML, _SEGMENT) and length != all_ones else 0
  length = int.from_bytes(head[:4], 'big')
  length = int.from_bytes(head[8:16], 'big') if length == 1 else length
  return length if head[4:8] in _BOXES else 0
