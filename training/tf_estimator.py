"""The one door to tf.estimator, on every TensorFlow from 2.15 on.

TensorFlow 2.15 was the last release with `tf.estimator`. The package tensorflow-estimator 2.15.0 holds the
same code and runs on later releases once it finds three things that they dropped; `_prepare` puts
them back. It also keeps the package's canned estimators from being imported.

Private parts of TensorFlow are touched here; elsewhere by commands/export_formats.py and
benchmarks/graph_analysis.py alone, which ask Grappler. Everything else imports from here:

  from training.tf_estimator import Estimator, EstimatorSpec, ModeKeys, RunConfig
"""
import copy
import importlib.util
import sys
import types

import tensorflow.compat.v1 as tf
from tensorflow.python.debug.wrappers.hooks import LocalCLIDebugHook
from tensorflow.python.distribute import distribute_coordinator, distribute_coordinator_context
from tensorflow.python.training import monitored_session
from tensorflow.python.util import tf_export


def _prepare():
  """Makes the core modules of tensorflow-estimator importable on a TensorFlow without tf.estimator."""
  # 1. The decorator that names its public symbols wants an API of its own.
  tf_export.ESTIMATOR_API_NAME = 'estimator'
  names = tf_export.API_ATTRS[tf_export.TENSORFLOW_API_NAME]
  for table in (tf_export.API_ATTRS, tf_export.API_ATTRS_V1):
    table['estimator'] = type(names)('_estimator_api_names', '_estimator_api_constants')

  # 2. A module of TensorFlow that ties Estimator to clusters. On one machine it has next to nothing to do.
  training = types.ModuleType('tensorflow.python.distribute.estimator_training')
  vars(training).update(init_run_config=_init_run_config,
                        should_run_distribute_coordinator=lambda config: False)
  sys.modules[training.__name__] = training

  # 3. The packages' own __init__ files load every canned estimator; empty ones in their place do not.
  spec = importlib.util.find_spec('tensorflow_estimator')
  if spec is None or not spec.submodule_search_locations:
    raise ImportError(f'TensorFlow {tf.__version__} has no tf.estimator; '
                      'pip install tensorflow-estimator==2.15.0')
  root = spec.submodule_search_locations[0]
  for name, path in (('tensorflow_estimator', root),
                     ('tensorflow_estimator.python', root + '/python'),
                     ('tensorflow_estimator.python.estimator', root + '/python/estimator')):
    package = types.ModuleType(name)
    package.__path__ = [path]
    sys.modules[name] = package


def _init_run_config(config, tf_config):
  """RunConfig's settings under a tf.distribute strategy; `run_in_cluster` adds those of several machines."""
  config._init_distributed_setting_from_environment_var({})
  config._maybe_overwrite_session_config_for_distributed_training()
  config._distribute_coordinator_mode = None


if not hasattr(tf, 'estimator'):
  _prepare()
  from tensorflow_estimator.python.estimator.estimator import Estimator
  from tensorflow_estimator.python.estimator.export.export_lib import (
      PredictOutput,
      TensorServingInputReceiver,
  )
  from tensorflow_estimator.python.estimator.mode_keys import ModeKeys
  from tensorflow_estimator.python.estimator.model_fn import EstimatorSpec
  from tensorflow_estimator.python.estimator.run_config import RunConfig
else:
  from tensorflow.compat.v1.estimator import Estimator, EstimatorSpec, ModeKeys, RunConfig
  from tensorflow.compat.v1.estimator.export import PredictOutput, TensorServingInputReceiver

__all__ = ['Estimator', 'EstimatorSpec', 'ModeKeys', 'PredictOutput', 'RunConfig',
           'LocalCLIDebugHook', 'TensorServingInputReceiver', 'run_in_cluster']


def run_in_cluster(work, estimator):
  """Calls work() as the task that TF_CONFIG gives to this process, beside the server that the others talk to.

  Args:
    work: function without arguments that calls estimator.train.
    estimator: Estimator whose RunConfig has a MultiWorkerMirroredStrategy as train_distribute.
  """
  def in_context(strategy):
    context = distribute_coordinator_context.get_current_worker_context()
    estimator._train_distribution = config._train_distribute = strategy
    config._distribute_coordinator_mode = None  # this is it
    config._cluster_spec = context.cluster_spec
    config._task_type, config._task_id = context.task_type, context.task_id
    config._master, config._is_chief = context.master_target, context.is_chief
    config._num_worker_replicas = strategy.extended._num_workers
    work()

  config = estimator._config
  # A session would be made anew when another worker is lost, and wait for it; here the run ends instead.
  monitored_session._PREEMPTION_ERRORS = ()
  distribute_coordinator.run_distribute_coordinator(
      in_context, config.train_distribute, mode=distribute_coordinator.CoordinatorMode.INDEPENDENT_WORKER,
      session_config=copy.deepcopy(config.session_config))
