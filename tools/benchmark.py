"""Measure training, inference and the input pipeline: images/s, memory, waiting for input.

  python tools/benchmark.py train
  python tools/benchmark.py all --data_dir ./dataset --reference --json speed.json

Modes: train is the whole training step; infer predicts one image of --image_size; input reads and
augments the records of --data_dir; all is these three. Without --data_dir training gets synthetic
images, and there is no input to measure.

--reference also measures the same network as the original DeepLabv3+ scripts build it: atrous
convolutions through SpaceToBatch; a loss that picks the valid pixels by dynamic_partition; a
running confusion matrix with mean IoU, pixel accuracy and every class's IoU at each step;
predictions that include probabilities; and an input pipeline that decodes, scales, pads, crops and
flips one whole image after the other. "ratio" is how many times faster ours is.

Every variant lives in a process of its own, so its peak memory is its own too. They take turns in
blocks of --warmup and then --steps measured steps, --repeats times: what else the machine is doing
slows all of them, and the ratio is taken between neighbouring blocks. Shown are the median and the
range of the blocks. CPU s/step counts all threads of the process, and varies less.

Waiting for input: a step runs in two parts. The first takes the next batch out of the pipeline and
copies it to the device; the second trains on it, while the pipeline prepares further batches in
the background. Nothing can be computed before the batch is there, so the share of the first part
is the share of time spent waiting for input.
"""
import collections
import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time

# A script finds modules in its own folder, tools/; the repository's are in the one above.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils import datasets, files, flags  # noqa: E402
from utils.errors import DataError, UsageError  # noqa: E402

MODES = ('train', 'infer', 'input')
_SEED = 0
_COLUMNS = {  # what run_block measures, and how it is printed
    'images_per_s': '{} images/s',
    's_per_step': '{} s/step',
    'cpu_s_per_step': '{} CPU s/step',
    'input_wait_share': 'share waiting for input {}',
    'peak_host_mib': 'peak memory {} MiB',
    'peak_device_mib': 'on the device {} MiB',
}
_INPUT_STEPS = 100  # batches that count as one step of the mode input: one batch is too short


def make_parser():
  parser = flags.Parser(__doc__)
  parser.add_argument('mode', choices=(*MODES, 'all'), help='what to measure')
  parser.shared('base_architecture', 'output_stride', 'dataset')
  parser.flag('data_dir', None, 'folder of train.record; synthetic input without it', metavar='DIR')
  parser.flag('crop_size', (513, 513), 'height and width in train and input',
              type=flags.positive_int, nargs=2, metavar=('H', 'W'))
  parser.flag('image_size', (360, 480), 'height and width in infer', type=flags.positive_int,
              nargs=2, metavar=('H', 'W'))
  parser.flag('batch_size', 2, 'images per step in train and input', type=flags.positive_int)
  for name, default, what in (('steps', 5, 'measured steps of a block'),
                              ('warmup', 2, 'steps before the measured ones of a block')):
    parser.flag(name, default, f'{what}; input takes {_INPUT_STEPS} times as many batches',
                type=flags.positive_int, metavar='N')
  parser.flag('repeats', 3, 'blocks of every variant', type=flags.positive_int, metavar='N')
  parser.flag('reference', False, 'also measure what the original scripts build',
              action='store_true')
  parser.flag('json', None, 'also write the results here', metavar='FILE')
  return parser


def main(args):
  dataset = datasets.get_dataset(args.dataset)
  modes = MODES if args.mode == 'all' else (args.mode,)
  if args.data_dir is None and args.mode == 'input':
    raise UsageError('input has nothing to read; give --data_dir, a folder of train.record')
  if args.data_dir is None and args.mode == 'all':
    print('input is left out, as there is no --data_dir')
    modes = ('train', 'infer')
  if args.json:
    files.make_folder(os.path.dirname(args.json) or '.', '--json')

  results = {'flags': {name: value for name, value in vars(args).items() if name != 'explicit'}}
  for mode in modes:
    results[mode] = measure(mode, args, dataset)
    print(report(mode, args, results[mode]), flush=True)
  if args.json:
    with files.replacing(args.json) as temporary, open(temporary, 'w', encoding='utf-8') as file:
      json.dump(results, file, indent=2)
      file.write('\n')


def measure(mode, args, dataset):
  """Returns the measurements of a mode: dict of variant to dict, and with --reference `ratio`."""
  scale = _INPUT_STEPS if mode == 'input' else 1
  with contextlib.ExitStack() as stack:
    processes = {variant: stack.enter_context(concurrent.futures.ProcessPoolExecutor(
        max_workers=1, mp_context=multiprocessing.get_context('spawn')))
                 for variant in (VARIANTS if args.reference else ['ours'])}
    blocks = {variant: [] for variant in processes}
    try:
      ready = {variant: process.submit(prepare, mode, variant, args, dataset)
               for variant, process in processes.items()}
      results = {variant: facts.result() for variant, facts in ready.items()}
      for _ in range(args.repeats):
        for variant, process in processes.items():
          process.submit(run_block, args.warmup * scale).result()
          blocks[variant].append(process.submit(run_block, args.steps * scale).result())
    except concurrent.futures.process.BrokenProcessPool as error:
      raise DataError(f'the process that measured {mode} was killed, as happens when memory runs '
                      'out; give a smaller --batch_size or --crop_size') from error
  for variant, result in results.items():
    result.update({name: spread([block[name] for block in blocks[variant]])
                   for name in blocks[variant][0]})
  if args.reference:
    results['ratio'] = spread([theirs['s_per_step'] / ours['s_per_step'] for ours, theirs in
                               zip(blocks['ours'], blocks['reference'], strict=True)])
  return results


