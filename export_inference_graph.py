"""Export a trained model as a SavedModel, and check that it predicts what the model does.

  python export_inference_graph.py --model_dir ./model --export_dir dataset/export_output

Writes <export_dir>/<timestamp>/. Its input `image` is float32 [batch, H, W, 3], RGB 0..255, of any size; its
outputs are `classes` int32 [batch, H, W, 1] and `probabilities` float32 [batch, H, W, classes]. Signatures:
serving_default and preds.
"""

from cli import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared(*flags.MODEL_FLAGS)
  parser.group('output')
  parser.flag('export_dir', 'dataset/export_output', 'folder of the exported models', metavar='DIR')
  return parser


def main(args):
  from cli import export  # TensorFlow, which --help does without

  export.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
