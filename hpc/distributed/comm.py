"""Who this rank is, and the few collectives that the suite needs. Nothing happens at import time.

Rank and world come from torchrun (`RANK`, ...), from submitit's local executor, from SLURM's `srun`, or from
nothing (one process). Control values travel on the CPU by gloo, gradients and embeddings on the device. With one rank
every function here returns at once, without a process group.
"""

import datetime
import os
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from hpc.cluster import slurm
from hpc.distributed import rendezvous
from hpc.errors import UserError
from hpc.runs.run_dir import RunDir

CPU = torch.device("cpu")
START_TIME = 300  # seconds: nodes of a job start their ranks far apart, however short hang_timeout is
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.13


@dataclass(frozen=True)
class Dist:
    """One rank's place in the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: torch.device = CPU

    @property
    def main(self) -> bool:
        return self.rank == 0


def _numbers(*names: str) -> list[int] | None:
    """The environment variables as integers, or None where one is missing."""
    values = [os.environ.get(name) for name in names]
    return [int(value) for value in values if value is not None] if None not in values else None


def place() -> tuple[int, int, int]:
    """(rank, world, local rank) from the environment."""
    found = _numbers("RANK", "WORLD_SIZE", "LOCAL_RANK") or _numbers(
        "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID"
    )
    rank, world, local = found or slurm.place() or (0, 1, 0)
    return rank, world, local


def place_is_slurm() -> bool:
    """Whether `srun` gave this process its rank: nothing nearer to it did."""
    return slurm.place() is not None


def connect(run: Path, *, timeout: int, device: str = "auto") -> Dist:
    """Join the other ranks of the run. `timeout`: seconds without an answer before a collective raises.

    LostRank names a rank that has died or does not come.
    """
    rank, world, local = place()
    use_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    where = torch.device("cuda", local % torch.cuda.device_count()) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(where)
    if world > 1:
        patience, others = timeout, ""
        if place_is_slurm():
            address, port = slurm.rendezvous()
            os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
            patience = max(timeout, START_TIME)
            found = (slurm.address(node) for node in slurm.nodes())
            others = next((other for other in found if not other.startswith("127.")), "")
        _choose_interface(os.environ.get("MASTER_ADDR", "localhost"), others)
        watch = rendezvous.Watch(RunDir(run), rank, world, patience)
        store = rendezvous.open_store(run, rank, world, watch)
        rendezvous.meet(store, rank, world, watch)
        join = partial(
            dist.init_process_group,
            "cpu:gloo,cuda:nccl" if use_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(seconds=timeout),
        )
        rendezvous.connect_watched(join, watch)
    return Dist(rank, world, local, where)


def _choose_interface(address: str, other: str) -> None:
    """Tell gloo by which network ranks reach each other where the host's own name would mislead it.

    `address`: where ranks meet. `other`: of some node of the job, as the network knows it; empty on one machine, or
    where all nodes are this one.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    if not other:
        if address == "localhost" or address.startswith("127."):
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the host's name may not resolve on a laptop
    elif slurm.address(socket.gethostname()).startswith("127."):  # as Debian's installer writes /etc/hosts
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((other, 9))  # sends nothing: the kernel names the way
            mine = asking.getsockname()[0]
        for name, found in psutil.net_if_addrs().items():
            if any(entry.address == mine for entry in found):
                os.environ["GLOO_SOCKET_IFNAME"] = name


def disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def gather_vector(values: list[float], here: Dist) -> list[list[float]]:
    """The same short list of numbers of every rank, by rank. float64."""
    if here.world == 1:
        return [values]
    mine = torch.tensor(values, dtype=torch.float64)
    everyone = torch.empty(here.world * len(values), dtype=torch.float64)
    _all_gather(everyone, mine)
    return everyone.view(here.world, len(values)).tolist()


def sum_(tensor: Tensor, here: Dist) -> Tensor:
    """Sum over the ranks, in place."""
    if here.world > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast(value: Any, here: Dist) -> Any:
    """Rank 0's value on every rank (small Python objects of this run's own ranks)."""
    if here.world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gather_objects(value: Any, here: Dist) -> list[Any]:
    """Every rank's value, by rank (small Python objects of this run's own ranks)."""
    if here.world == 1:
        return [value]
    everyone: list[Any] = [None] * here.world
    dist.all_gather_object(everyone, value)
    return everyone


def gather(tensor: Tensor, here: Dist) -> Tensor:
    """[n, ...] of every rank as [world * n, ...] in rank order; n is equal on all ranks. No gradient."""
    if here.world == 1:
        return tensor
    everyone = tensor.new_empty((here.world * tensor.shape[0], *tensor.shape[1:]))
    _all_gather(everyone, tensor.detach().contiguous())
    return everyone


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, here: Dist) -> Tensor:
        ctx.here, ctx.rows = here, tensor.shape[0]
        return gather(tensor, here)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        # Through autograd again, as every backward of a collective here: it can be differentiated to any order.
        summed = sum_grad(grads[0], ctx.here)
        return summed[ctx.here.rank * ctx.rows : (ctx.here.rank + 1) * ctx.rows], None


def gather_grad(tensor: Tensor, here: Dist) -> Tensor:
    """As `gather`, with the gradient: a rank's rows receive the sum of what all ranks' losses say of them.

    Differentiable to any order.
    """
    return tensor if here.world == 1 else _Gather.apply(tensor, here)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, here: Dist) -> Tensor:
        ctx.here = here
        return sum_(tensor.clone(memory_format=torch.contiguous_format), here)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return sum_grad(grads[0], ctx.here), None


def sum_grad(tensor: Tensor, here: Dist) -> Tensor:
    """Sum over the ranks with its gradient, which is the sum of what all ranks' losses say; to any order."""
    return tensor if here.world == 1 else _Sum.apply(tensor, here)


def gather_rows(rows: dict[str, np.ndarray], here: Dist) -> dict[str, np.ndarray]:
    """One row for each sample, ragged over the ranks -> all rows, sorted by `ids`, each id once."""
    if here.world > 1:
        parts = [part for part in gather_objects(rows, here) if len(part["ids"])] or [rows]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in rows}
    _, first = np.unique(rows["ids"], return_index=True)
    return {name: column[first] for name, column in rows.items()}


def agree_or_raise(error: str, here: Dist) -> None:
    """End all ranks together with the first rank's message where any rank has one."""
    for rank, message in enumerate(gather_objects(error, here)):
        if message:
            raise UserError(message if here.world == 1 else f"rank {rank}: {message}")