def spread(values):
  return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def report(mode, args, results):
  """Returns the measurements of a mode as lines of text."""
  height, width = args.image_size if mode == 'infer' else args.crop_size
  lines = [f'{mode}: {args.base_architecture}, height {height}, width {width}, batch '
           '{images_per_step}, TensorFlow {tensorflow}, {device}'.format(**results['ours'])]
  for variant in (name for name in VARIANTS if name in results):
    columns = [template.format(shown(results[variant][name]))
               for name, template in _COLUMNS.items() if name in results[variant]]
    lines.append(f'  {variant}: ' + ', '.join(columns))
  if 'ratio' in results:
    lines.append('  ratio: ' + shown(results['ratio']))
  return '\n'.join(lines)


def shown(values):
  return '{median:.4g} ({min:.4g}..{max:.4g})'.format(**values)


# --- In the process of a variant ---

# load: function, takes the next batch out of the pipeline; compute: function, runs the step on it;
# images: int, how many are in a batch.
Bench = collections.namedtuple('Bench', 'load compute images')
_bench = None  # the Bench of this process


def prepare(mode, variant, args, dataset):
  """Builds this process's Bench and runs its first step; returns a dict of facts about it."""
  global _bench
  import tensorflow.compat.v1 as tf

  from utils import inputs

  tf.logging.set_verbosity(tf.logging.ERROR)
  variant = VARIANTS[variant]
  params = {**vars(args), 'num_classes': dataset.num_classes, 'class_names': dataset.class_names,
            'palette': dataset.palette, 'ignore_label': dataset.ignore_label}
  with tf.Graph().as_default():
    if mode == 'infer':
      data = inputs.synthetic_dataset(1, args.image_size, dataset.num_classes, _SEED)
    else:
      data = train_data(args, dataset, variant.records)
    _bench = build(data, {
        'train': lambda images, labels: variant.train_step(images, labels, params),
        # As in inference.py, the size of the image is not known beforehand.
        'infer': lambda images, _: variant.predict(
            tf.placeholder_with_default(images, [1, None, None, 3]), params),
        'input': None,
    }[mode])
  run_block(1)
  return {'tensorflow': tf.__version__, 'images_per_step': _bench.images,
          'device': 'GPU' if tf.config.list_physical_devices('GPU') else 'CPU'}


def train_data(args, dataset, from_records):
  """Returns training batches: `from_records` of --data_dir, or synthetic; a tf.data.Dataset."""
  from nets import backbones
  from utils import inputs, tf_record

  if args.data_dir is None:
    return inputs.synthetic_dataset(args.batch_size, args.crop_size, dataset.num_classes, _SEED)
  paths = tf_record.record_files(args.data_dir, 'train')
  return from_records(paths, dataset, inputs.TrainOptions(
      crop_size=tuple(args.crop_size), batch_size=args.batch_size, seed=_SEED,
      channel_means=backbones.get(args.base_architecture).channel_means,
      num_examples=sum(tf_record.count_examples(paths))))


def build(data, step):
  """Returns the Bench of a step on the batches of a tf.data.Dataset.

  Args:
    data: tf.data.Dataset of tuples of tensors with static shapes.
    step: function that builds a step on a batch and returns what to fetch; None for no step.
  """
  import tensorflow.compat.v1 as tf

  from utils import run_config

  iterator = tf.data.make_initializable_iterator(data)
  batch = iterator.get_next()
  load, fetches = batch[0].op, ()
  if step:
    copies = [tf.get_variable(f'batch_{index}', initializer=tf.zeros(tensor.shape, tensor.dtype),
                              trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES])
              for index, tensor in enumerate(batch)]
    load = tf.group(*(copy.assign(tensor) for copy, tensor in zip(copies, batch, strict=True)))
    fetches = step(*(copy.read_value() for copy in copies))
  session = tf.Session(config=run_config.run_config().session_config)
  session.run([tf.global_variables_initializer(), tf.local_variables_initializer(),
               iterator.initializer])
  return Bench(functools.partial(session.run, load), functools.partial(session.run, fetches),
               int(batch[0].shape[0]))


