"""Names in tables of text. On a terminal Chinese letters and emoji take two places, single accents none."""
import typing
import unicodedata


def column(names: typing.Iterable[str], longest: int = 40) -> list[str]:
  """Returns the names with blanks that make them equally wide; long ones are shortened."""
  shown = [shortened(name, longest) for name in names]
  widths = [sum(map(_width, name)) for name in shown]
  return [name + ' ' * (max(widths) - width) for name, width in zip(shown, widths, strict=True)]


def shortened(text: str, longest: int = 60) -> str:
  """Returns a text with dots in place of what is beyond so many letters."""
  return text if len(text) <= longest else text[:longest - 3] + '...'


def _width(letter):
  if unicodedata.category(letter) in ('Mn', 'Me', 'Cf'):
    return 0
  return 2 if unicodedata.east_asian_width(letter) in 'WF' else 1
