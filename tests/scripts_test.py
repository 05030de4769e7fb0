"""The scripts as a user runs them: data, training, evaluation, inference, export, and every wrong turn."""
import glob
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from PIL import Image
from tensorflow.python.framework import config

import create_pascal_tf_record
import export_inference_graph
import inference
from tests.support import CLASSES, ROOT, SCRIPTS, ScriptsTest, run
from tests.tiny_net import LEAN, TINY
from tools import recalibrate, view_dataset
from utils.errors import DataError, UsageError

pytestmark = pytest.mark.compat
TOOLS = ('tools/benchmark', 'tools/convert_checkpoint', 'tools/create_tf_record', 'benchmarks/gpu_graph',
         'tools/plot_scalars', 'tools/recalibrate', 'tools/study', 'tools/view_dataset',
         'dataset/make_sample_data')


class MainJobTest(ScriptsTest):

  def test_training_prints_steps_scores_and_a_last_line(self):
    self.assertRegex(self.printed, r'tiny: 3 classes, 5 training and 2 validation examples; seed 0')
    self.assertRegex(self.printed, r'step 1/5  loss \d+\.\d+  cross_entropy')
    self.assertEqual(re.findall(r'^step (\d), validation', self.printed, re.M), ['2', '5'])
    self.assertRegex(self.printed, r'class 2: [01]\.\d{4}  right')
    self.assertRegex(self.printed, r'Done: .*model is at step 5, mean Intersection over Union [01]\.\d{4}\n$')

  def test_training_leaves_its_configuration(self):
    with open(os.path.join(self.model, 'model_config.json')) as file:
      config = json.load(file)
    stored = config['architecture']
    self.assertEqual((stored['base_architecture'], stored['num_classes'], stored['output_stride']),
                     (TINY, 3, 16))
    self.assertEqual(config['dataset']['class_names'], CLASSES['class_names'])
    self.assertEqual(config['flags']['crop_size'], [33, 49])
    self.assertEqual(config['flags']['seed'], 0)
    self.assertEqual(config['versions']['tensorflow'].split('.')[0], '2')

  def test_event_files_hold_the_original_tags_and_pictures(self):
    tags, picture = set(), None
    for path in glob.glob(f'{self.model}/**/events*', recursive=True):
      for event in tf.train.summary_iterator(path):
        for value in event.summary.value:
          tags.add(value.tag)
          picture = value.image if value.tag == 'images/image/0' else picture
    self.assertLessEqual({'cross_entropy', 'learning_rate', 'train_px_accuracy', 'train_mean_iou',
                          'train_iou_class0', 'train_iou_class2', 'mean_iou', 'px_accuracy',
                          'iou/left {%s}/Straße 猫', 'images/image/0', 'images/image/1'}, tags)
    self.assertEqual((picture.height, picture.width), (33, 3 * 49))

  def test_rounds_share_one_graph(self):
    path, = glob.glob(f'{self.model}/events*')
    self.assertEqual(sum(bool(event.graph_def) for event in tf.train.summary_iterator(path)), 1)

  def test_evaluation_needs_no_flags_and_leaves_the_model_alone(self):
    before = {*os.listdir(self.model), 'evaluate'}  # what TensorBoard gets
    printed = self.evaluate()
    self.assertEqual(set(os.listdir(self.model)), before)
    values = [float(v) for v in re.findall(r'^    class \d: (\d\.\d{4})', printed, re.M)]
    mean = float(re.search(r'^mean Intersection over Union: (\d\.\d{4})$', printed, re.M).group(1))
    self.assertEqual(len(values), 3)
    # Training scored the same two images from the record.
    self.assertIn(f'{mean:.4f}', self.printed.splitlines()[-1])

  def test_other_output_stride_is_allowed_and_said(self):
    printed = self.evaluate('--output_stride', 8)
    self.assertIn('output_stride: 8 (the model was trained with 16)', printed)
    self.assertIn('mean Intersection over Union', printed)

  def test_contradicting_flags_name_both_values(self):
    with self.assertRaisesRegex(UsageError, 'base_architecture is lean_net.*is tiny_net'):
      self.evaluate('--base_architecture', LEAN)
    with self.assertRaisesRegex(UsageError, 'dataset is voc with 21 classes.*tiny with 3 classes'):
      self.evaluate('--dataset', 'voc')

  def test_masks_are_palette_pngs_of_the_sizes_that_viewers_show(self):
    photos = self.temporary('photos')
    os.makedirs(photos)
    sizes = {'grey.png': (37, 51), 'wide.bmp': (33, 90), 'tall.jpg': (70, 35)}
    for name, (height, width) in sizes.items():
      array = np.random.RandomState(1).randint(0, 255, (height, width, 3)).astype(np.uint8)
      Image.fromarray(array[:, :, 0] if name.startswith('grey') else array).save(os.path.join(photos, name))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.new('RGB', (61, 40)).save(os.path.join(photos, 'rotated.jpg'), exif=rotated)
    sizes['rotated.jpg'] = (61, 40)
    output = self.temporary('masks')
    run(inference, '--model_dir', self.model, '--data_dir', photos, '--infer_data_list',
        self.write_list(*sizes), '--output_dir', output, '--overlay')
    self.assertEqual(len(os.listdir(output)), 2 * len(sizes))
    for name, (height, width) in sizes.items():
      mask = Image.open(os.path.join(output, name.split('.')[0] + '_mask.png'))
      self.assertEqual((mask.mode, mask.size), ('P', (width, height)))
      self.assertLess(np.asarray(mask).max(), 3)
      self.assertEqual(mask.getpalette()[:9], [10, 20, 30, 200, 0, 0, 0, 0, 200])
      overlay = Image.open(os.path.join(output, name.split('.')[0] + '_overlay.png'))
      self.assertEqual((overlay.mode, overlay.size), ('RGB', (width, height)))

  def test_bad_images_are_told_in_the_end_and_folders_are_kept(self):
    photos, output, listed = (self.temporary(name) for name in ('photos', 'masks', 'listed'))
    os.makedirs(f'{photos}/x')
    names = ['a0.png', 'a1.jpg', *(f'b{number}.png' for number in range(12)), 'x/a0.png', 'z.png']
    for number, name in enumerate(names):
      Image.new('RGB', (40 + number, 35)).save(f'{photos}/{name}')
    for name in ('a0.png', 'b5.png', 'z.png'):  # the first, one between and the last
      with open(f'{photos}/{name}', 'r+b') as file:
        file.truncate(50)
    good = [name for name in names if name not in ('a0.png', 'b5.png', 'z.png')]
    bad = ".*a0.png' does not decode.*\n.*b5.png' .*\n.*z.png' "
    for folder, sentences, *flags in (
        (output, f'^3 of 16 images could not be predicted:\n{bad}', '--input', photos, '--overlay'),
        (listed, f'^4 of 17 images could not be predicted:\nthere is no image .*no.png; .*\n{bad}',
         '--data_dir', photos, '--infer_data_list', self.write_list('no.png', *names))):
      with self.assertRaisesRegex(DataError, sentences):
        run(inference, '--model_dir', self.model, '--output_dir', folder, *flags)
      masks = glob.glob(f'{folder}/**/*_mask.png', recursive=True)
      self.assertEqual(sorted(os.path.relpath(path, folder) for path in masks),
                       sorted(f'{os.path.splitext(name)[0]}_mask.png' for name in good))
      for name in good:
        with Image.open(f'{folder}/{os.path.splitext(name)[0]}_mask.png') as mask:
          self.assertEqual(mask.width, 40 + names.index(name), name)
    self.assertEqual(len(glob.glob(f'{output}/**/*_overlay.png', recursive=True)), len(good))

  def test_exported_model_predicts_the_masks(self):
    exports, output = self.temporary('exports'), self.temporary('masks')
    printed = run(export_inference_graph, '--model_dir', self.model, '--export_dir', exports)
    path = glob.glob(f'{exports}/*/')[0]
    self.assertIn('checked against it', printed)
    run(inference, '--model_dir', self.model, '--data_dir', f'{self.data}/JPEGImages',
        '--infer_data_list', self.write_list('c.jpg'), '--output_dir', output)
    photo = np.asarray(Image.open(f'{self.data}/JPEGImages/c.jpg'))
    with tf.Graph().as_default(), tf.Session() as session:
      signatures = tf.saved_model.load(session, ['serve'], path).signature_def
      self.assertLessEqual({'serving_default', 'preds'}, set(signatures))
      signature = signatures['serving_default']
      self.assertEqual(signature.inputs['image'].name, 'image_tensor:0')
      self.assertEqual(signature.outputs['probabilities'].name, 'softmax_tensor:0')
      self.assertNotIn('MatMul', {op.type for op in session.graph.get_operations()})  # only convolutions
      classes, probabilities = session.run(
          [signature.outputs['classes'].name, 'softmax_tensor:0'], {'image_tensor:0': [photo, photo]})
    self.assertEqual((classes.dtype, classes.shape), (np.int32, (2, *photo.shape[:2], 1)))
    self.assertEqual(probabilities.shape, (2, *photo.shape[:2], 3))
    np.testing.assert_array_equal(classes[1, :, :, 0], np.asarray(Image.open(f'{output}/c_mask.png')))
    loaded = tf.compat.v2.saved_model.load(path).signatures['serving_default']  # as the README does
    found = loaded(image=tf.constant(photo[None], tf.float32))
    np.testing.assert_array_equal(found['classes'].numpy(), classes[:1])

  def test_scripts_work_where_whatever_is_random_has_to_have_a_seed(self):
    config.enable_op_determinism()  # as TF_DETERMINISTIC_OPS=1 does
    self.addCleanup(config.disable_op_determinism)
    photos = '--data_dir', f'{self.data}/JPEGImages', '--infer_data_list', self.write_list('c.jpg')
    crops = '--data_dir', self.data, '--crop_size', 33, 33
    self.evaluate()
    self.evaluate('--flip')
    for script, output, argv in (
        (inference, '--output_dir', ('--model_dir', self.model, *photos)),
        (export_inference_graph, '--export_dir', (
            '--model_dir', self.model, '--format', 'tflite', '--size', 33, 33)),
        (recalibrate, '--output_dir', ('--model_dir', self.model, *crops, '--batches', 1, '--batch_size', 2)),
        (view_dataset, '--output_dir', ('--dataset', f'{self.data}/tiny.json', *crops, '--augmented'))):
      run(script, *argv, output, self.temporary(script.__name__))


