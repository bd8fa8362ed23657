"""Engines by name, and which tasks each of them takes."""

from collections.abc import Sized

from torch import nn

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.engines.base import Engine
from hpc.engines.ddp import DDP
from hpc.engines.flat import Flat


def check_players(config: Config, players: Sized) -> None:
    """Refuse several players where DeepSpeed's hooks cannot tell their passes apart."""
    stage = config.engine.deepspeed.stage
    if config.engine.name == "deepspeed" and len(players) > 1 and stage > 1:
        raise UserError(
            f"engine.deepspeed.stage={stage} takes one network, this task has {len(players)} players: use "
            "engine.deepspeed.stage=1 or engine=flat"
        )


def build_engine(
    name: str, module: nn.Module, comm: Comm, *, bucket_mb: float = 25.0, config: Config | None = None
) -> Engine:
    """Build the engine called `name` (flat | ddp | deepspeed, which needs `config`) around one player."""
    if name == "flat":
        return Flat(module, comm)
    if name == "ddp":
        return DDP(module, comm, bucket_mb=bucket_mb)
    if name == "deepspeed" and config is not None:
        from hpc.engines.zero import ZeRO

        return ZeRO(module, comm, config)
    raise UserError(f"engine={name} is not known: use ddp, flat or deepspeed")
