"""The recipes: each one's flags are those of train.py, make a model, and say where they come from."""
import glob
import os

import pytest

import train
from commands import model_config
from dataset import descriptors
from nets.architecture import Architecture
from tests.support import ROOT

RECIPES = sorted(glob.glob(os.path.join(ROOT, 'recipes', '*.flags')))


@pytest.mark.parametrize('path', RECIPES, ids=os.path.basename)
def test_a_recipe_makes_a_model(path):
  with open(path) as file:
    text = file.read()
  for line in ('# Source: ', '# Score: ', '# Time: '):
    assert text.count('\n' + line) == 1
  args = train.make_parser().parse(['--recipe', path])
  assert args.explicit > {'recipe', 'base_architecture', 'pre_trained_model', 'batch_size'}
  dataset = descriptors.get_dataset(args.dataset)
  model_config.check(Architecture.from_dict({**vars(args), 'num_classes': dataset.num_classes}))
  # The learning rate falls to its end as the run ends, if its length does not depend on the data.
  assert args.max_steps in (None, args.max_iter)


def test_there_are_recipes_for_all_that_is_documented():
  names = {os.path.basename(path) for path in RECIPES}
  with open(os.path.join(ROOT, 'docs', 'recipes.md')) as file:
    text = file.read()
  assert {name for name in names if f'[{name}](../recipes/{name})' in text} == names and len(names) == 9
