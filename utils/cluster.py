"""The machines that train together, as TF_CONFIG describes them: TFJob of Kubernetes sets it, or a script."""
import dataclasses
import json
import os

from utils.errors import UsageError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Task:
  """This process's place in the cluster.

  workers: int, processes that train, one a machine.
  is_chief: bool, whether this is the one that writes checkpoints and event files, evaluates and prints: the
    task of the job `chief`, or, where there is no such job, worker 0.
  """
  workers: int = 1
  is_chief: bool = True


def task_from_environment():
  """Returns the Task that TF_CONFIG gives to this process; a single one where it is not set.

  Raises:
    UsageError: TF_CONFIG is no such JSON, or asks for parameter servers or an evaluator.
  """
  text = os.environ.get('TF_CONFIG')
  if not text:
    return Task()
  try:
    config = json.loads(text)
    jobs = {job: len(addresses) for job, addresses in config.get('cluster', {}).items()}
    if not jobs:
      return Task()
    job, index = config['task']['type'], int(config['task']['index'])
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UsageError(f'TF_CONFIG is {text}; it should be JSON such as {_EXAMPLE}') from error
  others = sorted(set(jobs) - {'chief', 'worker'})
  if others:
    raise UsageError(f"TF_CONFIG has the jobs {', '.join(sorted(jobs))}; give chief and worker alone: every "
                     'worker holds all variables, and the chief evaluates')
  if not 0 <= index < jobs.get(job, 0):
    raise UsageError(f'TF_CONFIG says that this is {job} {index}, which its cluster does not list')
  first = 'chief' if jobs.get('chief') else 'worker'
  return Task(sum(jobs.values()), (job, index) == (first, 0))
