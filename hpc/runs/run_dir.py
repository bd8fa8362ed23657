"""The run directory: where everything of a run lies, who owns it, and what state it is in. Imports no torch.

A run has one owner at a time: `lock.json` names its process by host, pid and start time, so that a pid which the
system gave to somebody else does not keep a dead run closed, and its SLURM job, which may wait in the queue, by id and
count of requeues. Ranks write `status.json`; everybody else only reads. A rank that lost the lock writes nothing more.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from data_shards.errors import UserError
from data_shards.files import FileError, MissingFile, read_yaml
from hpc.cluster import slurm, slurm_env
from hpc.cluster.signals import TIME
from hpc.config.parse import load_config
from hpc.config.schema import Config
from hpc.runs import lock as lockfile
from hpc.runs import status
from hpc.runs.processes import START_TOLERANCE, alive, mark

ACTIVE = ("starting", "running", "saving")  # states that need a living process to be true
RESOLVED = {"precision": ("fp32", "bf16"), "backend": ("host", "dali")}
SUBMITTING = "?"  # in place of a job id while sbatch is asked for one
SUBMIT_TIME = 60.0  # seconds that a job waits for its launcher to write the id down


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` as one step: a reader sees the old text or the new one, never a half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1, allow_nan=True) + "\n")
    os.replace(draft, path)


class RunDir:
    """One run's directory. Making the object touches nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.name = self.path.name
        self.config_file = self.path / "config.yaml"
        self.resolved_file = self.path / "resolved.yaml"
        self.code = self.path / "code"
        self.data_file = self.path / "data.json"
        self.git_file = self.path / "git.json"
        self.logs = self.path / "logs"
        self.submitit = self.path / "submitit"
        self.checkpoints = self.path / "checkpoints"
        self.evaluations = self.path / "evaluations"
        self.metrics_file = self.path / "metrics.jsonl"
        self.ledger_file = self.path / "ledger.jsonl"
        self.failures = self.path / "failures"
        self.lock_file = self.path / "lock.json"
        self.status_file = self.path / "status.json"
        self.threshold_file = self.path / "threshold.json"
        self.saved_file = self.path / "saved.json"  # clock of the newest save: hpc/runs/restart.py
        self.starts_file = (
            self.path / "starts.json"
        )  # starts in a row that did not advance: hpc/runs/requeue.py
        self.stop_file = self.path / "stop-asked"  # `rostro stop` of a job: nobody requeues it

    @classmethod
    def open(cls, path: Path | str, *, runs: Path | str = "runs") -> "RunDir":
        """The existing run at `path`, or the run of that name in the folder `runs`."""
        for place in (Path(path), Path(runs) / path):
            if (place / "config.yaml").is_file():
                return cls(place)
        known = [run.name for run in list_runs(runs)]
        remedy = f"there are: {', '.join(known[-5:])}" if known else "give its path, or runs=FOLDER"
        raise UserError(
            f"{path} is no run directory (it holds no config.yaml), nor is {Path(runs) / path}: {remedy}"
        )

    def log(self, rank: int) -> Path:
        return self.logs / f"rank{rank}.log"

    def config(self) -> Config:
        """The resolved config that the run was made with."""
        return load_config(self.config_file)

    def resolved(self) -> dict[str, Any]:
        """What `auto` became at the first start (backend, precision, data digests); {} before it."""
        try:
            found: dict[str, Any] = read_yaml(self.resolved_file, remedy="restore it; the ranks wrote it")
        except MissingFile:
            return {}
        for key, known in RESOLVED.items():
            if found.get(key, known[0]) not in known:
                raise FileError(
                    f"{self.resolved_file}: {key}={found[key]!a} is not {' or '.join(known)}: restore it"
                )
        return found

    def resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Record what `auto` became, once: a later start gets what the first one wrote, plus what is new."""
        before = self.resolved()
        merged = {**values, **before}
        if merged != before:
            draft = self.resolved_file.with_name(".resolved.yaml")
            draft.write_text(yaml.safe_dump(merged, sort_keys=False))
            os.replace(draft, self.resolved_file)
        return merged

    def status(self) -> dict[str, Any]:
        """status.json as it stands; `state` corrected to `queued` where the run's job waits, to `requeueing` where it
        puts itself back into the queue, and to `dead` where no process is left to make it true.
        """
        values = status.read(self.status_file)
        values.setdefault("state", "prepared")
        job = self.job()
        waiting = values["state"] != "finished" and job and not self._living_here(self.owner())
        if waiting and slurm.job_state(job) in slurm.QUEUED:
            values["state"] = "queued"
        if self._requeueing(job, values):
            values["state"] = "requeueing"
        if values["state"] in ACTIVE and not self.in_use():
            values["state"] = "dead"
        return values

    def _requeueing(self, job: str, values: Mapping[str, Any]) -> bool:
        """Whether the job of a run that has saved and left will start it again by itself: see `hpc/runs/requeue.py`."""
        if values.get("state") != "stopped" or not job or self.stop_file.exists():
            return False
        info = slurm.job_info(job)
        ending = info.get("JobState") in slurm.LIVE - slurm.QUEUED
        return ending and (values.get("asked") == TIME or slurm.preempted(info))

    def write_status(self, **values: Any) -> None:
        """Change some entries of status.json (rank 0, or the launcher before ranks exist)."""
        self.check_owner()
        write_json(self.status_file, {**status.read_or_warn(self.status_file), **values, "time": time.time()})

    def ranks(self) -> dict[int, list[Any]]:
        """rank -> [host, pid, start time] of the last start, living or not."""
        places = status.read(self.status_file).get("pids", {})
        return {int(rank): list(place) for rank, place in places.items()}

    def owner(self) -> dict[str, Any]:
        """The lock's content: host, pid, started, job, slurm_restarts, restarts; {} where nobody ever took it.

        Raises FileError where it is damaged.
        """
        return lockfile.read(self.lock_file)

    def job(self) -> str:
        """The SLURM job that the run belongs to, waiting, running or ended; empty for a run of one machine."""
        return _job(self.owner())

    def in_use(self) -> bool:
        """Whether the owner, one of its ranks or its SLURM job lives: a job that waits in the queue does.

        Of a process of another host only SLURM knows; without a job, or an answer, it counts as living.
        """
        return self._in_use(self.owner())

    def _in_use(self, lock: Mapping[str, Any]) -> bool:
        if self._living_here(lock):
            return True
        job = _job(lock)
        if job:
            state = slurm.job_state(job)
            if state is not None or slurm.answers():
                return state in slurm.LIVE
            return True
        if lock and lock["pid"] <= 0:  # given back
            return False
        return any(alive(*holder) is None for holder in self._holders(lock))

    def _holders(self, lock: Mapping[str, Any]) -> list[list[Any]]:
        owner = [[lock.get("host", ""), lock["pid"], lock.get("started")]] if lock else []
        return [*owner, *self.ranks().values()]

    def _living_here(self, lock: Mapping[str, Any]) -> bool:
        return any(alive(*holder) is True for holder in self._holders(lock))

    def lost_to(self) -> str:
        """Who owns the run in place of this process, in words; empty where it may write.

        A damaged lock names no other owner: it does not end a training.
        """
        try:
            lock = self.owner()
        except FileError:
            return ""
        if not lock or [socket.gethostname(), os.getpid()] == [lock.get("host"), lock["pid"]]:
            return ""
        if lock.get("job") and slurm_env.in_step():
            mine = [lock["job"], lock.get("slurm_restarts", 0)] == [
                slurm_env.job_id(),
                slurm_env.restart_count(),
            ]
            return "" if mine else self._who(lock)
        living = alive(lock.get("host", ""), lock["pid"], lock.get("started")) is True
        # A launcher holds it for its ranks.
        free = not living or lock.get("job") or self._heir(lock, os.getpid())
        return "" if free else self._who(lock)

    def check_owner(self) -> None:
        """UserError where the run has another owner by now: whoever is left of an earlier start stops writing."""
        other = self.lost_to()
        if other:
            raise UserError(
                f"run {self.path} belongs to another start now ({other}): this one writes nothing more"
            )

    def take(self, *, job: str = "", pid: int | None = None) -> int:
        """Become the owner and return how often the run was started before.

        A dead owner is replaced, and so is a damaged lock where no recorded rank may live, an ancestor of this process
        (the launcher took the directory for its ranks) and, where `job` is not empty, an earlier start of the same job.
        Anybody else: UserError.
        """
        host, number, started = mark(pid)
        end = time.monotonic() + SUBMIT_TIME
        while True:
            seen, lock = self._seen()
            if not job or lock.get("job") != SUBMITTING or time.monotonic() > end:
                break
            time.sleep(0.1)
        requeued = bool(job) and lock.get("job") == job
        if requeued and lock.get("slurm_restarts", 0) > slurm_env.restart_count():
            raise UserError(f"run {self.path} was started again by its job {job}: this start of it is over")
        heir = bool(lock) and (self._heir(lock, number) or (requeued and lock.get("queued", False)))
        if not heir and not requeued and self._in_use(lock):
            raise UserError(self.refusal())
        restarts = int(lock.get("restarts", 0)) + (not heir) if lock else 0
        wanted = {"host": host, "pid": number, "started": started, "job": job, "restarts": restarts}
        wanted["slurm_restarts"] = slurm_env.restart_count() if job not in ("", SUBMITTING) else 0
        if not lockfile.swap(self.lock_file, seen, wanted):
            raise UserError(
                f"run {self.path} was taken by another process this moment: `rostro status` shows it"
            )
        return restarts

    def _seen(self) -> tuple[bytes | None, dict[str, Any]]:
        """The lock as it stands, and what it says: {} where it is damaged, too."""
        seen = lockfile.content(self.lock_file)
        try:
            return seen, lockfile.parse(self.lock_file, seen)
        except FileError as error:
            print(f"warning: {error}", file=sys.stderr)
            return seen, {}

    def give_to_job(self, job: str) -> None:
        """The owner is a SLURM job from now on; its first rank takes the lock when it starts. Empty: none is."""
        given = {
            "pid": 0,
            "job": job,
            "slurm_restarts": slurm_env.restart_count() if job == slurm_env.job_id() else 0,
        }
        lockfile.change(self.lock_file, **given, queued=bool(job))

    def hand_over(self, pid: int) -> None:
        """Make another process of this host the owner in place of this one (the launcher leaves, the job stays)."""
        host, number, started = mark(pid)
        lockfile.change(self.lock_file, host=host, pid=number, started=started)

    def release(self) -> None:
        """Give the lock back if this process holds it; the count of starts stays."""
        seen, lock = self._seen()
        if lock.get("pid") == os.getpid() and lock.get("host") == socket.gethostname():
            rest = {"job": ""} if lock.get("job") == SUBMITTING else {}
            lockfile.swap(self.lock_file, seen, {**lock, "pid": 0, **rest})

    def _heir(self, lock: Mapping[str, Any], pid: int) -> bool:
        """Whether the process `pid` is the lock's owner or descends from it."""
        started = lock.get("started")
        if lock.get("host") != socket.gethostname() or lock["pid"] <= 0 or started is None:
            return False
        if lock["pid"] == pid:
            return alive(lock["host"], pid, started) is True
        parents = {parent.pid: parent.create_time() for parent in psutil.Process(pid).parents()}
        found = parents.get(lock["pid"])
        return found is not None and abs(found - started) <= START_TOLERANCE

    def refusal(self) -> str:
        """Why a living job keeps this directory closed, and what to do about it."""
        lock = self._seen()[1] or dict(zip(("host", "pid"), next(iter(self.ranks().values())), strict=False))
        if self._requeueing(_job(lock), status.read(self.status_file)):
            return (
                f"run {self.path} comes back by itself, its job {_job(lock)} is on the way into the queue: "
                f"`rostro status {self.name}` shows it"
            )
        if not alive(lock.get("host", ""), lock["pid"], lock.get("started")):
            rank = next((place for place in self.ranks().values() if alive(*place) is not False), None)
            lock = lock if rank is None else {"host": rank[0], "pid": rank[1]}
        if lock.get("host") == socket.gethostname() or _job(lock):
            remedy = f"`rostro stop {self.name}` ends it, name=... starts another run"
        else:
            remedy = f"stop it there; if that machine is gone, delete {self.lock_file} and {self.status_file}"
        return f"run {self.path} is in use by a living job ({self._who(lock)}): {remedy}"

    def _who(self, lock: Mapping[str, Any]) -> str:
        """The owner in words."""
        if job := _job(lock):
            return f"SLURM job {job}, {slurm.job_state(job) or 'SLURM does not answer'}"
        host = lock.get("host", "")
        return f"process {lock['pid']}" + ("" if host == socket.gethostname() else f" on {host}")


def _job(lock: Mapping[str, Any]) -> str:
    """The SLURM job of a lock; empty while sbatch is asked for one, too."""
    job = str(lock.get("job", ""))
    return "" if job == SUBMITTING else job


def list_runs(runs: Path | str) -> list[RunDir]:
    """The run directories in a folder, oldest first; one that lost its config.yaml is still a run."""
    files = [file for name in ("config.yaml", "status.json") for file in Path(runs).glob(f"[!.]*/{name}")]
    age = {file.parent: file.lstat().st_mtime for file in reversed(files)}
    return sorted(
        (RunDir(path) for path in age), key=lambda run: (age.get(Path(runs) / run.name, 0.0), run.name)
    )
