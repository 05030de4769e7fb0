"""Videos: every frame is predicted, and shown with its classes in a video of its own."""
import os

from cli import photos
from utils import files
from utils.errors import DataError
from utils.progress import Progress

_CODEC = 'mp4v'


def predict(photo, predictor, writer):
  """Predicts a video and writes one with the classes over it; and masks of its frames, if they are asked for.

  Args:
    photo: photos.Photo.
    predictor: inference.Predictor.
    writer: inference.Writer.

  Raises:
    DataError: OpenCV cannot read the video or write one.
  """
  import cv2  # slow to load, and of no use to photos

  reader = cv2.VideoCapture(photo.path)
  rate, total = reader.get(cv2.CAP_PROP_FPS), int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
  if not reader.isOpened() or not rate > 0:
    raise DataError(f"video '{photo.path}' is nothing that OpenCV reads; convert it, such as by "
                    "'ffmpeg -i IN -c:v libx264 OUT.mp4'")
  kept = []  # frames whose predictions have not come yet

  def frames():
    while True:
      there, frame = reader.read()
      if not there:
        return
      kept.append(frame[:, :, ::-1])
      yield kept[-1]

  os.makedirs(os.path.dirname(photo.output) or '.', exist_ok=True)
  number, out, mask_folder = 0, None, photo.output + photos.FRAMES_ENDING
  if 'mask' in writer.video_outputs:
    os.makedirs(mask_folder, exist_ok=True)
  with files.replacing(photo.output + photos.VIDEO_ENDING) as temporary:
    path = f'{temporary}.mp4'  # OpenCV goes by the extension
    try:
      with Progress(max(total, 0) or None, os.path.basename(photo.path), 'frame') as progress:
        for number, prediction in enumerate(predictor(frames(), read=lambda frame: frame), 1):
          frame, classes = kept.pop(0), prediction['classes'][:, :, 0]
          if out is None:
            size = frame.shape[1], frame.shape[0]
            out = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*_CODEC), rate, size)
            if not out.isOpened():
              raise DataError(f'OpenCV cannot write videos here ({_CODEC}); give --outputs mask, or the '
                              'frames as images')
          out.write(writer.overlay(frame, classes)[:, :, ::-1])
          if 'mask' in writer.video_outputs:
            writer.save_mask(os.path.join(mask_folder, photos.FRAME.format(number)), classes)
          writer.count(photo, classes, number)
          progress.update()
    finally:
      reader.release()
      if out is not None:
        out.release()
        os.replace(path, temporary)
  if not number:
    raise DataError(f"video '{photo.path}' has no frame that OpenCV reads; convert it")
