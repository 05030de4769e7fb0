"""What train.py does before it imports TensorFlow, for the tests that call its functions; and their order."""
import gc
import os
import signal

from commands import flags

flags.enable_onednn()
# Expected values are of float32, which a GPU multiplies with fewer bits. tools/gpu_check.sh tries GPUs.
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'

# Children of a process that ignores a signal, as under nohup or in the background, do so too, and tests send
# them some. One that is handled, by doing nothing, they do not ignore. Workers are told by a variable.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
  if signal.getsignal(number) is signal.SIG_IGN:
    os.environ[f'TESTS_IGNORE_{number.name}'] = '1'
  if f'TESTS_IGNORE_{number.name}' in os.environ:
    signal.signal(number, lambda *_: None)

# Graphs are many objects, nearly all of which live as long as the graph: to look for garbage among them after
# every 700, as Python does, takes a twentieth of the tests' time.
gc.set_threshold(50_000, 10, 10)

# Files whose classes take longest. They begin, so that no worker is left with one at the end.
_LONGEST = ('cluster_test', 'torture_test', 'resume_test', 'scripts_test', 'fuzz_test',
            'convert_checkpoint_test', 'gpu_graph_test', 'benchmark_test', 'conversion_test',
            'benchmark_memory_test', 'gpu_check_test', 'deeplab_model_test', 'replicas_test', 'quiet_test',
            'backbones_test', 'resnet_v2_test', 'readme_test', 'devices_test', 'ending_test', 'inputs_test',
            'layers_test', 'cpu_convolution_test', 'run_config_test')


def pytest_collection_modifyitems(items):
  order = {f'{name}.py': index for index, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: order.get(item.path.name, len(order)))
