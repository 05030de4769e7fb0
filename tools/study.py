"""Compare ways to train: the same run with one thing changed at a time, over several seeds.

  python tools/study.py --base recipes/study/camvid.flags --changes recipes/study/camvid.changes \\
      --data_dir camvid --output_dir study

Each line of --changes is a name, a colon and flags of train.py, such as `cosine: --learning_rate_policy
cosine`; the first is what the others are compared with. Every line is trained with the flags of --base, its
own flags and the seeds 0, 1, ..., in <output_dir>/<name>/<seed>. Runs that are there are not made again, and
interrupted ones go on; a folder whose run had other flags or records is refused. At the end the scores of
the last evaluation of each run are printed as a table, with their mean and standard deviation over the seeds;
curves.png beside the runs holds the learning curves.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))  # where our modules are

from commands import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('base', None, 'recipe that all runs share', metavar='FILE', required=True)
  parser.flag('changes', None, 'file of the lines to train', metavar='FILE', required=True)
  parser.flag('data_dir', './dataset/', 'folder of train.record and val.record', metavar='DIR')
  parser.flag('output_dir', './study', 'folder of the runs', metavar='DIR')
  parser.flag('seeds', 3, 'runs of each line', type=flags.positive_int, metavar='N')
  parser.flag('jobs', 1, 'runs at a time', type=flags.positive_int, metavar='N')
  return parser


def main(args):
  from tools import study_runs  # Matplotlib, which --help does without

  study_runs.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
