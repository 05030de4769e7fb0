"""What utils/flags.run sets for the scripts, for the tests that call their functions."""
import os

os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
