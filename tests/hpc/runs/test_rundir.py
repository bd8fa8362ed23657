"""The run directory: one owner at a time, dead owners recognised, status that does not lie."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_shards.errors import UserError
from data_shards.files import write_json
from hpc.config.parse import save_config
from hpc.config.schema import Config
from hpc.runs.processes import alive, mark
from hpc.runs.run_dir import RunDir, list_runs

SLEEPER = [sys.executable, "-c", "input()"]
TAKER = (
    "import sys; from hpc.runs.run_dir import RunDir; print(RunDir(sys.argv[1]).ownership.acquire()); input()"
)


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "runs" / "a"
    path.mkdir(parents=True)
    save_config(Config(), path / "config.yaml")
    return RunDir(path)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def take_elsewhere(run: RunDir) -> subprocess.Popen:
    """Another process that holds the run until its stdin closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKER, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    return process


def test_a_process_is_known_by_its_start_time(sleeper):
    host, pid, started = mark(sleeper.pid)
    assert alive(host, pid, started) is True
    assert alive(host, pid, started - 60) is False  # the pid was given to somebody else
    assert alive("elsewhere", pid, started) is None
    sleeper.kill()
    while sleeper.poll() is None:
        pass
    assert alive(host, pid, started) is False


def test_a_zombie_is_dead(sleeper):
    place = mark(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # ended, and not asked for: a zombie
    assert alive(*place) is False


def test_a_living_owner_keeps_the_run_closed_and_a_dead_one_does_not(run):
    holder = take_elsewhere(run)
    with pytest.raises(UserError, match=f"in use by a living job .process {holder.pid}.: `rostro stop a`"):
        run.ownership.acquire()
    assert run.ownership.in_use()
    holder.kill()
    holder.wait()
    assert not run.ownership.in_use()
    assert run.ownership.acquire() == 1
    assert run.ownership.read()["pid"] == os.getpid()


def test_a_child_may_take_what_its_parent_holds(run):
    assert run.ownership.acquire() == 0
    child = take_elsewhere(run)
    assert run.ownership.read()["pid"] == child.pid
    assert run.ownership.read()["restarts"] == 0
    child.communicate("")


def test_a_requeue_of_the_same_job_takes_over(run, sleeper):
    write_json(
        run.lock_file, dict(zip(("host", "pid", "started"), mark(sleeper.pid), strict=True)) | {"job": "12"}
    )
    assert run.ownership.acquire(job="12") == 1
    write_json(
        run.lock_file, dict(zip(("host", "pid", "started"), mark(sleeper.pid), strict=True)) | {"job": "12"}
    )
    with pytest.raises(UserError, match="in use"):
        run.ownership.acquire(job="13")


def test_an_owner_on_another_host_counts_as_living(run):
    write_json(run.lock_file, {"host": "elsewhere", "pid": 1, "started": 1.0, "job": ""})
    with pytest.raises(UserError, match="on elsewhere"):
        run.ownership.acquire()


def test_a_living_rank_keeps_the_run_closed_when_its_owner_is_dead(run, sleeper):
    write_json(run.lock_file, {"host": mark()[0], "pid": 0, "started": 0.0, "job": ""})
    run.write_status(state="running", pids={"1": mark(sleeper.pid)})
    with pytest.raises(UserError, match=f"process {sleeper.pid}"):
        run.ownership.acquire()


def test_of_many_takers_one_wins(run):
    """Processes that are strangers to each other, all at once, over a dead owner's lock."""
    write_json(run.lock_file, {"host": mark()[0], "pid": 0, "started": 0.0, "job": "", "restarts": 3})
    code = (
        "import sys\nfrom hpc.runs.run_dir import RunDir\nfrom data_shards.errors import UserError\n"
        "input()\n"
        "try: print(RunDir(sys.argv[1]).ownership.acquire())\nexcept UserError: print('refused')\n"
        "input()"
    )
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(run.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(4)
    ]

    def go(process):
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(go, takers))
    for process in takers:
        process.communicate("\n")
    assert answers == ["4", "refused", "refused", "refused"]
    assert sorted(path.name for path in run.path.iterdir()) == [
        ".lock.json.guard",
        "config.yaml",
        "lock.json",
    ]


def test_hand_over_and_release(run, sleeper):
    run.ownership.acquire()
    run.ownership.transfer_to_process(sleeper.pid)
    assert run.ownership.read()["pid"] == sleeper.pid
    run.ownership.release()  # not ours any more
    assert run.ownership.in_use()
    sleeper.kill()
    sleeper.wait()
    assert run.ownership.acquire() == 1
    run.ownership.release()
    assert not run.ownership.in_use()
    assert run.ownership.acquire() == 2


def test_status_names_a_dead_run(run, sleeper):
    assert run.status()["state"] == "prepared"
    run.write_status(state="running", clock=5, pids={"0": mark(sleeper.pid)})
    assert run.status()["state"] == "running"
    sleeper.kill()
    sleeper.wait()
    assert run.status()["state"] == "dead"
    assert run.status()["clock"] == 5
    run.write_status(state="finished")
    assert run.status()["state"] == "finished"


def test_what_auto_became_is_written_once(run):
    assert run.resolved() == {}
    assert run.resolve({"backend": "host"}) == {"backend": "host"}
    assert run.resolve({"backend": "dali", "precision": "fp32"}) == {"backend": "host", "precision": "fp32"}
    assert run.resolved() == {"backend": "host", "precision": "fp32"}


def test_runs_are_found_by_name_or_path(run, tmp_path):
    runs = tmp_path / "runs"
    assert RunDir.open("a", runs=runs).path == run.path
    assert RunDir.open(run.path).path == run.path
    assert [found.name for found in list_runs(runs)] == ["a"]
    with pytest.raises(UserError, match="there are: a"):
        RunDir.open("b", runs=runs)
    with pytest.raises(UserError, match="runs=FOLDER"):
        RunDir.open("b", runs=tmp_path)


def test_json_is_replaced_whole(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    write_json(tmp_path / "x.json", {"a": 2})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
