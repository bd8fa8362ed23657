"""The number and the device of this rank, and how it joins the others. Nothing happens at import time.

Rank and world come from torchrun (`RANK`, ...), from submitit's local executor, from SLURM's `srun`, or from
nothing (one process, which needs no process group). Collectives: `collectives.py`.
"""

import datetime
import os
import socket
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from hpc.cluster import slurm, slurm_env
from hpc.distributed import rendezvous
from hpc.runs.run_dir import RunDir

CPU = torch.device("cpu")
START_TIME = 300  # seconds: nodes of a job start their ranks far apart, however short hang_timeout is


@dataclass(frozen=True)
class Comm:
    """Rank, world and device of this process."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: torch.device = CPU
    # The process group in which collectives meet: None = that of the training.
    group: dist.ProcessGroup | None = None

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0


def _numbers(*names: str) -> list[int] | None:
    """Read environment variables as integers; None where one is missing."""
    values = [os.environ.get(name) for name in names]
    return [int(value) for value in values if value is not None] if None not in values else None


def rank_from_env() -> tuple[int, int, int]:
    """Return (rank, world, local rank) from the environment."""
    numbers = _numbers("RANK", "WORLD_SIZE", "LOCAL_RANK") or _numbers(
        "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID"
    )
    rank, world, local = numbers or slurm_env.rank_from_env() or (0, 1, 0)
    return rank, world, local


def place_is_slurm() -> bool:
    """Return whether `srun`, and no launcher below it, gave this process its rank."""
    return slurm_env.rank_from_env() is not None


def connect(run: Path, *, timeout: int, device: str = "auto") -> Comm:
    """Join the other ranks of the run. `timeout`: seconds without an answer before a collective raises.

    LostRank names a rank that has died or does not come.
    """
    rank, world, local = rank_from_env()
    use_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    where = torch.device("cuda", local % torch.cuda.device_count()) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(where)
    if world > 1:
        patience, others = timeout, ""
        if place_is_slurm():
            address, port = slurm_env.rendezvous()
            os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
            patience = max(timeout, START_TIME)
            addresses = (slurm.address(node) for node in slurm_env.nodes())
            others = next((other for other in addresses if not other.startswith("127.")), "")
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
    return Comm(rank, world, local, where)


def with_own_group(comm: Comm, *, timeout: int) -> Comm:
    """Return a comm whose collectives, on the CPU, may run in a thread beside those of the training.

    All ranks call it. `timeout`: seconds without an answer before a collective raises.
    """
    if comm.world == 1:
        return comm
    group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout))
    return replace(comm, device=CPU, group=group)


def _choose_interface(address: str, other: str) -> None:
    """Name the network interface to gloo where the host's own name would mislead it.

    `address`: where ranks meet. `other`: of some node of the job, as the network knows it; empty on one
    machine, or where all nodes are this one.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    if not other:
        if address == "localhost" or address.startswith("127."):
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the host's name may not resolve on a laptop
    elif slurm.address(socket.gethostname()).startswith("127."):  # as Debian's installer writes /etc/hosts
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((other, 9))  # sends nothing: the kernel names the way
            own_address = asking.getsockname()[0]
        for name, entries in psutil.net_if_addrs().items():
            if any(entry.address == own_address for entry in entries):
                os.environ["GLOO_SOCKET_IFNAME"] = name


def disconnect() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
