"""Asynchronous saving: the copy, waiting, failures on all ranks, kills, and a run that it does not change."""

import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data_shards.errors import UserError
from hpc.checkpoints import async_writer, safetensors_writer, store
from hpc.checkpoints.store import Checkpoint
from hpc.config.schema import Save
from hpc.runs.run_dir import RunDir
from launch.audit.compare import differences, last_checkpoint
from tests.hpc.checkpoints.test_checkpoint import make
from tests.support.runs import finish, make_run, start, wait_for
from tests.support.sets import pack_set

ASYNC = Save(every=96, mode="async")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """An undisturbed run of 2 ranks that saves in the foreground."""
    run = make_run(tmp_path_factory.mktemp("runs") / "straight", shards, procs=2)
    assert [code for code, *_ in finish(start(run, 2))] == [0, 0]
    return run


@pytest.mark.parametrize("dtype", sorted(safetensors_writer.DTYPES, key=str))
def test_the_file_is_what_the_library_reads(tmp_path: Path, dtype: torch.dtype) -> None:
    numbers = torch.arange(-60, 60).reshape(2, 3, 4, 5)
    tensors = {
        "strided": numbers.to(dtype).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(1).to(dtype),
        "nothing": torch.zeros(0, 4).to(dtype),
        "odd \N{SNOWMAN}": torch.ones(3, dtype=torch.uint8),
        "double": torch.tensor([0.1], dtype=torch.float64),
    }
    with ThreadPoolExecutor(1) as pool:
        size, hashed = safetensors_writer.write(
            tmp_path / "t.safetensors", safetensors_writer.encode(tensors), pool
        )
    assert size == (tmp_path / "t.safetensors").stat().st_size
    assert hashed.result() == store._hash(tmp_path / "t.safetensors")
    loaded = load_file(tmp_path / "t.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_tensors_that_share_memory_are_both_written(tmp_path: Path) -> None:
    state = make(64)
    state.players["net"]["tied"] = state.players["net"]["w"]
    loaded = store.read(store.save(tmp_path, state))
    assert torch.equal(loaded.players["net"]["tied"], state.players["net"]["w"])


def _change(state: Checkpoint) -> None:
    for part in (state.players, state.optim, state.ema):
        for tensor in part["net"].values():
            tensor.add_(1)
    state.task["threshold"].add_(1)
    state.task["pool"].append(3)
    state.monitor["sums"]["loss"][0] = 99.0


class Held:
    """A write that stands still until it is let go."""

    def __init__(self, run: Path) -> None:
        self.run, self.go, self.begun = run, threading.Event(), 0

    def __call__(self, state: Checkpoint) -> None:
        self.begun += 1
        assert self.go.wait(60)
        store.save(self.run, state)


def test_what_is_written_is_the_state_of_the_call_and_a_second_save_waits(tmp_path: Path) -> None:
    held = Held(tmp_path)
    hand = async_writer.AsyncCheckpointWriter(held, background=True)
    live = make(64)
    live.players["net"]["w"] = live.players["net"]["w"].to(memory_format=torch.channels_last)
    for clock in (64, 128):
        wanted = make(clock)
        live.clock = clock
        for part in ("players", "optim", "ema"):
            for name, tensor in getattr(live, part)["net"].items():
                tensor.copy_(getattr(wanted, part)["net"][name])
        live.task = {"threshold": torch.tensor(0.25), "pool": [1, 2]}
        live.monitor = {"sums": {"loss": [0.1 + 0.2, 3]}}
        if clock == 128:
            threading.Timer(0.2, held.go.set).start()
            assert store.listing(tmp_path) == []
        assert hand.save(live) == ""
        if clock == 128:  # the first one was waited for
            assert int(store.listing(tmp_path)[0].name) == 64
        _change(live)
    assert hand.wait() == ""
    assert held.begun == 2
    for path in store.listing(tmp_path):
        loaded, wanted = store.read(path), make(int(path.name))
        for part in ("players", "optim", "ema"):
            for name, tensor in getattr(wanted, part)["net"].items():
                assert torch.equal(getattr(loaded, part)["net"][name], tensor), (path, part, name)
        assert torch.equal(loaded.task["threshold"], torch.tensor(0.25))
        assert (loaded.task["pool"], loaded.monitor) == ([1, 2], wanted.monitor)


def test_the_copy_keeps_its_memory_and_follows_a_state_that_grows() -> None:
    hand = async_writer.StagingBuffer()
    first = hand.take(make(64)).players["net"]["w"]
    second = hand.take(make(128)).players["net"]["w"]
    assert first.data_ptr() == second.data_ptr()
    assert torch.equal(second, make(128).players["net"]["w"])
    grown = make(192)
    grown.players["net"]["w"] = torch.ones(2, 2)
    grown.players["other"] = {"w": torch.zeros(3)}
    taken = hand.take(grown)
    assert torch.equal(taken.players["net"]["w"], torch.ones(2, 2))
    assert taken.players["other"]["w"].data_ptr() != grown.players["other"]["w"].data_ptr()


@pytest.mark.parametrize("failure", [UserError("the disk is full"), TypeError("a bug\nof two lines")])
def test_a_failure_in_the_thread_is_one_line_and_stays(failure: Exception) -> None:
    def write(state: Checkpoint) -> None:
        raise failure

    hand = async_writer.AsyncCheckpointWriter(write, background=True)
    assert hand.save(make(64)) == ""
    line = hand.wait()
    assert line.splitlines() == [line]
    assert str(failure).splitlines()[0] in line
    assert hand.save(make(128)) == line


def test_a_process_that_may_not_change_its_priority_saves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(async_writer.os, "setpriority", refused)
    hand = async_writer.AsyncCheckpointWriter(
        lambda state: store.save(tmp_path, state) and None, background=True
    )
    assert hand.save(make(64)) == hand.wait() == ""
    assert [path.name for path in store.listing(tmp_path)] == [f"{64:012d}"]


def _run(folder: Path, shards: Path, **changes: Any) -> Path:
    return make_run(folder / "run", shards, **({"procs": 2, "save": ASYNC} | changes))


@pytest.mark.parametrize("fault", ["", "save3@192", "savecommit@96", "step@200/1"])
def test_killed_or_not_an_asynchronous_run_equals_a_synchronous_one(
    tmp_path: Path, shards: Path, straight: Path, fault: str
) -> None:
    run = _run(tmp_path, shards)
    if fault:
        codes = [code for code, *_ in finish(start(run, 2, variables={"ROSTRO_FAULT": fault}))]
        assert codes[int(fault[-1]) if "/" in fault else 0] == -signal.SIGKILL
        newest = [int(path.name) for path in store.listing(run)][-1:]
        # 160 is an evaluation's best. The kill of the other rank leaves rank 0 the time to end the save of
        # 192.
        assert newest == {"save3@192": [160], "savecommit@96": [], "step@200/1": [192]}[fault]
    assert [code for code, *_ in finish(start(run, 2))] == [0, 0]
    assert differences(straight, run) == []
    assert not list(store.folder_of(run).glob(".*"))
    # What is the best, and what is pruned, does not depend on the mode either.
    assert {path.name for path in store.listing(run)} == {path.name for path in store.listing(straight)}


def test_a_signal_waits_for_the_save(tmp_path: Path, shards: Path, straight: Path) -> None:
    run = _run(tmp_path, shards)
    ranks = start(run, 2)
    wait_for(lambda: int(RunDir(run).status().get("clock", 0) or 0) >= 64)
    ranks[1].send_signal(signal.SIGTERM)
    assert [code for code, *_ in finish(ranks)] == [0, 0]
    stopped = RunDir(run).status()
    assert (stopped["state"], stopped["clock"]) == ("stopped", int(last_checkpoint(run).name))
    assert [code for code, *_ in finish(start(run, 2))] == [0, 0]
    assert differences(straight, run) == []


def test_a_full_disk_ends_all_ranks_with_one_line(tmp_path: Path, shards: Path) -> None:
    run = _run(tmp_path, shards, images=3200)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (350_000, 350_000))

    found = finish(start(run, 2, preexec_fn=small_files))
    assert [code for code, *_ in found] == [1, 1]
    for _, _, err in found:
        assert len(err.strip().splitlines()) == 1, err
        assert "rank 0: checkpoint" in err
        assert "was not saved" in err
    assert list(store.folder_of(run).iterdir()) == []
    assert RunDir(run).status()["state"] == "failed"
