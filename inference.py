"""Write the predicted label map of every image as <name>_mask.png.

  python inference.py --input photos --output_dir masks --overlay
  python inference.py --data_dir photos --infer_data_list photos.txt --output_dir masks

--input takes files, folders (all images in and below them) and patterns. A list holds a file name a line,
with extension. Folders are kept: photos/a/b.jpg becomes masks/a/b_mask.png. A mask is an 8-bit palette PNG of
the size in which a viewer shows the image: pixel value = class id, shown in the dataset's colours. --overlay
also writes <name>_overlay.png, the classes blended over the photo, with a legend. Of a video (clip.mp4) comes
clip_overlay.mp4.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # where our modules are

from commands import flags
from utils import files
from utils.errors import DataError, UsageError


def make_parser():
  parser = flags.Parser(__doc__)
  parser.group('data')
  parser.flag('input', None, "files, folders and patterns in quotes, such as 'photos/**/*.jpg', in place of "
              '--data_dir and --infer_data_list; of folders, hidden files and --output_dir are left out',
              nargs='+', metavar='PATH')
  parser.flag('data_dir', 'dataset/VOCdevkit/VOC2012/JPEGImages', 'folder of the images', metavar='DIR')
  parser.flag('infer_data_list', './dataset/sample_images_list.txt', 'file of the image names',
              metavar='FILE')

  parser.group('output')
  parser.flag('output_dir', './dataset/inference_output', 'folder of the masks', metavar='DIR')
  parser.flag('outputs', ('mask',), 'what to write: <name>_mask.png, <name>_overlay.png, '
              '<name>_probabilities.npy (float16 [H, W, classes]), and classes.csv, the pixels of each '
              'class in each image; of a video the overlay by default, and masks in the folder <name>_mask',
              nargs='+', choices=('mask', 'overlay', 'probabilities', 'csv'))
  parser.flag('overlay', False, 'the overlay beside --outputs')
  parser.flag('alpha', 0.5, "the weight of the classes' colours in the overlay, 0 to 1; a class 0 called "
              'background is left as the photo is', type=flags.weight, metavar='X')
  parser.shared(*flags.MODEL_FLAGS, 'weights', *flags.VIEW_FLAGS, *flags.COMPUTE_FLAGS, 'debug')
  return parser


def main(args):
  check_flags(args)
  from commands import inference, trained_model  # TensorFlow, which --help does without

  photos, bad = inference.find_photos(args)
  model = trained_model.read(args)
  files.make_folder(args.output_dir, '--output_dir')
  inference.predict(photos, bad, model, args)
  if bad:
    head = f'{len(bad)} of {len(photos)} images could not be predicted:'
    raise DataError(('\n' if len(bad) > 1 else ' ').join([head, *(bad[index] for index in sorted(bad))]))


def check_flags(args):
  """Raises UsageError for flags that exclude each other."""
  for name in ('data_dir', 'infer_data_list'):
    if args.input and name in args.explicit:
      raise UsageError(f'--input and --{name} were given, and each says which images to take; give one')


if __name__ == '__main__':
  flags.run(main, make_parser())
