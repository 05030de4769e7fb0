"""commands/confusion_picture.py: what a cell's colour says, and that any classes can be drawn."""
import unittest

import numpy as np

from commands import confusion_picture


class ConfusionPictureTest(unittest.TestCase):

  def test_cells_show_the_shares_of_their_row(self):
    picture = np.asarray(confusion_picture.draw(np.array([[4, 0], [0, 0]]), ['a', 'b']))
    right, bottom = picture.shape[1], picture.shape[0]
    deep, empty = (np.argwhere((picture == colour).all(2)) for colour in ((8, 64, 140), (238, 239, 241)))
    self.assertGreater(len(deep), 10000)
    self.assertGreater(len(empty), 20000)
    self.assertLess(deep[:, 0].max(), empty[:, 0].min())  # the first row lies above the second
    self.assertLess(empty.max(0)[0], bottom)
    self.assertLess(empty.max(0)[1], right)

  def test_colour_says_the_share_of_the_true_class(self):
    picture = np.asarray(confusion_picture.draw(np.array([[300, 100], [0, 7]]), ['a', 'b']))
    # 255 + (8 - 255) * 3/4 = 69.75, and so on: three quarters of the first class are right.
    right, wrong, second = (np.argwhere((picture == colour).all(2)) for colour in (
        (70, 112, 169), (193, 207, 226), (8, 64, 140)))
    for cell in (right, wrong, second):
      self.assertGreater(len(cell), 10000)
    # Of the middle pixels, as the edges of letters have any colour: rows are true classes.
    right, wrong, second = (np.median(cell, 0) for cell in (right, wrong, second))
    self.assertLess(abs(right[0] - wrong[0]), 10)
    self.assertLess(right[1] + 100, wrong[1])
    self.assertGreater(second[0], wrong[0] + 100)
    self.assertLess(abs(second[1] - wrong[1]), 10)

  def test_any_number_of_classes_and_any_name_can_be_drawn(self):
    for count in (2, 21, 256):
      picture = confusion_picture.draw(np.eye(count), (['é', 'Ж' * 300, '中'] * count)[:count])
      self.assertLess(max(picture.size), 3000)
      self.assertGreater(min(picture.size), 200)

  def test_names_are_drawn_by_their_own_letters(self):
    pictures = [np.asarray(confusion_picture.draw(np.eye(2), names)) for names in (
        ['коза', 'a'], ['кобо', 'a'], ['koza', 'a'])]
    self.assertFalse(any(np.array_equal(pictures[0], other) for other in pictures[1:]))


if __name__ == '__main__':
  unittest.main()
