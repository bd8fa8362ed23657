"""Prepared runs for tests: a run directory made from a Config, its code being this checkout."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc.config.parse import save_config
from hpc.config.schema import Config, Data, Ema, Evaluate, Log, Optim, Save
from tests.support.forked_rank import ForkedRank

ROOT = Path(__file__).parents[2]
Rank = subprocess.Popen | ForkedRank
TASK = {
    "name": "siamese",
    "trunk": "small",
    "embedding": 16,
    "loss": "contrastive",
    "margin": 1.0,
    "temperature": 0.1,
    "mirror": False,
}


def data_of(shards: Path, **changes: Any) -> Data:
    """The set under `shards`, small and by one host thread; `changes`: fields of Data."""
    sets = {"train": str(shards / "train"), "eval": str(shards / "eval")}
    return Data(**{"size": 32, "order": "groups", "backend": "host", "threads": 1} | sets | changes)


def make_run(path: Path, shards: Path, **changes: Any) -> Path:
    """A run of 320 images in batches of 16 on the set under `shards`; `changes`: fields of Config."""
    values: dict[str, Any] = {
        "images": 320,
        "batch": 16,
        "precision": "fp32",  # on any machine: `auto` is bf16 where that is fast
        "data": data_of(shards),
        "ema": Ema(half_life=100),
        "save": Save(every=96),
        "eval": Evaluate(every=160, batch=16),
        "log": Log(every=32, projector=8),
        "optim": Optim(warmup=64),
        "task": dict(TASK),
    }
    path.mkdir(parents=True)
    save_config(Config(**(values | changes)), path / "config.yaml")
    (path / "code").symlink_to(ROOT)
    return path


def environment(rank: int = 0, world: int = 1, attempt: str = "test") -> dict[str, str]:
    """The variables of one rank."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "ROSTRO_ATTEMPT": attempt}
    rest = {key: value for key, value in os.environ.items() if key != "MASTER_ADDR"}
    return rest | place | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(
    run: Path,
    world: int = 1,
    *,
    variables: Mapping[str, str] | None = None,
    program: str = "hpc.train",
    preexec_fn: Callable[[], None] | None = None,
    fork: bool = True,
) -> list[Rank]:
    """The ranks of a run as processes, their output as text in pipes.

    They are forked from a server that has torch loaded, but for another `program`, a `preexec_fn`, and a test
    of a process's first and last instants (`fork=False`).
    """
    attempt = f"test-{time.monotonic_ns()}"
    ranks: list[Rank] = []
    for rank in range(world):
        place = environment(rank, world, attempt) | dict(variables or {})
        if fork and program == "hpc.train" and not preexec_fn:
            ranks.append(ForkedRank(run, place, ROOT))
            continue
        command = [sys.executable, "-m", program, str(run)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        ranks.append(subprocess.Popen(command, cwd=ROOT, env=place, preexec_fn=preexec_fn, **pipes))
    return ranks


def finish(ranks: list[Rank], timeout: float = 240) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of every rank."""
    try:
        found = []
        for process in ranks:
            out, err = process.communicate(timeout=timeout)
            found.append((process.returncode, out, err))
        return found
    finally:
        for process in ranks:
            process.kill()


def wait_for(condition: Any, timeout: float = 120) -> None:
    """Poll until `condition()` holds; AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.02)
