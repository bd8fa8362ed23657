"""Accounts for the time of a run: RUN/ledger.jsonl, one account for each start, and the goodput of all.

Rank 0 measures its own time and appends its sums with every log line, so that a kill -9 costs at most one
interval. Goodput is the share of the allocated time that advanced the run: training that was kept, and
evaluation. Imports no torch.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from data_shards.files import FileError, MissingFile, parse_json, read_bytes
from hpc.cluster import slurm, slurm_env
from hpc.runs.requeue import newest_clock
from hpc.runs.run_dir import RunDir

KINDS = ("startup", "train", "wait", "evaluate", "save", "shutdown")
SUMS = {
    "start": str,
    "began": float,
    "time": float,
    "clock": (range(1 << 62), None),
    "seconds": dict.fromkeys(KINDS, float),
    "writing?": float,
    "job?": str,
    "restart?": int,
}
LINE = ({"start": str, "ended": float, "seconds?": None}, SUMS)
LARGEST = 1 << 30  # bytes
NAMES = {
    "startup": "starting",
    "train": "training, kept",
    "redone": "lost, done again",
    "wait": "waiting for data",
    "evaluate": "evaluating",
    "save": "saving",
    "shutdown": "leaving",
}


def _age() -> float:
    """Return the seconds since this process started; psutil rounds the boot time and may be a second off."""
    try:
        ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]  # proc(5): starttime
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return max(0.0, time.time() - psutil.Process().create_time())


class TimeLedger:
    """The account of this start. Ranks other than 0 count, but write nothing."""

    def __init__(self, run: RunDir, *, main: bool) -> None:
        self.run, self.main = run, main
        self.seconds = dict.fromkeys(KINDS, 0.0)
        now = time.time()
        self._kind, self._since, self._waited = "startup", time.perf_counter(), 0.0
        self.began = now - _age()
        self.seconds["startup"] = now - self.began  # loading the libraries
        self.head: dict[str, Any] = {"start": f"{os.getpid()}-{self.began:.2f}", "began": self.began}
        if main and slurm_env.in_step():
            self.head |= _job()
            allocated = slurm.started(slurm.job_info(self.head["job"]))
            # A second start in one allocation (salloc): the time before the first start is counted already.
            again = any(_same(line, self.head) for line in lines(run)[0])
            if allocated and allocated < self.began and not again:  # launching the ranks
                self.seconds["startup"] += self.began - allocated
                self.head["began"] = allocated

    def enter(self, kind: str) -> str:
        """Book the time from now on under `kind`; return the kind before."""
        now, before = time.perf_counter(), self._kind
        self.seconds[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Book the time inside under `kind`."""
        before = self.enter(kind)
        try:
            yield
        finally:
            self.enter(before)

    def waited(self, total: float) -> None:
        """Move waiting out of training: the loader has waited `total` seconds since the process began."""
        self.enter(self._kind)
        seconds = min(total - self._waited, self.seconds["train"])
        self._waited = total
        self.seconds["train"] -= seconds
        self.seconds["wait"] += seconds

    def write(self, clock: int | None, **more: Any) -> None:
        """Append the sums so far (`clock`: None = not known yet)."""
        self.enter(self._kind)
        if not self.main or self.run.ownership.new_owner():
            return
        seconds = {kind: round(value, 3) for kind, value in self.seconds.items()}
        line = {**self.head, "time": time.time(), "clock": clock, "seconds": seconds, **more}
        with self.run.ledger_file.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _job() -> dict[str, Any]:
    """Return this process's job, and the start of the job."""
    return {"job": slurm_env.job_id(), "restart": slurm_env.restart_count()} if slurm_env.job_id() else {}


