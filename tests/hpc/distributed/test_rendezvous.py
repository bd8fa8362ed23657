"""Ranks that die, fail or never come before the ranks have met: the others end and name them."""

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from data_shards.errors import LostRank, UserError
from hpc.distributed import rendezvous
from hpc.runs import failures
from hpc.runs.run_dir import RunDir
from launch.start import local
from tests.support.runs import finish, make_run, start, wait_for


def test_a_rank_killed_before_it_connects_is_named_by_the_others(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tmp_path / "no set", procs=2, hang_timeout=600)
    ranks = start(run, 2, fork=False)
    ranks[1].send_signal(signal.SIGSTOP)
    wait_for(lambda: any(b"place/0" in path.read_bytes() for path in run.glob(".rendezvous-*")))
    time.sleep(2 * rendezvous.POLL)  # rank 0 has looked around
    ranks[1].kill()
    ((code, _, err),) = finish(ranks[:1], timeout=60)
    ranks[1].communicate()
    assert code == 1
    assert err.splitlines()[-1].startswith(
        "error: rank 1 died before the ranks met: it was killed by a signal"
    )
    assert failures.root_cause(RunDir(run)).rank == 1
    assert RunDir(run).status()["message"].startswith("rank 1 died before the ranks met")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_at_its_first_instant_is_named(tmp_path: Path, victim: int) -> None:
    """By the launcher's children: it never wrote a word."""
    run = RunDir(make_run(tmp_path / "run", tmp_path / "no set", procs=2, hang_timeout=600))
    watcher = psutil.Process(local.start_ranks(run, 2))
    wait_for(lambda: len(watcher.children()) == 2)
    ranks = {rank_of(process): process for process in watcher.children()}
    ranks[victim].kill()
    wait_for(lambda: not watcher.is_running() or watcher.status() == psutil.STATUS_ZOMBIE, timeout=60)
    status = run.status()
    assert status["state"] == "failed"
    assert status["message"].startswith(f"rank {victim} died before the ranks met")


def rank_of(process: psutil.Process) -> int:
    wait_for(lambda: "SUBMITIT_LOCAL_GLOBALID" in process.environ())
    return int(process.environ()["SUBMITIT_LOCAL_GLOBALID"])


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> rendezvous.Watch:
    """Rank 0 of 3, which waits for 0 seconds."""
    monkeypatch.setenv("ROSTRO_ATTEMPT", "this")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    return rendezvous.Watch(RunDir(make_run(tmp_path / "run", tmp_path)), 0, 3, 0)


def test_ranks_that_do_not_arrive_are_named(watch: rendezvous.Watch) -> None:
    store = rendezvous.open_store(watch.run.path, 0, 3, watch)
    store.set("place/1", json.dumps(["another host", 1, 1.0]))
    with pytest.raises(
        LostRank, match=r"rank 2 of 3 did not arrive within 0 seconds: see `rostro logs run rank=2`"
    ):
        rendezvous.meet(store, 0, 3, watch)


def test_rank_0_that_does_not_listen_is_named(watch: rendezvous.Watch, monkeypatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "9")
    with pytest.raises(LostRank, match="rank 0 of 3 did not arrive"):
        rendezvous.open_store(watch.run.path, 1, 3, watch)


def test_a_rank_that_fails_before_the_ranks_met_is_named_with_its_reason(watch: rendezvous.Watch) -> None:
    failures.leave(watch.run, failures.Place(2, 3), UserError("data.size=7 is too small: use 32"))
    with pytest.raises(LostRank, match="rank 2 failed before the ranks met: data") as lost:
        watch.look({1})
    failures.leave(watch.run, failures.Place(0, 3), lost.value)
    assert failures.root_cause(watch.run) == failures.RootCause(2, "data.size=7 is too small: use 32")
    (watch.run.failures / "this-rank1.json").write_text('{"attempt": "this", "rank": "x"}')
    with pytest.raises(LostRank, match="rank 2 failed"):
        watch.look({1})


def test_a_failure_of_an_earlier_start_ends_nothing(watch: rendezvous.Watch, monkeypatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.0)
    failures.leave(watch.run, failures.Place(2, 3), UserError("old: news"))
    monkeypatch.undo()
    watch.patience = 9
    watch.look({1})
