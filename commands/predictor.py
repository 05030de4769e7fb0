"""A model is asked for the classes of images, which it sees whole or view by view."""
import functools

import numpy as np

from dataset import inputs, views
from deeplab_model import deeplabv3_plus_model_fn
from training import run_config
from training.tf_estimator import Estimator


class Predictor:
  """A model by the weights of a checkpoint."""

  def __init__(self, model, probabilities=False, hooks=None):
    """Makes one; the checkpoint is read when images come.

    Args:
      model: trained_model.Model.
      probabilities: bool, whether predictions are to hold them too.
      hooks: list of SessionRunHook, or None.
    """
    self._estimator = Estimator(_model_fn, model.model_dir, run_config.run_config(), model.params)
    self._checkpoint, self._looks, self._hooks = model.checkpoint, model.views, hooks
    self._num_classes, self._keeps_probabilities = model.dataset.num_classes, probabilities

  def __call__(self, images, read, on_bad=None, on_view=None):
    """Yields pairs of the position of an image and its prediction.

    Args:
      images, read, on_bad: see inputs.image_dataset.
      on_view: see views.merged.

    Yields:
      int, and a dict of `classes`, uint8 [H, W], and `probabilities`, float32 [H, W, K], if they are kept.
    """
    failures: list[Exception] = []
    dataset = functools.partial(inputs.image_dataset, images, self._looks, read, failures.append, on_bad)
    if self._looks.is_plain:
      predictions = self._predict(dataset, 'classes', *['probabilities'] * self._keeps_probabilities)
    else:
      predictions = views.merged(self._predict(dataset, 'probabilities', 'size'), self._looks,
                                 self._num_classes, on_view, self._keeps_probabilities)
    yield from map(_numbered, predictions)
    if failures:
      raise failures[0]

  def predict_records(self, paths, dataset):
    """Yields the same of the examples of record files; predictions hold `image` and `label` [H, W, 1] too.

    Args:
      paths: list of str, record files.
      dataset: Dataset.
    """
    return map(_numbered, self._predict(functools.partial(inputs.record_dataset, paths, dataset),
                                        'classes', 'image', 'label'))

  def _predict(self, dataset, *keys):
    return self._estimator.predict(dataset, ['position', *keys], self._hooks, self._checkpoint)


def _model_fn(features, labels, mode, params):
  """Is deeplabv3_plus_model_fn, whose predictions also hold what came with an image, such as its position."""
  images = views.Seen(features) if 'scale' in features else features['image']
  spec = deeplabv3_plus_model_fn(images, labels, mode, params)
  return spec._replace(predictions={**features, **spec.predictions})


def _numbered(prediction):
  """Returns the position of an image, and its prediction with classes as uint8 [H, W]."""
  classes = prediction['classes'][:, :, 0].astype(np.uint8)
  return int(prediction['position']), {**prediction, 'classes': classes}