class ResumeTest(ScriptsTest):

  def test_whoever_the_umask_lets_may_go_on(self):
    for folder in ('.', 'best', 'eval'):  # as support trains it
      self.assertEqual(os.stat(f'{self.model}/{folder}').st_mode & 0o777, 0o775, folder)

  def test_restart_trains_what_is_left_and_then_nothing(self):
    printed = self.train('--train_epochs', 3)  # 3 * 5 / 2 = 7
    self.assertEqual(re.findall(r'^step (\d), validation', printed, re.M), ['7'])
    printed = self.train('--train_epochs', 3)
    self.assertRegex(printed, 'Nothing left to train: .* step 7; raise --train_epochs 3, or give '
                              '--initial_global_step 7')
    printed = self.train('--train_epochs', 1, '--initial_global_step', 7)
    self.assertEqual(re.findall(r'^step (\d), validation', printed, re.M), ['9'])
    # A frozen run writes no momentum for gamma and beta; an unfrozen one goes on from it, and back.
    copy = self.temporary('model')
    slow = ('--initial_learning_rate', 1e-9)  # new weights with frozen averages are not fit to be trained
    frozen = ('--freeze_batch_norm', '--batch_norm_decay', 0.9997)  # the backbone's own
    self.train('--max_steps', 1, *frozen, *slow, model_dir=copy)
    printed = self.train('--max_steps', 2, *slow, model_dir=copy)
    self.assertRegex(printed, r'\d+ variables \(optimizer slots \d+\) are not in it and start anew')
    self.train('--max_steps', 3, *frozen, *slow, model_dir=copy)

  def test_model_folder_of_the_original_scripts_works_without_configuration(self):
    model = self.temporary('model')
    shutil.copytree(self.model, model)
    os.remove(f'{model}/model_config.json')
    newest = tf.train.latest_checkpoint(model)
    tf.train.update_checkpoint_state(model, '/elsewhere/' + os.path.basename(newest))
    flags = ('--base_architecture', TINY, '--dataset', f'{self.data}/tiny.json')
    printed = self.evaluate(*flags, model_dir=model)
    self.assertIn(f'Evaluating {model}/{os.path.basename(newest)} on', printed)
    self.assertIn('mean Intersection over Union', printed)
    step = int(newest.split('-')[-1])
    slot = 'aspp/conv_1x1/weights/Momentum'
    before = tf.train.load_checkpoint(newest).get_tensor(slot)
    printed = self.train('--max_steps', step + 1, '--initial_learning_rate', 1e-30, model_dir=model)
    after = tf.train.load_checkpoint(model).get_tensor(slot)
    # One step of momentum SGD: slot = 0.9 * slot + gradient, and the gradient is not 0.
    self.assertTrue(np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.2)
    self.assertEqual(tf.train.load_checkpoint(model).get_tensor('global_step'), step + 1)

  def test_any_precision_and_memory_saving_resumes_from_any_other(self):
    model = self.temporary('model')
    shutil.copytree(self.model, model)
    # Steps 6 and 7 of 4 images each: two batches of 2.
    printed = self.train('--train_epochs', 99, '--max_steps', 7, '--precision', 'bf16', '--recompute',
                         '--accumulate_steps', 2, '--class_weights', 'median_frequency',
                         '--learning_rate_policy', 'piecewise', '--cache', model_dir=model)
    self.assertRegex(printed, r'learning_rate 0.0031[23]  ')  # 0.1 * 4 / 128
    self.assertRegex(printed, r'step 7, validation')
    self.assertNotIn('accumulated', str(tf.train.list_variables(model)))
    self.assertIn('mean Intersection over Union', self.evaluate('--precision', 'bf16', model_dir=model))
    printed = self.train('--train_epochs', 99, '--max_steps', 8, '--precision', 'fp16', model_dir=model)
    self.assertRegex(printed, r'skipped_steps [01]\b[^.]')  # its first scale, 2^15, may be too large
    self.assertRegex(printed, r'step 8, validation')
    self.assertIn('mean Intersection over Union', self.evaluate('--precision', 'fp16', model_dir=model))
    printed = self.train('--train_epochs', 99, '--max_steps', 9, model_dir=model)
    self.assertNotIn('skipped_steps', printed)
    self.assertRegex(printed, r'step 9, validation')

  def test_trained_model_starts_one_with_other_classes(self):
    descriptor = os.path.join(self.folder, 'four.json')
    with open(descriptor, 'w') as file:
      json.dump({'name': 'four', 'class_names': ['a', 'b', 'c', 'd']}, file)
    records = self.temporary('records')
    run(create_pascal_tf_record, '--dataset', descriptor, '--data_dir', self.data, '--output_path', records,
        '--train_data_list', f'{self.data}/train.txt', '--valid_data_list', f'{self.data}/val.txt')
    model = self.temporary('model')
    printed = self.train('--dataset', descriptor, '--data_dir', records, '--pre_trained_model', self.model,
                         '--max_steps', 1, model_dir=model)
    self.assertRegex(printed, r'new: 2 variables \(decoder 2\)')


