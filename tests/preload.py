"""What the server of `tests/ranks.py` imports once for all ranks: seconds of code behind optimizers and DeepSpeed."""

import contextlib
import logging
import os

import torch._dynamo  # noqa: F401

os.environ["DS_ACCELERATOR"] = "cpu"
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
with contextlib.suppress(ImportError):
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
