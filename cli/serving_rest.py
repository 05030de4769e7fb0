"""Requests and responses of TensorFlow Serving's REST API, row by row, without the server.

  {"signature_name": "image_bytes", "instances": [{"b64": "/9j/4AAQ..."}]}
  {"predictions": [{"b64": "iVBORw0KGgo..."}]}

It follows https://www.tensorflow.org/tfx/serving/api_rest: an instance is the value of the only input, or an
object with one value for each input; a prediction is the value of the only output, or an object. Strings that
are no text are {"b64": base64}; outputs are so written if their names end in _bytes.
"""
import base64
import json
import typing

import numpy as np

_BYTES = '_bytes'


def request(signature: str, instances: typing.Sequence) -> str:
  """Returns the JSON of a request.

  Args:
    signature: name of the signature.
    instances: bytes, or arrays.
  """
  return json.dumps({'signature_name': signature, 'instances': [_encoded(value) for value in instances]})


def inputs(text: str, name: str) -> tuple[str, dict]:
  """Returns what the server makes of a request to a signature with one input.

  Args:
    text: JSON.
    name: of the input.

  Returns:
    (signature, {name: array}): the array is float32 [instances, ...], or uint8 [bytes] of the only instance
    if that is a string.
  """
  content = json.loads(text)
  values = [value[name] if isinstance(value, dict) and name in value else value
            for value in content['instances']]
  if isinstance(values[0], dict):
    value, = values
    return content['signature_name'], {name: np.frombuffer(base64.b64decode(value['b64'], validate=True),
                                                           np.uint8)}
  return content['signature_name'], {name: np.array(values, np.float32)}


def response(outputs: dict) -> str:
  """Returns the JSON that the server answers, for dict of name to array [instances, ...].

  An output that is a string is uint8 [bytes], of the only instance; its name has to end in _bytes.
  """
  rows = {}
  for name, value in outputs.items():
    is_string = value.dtype == np.uint8
    assert is_string == name.endswith(_BYTES), name
    rows[name] = [_encoded(value.tobytes())] if is_string else [_encoded(row) for row in value]
  count, = {len(values) for values in rows.values()}
  if len(rows) == 1:
    predictions, = rows.values()
  else:
    predictions = [{name: values[index] for name, values in rows.items()} for index in range(count)]
  return json.dumps({'predictions': predictions})


def predictions(text: str) -> list:
  """Returns what a client makes of a response: bytes, nested lists, or dicts of these."""
  def decoded(value):
    if isinstance(value, dict):
      return (base64.b64decode(value['b64'], validate=True) if set(value) == {'b64'}
              else {name: decoded(part) for name, part in value.items()})
    return value

  return [decoded(value) for value in json.loads(text)['predictions']]


def _encoded(value):
  """Returns bytes as {"b64": base64}, and an array as nested lists."""
  if isinstance(value, bytes):
    return {'b64': base64.b64encode(value).decode()}
  return value.tolist()
