"""The account of a run's time: it adds up to the time that its processes lived, and names what was lost."""

import json
import time
from pathlib import Path

import pytest

from hpc import failure, ledger
from hpc.ledger import KINDS, Ledger
from hpc.rundir import RunDir
from launch.cli import main
from tests.runs import finish, make_run, start
from tests.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"))


def write(run: RunDir, start: str, *lines: dict) -> None:
    with run.ledger_file.open("a") as file:
        for line in lines:
            file.write(json.dumps({"start": start} | line) + "\n")


def seconds(**given: float) -> dict[str, float]:
    return dict.fromkeys(KINDS, 0.0) | given


def test_a_killed_start_is_charged_for_what_is_done_again(tmp_path):
    run = RunDir(tmp_path)
    first = {"began": 100.0}
    write(
        run,
        "a",
        first | {"time": 110.0, "clock": 0, "seconds": seconds(startup=10)},
        first | {"time": 131.0, "clock": 100, "seconds": seconds(startup=10, train=20, save=1)},
        first | {"time": 151.0, "clock": 200, "seconds": seconds(startup=10, train=40, save=1)},
        {"ended": 160.0},
    )
    second = {"began": 200.0, "time": 205.0, "clock": 150, "seconds": seconds(startup=5)}
    write(
        run,
        "b",
        second,
        second | {"time": 226.0, "clock": 250, "seconds": seconds(startup=5, train=20, save=1)},
    )
    found = ledger.summary(run)
    assert found["starts"] == 2
    assert found["allocated"] == pytest.approx(60 + 26)
    # of the first start's 100 -> 200 in 20 s, half was done again; 9 s passed between its last word and its end
    assert found["seconds"]["redone"] == pytest.approx(10 + 9)
    assert found["seconds"]["train"] == pytest.approx(30 + 20)
    assert sum(found["seconds"].values()) == pytest.approx(found["allocated"])
    assert found["goodput"] == pytest.approx(50 / 86)


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    run = RunDir(tmp_path)
    write(run, "a", {"began": 0.0, "time": 5.0, "clock": 0, "seconds": seconds(startup=5)})
    with run.ledger_file.open("a") as file:
        file.write('{"start": "a", "began": 0.0, "ti')
    assert ledger.summary(run)["allocated"] == 5.0


def test_nested_kinds_count_once(tmp_path):
    account = Ledger(RunDir(tmp_path), main=True)
    account.seconds["startup"] = 0.0
    account.enter("train")
    began = time.perf_counter()
    with account.spend("evaluate"), account.spend("save"):
        while time.perf_counter() < began + 0.05:
            pass
    account.enter("shutdown")
    assert account.seconds["save"] >= 0.049
    assert account.seconds["evaluate"] < 0.02
    assert sum(account.seconds.values()) < time.perf_counter() - began + 0.5


def test_a_killed_and_resumed_run_adds_up_to_the_life_of_its_processes(tmp_path, shards, capsys):
    """kill -9 at 160 after a checkpoint at 96: 64 images are done again."""
    run = make_run(tmp_path / "runs" / "r", shards)
    lived = 0.0
    for fault in ("step@160", ""):
        before = time.time()
        [(code, _, error)] = finish(start(run, variables={"ROSTRO_FAULT": fault} if fault else {}))
        ledger.ended(RunDir(run))  # as the batch script does
        lived += time.time() - before
        assert code == (-9 if fault else 0), error
    found = ledger.summary(RunDir(run))
    assert found["starts"] == 2
    assert found["allocated"] == pytest.approx(lived, rel=0.05)
    assert sum(found["seconds"].values()) == pytest.approx(found["allocated"], rel=0.05)
    assert found["seconds"]["redone"] > 0
    assert found["seconds"]["train"] > found["seconds"]["redone"]
    assert found["seconds"]["evaluate"] > 0
    assert 0 < found["goodput"] < 1
    assert main(["status", "r", f"runs={tmp_path / 'runs'}"]) == 0
    shown = capsys.readouterr().out
    assert "lost, done again" in shown
    assert "starts 2" in shown


def test_the_guilty_rank_is_the_first_that_failed_by_its_own_fault(tmp_path):
    run = RunDir(tmp_path)
    failure.leave(
        run, 0, RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1")
    )
    assert failure.guilty(run) is None
    failure.leave(run, 3, ValueError("picture lfw-000000.tar:a.jpg\nis damaged"))
    failure.leave(run, 2, RuntimeError("Connection reset by peer"))
    assert failure.guilty(run) == failure.Guilty(3, "picture lfw-000000.tar:a.jpg is damaged")
    failure.clear(run)
    assert failure.guilty(run) is None


def test_a_rank_that_is_killed_is_named_to_the_user(tmp_path, shards, capsys):
    run = make_run(tmp_path / "runs" / "r", shards, procs=2)
    ends = finish(start(run, 2, variables={"ROSTRO_FAULT": "step@96/1"}))
    assert [code for code, *_ in ends] == [1, -9]
    assert failure.guilty(RunDir(run)).rank == 1
    message = RunDir(run).status()["message"]
    assert message.startswith("rank 1: it died without a word")
    assert "rostro resume r" in message
    logs = RunDir(run).logs
    logs.mkdir()
    for rank in (0, 1):
        (logs / f"rank{rank}.log").write_text("".join(f"line {line} of {rank}\n" for line in range(50)))
    assert main(["status", "r", f"runs={tmp_path / 'runs'}"]) == 0
    shown = capsys.readouterr().out
    assert "rank 1 ended it" in shown
    assert "line 49 of 1" in shown
    for words, wanted in (
        (["rank=guilty", "lines=1"], "line 49 of 1\n"),
        (["lines=2"], "line 48 of 0\nline 49 of 0\n"),
        (["rank=all", "lines=1", "follow=true"], "rank 0 | line 49 of 0\nrank 1 | line 49 of 1\n"),
    ):
        assert main(["logs", "r", f"runs={tmp_path / 'runs'}", *words]) == 0
        assert capsys.readouterr().out == wanted
    assert main(["logs", "r", f"runs={tmp_path / 'runs'}", "rank=7"]) == 2
    assert "rank=7 is not known: use guilty, all or one of 0, 1" in capsys.readouterr().err