class BadInputTest(ScriptsTest):

  def check(self, error, message, call, *argv, **kwargs):
    before = sorted(glob.glob(f'{self.folder}/**', recursive=True))
    with self.assertRaisesRegex(error, message) as raised:
      call(*argv, **kwargs)
    self.assertNotIn('\n', str(raised.exception))
    return before

  def check_writes_nothing(self, *args, **kwargs):
    before = self.check(*args, **kwargs)
    self.assertEqual(sorted(glob.glob(f'{self.folder}/**', recursive=True)), before)

  def test_wrong_flags_and_files_are_named_before_anything_is_written(self):
    model, data = f'{self.folder}/new_model', self.data
    for error, message, call, argv in (
        (UsageError, '--num_gpus is 2, but TensorFlow sees 0', self.train, ('--num_gpus', 2)),
        (UsageError, '--batch_size auto .* sees none; give a number', self.train, ('--batch_size', 'auto')),
        (UsageError, '--data_format channels_first needs a GPU', self.train,
         ('--data_format', 'channels_first')),
        (UsageError, '--crop_size 15 97 is smaller than --output_stride 16', self.train,
         ('--crop_size', 15, 97)),
        (DataError, 'fewer than --batch_size 6', self.train, ('--batch_size', 6)),
        (DataError, "'/nowhere", self.train, ('--data_dir', '/nowhere')),
        (DataError, '--pre_trained_model: there is no checkpoint /nowhere.*none to train from scratch',
         self.train, ('--pre_trained_model', '/nowhere')),
        (UsageError, '--initial_global_step 3 lies ahead', self.train, ('--initial_global_step', 3)),
        (DataError, 'is not a folder', self.evaluate, ()),
    ):
      with self.subTest(message):
        self.check_writes_nothing(error, message, call, *argv, model_dir=model)
    for error, message, argv in (
        (DataError, "'/nowhere.txt' cannot be read", ('--infer_data_list', '/nowhere.txt')),
        (DataError, 'is empty', ('--infer_data_list', self.write_list(''))),
        (DataError, 'there is no image .*zzz.jpg', ('--infer_data_list', self.write_list('zzz.jpg'))),
    ):
      with self.subTest(message):
        self.check_writes_nothing(error, message, run, inference, '--model_dir', self.model, '--data_dir',
                                  f'{data}/JPEGImages', '--output_dir', f'{self.folder}/out', *argv)

  def test_names_that_share_an_output_are_an_error_before_inference(self):
    photos = self.temporary('photos')
    os.makedirs(photos)
    Image.new('RGB', (40, 40)).save(photos + '/a.png')
    Image.new('RGB', (40, 40)).save(photos + '/a.jpg')
    self.check_writes_nothing(
        DataError, 'a.png and .*a.jpg would both be written to .*out/a_mask.png', run, inference,
        '--model_dir', self.model, '--data_dir', photos, '--output_dir', f'{self.folder}/out',
        '--infer_data_list', self.write_list('a.png', 'a.jpg'))

  def test_flags_of_inference_that_exclude_each_other(self):
    for message, *flags in (('--input and --data_dir', '--input', self.data, '--data_dir', self.data),
                            ('--input and --infer_data_list', '--input', self.data, '--infer_data_list', 'x'),
                            ('--alpha would change nothing without --overlay',
                             '--input', self.data, '--alpha', .3)):
      self.check_writes_nothing(UsageError, message, run, inference, '--model_dir', self.model, *flags)

  def test_model_folder_without_checkpoint_is_named(self):
    empty = self.temporary('empty')
    os.makedirs(empty)
    self.check_writes_nothing(DataError, 'holds no checkpoint', self.evaluate, model_dir=empty)

  def test_checkpoint_of_another_model_names_both(self):
    model = self.temporary('model')
    shutil.copytree(self.model, model)
    os.remove(f'{model}/model_config.json')
    self.check(DataError, 'holds tiny_net with 3 classes, but the flags ask for lean_net with 21',
               self.evaluate, '--base_architecture', LEAN, model_dir=model)
    self.check(DataError, '--pre_trained_model .* holds tiny_net .*--base_architecture is lean_net',
               self.train, '--pre_trained_model', model, '--base_architecture', LEAN,
               model_dir=self.temporary('other'))

  def test_clean_model_dir_refuses_a_folder_of_other_things(self):
    folder = self.temporary('thesis')
    os.makedirs(folder)
    open(f'{folder}/thesis.tex', 'w').close()
    self.check_writes_nothing(UsageError, 'holds neither a checkpoint nor event files', self.train,
                              '--clean_model_dir', model_dir=folder)

  def _record_with(self, position, **features):
    """Returns a data folder whose train.record has the features of one example replaced."""
    folder = self.temporary('records')
    os.makedirs(folder, exist_ok=True)
    shutil.copy(f'{self.data}/val.record', folder)
    with tf.io.TFRecordWriter(f'{folder}/train.record') as writer:
      for index, serialized in enumerate(tf.data.TFRecordDataset(f'{self.data}/train.record')):
        example = tf.train.Example.FromString(serialized.numpy())
        for name, value in features.items() if index == position else ():
          example.features.feature[name.replace('_', '/')].bytes_list.value[0] = value
        writer.write(example.SerializeToString())
    return folder

  def test_label_out_of_range_stops_training_with_file_and_position(self):
    label = io.BytesIO()
    array = np.zeros((45, 61), np.uint8)
    array[7, 9] = 19
    Image.fromarray(array).save(label, 'PNG')
    folder = self._record_with(2, label_encoded=label.getvalue())
    self.check(DataError, r"example 2 .*train.record' holds the value 19; tiny allows 0..2 and 255",
               self.train, '--data_dir', folder, model_dir=self.temporary('model'))

  def test_corrupt_image_stops_training_with_file_and_position(self):
    folder = self._record_with(3, image_encoded=b'\xff\xd8\xff\xe0 no JPEG at all')
    self.check(DataError, r'3.*train.record', self.train, '--data_dir', folder,
               model_dir=self.temporary('model'))

  def test_truncated_record_is_named(self):
    folder = self._record_with(None)
    with open(f'{folder}/train.record', 'r+b') as file:
      file.truncate(os.path.getsize(f'{folder}/train.record') - 7)
    self.check_writes_nothing(DataError, 'train.record', self.train, '--data_dir', folder,
                              model_dir=f'{self.folder}/new_model')

  def test_evaluation_names_a_label_of_another_size(self):
    labels = self.temporary('labels')
    shutil.copytree(f'{self.data}/SegmentationClassAug', labels)
    Image.new('P', (9, 9)).save(f'{labels}/w.png')
    self.check(DataError, 'w.png', self.evaluate, '--label_data_dir', labels)

  def test_evaluation_names_a_colour_label(self):
    labels = self.temporary('labels')
    shutil.copytree(f'{self.data}/SegmentationClassAug', labels)
    Image.new('RGB', (67, 41), (9, 0, 0)).save(f'{labels}/v.png')
    self.check(DataError, 'v.png', self.evaluate, '--label_data_dir', labels)

  def test_inference_names_a_damaged_image(self):
    photos = self.temporary('photos')
    os.makedirs(photos)
    with open(f'{photos}/bad.jpg', 'wb') as file:
      file.write(b'\xff\xd8\xff\xe0 no JPEG at all')
    self.check(DataError, 'bad.jpg', run, inference, '--model_dir', self.model, '--data_dir', photos,
               '--infer_data_list', self.write_list('bad.jpg'), '--output_dir', self.temporary('out'))

  def test_unwritable_output_folder_is_named(self):
    blocked = os.path.join(self.folder, 'a_file')
    open(blocked, 'w').close()
    self.check_writes_nothing(
        DataError, f'--output_dir {blocked}/x cannot be written', run, inference, '--model_dir', self.model,
        '--data_dir', f'{self.data}/JPEGImages', '--infer_data_list', self.write_list('a.jpg'),
        '--output_dir', f'{blocked}/x')


