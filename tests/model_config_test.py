"""model_config.json, flags and the files written: what is stored, what wins, what is refused."""
import contextlib
import io
import json
import os
import tempfile
import unittest

from commands import flags, model_config
from dataset import descriptors
from nets.architecture import Architecture
from training import history
from utils import files
from utils.errors import DataError, UsageError

TWO = descriptors.from_json(
    {'name': 'two', 'class_names': ['a', 'b'], 'palette': [[1, 2, 3], [4, 5, 6]]}, 'test')


class FolderTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name


class ModelConfigTest(FolderTest):

  def _parse(self, *argv):
    parser = flags.Parser('test')
    parser.shared(*flags.MODEL_FLAGS)
    return parser.parse(['--model_dir', self.folder, *argv])

  def _resolve(self, *argv):
    args = self._parse(*argv)
    return model_config.resolve(args, model_config.read(self.folder))

  def test_without_a_file_the_flags_count(self):
    architecture, dataset = self._resolve('--base_architecture', 'resnet_v2_50', '--dataset', 'cityscapes')
    self.assertEqual(architecture, Architecture('resnet_v2_50', 19, 16))
    self.assertEqual(dataset.name, 'cityscapes')

  def test_stored_model_needs_no_flags(self):
    stored = Architecture('resnet_v2_50', 2, 8)
    model_config.write(self.folder, stored, TWO, {'seed': 3})
    self.assertEqual(self._resolve(), (stored, TWO))
    with open(os.path.join(self.folder, 'model_config.json'), 'a') as file:
      file.write(' ' * files._MAX_JSON)  # a file of our own has no limit
    self.assertEqual(self._resolve(), (stored, TWO))

  def test_explicit_output_stride_wins_and_is_printed(self):
    model_config.write(self.folder, Architecture('resnet_v2_50', 2, 8), TWO, {})
    with contextlib.redirect_stdout(io.StringIO()) as output:
      architecture, _ = self._resolve('--output_stride', '16')
    self.assertEqual(architecture.output_stride, 16)
    self.assertEqual(output.getvalue(), 'output_stride: 16 (the model was trained with 8)\n')

  def test_contradiction_is_an_error_even_at_the_flags_default(self):
    model_config.write(self.folder, Architecture('resnet_v2_50', 2, 16), TWO, {})
    with self.assertRaisesRegex(UsageError, 'base_architecture is resnet_v2_101, but .* is resnet_v2_50'):
      self._resolve('--base_architecture', 'resnet_v2_101')

  def test_flags_of_a_decoder_that_there_is_not_are_refused(self):
    self._resolve('--decoder_filters', '9')
    self._resolve('--decoder', 'off', '--decoder_filters', '256')
    for argv in (('--decoder', 'off'), ('--base_architecture', 'mobilenet_v2')):
      with self.assertRaisesRegex(UsageError, '^--decoder_filters --decoder_output_stride would change '
                                              'nothing without a decoder .--decoder off.; leave it out$'):
        self._resolve(*argv, '--decoder_output_stride', '8', '4', '--decoder_filters', '9')
    self._resolve('--base_architecture', 'mobilenet_v2', '--decoder', 'on', '--decoder_filters', '9')

  def test_mirrored_views_of_a_model_that_was_not_trained_so_are_warned_of(self):
    parser = flags.Parser('test')
    parser.shared(*flags.MODEL_FLAGS, *flags.VIEW_FLAGS)

    def printed(trained, *argv):
      past = [history.Entry(step=step, images_per_step=1, num_train=5, train_records=None,
                            flags={'flip': flip}) for step, flip in ((0, not trained), (3, trained))]
      model_config.write(self.folder, Architecture('resnet_v2_50', 2, 8), TWO, {}, past)
      with contextlib.redirect_stdout(io.StringIO()) as output:
        model_config.check_views(parser.parse([*argv]), model_config.read(self.folder))
      return output.getvalue()

    self.assertEqual(printed(False), '')
    self.assertEqual(printed(True, '--flip'), '')
    self.assertRegex(printed(False, '--flip'), '^Warning: --flip averages .* was trained with --flip off')
    for stored in (None, model_config.Stored(None, None, [])):  # such as a converted checkpoint
      model_config.check_views(parser.parse(['--flip']), stored)
    with self.assertRaisesRegex(UsageError, '--overlap would change nothing without --sliding_window'):
      model_config.check_views(parser.parse(['--overlap', '0.5']), None)
    model_config.check_views(parser.parse(['--overlap', '0.33']), None)

  def test_damaged_file_is_named(self):
    with open(os.path.join(self.folder, 'model_config.json'), 'w') as file:
      json.dump({'format': 1}, file)
    with self.assertRaisesRegex(DataError, 'model_config.json cannot be used'):
      self._resolve()


  def test_values_that_no_model_has_are_named(self):
    model_config.write(self.folder, Architecture('resnet_v2_50', 2, 8), TWO, {})
    path = os.path.join(self.folder, 'model_config.json')
    with open(path) as file:
      config = json.load(file)
    for name, values in (('base_architecture', (None, 5, ['a'])), ('num_classes', (3, '2', True, 1 << 40)),
                         ('output_stride', (0, -8, 8.5, None)), ('decoder_filters', (1 << 40, 0, 'x')),
                         ('atrous_rates', ([1], [1, 2, 'x'], 3, [1, 2, -3])), ('decoder', (1, 'on', [])),
                         ('decoder_output_stride', ([], [3], 4, None)), ('eval_crop_size', ([5], [9, 1e9]))):
      for value in values:
        with self.subTest(name=name, value=value):
          with open(path, 'w') as file:
            json.dump({**config, 'architecture': {**config['architecture'], name: value}}, file)
          with self.assertRaisesRegex(DataError, f'model_config.json cannot be used: {name} '):
            self._resolve()

  def test_file_of_another_kind_is_named(self):
    path = os.path.join(self.folder, 'model_config.json')
    for text, sentence in (('[' * 100000, 'nested too deeply'), ('[]', 'cannot be used'), ('\0', 'byte 0'),
                           ('{"architecture": {"base_architecture": "x", "num_classes": 2}}', 'must be')):
      with open(path, 'w') as file:
        file.write(text)
      with self.assertRaisesRegex(DataError, f'model_config.json.*{sentence}'):
        self._resolve()
    os.remove(path)
    os.mkfifo(path)
    with self.assertRaisesRegex(DataError, 'it is a device or pipe'):
      self._resolve()


