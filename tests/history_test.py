"""The position in the data: how many images steps took, whatever the batch sizes were."""
import unittest

from training import history


def entry(step, images_per_step, records=None, **flags):
  return history.Entry(step=step, images_per_step=images_per_step, num_train=20, train_records=records,
                       flags=flags)


class ImagesBetweenTest(unittest.TestCase):

  def test_without_history_all_steps_took_as_many(self):
    self.assertEqual(history.images_between([], 3, 10, 6), 42)

  def test_each_stretch_counts_its_own(self):
    past = [entry(0, 10), entry(8, 5), entry(24, 20)]
    self.assertEqual(history.images_between(past, 0, 26, 1), 80 + 16 * 5 + 40)
    self.assertEqual(history.images_between(past, 10, 24, 1), 70)  # counted from --initial_global_step
    self.assertEqual(history.images_between(past, 0, 5, 1), 50)
    self.assertEqual(history.images_between(past, 24, 24, 1), 0)

  def test_first_entry_holds_for_steps_before_it(self):
    self.assertEqual(history.images_between([entry(4, 10)], 0, 6, 1), 60)


class ExtendedTest(unittest.TestCase):

  def test_same_flags_add_nothing_and_later_entries_come_to_nothing(self):
    past = [entry(0, 10, rate=1), entry(8, 5, rate=1), entry(30, 7, rate=1)]
    kept = history.until(past, 20)
    self.assertEqual(kept, past[:2])
    self.assertEqual(history.extended(kept, entry(20, 5, rate=1)), kept)
    self.assertEqual(history.extended(kept, entry(20, 5, rate=2)), [*kept, entry(20, 5, rate=2)])

  def test_training_records_are_known_by_their_fingerprint(self):
    past = [entry(step, 10, records) for step, records in (
        (0, None), (4, 'a'), (8, 'b'), (9, 'b'))]
    self.assertEqual([history.records_since(past[:number]) for number in range(5)], [0, 0, 0, 8, 8])
    self.assertEqual(len(history.extended(past, entry(12, 10, 'c'))), 5)
    self.assertEqual(history.read({'history': past[1:]})[-1]['train_records'], 'b')
    del past[0]['train_records']  # as earlier versions wrote it
    self.assertIsNone(history.read({'history': past[:1]})[0]['train_records'])

  def test_changes_name_what_matters(self):
    past = [entry(0, 10, rate=1, size=(3, 4), model_dir='a')]  # of a version that kept all flags
    new = entry(5, 10, rate=2, size=[3, 4], more=1)
    self.assertEqual(history.changes(past, new), {'rate': (1, 2)})
    self.assertEqual(history.changes(past, new, ignored=('rate',)), {})

  def test_history_that_cannot_be_is_refused(self):
    for entries in ([entry(0, 0)], [entry(-1, 5)], [entry(5, 5), entry(5, 6)], [entry(9, 5), entry(5, 6)]):
      with self.assertRaises(ValueError):
        history.read({'history': entries})


if __name__ == '__main__':
  unittest.main()
