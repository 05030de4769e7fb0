"""Export a trained model for other programs, and check that it predicts what the model does.

  python export_inference_graph.py --model_dir ./model --export_dir dataset/export_output

Writes a SavedModel, <export_dir>/<timestamp>/. Its input `image` is float32 [batch, H, W, 3], RGB 0..255, of
any size; its outputs are `classes` int32 [batch, H, W, 1] and `probabilities` float32 [batch, H, W, classes].
Signatures: serving_default and preds; by --image_bytes also image_bytes, of a JPEG or PNG file to a mask PNG.

Other formats go to <export_dir>/<format>-<timestamp>/:

  python export_inference_graph.py --format tflite --size 513 513 --calibration photos
"""
import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # where our modules are

from commands import flags
from utils import files

FORMATS = ('saved_model', 'tflite', 'onnx')


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared(*flags.MODEL_FLAGS, 'weights')
  parser.group('output')
  parser.flag('export_dir', 'dataset/export_output', 'folder of the exported models', metavar='DIR')
  parser.flag('format', 'saved_model', 'what is written: a SavedModel, a TensorFlow Lite model, or an ONNX '
              "model (needs tf2onnx and onnxruntime), which OpenCV's dnn module reads too", choices=FORMATS)
  parser.flag('size', None, 'height and width of the images that the model takes; tflite needs it, onnx '
              'takes any size without it', type=flags.positive_int, nargs=2, metavar=('H', 'W'))
  parser.flag('image_bytes', False, 'of a SavedModel: add the signature image_bytes, which takes a JPEG or '
              'PNG file and returns a mask PNG')
  parser.flag('calibration', None, 'of tflite: write a model of 8-bit integers, whose ranges are those in '
              'these images, files or folders', nargs='+', metavar='FILE')
  parser.flag('check_images', None, 'images by which what was exported is compared with the model, files or '
              'folders (default: two made-up ones)', nargs='+', metavar='FILE')
  return parser


def main(args):
  from commands import export  # TensorFlow, which --help does without
  from utils import devices, failures

  model = export.read_model(args)
  files.make_folder(args.export_dir, '--export_dir')
  print(f'Exporting {model}; on {devices.describe()}', flush=True)
  # What appears in export_dir has been checked.
  with (failures.explaining('end other programs that hold memory'),
        tempfile.TemporaryDirectory(prefix='exporting-', suffix='.tmp', dir=args.export_dir) as folder):
    exported = export.write(model, folder)
    agreement = export.check(exported, model)
    path = export.move_into(exported, args.export_dir)
  print(f'{path}: exported {model}, and checked against it: {agreement}')
  if re.search(r'[][*?\\]', os.path.abspath(path)):
    print(f'Note: TensorFlow takes [ ] * ? \\ in a path for a pattern, and cannot load a SavedModel from '
          f'{path}; move it to a folder without these')


if __name__ == '__main__':
  flags.run(main, make_parser())
