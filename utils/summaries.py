"""TensorBoard: image grids and scalars. They cost nothing at the steps that do not write them."""
import tensorflow.compat.v1 as tf

from utils import metrics, visualization


def image_grid(images, labels, classes, settings):
  """Adds the image summary `images`: photo | truth | prediction, side by side.

  Args:
    images: uint8 or float32 [B, H, W, 3], RGB 0..255.
    labels: int64 [B, H, W, 1], 0..K-1 or ignore_label.
    classes: int64 [B, H, W, 1], the prediction.
    settings: Settings.
  """
  table = tf.constant(visualization.color_table(settings.palette, settings.ignore_label))
  count = settings.tensorboard_images_max_outputs
  photo = tf.saturate_cast(images[:count], tf.uint8)
  truth, prediction = (tf.gather(table, ids[:count, :, :, 0]) for ids in (labels, classes))
  grid = tf.concat([photo, truth, prediction], axis=2)  # [B, H, 3 * W, 3]
  tf.summary.image('images', grid, max_outputs=count)


def training_scalars(scalars, matrix):
  """Adds the given scalars, and train_iou_class<k> of this batch.

  Args:
    scalars: dict of name to float scalar.
    matrix: int64 [K, K], the batch's confusion matrix.
  """
  for name, value in scalars.items():
    tf.summary.scalar(name, value)
  iou = metrics.iou_per_class(matrix)
  for index in range(int(iou.shape[0])):
    tf.summary.scalar(f'train_iou_class{index}', iou[index])
