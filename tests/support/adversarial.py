"""Small runs of the adversarial jobs on a packed set, and what the ranks of their trainers compute."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from torch import Tensor

from data_shards.batch import Batch
from hpc import train
from hpc.config.check import check
from hpc.config.parse import save_config
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.training.player import Player
from launch.options.compose import composed

# By clock, progan and stylegan: 4 pixels from 0, 8 pixels from 32 with a fade until 64, 16 pixels from 96.
SMALL = ("smoke=true", "data.backend=host", "save.every=10_000", "eval.every=10_000", "log.every=10_000")
Gradients = dict[str, np.ndarray]


def adversarial_run(path: Path, job: str, shards: Path, *words: str) -> str:
    """A run directory of `job`, as its smoke has it; words: as for `rostro submit`."""
    config = composed([f"task={job}", *SMALL, f"data.train={shards / 'train'}", *words])
    check(config)
    path.mkdir(parents=True)
    save_config(config, path / "config.yaml")
    return str(path)


@contextlib.contextmanager
def opened(comm: Comm, run: str) -> Iterator[train.Trainer]:
    with contextlib.closing(train.Trainer(RunDir(Path(run)), comm)) as trainer:
        yield trainer


def gradients(comm: Comm, run: str) -> dict[tuple[int, int, str], Gradients]:
    """The gradients of each step of a whole run, by clock, place in the update, and player."""
    found: dict[tuple[int, int, str], Gradients] = {}
    step = Player.update

    def update(player: Player, *args: Any) -> None:
        place = sum(clock == trainer.clock for clock, *_ in found)
        found[trainer.clock, place, player.name] = {
            name: p.grad.numpy().copy() for name, p in player.named if p.grad is not None
        }
        step(player, *args)

    with opened(comm, run) as trainer, mock.patch.object(Player, "update", update):
        while trainer.clock < trainer.config.images:
            trainer.step()
    return found


def drawn(comm: Comm, run: str) -> dict[tuple[int, str], np.ndarray]:
    """All random numbers of this rank's slots in each update, by clock and name: rows of positions."""
    found: dict[tuple[int, str], np.ndarray] = {}

    def recording(make: Any) -> Any:
        def made(batch: Batch, name: str, dim: int) -> Tensor:
            rows = make(batch, name, dim)
            found[trainer.clock, name] = np.c_[batch.positions.numpy(), rows.numpy()]
            return rows

        return made

    with opened(comm, run) as trainer, contextlib.ExitStack() as patches:
        for kind in ("latents", "noise"):
            patches.enter_context(mock.patch.object(Batch, kind, recording(getattr(Batch, kind))))
        while trainer.clock < trainer.config.images:
            trainer.step()
    return found


def losses(comm: Comm, run: str) -> list[dict[str, float]]:
    """Losses and scalars of each update, averaged over the ranks."""
    found = []
    with opened(comm, run) as trainer:
        while trainer.clock < trainer.config.images:
            trainer.step()
            trainer._exchange()
            found.append(trainer.means.of_group("loss"))
            trainer.means = type(trainer.means)()
    return found
