"""The flags that several scripts share, declared and checked once, and how a script is started.

Every script builds a `Parser`, takes the shared flags that it needs by name, adds its own, and ends with
`flags.run(main, make_parser())`. Nothing here or above it imports TensorFlow before the command line has
been parsed, so `--help` and a misspelt flag answer at once.

Numbers are checked by the types below, text by `Parser.parse`. How a script ends is utils/ending.py's,
what libraries print utils/quiet.py's, and TensorFlow's environment utils/environment.py's concern.

A flag that the user gave can be told from one left at its default (`args.explicit`): that is how
model_config.json, which train.py leaves in model_dir, can stand in for flags that need not be repeated
and can contradict those that were (commands/model_config.py). They can also stand in a file, --recipe.
"""
import argparse
import dataclasses
import glob
import os
import platform
import re
import shlex
import sys
import typing

from nets import backbones
from nets.architecture import Architecture
from utils import ending, environment, progress, quiet
from utils.errors import UsageError
from utils.flag_types import (  # noqa: F401 (scripts take them from here)
  fraction,
  non_negative_float,
  non_negative_int,
  on_off,
  one_or_more,
  positive_float,
  positive_int,
  positive_int_or_auto,
  scale,
  share,
  weight,
)
from utils.settings import Settings

# Flags with these metavars may name a file: none is empty or a URL, and ~ is the home folder in all.
_NAMES = ('DIR', 'FILE', 'PATH', 'MODEL_DIR', 'GLOB', 'NAME', 'SET')
_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://|file:/')

_RECIPES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'recipes')


