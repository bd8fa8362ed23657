"""Who owns a run: the decisions behind `lock.json`, whose file is `lock.py`. Imports no torch.

A run has one owner at a time. The lock names its process by host, pid and start time, so that a reused pid
does not keep a dead run closed, and its SLURM job, which may wait in the queue, by id and count of requeues.
A rank that lost the lock writes nothing more.
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
from hpc.runs.processes import alive, mark

if TYPE_CHECKING:
    from hpc.runs.run_dir import RunDir

SUBMITTING = "?"  # in place of a job id while sbatch is asked for one
SUBMIT_TIME = 60.0  # seconds that a job waits for its launcher to write the id down


class Ownership:
    """The lock of one run. Making the object touches nothing."""

    def __init__(self, run: "RunDir") -> None:
        self._run, self._file = run, run.lock_file

    def read(self) -> dict[str, Any]:
        """Read the lock: host, pid, started, job, slurm_restarts, restarts; {} where it was never taken.

        Raises FileError where it is damaged.
        """
        return lockfile.read(self._file)

    def job(self) -> str:
        """Return the SLURM job of the run, waiting, running or ended; empty for a run of one machine."""
        return _job(self.read())

    def in_use(self) -> bool:
        """Return whether the owner, one of its ranks or its SLURM job lives; a job in the queue does.

        Only SLURM knows about processes of other hosts; without a job, or an answer, they count as living.
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
        if lock and lock["pid"] <= 0:  # released
            return False
        return any(alive(*holder) is None for holder in self._holders(lock))

    def _holders(self, lock: Mapping[str, Any]) -> list[list[Any]]:
        owner = [[lock.get("host", ""), lock["pid"], lock.get("started")]] if lock else []
        return [*owner, *self._run.ranks().values()]

    def living_here(self, lock: Mapping[str, Any]) -> bool:
        """Return whether the owner or a rank of the run lives on this host."""
        return any(alive(*holder) is True for holder in self._holders(lock))

    def new_owner(self) -> str:
        """Name the owner that has replaced this process; empty where this process may write.

        A damaged lock names no other owner: it does not end a training.
        """
        try:
            lock = self.read()
        except FileError:
            return ""
        if not lock or [socket.gethostname(), os.getpid()] == [lock.get("host"), lock["pid"]]:
            return ""
        if lock.get("job") and slurm_env.in_step():
            this_start = [slurm_env.job_id(), slurm_env.restart_count()]
            return "" if [lock["job"], lock.get("slurm_restarts", 0)] == this_start else self._who(lock)
        living = alive(lock.get("host", ""), lock["pid"], lock.get("started")) is True
        # A launcher holds the lock for its ranks.
        free = not living or lock.get("job") or self._is_descendant(lock, os.getpid())
        return "" if free else self._who(lock)

    def check(self) -> None:
        """Raise UserError where the run has another owner by now, so that an earlier start stops writing."""
        other = self.new_owner()
        if other:
            raise UserError(
                f"run {self._run.path} belongs to another start now ({other}): this one writes nothing more"
            )

    def acquire(self, *, job: str = "", pid: int | None = None) -> int:
        """Become the owner and return how often the run was started before.

        Replaces a dead owner, a damaged lock where no recorded rank may live, an ancestor of this process
        (the launcher took the directory for its ranks) and, where `job` is not empty, an earlier start of the
        same job. Raises UserError for any other owner.
        """
        host, number, started = mark(pid)
        end = time.monotonic() + SUBMIT_TIME
        while True:
            content, lock = self._content()
            if not job or lock.get("job") != SUBMITTING or time.monotonic() > end:
                break
            time.sleep(0.1)
        requeued = bool(job) and lock.get("job") == job
        if requeued and lock.get("slurm_restarts", 0) > slurm_env.restart_count():
            raise UserError(
                f"run {self._run.path} was started again by its job {job}: this start of it is over"
            )
        inherited = bool(lock) and (
            self._is_descendant(lock, number) or (requeued and lock.get("queued", False))
        )
        if not inherited and not requeued and self._in_use(lock):
            raise UserError(self.refusal())
        restarts = int(lock.get("restarts", 0)) + (not inherited) if lock else 0
        own_lock = {"host": host, "pid": number, "started": started, "job": job, "restarts": restarts}
        own_lock["slurm_restarts"] = slurm_env.restart_count() if job not in ("", SUBMITTING) else 0
        if not lockfile.swap(self._file, content, own_lock):
            raise UserError(
                f"run {self._run.path} was taken by another process this moment: `rostro status` shows it"
            )
        return restarts

    def _content(self) -> tuple[bytes | None, dict[str, Any]]:
        """Read the lock's bytes and their meaning, which is {} where they are damaged, too."""
        content = lockfile.content(self._file)
        try:
            return content, lockfile.parse(self._file, content)
        except FileError as error:
            print(f"warning: {error}", file=sys.stderr)
            return content, {}

    def transfer_to_job(self, job: str) -> None:
        """Make a SLURM job the owner, whose first rank takes the lock when it starts (empty = no owner)."""
        restarts = slurm_env.restart_count() if job == slurm_env.job_id() else 0
        lockfile.change(self._file, pid=0, job=job, slurm_restarts=restarts, queued=bool(job))

    def transfer_to_process(self, pid: int) -> None:
        """Make another process of this host the owner: the launcher leaves, the job stays."""
        host, number, started = mark(pid)
        lockfile.change(self._file, host=host, pid=number, started=started)

    def release(self) -> None:
        """Release the lock if this process holds it; the count of starts stays."""
        content, lock = self._content()
        if lock.get("pid") == os.getpid() and lock.get("host") == socket.gethostname():
            rest = {"job": ""} if lock.get("job") == SUBMITTING else {}
            lockfile.swap(self._file, content, {**lock, "pid": 0, **rest})

    def _is_descendant(self, lock: Mapping[str, Any], pid: int) -> bool:
        """Return whether the process `pid` is the lock's owner or descends from it."""
        started = lock.get("started")
        if lock.get("host") != socket.gethostname() or lock["pid"] <= 0 or started is None:
            return False
        line = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        return lock["pid"] in line and alive(lock["host"], lock["pid"], started) is True

    def refusal(self) -> str:
        """Say that a living job holds this directory, and what to do about it."""
        lock = self._content()[1] or dict(
            zip(("host", "pid"), next(iter(self._run.ranks().values())), strict=False)
        )
        if self._run.requeueing(_job(lock), status.read(self._run.status_file)):
            return (
                f"run {self._run.path} resumes by itself, its job {_job(lock)} is on the way into the queue: "
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
        """Name the owner in words."""
        if job := _job(lock):
            return f"SLURM job {job}, {slurm.job_state(job) or 'SLURM does not answer'}"
        host = lock.get("host", "")
        return f"process {lock['pid']}" + ("" if host == socket.gethostname() else f" on {host}")


def _job(lock: Mapping[str, Any]) -> str:
    """Return the SLURM job of a lock; empty, too, while sbatch is asked for one."""
    job = str(lock.get("job", ""))
    return "" if job == SUBMITTING else job