def run_block(steps):
  """Returns what is in _COLUMNS, the mean of the steps; the peak memory is that of all so far."""
  import tensorflow.compat.v1 as tf

  waited, start, cpu_start = 0, time.perf_counter(), time.process_time()
  for _ in range(steps):
    before = time.perf_counter()
    _bench.load()
    waited += time.perf_counter() - before
    _bench.compute()
  seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
  unit = 1 if sys.platform == 'darwin' else 2 ** 10  # macOS counts bytes, Linux KiB
  result = {'images_per_s': steps * _bench.images / seconds, 's_per_step': seconds / steps,
            'cpu_s_per_step': cpu_seconds / steps, 'input_wait_share': waited / seconds,
            'peak_host_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20}
  if tf.config.list_physical_devices('GPU'):
    peak = tf.config.experimental.get_memory_info('GPU:0')['peak']
    result['peak_device_mib'] = peak / 2 ** 20
  return result


# --- The variants: what each reads, trains and predicts with ---


def records(paths, dataset, options):
  from utils import inputs
  return inputs.train_dataset(paths, dataset, options)


def train_step(images, labels, params):
  from deeplab_model import deeplabv3_plus_model_fn
  from utils.tf_estimator import ModeKeys

  spec = deeplabv3_plus_model_fn(images, labels, ModeKeys.TRAIN, params)
  return [spec.train_op, spec.loss]


def predict(images, params, fetches=('classes',)):
  from deeplab_model import deeplabv3_plus_model_fn
  from utils.tf_estimator import ModeKeys

  spec = deeplabv3_plus_model_fn(images, None, ModeKeys.PREDICT, params)
  return [spec.predictions[name] for name in fetches]


@contextlib.contextmanager
def space_to_batch():
  """Within it, atrous convolutions are built through SpaceToBatch."""
  from nets import layers

  native_dilation, layers.native_dilation = layers.native_dilation, lambda: False
  try:
    yield
  finally:
    layers.native_dilation = native_dilation


def reference_records(paths, _, options):
  """Returns a tf.data.Dataset of images float32 [B, h, w, 3] and labels int32 [B, h, w, 1]."""
  import tensorflow.compat.v1 as tf

  from utils import preprocessing, tf_record

  def parse(serialized):
    image, label = tf_record.parse_example(serialized)
    image = tf.io.decode_image(image, 3, expand_animations=False)
    return tf.cast(image, tf.float32), tf.cast(preprocessing.decode_label(label), tf.float32)

  def augment(image, label):
    scale = tf.random.uniform([], options.min_scale, options.max_scale)
    size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * scale, tf.int32)
    image = tf.image.resize_bilinear(image[tf.newaxis], size)[0]
    label = tf.image.resize_nearest_neighbor(label[tf.newaxis], size)[0]
    both = tf.concat([image, label - 255], axis=2)  # so that 0 pads both
    both = tf.image.pad_to_bounding_box(
        both, 0, 0, *tf.unstack(tf.maximum(size, options.crop_size)))
    both = tf.image.random_crop(both, [*options.crop_size, 4])
    both = tf.image.random_flip_left_right(both)
    return both[:, :, :3], tf.cast(both[:, :, 3:] + 255, tf.int32)

  serial = tf.data.Options()
  serial.experimental_optimization.map_parallelization = False  # which TensorFlow 2 turns on
  return (tf.data.TFRecordDataset(paths).shuffle(options.num_examples).map(parse).map(augment)
          .prefetch(options.batch_size).repeat().batch(options.batch_size, drop_remainder=True)
          .with_options(serial))


def reference_train_step(images, labels, params):
  """Returns [train_op, loss, scores]."""
  import tensorflow.compat.v1 as tf

  import deeplab_model
  from utils import losses, optimizers
  from utils.architecture import Architecture

  params = {**deeplab_model.DEFAULT_PARAMS, **params}
  classes = params['num_classes']
  architecture = Architecture(params['base_architecture'], classes, params['output_stride'])
  with space_to_batch():
    logits = deeplab_model.network(images, architecture, is_training=True)
  labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
  predictions = tf.reshape(tf.argmax(logits, axis=3, output_type=tf.int32), [-1])
  is_valid = tf.cast(labels <= classes - 1, tf.int32)
  logits, labels, predictions = (
      tf.dynamic_partition(values, is_valid, 2)[1]
      for values in (tf.reshape(logits, [-1, classes]), labels, predictions))
  variables = tf.trainable_variables()
  loss = (tf.losses.sparse_softmax_cross_entropy(labels, logits)
          + losses.weight_decay(variables, params['weight_decay']))
  train_op, _ = optimizers.train_op(loss, optimizers.learning_rate(params), variables, params)
  accuracy = tf.metrics.accuracy(labels, predictions)[1]
  matrix = tf.metrics.mean_iou(labels, predictions, classes)[1]  # of all steps so far
  hits = tf.linalg.diag_part(matrix)
  unions = tf.reduce_sum(matrix, 0) + tf.reduce_sum(matrix, 1) - hits
  iou = [hits[index] / tf.maximum(unions[index], 1) for index in range(classes)]
  return [train_op, loss, [accuracy, tf.add_n(iou) / classes, *iou]]


def reference_predict(images, params):
  with space_to_batch():
    return predict(images, params, ('classes', 'probabilities'))


Variant = collections.namedtuple('Variant', 'records train_step predict')
VARIANTS = {
    'ours': Variant(records, train_step, predict),
    'reference': Variant(reference_records, reference_train_step, reference_predict),
}

if __name__ == '__main__':
  flags.run(main, make_parser())
