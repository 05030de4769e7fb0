"""What torture.py runs: stories one after another, or one training that is killed again and again."""
import os
import random
import shutil
import sys
import tempfile
import time

from tests import children
from tests.torture import checks
from tests.torture.lab import TIMEOUT, Lab, shown
from tests.torture.stories import Story, moment, plan, spoken, wait_for


def main(args):
  """Runs what the flags say; the exit status is 1 if anything failed."""
  with tempfile.TemporaryDirectory(prefix='torture_') as folder, children.Children() as runner:
    lab = Lab(runner, folder)
    failed = kills(lab, args) if args.kills else stories(lab, args)
  if failed:
    sys.exit(1)


def stories(lab, args):
  """Runs the stories; returns how many failed."""
  numbers = args.story or range(args.first, args.first + args.stories)
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
    saving = any('tmp' in path for path in checks.paths_below(model_dir))
    before = checks.look(model_dir).newest
    child = lab.runner.run('train.py', command, TIMEOUT)
    found = checks.look(model_dir)
    values = child.status == 0 and found.good.get(expected.newest) == expected.good[expected.newest]
    what = (checks.difference(found.curve, expected.curve)
            or checks.difference(found.eval_curve, expected.eval_curve))
    differ += not values or bool(what)
    print(f'{number:3} {spoken(when):50} step {before:3}  {"yes" if saving else "no":6}  '
          f'{"status " + str(child.status):8} {"equal" if values else "DIFFER":6}  {what or "equal"}',
          flush=True)
    shutil.rmtree(model_dir)
  print(f'{args.kills} kills, {differ} differ')
  return differ
