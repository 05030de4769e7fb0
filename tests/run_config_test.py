"""What the session does with the graph: --xla compiles it once; on a CPU here, which takes TF_XLA_FLAGS."""
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

import pytest

pytestmark = pytest.mark.compat

_STEPS = """
    import os
    import sys
    import tensorflow.compat.v1 as tf
    from deeplab_model import deeplabv3_plus_model_fn
    from dataset import inputs
    from tests import tiny_net
    from training import run_config
    params = dict(base_architecture=tiny_net.LEAN, num_classes=3, class_names='abc', batch_size=2,
                  palette=[(0, 0, 0)] * 3, max_steps=5)
    config = run_config.run_config(seed=0, xla=True).session_config
    with tiny_net.rows(), tf.Graph().as_default(), tf.Session(config=config) as session:
      tf.train.get_or_create_global_step()
      batch = tf.data.make_one_shot_iterator(inputs.synthetic_dataset(2, (33, 49), 3)).get_next()
      step = deeplabv3_plus_model_fn(*batch, 'train', params).train_op
      session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
      for _ in range(4):
        session.run(step)
        compiled = {name.split('.')[0] for name in os.listdir(sys.argv[1])}
        print(len(compiled))
"""


class XlaTest(unittest.TestCase):

  def test_training_step_is_compiled_once(self):
    with tempfile.TemporaryDirectory() as folder:
      run = subprocess.run(
          [sys.executable, '-c', textwrap.dedent(_STEPS), folder], capture_output=True, text=True,
          env={**os.environ, 'TF_XLA_FLAGS': '--tf_xla_cpu_global_jit',
               'XLA_FLAGS': f'--xla_dump_to={folder} --xla_dump_hlo_as_text'})
    self.assertEqual(run.returncode, 0, run.stderr[-2000:])
    first, *later = map(int, run.stdout.split())
    self.assertGreater(first, 0)
    self.assertEqual(later, [first] * 3)


if __name__ == '__main__':
  unittest.main()
