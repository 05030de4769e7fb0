"""utils/pages.py: templates that escape what is no HTML, pages as files, and small things pages write."""
import base64
import os
import tempfile
import unittest

import jinja2

from utils import pages
from utils.errors import UsageError

_TEMPLATE = '''
{% from 'pages.html' import frame, legend %}
{% call frame(title, name) %}
  {% for number in numbers %}
<td title="{{ name }}">{{ number }}</td>
  {% endfor %}
{{ legend(colour, name, 0.5|percent) }}
{% endcall %}
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

  def page(self, **values):
    """Returns the page that _TEMPLATE makes of values, as bytes."""
    path = os.path.join(self.folder, 'index.html')
    pages.write(path, self.write('own.html', _TEMPLATE), **values)
    self.assertEqual(sorted(os.listdir(self.folder)), ['index.html', 'own.html'])
    with open(path, 'rb') as file:
      return file.read()

  def test_text_is_escaped_and_html_is_not(self):
    page = self.page(title='<i>', name='<b> & "{{ title }}"', numbers=[0.5, '<'], colour=(0, 1, 255)).decode()
    name = '&lt;b&gt; &amp; &#34;{{ title }}&#34;'
    self.assertIn(f'<td title="{name}">0.5</td>\n<td title="{name}">&lt;</td>\n', page)
    self.assertIn(f'style="background:#0001ff"></i>{name} <small>50 %</small></span>', page)
    self.assertIn(f'<h1>&lt;i&gt;</h1><div>{name}</div>', page)
    self.assertNotIn('<b> ', page)

  def test_value_that_is_missing_is_an_error_and_leaves_no_page(self):
    with self.assertRaisesRegex(jinja2.UndefinedError, "'numbers' is undefined"):
      self.page(title='', name='', colour=(0, 0, 0))
    self.assertEqual(os.listdir(self.folder), ['own.html'])

  def test_page_is_written_whatever_files_are_called(self):
    page = self.page(title='ü', name=os.fsdecode(b'\xff<.jpg'), numbers=[], colour=(0, 0, 0))
    self.assertIn('<h1>ü</h1><div>\\udcff&lt;.jpg</div>'.encode(), page)

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
