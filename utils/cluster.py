"""The machines that train together, as TF_CONFIG describes them: TFJob of Kubernetes sets it, or a script."""
import dataclasses
import json
import os
import re

from utils.errors import UsageError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Task:
  """This process's place in the cluster.

  workers: int, processes that train, one a machine.
  is_chief: bool, whether this is the one that writes checkpoints and event files, evaluates and prints: the
    task of the job `chief`, or, if there is no such job, worker 0.
  """
  workers: int = 1
  is_chief: bool = True


def task_from_environment() -> Task:
  """Returns the Task that TF_CONFIG gives to this process.

  It is a single one, Task(), if TF_CONFIG is not set, is empty, or lists one machine, a chief or a worker,
  as for a job of Kubernetes that is scaled to one.

  Raises:
    UsageError: TF_CONFIG is no such JSON, asks for parameter servers or an evaluator, or contradicts itself.
  """
  text = os.environ.get('TF_CONFIG', '').strip()
  if not text:
    return Task()
  try:
    jobs, job, index = _parsed(text)
  except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
    shown = text if len(text) <= 300 else text[:300] + '...'
    raise UsageError(f'TF_CONFIG is {shown}; it should be JSON such as {_EXAMPLE}') from error
  if not jobs:
    return Task()
  _check(jobs)
  if not 0 <= index < len(jobs.get(job, ())):
    raise UsageError(f'TF_CONFIG says that this is {job} {index}, which its cluster does not list')
  first = 'chief' if 'chief' in jobs else 'worker'
  return Task(sum(map(len, jobs.values())), (job, index) == (first, 0))


def _parsed(text):
  """Returns the jobs that have machines, a dict of lists of addresses, and this machine's job and index.

  Raises:
    ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError: it is something else.
  """
  config = json.loads(text)
  jobs = {job: addresses for job, addresses in config.get('cluster', {}).items() if addresses}
  if not jobs:
    return {}, None, None
  for addresses in jobs.values():
    if not (isinstance(addresses, list) and all(re.fullmatch(r'\S+:\d+', address) for address in addresses)):
      raise ValueError(f'{addresses} are no addresses')
  return jobs, str(config['task']['type']), int(config['task']['index'])


def _check(jobs):
  """Raises UsageError if TF_CONFIG lists what cannot train together."""
  if set(jobs) - {'chief', 'worker'}:
    raise UsageError(f"TF_CONFIG has the jobs {', '.join(sorted(jobs))}; give chief and worker alone: every "
                     'worker holds all variables, and the chief evaluates')
  if len(jobs.get('chief', ())) > 1:
    raise UsageError(f"TF_CONFIG lists {len(jobs['chief'])} chiefs; give one, and the others as workers")
  addresses = [address for job in jobs.values() for address in job]
  doubled = [address for address in addresses if addresses.count(address) > 1]
  if doubled:
    raise UsageError(f'TF_CONFIG lists {doubled[0]} twice; give each machine an address of its own')
