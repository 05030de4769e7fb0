"""Published checkpoints: converted with every variable, recognised, refused by name, and fine-tuned.

The published models are stood in for by the values of tests/golden/formula.py under the published names;
tests/golden/official_logits.npz holds what the original program makes of them.
"""
import contextlib
import dataclasses
import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import deeplab_model
import train
from commands import model_config
from nets.architecture import Architecture
from tests import tiny_net
from tests.golden import formula
from tests.support import run, write_layout
from tools import checkpoint_conversion, convert_checkpoint
from training import checkpoint_store, checkpoints, optimizers
from training.tf_estimator import ModeKeys
from utils.errors import DataError, UsageError
from utils.settings import Settings

pytestmark = pytest.mark.compat
_GOLDEN = os.path.join(os.path.dirname(__file__), 'golden')


def golden_shapes(model):
  """Returns name -> shape of a published model, under its published names."""
  with open(os.path.join(_GOLDEN, 'official_variables.json')) as file:
    return json.load(file)[model]


def seed_shapes():
  with open(os.path.join(_GOLDEN, 'seed_variables_resnet_v2_50.json')) as file:
    return json.load(file)


def save(path, shapes):
  """Writes a checkpoint of the formula's values, as tf.train.Saver does; returns its prefix."""
  with tf.Graph().as_default(), tf.Session() as session:
    variables = [tf.placeholder(tf.float32, shape) for shape in shapes.values()]
    values = [formula.fill(name, shape) if shape else 0 for name, shape in shapes.items()]
    session.run(tf.raw_ops.SaveV2(prefix=path, tensor_names=list(shapes), tensors=variables,
                                  shape_and_slices=[''] * len(shapes)), dict(zip(variables, values)))
  return path


def logits(model_dir, images, **changes):
  """Returns the logits, float32 [B, H, W, K], of a converted model, as its configuration says."""
  architecture = model_config.read(model_dir).architecture
  with tf.Graph().as_default(), tf.Session() as session:
    output = deeplab_model.network(tf.constant(images), dataclasses.replace(architecture, **changes), False)
    tf.train.Saver().restore(session, checkpoint_store.find(model_dir).prefix)
    return session.run(output)


def largest_difference(actual, expected):
  return np.abs(actual - expected).max() / np.abs(expected).max()


class ConverterTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.model_dir = self.path('model')

  def path(self, *names):
    return os.path.join(self.folder, *names)

  def convert(self, checkpoint, dataset='voc', *argv):
    """Converts to self.model_dir; returns what was printed."""
    return run(convert_checkpoint, '--checkpoint', checkpoint, '--model_dir', self.model_dir,
               '--dataset', dataset, *argv)

  def converted_shapes(self):
    return checkpoints.shapes(checkpoint_store.find(self.model_dir).prefix)

  def architecture(self):
    return model_config.read(self.model_dir)[0]


class PublishedModelsTest(ConverterTest):

  def _check(self, model, expected):
    shapes = golden_shapes(model)
    printed = self.convert(save(self.path('model.ckpt'), shapes))
    self.assertEqual(self.architecture(), expected)
    self.assertIn(f'mapped: {len(shapes)} variables\n', printed)
    self.assertNotIn('left out', printed)
    self.assertNotIn('new', printed)
    converted = {checkpoints.official_name(name): shape for name, shape in self.converted_shapes().items()}
    self.assertEqual(converted, {**shapes, 'global_step': []})
    output = logits(self.model_dir, formula.photo(129, 193, 7)[None], eval_crop_size=None)
    with np.load(os.path.join(_GOLDEN, 'official_logits.npz')) as golden:
      self.assertLess(largest_difference(output[0, ::8, ::8], golden[model]), 1e-4)

  def test_xception_gives_the_published_logits(self):
    self._check('xception_65_os16', Architecture(
        'xception_65', 21, separable_head=True, decoder=True, eval_crop_size=(513, 513)))

  def test_mobilenet_v2_gives_the_published_logits(self):
    self._check('mobilenet_v2_os16', Architecture(
        'mobilenet_v2', 21, atrous_rates=(), separable_head=False, decoder=False, eval_crop_size=(513, 513)))

  def test_mobilenet_v2_with_decoder_gives_the_published_logits(self):
    self._check('mobilenet_v2_decoder_os16', Architecture(
        'mobilenet_v2', 21, atrous_rates=(), separable_head=True, decoder=True, eval_crop_size=(513, 513)))

  def test_resnet_v1_beta_gives_the_published_logits(self):
    self._check('resnet_v1_101_beta_os16', Architecture(
        'resnet_v1_101_beta', 21, separable_head=True, decoder=True, eval_crop_size=(513, 513)))