class ParserTest(unittest.TestCase):

  def test_numbers_out_of_range_are_refused(self):
    for type_, text in ((flags.positive_int, '0'), (flags.non_negative_int, '-1'), (flags.fraction, '1'),
                        (flags.positive_float, '0'), (flags.positive_float, 'nan'),
                        (flags.non_negative_float, '-0.5')):
      parser = flags.Parser('test')
      parser.flag('number', 5, 'a number', type=type_)
      with contextlib.redirect_stderr(io.StringIO()) as error, self.assertRaises(SystemExit) as status:
        parser.parse(['--number', text])
      self.assertEqual(status.exception.code, 2)
      self.assertIn('is not allowed; give a', error.getvalue())

  def test_explicit_flags_are_told_from_defaults(self):
    parser = flags.Parser('test')
    parser.shared('output_stride', 'model_dir', 'debug')
    args = parser.parse(['--output_stride', '16'])
    self.assertEqual((args.output_stride, args.model_dir, args.debug), (16, './model', False))
    self.assertEqual(args.explicit, {'output_stride'})


class FilesTest(FolderTest):

  def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(self):
    path = os.path.join(self.folder, 'a.txt')
    with open(path, 'w') as file:
      file.write('old')
    with self.assertRaises(ZeroDivisionError), files.replacing(path) as temporary:
      with open(temporary, 'w') as file:
        file.write('half')
      1 / 0  # noqa: B018
    self.assertEqual(os.listdir(self.folder), ['a.txt'])
    with open(path) as file:
      self.assertEqual(file.read(), 'old')

  def test_file_in_place_of_a_folder_is_named(self):
    path = os.path.join(self.folder, 'a')
    open(path, 'w').close()
    with self.assertRaisesRegex(DataError, '--out_dir .*a/b cannot be written to'):
      files.make_folder(path + '/b', '--out_dir')


if __name__ == '__main__':
  unittest.main()
