"""docs/flags.md: the flags of every script, made of what their parsers declare.

  python -m tests.flags_page
"""
import importlib
import os
import re

from tests.support import ROOT

PATH = os.path.join(ROOT, 'docs', 'flags.md')
SCRIPTS = ('train', 'evaluate', 'inference', 'export_inference_graph', 'create_pascal_tf_record',
           'create_cityscapes_tf_record', 'dataset.make_sample_data', 'tools.benchmark',
           'tools.convert_checkpoint', 'tools.create_tf_record', 'tools.plot_scalars', 'tools.recalibrate',
           'tools.study', 'tools.view_dataset')
_HEAD = """# All flags

What each script takes, made of its own help by `python -m tests.flags_page`. The opposite of a flag without a
value is `--no-<flag>`.
"""


def parser_of(script):
  return importlib.import_module(script).make_parser()


def usage(action):
  """Returns how a flag is written, such as --crop_size H W."""
  if action.nargs == 0 or not action.option_strings:
    return (action.option_strings or [action.metavar or action.dest])[0]
  choices = action.choices and len(action.choices) <= 4 and '{' + ','.join(map(str, action.choices)) + '}'
  value = choices or action.metavar or action.dest.rpartition('_')[2].upper()
  if isinstance(value, tuple):
    value = ' '.join(value)
  elif isinstance(action.nargs, int):
    value = ' '.join([value] * action.nargs)
  return f'{action.option_strings[0]} {value}' + ' ...' * (action.nargs in ('+', '*'))


def shown_help(action):
  """Returns what a flag is for; the number of processes is the machine's."""
  text = action.help.replace('%%', '%')
  return re.sub(r'default: \d+', 'default: one a core', text) if action.dest == 'processes' else text


def page():
  """Returns the text of docs/flags.md."""
  parts = [_HEAD]
  for script in SCRIPTS:
    parser = parser_of(script)
    parts.append(f'\n## {script.replace(".", "/")}.py\n\n{parser.description.splitlines()[0]}\n')
    for group in parser._action_groups:
      actions = [action for action in group._group_actions if action.dest != 'help']
      if actions:
        title = 'general' if group.title in ('options', 'positional arguments') else group.title
        parts.append(f'\n| {title} | |\n|---|---|\n')
        parts += ['| `{}` | {} |\n'.format(*(text.replace('|', r'\|') for text in (
            usage(action), shown_help(action)))) for action in actions]
  return ''.join(parts)


if __name__ == '__main__':
  with open(PATH, 'w', encoding='utf-8') as file:
    file.write(page())
