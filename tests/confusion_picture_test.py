"""commands/confusion_picture.py: what a cell's colour says, and that any classes can be drawn."""
import unittest

import numpy as np

from commands import confusion_picture


def drawn(matrix, names):
  """Returns the picture, uint8 [H, W, 3]."""
  return np.asarray(confusion_picture.draw(np.array(matrix), names))


class ConfusionPictureTest(unittest.TestCase):

  def test_cells_show_the_shares_of_their_row(self):
    picture = drawn([[4, 0], [0, 0]], ['a', 'b'])
    deep, white, empty = (np.argwhere((picture == colour).all(2)) for colour in (
        (8, 48, 107), (247, 251, 255), (238, 239, 241)))
    for cell in (deep, white, empty):
      self.assertGreater(len(cell), 8000)
    deep, white, empty = (np.median(cell, 0) for cell in (deep, white, empty))
    self.assertLess(abs(deep[0] - white[0]), 10)
    self.assertLess(deep[1] + 80, white[1])
    self.assertGreater(empty[0], white[0] + 80)  # the first row lies above the second

  def test_any_number_of_classes_and_any_name_can_be_drawn(self):
    for count in (1, 2, 21, 256):
      picture = drawn(np.eye(count), (['é', 'Ж' * 300, '中', '$x_{'] * count)[:count])
      self.assertLess(max(picture.shape), 4000)
      self.assertGreater(min(picture.shape[:2]), 150)

  def test_names_are_drawn_by_their_own_letters(self):
    pictures = [drawn(np.eye(2), names) for names in (['коза', 'a'], ['кобо', 'a'], ['koza', 'a'])]
    self.assertFalse(any(np.array_equal(pictures[0], other) for other in pictures[1:]))


if __name__ == '__main__':
  unittest.main()