class OtherSourcesTest(ConverterTest):

  def test_archive_converts_and_says_what_it_left_out(self):
    shapes = golden_shapes('mobilenet_v2_os16')
    slots = {name + '/Momentum': shape for name, shape in list(shapes.items())[:5]}
    prefix = save(self.path('model.ckpt-30000'), {**shapes, **slots, 'global_step': []})
    archive = self.path('published.tar.gz')
    with tarfile.open(archive, 'w:gz') as file:
      for name in ('.index', '.data-00000-of-00001'):
        file.add(prefix + name, 'published/model.ckpt-30000' + name)
      file.add(__file__, 'published/frozen_inference_graph.pb')
    printed = self.convert(archive, 'voc', '--output_stride', '8', '--eval_crop_size', '97', '129')
    self.assertIn('left out, as no part of the model: 5 named Momentum, 1 named global_step\n', printed)
    self.assertIn(f'mapped: {len(shapes)} variables\n', printed)
    self.assertEqual(len(self.converted_shapes()), len(shapes) + 1)
    self.assertEqual((self.architecture().output_stride, self.architecture().eval_crop_size), (8, (97, 129)))
    self._check_padding()

  def _check_padding(self):
    """--eval_crop_size 97 129 is padding with 127.5, which the network's scaling makes 0."""
    photo = formula.photo(65, 97, 3)[None].astype(np.float32)
    padded = np.full((1, 97, 129, 3), 127.5, np.float32)
    padded[:, :65, :97] = photo
    expected = logits(self.model_dir, padded, eval_crop_size=None)[:, :65, :97]
    self.assertLess(largest_difference(logits(self.model_dir, photo), expected), 1e-5)
    unpadded = logits(self.model_dir, photo, eval_crop_size=None)
    self.assertGreater(largest_difference(unpadded, expected), 1e-3)

  def test_imagenet_checkpoint_starts_a_head_anew(self):
    backbone = {n: s for n, s in golden_shapes('mobilenet_v2_os16').items() if n.startswith('MobilenetV2/')}
    averages = {name + '/ExponentialMovingAverage': shape for name, shape in list(backbone.items())[:4]}
    classifier = {'MobilenetV2/Conv_1/weights': [1, 1, 320, 1280], 'MobilenetV2/Logits/biases': [1001]}
    printed = self.convert(save(self.path('m.ckpt'), {**backbone, **averages, **classifier}), 'cityscapes')
    self.assertIn(f'mapped: {len(backbone)} variables\n', printed)
    self.assertIn('left out, as no part of the model: 4 named ExponentialMovingAverage, 1 named biases, '
                  '1 named weights\n', printed)
    self.assertIn('new, to be trained: 17 variables of the head\n', printed)
    self.assertEqual(self.converted_shapes()['upsampling_logits/conv_1x1/weights'], [1, 1, 256, 19])

  def test_checkpoint_of_the_original_scripts_keeps_its_names(self):
    shapes = seed_shapes()
    printed = self.convert(save(self.path('m.ckpt'), shapes))
    self.assertIn(f'mapped: {len(shapes)} variables\n', printed)
    self.assertEqual(self.converted_shapes(), {**shapes, 'global_step': []})
    self.assertEqual(self.architecture(),
                     Architecture('resnet_v2_50', 21, separable_head=False, decoder=True))
    reader = tf.train.load_checkpoint(checkpoint_store.find(self.model_dir).prefix)
    for name in ('resnet_v2_50/conv1/weights', 'decoder/upsampling_logits/conv_1x1/biases'):
      np.testing.assert_array_equal(reader.get_tensor(name), formula.fill(name, shapes[name]))

  def test_their_ancestor_without_a_decoder_is_recognised(self):
    shapes = {n: s for n, s in seed_shapes().items() if not n.startswith('decoder/')}
    shapes.update({'upsampling_logits/conv_1x1/weights': [1, 1, 256, 21],
                   'upsampling_logits/conv_1x1/biases': [21]})
    self.convert(save(self.path('m.ckpt'), shapes))
    self.assertEqual(self.converted_shapes(), {**shapes, 'global_step': []})
    self.assertEqual(self.architecture(),
                     Architecture('resnet_v2_50', 21, separable_head=False, decoder=False))


