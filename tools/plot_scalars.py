"""Draw a scalar of several trainings in one picture, and print how its last values compare.

  python tools/plot_scalars.py --scalar cross_entropy --output loss.png model_fp32 model_bf16

Reads the event files that train.py writes every --save_summary_steps steps. The picture shows running means.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.add_argument('model_dirs', nargs='+', metavar='MODEL_DIR', help='folders of event files')
  parser.flag('scalar', 'cross_entropy', 'what to draw, by its name in TensorBoard', metavar='NAME')
  parser.flag('window', 25, 'entries of a running mean', type=flags.positive_int, metavar='N')
  parser.flag('output', 'scalars.png', 'picture to write', metavar='FILE')
  return parser


def main(args):
  from tools import scalar_curves  # TensorFlow and Matplotlib, which --help does without

  scalar_curves.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
