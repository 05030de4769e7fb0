"""Turn a published checkpoint into a model_dir of this repository.

  python tools/convert_checkpoint.py --checkpoint deeplabv3_pascal_train_aug_2018_01_04.tar.gz \\
      --model_dir ./xception_65_voc --dataset voc

Takes Google's DeepLab checkpoints (Xception, MobileNetV2, ResNet-v1-beta; as the downloaded archive, its
folder, or a prefix), those of the original scripts, of their ancestor without a decoder, and TF-Slim's and
DeepLab's ImageNet checkpoints, whose head starts anew. What model it is, is read off the variables and
written to model_config.json, so evaluate.py, inference.py, export_inference_graph.py and train.py need no
further flag.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('checkpoint', None, 'the .tar.gz archive, folder or prefix to convert', metavar='PATH',
              required=True)
  parser.flag('model_dir', None, 'folder to write; must not hold a checkpoint yet', metavar='DIR',
              required=True)
  parser.flag('dataset', None, 'voc, cityscapes, or the path of a JSON descriptor with as many classes, such '
              'as dataset/ade20k.json', metavar='NAME', required=True)
  parser.shared('output_stride', 'eval_crop_size')
  return parser


def main(args):
  from tools import checkpoint_conversion  # TensorFlow, which --help does without

  checkpoint_conversion.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
