"""Plain English: phrases that a reader whose third language is English has to read twice are not used."""
import os
import re
import unittest

from tests.source_code import ROOT, sources

# Each with what to write in its place.
PHRASES = {
    'all but': 'all except', 'alike in all': 'the same in all', 'and the like': 'name them, or: and others',
    'at home with': 'supports', 'be had': 'is available', 'be it': 'name both', 'beforehand': 'before it',
    'but for': 'except', 'classes alike': 'by class', 'commonest': 'most common', 'hardly any': 'few',
    'has but': 'has only', 'have but': 'have only', 'henceforth': 'from now on', 'hitherto': 'until now',
    'in spite of': 'although', 'know but': 'support only', 'knows but': 'supports only',
    'laid out alike': 'of the same layout', 'lest': 'so that not', 'less a tenth': 'reduced by 10 %',
    'no fewer than': 'at least', 'none but': 'only', 'several faces': 'several ways', 'stems from': 'is from',
    'takes no word': 'needs no communication', 'thereby': 'by it, then', 'whatever it does': 'at any point',
    'where none': 'if none'}


class LanguageTest(unittest.TestCase):

  def test_no_phrase_is_a_riddle(self):
    texts = list(sources())
    for folder in ('', 'docs'):
      for name in sorted(os.listdir(os.path.join(ROOT, folder))):
        if name.endswith('.md'):
          with open(os.path.join(ROOT, folder, name), encoding='utf-8') as file:
            texts.append((os.path.join(folder, name), file.read()))
    phrases = '|'.join(phrase.replace(' ', r'\s+(?:#\s)?') for phrase in PHRASES)
    pattern = re.compile(rf'\b(?:{phrases})\b', re.IGNORECASE)
    self.assertEqual([(path, text[:match.start()].count('\n') + 1, match[0])
                      for path, text in texts for match in pattern.finditer(text)], [])


if __name__ == '__main__':
  unittest.main()
