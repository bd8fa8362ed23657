"""`rostro doctor` on this machine, and what it says of machines and accounting that are not here."""

import json
from pathlib import Path

import pytest

from hpc.config import apex
from launch.doctor import machine, site, slurm
from launch.doctor.finding import Finding
from launch.doctor.site import Need, Site
from tests.support.command import rostro

CPU = {"torch": "2.13.0+cpu", "cuda": None, "gpus": [], "nccl": None, "dali": None}
GPU = {
    "torch": "2.13.0",
    "cuda": "13.0",
    "gpus": [["NVIDIA H100", 79]] * 4,
    "nccl": "2.27.5",
    "bf16": True,
    "dali": "2.4.0",
}


def named(found: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in found}


def test_the_command_reports_on_this_machine(tmp_path: Path) -> None:
    done = rostro("doctor", "only=machine", "json=true", cwd=tmp_path, XDG_CONFIG_HOME=str(tmp_path))
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert {"GPU", "NCCL", "DALI", "Apex", "DeepSpeed", "runs", "checkout", "environment"} <= set(found)
    assert done.returncode == int(any(finding["level"] == "harmful" for finding in found.values()))
    assert str(tmp_path / "runs") in found["runs"]["text"]
    assert not (tmp_path / "runs").exists()  # looking makes nothing


def test_without_slurm_one_is_offered(tmp_path: Path) -> None:
    done = rostro("doctor", "only=slurm", cwd=tmp_path, SLURM_CONF=str(tmp_path / "none"), PATH="/nowhere")
    assert done.returncode == 0, done.stderr
    assert "missing  SLURM" in done.stdout
    assert "-> log in to the cluster, or try one at home: slurm/sandbox.sh up DIR" in done.stdout
    trial = rostro("doctor", "only=slurm", "trial=true", cwd=tmp_path, PATH="/nowhere")
    assert trial.returncode == 2
    assert "error: trial=true needs a SLURM that answers" in trial.stderr


def test_words_that_are_not_known_are_refused(tmp_path: Path) -> None:
    assert "only=gpu is not known: use machine or slurm" in rostro("doctor", "only=gpu", cwd=tmp_path).stderr
    assert "did you mean save_seconds?" in rostro("doctor", "save_second=3", cwd=tmp_path).stderr


def test_a_node_with_gpus() -> None:
    found = named(machine.judge(GPU, slurm=True))
    assert found["GPU"].text == "4 x NVIDIA H100 (79 GiB), torch 2.13.0"
    assert [found[what].level for what in ("GPU", "NCCL", "DALI")] == ["ok"] * 3
    without = named(machine.judge(GPU | {"nccl": None, "bf16": False, "dali": None}, slurm=False))
    assert without["NCCL"].level == without["DALI"].level == "missing"
    assert "precision=auto means fp32" in without["bf16"].text


def test_no_gpu_is_right_on_a_login_node_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_nvidia_smi", lambda: False)
    assert named(machine.judge(CPU, slurm=False))["GPU"].level == "missing"
    login = named(machine.judge(CPU, slurm=True))["GPU"]
    assert login.level == "note"
    assert "srun --gpus-per-node=1 rostro doctor only=machine" in login.advice
    monkeypatch.setattr(machine, "_nvidia_smi", lambda: True)
    unused = named(machine.judge(CPU, slurm=False))["GPU"]
    assert unused.level == "harmful"
    assert "CUDA none: this is the CPU build" in unused.text


def test_a_library_that_cannot_be_imported_is_named() -> None:
    broken = named(machine.judge({"error": "libcudart.so.13: cannot open"}, slurm=False))
    assert broken["torch"].level == "harmful"
    assert "libcudart.so.13" in broken["torch"].text
    dali = named(machine.judge(CPU | {"dali_error": "undefined symbol"}, slurm=False))["DALI"]
    assert "undefined symbol" in dali.text
    assert "data.backend=host" in dali.advice