class Parser(argparse.ArgumentParser):
  """A strict parser: full flag names only, an unknown flag is an error, defaults in the help."""

  def __init__(self, description: str, **kwargs: typing.Any) -> None:
    super().__init__(description=description, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
    # A value may begin with one dash, as in `--label_suffix -mask`; argparse allows it to numbers alone.
    self._negative_number_matcher = re.compile('-[^-]')
    self.defaults: dict[str, typing.Any] = {}
    self._titled: dict[str, argparse._ArgumentGroup] = {}
    self._group: argparse._ActionsContainer = self
    self._place = ''  # of what is being parsed, for errors
    self._recorded: set[str] = set()
    self.flag('verbose', False, 'show what TensorFlow prints, and the traceback of an error')
    self.flag('quiet', False, 'show no progress')

  def flag(self, name: str, default: typing.Any, help: str,  # noqa: A002 (argparse's own word)
           recorded: bool | None = None, **kwargs: typing.Any) -> None:
    """Declares `--name`; its default is shown in the help and filled in by `parse`.

    A flag whose default is False takes no value: `--name` is True, and `--no-name` False again.

    Args:
      recorded: whether it changes what is learnt, so that a change of it is history (training/history.py);
        None is True, but in the group `output` and in none.
    """
    self.defaults[name] = default
    if recorded or recorded is None and self._group not in (self, self._titled.get('output')):
      self._recorded.add(name)
    if default is False and 'type' not in kwargs:
      kwargs['action'] = argparse.BooleanOptionalAction
    elif default is not None:
      shown = ' '.join(map(str, default)) if isinstance(default, (list, tuple)) else default
      shown = 'on' if shown is True else shown
      help = f'{help} (default: {shown})'
    self._group.add_argument('--' + name, default=argparse.SUPPRESS, help=help.replace('%', '%%'), **kwargs)

  def group(self, title: str) -> None:
    """Puts the flags that are declared from here on under a title of the help."""
    if title not in self._titled:
      self._titled[title] = self.add_argument_group(title)
    self._group = self._titled[title]

  def shared(self, *names: str) -> None:
    """Adds flags of SHARED by name, each under the title of its group."""
    before = self._group
    for name in names:
      spec = {'name': name, **SHARED[name]}
      self.group(spec.pop('group'))
      self.flag(**spec)
    self._group = before

  def error(self, message: str) -> typing.NoReturn:
    """Ends the script with one sentence; argparse would print every flag before it."""
    shown = ''.join(char if char.isprintable() else ascii(char)[1:-1] for char in self._place + message)
    self.exit(2, f'{self.prog}: error: {shown}; see --help\n')

  def parse(self, argv: list[str] | None = None, place: str = '') -> argparse.Namespace:
    """Returns the flags as a namespace; errors begin with `place`.

    Beside them it has `.explicit`, the names that `argv` or a recipe gave; `.changed`, those of them whose
    value is not the default, a dict of the defaults; and `.recorded`, the names of what is history.
    """
    self._place = place
    command = self._given(sys.argv[1:] if argv is None else argv)
    given: dict[str, typing.Any] = {}
    for path in command.get('recipe', ()):
      given.update(self._recipe(path))
    given.update(command)
    args = argparse.Namespace(**{**self.defaults, **given})
    args.explicit, args.recorded = frozenset(given), frozenset(self._recorded)
    args.changed = {name: default for name, default in self.defaults.items() if name in given
                    and given[name] != (list(default) if isinstance(default, tuple) else default)}
    return args

  def _recipe(self, path):
    """Returns the flags that a recipe gives, a dict."""
    given: dict[str, typing.Any] = {}
    for place, words in file_of_flags('--recipe', path, '*.flags'):
      self._place = place
      named = {word.split('=')[0] for word in words}
      if not words[0].startswith('--') or named & {'--recipe', '--help', '-h'}:
        self.error(f'{shlex.join(words)} is no flag of a recipe; give one flag a line, such as --batch_size '
                   '8, and comments after a #')
      found = self._given(words)
      if twice := sorted(set(found) & set(given)):
        self.error(f'--{twice[0]} stands in an earlier line too; give it once')
      given.update(found)
    self._place = ''
    return given

  def _given(self, words):
    """Returns the flags in the words of a command line, a dict."""
    found, unknown = self.parse_known_args(words)
    if unknown:
      self.error(f'unrecognized arguments: {shlex.join(unknown)}')
    given = vars(found)
    return {action.dest: self._checked(action, given[action.dest])
            for action in self._actions if action.dest in given}

  def _checked(self, action, value):
    """Returns the value of a flag, or the list of its values, with the home folder for ~ in paths."""
    if isinstance(value, list):
      return [self._checked(action, one) for one in value]
    if not isinstance(value, str):
      return value
    argument = f'argument {"/".join(action.option_strings) or action.metavar}: '
    if '\0' in value or value != value.encode(errors='replace').decode():
      self.error(f'{argument}{value!r} holds a NUL byte, or is not UTF-8, which TensorFlow needs; rename it')
    if action.metavar not in _NAMES:
      return value
    if not value:
      self.error(f'{argument}the text given is empty; give a name'
                 + ('' if action.required else ', or leave the flag out'))
    if _URL.match(value):
      self.error(f'{argument}{value} is a URL; give a path of this machine, to which it is mounted or copied')
    return os.path.expanduser(value)


# What stands before a comment: words and blanks. A # inside a word is a part of it.
_WORDS = re.compile(r"""(?:[ \t]+|(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^ \t\\'"#])\#*)*""")


def file_of_flags(flag: str, path: str, examples: str) -> typing.Iterator[tuple[str, list[str]]]:
  """Yields (place, words) of each line of a file of flags, as a shell reads it, but that it expands nothing.

  Quotes, backslashes and lines that end in one mean what they mean on a command line, and a # begins a
  comment where a word could begin.

  Args:
    flag: that which the file was given by. examples: a glob of such files in recipes/.

  Raises:
    UsageError: it cannot be read.
  """
  try:
    with open(path, encoding='utf-8-sig') as file:
      lines = file.read().split('\n')
  except (OSError, ValueError) as error:
    reason = 'is no UTF-8 text' if isinstance(error, ValueError) else f'cannot be read ({error.strerror})'
    known = sorted(glob.glob(os.path.join(_RECIPES, examples)))
    raise UsageError(f'{flag} {path} {reason}; give a file of flags, such as one of '
                     f'{", ".join(os.path.relpath(name) for name in known)}') from error
  text = place = ''
  for number, line in enumerate(lines, 1):
    place = place or f'{flag} {path}, line {number}: '
    text += line
    before = next(_WORDS.finditer(text))[0]
    rest = text[len(before):]
    if rest == '\\' and number < len(lines):
      text = before  # to which the next line belongs
      continue
    if rest[:1] not in ('', '#') and rest != '\\':
      raise UsageError(f'{place}a quotation mark has no partner; close it in the same line')
    if found := re.search(r'\$[\w{(]\S*|`', re.sub(r"\\.|'[^']*'", '', before)):
      raise UsageError(f'{place}{found[0]} is for a shell to expand, and none reads this file; write out '
                       'what it stands for, or put it in single quotes')
    if words := shlex.split(before):
      yield place, words
    text = place = ''


def values(args: argparse.Namespace, recorded: bool = False) -> dict[str, typing.Any]:
  """Returns every flag of what `Parser.parse` returned, or those alone that are history."""
  return {name: value for name, value in vars(args).items()
          if name not in ('explicit', 'changed', 'recorded') and (not recorded or name in args.recorded)}


def refuse_idle(args: argparse.Namespace, *rows: tuple[str, object, str]) -> None:
  """Raises UsageError if a flag was given that changes nothing; at its default none is refused.

  Args:
    rows: of the flags' names, whether they change something, and when they do not, such as
      `without --sliding_window`.
  """
  for names, works, why in rows:
    idle = [name for name in names.split() if name in args.changed and not works]
    if idle:
      defaults = [f'--{name} {args.changed[name]}' for name in idle if args.changed[name] is not None]
      is_of_recipe = getattr(args, 'recipe', None) and defaults
      raise UsageError(f'{" ".join(f"--{name}" for name in idle)} would change nothing {why}; leave it out'
                       + f', or over a recipe give {" ".join(defaults)}' * bool(is_of_recipe))


SHARED: dict[str, dict[str, typing.Any]] = {
    **{field.name: {'default': field.default, **field.metadata} for record in (Architecture, Settings)
       for field in dataclasses.fields(record) if field.metadata},
    'model_dir': dict(
        group='model', default='./model', metavar='DIR', recorded=False,
        help='folder of the checkpoints, model_config.json and event files'),
    'base_architecture': dict(
        group='model', default='resnet_v2_101', choices=backbones.names(),
        help='the backbone; taken from model_dir if train.py wrote it down there'),
    'data_format': dict(
        group='speed and memory', default=None, choices=('channels_last', 'channels_first'),
        help='the order in which features lie in memory; checkpoints are the same. On GPUs it is a wish: '
             'TensorFlow trains in fp32 with channels first, and computes half precision with channels last '
             '(bf16 below compute capability 8 first), whatever is given, and then transposes what differs '
             '(default: what it does itself; channels_last is the only one of CPUs)'),
    'dataset': dict(
        group='data', default='voc', metavar='NAME',
        help='voc, cityscapes, or the path of a JSON descriptor (dataset/camvid.json is one); '
             'taken from model_dir if train.py wrote it down there'),
    'image_data_dir': dict(
        group='data', default='dataset/VOCdevkit/VOC2012/JPEGImages', metavar='DIR',
        help='folder of the images'),
    'label_data_dir': dict(
        group='data', default='dataset/VOCdevkit/VOC2012/SegmentationClassAug', metavar='DIR',
        help='folder of the label PNGs'),
    'shards': dict(
        group='data', default=0, type=non_negative_int, metavar='N',
        help='write N files such as train-00003-of-00016.record, in place of one train.record (0)'),
    'skip_bad': dict(
        group='data', default=0, type=non_negative_int, metavar='N',
        help='leave out up to N bad pairs, and list them in the index beside the records'),
    'fast': dict(
        group='data', default=False,
        help='check no more than sizes and formats: damage and wrong label values go unseen'),
    'processes': dict(
        group='speed and memory', default=min(16, environment.cores()), type=positive_int, metavar='N',
        help='processes that read and check images; copying them by --fast takes no more than one'),
    'crop_size': dict(
        group='data', default=(513, 513), type=positive_int, nargs=2, metavar=('H', 'W'),
        help='height and width of the training crops'),
    'scale_range': dict(
        group='data', default=(0.5, 2.0), type=scale, nargs=2, metavar=('MIN', 'MAX'),
        help='images are scaled at random between these, and then cropped'),
    'scale_step': dict(
        group='data', default=0.0, type=non_negative_float, metavar='X',
        help="draw one of MIN, MIN + X, ... up to MAX, as Google's DeepLab by 0.25; 0 draws any between"),
    'random_flip': dict(
        group='data', name='flip', default=True, type=on_off, metavar='on|off',
        help='mirror half of the images; off where left and right differ, such as lanes'),
    'photometric_distortion': dict(
        group='data', default=False,
        help='change brightness, contrast, saturation and hue at random, as SSD does'),
    'max_class_share': dict(
        group='data', default=1.0, type=share, metavar='X',
        help="try up to ten crops and take the first in which no class fills more than this share of the "
             "valid pixels; 0.75 is usual, 1 takes any"),
    'class_uniform': dict(
        group='data', default=0.0, type=weight, metavar='SHARE',
        help="this share of each epoch is sampled by class: draw a class, then an image that has it; needs "
             'the train.json of a conversion'),
    'eval_scales': dict(
        group='scales and windows', default=(1.0,), type=scale, nargs='+', metavar='X',
        help='average the probabilities of the image at these scales, such as 0.5 0.75 1 1.25 1.5 1.75'),
    'flip': dict(
        group='scales and windows', default=False, help='average with those of the mirrored image'),
    'sliding_window': dict(
        group='scales and windows', default=None, type=positive_int, nargs=2, metavar=('H', 'W'),
        help='predict images in windows of this size, for those too large for the memory'),
    'overlap': dict(
        group='scales and windows', default=0.33, type=fraction, metavar='X',
        help='the share of a window that the next one sees too, at least'),
    'recipe': dict(
        group='schedule', default=None, metavar='FILE', action='append', recorded=False,
        help='file of flags, one a line, with comments after a #, such as those in recipes/; of several a '
             'later one wins, and over all the command line'),
    'debug': dict(
        group='output', default=False, help="stop in tfdbg's command line at every session run"),
}

# The flags that say which model it is; model_config.json stands in for them.
MODEL_FLAGS = ('model_dir', 'dataset', *(field.name for field in dataclasses.fields(Architecture)
                                         if field.name in SHARED))

# The flags of how the network is computed.
COMPUTE_FLAGS = ('precision', 'data_format')

# The flags of how an image is looked at (dataset/views.py).
VIEW_FLAGS = ('eval_scales', 'flip', 'sliding_window', 'overlap')

# The flags of the scripts that write records.
CONVERSION_FLAGS = ('shards', 'skip_bad', 'fast', 'processes')

# The flags of what training makes of an example (dataset/inputs.py). random_flip is called --flip, as is what
# averages views elsewhere.
AUGMENTATION_FLAGS = ('crop_size', 'scale_range', 'scale_step', 'random_flip', 'photometric_distortion',
                      'max_class_share', 'class_uniform', 'seed')


def _is_spawned():
  """Returns whether this process works for another one of this script, whose command line it has."""
  multiprocessing = sys.modules.get('multiprocessing')
  return multiprocessing is not None and multiprocessing.current_process().name != 'MainProcess'


if _is_spawned() and '--verbose' not in sys.argv:
  quiet.silence()


def run(main: typing.Callable[[argparse.Namespace], None], parser: Parser,
        argv: list[str] | None = None) -> None:
  """Parses the command line and calls `main(args)`; whatever is raised ends in one sentence and a status.

  Args:
    main: raises UsageError or DataError for bad input.
    argv: the command line without the program; None takes the process's own.
  """
  args = argparse.Namespace(verbose='--verbose' in (sys.argv if argv is None else argv))
  environment.prepare()
  with (ending.explained(parser.prog, lambda: args.verbose),
        ending.raising_signals(parser.prog, last=argv is None)):
    if (encoding := sys.getfilesystemencoding()) != 'utf-8':  # in a folder größe TensorFlow would see no file
      raise UsageError(f'names of files are {encoding} here, by LC_ALL, LC_CTYPE or LANG, and TensorFlow '
                       'takes them for UTF-8; run with PYTHONUTF8=1, or in a locale such as C.UTF-8')
    args = parser.parse(argv)
    progress.quiet = args.quiet
    if not args.verbose and argv is None:
      quiet.silence()  # also while the process ends, when TensorFlow tells of what was never used
    main(args)


def enable_onednn() -> None:
  """Makes TensorFlow, if it has not been imported yet, use oneDNN's kernels on every x86 CPU: for training.

  By itself TensorFlow leaves them out if the CPU has no instructions for neural networks (before AVX-512
  VNNI). On such a CPU a training step takes a quarter less time by them; predicting single images takes more.
  """
  if platform.machine() in ('x86_64', 'AMD64'):
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
