"""The door to tf.estimator: on a TensorFlow without it, the package, and nothing that it does not need."""
import subprocess
import sys
import unittest

import pytest
import tensorflow.compat.v1 as tf

from tests.support import ROOT

pytestmark = pytest.mark.compat


@unittest.skipIf(hasattr(tf, 'estimator'), 'this TensorFlow has its own')
class DoorTest(unittest.TestCase):

  def python(self, code):
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)

  def test_canned_estimators_are_not_imported(self):
    answer = self.python(
        'import sys; from training.tf_estimator import Estimator, RunConfig\n'
        'print(Estimator.__module__, [name for name in sys.modules if ".canned" in name])')
    self.assertEqual(answer.stdout, 'tensorflow_estimator.python.estimator.estimator []\n', answer.stderr)

  def test_without_the_package_it_says_what_to_install(self):
    answer = self.python('import importlib.util as util; find = util.find_spec\n'
                         'util.find_spec = lambda name, *rest: None if name == "tensorflow_estimator" else '
                         'find(name, *rest)\n'
                         'import training.tf_estimator')
    self.assertRegex(answer.stderr, 'has no tf.estimator; pip install tensorflow-estimator==2.15.0\n$')


if __name__ == '__main__':
  unittest.main()
