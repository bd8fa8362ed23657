"""The run directory: where everything of a run lies, who owns it, and what state it is in. Imports no torch.

A run has one owner at a time: `lock.json` names its process by host, pid and start time, so that a pid which the
system gave to somebody else does not keep a dead run closed. Ranks write `status.json`; everybody else only reads.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from data_shards.errors import UserError
from hpc.config import Config, load_config

ACTIVE = ("starting", "running", "saving")  # states that need a living process to be true
START_TOLERANCE = 2.0  # seconds: the clock that dates a process start may be set while the process runs


def mark(pid: int | None = None) -> list[Any]:
    """[host, pid, start time] of a process: enough to recognise it later."""
    process = psutil.Process(pid)
    return [socket.gethostname(), process.pid, round(process.create_time(), 2)]


def alive(host: str, pid: int, started: float | None = None) -> bool | None:
    """Whether that process still runs; None: it is on another host, nobody here can tell."""
    if host != socket.gethostname():
        return None
    if pid <= 0:  # a lock that was given back
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # ended; only its parent has not asked yet
            return False
        return started is None or abs(process.create_time() - started) <= START_TOLERANCE
    except psutil.NoSuchProcess:
        return False


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` as one step: a reader sees the old text or the new one, never a half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1, allow_nan=True) + "\n")
    os.replace(draft, path)


def read_json(path: Path) -> dict[str, Any]:
    """The file's content; {} where there is none, or where it is not whole."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


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
        self.lock_file = self.path / "lock.json"
        self.status_file = self.path / "status.json"
        self.threshold_file = self.path / "threshold.json"

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
        if not self.resolved_file.exists():
            return {}
        return dict(yaml.safe_load(self.resolved_file.read_text()) or {})

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
        """status.json as it stands, `state` corrected to `dead` where no process is left to make it true."""
        values = read_json(self.status_file)
        values.setdefault("state", "prepared")
        if values["state"] in ACTIVE and not self.in_use():
            values["state"] = "dead"
        return values

    def write_status(self, **values: Any) -> None:
        """Change some entries of status.json (rank 0, or the launcher before ranks exist)."""
        write_json(self.status_file, {**read_json(self.status_file), **values, "time": time.time()})

    def ranks(self) -> dict[int, list[Any]]:
        """rank -> [host, pid, start time] of the last start, living or not."""
        return {int(rank): list(place) for rank, place in read_json(self.status_file).get("pids", {}).items()}

    def owner(self) -> dict[str, Any]:
        """The lock's content: host, pid, started, job, restarts; {} where nobody ever took it."""
        return read_json(self.lock_file)

    def in_use(self) -> bool:
        """Whether the owner or one of its ranks lives. A process of another host counts as living."""
        lock = self.owner()
        holders = [[lock["host"], lock["pid"], lock.get("started")]] if lock else []
        return any(alive(*holder) is not False for holder in [*holders, *self.ranks().values()])

    def take(self, *, job: str = "", pid: int | None = None) -> int:
        """Become the owner and return how often the run was started before.

        A dead owner is replaced. So is an ancestor of this process (the launcher took the directory for its ranks)
        and, where `job` is not empty, an earlier start of the same job. Anybody else: UserError.
        """
        host, number, started = mark(pid)
        lock = self.owner()
        heir = bool(lock) and self._heir(lock, number)
        requeued = bool(job) and lock.get("job") == job
        if lock and not heir and not requeued and self.in_use():
            raise UserError(self.refusal())
        restarts = int(lock.get("restarts", 0)) + (not heir) if lock else 0
        wanted = {"host": host, "pid": number, "started": started, "job": job, "restarts": restarts}
        self._replace_lock(lock, wanted)
        return restarts

    def hand_over(self, pid: int) -> None:
        """Make another process of this host the owner in place of this one (the launcher leaves, the job stays)."""
        host, number, started = mark(pid)
        write_json(self.lock_file, {**self.owner(), "host": host, "pid": number, "started": started})

    def release(self) -> None:
        """Give the lock back if this process holds it; the count of starts stays."""
        lock = self.owner()
        if lock.get("pid") == os.getpid() and lock.get("host") == socket.gethostname():
            write_json(self.lock_file, {**lock, "pid": 0})

    def _heir(self, lock: Mapping[str, Any], pid: int) -> bool:
        """Whether the process `pid` is the lock's owner or descends from it."""
        if lock["host"] != socket.gethostname():
            return False
        if lock["pid"] == pid:
            return alive(lock["host"], pid, lock["started"]) is True
        parents = {parent.pid: parent.create_time() for parent in psutil.Process(pid).parents()}
        found = parents.get(lock["pid"])
        return found is not None and abs(found - lock["started"]) <= START_TOLERANCE

    def refusal(self) -> str:
        """Why a living job keeps this directory closed, and what to do about it."""
        lock = self.owner() or dict(zip(("host", "pid"), next(iter(self.ranks().values())), strict=False))
        if not alive(lock["host"], lock["pid"], lock.get("started")):
            rank = next((place for place in self.ranks().values() if alive(*place) is not False), None)
            lock = lock if rank is None else {"host": rank[0], "pid": rank[1]}
        here = lock["host"] == socket.gethostname()
        who = f"process {lock['pid']}" + ("" if here else f" on {lock['host']}")
        remedy = (
            f"`rostro stop {self.name}` ends it, name=... starts another run"
            if here
            else f"stop it there; if that machine is gone, delete {self.lock_file} and {self.status_file}"
        )
        return f"run {self.path} is in use by a living job ({who}): {remedy}"

    def _replace_lock(self, seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Swap the lock that was read for ours; of several that try at once, one wins."""
        draft = self.path / f".lock.{os.getpid()}"
        draft.write_text(json.dumps(wanted, indent=1) + "\n")
        aside = self.path / f".lock.old.{os.getpid()}"
        try:
            if seen:
                os.rename(
                    self.lock_file, aside
                )  # of two takers, the second finds nothing, or the first one's lock
                if read_json(aside) != dict(seen):
                    with contextlib.suppress(FileExistsError):
                        os.link(aside, self.lock_file)
                    raise FileExistsError
            elif self.lock_file.exists():  # there, but not readable as a lock: a disk that was full
                os.rename(self.lock_file, aside)
            os.link(draft, self.lock_file)
        except (FileExistsError, FileNotFoundError):
            raise UserError(
                f"run {self.path} was taken by another process this moment: `rostro status` shows it"
            ) from None
        finally:
            draft.unlink(missing_ok=True)
            aside.unlink(missing_ok=True)


def list_runs(runs: Path | str) -> list[RunDir]:
    """The run directories in a folder, oldest first."""
    found = [RunDir(config.parent) for config in Path(runs).glob("*/config.yaml")]
    return sorted(found, key=lambda run: (run.config_file.stat().st_mtime, run.name))
