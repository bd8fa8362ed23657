"""Imports DeepSpeed over our process group, with its compiling and its own communication switched off."""

import datetime
import logging
import os
import warnings
from typing import Any

import torch
import torch.distributed

from data_shards.errors import UserError
from hpc.distributed.comm import Comm


def import_deepspeed(comm: Comm, timeout: int) -> Any:
    """Import the package so that it communicates over our process group and never compiles anything.

    `timeout`: seconds until a collective raises. UserError where it is not installed.
    """
    os.environ["DS_ACCELERATOR"] = comm.device.type
    os.environ |= {"RANK": str(comm.rank), "WORLD_SIZE": str(comm.world), "LOCAL_RANK": str(comm.local_rank)}
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            f"engine=deepspeed cannot import it ({error}): pip install 'rostro[deepspeed]'"
        ) from None
    from deepspeed.ops.op_builder.builder import OpBuilder
    from deepspeed.utils import groups, logger

    logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # names that torch 2.13 changed
    # On a CPU it would compile its shared-memory all-reduce now, for minutes; gloo does the collectives.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    OpBuilder.jit_load = _refuse_build
    if not torch.distributed.is_initialized():  # a single rank
        store = torch.distributed.HashStore()
        backends = "cpu:gloo,cuda:nccl" if comm.device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backends, store=store, rank=0, world_size=1)
    # DeepSpeed's own copy of the group would wait torch's half an hour, not `hang_timeout`.
    if groups._WORLD_GROUP is None:
        groups._WORLD_GROUP = torch.distributed.new_group(timeout=datetime.timedelta(seconds=timeout))
    backend = "nccl" if comm.device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return deepspeed


def _refuse_build(builder: Any, verbose: bool = True) -> None:
    """Refuse to compile: it takes minutes, and a rank killed meanwhile leaves a lock that blocks others."""
    name = builder.name
    raise UserError(
        f"DeepSpeed wants to compile {name} at run time: build it once with `DS_BUILD_{name.upper()}=1 pip "
        "install --no-build-isolation --no-cache-dir --force-reinstall --no-deps deepspeed`, or leave "
        "the key of engine.deepspeed.config out that needs it"
    )
