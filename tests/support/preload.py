"""What the server of `tests/support/ranks.py` imports once for all ranks; DeepSpeed alone takes seconds."""

import contextlib
import logging
import os

import torch._dynamo  # noqa: F401

os.environ["DS_ACCELERATOR"] = "cpu"
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
with contextlib.suppress(ImportError):
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
