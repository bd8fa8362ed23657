"""The run directory: where everything of a run is, and what state it is in. Who owns it: `ownership.py`. No torch.

Ranks write `status.json`; everybody else only reads.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError
from data_shards.files import FileError, MissingFile, read_yaml, write_bytes, write_json
from hpc.cluster import slurm
from hpc.cluster.signals import TIME
from hpc.config.parse import load_config
from hpc.config.schema import Config
from hpc.runs import status
from hpc.runs.ownership import Ownership

ACTIVE = ("starting", "running", "saving")  # states that need a living process to be true
RESOLVED = {"precision": ("fp32", "bf16"), "backend": ("host", "dali")}


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
        self.lock = Ownership(self)
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
            write_bytes(self.resolved_file, yaml.safe_dump(merged, sort_keys=False).encode())
        return merged

    def status(self) -> dict[str, Any]:
        """status.json as it stands; `state` corrected to `queued` where the run's job waits, to `requeueing` where it
        puts itself back into the queue, and to `dead` where no process is left to make it true.
        """
        values = status.read(self.status_file)
        values.setdefault("state", "prepared")
        job = self.lock.job()
        waiting = values["state"] != "finished" and job and not self.lock.living_here(self.lock.read())
        if waiting and slurm.job_state(job) in slurm.QUEUED:
            values["state"] = "queued"
        if self.requeueing(job, values):
            values["state"] = "requeueing"
        if values["state"] in ACTIVE and not self.lock.in_use():
            values["state"] = "dead"
        return values

    def requeueing(self, job: str, values: Mapping[str, Any]) -> bool:
        """Whether the job of a run that has saved and left will start it again by itself: see `hpc/runs/requeue.py`."""
        if values.get("state") != "stopped" or not job or self.stop_file.exists():
            return False
        info = slurm.job_info(job)
        ending = info.get("JobState") in slurm.LIVE - slurm.QUEUED
        return ending and (values.get("asked") == TIME or slurm.preempted(info))

    def write_status(self, **values: Any) -> None:
        """Change some entries of status.json (rank 0, or the launcher before ranks exist)."""
        self.lock.check()
        content = {**status.read_or_warn(self.status_file), **values, "time": time.time()}
        write_json(self.status_file, content, allow_nan=True)  # a loss may be

    def ranks(self) -> dict[int, list[Any]]:
        """rank -> [host, pid, start time] of the last start, living or not."""
        places = status.read(self.status_file).get("pids", {})
        return {int(rank): list(place) for rank, place in places.items()}


def list_runs(runs: Path | str) -> list[RunDir]:
    """The run directories in a folder, oldest first; one that lost its config.yaml is still a run."""
    files = [file for name in ("config.yaml", "status.json") for file in Path(runs).glob(f"[!.]*/{name}")]
    age = {file.parent: file.lstat().st_mtime for file in reversed(files)}
    return sorted(
        (RunDir(path) for path in age), key=lambda run: (age.get(Path(runs) / run.name, 0.0), run.name)
    )
