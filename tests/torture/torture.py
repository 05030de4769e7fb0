"""Random stories of a training to which everything happens: is anything lost, or silently wrong?

  python tests/torture/torture.py --stories 200 --seed 0
  python tests/torture/torture.py --seed 0 --story 17 --keep build/torture      # that story alone
  python tests/torture/torture.py --kills 20                                    # the table of kills

A story is a pure function of the seed and its number: a tiny training that is killed at a random moment
(SIGKILL, SIGTERM, SIGINT, often while a checkpoint is written), started again, with other flags too, whose
files are damaged, whose disk gets full, whose folder a second training wants, which is evaluated and exported
meanwhile. After each step the folder is read by other means (tests/torture/checks.py), and must hold what was
promised: no traceback; the documented status; no checkpoint lost; weights, slots, moving averages and event
curves that equal, bit by bit, those of a run that nothing happened to. A story that fails is printed as the
commands that make it up. Moments are seconds and file events, so the same story may hit another instruction.

The last line says how many stories failed; the exit status is 1 if one did. Where a file system in memory can
be mounted (by root), some stories fill it; elsewhere a full disk is a limit on the size of files.
"""
import os
import sys

sys.path.insert(0, os.path.realpath(__file__ + '/../../..'))  # where our modules are

from commands import flags


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('stories', 200, 'how many to run', type=flags.positive_int, metavar='N')
  parser.flag('seed', 0, 'of all stories', type=flags.non_negative_int)
  parser.flag('first', 0, 'number of the first one', type=flags.non_negative_int, metavar='N')
  parser.flag('story', None, 'run the stories of these numbers alone', type=flags.non_negative_int,
              nargs='+', metavar='N')
  parser.flag('minutes', None, 'begin no story after so many', type=flags.positive_float, metavar='M')
  parser.flag('kills', None, 'in place of stories: kill one training by SIGKILL at N random moments, each '
              'time from the start, and compare what comes of it', type=flags.positive_int, metavar='N')
  parser.flag('keep', None, 'leave the folders of failed stories here', metavar='DIR')
  return parser


def main(args):
  from tests.torture import runs  # TensorFlow, which --help does without

  runs.main(args)


if __name__ == '__main__':
  flags.run(main, make_parser())
