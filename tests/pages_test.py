"""utils/pages.py: templates that escape what is no HTML, pages as files, and small things pages write."""
import base64
import os
import tempfile
import unittest

from utils import pages
from utils.errors import UsageError

_PARTS = '''<!-- What stands before the first part is a comment, $of_any_kind. -->

<!-- part: row -->
<tr>
  <td title="$name">$number</td>
</tr>
<!-- part: script -->
first($name);
  second();
'''


class PagesTest(unittest.TestCase):

  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def write(self, name, text):
    path = os.path.join(self.folder, name)
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
    return path

  def test_text_is_escaped_and_html_is_not(self):
    template = pages.Template(self.write('own.html', _PARTS))
    row = template.fill('row', name='<b> & "x"', number=0.5)
    self.assertEqual(row, '<tr><td title="&lt;b&gt; &amp; &quot;x&quot;">0.5</td></tr>')
    self.assertIsInstance(row, pages.Html)
    self.assertEqual(template.fill('row', name=pages.Html('<b>'), number=[1, '<', row]),
                     f'<tr><td title="<b>">1&lt;{row}</td></tr>')
    with self.assertRaises(KeyError):
      template.fill('row', name='a')

  def test_scripts_keep_their_lines_and_the_frame_is_there(self):
    template = pages.Template(self.write('own.html', _PARTS))
    self.assertEqual(template.fill('script', name='x'), 'first(x);\n  second();\n')
    with self.assertRaisesRegex(KeyError, 'title|controls'):  # which the frame has
      template.fill('page')
    with self.assertRaisesRegex(KeyError, 'none'):
      template.fill('none')

  def test_page_is_written_whatever_files_are_called(self):
    path = os.path.join(self.folder, 'index.html')
    pages.write(path, pages.Html('ü ' + os.fsdecode(b'\xff.jpg') + '\n'))
    with open(path, 'rb') as file:
      self.assertEqual(file.read(), 'ü '.encode() + b'\\udcff.jpg\n')
    self.assertEqual(os.listdir(self.folder), ['index.html'])

  def test_page_of_another_tool_is_not_replaced(self):
    pages.check_replaceable(self.folder, 'made by us', '--out')
    self.write('index.html', '<p>made by us</p>')
    pages.check_replaceable(self.folder, 'made by us', '--out')
    self.write('index.html', '<p>made by hand</p>')
    with self.assertRaisesRegex(UsageError, "--out holds '.*index.html', which is no page of this tool"):
      pages.check_replaceable(self.folder, 'made by us', '--out')

  def test_colours_shares_and_files_are_written_for_a_browser(self):
    self.assertEqual(pages.css((0, 128, 255)), '#0080ff')
    self.assertEqual([pages.percent(share) for share in (0, 1, .5, .123, .0123, .00123, .000123)],
                     ['0 %', '100 %', '50 %', '12 %', '1.2 %', '0.12 %', '0.012 %'])
    address = pages.data_uri('image/png', b'\x89PNG\xff')
    begin, content = address.split(',')
    self.assertEqual((begin, base64.b64decode(content)), ('data:image/png;base64', b'\x89PNG\xff'))


if __name__ == '__main__':
  unittest.main()
