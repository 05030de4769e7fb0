"""What scripts are made of: their flags, and the work of each. It ends them on a system that will not do."""
import os
import sys

try:
  import fcntl  # noqa: F401
  from signal import SIGHUP  # noqa: F401
except ImportError:
  sys.exit(f'{os.path.basename(sys.argv[0])}: error: {sys.platform} has no signals and locks of '
           'Unix, which keep a training safe; use Linux or macOS, or Linux within Windows: WSL 2 or Docker')
