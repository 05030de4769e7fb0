"""Score a trained model by mean intersection over union, on a folder of images and labels.

  python evaluate.py --model_dir ./model --evaluation_data_list ./dataset/val.txt

The list holds a name a line, without extension. Every image is evaluated whole, at its own size.
"""
import functools
import tempfile

from utils import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared('image_data_dir', 'label_data_dir', 'model_dir', 'base_architecture', 'output_stride',
                'dataset')
  parser.flag('evaluation_data_list', './dataset/val.txt', 'file of the names to evaluate',
              metavar='FILE')
  return parser


def main(args):
  from utils import datasets, model_config

  architecture, dataset = model_config.resolve(args, model_config.read(args.model_dir))
  names = datasets.read_list(args.evaluation_data_list)
  images, labels = zip(*datasets.find_pairs(args.image_data_dir, args.label_data_dir, names))

  import tensorflow.compat.v1 as tf

  from deeplab_model import deeplabv3_plus_model_fn
  from utils import checkpoints, inputs, metrics, run_config
  from utils.tf_estimator import Estimator

  checkpoint = checkpoints.latest_or_error(args.model_dir)
  params = {**vars(architecture), 'class_names': dataset.class_names,
            'ignore_label': dataset.ignore_label, 'checkpoint': checkpoint}
  print(f'Evaluating {checkpoint} on {len(images)} images')
  # An Estimator writes event files beside its checkpoints; scoring a model leaves its folder alone.
  with tempfile.TemporaryDirectory() as scratch:
    estimator = Estimator(deeplabv3_plus_model_fn, scratch, run_config.run_config(), params)
    try:
      result = estimator.evaluate(
          functools.partial(inputs.folder_dataset, images, labels, dataset),
          hooks=[run_config.ProgressBarHook(len(images), 'evaluating')], checkpoint_path=checkpoint)
    except tf.errors.OpError as error:
      raise inputs.data_error(error) from error
  print(metrics.report(result, dataset.class_names))


if __name__ == '__main__':
  flags.run(main, make_parser())
