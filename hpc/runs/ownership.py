"""Who owns a run: the decisions behind `lock.json`, whose file is `lock.py`. Imports no torch.

A run has one owner at a time: the lock names its process by host, pid and start time, so that a pid which the system
gave to another program does not keep a dead run closed, and its SLURM job, which may wait in the queue, by id and count
of requeues. A rank that lost the lock writes nothing more.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psutil

from data_shards.errors import UserError
from data_shards.files import FileError
from hpc.cluster import slurm, slurm_env
from hpc.runs import lock as lockfile
from hpc.runs import status
from hpc.runs.processes import START_TOLERANCE, alive, mark

if TYPE_CHECKING:
    from hpc.runs.run_dir import RunDir

SUBMITTING = "?"  # in place of a job id while sbatch is asked for one
SUBMIT_TIME = 60.0  # seconds that a job waits for its launcher to write the id down


class Ownership:
    """The lock of one run. Making the object touches nothing."""

    def __init__(self, run: "RunDir") -> None:
        self._run, self._file = run, run.lock_file

    def read(self) -> dict[str, Any]:
        """The lock's content: host, pid, started, job, slurm_restarts, restarts; {} where nobody ever took it.

        Raises FileError where it is damaged.
        """
        return lockfile.read(self._file)

    def job(self) -> str:
        """The SLURM job that the run belongs to, waiting, running or ended; empty for a run of one machine."""
        return _job(self.read())

    def in_use(self) -> bool:
        """Whether the owner, one of its ranks or its SLURM job lives: a job that waits in the queue does.

        Of a process of another host only SLURM knows; without a job, or an answer, it counts as living.
        """
        return self._in_use(self.read())

    def _in_use(self, lock: Mapping[str, Any]) -> bool:
        if self.living_here(lock):
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
        return [*owner, *self._run.ranks().values()]

    def living_here(self, lock: Mapping[str, Any]) -> bool:
        return any(alive(*holder) is True for holder in self._holders(lock))

    def new_owner(self) -> str:
        """Who owns the run in place of this process, in words; empty where it may write.

        A damaged lock names no other owner: it does not end a training.
        """
        try:
            lock = self.read()
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
        free = not living or lock.get("job") or self._is_descendant(lock, os.getpid())
        return "" if free else self._who(lock)

    def check(self) -> None:
        """UserError where the run has another owner by now: whoever is left of an earlier start stops writing."""
        other = self.new_owner()
        if other:
            raise UserError(
                f"run {self._run.path} belongs to another start now ({other}): this one writes nothing more"
            )

    def acquire(self, *, job: str = "", pid: int | None = None) -> int:
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
            raise UserError(
                f"run {self._run.path} was started again by its job {job}: this start of it is over"
            )
        heir = bool(lock) and (self._is_descendant(lock, number) or (requeued and lock.get("queued", False)))
        if not heir and not requeued and self._in_use(lock):
            raise UserError(self.refusal())
        restarts = int(lock.get("restarts", 0)) + (not heir) if lock else 0
        wanted = {"host": host, "pid": number, "started": started, "job": job, "restarts": restarts}
        wanted["slurm_restarts"] = slurm_env.restart_count() if job not in ("", SUBMITTING) else 0
        if not lockfile.swap(self._file, seen, wanted):
            raise UserError(
                f"run {self._run.path} was taken by another process this moment: `rostro status` shows it"
            )
        return restarts

    def _seen(self) -> tuple[bytes | None, dict[str, Any]]:
        """The lock as it stands, and what it says: {} where it is damaged, too."""
        seen = lockfile.content(self._file)
        try:
            return seen, lockfile.parse(self._file, seen)
        except FileError as error:
            print(f"warning: {error}", file=sys.stderr)
            return seen, {}

    def transfer_to_job(self, job: str) -> None:
        """The owner is a SLURM job from now on; its first rank takes the lock when it starts. Empty: none is."""
        given = {
            "pid": 0,
            "job": job,
            "slurm_restarts": slurm_env.restart_count() if job == slurm_env.job_id() else 0,
        }
        lockfile.change(self._file, **given, queued=bool(job))

    def transfer_to_process(self, pid: int) -> None:
        """Make another process of this host the owner in place of this one (the launcher leaves, the job stays)."""
        host, number, started = mark(pid)
        lockfile.change(self._file, host=host, pid=number, started=started)

    def release(self) -> None:
        """Give the lock back if this process holds it; the count of starts stays."""
        seen, lock = self._seen()
        if lock.get("pid") == os.getpid() and lock.get("host") == socket.gethostname():
            rest = {"job": ""} if lock.get("job") == SUBMITTING else {}
            lockfile.swap(self._file, seen, {**lock, "pid": 0, **rest})

    def _is_descendant(self, lock: Mapping[str, Any], pid: int) -> bool:
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
        lock = self._seen()[1] or dict(
            zip(("host", "pid"), next(iter(self._run.ranks().values())), strict=False)
        )
        if self._run.requeueing(_job(lock), status.read(self._run.status_file)):
            return (
                f"run {self._run.path} comes back by itself, its job {_job(lock)} is on the way into the queue: "
                f"`rostro status {self._run.name}` shows it"
            )
        if not alive(lock.get("host", ""), lock["pid"], lock.get("started")):
            rank = next((place for place in self._run.ranks().values() if alive(*place) is not False), None)
            lock = lock if rank is None else {"host": rank[0], "pid": rank[1]}
        if lock.get("host") == socket.gethostname() or _job(lock):
            remedy = f"`rostro stop {self._run.name}` ends it, name=... starts another run"
        else:
            remedy = (
                f"stop it there; if that machine is gone, delete {self._file} and {self._run.status_file}"
            )
        return f"run {self._run.path} is in use by a living job ({self._who(lock)}): {remedy}"

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
