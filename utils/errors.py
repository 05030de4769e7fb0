"""The two ways in which input can be wrong, and the exit status that each ends a script with.

Both carry one sentence for the user: what was given, what is allowed, what to do. Scripts turn them
into `<script>: error: <sentence>` (commands/flags.py); a traceback means a defect of ours.
"""


class UsageError(ValueError):
  """A flag, or a combination of flags, that cannot work. Exit status 2."""
  exit_status = 2


class DataError(ValueError):
  """A file that is missing, damaged, or not what the flags say it is. Exit status 1."""
  exit_status = 1
