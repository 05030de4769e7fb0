import io
import os
import tempfile
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image

import create_cityscapes_tf_record
import create_pascal_tf_record
from dataset import descriptors, record_index, tf_records
from tests.own_data import run_script as run

pytestmark = pytest.mark.compat


class ScriptTest(unittest.TestCase):
  """A test with a folder of its own."""

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name
    self.output = self.path('records')
    self.random = np.random.RandomState(0)

  def path(self, *parts):
    return os.path.join(self.folder, *parts)

  def write(self, name, array):
    """Saves uint8 [H, W] or [H, W, 3] as an image of the name's format."""
    os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
    Image.fromarray(array).save(self.path(name))

  def photo(self):
    return self.random.randint(0, 256, (9, 14, 3)).astype(np.uint8)

  def label(self, num_classes):
    return self.random.randint(0, num_classes, (9, 14)).astype(np.uint8)

  def assert_fails(self, result, status, sentence):
    self.assertEqual(result[0], status)
    self.assertRegex(result[2], sentence)


class PascalTest(ScriptTest):

  def setUp(self):
    super().setUp()
    for name in 'abcde':
      self.write(f'JPEGImages/{name}.jpg', self.photo())
      self.write(f'SegmentationClassAug/{name}.png', self.label(21))
    self.write_list('train', 'a\nb\nc\n')
    self.write_list('val', 'd\n\ne 1\n')

  def write_list(self, split, text):
    with open(self.path(f'{split}.txt'), 'w') as file:
      file.write(text)

  def run_script(self, *argv):
    return run(create_pascal_tf_record, '--data_dir', self.folder, '--output_path', self.output,
               '--train_data_list', self.path('train.txt'),
               '--valid_data_list', self.path('val.txt'), *argv)

  def test_both_records_are_written_and_counted(self):
    status, out, _ = self.run_script()
    self.assertEqual(status, 0)
    self.assertEqual(sorted(os.listdir(self.output)),
                     ['train.json', 'train.record', 'val.json', 'val.record'])
    paths = [self.path('records', name) for name in ('train.record', 'val.record')]
    self.assertEqual(tf_records.count_examples(paths), [3, 2])
    self.assertTrue(out.startswith(f'Wrote 3 examples to {paths[0]}\nWrote 2 examples to {paths[1]}\nclass '))

  def test_defaults_are_the_original_scripts(self):
    args = create_pascal_tf_record.make_parser().parse([])
    self.assertEqual(
        (args.data_dir, args.output_path, args.train_data_list, args.valid_data_list,
         args.image_data_dir, args.label_data_dir, args.dataset),
        ('./dataset/VOCdevkit/VOC2012', './dataset', './dataset/train.txt', './dataset/val.txt',
         'JPEGImages', 'SegmentationClassAug', 'voc'))

  def test_image_and_label_folders_can_be_given(self):
    os.rename(self.path('JPEGImages'), self.path('photos'))
    os.rename(self.path('SegmentationClassAug'), self.path('truth'))
    status, _, err = self.run_script('--image_data_dir', 'photos', '--label_data_dir',
                                     self.path('truth'))
    self.assertEqual(status, 0, err)

  def test_dataset_decides_which_values_are_allowed(self):
    self.write('SegmentationClassAug/a.png', np.full((9, 14), 20, np.uint8))
    self.assert_fails(self.run_script('--dataset', 'cityscapes'), 1,
                      r"a\.png' holds the values 20; cityscapes allows 0..18 and 255")
    self.assertEqual(os.listdir(self.output), [])

  def test_missing_input_of_either_split_fails_before_anything_is_written(self):
    def without(name):
      os.rename(self.path(name), self.path('away'))
      result = self.run_script()
      os.rename(self.path('away'), self.path(name))
      return result

    for name, sentence in (('train.txt', r"list '.*train\.txt' cannot be read"),
                           ('JPEGImages/d.jpg', "image 'd' is not in"),
                           ('SegmentationClassAug/e.png', r"label '.*e\.png' of image"),
                           ('JPEGImages', "image folder '.*JPEGImages' does not exist")):
      with self.subTest(name):
        self.assert_fails(without(name), 1, sentence)
        self.assertFalse(os.path.exists(self.output) and os.listdir(self.output))

  def test_empty_list_and_image_of_both_fail_and_repeated_name_is_told(self):
    self.write_list('val', '\n')
    self.assert_fails(self.run_script(), 1, r"list '.*val\.txt' is empty")
    self.write_list('val', 'd\nd\n')
    status, out, _ = self.run_script()
    self.assertEqual(status, 0)
    self.assertRegex(out, r"Note: list '.*val\.txt' holds 1 lines more than once, such as 'd'; each ")
    self.write_list('val', 'd\nb\n')
    self.assert_fails(self.run_script(), 1, "1 images are both in train and in val, such as 'b.jpg'")

  def test_all_bad_pairs_are_told_and_nothing_is_written(self):
    self.write('SegmentationClassAug/e.png', self.photo())
    self.write('SegmentationClassAug/b.png', self.label(21)[:5])
    os.remove(self.path('JPEGImages/a.jpg'))
    self.assert_fails(self.run_script(), 1, r"(?s)image 'a' is not in.*b\.png' is 14x5, its image 14x9.*"
                      r"e\.png' has 3 channel")
    self.assertEqual(os.listdir(self.output), [])

  def test_bad_pairs_can_be_skipped(self):
    self.write('SegmentationClassAug/b.png', self.photo())
    status, out, err = self.run_script('--skip_bad', 1, '--shards', 2)
    self.assertEqual(status, 0, err)
    self.assertRegex(out, r"Left out: label '.*b\.png' has 3 channel")
    paths = tf_records.record_files(self.output, 'train')
    self.assertEqual(tf_records.count_examples(paths), [1, 1])
    self.assertEqual(record_index.read(self.output, 'train')['examples'], 2)

  def test_output_that_is_no_folder_fails(self):
    with open(self.output, 'w'):
      pass
    self.assert_fails(self.run_script(), 1, '--output_path .* cannot be written to')

  def test_unknown_dataset_and_misspelt_flag_are_wrong_usage(self):
    self.assert_fails(self.run_script('--dataset', 'vok'), 2, "--dataset 'vok' is not known")
    self.assert_fails(self.run_script('--data_dri', 'x'), 2, 'unrecognized arguments: --data_dri')


