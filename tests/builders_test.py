"""nets/builders.py: each row of the table is built by its family, with what the family can do."""
import importlib
import unittest
from unittest import mock

from nets import backbones, builders
from utils.errors import UsageError


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

  def test_other_output_strides_name_the_allowed_ones(self):
    row = backbones.Backbone('own', family, 'own', 0.9)
    for stride in (8, 16, 32):
      self.assertEqual(builders.build(row, 'images', stride, 'norm')[2], stride)
    for stride in (4, 12, 64):
      with self.assertRaisesRegex(UsageError, f'output_stride {stride} is not .* use one of 8, 16, 32'):
        builders.build(row, 'images', stride, 'norm')

  def test_multi_grid_is_refused_by_mobilenets_alone(self):
    for row in backbones.BACKBONES.values():
      with mock.patch.dict(builders._BUILDERS, {row.family: family}):
        if row.family == 'mobilenet_v2':
          with self.assertRaisesRegex(UsageError, f'--multi_grid does not apply to {row.name}, '):
            builders.build(row, 'images', 16, 'norm', (1, 2, 4))
        else:
          self.assertEqual(builders.build(row, 'images', 16, 'norm', (1, 2, 4))[-1], (1, 2, 4))


if __name__ == '__main__':
  unittest.main()
