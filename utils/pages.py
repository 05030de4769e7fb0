"""Pages of HTML that tools write: a template in parts, in which all text is escaped.

The frame and what pages share stand in pages.html; a page's own parts in a file of its own.
"""
import base64
import html
import os
import re
import string
import typing

from utils import files
from utils.errors import UsageError


class Html(str):
  """A str that is HTML already; any other is escaped."""


class Template:
  """The parts of pages.html and of a page's own file."""

  def __init__(self, path: str) -> None:
    """Reads them. Args: path, the page's own file."""
    self._parts = {**_read_parts(os.path.splitext(__file__)[0] + '.html'), **_read_parts(path)}

  def fill(self, part: str, **values: typing.Any) -> Html:
    """Returns a part, its $names replaced by values: text, numbers, Html, or lists of them."""
    return Html(self._parts[part].substitute({name: _escaped(value) for name, value in values.items()}))


def _escaped(value):
  if isinstance(value, list):
    return ''.join(map(_escaped, value))
  return value if isinstance(value, Html) else html.escape(str(value))


def _read_parts(path):
  """Returns the parts of a file, a dict of string.Template."""
  with open(path, encoding='utf-8') as file:
    _, *pieces = re.split(r'<!-- part: (\w+) -->\n', file.read())
  parts = dict(zip(pieces[::2], pieces[1::2]))
  keeps_lines = ('page', 'script')
  return {name: string.Template(text.strip() + '\n' if name in keeps_lines else re.sub(r'\n *', '', text))
          for name, text in parts.items()}


def write(path: str, page: Html) -> None:
  """Writes a page, under a temporary name first."""
  with files.replacing(path) as temporary:
    # Names of files need not be text.
    with open(temporary, 'w', encoding='utf-8', errors='backslashreplace') as file:
      file.write(page)


def check_replaceable(folder: str, mark: str, flag: str) -> None:
  """Raises UsageError, naming the flag, where a page would replace an index.html that lacks its mark."""
  path = os.path.join(folder, 'index.html')
  if os.path.lexists(path):
    page = files.read_bytes(path, f"'{path}'", limit=1 << 30)
    if mark.encode() not in page:
      raise UsageError(f"{flag} holds '{path}', which is no page of this tool; give another folder")


def css(colour: typing.Iterable[int]) -> str:
  """Returns a colour (r, g, b) as CSS writes it."""
  return '#' + bytes(colour).hex()


def percent(share: float) -> str:
  """Returns 12 %, 1.2 % or 0.012 %: two digits that count."""
  value = 100 * share
  if value == 0 or value >= 10:
    return f'{value:.0f} %'
  return f'{value:.{1 if value >= 1 else 2 if value >= .1 else 3}f} %'


def data_uri(kind: str, content: bytes) -> str:
  """Returns the address that holds a file itself; kind is as in image/png."""
  return f'data:{kind};base64,{base64.b64encode(content).decode()}'