class DerivedListsTest(ScriptTest):
  """VOC as it is unpacked, without lists; the script runs in a folder of its own."""

  VOC = 'dataset/VOCdevkit/VOC2012/'

  def setUp(self):
    super().setUp()
    for name in ('2007_000032', '2007_000033', '2007_000039', '2008_000008'):
      self.write(f'{self.VOC}JPEGImages/{name}.jpg', self.photo())
      self.write(f'{self.VOC}SegmentationClassAug/{name}.png', self.label(21))
    self.write(f'{self.VOC}JPEGImages/2009_000001.jpg', self.photo())  # has no label
    self.write_text(f'{self.VOC}ImageSets/Segmentation/val.txt', '2008_000008\n2007_000033\n')
    self.write_text(f'{self.VOC}SegmentationClassAug/._2007_000032.png', 'left by a Mac')
    self.addCleanup(os.chdir, os.getcwd())
    os.chdir(self.folder)

  def write_text(self, name, text):
    os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
    with open(self.path(name), 'w') as file:
      file.write(text)

  def read_text(self, name):
    with open(self.path(name)) as file:
      return file.read()

  def test_lists_are_derived_and_written_to_the_default_paths(self):
    status, out, err = run(create_pascal_tf_record)
    self.assertEqual(status, 0, err)
    self.assertEqual(self.read_text('dataset/train.txt'), '2007_000032\n2007_000039\n')
    self.assertEqual(self.read_text('dataset/val.txt'), '2008_000008\n2007_000033\n')
    self.assertEqual(tf_records.count_examples(['dataset/train.record', 'dataset/val.record']), [2, 2])
    self.assertIn('Wrote the list of the 2 names to ./dataset/train.txt', out)
    status, again, _ = run(create_pascal_tf_record)
    self.assertEqual((status, 'list' in again), (0, False))

  def test_labels_of_any_spelling_are_for_training(self):
    for old, new in (('2007_000032.png', '2007_000032.PNG'), ('2007_000039.png', '2007_000039.bmp')):
      os.rename(self.path(f'{self.VOC}SegmentationClassAug/{old}'),
                self.path(f'{self.VOC}SegmentationClassAug/{new}'))
    self.assertEqual(run(create_pascal_tf_record)[0], 0)
    self.assertEqual(self.read_text('dataset/train.txt'), '2007_000032\n2007_000039\n')

  def test_lists_that_are_there_are_used(self):
    self.write_text('dataset/val.txt', '2007_000032\n')
    self.assertEqual(run(create_pascal_tf_record)[0], 0)
    self.assertEqual(self.read_text('dataset/train.txt'), '2007_000033\n2007_000039\n2008_000008\n')
    self.assertEqual(self.read_text('dataset/val.txt'), '2007_000032\n')

  def test_colour_labels_of_the_original_set_work(self):
    for name in ('2007_000032', '2008_000008', '2007_000033'):
      label = Image.fromarray(self.label(21))
      label.putpalette(np.uint8(descriptors.voc_palette(256)).tobytes())
      os.makedirs(self.path(f'{self.VOC}SegmentationClass'), exist_ok=True)
      label.save(self.path(f'{self.VOC}SegmentationClass/{name}.png'))
    status, _, err = run(create_pascal_tf_record, '--label_data_dir', 'SegmentationClass')
    self.assertEqual(status, 0, err)
    self.assertEqual(self.read_text('dataset/train.txt'), '2007_000032\n')

  def test_list_that_is_given_must_exist(self):
    for flag in ('--train_data_list', '--valid_data_list'):
      self.assert_fails(run(create_pascal_tf_record, flag, './dataset/train.txt'), 1,
                        r"list '\./dataset/train\.txt' cannot be read")

  def test_failure_leaves_no_lists(self):
    self.write(f'{self.VOC}SegmentationClassAug/2007_000032.png', self.photo())
    self.assert_fails(run(create_pascal_tf_record), 1, 'has 3 channel')
    self.assertEqual(os.listdir(self.path('dataset')), ['VOCdevkit'])

  def test_folder_that_is_not_vocs_needs_lists(self):
    os.remove(self.path(f'{self.VOC}ImageSets/Segmentation/val.txt'))
    self.assert_fails(run(create_pascal_tf_record), 1, 'Segmentation/val.txt.* give --valid_data_list')
    self.write_text('dataset/val.txt', '2007_000032\n2007_000033\n2007_000039\n2008_000008')
    self.assert_fails(run(create_pascal_tf_record), 1, 'no label but those of the validation list')
    self.assert_fails(run(create_pascal_tf_record, '--label_data_dir', 'none'), 1,
                      "label folder '.*none' does not exist")


