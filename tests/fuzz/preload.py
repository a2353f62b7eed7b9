"""Imported by the server that the workers are forked from, so that each starts at once.

One thread: a process that is forked after OpenMP has started its threads waits for them for ever.
"""

import torch

torch.set_num_threads(1)

from . import data_targets, model_targets  # noqa: E402, F401
