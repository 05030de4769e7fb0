"""What evaluate.py and inference.py run: the model in --model_dir, and how it is to look at images."""
import typing

from commands import model_config
from dataset import descriptors, views
from nets.architecture import Architecture
from training import checkpoints, run_config
from utils import devices


class Model(typing.NamedTuple):
  """A trained model, and how it looks at images.

  Attributes:
    checkpoint: str, the prefix of its weights. weights: raw or ema, which of them.
    params: dict, those of the model_fn.
  """
  architecture: Architecture
  dataset: descriptors.Dataset
  views: views.Views
  model_dir: str
  checkpoint: str
  weights: str
  params: dict[str, typing.Any]

  def __str__(self):
    return checkpoints.described(self.checkpoint, self.weights)


def read(args):
  """Returns the Model in --model_dir as the flags ask for it, and takes the devices."""
  stored = model_config.read(args.model_dir)
  model_config.check_views(args, stored)
  architecture, dataset = model_config.resolve(args, stored)
  looks = views.read_flags(args, architecture.output_stride)
  checkpoint = checkpoints.latest_or_error(args.model_dir)
  weights = model_config.weights(args, checkpoint)
  devices.take()
  params = {**vars(architecture), 'class_names': dataset.class_names, 'ignore_label': dataset.ignore_label,
            'weights': weights, **run_config.compute_params(args.precision, args.data_format, training=False)}
  return Model(architecture, dataset, looks, args.model_dir, checkpoint, weights, params)