@pytest.mark.parametrize(
    ("kind", "level", "word"),
    [
        ("nvidia", "ok", "works"),
        ("no kernels", "missing", "amp_C"),
        ("unrelated", "harmful", "pip uninstall apex"),
        ("missing", "missing", "optim.impl=torch"),
    ],
)
def test_apex_of_each_kind(monkeypatch: pytest.MonkeyPatch, kind: str, level: str, word: str) -> None:
    monkeypatch.setattr(apex, "installation", lambda: kind)
    found = named(machine.judge(CPU, slurm=False))["Apex"]
    assert found.level == level
    assert word in found.text + found.advice


def test_variables_left_over_from_a_search_for_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_IB_DISABLE", "1")
    monkeypatch.setenv("NCCL_P2P_DISABLE", "0")
    found = named(machine.judge(GPU, slurm=True))
    assert found["NCCL_IB_DISABLE"].advice == "unset NCCL_IB_DISABLE"
    assert "NCCL_P2P_DISABLE" not in found


def test_a_folder_that_the_nodes_do_not_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()  # the mount point of a file server
    mounts = [(str(tmp_path / "shared"), "nfs4"), ("/", "ext4")]
    monkeypatch.setattr(machine, "_mounts", lambda: mounts)
    places = {"runs": tmp_path / "local" / "runs", "shards": tmp_path / "shared" / "shards"}
    found = named(machine.folders(places, elsewhere=True))
    assert (found["runs"].level, found["shards"].level) == ("harmful", "ok")
    assert "on ext4" in found["runs"].text
    assert named(machine.folders(places, elsewhere=False))["runs"].level == "ok"


@pytest.mark.parametrize(
    ("text", "value"),
    [("30 sec", 30), ("5 min", 300), ("00:01:30", 90), ("1-02:00:00", 93600), ("UNLIMITED", -1), ("7", 7)],
)
def test_times_as_slurm_writes_them(text: str, value: int) -> None:
    assert site.seconds(text) == value


def test_preemption_by_qos_and_an_account_that_jobs_must_name() -> None:
    config = {
        "PreemptType": "preempt/qos",
        "PreemptMode": "REQUEUE",
        "KillWait": "120 sec",
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageEnforce": "associations,limits",
        "ProctrackType": "proctrack/pgid",
        "SlurmdTimeout": "0 sec",
        "GresTypes": "gpu",
        "SelectType": "select/linear",
    }
    parts = [{"PartitionName": "gpu", "MaxTime": "04:00:00", "TotalNodes": "8"}]
    nodes = [{"NodeName": "a1", "NodeHostName": "a1", "Gres": "gpu:h100:4(S:0-1)", "State": "IDLE+DRAIN"}]
    qos = [
        {"Name": "urgent", "PreemptMode": "cluster", "GraceTime": "00:00:00", "Preempt": "spare"},
        {"Name": "spare", "PreemptMode": "cluster", "GraceTime": "00:00:10", "Preempt": ""},
    ]
    site = Site(config, parts, nodes, qos)
    found = named(slurm.judge(site, Need(60, "save_seconds=60")))
    assert "qos spare: GraceTime=10 s" in found["GraceTime"].text
    assert (
        found["GraceTime"].level == found["ProctrackType"].level == found["SlurmdTimeout"].level == "harmful"
    )
    assert "gpu:h100:4" in found["GPU plugin"].text
    assert "SelectType=select/cons_tres" in found["GPU plugin"].advice
    assert found["account"].advice.startswith("cluster.account=NAME")
    assert found["accounting"].level == "ok"
    assert found["MaxTime"].advice.startswith("hours=4")
    assert found["MaxTime"].level == "note"  # no job goes there
    there = named(slurm.judge(site, Need(60, "save_seconds=60", partition="gpu")))
    assert (there["MaxTime"].level, there["MaxTime"].advice) == ("harmful", "hours=4 (or in the site file)")
    assert found["nodes"].text == "a1 take no jobs"
    assert found["default partition"].advice == "cluster.partition=gpu (site file)"
    assert slurm.elsewhere(site)


def test_a_warning_shorter_than_a_save() -> None:
    found = named(slurm.judge(Site({}), Need(200, "measured in big", warning=120)))
    assert found["warning"].level == "harmful"
    assert "cluster.warning=400" in found["warning"].advice
    assert "--signal=B:USR1@400" in found["warning"].advice
