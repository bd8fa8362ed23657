"""The tiny jobs of `tests/support/tasks`: importing this module makes them tasks like any other."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import hpc.tasks
from hpc import train
from hpc.checkpoints import store
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from launch.options import compose, conf

TASKS = Path(__file__).with_name("tasks")
if str(TASKS) not in hpc.tasks.__path__:
    hpc.tasks.__path__.append(str(TASKS))


@contextlib.contextmanager
def submittable(folder: Path) -> Iterator[None]:
    """Let `task=` know the yamls of the tiny jobs inside of the block; `folder` is made, with all yamls."""
    shutil.copytree(conf.CONF, folder)
    for path in TASKS.glob("*.yaml"):
        shutil.copy(path, folder / "task")
    caches = (compose.task_yaml, compose._tree)
    try:
        with mock.patch.object(compose, "CONF", folder), mock.patch.object(conf, "CONF", folder):
            for cached in caches:
                cached.cache_clear()
            yield
    finally:
        for cached in caches:
            cached.cache_clear()


class Killed(Exception):
    """Stands for SIGKILL: nothing after the update is done."""


def train_until(comm: Comm, run: str, clocks: list[int], place: str = "step") -> list[int]:
    """Train to the end; at each of the clocks the ranks die, before anything that is due, and start again.

    place: a crash point; one inside a save, such as `save2`, is for one rank alone

    Returns the clock of every start.
    """
    starts = []
    for clock in [*clocks, -1]:

        def die(reached: str, now: int, rank: int = 0, at: int = clock) -> None:
            if (reached, now) == (place, at):
                raise Killed

        with (
            mock.patch.object(train.fault_injection, "crash_point", die),
            contextlib.closing(train.Trainer(RunDir(Path(run)), comm)) as trainer,
            contextlib.suppress(Killed),
        ):
            starts.append(trainer.clock)
            trainer.fit()
    return starts


def final(run: Path) -> dict[str, Any]:
    """Every tensor and number of the last checkpoint, as bytes by name."""
    saved = store.read(store.listing(run)[-1])
    found: dict[str, Any] = {"clock": saved.clock, "updates": saved.updates, "monitor": saved.monitor}
    for kind in ("players", "optim", "ema"):
        for player, tensors in getattr(saved, kind).items():
            for name, tensor in tensors.items():
                found[f"{kind}/{player}/{name}"] = tensor.numpy().tobytes()
    found["task"] = repr(saved.task)
    return found


@contextlib.contextmanager
def with_yaml(folder: Path, task: str, *lines: str) -> Iterator[None]:
    """Let `rostro submit` know a tiny job: `folder` gets a copy of the configs, and its yaml."""
    shutil.copytree(conf.CONF, folder)
    (folder / "task" / f"{task}.yaml").write_text("\n".join(["# @package _global_", *lines, ""]))
    caches = (compose.task_yaml, compose._tree)
    with mock.patch.object(compose, "CONF", folder), mock.patch.object(conf, "CONF", folder):
        for cached in caches:
            cached.cache_clear()
        yield
    for cached in caches:
        cached.cache_clear()
