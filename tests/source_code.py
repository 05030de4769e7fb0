"""The modules of the house as text, and what they import."""
import ast
import glob
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOMS = ('benchmarks', 'commands', 'dataset', 'nets', 'tools', 'training', 'utils')


def sources():
  """Yields (path from the root, text) of every module that is no test."""
  for path in glob.glob(os.path.join(ROOT, '**', '*.py'), recursive=True):
    name = os.path.relpath(path, ROOT).replace(os.sep, '/')
    if name.split('/')[0] in ROOMS or '/' not in name:
      with open(path, encoding='utf-8') as file:
        yield name, file.read()


def imports(text):
  """Returns the dotted names that the source imports, functions' own imports included."""
  found = set()
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      found.update(f'{node.module}.{alias.name}' for alias in node.names)
  return found
