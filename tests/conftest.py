"""What train.py does before it imports TensorFlow, for the tests that call its functions."""
from cli import flags

flags.enable_onednn()
