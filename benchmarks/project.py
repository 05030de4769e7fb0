"""The benchmark's network of ours: its input, its steps and its session, in a process of its own."""
import contextlib
import functools

import tensorflow.compat.v1 as tf

from benchmarks import complexity
from benchmarks.measure import Bench
from dataset import inputs, tf_records
from deeplab_model import deeplabv3_plus_model_fn, network
from nets import backbones
from nets.architecture import Architecture
from training import run_config
from training.tf_estimator import ModeKeys
from utils import devices, environment
from utils.errors import UsageError

_SEED = 0


def bench(mode, params, dataset):
  """Returns the Bench of a mode (train, infer or input) on ours; see bench_of for the arguments."""
  return bench_of(mode, params, dataset, inputs.train_dataset, train_step, predict)


def train_step(images, labels, params):
  spec = deeplabv3_plus_model_fn(images, labels, ModeKeys.TRAIN, params)
  return [spec.train_op, spec.loss]


def predict(images, params, fetches=('classes',)):
  spec = deeplabv3_plus_model_fn(images, None, ModeKeys.PREDICT, params)
  return [spec.predictions[name] for name in fetches]


# --- What the reference shares ---


def bench_of(mode, params, dataset, from_records, train_step, predict):
  """Returns the Bench of a mode.

  Args:
    mode: str, train, infer or input.
    params: dict, the flags and what the model_fn needs.
    dataset: descriptors.Dataset.
    from_records: function of paths, dataset and inputs.TrainOptions; a tf.data.Dataset of batches.
    train_step: function of images, labels and params; what to fetch in train, the loss second.
    predict: function of images and params; what to fetch in infer.
  """
  training = mode == 'train'
  devices.take()
  params = {**params, **run_config.compute_params(params['precision'], params['data_format'], training)}
  if training:
    environment.use_fast_batch_norm(params)
  tf.logging.set_verbosity(tf.logging.ERROR)
  with tf.Graph().as_default():
    tf.set_random_seed(_SEED)
    data = (inputs.synthetic_dataset(1, params['image_size'], dataset.num_classes, _SEED)
            if mode == 'infer' else train_data(params, dataset, from_records))
    load, compute = session_runs(data, {
        'train': lambda images, labels: train_step(images, labels, params),
        # As in inference.py, the size of the image is not known before it is read.
        'infer': lambda images, _: predict(
            tf.placeholder_with_default(images, [1, None, None, 3]), params),
        'input': None,
    }[mode], params)
  gpus = tf.config.list_physical_devices('GPU')
  batch_shape = tf.data.get_output_shapes(data)[0].as_list()
  return Bench(
      load, compute,
      wait=lambda: None,  # a session's run returns when the device has done
      images=batch_shape[0],
      multiply_adds=0 if mode == 'input' else multiply_adds(batch_shape, params),
      framework=f'TensorFlow {tf.__version__}',
      device=(tf.config.experimental.get_device_details(gpus[0])['device_name'] if gpus
              else f'{environment.cores()} CPU cores'),
      on_gpu=bool(gpus),
      plain_products=functools.partial(plain_products, params['precision']),
      device_peak_mib=lambda: tf.config.experimental.get_memory_info('GPU:0')['peak'] / 2 ** 20)


def train_data(params, dataset, from_records):
  """Returns training batches: `from_records` of --data_dir, or synthetic; a tf.data.Dataset."""
  if params['data_dir'] is None:
    return inputs.synthetic_dataset(params['batch_size'], params['crop_size'], dataset.num_classes, _SEED)
  paths = tf_records.record_files(params['data_dir'], 'train')
  return from_records(paths, dataset, inputs.TrainOptions(
      crop_size=tuple(params['crop_size']), images_per_replica=params['batch_size'], seed=_SEED,
      padding_color=backbones.get(params['base_architecture']).padding_color,
      num_examples=sum(tf_records.count_examples(paths)), threads=params['input_threads']))


def session_runs(data, step, params):
  """Returns (load, compute) of a step on the batches of a tf.data.Dataset; see Bench.

  Args:
    data: tf.data.Dataset of tuples of tensors with static shapes.
    step: function that builds a step on a batch and returns what to fetch; None for no step.
    params: dict with xla.
  """
  iterator = tf.data.make_initializable_iterator(data)
  batch = iterator.get_next()
  load, fetches = batch[0].op, ()
  if step:
    copies = [tf.get_variable(f'batch_{index}', initializer=tf.zeros(tensor.shape, tensor.dtype),
                              trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES])
              for index, tensor in enumerate(batch)]
    load = tf.group(*(copy.assign(tensor) for copy, tensor in zip(copies, batch, strict=True)))
    fetches = step(*(copy.read_value() for copy in copies))
  if params['xla'] and not devices.taken():
    raise UsageError('--xla compiles for GPUs, and TensorFlow sees none here; leave it out')
  session = tf.Session(config=run_config.run_config(xla=params['xla']).session_config)
  session.run([tf.global_variables_initializer(), tf.local_variables_initializer(),
               iterator.initializer])
  session.run(tf.tables_initializer())
  return functools.partial(session.run, load), functools.partial(session.run, fetches)


def multiply_adds(batch_shape, params):
  """Returns the multiply-adds of one forward pass, counted in a graph of its own: int."""
  with tf.Graph().as_default() as graph:
    tf.set_random_seed(_SEED)
    network(tf.zeros(batch_shape), Architecture.from_dict(params), is_training=False)
    return complexity.multiply_adds(graph)


@contextlib.contextmanager
def plain_products(precision, plain):
  """Yields name -> function that runs the product, in a session that is gone afterwards; see Bench."""
  def variable(name, *shape):
    noise = tf.random.normal(shape, stddev=shape[-1]**-0.5)
    return tf.get_variable(name, initializer=tf.cast(noise, run_config.DTYPES[precision]))

  with tf.Graph().as_default():
    tf.set_random_seed(_SEED)
    matrix = product = variable('matrix', plain.size, plain.size)
    images = variable('images', plain.batch, plain.side, plain.side, plain.channels)
    kernel = variable('kernel', 3, 3, plain.channels, plain.channels)
    for _ in range(plain.chain):
      product = tf.matmul(product, matrix)
      images = tf.nn.conv2d(images, kernel, 1, 'SAME')
    with tf.Session(config=run_config.run_config().session_config) as session:
      session.run(tf.global_variables_initializer())
      yield {'matrix_product': functools.partial(session.run, product.op),
             'convolution': functools.partial(session.run, images.op)}