class RefusalTest(ConverterTest):

  def _refuse(self, shapes, message, error=DataError, dataset='voc'):
    with self.assertRaisesRegex(error, message):
      self.convert(save(self.path('m.ckpt'), shapes), dataset)
    self.assertFalse(os.path.exists(self.model_dir))

  def test_what_cannot_be_built_is_refused_by_name(self):
    for name, message in (
        ('MobilenetV3/Conv/weights', 'its variables lie in the scopes MobilenetV3, and known are'),
        ('MobilenetV2/Conv/act_quant/min', 'a quantized 8-bit model'),
        ('resnet_v1_101/conv1/weights', 'looks like resnet_v1_101_beta, but lacks resnet_v1_101/'),
        ('_CHECKPOINTABLE_OBJECT_GRAPH', 'its variables lie in the scopes _CHECKPOINTABLE_OBJECT_GRAPH'),
        ('xception_71/entry_flow/conv1_1/weights', 'looks like xception_71, but lacks xception_71/')):
      with self.subTest(name=name):
        self._refuse({name: [1]}, message)

  def test_something_else_is_described_by_its_scopes(self):
    self._refuse({'vgg_16/conv1/weights': [3], 'fc8/weights': [2]},
                 'no model that is known here; its variables lie in the scopes fc8, vgg_16, and known are')

  def test_incomplete_model_names_what_it_lacks(self):
    shapes = golden_shapes('mobilenet_v2_os16')
    del shapes['aspp0/BatchNorm/beta']
    self._refuse(shapes, r'looks like mobilenet_v2, but lacks aspp0/BatchNorm/beta \(1 such')

  def test_wrong_class_count_names_both(self):
    self._refuse(golden_shapes('mobilenet_v2_os16'), '21 classes apart, but --dataset cityscapes has 19',
                 UsageError, 'cityscapes')

  def test_folder_that_holds_a_checkpoint_is_kept(self):
    os.mkdir(self.model_dir)
    prefix = save(self.path('model', 'model.ckpt-7'), {'a/weights': [1]})
    with self.assertRaisesRegex(UsageError, 'holds a checkpoint already; give a new folder'):
      self.convert(prefix)

  def test_half_downloaded_archive_is_named(self):
    archive = self.path('half.tar.gz')
    with tarfile.open(archive, 'w:gz') as file:
      for name in ('a', 'b'):
        with open(self.path('model.ckpt.' + name), 'wb') as part:
          part.write(os.urandom(50000))
        file.add(part.name, 'model.ckpt.' + name)
    os.truncate(archive, os.path.getsize(archive) // 2)
    with self.assertRaisesRegex(DataError, 'half.tar.gz cannot be unpacked: .*; download it again'):
      self.convert(archive)

  def test_archive_without_a_checkpoint_is_named(self):
    archive = self.path('graph.tar.gz')
    with tarfile.open(archive, 'w:gz') as file:
      file.add(__file__, 'frozen_inference_graph.pb')
    with self.assertRaisesRegex(DataError, 'holds no checkpoint'):
      self.convert(archive)


class UntrustedArchiveTest(ConverterTest):
  """Nothing in an archive is written outside the folder that it is unpacked to, or fills memory or disk."""

  def archive(self, *members, mode='w:gz'):
    """Writes an archive of (TarInfo, content) and returns its path."""
    path = self.path('untrusted.tar.gz')
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as file:
      for member, content in members:
        member.size = len(content) if content is not None else member.size
        file.addfile(member, content and io.BytesIO(content))
    return path

  def member(self, name, kind=tarfile.REGTYPE, target='', size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member

  def unpacked(self, path):
    scratch = self.path('outer', 'scratch')
    os.makedirs(scratch)
    try:
      return checkpoint_conversion.unpacked(path, scratch)
    finally:
      found = {os.path.relpath(os.path.join(folder, name), self.folder)
               for folder, folders, names in os.walk(self.folder) for name in folders + names}
      self.written = {name.removeprefix('outer/scratch/')
                      for name in found - {'outer', 'outer/scratch', 'untrusted.tar.gz', 'kept'}}

  def test_members_elsewhere_links_and_devices_write_nothing_outside(self):
    with open(self.path('kept'), 'w') as file:
      file.write('kept')
    link = self.member('x.ckpt.link', tarfile.SYMTYPE, self.path('kept'))
    self.unpacked(self.archive(
        (self.member('../../a.ckpt.index'), b'a'), (self.member(self.path('b.ckpt.index')), b'b'),
        (link, None), (self.member('x.ckpt.link/c.ckpt'), b'c'),
        (self.member('d.ckpt', tarfile.LNKTYPE, '../../kept'), None),
        (self.member('e.ckpt', tarfile.CHRTYPE), None), (self.member('f.ckpt', tarfile.FIFOTYPE), None),
        (self.member('g.ckpt', tarfile.DIRTYPE), None), (self.member('readme'), b'r')))
    self.assertEqual(self.written, {'a.ckpt.index', 'b.ckpt.index', 'c.ckpt'})
    with open(self.path('kept')) as file:
      self.assertEqual(file.read(), 'kept')

  def test_sizes_beyond_any_checkpoint_are_refused_before_they_are_written(self):
    path = self.archive((self.member('a.ckpt.index'), b'a'))
    large = self.member('b.ckpt.data', size=1 << 40).tobuf(tarfile.GNU_FORMAT)
    with gzip.open(path, 'wb') as file:
      file.write(large + bytes(1024))
    with self.assertRaisesRegex(DataError, 'unpacks to more than 8 GiB'):
      self.unpacked(path)
    self.assertEqual(self.written, set())

  def test_headers_that_would_fill_the_memory_are_refused(self):
    path = self.archive((self.member('a.ckpt.index'), b'a'))
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE):
      with gzip.open(path, 'wb') as file:
        file.write(self.member('x', kind, size=1 << 33).tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
      with self.subTest(kind=kind), self.assertRaisesRegex(DataError, 'cannot be unpacked: it is damaged'):
        checkpoint_conversion.unpacked(path, self.folder)

  def test_size_below_zero_ends(self):
    header = tarfile.TarInfo('a.ckpt')
    header.pax_headers = {'size': '-1024'}
    path = self.path('untrusted.tar.gz')
    with gzip.open(path, 'wb') as file:
      file.write(header.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    with self.assertRaisesRegex(DataError, 'cannot be unpacked'):
      self.unpacked(path)

  def test_other_compressions_are_taken(self):
    for mode in ('w', 'w:bz2', 'w:gz'):
      self.unpacked(self.archive((self.member('a.ckpt.index'), b'a'), mode=mode))
      self.assertEqual(self.written, {'a.ckpt.index'})
      shutil.rmtree(self.path('outer'))


class FineTuningTest(ConverterTest):

  def test_published_model_with_other_classes_keeps_all_but_the_last_layer(self):
    write_layout(self.path('data'))
    prefix = save(self.path('official.ckpt'), golden_shapes('mobilenet_v2_os16'))
    printed = run(train, '--base_architecture', 'mobilenet_v2', '--pre_trained_model', prefix,
                  '--dataset', self.path('data', 'tiny.json'), '--data_dir', self.path('data'),
                  '--model_dir', self.model_dir, '--batch_size', 2, '--crop_size', 33, 49, '--max_steps', 1,
                  '--initial_learning_rate', 1e-9, '--batch_norm_decay', 0.99)
    self.assertRegex(printed, r'restored: 270 variables')
    self.assertRegex(printed, r'new: 2 variables \(upsampling_logits 2\)')
    self.assertIn('the last layer starts anew: 21 classes became 3', printed)
    reader = tf.train.load_checkpoint(checkpoint_store.find(self.model_dir).prefix)
    np.testing.assert_allclose(reader.get_tensor('aspp/conv_1x1/weights'),
                               formula.fill('aspp0/weights', [1, 1, 320, 256]), atol=1e-5)

  def test_multiplied_gradient_is_a_multiplied_step(self):
    with tf.Graph().as_default(), tf.Session() as session:
      variables = [tf.get_variable(name, [], initializer=tf.zeros_initializer()) for name in 'ab']
      step = optimizers.train_op(
          3 * variables[0] + 5 * variables[1], 0., tf.constant(0.5), variables,
          Settings(weight_decay=0.), {'b': 10.0})
      session.run(tf.global_variables_initializer())
      session.run(step.train_op)
      session.run(step.train_op)
      # 0.5 * 3 * (1 + 1.9) and, ten times as much, 0.5 * 50 * 2.9
      np.testing.assert_allclose(session.run(variables), [-4.35, -72.5], rtol=1e-6)

  def test_multiplier_changes_the_steps_of_the_head_alone(self):
    plain, multiplied = self._first_step(1.0), self._first_step(10.0)
    for name, step in plain.items():
      factor = 1 if name.startswith('lean_net/') else 10
      self.assertLess(largest_difference(multiplied[name], factor * step), 3e-3, name)

  def _first_step(self, multiplier):
    """Returns name -> what the first training step changed."""
    params = {'base_architecture': tiny_net.LEAN, 'num_classes': 3, 'class_names': ('a', 'b', 'c'),
              'palette': ((0, 0, 0), (1, 1, 1), (2, 2, 2)), 'batch_size': 2, 'max_steps': 1,
              'last_layers_lr_multiplier': multiplier, 'freeze_batch_norm': True}
    images = np.stack([formula.photo(33, 49, seed) for seed in (1, 2)])
    labels = (images[..., :1] // 86).astype(np.uint8)
    with (tiny_net.rows(), tf.Graph().as_default(), tf.Session() as session,
          contextlib.redirect_stdout(io.StringIO())):
      tf.set_random_seed(0)
      tf.train.get_or_create_global_step()
      spec = deeplab_model.deeplabv3_plus_model_fn(tf.constant(images), tf.constant(labels), ModeKeys.TRAIN,
                                                   params)
      trained = {v.op.name: v for v in deeplab_model.trained_variables(freeze_batch_norm=True)}
      session.run(tf.global_variables_initializer())
      before = session.run(trained)
      session.run(spec.train_op)
      after = session.run(trained)
    return {name: after[name] - before[name] for name in before}


if __name__ == '__main__':
  unittest.main()
