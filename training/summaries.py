"""TensorBoard: scalars, pictures, and what a run was told.

Scalars and pictures cost nothing at the steps that do not write them. What training and validation both
measure has one tag, so that TensorBoard draws both runs, model_dir and model_dir/eval, in one chart.
"""
import io
import json

import tensorflow.compat.v1 as tf
from PIL import Image
from tensorboard.plugins.hparams import summary_v2 as hparams  # its api wants a Keras

from training import metrics
from utils import visualization
from utils.scores import iou_tag

# A picture is no higher, and a JPEG, so that an hour of training on a fast GPU (some 400 times 6 pictures)
# stays below 50 MB.
_MOST_ROWS, _QUALITY = 160, 80
OF_RUN = 'configuration'  # the tag of what a run was told


def image_grid(images, labels, classes, settings):
  """Returns uint8 [n, h, 3 * w, 3], n up to B: photo | truth | prediction, side by side, scaled down if high.

  Args:
    images: uint8 or float32 [B, H, W, 3], RGB 0..255.
    labels: int64 [B, H, W, 1], 0..K-1 or ignore_label.
    classes: int64 [B, H, W, 1], the prediction.
    settings: Settings.
  """
  table = tf.constant(visualization.color_table(settings.palette, settings.ignore_label))
  count = settings.tensorboard_images_max_outputs
  step = (tf.shape(images)[1] + _MOST_ROWS - 1) // _MOST_ROWS
  size = (tf.shape(images)[1:3] + step - 1) // step
  photo = tf.image.resize_area(tf.cast(images[:count], tf.float32), size)
  truth, prediction = (tf.gather(table, ids[:count, ::step, ::step, 0]) for ids in (labels, classes))
  return tf.concat([tf.saturate_cast(tf.round(photo), tf.uint8), truth, prediction], axis=2)


def training_scalars(scalars, matrix, class_names):
  """Adds the given scalars, and the scores of this step by the tags of validation and by those of the seed.

  Args:
    scalars: dict of name to float scalar.
    matrix: int64 [K, K], the step's confusion matrix.
    class_names: K str.
  """
  iou = metrics.iou_per_class(matrix)
  scores = {'mean_iou': metrics.mean_iou(matrix), 'px_accuracy': metrics.pixel_accuracy(matrix)}
  for name, value in {**scalars, **scores}.items():
    tf.summary.scalar(name, value)
  if tf.distribute.get_replica_context().replica_id_in_sync_group == 0:
    # tf.summary.scalar would make names in the graph, and then other tags, of the names of classes.
    tags = [*(f'train_iou_class{index}' for index in range(len(class_names))),
            *map(iou_tag, class_names)]
    tf.add_to_collection(tf.GraphKeys.SUMMARIES, tf.raw_ops.ScalarSummary(
        tags=tags, values=tf.concat([iou, iou], axis=0), name='iou'))


def pictures(tag, images):
  """Returns the tf.Summary of pictures, uint8 [n, H, W, 3], called <tag>/image/0 and so on."""
  values = []
  for number, image in enumerate(images):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=_QUALITY, subsampling=0)
    values.append(tf.Summary.Value(tag=f'{tag}/image/{number}', image=tf.Summary.Image(
        height=image.shape[0], width=image.shape[1], colorspace=3, encoded_image_string=buffer.getvalue())))
  return tf.Summary(value=values)


def of_run(flags, class_names, palette):
  """Returns the tf.Summary of what a run was told: its flags, as text and as hparams, and a legend.

  Args:
    flags: dict of every flag.
    class_names, palette: K str, and K (red, green, blue).
  """
  text = ''.join(f'    {line}\n' for line in json.dumps(flags, indent=1, ensure_ascii=False).split('\n'))
  metadata = tf.SummaryMetadata(plugin_data=tf.SummaryMetadata.PluginData(plugin_name='text'))
  summary = tf.Summary(value=[tf.Summary.Value(
      tag=OF_RUN, metadata=metadata, tensor=tf.make_tensor_proto([text.encode()], tf.string))])
  compared = {name: value if isinstance(value, (bool, int, float, str)) else ' '.join(map(str, value))
              for name, value in flags.items() if value is not None}
  summary.MergeFromString(hparams.hparams_pb(compared).SerializeToString())
  legend = visualization.legend(class_names, palette)
  summary.MergeFromString(pictures('legend', [legend]).SerializeToString())
  return summary
