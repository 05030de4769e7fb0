"""Random stories of a training to which everything happens: is anything lost, or silently wrong?

  python tools/torture.py --stories 200 --seed 0
  python tools/torture.py --seed 0 --story 17 --keep build/torture      # that story alone
  python tools/torture.py --kills 20                                    # the table of kills

A story is a pure function of the seed and its number: a tiny training that is killed at a random moment
(SIGKILL, SIGTERM, SIGINT, often while a checkpoint is written), started again, with other flags too, whose
files are damaged, whose disk gets full, whose folder a second training wants, which is evaluated and exported
meanwhile. After each step the folder is read by other means (tools/torture_checks.py), and must hold what was
promised: no traceback; the documented status; no checkpoint lost; weights, slots, moving averages and event
curves that equal, bit by bit, those of a run that nothing happened to. A story that fails is printed as the
commands that make it up. Moments are seconds and file events, so the same story may hit another instruction.

The last line says how many stories failed; the exit status is 1 if one did. Where a file system in memory can
be mounted (by root), some stories fill it; elsewhere a full disk is a limit on the size of files.
"""
import os
import random
import shutil
import sys
import tempfile
import time

# A script finds modules in its own folder, tools/; the repository's are in the one above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cli import flags  # noqa: E402
from tools import children  # noqa: E402


def make_parser():
  parser = flags.Parser(__doc__)
  parser.flag('stories', 200, 'how many to run', type=flags.positive_int, metavar='N')
  parser.flag('seed', 0, 'of all stories', type=flags.non_negative_int)
  parser.flag('first', 0, 'number of the first one', type=flags.non_negative_int, metavar='N')
  parser.flag('story', None, 'run the story of this number alone', type=flags.non_negative_int,
              metavar='N')
  parser.flag('minutes', None, 'begin no story after so many', type=flags.positive_float, metavar='M')
  parser.flag('kills', None, 'in place of stories: kill one training by SIGKILL at N random moments, each '
              'time from the start, and compare what comes of it', type=flags.positive_int, metavar='N')
  parser.flag('keep', None, 'leave the folders of failed stories here', metavar='DIR')
  return parser


def main(args):
  from tools.torture_lab import Lab

  with tempfile.TemporaryDirectory(prefix='torture_') as folder, children.Children() as runner:
    lab = Lab(runner, folder)
    failed = kills(lab, args) if args.kills else stories(lab, args)
  if failed:
    sys.exit(1)


def stories(lab, args):
  """Runs the stories; returns how many failed."""
  from tools.torture_stories import Story, plan

  numbers = [args.story] if args.story is not None else range(args.first, args.first + args.stories)
  begun, done, failed = time.monotonic(), 0, 0
  for number in numbers:
    if args.minutes and time.monotonic() - begun > args.minutes * 60:
      break
    story = Story(lab, plan(args.seed, number))
    try:
      error = story.run()
      print(f'{story.plan.label}: {"FAILED" if error else "right"}, {story.summary()}', flush=True)
      if error:
        print(story.report(error), flush=True)
        keep(story, args.keep)
    finally:
      story.remove()
    done += 1
    failed += error is not None
  for what, count in sorted(lab.seen.items()):
    print(f'{count:6} {what}')
  if not lab.can_mount:
    print('No file system could be mounted: full disks were limits on the size of files alone')
  print(f'{done} stories, {failed} failed')
  return failed


def keep(story, folder):
  """Copies what a story has written into a folder, unless that is None."""
  if folder:
    target = os.path.join(folder, story.plan.label.replace(' ', '_'))
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(story.folder, target, symlinks=True)
    print(f'its folder: {target}', flush=True)


def kills(lab, args):
  """Kills a training at random moments, each time from the start; prints a table, returns how many differ."""
  from tools import torture_checks
  from tools.torture_lab import TIMEOUT, shown
  from tools.torture_stories import moment, spoken, wait_for

  training = lab.training('long')
  expected = lab.reference('long')
  print(f'python train.py {shown(training)}\n{expected.newest} steps; each row is a run that was killed once '
        'and continued by the same command.\n'
        '   killed                                              before  saving  goes on  values  curves')
  rng, differ = random.Random(args.seed), 0
  for number in range(1, args.kills + 1):
    when = moment(rng, changes=(130,))  # 12 checkpoints and 3 evaluations
    model_dir = os.path.join(lab.folder, f'killed_{number}')
    command = [*training, f'--model_dir={model_dir}']
    child = lab.runner.start('train.py', command)
    wait_for(when, child, model_dir)
    child.kill()
    child.wait()
    saving = any('tmp' in path for path in torture_checks.paths_below(model_dir))
    before = torture_checks.look(model_dir).newest
    child = lab.runner.run('train.py', command, TIMEOUT)
    found = torture_checks.look(model_dir)
    values = child.status == 0 and found.good.get(expected.newest) == expected.good[expected.newest]
    what = (torture_checks.difference(found.curve, expected.curve)
            or torture_checks.difference(found.eval_curve, expected.eval_curve))
    differ += not values or bool(what)
    print(f'{number:3} {spoken(when):50} step {before:3}  {"yes" if saving else "no":6}  '
          f'{"status " + str(child.status):8} {"equal" if values else "DIFFER":6}  {what or "equal"}',
          flush=True)
    shutil.rmtree(model_dir)
  print(f'{args.kills} kills, {differ} differ')
  return differ


if __name__ == '__main__':
  flags.run(main, make_parser())
