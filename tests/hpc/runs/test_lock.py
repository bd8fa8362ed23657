"""The lock of a run: of many that take it at once one wins, whatever was there before; damage is named."""

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import UserError
from data_shards.files import FileError
from hpc.runs import lock
from hpc.runs.processes import mark
from hpc.runs.run_dir import RunDir

ROUNDS, TAKERS = 300, 3
STALE = json.dumps({"host": mark()[0], "pid": 0, "started": 0.0, "job": "", "restarts": 3}).encode()
BEFORE = (None, STALE, b"", b"{", STALE[:-9])  # fresh, a dead owner's, and three that are damaged


def _take(folder: Path, barrier: Any, won: Any) -> None:
    """A process that is a stranger to the others: it tries every run, together with them."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number in range(ROUNDS):
        run = RunDir(folder / str(number))
        barrier.wait()
        try:
            run.ownership.acquire()
        except UserError:
            continue
        won.put((number, os.getpid(), run.ownership.read()["restarts"]))
    barrier.wait()  # a winner that left would be a dead owner


def test_of_many_takers_one_wins_in_every_round(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        (tmp_path / str(number)).mkdir()
        before = BEFORE[number % len(BEFORE)]
        if before is not None:
            (tmp_path / str(number) / "lock.json").write_bytes(before)
    fork = multiprocessing.get_context("fork")
    barrier, won = fork.Barrier(TAKERS), fork.Queue()
    takers = [fork.Process(target=_take, args=(tmp_path, barrier, won)) for _ in range(TAKERS)]
    for taker in takers:
        taker.start()
    found = [won.get(timeout=60) for _ in range(ROUNDS)]
    for taker in takers:
        taker.join()
    assert won.empty()
    assert sorted(number for number, *_ in found) == list(range(ROUNDS))
    for number, pid, restarts in found:
        assert RunDir(tmp_path / str(number)).ownership.read()["pid"] == pid
        assert restarts == (4 if BEFORE[number % len(BEFORE)] == STALE else 0)


def test_a_lock_is_swapped_only_if_it_is_the_one_that_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    assert lock.swap(path, None, {"pid": 1})
    seen = lock.content(path)
    assert not lock.swap(path, None, {"pid": 2})
    assert not lock.swap(path, b"{}", {"pid": 2})
    assert lock.read(path) == {"pid": 1}
    assert lock.swap(path, seen, {"pid": 2})
    assert lock.read(path) == {"pid": 2}
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock.json.guard", "lock.json"]


def test_without_flock_a_lock_is_taken_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(lock.fcntl, "flock", none)
    assert RunDir(tmp_path).ownership.acquire() == 0
    assert RunDir(tmp_path).ownership.read()["pid"] == os.getpid()


def test_without_hard_links_a_lock_is_taken_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "lock.json"
    assert lock.swap(path, None, {"pid": 1})
    assert not lock.swap(path, None, {"pid": 2})
    assert lock.read(path) == {"pid": 1}
    assert {found.name for found in tmp_path.iterdir()} == {"lock.json", ".lock.json.guard"}


def test_a_held_guard_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.02)
    with lock.guarded(tmp_path / "lock.json"), pytest.raises(UserError, match=r"lock\.json has been held by"):
        lock.swap(tmp_path / "lock.json", None, {"pid": 1})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "1"}', '{"pid": -1}', '{"host": "a"}', "\x00"])
def test_a_damaged_lock_is_named_and_replaced_only_if_no_rank_may_live(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    run.lock_file.write_text(text)
    with pytest.raises(FileError, match=r"lock\.json.*delete it if no process"):
        run.ownership.read()
    assert run.ownership.new_owner() == ""  # a training goes on
    run.write_status(state="running", pids={"0": mark(os.getppid())})
    with pytest.raises(UserError, match="in use"):
        run.ownership.acquire()
    run.write_status(pids={"0": ["elsewhere", 1, 1.0]})
    with pytest.raises(UserError, match="elsewhere"):
        run.ownership.acquire()
    run.write_status(pids={})
    assert run.ownership.acquire() == 0


def test_living_ranks_keep_a_run_closed_whose_lock_was_deleted(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_status(state="running", pids={"0": mark(os.getppid())})
    with pytest.raises(UserError, match="in use"):
        run.ownership.acquire()
