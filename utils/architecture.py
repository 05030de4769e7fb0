"""Architecture: everything that decides a model's variables and geometry, as one record.

It says how `deeplab_model.network` is built; training, evaluation, inference and export pass it around
whole. Free of TensorFlow, so that flags can be checked against a stored model at once.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A DeepLabv3+ model.

  base_architecture: str, a row of nets/backbones.py.
  num_classes: int, K.
  output_stride: int, input size over the size of the encoder's features; the same weights serve all.
  """
  base_architecture: str
  num_classes: int
  output_stride: int = 16

  @classmethod
  def from_params(cls, params):
    """Returns the Architecture in an Estimator's params, a dict that may hold much else."""
    return cls(**{field.name: params[field.name] for field in dataclasses.fields(cls)
                  if field.name in params})
