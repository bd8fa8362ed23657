"""`rostro doctor` on real SLURMs of many configurations: each gives its own advice, and no other."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import ROOT, Cluster, require_slurm

pytestmark = pytest.mark.slurm

PORT = 24000 + os.getpid() % 40 * 100
GOOD = {"NODES": 1, "KILL_WAIT": 120, "GRACE_TIME": 120}  # seconds; a save takes 60 unless said otherwise
SETTINGS: dict[str, dict[str, Any]] = {
    "good": {},
    "short KillWait": {"KILL_WAIT": 5},
    "requeue off": {"REQUEUE": 0},
    "cancelled": {"PREEMPT_MODE": "CANCEL"},
    "suspended": {"PREEMPT_MODE": "SUSPEND"},
    "not preempted": {"PREEMPT_MODE": "OFF"},
    "short grace": {"GRACE_TIME": 20},
    "no grace": {"GRACE_TIME": 0, "KILL_WAIT": 10},
    "no GPU plugin": {"GPUS": 0},
    "accounting, exit codes, limit": {"CRED_EXPIRE": 30, "EXTRA": "RequeueExit=1-3\nMinJobAge=300"},
}

Report = dict[str, tuple[str, str, str]]  # name of the finding -> (level, text, advice)


def doctor(cluster: Cluster, *words: str, code: int) -> Report:
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "doctor", "json=true", "only=slurm", *words],
        cwd=ROOT,
        env=cluster.env | {"XDG_CONFIG_HOME": str(cluster.folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return {
        found["what"]: (found["level"], found["text"], found["advice"]) for found in json.loads(done.stdout)
    }


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Cluster]]:
    """A SLURM of one node for each configuration, all up together: they only answer questions."""
    require_slurm()
    folder = tmp_path_factory.mktemp("sites")

    def up(item: tuple[int, str]) -> Cluster:
        number, name = item
        port = PORT + number % 10 + number // 10 * 20  # and ten above it, of the node
        return Cluster(folder / str(number), **(GOOD | {"PORT": port} | SETTINGS[name]))

    with ThreadPoolExecutor(len(SETTINGS)) as pool:
        found = dict(zip(SETTINGS, pool.map(up, enumerate(SETTINGS)), strict=True))
        yield found
        list(pool.map(Cluster.down, found.values()))


def harmful(report: Report) -> set[str]:
    return {what for what, (level, _, _) in report.items() if level == "harmful"}


def test_a_good_configuration_is_not_blamed(sites: dict[str, Cluster]) -> None:
    report = doctor(sites["good"], code=0)
    assert harmful(report) == set()
    assert report["partitions"][1] == "main* (1 nodes), preempt (1 nodes)"
    assert report["GPU plugin"][:2] == ("ok", "gpu:4 a node: gpus=N asks for them")
    assert report["JobRequeue"][0] == report["PreemptMode"][0] == report["GraceTime"][0] == "ok"


def test_no_accounting_is_missing_and_nothing_needs_it(sites: dict[str, Cluster]) -> None:
    level, text, advice = doctor(sites["good"], code=0)["accounting"]
    assert level == "missing"
    assert "sacct has no records" in text
    assert "leave cluster.account out" in advice
    assert "scontrol" in advice
    late = doctor(sites["accounting, exit codes, limit"], code=1)
    assert "forgets a job 300 s after its end" in late["accounting"][1]


def test_killwait_shorter_than_a_save(sites: dict[str, Cluster]) -> None:
    report = doctor(sites["short KillWait"], code=1)
    assert harmful(report) == {"KillWait"}
    _, text, advice = report["KillWait"]
    assert "5 s from TERM to KILL, a step and a save take 60 s (save_seconds=60)" in text
    assert "ask the admin: KillWait=120" in advice
    assert "rostro stop" in advice
    assert harmful(doctor(sites["short KillWait"], "save_seconds=4", code=0)) == set()


def test_requeue_off_harms_only_jobs_that_do_not_ask_for_it(sites: dict[str, Cluster]) -> None:
    level, text, advice = doctor(sites["requeue off"], code=0)["JobRequeue"]
    assert level == "note"
    assert text.startswith("0: a job that does not ask for it is not requeued")
    assert "#SBATCH --requeue" in advice
    # What the advice rests on: a job that asks is requeued there all the same.
    site = sites["requeue off"]
    job = site.run("sbatch", "--parsable", "--requeue", "--output=/dev/null", "--wrap=sleep 60").strip()
    site.wait("the job to run", lambda: site.state(job) == "RUNNING")
    site.run("scontrol", "requeue", job)
    site.wait("the job to be requeued", lambda: site.job(job)["Restarts"] == "1")


def test_preemption_by_cancel(sites: dict[str, Cluster]) -> None:
    report = doctor(sites["cancelled"], code=1)
    assert harmful(report) == {"PreemptMode"}
    assert "cancelled" in report["PreemptMode"][1]
    assert "ask the admin: PreemptMode=REQUEUE for partition preempt" in report["PreemptMode"][2]
    assert "rostro resume RUN" in report["PreemptMode"][2]


def test_preemption_by_suspension_and_none(sites: dict[str, Cluster]) -> None:
    report = doctor(sites["suspended"], code=1)
    assert harmful(report) == {"PreemptMode"}
    assert "suspended" in report["PreemptMode"][1]
    report = doctor(sites["not preempted"], code=0)
    assert report["preemption"][:2] == ("ok", "off: no job takes the nodes of another")
    assert "GraceTime" not in report


def test_grace_time_shorter_than_a_save(sites: dict[str, Cluster]) -> None:
    report = doctor(sites["short grace"], code=1)
    assert harmful(report) == {"GraceTime"}
    _, text, advice = report["GraceTime"]
    assert "partition preempt: GraceTime=20 s from TERM to KILL" in text
    assert "ask the admin: GraceTime=120 for partition preempt" in advice
    report = doctor(sites["no grace"], code=1)
    assert harmful(report) == {"KillWait", "GraceTime"}
    assert "GraceTime=0, so KillWait=10 s" in report["GraceTime"][1]


def test_times_are_judged_by_what_the_run_measured(sites: dict[str, Cluster], tmp_path: Path) -> None:
    from hpc.config.parse import save_config
    from hpc.config.schema import Config
    from hpc.runs.goodput import KINDS

    run = tmp_path / "runs" / "fast"
    run.mkdir(parents=True)
    save_config(Config(name="fast", task={"name": "siamese"}, batch=64), run / "config.yaml")
    (run / "status.json").write_text(json.dumps({"state": "stopped", "rate": 32.0}))
    before = doctor(sites["short grace"], "run=fast", f"runs={run.parent}", code=1)
    assert "(save_seconds=60)" in before["GraceTime"][1]
    sums = [("a", 0.0), ("a", 3.5), ("a", 4.0), ("b", 2.0), ("b", 8.0)]  # the longest took 6 seconds
    times, none = {"began": 0.0, "time": 9.0, "clock": 1}, dict.fromkeys(KINDS, 0.0)
    lines = [json.dumps({"start": start, **times, "seconds": none | {"save": save}}) for start, save in sums]
    (run / "ledger.jsonl").write_text("\n".join([*lines, '{"start": "b", "ended": 1', ""]))
    report = doctor(sites["short grace"], "run=fast", f"runs={run.parent}", code=0)
    assert report["GraceTime"][1].endswith("GraceTime=20 s, a step and a save take 8 s")  # 6 s and 64 / 32 s
    (run / "ledger.jsonl").write_text(
        json.dumps({"start": "a", **times, "seconds": none | {"save": 30.0}}) + "\n"
    )
    report = doctor(sites["short grace"], "run=fast", f"runs={run.parent}", code=1)
    assert "take 32 s (measured in fast)" in report["GraceTime"][1]
    assert "GraceTime=70" in report["GraceTime"][2]


def test_no_gpu_plugin(sites: dict[str, Cluster]) -> None:
    level, text, advice = doctor(sites["no GPU plugin"], code=0)["GPU plugin"]
    assert level == "missing"
    assert "GresTypes does not name gpu" in text
    assert "GresTypes=gpu" in advice
    assert "gres.conf" in advice
    refused = subprocess.run(
        ["sbatch", "--gpus-per-node=1", "--wrap=true"],
        env=sites["no GPU plugin"].env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.returncode != 0  # as the text says


def test_exit_codes_that_requeue_for_ever_and_a_late_restart(sites: dict[str, Cluster]) -> None:
    report = doctor(sites["accounting, exit codes, limit"], code=1)
    assert harmful(report) == {"RequeueExit"}
    assert "1-3" in report["RequeueExit"][1].replace("1,2,3", "1-3")
    assert "starts after 30 s" in report["restart"][1]


def test_a_trial_job_shows_folders_and_signals(cluster: Cluster, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    report = doctor(cluster, "trial=true", "nodes=2", f"runs={runs}", "save_seconds=4", code=0)
    assert report["trial"][0] == report["python"][0] == report["signals"][0] == "ok"
    assert f"2 nodes see {runs}" in report["trial"][1]
    assert list(runs.iterdir()) == []
    assert cluster.run("squeue", "-h", "--name=rostro-doctor") == ""


def test_a_trial_that_cannot_start_says_what_to_try(cluster: Cluster, tmp_path: Path) -> None:
    report = doctor(cluster, "trial=true", "nodes=99", f"runs={tmp_path}", "save_seconds=4", code=1)
    level, text, advice = report["trial"]
    assert level == "harmful"
    assert "99 nodes does not start (reason Partition" in text
    assert "fewer nodes=" in advice
    assert list(tmp_path.iterdir()) == []
    assert cluster.run("squeue", "-h", "--name=rostro-doctor") == ""
