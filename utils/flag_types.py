"""What the values of flags may be: types for argparse, each of which says what it allows."""
import argparse
import contextlib
import dataclasses
import typing


def flag(default: typing.Any, help: str, **row: typing.Any) -> typing.Any:  # noqa: A002 (argparse's own word)
  """Returns a dataclass's field that is also a flag of its name (flags.Parser.shared).

  Args:
    row: the title of the help that it stands under, `group`, and what argparse takes: type, choices, ...
  """
  return dataclasses.field(default=default, metadata={'help': help, **row})


def _number(kind, fits, allowed):
  """Returns an argparse type: numbers of a kind, int or float, that fit; `allowed` says which they are."""
  def parse(text):
    with contextlib.suppress(ValueError):
      value = kind(text)
      if fits(value):
        return value
    shown = text if 0 < len(text) <= 40 else f"'{text[:40]}'"
    raise argparse.ArgumentTypeError(f'{shown} is not allowed; give a {allowed}')
  return parse


_INT, _MOST = 2**31 - 1, 3.4e38  # the largest of TensorFlow's sizes and counters; of float32

positive_int = _number(int, lambda value: 1 <= value <= _INT, f'whole number of 1 or more, up to {_INT}')
non_negative_int = _number(int, lambda value: 0 <= value <= _INT, f'whole number of 0 or more, up to {_INT}')
positive_float = _number(float, lambda value: 0 < value <= _MOST, f'number above 0, up to {_MOST}')
non_negative_float = _number(float, lambda value: 0 <= value <= _MOST, f'number of 0 or more, up to {_MOST}')
one_or_more = _number(float, lambda value: 1 <= value <= _MOST, f'number of 1 or more, up to {_MOST}')
fraction = _number(float, lambda value: 0 <= value < 1, 'number of 0 or more, below 1')
scale = _number(float, lambda value: 0.1 <= value <= 10, 'number from 0.1 to 10')
share = _number(float, lambda value: 0 < value <= 1, 'number above 0, up to 1')
weight = _number(float, lambda value: 0 <= value <= 1, 'number from 0 to 1')


def positive_int_or_auto(text: str) -> int | str:
  """An argparse type: an integer of 1 or more, or auto."""
  return text if text == 'auto' else positive_int(text)


def on_off(text: str) -> bool:
  """An argparse type: on is True, off is False."""
  if text not in ('on', 'off'):
    raise argparse.ArgumentTypeError(f'{text} is not allowed; give on or off')
  return text == 'on'
