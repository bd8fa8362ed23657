"""The account of a run's time: it adds up to the time that its processes lived, and names what was lost."""

import json
import time
from pathlib import Path

import pytest

from data_shards.files import write_json
from hpc.runs import failures, goodput
from hpc.runs.goodput import KINDS, TimeLedger
from hpc.runs.run_dir import RunDir
from launch.cli import main
from tests.support.runs import finish, make_run, start
from tests.support.sets import pack_set


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
    found = goodput.summary(run)
    assert found["starts"] == 2
    assert found["allocated"] == pytest.approx(60 + 26)
    # of the first start's 100 -> 200 in 20 s, half was done again; 9 s passed between its last word and its
    # end
    assert found["seconds"]["redone"] == pytest.approx(10 + 9)
    assert found["seconds"]["train"] == pytest.approx(30 + 20)
    assert sum(found["seconds"].values()) == pytest.approx(found["allocated"])
    assert found["goodput"] == pytest.approx(50 / 86)


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    run = RunDir(tmp_path)
    write(run, "a", {"began": 0.0, "time": 5.0, "clock": 0, "seconds": seconds(startup=5)})
    with run.ledger_file.open("a") as file:
        file.write('{"start": "a", "began": 0.0, "ti')
    assert goodput.summary(run)["allocated"] == 5.0


def test_nested_kinds_count_once(tmp_path):
    account = TimeLedger(RunDir(tmp_path), main=True)
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


def test_a_start_that_never_trained_loses_nothing_of_the_one_before(tmp_path):
    run = RunDir(tmp_path)
    trained = {"began": 0.0, "clock": 100, "seconds": seconds(startup=5, train=20)}
    write(run, "a", trained | {"time": 5.0, "clock": 0, "seconds": seconds(startup=5)})
    write(run, "a", trained | {"time": 25.0})
    write(run, "b", {"began": 30.0, "time": 34.0, "clock": None, "seconds": seconds(startup=4)})
    write(run, "c", {"began": 40.0, "time": 45.0, "clock": 75, "seconds": seconds(startup=5)})
    found = goodput.summary(run)
    assert found["starts"] == 3
    assert found["allocated"] == pytest.approx(25 + 4 + 5)
    assert found["seconds"]["redone"] == pytest.approx(5)
    assert found["seconds"]["train"] == pytest.approx(15)


def test_what_a_dead_run_did_not_save_is_lost(tmp_path):
    run = RunDir(tmp_path)
    write(run, "a", {"began": 0.0, "time": 5.0, "clock": 0, "seconds": seconds(startup=5)})
    write(run, "a", {"began": 0.0, "time": 25.0, "clock": 100, "seconds": seconds(startup=5, train=20)})
    (run.checkpoints / "000000000060").mkdir(parents=True)
    assert goodput.summary(run)["seconds"]["redone"] == 0
    assert goodput.summary(run, over=True)["seconds"]["redone"] == pytest.approx(8)


def test_the_time_of_a_job_is_that_of_its_allocation(tmp_path, monkeypatch):
    """The batch script outlives ranks that left no word, and notes no end for the start before."""
    run, now = RunDir(tmp_path), time.time()
    monkeypatch.setattr(goodput, "_age", lambda: 30.0)  # of this process: it has run other tests
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    answer = {"StartTime": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now - 60))}
    monkeypatch.setattr("hpc.cluster.slurm.job_info", lambda job: answer)
    first = {"began": now - 300, "time": now - 200, "clock": 0, "seconds": seconds(startup=100)}
    write(run, "a", first | {"job": "7", "restart": 0}, {"ended": now - 190})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    goodput.ended(run)
    assert goodput.summary(run)["allocated"] == pytest.approx(110 + 60, abs=2)
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    account = TimeLedger(run, main=True)
    assert account.head["began"] == pytest.approx(now - 60, abs=1)
    assert account.seconds["startup"] == pytest.approx(60, abs=2)
    account.write(0)
    assert TimeLedger(run, main=True).head["began"] >= now - 60 + 1  # a second start in the same allocation


