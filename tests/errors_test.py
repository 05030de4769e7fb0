"""The two kinds of wrong input, told apart by exit status."""
import unittest

from utils.errors import DataError, UsageError


class ErrorsTest(unittest.TestCase):

  def test_flags_end_with_2_and_data_with_1_and_neither_is_the_other(self):
    self.assertEqual((UsageError.exit_status, DataError.exit_status), (2, 1))
    self.assertFalse(issubclass(UsageError, DataError) or issubclass(DataError, UsageError))


if __name__ == '__main__':
  unittest.main()
