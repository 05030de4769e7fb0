"""The JSON of TensorFlow Serving's REST API, as its documentation has it."""
import json
import unittest

import numpy as np

from cli import serving_rest


class ServingRestTest(unittest.TestCase):

  def test_strings_are_base64_both_ways(self):
    text = serving_rest.request('image_bytes', [b'\x00\xff\x00'])
    self.assertEqual(json.loads(text), {'signature_name': 'image_bytes', 'instances': [{'b64': 'AP8A'}]})
    signature, inputs = serving_rest.inputs(text, 'image_bytes')
    self.assertEqual((signature, inputs['image_bytes'].tobytes()), ('image_bytes', b'\x00\xff\x00'))
    answer = serving_rest.response({'mask_png_bytes': np.frombuffer(b'\x00\xff\x00', np.uint8)})
    self.assertEqual(json.loads(answer), {'predictions': [{'b64': 'AP8A'}]})
    self.assertEqual(serving_rest.predictions(answer), [b'\x00\xff\x00'])

  def test_an_instance_may_name_its_input(self):
    _, inputs = serving_rest.inputs('{"signature_name": "s", "instances": [{"x": {"b64": "AP8A"}}]}', 'x')
    self.assertEqual(inputs['x'].tobytes(), b'\x00\xff\x00')

  def test_numbers_are_lists_and_several_outputs_are_an_object_a_row(self):
    text = serving_rest.request('s', [np.uint8([[1, 2]]), np.uint8([[3, 4]])])
    self.assertEqual(json.loads(text)['instances'], [[[1, 2]], [[3, 4]]])
    _, inputs = serving_rest.inputs(text, 'image')
    self.assertEqual((inputs['image'].dtype, inputs['image'].shape), (np.float32, (2, 1, 2)))
    answer = serving_rest.response({'a': np.int32([[1], [2]]), 'b': np.float32([.5, .25])})
    self.assertEqual(json.loads(answer), {'predictions': [{'a': [1], 'b': .5}, {'a': [2], 'b': .25}]})
    self.assertEqual(serving_rest.predictions(answer), json.loads(answer)['predictions'])

  def test_a_string_whose_name_does_not_end_so_would_not_be_base64(self):
    with self.assertRaises(AssertionError):
      serving_rest.response({'mask': np.frombuffer(b'\xff', np.uint8)})


if __name__ == '__main__':
  unittest.main()
