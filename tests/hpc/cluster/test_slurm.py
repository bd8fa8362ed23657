"""What is read from SLURM's variables and answers, without a SLURM."""

import os

import pytest

from data_shards.files import write_json
from hpc.cluster import slurm, slurm_env
from hpc.distributed.comm import _choose_interface
from hpc.runs import requeue
from hpc.runs.run_dir import RunDir


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("n0", ["n0"]),
        ("n[0-2,7],gpu[09-10]x", ["n0", "n1", "n2", "n7", "gpu09x", "gpu10x"]),
        ("r[1-2]n[3,5]", ["r1n3", "r1n5", "r2n3", "r2n5"]),
        ("a.b.c,d-1", ["a.b.c", "d-1"]),
    ],
)
def test_node_lists(text: str, nodes: list[str]) -> None:
    assert slurm_env.hosts(text) == nodes


def test_a_rank_is_a_process_of_a_step_and_of_nothing_else() -> None:
    batch = {"SLURM_JOB_ID": "5", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert slurm_env.rank_from_env(batch) is None
    assert slurm_env.rank_from_env({}) is None
    step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
    assert slurm_env.rank_from_env(batch | step) == (3, 4, 1)
    for nearer in ("RANK", "SUBMITIT_LOCAL_GLOBALID"):
        assert slurm_env.rank_from_env(batch | step | {nearer: "0"}) is None


def test_a_job_is_named_by_its_array_index() -> None:
    assert slurm_env.job_id({}) == ""
    assert slurm_env.job_id({"SLURM_JOB_ID": "5"}) == "5"
    array = {"SLURM_JOB_ID": "6", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}
    assert slurm_env.job_id(array) == "5_1"


def test_ranks_meet_at_another_port_after_a_requeue() -> None:
    place = {"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost"}
    meetings = [slurm_env.rendezvous(place | {"SLURM_RESTART_COUNT": str(count)}) for count in range(8)]
    assert len({port for _, port in meetings}) == 8
    assert all(slurm_env.PORTS[0] <= port < slurm_env.PORTS[1] for _, port in meetings)
    assert meetings[0] == slurm_env.rendezvous(place)


def test_fields_of_a_job() -> None:
    line = "JobId=7 JobName=two words JobState=PENDING Reason=BeginTime Command=/a/b key=value Restarts=2"
    found = slurm.fields(line)
    assert (found["JobId"], found["JobState"], found["Restarts"]) == ("7", "PENDING", "2")


def test_starts_that_save_nothing_are_counted_and_progress_resets_them(tmp_path) -> None:
    run = RunDir(tmp_path)
    for count in (1, 2):
        requeue.count_start(run)
        assert requeue.stuck_reason(run, 3) == "", count
    requeue.count_start(run)
    assert "3 starts in a row saved nothing beyond the beginning" in requeue.stuck_reason(run, 3)
    (run.checkpoints / "000000000096").mkdir(parents=True)
    assert requeue.stuck_reason(run, 3) == ""
    for _ in range(3):
        requeue.count_start(run)
    assert "beyond clock 96" in requeue.stuck_reason(run, 3)
    requeue.forget_failures(run)
    assert requeue.stuck_reason(run, 3) == ""


def test_who_requeues(tmp_path, monkeypatch) -> None:
    """The owner requeues after a time limit, preemption or crash, not after SLURM did, a stop or the end."""
    run = RunDir(tmp_path)

    def asked(info: dict[str, str], *, crashed: bool = False, **status: object) -> bool:
        monkeypatch.setattr(slurm, "job_info", lambda job: info)
        write_json(run.status_file, {"state": "stopped", "asked": 0, **status})
        return requeue.decision(run, crashed=crashed, job="5", restart=1, attempts=3)[0]

    running = {"JobState": "RUNNING", "Restarts": "1", "PreemptTime": "None"}
    taken = running | {"PreemptTime": "2030-01-01T00:00:00"}
    assert asked(running, asked=2)
    assert asked(taken, asked=1)
    assert asked(running, crashed=True)
    assert not asked(running, asked=1)  # rostro stop, scancel
    assert not asked(running | {"Restarts": "2"}, asked=1)  # scontrol requeue
    assert not asked(taken | {"Restarts": "2"}, crashed=True)
    assert not asked(taken, state="finished")
    for state in ("COMPLETING", "CANCELLED"):  # by scancel, before the ranks could hear it
        assert not asked(running | {"JobState": state}, crashed=True)
    assert asked(running | {"JobState": "COMPLETING", "Reason": "TimeLimit"}, crashed=True)
    assert asked(taken | {"JobState": "COMPLETING"}, crashed=True)
    run.stop_file.touch()
    assert not asked(running, crashed=True)


def test_a_controller_that_is_busy_is_asked_again(tmp_path, monkeypatch) -> None:
    """Its silence is no `rostro stop`: a preempted job would be over without a word."""
    run = RunDir(tmp_path)
    write_json(run.status_file, {"state": "stopped", "asked": 1})
    answers = [{}, {}, {"JobState": "RUNNING", "Restarts": "0", "PreemptTime": "2030-01-01T00:00:00"}]
    monkeypatch.setattr(requeue.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(slurm, "job_info", lambda job: answers.pop(0))
    assert requeue.decision(run, crashed=False, job="5", restart=0, attempts=3) == (True, "")
    assert answers == []
    monkeypatch.setattr(slurm, "job_info", lambda job: {})
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(requeue.time, "monotonic", lambda: next(clock))
    assert requeue.decision(run, crashed=False, job="5", restart=0, attempts=3) == (True, "")
    run.stop_file.touch()
    assert requeue.decision(run, crashed=False, job="5", restart=0, attempts=3) == (False, "")


def test_a_job_that_waits_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "JobId=7 JobState=PENDING Reason=PartitionTimeLimit Restarts=0"
    monkeypatch.setattr(slurm, "ask", lambda *words, **keys: line)
    assert slurm.job_word("7") == "PENDING (PartitionTimeLimit)"
    line = line.replace("PENDING", "RUNNING").replace("PartitionTimeLimit", "None")
    assert slurm.job_word("7") == "RUNNING"


def test_formats_of_the_user_do_not_reach_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_TIME_FORMAT", "relative"), ("SQUEUE_FORMAT", "%i"), ("SLURM_CONF", "/a")):
        monkeypatch.setenv(name, value)
    seen = (slurm.ask("env") or "").splitlines()
    assert {"SLURM_TIME_FORMAT=standard", "SLURM_CONF=/a"} <= set(seen)
    assert not [line for line in seen if line.startswith("SQUEUE_")]


@pytest.mark.parametrize(
    ("address", "other", "own", "chosen"),
    [
        ("127.0.0.1", "", "127.0.0.1", "lo"),
        ("10.0.0.1", "", "127.0.1.1", None),
        ("10.0.0.1", "127.0.0.2", "10.0.0.1", None),  # names of hosts that the network knows
        ("127.0.1.1", "127.0.0.2", "127.0.1.1", "lo"),  # the way to the other node
    ],
)
def test_the_network_of_gloo(
    address: str, other: str, own: str, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "x")  # what is set here is put back afterwards
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(slurm, "address", lambda node: own)
    _choose_interface(address, other)
    assert os.environ.get("GLOO_SOCKET_IFNAME") == chosen
