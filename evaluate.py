"""Score a trained model by mean intersection over union, on a folder of images and labels or on records.

  python evaluate.py --model_dir ./model --evaluation_data_list ./dataset/val.txt
  python evaluate.py --model_dir ./model --data_dir ./dataset --save_predictions predictions

The list holds a name a line, without extension. Every image is evaluated whole, at its
own size, unless --sliding_window or --eval_scales is given.

--save_predictions also writes what was predicted, as palette PNGs of class ids under the images'
names. --submission writes it as a test server takes it: voc the folder results (comp6) to pack,
cityscapes <city>_<sequence>_<frame>_pred_labelIds.png with the official label ids. A test split
has no labels; --label_data_dir none predicts without scoring.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # where our modules are

from commands import flags
from utils.errors import UsageError


def make_parser():
  parser = flags.Parser(__doc__)
  parser.shared('image_data_dir')

  parser.group('data')
  parser.flag('label_data_dir', flags.SHARED['label_data_dir']['default'],
              'folder of the label PNGs, or none to predict only', metavar='DIR')
  parser.flag('evaluation_data_list', './dataset/val.txt', 'file of the names to evaluate', metavar='FILE')
  parser.flag('data_dir', None, 'folder of records, in place of images, labels and list', metavar='DIR')
  parser.flag('split', 'val', 'the records of --data_dir to evaluate', metavar='NAME')
  parser.shared(*flags.MODEL_FLAGS, 'weights', *flags.VIEW_FLAGS, *flags.COMPUTE_FLAGS)

  parser.group('output')
  parser.flag('save_predictions', None, 'also write a PNG of every prediction into this folder',
              metavar='DIR')
  parser.flag('submission', None, 'write the predictions as the test server of this benchmark takes them',
              choices=('voc', 'cityscapes'))
  parser.flag('all_checkpoints', False, 'score every checkpoint in model_dir, in order, and name the best')
  parser.flag('watch', False, 'score the newest checkpoint, and each that a training writes until it ends')
  parser.flag('report', None, 'also write a page of scores and images into this folder, index.html, and the '
              'figures beside it', metavar='DIR')
  parser.flag('report_images', 12, 'images to show of the worst, and of the best',
              type=flags.positive_int, metavar='N')
  parser.flag('json', None, 'also write the scores and the confusion matrix here, at full precision',
              metavar='FILE')
  return parser


def main(args):
  check_flags(args)
  from commands import checkpoint_watch, evaluation, trained_model  # TensorFlow, which --help does without

  if args.watch:
    checkpoint_watch.wait_for_first(args.model_dir)
  model = trained_model.read(args)
  examples = evaluation.open_examples(args, model.dataset)
  scored = evaluation.Evaluation(args, model, examples)  # the places of the results are checked and made
  if args.watch or args.all_checkpoints:
    scored.score_all()
  else:
    scored.score_one()


def check_flags(args):
  """Raises UsageError if flags need, or rule out, one another."""
  if args.submission and not args.save_predictions:
    raise UsageError('--submission needs --save_predictions, the folder to write to')
  if args.label_data_dir == 'none' and (args.json or args.report or not args.save_predictions):
    raise UsageError('--label_data_dir none leaves nothing to score; give --save_predictions, and neither '
                     '--json nor --report')
  several = next((name for name in ('watch', 'all_checkpoints') if getattr(args, name)), None)
  if several and args.save_predictions:
    raise UsageError(f'--{several} scores several checkpoints, whose predictions --save_predictions would '
                     'write over one another; leave one of them out')
  flags.refuse_idle(args, ('report_images', args.report, 'without --report, the folder of the page'),
                    ('split', args.data_dir, 'without --data_dir, as it means records'))
  folders = args.explicit & {'image_data_dir', 'label_data_dir', 'evaluation_data_list'}
  if args.data_dir and folders:
    raise UsageError(f'--data_dir means records and --{min(folders)} files; give one of them')


if __name__ == '__main__':
  flags.run(main, make_parser())
