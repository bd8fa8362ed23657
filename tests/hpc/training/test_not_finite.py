"""A loss that is not a number, in any phase or update: no bad checkpoint, one message on all ranks."""

import contextlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from torch import Tensor

from data_shards.errors import UserError
from hpc.checkpoints import store
from hpc.config.schema import Data, Engine, Evaluate, Log, Save
from hpc.distributed.comm import Comm
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Phase
from hpc.train import Trainer
from tests.support import tiny
from tests.support.ranks import launch
from tests.support.runs import make_run
from tests.support.sets import pack_set

# phase and clock of an update: the first; one whose end is a stage's and has a save; the first of a stage;
# one of the lazy phase, in mid-fade; one after whose end nothing is due; the last
SPOILT = [("make", 0), ("judge", 64), ("make", 96), ("r1", 112), ("judge", 208), ("make", 272)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that grows at 96 and 192, with all its checkpoints."""
    folder = tmp_path_factory.mktemp("growing")
    shards = pack_set(folder, identities=8, each=4)
    data = Data(train=str(shards / "train"), size=32, backend="host", threads=1)
    run = make_run(
        folder / "straight",
        shards,
        procs=2,
        images=288,
        data=data,
        task={"name": "growing"},
        engine=Engine(name="flat"),
        save=Save(every=32, last=20),
        eval=Evaluate(every=1000),
        log=Log(every=1000),
    )
    launch(tiny.train_until, 2, str(run), [])
    return run


class Spoilt:
    """A task's loss that is not a number in one phase at one clock on the last rank."""

    def __init__(self, loss: Callable[..., Tensor], place: tuple[int, str, int]) -> None:
        self.loss, self.place = loss, place

    def __call__(self, phase: Phase, nets: Any, batch: Batch, clock: int) -> Tensor:
        found = self.loss(phase, nets, batch, clock)
        return found * math.nan if self.place == (1, phase.name, clock) else found


def spoilt(comm: Comm, runs: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """The error of each run, spoilt on the last rank in the phase and at the clock that name it."""
    errors = {}
    for (name, clock), run in runs.items():
        with contextlib.closing(Trainer(RunDir(Path(run)), comm)) as trainer:
            loss = Spoilt(trainer.task.loss, (comm.rank, name, clock))
            with mock.patch.object(trainer.task, "loss", loss), pytest.raises(UserError) as caught:
                trainer.fit()
        errors[name, clock] = str(caught.value)
    return errors


def test_any_update_that_is_not_finite_is_named_and_never_saved(tmp_path: Path, straight: Path) -> None:
    runs, newest = {}, {}
    for name, clock in SPOILT:
        run = shutil.copytree(straight, tmp_path / f"{name}{clock}", symlinks=True)
        for path in store.listing(run):
            if int(path.name) > clock:
                shutil.rmtree(path)
        if not store.listing(run):
            (run / "saved.json").unlink()
            (run / "status.json").unlink(missing_ok=True)
        runs[name, clock], newest[name, clock] = str(run), [path.name for path in store.listing(run)]
    found = launch(spoilt, 2, runs)
    assert found[0] == found[1]
    for (name, clock), error in found[0].items():
        text = f"the loss of rank 1 is not finite: phase {name}, clock {clock}, sample ids ["
        assert error.startswith(text), (name, clock)
        assert "\n" not in error
        saved = [path.name for path in store.listing(Path(runs[name, clock]))]
        assert saved == newest[name, clock] == [n for n in saved if int(n) <= clock]
