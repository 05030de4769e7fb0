"""The rules that keep the code easy to follow: which way imports run, and what has one home."""
import ast
import glob
import os
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = {os.path.basename(path)[:-3] for path in glob.glob(os.path.join(ROOT, '*.py'))} - {'deeplab_model'}


def sources():
  """Yields (path from the root, text) of every module that is no test."""
  for path in glob.glob(os.path.join(ROOT, '**', '*.py'), recursive=True):
    name = os.path.relpath(path, ROOT).replace(os.sep, '/')
    if name.split('/')[0] in ('nets', 'utils', 'tools', 'dataset') or '/' not in name:
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


class ArchitectureTest(unittest.TestCase):

  def test_imports_run_one_way(self):
    # scripts and tools -> flags -> deeplab_model -> nets -> utils
    above = {'nets': {'deeplab_model', 'tools', *SCRIPTS},
             'utils': {'deeplab_model', 'tools', 'nets', *SCRIPTS}}
    for name, text in sources():
      folder = name.split('/')[0]
      roots = {imported.split('.')[0] for imported in imports(text)}
      if name == 'utils/flags.py':
        self.assertFalse(roots & {'tools', *SCRIPTS}, name)
      elif folder in above:
        self.assertFalse(roots & above[folder], name)
      if folder in above or name == 'deeplab_model.py':
        self.assertNotIn('utils.flags', imports(text), name)

  def test_only_tf_estimator_touches_private_tensorflow(self):
    for name, text in sources():
      private = [i for i in imports(text) if i.startswith(('tensorflow.python', 'tensorflow_estimator'))]
      if name not in ('utils/tf_estimator.py', 'tools/gpu_graph.py'):  # kernels have no public door
        self.assertEqual(private, [], name)

  def test_only_tf_record_names_the_features(self):
    homes = [name for name, text in sources() if "'image/encoded'" in text or '"image/encoded"' in text]
    self.assertEqual(homes, ['utils/tf_record.py'])

  def test_no_python_runs_inside_the_graph(self):
    for name, text in sources():
      self.assertFalse({'py_func', 'numpy_function', 'py_function'} & {
          node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}, name)

  def test_nothing_that_is_read_can_run_code(self):
    for name, text in sources():
      self.assertFalse({'pickle', 'marshal', 'shelve', 'dill', 'yaml'} & {
          imported.split('.')[0] for imported in imports(text)}, name)
      for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
          called = getattr(node.func, 'id', None)
          self.assertNotIn(called, ('eval', 'exec', 'compile', '__import__'), name)
          self.assertNotIn('allow_pickle', [keyword.arg for keyword in node.keywords], name)


if __name__ == '__main__':
  unittest.main()
