"""Imports of the server of `tests/support/ranks.py`, once for all ranks: optimizers and DeepSpeed take seconds."""

import contextlib
import logging
import os

import torch._dynamo  # noqa: F401

os.environ["DS_ACCELERATOR"] = "cpu"
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
with contextlib.suppress(ImportError):
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
