"""Ranks for tests: processes forked from one server that has torch imported, so a launch costs a fraction of
a second.

`launch(function, world, *args)` runs `function(here, *args)` on every rank of a real gloo group and
returns the results by rank. Functions must be importable: they live in `tests/`, not in a test's closure.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from hpc.distributed.comm import connect, disconnect

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "torch.distributed", "hpc.distributed.comm", "tests.support.preload"]
)


def _rank(function: Callable, rank: int, world: int, folder: str, args: tuple) -> Any:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ.pop("MASTER_ADDR", None)
    comm = connect(Path(folder), timeout=120, device="cpu")
    try:
        return function(comm, *args)
    finally:
        disconnect()


def launch(function: Callable, world: int, *args: Any) -> list[Any]:
    """Results of `function(here, *args)` by rank; the first exception of a rank is raised here."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(world, mp_context=CONTEXT) as pool,
    ):
        futures = [pool.submit(_rank, function, rank, world, folder, args) for rank in range(world)]
        return [future.result(timeout=300) for future in futures]
