"""A few broken inputs of tests/fuzz/fuzz.py, and whether it would notice what must not be."""
import contextlib
import io
import os
import tempfile
import types
import unittest

import pytest

from tests import children
from tests.fuzz import cases, faults, lab

pytestmark = pytest.mark.compat

# One of each kind that once found something, and such as take little time.
CASES = (
    'sample; odd name "it\'s"',
    'voc; data/train.txt: names_elsewhere',
    'voc; data/JPEGImages/train_*: text_that_unpacks',
    'voc; data/SegmentationClassAug/val_*: claimed_size',
    'voc; data/sample.json: deeply_nested',
    'voc; data/JPEGImages/train_*: wrong_checksum',
    'mine; mine/images: link_to_above',
    'mine; mine/mine.json: other_value',
    'view records; records/train.record: huge_length',
    'view records; records/val.record: record_name',
    'evaluate files; folders that cannot be written',
    'evaluate records; records/val.record: ten_gigabytes',
    'inference; data/JPEGImages/val_*: extreme_shape',
    'inference; data/photos.txt: pipe_instead',
    'export; model/model.ckpt-2.index: huge_block',
    'train on; model/checkpoint: latin_1',
    'train on; model/events*: ten_gigabytes',
    'benchmark; records/train.record: flip_early',
    'convert archive; archive.tar.gz: members_elsewhere',
    'plot; model/events*: huge_length',
)


class FewCasesTest(unittest.TestCase):

  def test_cases_end_in_success_or_a_sentence(self):
    lab.obey_permissions()
    with tempfile.TemporaryDirectory() as folder, children.Children({'TF_CPP_MIN_LOG_LEVEL': '3'}) as runner:
      tried = lab.Lab(runner, folder)
      for label in CASES:
        with self.subTest(label), contextlib.redirect_stdout(io.StringIO()) as printed:
          self.assertFalse(tried.fails_at(cases.find(label), '--only ...'), printed.getvalue())
      self.assertEqual(sum(tried.ends.values()), len(CASES))


class PlanTest(unittest.TestCase):

  def test_a_case_depends_on_seed_and_number_alone(self):
    for number in (0, 17, 5000):
      first, again = cases.plan(3, number), cases.plan(3, number)
      self.assertEqual((first.label, first.seed), (again.label, again.seed))
    self.assertNotEqual([cases.plan(0, n).label for n in range(5)],
                        [cases.plan(1, n).label for n in range(5)])

  def test_hundreds_differ_and_every_script_is_among_them(self):
    labels = [cases.plan(0, number).label for number in range(400)]
    self.assertGreater(len(set(labels)), 390)
    scripts = {cases.plan(0, number).command.argv[0] for number in range(400)}
    self.assertLessEqual({'train.py', 'evaluate.py', 'inference.py', 'export_inference_graph.py',
                          'create_pascal_tf_record.py', 'create_cityscapes_tf_record.py',
                          'dataset/make_sample_data.py', 'tools/create_tf_record.py', 'tools/view_dataset.py',
                          'tools/convert_checkpoint.py', 'tools/plot_scalars.py'}, scripts)


class CheckTest(unittest.TestCase):
  """What the fuzzer calls wrong."""

  def end(self, status, stderr='', stdout='', timed_out=False):
    child = types.SimpleNamespace(status=status, stderr=stderr, stdout=stdout, timed_out=timed_out)
    return lab.wrong_end(child, ['tools/x.py', 'a'])

  def test_success_or_one_sentence_is_right(self):
    self.assertIsNone(self.end(0, 'converting: 1 of 4 images, 0:00:47 left\nevaluating: 7 images\n'))
    self.assertIsNone(self.end(1, 'x.py: error: list a is empty; give one name a line\n'))
    self.assertIsNone(self.end(1, 'x.py: error: 2 of 9 pairs of image and label are bad:\na\nb\n'))

  def test_every_other_end_is_wrong(self):
    for end in ((0, 'a warning\n'), (1, ''), (1, 'x.py: error: a\nb\n'), (1, 'y.py: error: a\n'), (3, ''),
                (-11, ''), (1, 'Traceback (most recent call last):\nValueError\n'), (0, '', 'Traceback'),
                (1, 'x.py: error: KeyError: a; this is a defect of the program\n'), (0, '', '', True),
                (1, 'x.py: error: memory ran out; give less\n'), (1, 'x.py: error: \x1b[2J\n')):
      self.assertIsNotNone(self.end(*end), end)

  def test_changes_and_leftovers_are_wrong(self):
    with tempfile.TemporaryDirectory() as folder:
      os.makedirs(f'{folder}/in/out')
      faults.write(f'{folder}/in/a', b'1')
      before = lab.snapshot(folder)

      def wrong(name, content, is_failed=False):
        faults.write(f'{folder}/in/{name}', content)
        after = lab.snapshot(folder)
        found = (lab.changes(before, after, ['in/out/'], False)
                 or lab.left_behind(before, after, folder, is_failed))
        os.remove(f'{folder}/in/{name}')
        return found

      self.assertIsNone(wrong('out/b.json', b'{}'))
      self.assertRegex(wrong('out/b.json', b'{'), 'b.json is half written')
      self.assertRegex(wrong('out/b.png', b'\x89PNG'), 'b.png is half written')
      self.assertRegex(wrong('out/b.png.7.tmp', b''), 'is left behind')
      self.assertRegex(wrong('out/c', b'', is_failed=True), 'was written by a command that failed')
      self.assertRegex(wrong('d', b''), 'd is new, outside')
      self.assertRegex(wrong('a', b'2'), 'a has changed')
      self.assertRegex(lab.changes(before, lab.snapshot(folder), ['in/out/'], False), 'a is gone')


if __name__ == '__main__':
  unittest.main()