def _same(account: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(account.get(key) == other.get(key) for key in ("job", "restart"))


def ended(run: RunDir) -> None:
    """Record that this start's allocation ends now; a process that outlives the ranks calls it.

    Ranks that died before their first record account only for the time that they were allocated.
    """
    now, job = time.time(), _job()
    accounts = [line for line in lines(run)[0] if "seconds" in line and _same(line, job)]
    if accounts:
        line = {"start": accounts[-1]["start"], "ended": now}
    else:
        began = slurm.started(slurm.job_info(job["job"])) if job else None
        if began is None:
            return
        seconds = dict.fromkeys(KINDS, 0.0) | {"startup": now - began}
        line = {"start": f"{job['job']}.{job['restart']}", "began": began, **job}
        line |= {"time": now, "clock": None, "seconds": seconds}
    with run.ledger_file.open("a") as file:
        file.write(json.dumps(line) + "\n")


def lines(run: RunDir) -> tuple[list[dict[str, Any]], int]:
    """Read the lines of the ledger, and count the damaged ones, without a torn end."""
    try:
        *whole, _ = read_bytes(run.ledger_file, limit=LARGEST).split(b"\n")
    except MissingFile:
        return [], 0
    entries = []
    for text in whole:
        with contextlib.suppress(FileError):
            entries.append(parse_json(text, LINE, what=str(run.ledger_file)))
    return entries, len(whole) - len(entries)


def starts(run: RunDir, *, over: bool = False) -> list[dict[str, Any]]:
    """Return the account of every start: began, ended (unix time), first clock, seconds by category.

    `over`: the newest start has ended, and what it did not save counts as lost.
    """
    grouped: dict[str, list[dict[str, Any]]] = {}
    for line in lines(run)[0]:
        grouped.setdefault(line["start"], []).append(line)
    accounts = []
    for group in grouped.values():
        sums = [line for line in group if "seconds" in line]
        if not sums:
            continue
        end = max(line.get("ended", line.get("time", 0.0)) for line in group)
        known = [line for line in sums if line["clock"] is not None]
        first = known[0]["clock"] if known else None
        accounts.append({**sums[-1], "first": first, "ended": end, "lines": known})
    if accounts and over:
        _take_end(accounts[-1])
    next_clock = max(0, newest_clock(run)) if over else None  # the clock at which the following start begins
    for account in reversed(accounts):
        trained = account["seconds"]["train"]
        kept = trained if next_clock is None else _trained_until(account, next_clock)
        account["seconds"] = {**account["seconds"], "train": kept, "redone": trained - kept}
        # After its last line a start that left in order was shutting down; one that was killed lost its work.
        silent = max(0.0, account["ended"] - account["time"])
        account["seconds"]["shutdown" if account.get("left") else "redone"] += silent
        next_clock = next_clock if account["first"] is None else account["first"]
    return accounts


def _take_end(account: dict[str, Any]) -> None:
    """Extend the account of a job that is over to the end that SLURM knows."""
    info = slurm.job_info(account["job"]) if account.get("job") else {}
    if info.get("Restarts") == str(account.get("restart")) and info.get("JobState") not in slurm.LIVE:
        account["ended"] = max(account["ended"], slurm.started(info, "EndTime") or 0.0)


def _trained_until(account: Mapping[str, Any], clock: int) -> float:
    """Return the seconds of training up to `clock`, interpolated between the lines of this start."""
    last_clock, last_seconds = account["first"] or 0, 0.0
    for line in account["lines"]:
        line_clock, seconds = line["clock"], line["seconds"]["train"]
        if line_clock >= clock:
            images = line_clock - last_clock
            share = (clock - last_clock) / images if images else 0.0
            return last_seconds + max(0.0, share) * (seconds - last_seconds)
        last_clock, last_seconds = line_clock, seconds
    return last_seconds


def summary(run: RunDir, *, over: bool = False) -> dict[str, Any]:
    """Sum up all starts: "starts", "allocated" seconds, "goodput" (0..1 or None), "seconds" by category.

    "damaged" counts the lines of the ledger that are left out. `over`: as for `starts`.
    """
    accounts = starts(run, over=over)
    seconds = (
        {kind: sum(account["seconds"][kind] for account in accounts) for kind in NAMES} if accounts else {}
    )
    allocated = sum(account["ended"] - account["began"] for account in accounts)
    useful = seconds.get("train", 0.0) + seconds.get("evaluate", 0.0)
    return {
        "starts": len(accounts),
        "allocated": allocated,
        "goodput": useful / allocated if allocated > 0 else None,
        "seconds": seconds,
        "damaged": lines(run)[1],
    }
