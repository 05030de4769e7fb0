"""commands/export_check.py: when an export agrees with its model, and what is told where it does not."""
import os
import tempfile
import unittest

import numpy as np
import pytest

from commands import export_check
from utils.errors import DataError

pytestmark = pytest.mark.compat


class AgreementTest(unittest.TestCase):

  def agreement(self, probabilities):
    """Returns the Agreement of a picture of 1 x 4 pixels, of which the model predicts 0 with 0.9."""
    agreement = export_check.Agreement('the checkpoint')
    expected = np.full((1, 4, 2), (0.9, 0.1), np.float32)
    probabilities = np.float32(probabilities)[None]
    agreement.add({'probabilities': probabilities, 'classes': probabilities.argmax(3)[..., None]},
                  {'probabilities': expected, 'classes': np.zeros((1, 4, 1), np.int32)})
    return agreement

  def test_equal_classes_are_counted(self):
    agreement = self.agreement([[[.9, .1], [.9, .1], [.4, .6], [.9, .1]]])
    self.assertEqual(str(agreement), '75.00% of 4 pixels in 1 picture(s) have the same class; probabilities '
                                     'differ by up to 0.5')
    agreement.require(0.75, is_float=False)
    for least, is_float, words in ((0.76, False, '75.00% of .* and 76.0% is the least .* Give --calibration'),
                                   (0.5, True, r'differs from it by 0\.5 in the prob')):
      with self.assertRaisesRegex(DataError, words):
        agreement.require(least, is_float)

  def test_what_is_no_number_is_refused(self):
    for value in (np.nan, np.inf):
      with self.assertRaisesRegex(DataError, 'what was exported of the checkpoint predicts .* no finite'):
        self.agreement([[[value, .1], *[[.9, .1]] * 3]])

  def test_folder_gives_its_photos_without_what_inference_wrote_of_them(self):
    with tempfile.TemporaryDirectory() as folder:
      for name in ('a.jfif', 'a_mask.png', 'b.JPG', 'b_overlay.png', 'face_mask.png', 'n.txt'):
        open(os.path.join(folder, name), 'w').close()
      self.assertEqual(export_check.find([folder], '--check_images'),
                       [os.path.join(folder, name) for name in ('a.jfif', 'b.JPG', 'face_mask.png')])

  def test_process_that_has_ended_before_it_is_asked_is_explained(self):
    with export_check.fresh('none', 'x.none', 'what was exported of x') as fresh:
      fresh._process.wait()
      with self.assertRaisesRegex(DataError, "does not run in a fresh process: KeyError: 'none'"):
        fresh.predict({})

  def test_what_a_runtime_cannot_read_ends_in_a_sentence(self):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'model.tflite')
      with open(path, 'wb') as file:
        file.write(b'no model')
      with export_check.fresh('tflite', path, 'what was exported of x') as fresh:
        with self.assertRaisesRegex(DataError, 'of x does not run in a fresh process: .*Error: '):
          fresh.predict({'image': np.zeros((1, 9, 9, 3), np.float32)})


if __name__ == '__main__':
  unittest.main()
