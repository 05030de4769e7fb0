"""commands/videos.py: the frames of a video, each with its own prediction, and videos that are none."""
import contextlib
import os
import tempfile
import unittest

import cv2
import numpy as np

from commands import photos, videos
from utils.errors import DataError


class Writer:
  """Stands in for inference.Writer: keeps what it is given; an overlay is as bright as its class says."""

  def __init__(self, *outputs):
    self.video_outputs, self.counts = outputs, {}

  def overlay(self, frame, classes):
    assert frame.shape == (*classes.shape, 3)
    return np.full_like(frame, 20 * classes[0, 0])

  def save_mask(self, path, classes):
    with open(path, 'w') as file:
      file.write(str(classes[0, 0]))

  def count(self, photo, classes, frame):
    self.counts[photo, frame] = classes[0, 0]


def predictor(frames, read):
  """Predicts the redness of a frame in steps of 20; some frames are read before the first comes back."""
  frames = [read(frame) for frame in frames]
  for position, frame in enumerate(frames):
    yield position, {'classes': np.uint8(np.round(frame[:, :, 0] / 20))}


class VideosTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def photo(self, reds, name='clip.avi', codec='MJPG'):
    """Writes a video whose frames are of these reds, RGB; returns its Photo."""
    path = os.path.join(self.folder, name)
    out = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*codec), 5, (48, 32))
    for red in reds:
      out.write(np.full((32, 48, 3), (0, 0, red), np.uint8))  # OpenCV has blue first
    out.release()
    return photos.Photo(path, os.path.join(self.folder, 'out', 'clip'))

  def test_each_frame_gets_its_own_prediction(self):
    photo, writer = self.photo((40, 200, 120)), Writer('mask', 'overlay')
    videos.predict(photo, predictor, writer)
    self.assertEqual(writer.counts, {(photo, n): red for n, red in ((1, 2), (2, 10), (3, 6))})
    masks = {}
    for name in os.listdir(f'{photo.output}_mask'):
      with open(os.path.join(f'{photo.output}_mask', name)) as file:
        masks[name] = int(file.read())
    self.assertEqual(masks, {'000001.png': 2, '000002.png': 10, '000003.png': 6})
    self.assertEqual(sorted(os.listdir(os.path.dirname(photo.output))), ['clip_mask', 'clip_overlay.mp4'])
    reader = cv2.VideoCapture(photo.output + photos.VIDEO_ENDING)
    self.assertEqual(reader.get(cv2.CAP_PROP_FPS), 5)
    seen = [reader.read()[1] for _ in range(3)]
    np.testing.assert_allclose([frame.mean() for frame in seen], [40, 200, 120], atol=4)
    self.assertEqual(seen[0].shape, (32, 48, 3))
    self.assertFalse(reader.read()[0])

  def test_masks_are_written_only_if_asked_for(self):
    photo, writer = self.photo((40,)), Writer('overlay')
    videos.predict(photo, predictor, writer)
    self.assertEqual(os.listdir(os.path.dirname(photo.output)), ['clip_overlay.mp4'])

  def test_what_is_no_video_is_refused_and_leaves_nothing(self):
    path = os.path.join(self.folder, 'x.mp4')
    with open(path, 'w') as file:
      file.write('no video')
    with self.assertRaisesRegex(DataError, "video '.*x.mp4' is nothing that OpenCV reads; convert it"):
      videos.predict(photos.Photo(path, os.path.join(self.folder, 'out', 'x')), predictor, Writer('mask'))
    self.assertEqual(os.listdir(self.folder), ['x.mp4'])

  def test_what_ends_early_is_told_and_leaves_nothing(self):
    for name, codec in (('a.avi', 'MJPG'), ('a.mp4', 'mp4v'), ('a.mov', 'mp4v'), ('a.mkv', 'MJPG'),
                        ('a.webm', 'VP80')):
      photo = self.photo((40, 200, 120, 80, 160), name, codec)
      self.assertFalse(videos.ends_early(photo.path, 'it'), name)
      videos.predict(photo, predictor, Writer())
      os.remove(photo.output + photos.VIDEO_ENDING)
      size = os.path.getsize(photo.path)
      for rest in (size - 10, size * 6 // 10):
        with self.subTest(name, rest=rest):
          os.truncate(photo.path, rest)
          with self.assertRaisesRegex(DataError, r"video '.*' does not decode \(the file ends early\); "):
            videos.predict(photo, predictor, Writer('mask'))
    self.assertEqual(os.listdir(os.path.dirname(photo.output)), [])

  def test_frames_that_the_header_names_and_that_are_not_there(self):
    for named, sentence in ((6, ''), (0, ''), (-1, ''), (9, '5 of about 9 frames can be read')):
      photo = self.photo((40, 200, 120, 80, 160))
      with open(photo.path, 'r+b') as file:
        content = file.read()
        for mark, offset in ((b'avih', 24), (b'strh', 40)):
          file.seek(content.index(mark) + offset)
          file.write(named.to_bytes(4, 'little', signed=True))
      with self.subTest(named=named), contextlib.ExitStack() as stack:
        if sentence:
          stack.enter_context(self.assertRaisesRegex(DataError, sentence))
        videos.predict(photo, predictor, Writer('mask'))

  def test_video_is_not_replaced_by_a_prediction_that_fails(self):
    photo = self.photo((40, 200))

    def failing(frames, read):
      yield next(predictor(frames, read))
      raise DataError('out of memory')

    with self.assertRaisesRegex(DataError, 'out of memory'):
      videos.predict(photo, failing, Writer('overlay'))
    self.assertNotIn('clip_overlay.mp4', os.listdir(os.path.dirname(photo.output)))


if __name__ == '__main__':
  unittest.main()
