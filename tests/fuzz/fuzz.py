"""Broken inputs for every script and tool: does each end in success, or in one sentence?

  python tests/fuzz/fuzz.py --cases 400 --seed 0
  python tests/fuzz/fuzz.py --seed 0 --case 17 --keep build/fuzz      # that case alone

A case is a pure function of the seed and its number: a script on tiny inputs (tests/fuzz/cases.py), of which
one has bytes flipped or cut off, another size, type, encoding or name, is missing, a folder, a pipe, a link
in a circle or unreadable (tests/fuzz/faults.py); or one of whose flags is out of range; or whose folders have
odd names. It has to end

  within a minute, with status 0, or with 1 or 2 and `<script>: error: <sentence>` on stderr;
  without a traceback, and without calling itself a defect;
  with nothing half written: what is new is whole, lies in the output folder, and no temporary file is left;
  and with everything as it was that was there before.

A case that fails is printed with the command that runs it again. The last line says how many failed; the
exit status is 1 if one did. Run by root, scripts lack the capability to pass over permissions.
"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.realpath(__file__ + '/../../..'))  # where our modules are

from commands import flags
from tests import children


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('cases', 400, 'how many to run', type=flags.positive_int, metavar='N')
  parser.flag('seed', 0, 'of all cases', type=flags.non_negative_int)
  parser.flag('first', 0, 'number of the first one', type=flags.non_negative_int, metavar='N')
  parser.flag('case', None, 'run the cases of these numbers alone', type=flags.non_negative_int, nargs='+',
              metavar='N')
  parser.flag('only', None, 'of these run those alone whose description holds this, such as huge_length',
              metavar='TEXT')
  parser.flag('keep', None, 'leave the folders of failed cases here', metavar='DIR')
  return parser


def main(args):
  from tests.fuzz import cases  # TensorFlow, which --help does without
  from tests.fuzz.lab import Lab, obey_permissions

  obey_permissions()
  with (tempfile.TemporaryDirectory(prefix='fuzz_') as folder,
        children.Children({'TF_CPP_MIN_LOG_LEVEL': '3'}) as runner):
    lab = Lab(runner, folder)
    numbers = args.case or range(args.first, args.first + args.cases)
    if args.only:
      numbers = [number for number in numbers if args.only in cases.plan(args.seed, number).label]
    failed = 0
    for done, number in enumerate(numbers, 1):
      failed += lab.fails(args.seed, number, args.keep, verbose=bool(args.case))
      if done % 50 == 0:
        print(f'{done} of {len(numbers)} cases, {failed} failed so far; the last was {number}', flush=True)
    print('ends: ' + ', '.join(f'{what} {count}' for what, count in sorted(lab.ends.items())))
    if lab.skipped:
      print(f'{lab.skipped} cases about permissions were left out, which mean nothing to this user')
    print(f'{len(numbers)} cases, {failed} failed')
  if failed:
    sys.exit(1)


if __name__ == '__main__':
  flags.run(main, make_parser())