class CityscapesTest(ScriptTest):

  def setUp(self):
    super().setUp()
    for split, city, index in (('train', 'a', 0), ('train', 'a', 1), ('train', 'ab', 0),
                               ('val', 'a', 2)):
      name = f'{split}/{city}/{city}_{index}'
      self.write(f'leftImg8bit/{name}_leftImg8bit.png', self.photo())
      self.write(f'gtFine/{name}_gtFine_labelTrainIds.png', self.label(19))
      self.write(f'gtFine/{name}_gtFine_labelIds.png', self.label(34))

  def run_script(self, *argv):
    return run(create_cityscapes_tf_record, '--output_dir', self.output, *argv)

  def test_split_is_written_under_its_name(self):
    for split, count in (('train', 3), ('val', 1)):
      path = self.path('records', f'{split}.record')
      status, out, err = self.run_script('--cityscapes_dir', self.folder, '--split_type', split)
      self.assertEqual((status, out.splitlines()[0]), (0, f'Wrote {count} examples to {path}'), err)
      self.assertEqual(tf_records.count_examples([path]), [count])

  def test_pairs_are_made_by_name(self):
    names = {'x_leftImg8bit.png': '/1', 'y_leftImg8bit.png': '/0'}
    for name, folder in names.items():
      self.write(f'images{folder}/{name}', self.photo())
    for name in 'xy':
      self.write(f'labels/{name}_gtFine_labelTrainIds.png', self.label(19))
    pairs, problems = create_cityscapes_tf_record.pair_by_name(
        create_cityscapes_tf_record.find_images(self.path('images', '*', '*.png')),
        create_cityscapes_tf_record.find_labels([self.path('labels', '*.png')]))
    self.assertEqual([pair[:2] for pair in pairs], [
        (self.path('images/1/x_leftImg8bit.png'), self.path('labels/x_gtFine_labelTrainIds.png')),
        (self.path('images/0/y_leftImg8bit.png'), self.path('labels/y_gtFine_labelTrainIds.png'))])
    self.assertEqual(problems, [])

  def stored_labels(self, name='train'):
    """Returns the labels in a record, uint8 [9, 14] each, by the image's file name."""
    labels = {}
    for serialized in tf.io.tf_record_iterator(self.path(f'records/{name}.record')):
      features = tf.train.Example.FromString(serialized).features.feature
      encoded, = features['label/encoded'].bytes_list.value
      file_name, = features['image/filename'].bytes_list.value
      labels[file_name.decode()] = np.asarray(Image.open(io.BytesIO(encoded)))
    return labels

  def test_label_ids_become_train_ids_where_those_are_missing(self):
    ids = np.zeros((9, 14), np.uint8)
    ids[0], ids[1], ids[2], ids[3] = 7, 33, 14, 26  # road, bicycle, guard rail (not scored), car
    expected = np.full((9, 14), 255, np.uint8)
    expected[0], expected[1], expected[3] = 0, 18, 13
    self.write('gtFine/train/a/a_1_gtFine_labelIds.png', ids)
    os.remove(self.path('gtFine/train/a/a_1_gtFine_labelTrainIds.png'))
    status, _, err = self.run_script('--cityscapes_dir', self.folder)
    self.assertEqual(status, 0, err)
    labels = self.stored_labels()
    np.testing.assert_array_equal(labels['a_1_leftImg8bit.png'], expected)
    with Image.open(self.path('gtFine/train/a/a_0_gtFine_labelTrainIds.png')) as train_ids:
      np.testing.assert_array_equal(labels['a_0_leftImg8bit.png'], np.asarray(train_ids))

  def test_extensions_may_be_others_and_in_capitals(self):
    for kind, old, new in (('leftImg8bit', '', '.PNG'), ('gtFine', '_labelTrainIds', '.PNG')):
      name = self.path(f'{kind}/train/a/a_0_{kind}{old}')
      os.rename(name + '.png', name + new)
    os.remove(self.path('gtFine/train/a/a_0_gtFine_labelIds.png'))
    self.write('leftImg8bit/train/a/a_1_leftImg8bit.jpg', self.photo())
    os.remove(self.path('leftImg8bit/train/a/a_1_leftImg8bit.png'))
    open(self.path('leftImg8bit/train/a/a_1_leftImg8bit.txt'), 'w').close()
    status, _, err = self.run_script('--cityscapes_dir', self.folder)
    self.assertEqual((status, list(self.stored_labels())), (
        0, ['a_0_leftImg8bit.PNG', 'a_1_leftImg8bit.jpg', 'ab_0_leftImg8bit.png']), err)

  def test_coarse_labels_go_with_the_extra_images(self):
    self.write('leftImg8bit/train_extra/c/c_0_leftImg8bit.png', self.photo())
    self.write('gtCoarse/train_extra/c/c_0_gtCoarse_labelIds.png', self.label(34))
    self.write('gtCoarse/train/a/a_0_gtCoarse_labelIds.png', self.label(34))
    status, _, err = self.run_script('--cityscapes_dir', self.folder, '--coarse')
    self.assertEqual((status, list(self.stored_labels('train_extra'))), (0, ['c_0_leftImg8bit.png']), err)
    status, _, err = self.run_script('--cityscapes_dir', self.folder, '--coarse', '--output_name', 'coarse')
    self.assertEqual((status, len(self.stored_labels('coarse'))), (0, 1), err)
    # Only one of the three images has a coarse label here.
    self.assert_fails(self.run_script('--cityscapes_dir', self.folder, '--coarse', '--split_type', 'train'),
                      1, 'a_1_leftImg8bit.png. has no partner')
    self.assert_fails(self.run_script('--cityscapes_dir', self.folder, '--split_type', 'train_extra'), 2,
                      'add --coarse')
    self.assert_fails(self.run_script('--output_name', '../x'), 2, "'../x' is no name")

  def test_patterns_stand_in_for_the_folder(self):
    status, _, err = self.run_script(
        '--input_pattern', self.path('leftImg8bit/**/*.png'),
        '--annot_pattern', self.path('gtFine/**/*TrainIds.png'))
    self.assertEqual(status, 0, err)
    self.assertEqual(tf_records.count_examples([self.path('records/train.record')]), [4])

  def test_patterns_go_together_and_without_the_folder(self):
    self.assert_fails(self.run_script('--input_pattern', 'x'), 2, 'go together')
    self.assert_fails(self.run_script('--annot_pattern', 'x'), 2, 'go together')
    self.assert_fails(self.run_script('--annot_pattern', 'x', '--input_pattern', 'y',
                                      '--cityscapes_dir', 'z'), 2, 'exclude each other')

  def test_files_without_partner_fail_by_name(self):
    os.remove(self.path('gtFine/train/a/a_1_gtFine_labelTrainIds.png'))
    os.remove(self.path('gtFine/train/a/a_1_gtFine_labelIds.png'))
    os.remove(self.path('leftImg8bit/train/a/a_0_leftImg8bit.png'))
    result = self.run_script('--cityscapes_dir', self.folder)
    self.assert_fails(result, 1, r"(?s)a_0_gtFine_labelTrainIds\.png' has no partner: there is no image "
                      r"a_0_\*.*a_1_leftImg8bit\.png' has no partner: there is no label a_1_\*")
    self.assertEqual(os.listdir(self.output), [])
    status, _, err = self.run_script('--cityscapes_dir', self.folder, '--skip_bad', 2)
    self.assertEqual((status, list(self.stored_labels())), (0, ['ab_0_leftImg8bit.png']), err)

  def test_split_without_images_fails(self):
    self.assert_fails(self.run_script('--cityscapes_dir', self.folder, '--split_type', 'test'), 1,
                      'no image matches .*leftImg8bit/test')

  def test_pattern_that_is_too_wide_fails(self):
    self.write('gtFine/train/a/a_0_gtFine_color.png', self.photo())
    self.assert_fails(
        self.run_script('--input_pattern', self.path('leftImg8bit/*/*/*.png'),
                        '--annot_pattern', self.path('gtFine/*/*/*.png')), 1,
        r'color\.png.* is not called \*_gtFine_labelTrainIds or \*')
    self.write('leftImg8bit/train/b/a_0_leftImg8bit.png', self.photo())
    self.assert_fails(self.run_script('--cityscapes_dir', self.folder), 1, 'have one name')

  def test_value_outside_the_train_ids_fails(self):
    self.write('gtFine/val/a/a_2_gtFine_labelTrainIds.png', np.full((9, 14), 33, np.uint8))
    self.assert_fails(self.run_script('--cityscapes_dir', self.folder, '--split_type', 'val'), 1,
                      'holds the values 33; cityscapes allows 0..18 and 255')
    self.assertEqual(os.listdir(self.output), [])


if __name__ == '__main__':
  unittest.main()
