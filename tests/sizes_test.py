"""How large the house may be: its rooms, what train.py pulls in, its functions and their parameters.

Each number may only fall, to the one beside it; a change that adds lines lets others go.
"""
import ast
import os
import unittest

from tests.source_code import ROOT, imports, sources

TOTAL = 16_033       # 14,000
OF_TRAINING = 9_656        # 7,500: what train.py imports
CORE = 5_338        # 5,000: what one reads to change the science
UTILS = 1_632        # 1,600
SHARE_OF_A_ROOM = 0.30
LINES, PARAMETERS = 60, 9
LATE_IMPORTS = 0          # none but those of the scripts' main
LONGER = set()
CROWDED = set()
CORE_MODULES = (
    'train.py', 'evaluate.py', 'inference.py', 'export_inference_graph.py', 'create_pascal_tf_record.py',
    'create_cityscapes_tf_record.py', 'deeplab_model.py', 'nets/', 'training/losses.py',
    'training/optimizers.py', 'training/metrics.py', 'training/summaries.py', 'training/tf_estimator.py',
    'utils/settings.py',
    'dataset/preprocessing.py', 'dataset/inputs.py', 'dataset/class_uniform.py', 'dataset/schema.py',
    'dataset/tf_records.py', 'dataset/descriptors.py', 'commands/evaluation.py', 'commands/predictor.py',
    'utils/scores.py', 'training/checkpoints.py')


def lines(texts):
  return sum(text.count('\n') for text in texts)


def imported(path, found):
  """Returns the paths of our modules that one imports, itself and those of its functions included."""
  reached, left = set(), [path]
  while left:
    path = left.pop()
    if path in reached:
      continue
    reached.add(path)
    for name in imports(found[path]):  # a module, or what is in one
      files = (f'{part.replace(".", "/")}.py' for part in (name, name.rpartition('.')[0]))
      left += [file for file in files if file in found]
  return reached


class SizesTest(unittest.TestCase):

  @classmethod
  def setUpClass(cls):
    cls.found = {path: text for path, text in sources() if not path.startswith('benchmarks/')}

  def test_house_and_rooms(self):
    total = lines(self.found.values())
    self.assertLessEqual(total, TOTAL)
    rooms = {}
    for path, text in self.found.items():
      room = 'dataset/importing' if path.startswith('dataset/importing') else path.split('/')[0]
      rooms[room] = rooms.get(room, 0) + lines([text])
    self.assertLessEqual(max(rooms.values()), SHARE_OF_A_ROOM * total, rooms)
    self.assertLessEqual(rooms['utils'], UTILS)
    core = lines(text for path, text in self.found.items() if path.startswith(CORE_MODULES))
    self.assertLessEqual(core, CORE)
    self.assertLessEqual(lines(self.found[path] for path in imported('train.py', self.found)), OF_TRAINING)

  def test_readme_is_read_in_a_sitting(self):
    with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
      self.assertLessEqual(len(file.readlines()), 300)

  def test_functions(self):
    longer, crowded, late = set(), set(), 0
    for path, text in self.found.items():
      for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
          continue
        name = f'{os.path.basename(path)[:-3]}.{node.name}'
        if node.end_lineno - node.lineno >= LINES:
          longer.add(name)
        arguments = node.args
        names = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)} - {'self', 'cls'}
        if len(names) > PARAMETERS:
          crowded.add(name)
        is_script = '/' not in path and path != 'deeplab_model.py' or path.startswith('tools/')
        if not (is_script and node.name == 'main'):
          late += sum(isinstance(part, (ast.Import, ast.ImportFrom)) for part in ast.walk(node))
    self.assertEqual(longer, LONGER)
    self.assertEqual(crowded, CROWDED)
    self.assertLessEqual(late, LATE_IMPORTS)


if __name__ == '__main__':
  unittest.main()
