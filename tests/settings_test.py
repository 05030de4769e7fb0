"""Settings: the defaults have one home, and a model_fn's params keep the names of the original scripts."""
import dataclasses
import unittest

import evaluate
import train
from nets.architecture import Architecture
from utils.settings import Settings


class SettingsTest(unittest.TestCase):

  def test_params_of_the_original_scripts_are_understood(self):
    params = {'batch_size': 7, 'max_steps': 30, 'num_classes': 21, 'weight_decay': 1e-3, 'model_dir': 'x'}
    settings = Settings.from_params(params)
    self.assertEqual((settings.images_per_step, settings.last_step, settings.weight_decay), (7, 30, 1e-3))
    self.assertEqual(settings.momentum, 0.9)
    self.assertEqual(Settings.from_params({'images_per_step': 8}).images_per_step, 8)

  def test_flags_have_the_defaults_of_the_records(self):
    # What these say is decided later: by the device, by the records, by the model folder.
    others = {'data_format', 'weight_of_class', 'pre_trained_model', 'base_architecture'}
    for script in (train, evaluate):
      defaults = script.make_parser().defaults
      held = {field.name: field.default for record in (Architecture, Settings)
              for field in dataclasses.fields(record) if field.name in defaults.keys() - others}
      self.assertGreater(len(held), 12)
      self.assertEqual({name: defaults[name] for name in held}, held)


if __name__ == '__main__':
  unittest.main()
