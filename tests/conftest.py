"""What train.py does before it imports TensorFlow, for the tests that call its functions; and their order."""
import os

from cli import flags

flags.enable_onednn()
# Expected values are of float32, which a GPU multiplies with fewer bits. tools/gpu_check.sh tries GPUs.
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'

# Files whose classes take longest. They begin, so that no worker is left with one at the end.
_LONGEST = ('torture_test', 'resume_test', 'scripts_test', 'cluster_test', 'fuzz_test',
            'convert_checkpoint_test', 'deeplab_model_test', 'gpu_graph_test', 'benchmark_test',
            'backbones_test', 'replicas_test', 'readme_test', 'devices_test', 'ending_test',
            'quiet_test', 'inputs_test', 'layers_test')


def pytest_collection_modifyitems(items):
  order = {f'{name}.py': index for index, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: order.get(item.path.name, len(order)))
