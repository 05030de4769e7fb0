"""What train.py does before it imports TensorFlow, for the tests that call its functions."""
from utils import flags

flags.enable_onednn()
