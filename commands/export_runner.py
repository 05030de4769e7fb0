"""Predicts by what was exported, in a process of its own: NumPy, the runtime, and nothing of this project.

  python export_runner.py saved_model|tflite|onnx MODEL

Each line of stdin is a JSON list of the .npz file of the inputs, that of the outputs, and the signature. A
line is printed once the outputs are written. An array uint8 [bytes] stands for one string.
"""
import importlib
import json
import sys

import numpy as np


def saved_model(tf, path):
  """Returns a function of inputs, dict of arrays, and signature, that returns the outputs, dict of arrays."""
  signatures = tf.saved_model.load(path).signatures

  def given(value):
    return tf.constant([value.tobytes()]) if value.dtype == np.uint8 else tf.constant(value)

  def taken(value):
    return np.frombuffer(value.numpy()[0], np.uint8) if value.dtype == tf.string else value.numpy()

  def predict(inputs, signature):
    outputs = signatures[signature](**{name: given(value) for name, value in inputs.items()})
    return {name: taken(value) for name, value in outputs.items()}

  return predict


def tflite(tf, path):
  """Returns such a function of a TensorFlow Lite model; 8-bit integers are scaled to and from numbers."""
  model = tf.lite.Interpreter(path)
  model.allocate_tensors()

  def scale(details):
    scales, zeros = (details['quantization_parameters'][key] for key in ('scales', 'zero_points'))
    return (scales[0], zeros[0]) if len(scales) else (None, None)

  def predict(inputs, signature):
    source, = model.get_input_details()
    factor, zero = scale(source)
    image = inputs['image']
    if factor:
      image = np.clip(np.round(image / factor) + zero, 0, 255).astype(source['dtype'])
    model.set_tensor(source['index'], image)
    model.invoke()
    outputs = {}
    for details in model.get_output_details():
      value, (factor, zero) = model.get_tensor(details['index']), scale(details)
      if value.shape[-1] == 1 and value.dtype == np.int32:
        outputs['classes'] = value
      else:
        outputs['probabilities'] = factor * (value.astype(np.float32) - zero) if factor else value
    return outputs

  return predict


def onnx(onnxruntime, path):
  """Returns such a function of an ONNX model."""
  model = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  names = [output.name for output in model.get_outputs()]

  def predict(inputs, signature):
    values = model.run(names, {model.get_inputs()[0].name: inputs['image']})
    return {name.partition(':')[0]: value for name, value in zip(names, values)}

  return predict


RUNTIMES = {'saved_model': ('tensorflow', saved_model), 'tflite': ('tensorflow', tflite),
            'onnx': ('onnxruntime', onnx)}


if __name__ == '__main__':
  sys.path.pop(0)  # the folder of this file
  module, loaded = RUNTIMES[sys.argv[1]]
  predict = loaded(importlib.import_module(module), sys.argv[2])
  for line in sys.stdin:
    source, target, signature = json.loads(line)
    np.savez(target, **predict(dict(np.load(source)), signature))
    print('answered', flush=True)
