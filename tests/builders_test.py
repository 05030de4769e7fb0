"""nets/builders.py: each row of the table is built by its family, with what the family can do."""
import importlib
import unittest
from unittest import mock

from nets import backbones, builders


def family(*arguments):
  """Stands in for a family's build: returns its arguments."""
  return arguments


class BuildersTest(unittest.TestCase):

  def test_each_row_is_built_by_the_module_of_its_family(self):
    for row in backbones.BACKBONES.values():
      build = importlib.import_module(f'nets.{row.family}').build
      self.assertIs(builders._BUILDERS[row.family], build)
      with mock.patch.dict(builders._BUILDERS, {row.family: family}):
        self.assertEqual(builders.build(row, 'images', 8, 'norm'), (row, 'images', 8, 'norm', (1, 1, 1)))

  def test_family_may_be_a_function_and_gets_the_multi_grid(self):
    row = backbones.Backbone('own', family, 'own', 0.9)
    self.assertEqual(builders.build(row, 'images', 16, 'norm', (1, 2, 4))[-1], (1, 2, 4))


if __name__ == '__main__':
  unittest.main()
