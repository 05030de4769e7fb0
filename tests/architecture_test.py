"""The rules that keep the code easy to follow: which way imports run, and what has one home."""
import ast
import glob
import os
import unittest
import warnings

from tests.source_code import ROOT, imports, sources

SCRIPTS = {os.path.basename(path)[:-3] for path in glob.glob(os.path.join(ROOT, '*.py'))} - {'deeplab_model'}


class ArchitectureTest(unittest.TestCase):

  def test_imports_run_one_way(self):
    # Each room imports from itself and from those below it; nets, training and dataset lie side by side, but
    # training knows the replicas of nets.
    below = {'utils': set(), 'nets': {'utils'}, 'training': {'nets', 'utils'}, 'dataset': {'utils'},
             'deeplab_model': {'nets', 'training', 'dataset', 'utils'}}
    below['commands'] = {'deeplab_model', *below['deeplab_model']}
    below['tools'] = below['benchmarks'] = {'commands', 'tools', 'benchmarks', 'train', *below['commands']}
    ours = {'tests', *below, *SCRIPTS}
    for name, text in sources():
      room = name.split('/')[0].removesuffix('.py')
      roots = {imported.split('.')[0] for imported in imports(text)} & ours
      if name != 'dataset/make_sample_data.py':  # a script, which lies beside the data that it makes
        self.assertLessEqual(roots, {room, *below.get(room, below['commands'] | {'commands'})}, name)

  def test_only_tf_estimator_touches_private_tensorflow(self):
    for name, text in sources():
      private = [i for i in imports(text) if i.startswith(('tensorflow.python', 'tensorflow_estimator'))]
      # Kernels and the optimiser of graphs have no public door.
      if name not in ('training/tf_estimator.py', 'benchmarks/graph_analysis.py',
                      'commands/export_formats.py'):
        self.assertEqual(private, [], name)

  def test_only_the_schema_names_the_features(self):
    homes = [name for name, text in sources() if "'image/encoded'" in text or '"image/encoded"' in text]
    self.assertEqual(homes, ['dataset/schema.py'])

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

  def test_tests_share_what_is_in_no_test_file(self):
    for path in glob.glob(os.path.join(ROOT, 'tests', '*.py')):
      with open(path, encoding='utf-8') as file:
        shared = {name for name in imports(file.read()) if name.split('.')[0] == 'tests'}
      self.assertFalse([name for name in shared if any(part.endswith('_test') for part in name.split('.'))],
                       path)

  def test_deprecated_calls_of_ours_are_errors_and_those_of_others_are_not(self):
    for module in ('train', 'create_pascal_tf_record', 'deeplab_model', 'utils.files', 'training.losses',
                   'commands.flags', 'nets.layers',
                   'tools.study', 'benchmarks.memory', 'dataset.make_sample_data', 'tests.support'):
      for category in (DeprecationWarning, FutureWarning):
        with self.assertRaises(category, msg=module):
          warnings.warn_explicit('goes in the next release', category, 'a.py', 1, module)
        warnings.warn_explicit('goes in the next release', category, 'a.py', 1, 'tensorflow.python.' + module)
        warnings.warn_explicit('goes in the next release', category, 'a.py', 1, 'trainer')


if __name__ == '__main__':
  unittest.main()