class CommandLineTest(unittest.TestCase):

  def _run(self, script, *argv):
    return subprocess.run([sys.executable, f'{script}.py', *argv], cwd=ROOT, capture_output=True, text=True)

  def test_help_answers_at_once_with_a_command_to_copy_also_through_a_link(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    link = os.path.join(folder.name, 'link.py')
    for script in (*SCRIPTS, *TOOLS):
      with self.subTest(script):
        os.symlink(f'{ROOT}/{script}.py', link)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Python itself then puts no folder on its path, as by -P.
        answer = subprocess.run([sys.executable, link, '--help'], cwd=folder.name, capture_output=True,
                                text=True, env={**os.environ, 'PYTHONSAFEPATH': '1'})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.remove(link)
        self.assertIn(f'python {script}.py', answer.stdout, answer.stderr)
        self.assertIn('(default: ', answer.stdout)
        self.assertLess(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)

  def test_misspelt_or_abbreviated_flag_is_a_usage_error(self):
    for script, flag in (('train', '--bacth_size=4'), ('train', '--batch=4'), ('evaluate', '--model')):
      answer = self._run(script, flag, 'x')
      self.assertEqual(answer.returncode, 2)
      self.assertIn('unrecognized arguments: ' + flag, answer.stderr)

  def test_output_stride_12_is_a_usage_error(self):
    answer = self._run('train', '--output_stride', '12')
    self.assertEqual(answer.returncode, 2)
    self.assertEqual(answer.stderr, 'train.py: error: argument --output_stride: invalid choice: 12 '
                                    '(choose from 8, 16, 32); see --help\n')

  def test_bad_data_ends_with_status_1_and_one_sentence(self):
    answer = self._run('inference', '--infer_data_list', 'no_such_list.txt')
    self.assertEqual(answer.returncode, 1)
    self.assertEqual(answer.stdout, '')
    self.assertRegex(answer.stderr, r"^inference.py: error: list 'no_such_list.txt' cannot be read.*\n$")


if __name__ == '__main__':
  unittest.main()
