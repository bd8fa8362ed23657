"""A task that ends its run early: at the same clock on all ranks, and after a resume."""

from pathlib import Path
from unittest import mock

import pytest

from hpc import train
from hpc.checkpoints import store
from hpc.config.schema import Evaluate, Log, Save
from hpc.task import build_task
from hpc.tasks.siamese import Siamese
from tests.support import tiny
from tests.support.ranks import launch
from tests.support.runs import make_run
from tests.support.sets import pack_set


class Ending(Siamese):
    """Ends at the second evaluation."""

    seen: tuple = ()

    def judged(self, scalars, clock):
        self.seen = (*self.seen, [clock, scalars["verification/eer"]])

    def ended(self):
        return len(self.seen) >= 2

    def state(self):
        return super().state() | {"seen": list(self.seen)}

    def load_state(self, state):
        super().load_state(state)
        self.seen = tuple(state["seen"])


def trained(comm, run, clocks, place="step"):
    """Train to the end as `Ending` does, killed at each of the clocks."""

    def built(config):
        task = build_task(config)
        task.__class__ = Ending
        return task

    with mock.patch.object(train, "build_task", built):
        return tiny.train_until(comm, run, clocks, place)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return pack_set(tmp_path_factory.mktemp("set"), identities=8, each=4)


def run_of(path: Path, shards: Path, procs: int) -> Path:
    save, judge = Save(every=48), Evaluate(every=64, batch=16)
    return make_run(path, shards, procs=procs, save=save, eval=judge, log=Log(every=32))


def test_a_run_ends_where_its_task_says_so_whatever_happened_before(tmp_path, shards):
    """It ends at 128 of 320 images, as the second evaluation has it."""
    straight, killed = (run_of(tmp_path / name, shards, 2) for name in ("straight", "killed"))
    launch(trained, 2, str(straight), [])
    assert launch(trained, 2, str(killed), [80, 112]) == [[0, 64, 96]] * 2
    last = [store.read(store.listing(run)[-1]) for run in (straight, killed)]
    assert [saved.clock for saved in last] == [128, 128]
    assert [clock for clock, _ in last[0].task["seen"]] == [64, 128]
    assert tiny.final(straight) == tiny.final(killed)


def test_a_run_that_has_ended_ends_at_once_when_it_is_started_again(tmp_path, shards):
    run = run_of(tmp_path / "run", shards, 1)
    launch(trained, 1, str(run), [])
    before = tiny.final(run)
    assert launch(trained, 1, str(run), []) == [[128]]
    assert tiny.final(run) == before
