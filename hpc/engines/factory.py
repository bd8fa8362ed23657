"""Engines by name. Which tasks each of them takes: `hpc/config/plan.py`."""

from torch import nn

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.engines.base import Engine
from hpc.engines.ddp import DDP
from hpc.engines.flat import Flat


def build_engine(
    name: str, module: nn.Module, comm: Comm, *, bucket_mb: float = 25.0, config: Config | None = None
) -> Engine:
    """Build the engine called `name` (flat | ddp | deepspeed, which needs `config`) around one player."""
    if name == "flat":
        # On the CPU the cores that would sum during the backward pass are busy with it.
        return Flat(module, comm, bucket_mb=bucket_mb if comm.device.type == "cuda" else 0.0)
    if name == "ddp":
        return DDP(module, comm, bucket_mb=bucket_mb)
    if name == "deepspeed" and config is not None:
        from hpc.engines.zero import ZeRO

        return ZeRO(module, comm, config)
    raise UserError(f"engine={name} is not known: use ddp, flat or deepspeed")
