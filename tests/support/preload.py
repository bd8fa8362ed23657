"""What the server of `tests/support/ranks.py` imports once for all ranks; DeepSpeed alone takes seconds."""

import contextlib
import logging
import os

import torch._dynamo  # noqa: F401

os.environ["DS_ACCELERATOR"] = "cpu"
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
with contextlib.suppress(ImportError):
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401

with contextlib.suppress(ImportError):
    import tests.support.tiny  # noqa: F401 - the trainer, and the tiny jobs

with contextlib.suppress(ImportError):
    from hpc.monitor import event_file

    event_file.tensorboard()
    from torch.utils.tensorboard import summary  # noqa: F401

    import hpc.plots.roc  # noqa: F401 - matplotlib