def test_injected_losses_add_up_to_the_life_of_the_processes(tmp_path, shards, capsys):
    """kill -9 at 240 after a checkpoint at 192; steps, saves, evaluation and data are slowed."""
    run = make_run(tmp_path / "runs" / "r", shards)
    slow = {"step": 0.1, "save": 0.4, "evaluate": 0.8, "wait": 0.05}
    lived = 0.0
    for fault in ("step@240", ""):
        before = time.monotonic()
        variables = {"SLOWED": json.dumps(slow)} | ({"ROSTRO_FAULT": fault} if fault else {})
        [(code, _, error)] = finish(start(run, program="tests.support.slowed", variables=variables))
        goodput.ended(RunDir(run))  # as the batch script does
        lived += time.monotonic() - before
        assert code == (-9 if fault else 0), error
    found = goodput.summary(RunDir(run))
    spent = found["seconds"]
    assert found["starts"] == 2
    assert found["allocated"] == pytest.approx(lived, rel=0.05)
    assert sum(spent.values()) == pytest.approx(lived, rel=0.05)
    step = spent["train"] / 20  # 320 images in batches of 16
    assert step > slow["step"]
    # 192 -> 240 was done again: three steps, their waiting, and what the kill itself took
    assert 3 * slow["step"] <= spent["redone"] <= 3 * (step + slow["wait"]) + 0.5
    assert spent["save"] >= 4 * slow["save"]  # at 96, 192, 288, 320
    assert spent["evaluate"] >= 2 * slow["evaluate"]  # at 160, 320
    assert spent["wait"] >= 20 * slow["wait"] - 1e-6  # the first batch of each start belongs to starting
    assert found["goodput"] == pytest.approx((spent["train"] + spent["evaluate"]) / found["allocated"])
    assert main(["status", "r", f"runs={tmp_path / 'runs'}"]) == 0
    shown = capsys.readouterr().out
    assert "lost, done again" in shown
    assert "starts 2" in shown


def leave(run: RunDir, rank: int, error: Exception, world: int = 4) -> None:
    failures.leave(run, failures.Place(rank, world, clock=64), error)


CLOSED = "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"
TIMED_OUT = (
    "[gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 8000ms for recv operation to complete"
)


def test_the_root_cause_is_the_first_that_failed_by_its_own_fault(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    monkeypatch.setenv("ROSTRO_ATTEMPT", "one")
    leave(run, 0, RuntimeError(CLOSED))
    leave(run, 3, ValueError("image lfw-000000.tar:a.jpg\nis damaged"))
    leave(run, 2, RuntimeError("Connection reset by peer"))
    leave(run, 1, ValueError("image lfw-000000.tar:b.jpg is damaged"))
    assert failures.root_cause(run) == failures.RootCause(3, "image lfw-000000.tar:a.jpg is damaged")
    line = json.loads((run.failures / "one-rank3.json").read_text())
    assert line["clock"] == 64
    assert line["error"] == "ValueError"
    assert line["host"]
    monkeypatch.setenv("ROSTRO_ATTEMPT", "two")  # of several starts the last one counts
    leave(run, 1, ValueError("out of memory"), world=2)
    assert failures.root_cause(run) == failures.RootCause(1, "out of memory")
    write_json(run.status_file, {"attempt": "three", "began": time.time()})
    assert failures.root_cause(run) is None


def test_a_silent_rank_is_the_root_cause_before_those_that_lost_it(tmp_path, monkeypatch):
    """On another host nobody sees whether it lives: what the others say tells death from hanging."""
    run = RunDir(make_run(tmp_path / "r", tmp_path))
    monkeypatch.setenv("ROSTRO_ATTEMPT", "one")
    places = {str(rank): ["elsewhere", 100 + rank, 1.0] for rank in range(4)}
    write_json(run.status_file, {"attempt": "one", "began": time.time(), "pids": places, "state": "running"})
    assert failures.root_cause(run) is None
    for rank, said in ((3, TIMED_OUT), (0, CLOSED), (1, TIMED_OUT)):  # 0 lost 3, which had left
        leave(run, rank, RuntimeError(said))
    assert failures.root_cause(run).rank == 2
    assert "it hung" in failures.root_cause(run).message
    leave(run, 3, RuntimeError(CLOSED))
    assert failures.root_cause(run).rank == 2
    assert "died without a word" in failures.root_cause(run).message


def test_a_rank_that_is_killed_is_named_to_the_user(tmp_path, shards, capsys):
    run = make_run(tmp_path / "runs" / "r", shards, procs=2)
    ends = finish(start(run, 2, variables={"ROSTRO_FAULT": "step@96/1"}))
    assert [code for code, *_ in ends] == [1, -9]
    assert failures.root_cause(RunDir(run)).rank == 1
    [left] = RunDir(run).failures.glob("*-rank0.json")
    assert json.loads(left.read_text())["clock"] in (80, 96)
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
    for odd in ("rank\u00b2.log", "rankx.log", f"rank{'9' * 50}.log"):
        (logs / odd).write_text("not a rank's\n")
    for word in ("7", "-1", "abc", "\u00b2", "1_0", "0x1", "", "9" * 5000):
        assert main(["logs", "r", f"runs={tmp_path / 'runs'}", f"rank={word}"]) == 2
        error = capsys.readouterr().err
        assert f"rank={word} is not known: use failed, all or one of 0, 1" in error
        assert error.count("\n") == 1
    (logs / "rank1.log").unlink()
    assert main(["logs", "r", f"runs={tmp_path / 'runs'}", "rank=guilty"]) == 2
    assert "rank 1 ended run r and left no log" in capsys.readouterr().err
