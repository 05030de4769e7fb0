"""Pages of HTML that tools write: templates of Jinja, in which all text is escaped.

What pages share stands in pages.html; a page's own template in a file of its own.
"""
import base64
import os
import typing

import jinja2

from utils import files
from utils.errors import UsageError


def write(path: str, template: str, **values: typing.Any) -> None:
  """Writes a page, under a temporary name first: a template, a file, that is filled in with values."""
  folders = [os.path.dirname(os.path.abspath(one)) for one in (template, __file__)]
  environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folders), autoescape=True,
                                   undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  environment.filters.update(css=css, percent=percent, thousands='{:,}'.format)
  page = environment.get_template(os.path.basename(template)).render(values)
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
  return f'{100 * share:{".0f" if share >= 0.1 else ".2g"}} %'


def data_uri(kind: str, content: bytes) -> str:
  """Returns the address that holds a file itself; kind is as in image/png."""
  return f'data:{kind};base64,{base64.b64encode(content).decode()}'
