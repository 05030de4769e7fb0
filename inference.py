"""Write the predicted label map of every listed image as <name>_mask.png.

  python inference.py --data_dir photos --infer_data_list photos.txt --output_dir masks --overlay

The list holds a file name a line, with extension. A mask is an 8-bit palette PNG of exactly the image's size:
pixel value = class id, shown in the dataset's colours. --overlay also writes <name>_overlay.png, the classes
blended over the photo.
"""

from cli import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.group('data')
  parser.flag('data_dir', 'dataset/VOCdevkit/VOC2012/JPEGImages', 'folder of the images', metavar='DIR')
  parser.flag('infer_data_list', './dataset/sample_images_list.txt', 'file of the image names',
              metavar='FILE')

  parser.group('output')
  parser.flag('output_dir', './dataset/inference_output', 'folder of the masks', metavar='DIR')
  parser.flag('overlay', False, 'also write <name>_overlay.png', action='store_true')
  parser.shared(*flags.MODEL_FLAGS, *flags.COMPUTE_FLAGS, 'debug')
  return parser


def main(args):
  from cli import inference  # TensorFlow, which --help does without

  inference.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
