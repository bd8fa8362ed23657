"""The run directory: where each file of a run is, and what state the run is in. Imports no torch.

The ranks write `status.json`; all other processes only read it. Who owns a run: `ownership.py`.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError
from data_shards.files import FileError, MissingFile, read_yaml, write_bytes, write_json
from hpc.cluster import slurm
from hpc.cluster.signals import StopReason
from hpc.config.parse import load_config
from hpc.config.schema import Config
from hpc.runs import status
from hpc.runs.ownership import Ownership

ACTIVE = ("starting", "running")  # states that need a living process to be true
RESOLVED = {"precision": ("fp32", "bf16"), "backend": ("host", "dali")}


class RunDir:
    """One run's directory. Making the object touches nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.name = self.path.name
        self.config_file = self.path / "config.yaml"
        self.resolved_file = self.path / "resolved.yaml"
        self.code = self.path / "code"
        self.init_file = self.path / "init.json"  # the checkpoint with which it begins: init.run
        # What its weights come from, if they were not trained here: rostro convert
        self.converted_file = self.path / "converted.json"
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
        # Starts in a row that did not advance: hpc/runs/requeue.py
        self.starts_file = self.path / "starts.json"
        self.ownership = Ownership(self)
        self.stop_file = self.path / "stop-asked"  # `rostro stop` writes it; the job is not requeued then

    @classmethod
    def open(cls, path: Path | str, *, runs: Path | str = "runs") -> "RunDir":
        """Return the existing run at `path`, or the run of that name in the folder `runs`."""
        for place in (Path(path), Path(runs) / path):
            if (place / "config.yaml").is_file():
                return cls(place)
        known = [run.name for run in list_runs(runs)]
        remedy = f"there are: {', '.join(known[-5:])}" if known else "give its path, or runs=FOLDER"
        raise UserError(
            f"{path} is not a run directory (it holds no config.yaml), nor is {Path(runs) / path}: {remedy}"
        )

    def log(self, rank: int) -> Path:
        return self.logs / f"rank{rank}.log"

    def config(self) -> Config:
        """Read the config that the run was made with."""
        return load_config(self.config_file)

    def resolved(self) -> dict[str, Any]:
        """Return what `auto` became at the first start (precision, backend); {} before it."""
        try:
            values: dict[str, Any] = read_yaml(self.resolved_file, remedy="restore it; the ranks wrote it")
        except MissingFile:
            return {}
        for key, known in RESOLVED.items():
            if values.get(key, known[0]) not in known:
                raise FileError(
                    f"{self.resolved_file}: {key}={values[key]!a} is not {' or '.join(known)}: restore it"
                )
        return values

    def resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Record what `auto` became, once; return the values of the first start and those that are new."""
        before = self.resolved()
        merged = {**values, **before}
        if merged != before:
            write_bytes(self.resolved_file, yaml.safe_dump(merged, sort_keys=False).encode())
        return merged

    def status(self) -> dict[str, Any]:
        """Return status.json with its `state` corrected to what is true now.

        The state is `queued` where the run's job waits, `requeueing` where the job puts itself back into the
        queue, and `dead` where the file names a living state and no process of the run lives.
        """
        values = status.read(self.status_file)
        values.setdefault("state", "prepared")
        owner = self.ownership
        job = owner.job()
        waiting = values["state"] != "finished" and job and not owner.living_here(owner.read())
        if waiting and slurm.job_state(job) in slurm.QUEUED:
            values["state"] = "queued"
        if self.requeueing(job, values):
            values["state"] = "requeueing"
        if values["state"] in ACTIVE and not owner.in_use():
            values["state"] = "dead"
        return values

    def requeueing(self, job: str, values: Mapping[str, Any]) -> bool:
        """Return whether the job of a run that saved and left restarts it: see `hpc/runs/requeue.py`."""
        if values.get("state") != "stopped" or not job or self.stop_file.exists():
            return False
        info = slurm.job_info(job)
        ending = info.get("JobState") in slurm.LIVE - slurm.QUEUED
        return ending and (values.get("asked") == StopReason.TIME_LIMIT or slurm.preempted(info))

    def write_status(self, **values: Any) -> None:
        """Change some entries of status.json (rank 0, or the launcher before ranks exist)."""
        self.ownership.check()
        content = {**status.read_or_warn(self.status_file), **values, "time": time.time()}
        write_json(self.status_file, content, allow_nan=True)  # a loss may be NaN

    def ranks(self) -> dict[int, list[Any]]:
        """Return rank -> [host, pid, start time] of the last start, living or not."""
        places = status.read(self.status_file).get("pids", {})
        return {int(rank): list(place) for rank, place in places.items()}


def list_runs(runs: Path | str) -> list[RunDir]:
    """List the run directories in a folder, oldest first; one that lost its config.yaml is still a run."""
    files = [file for name in ("config.yaml", "status.json") for file in Path(runs).glob(f"[!.]*/{name}")]
    age = {file.parent: file.lstat().st_mtime for file in reversed(files)}
    return sorted(
        (RunDir(path) for path in age), key=lambda run: (age.get(Path(runs) / run.name, 0.0), run.name)
    )
