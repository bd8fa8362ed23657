"""Where the time of a run went: RUN/ledger.jsonl, one account for each start, and the goodput they add up to.

Rank 0 measures what it does; at every tick it appends its sums so far, so that a kill -9 costs at most one tick.
Goodput is the share of the allocated time that brought the run further: training that was kept, and evaluation.
Imports no torch.
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
from hpc.runs.requeue import newest
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
    """Seconds since this process was started. psutil's date of it may be a second off: a boot's date is whole."""
    try:
        ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]  # proc(5): starttime
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return max(0.0, time.time() - psutil.Process().create_time())


class TimeLedger:
    """The account of this start. On other ranks than 0 it counts, but writes nothing."""

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
            again = any(_same(line, self.head) for line in lines(run)[0])  # in an salloc: its time is counted
            if allocated and allocated < self.began and not again:  # launching the ranks
                self.seconds["startup"] += self.began - allocated
                self.head["began"] = allocated

    def enter(self, kind: str) -> str:
        """From now on time belongs to `kind`; returns what it belonged to."""
        now, before = time.perf_counter(), self._kind
        self.seconds[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """The time inside belongs to `kind`."""
        before = self.enter(kind)
        try:
            yield
        finally:
            self.enter(before)

    def waited(self, total: float) -> None:
        """The loader has waited `total` seconds since the process began, all of it in training time."""
        self.enter(self._kind)
        seconds = min(total - self._waited, self.seconds["train"])
        self._waited = total
        self.seconds["train"] -= seconds
        self.seconds["wait"] += seconds

    def write(self, clock: int | None, **more: Any) -> None:
        """Append the sums so far. `clock`: None while it is not known."""
        self.enter(self._kind)
        if not self.main or self.run.lock.new_owner():
            return
        seconds = {kind: round(value, 3) for kind, value in self.seconds.items()}
        line = {**self.head, "time": time.time(), "clock": clock, "seconds": seconds, **more}
        with self.run.ledger_file.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _job() -> dict[str, Any]:
    """The job and the start of it that this process belongs to."""
    return {"job": slurm_env.job_id(), "restart": slurm_env.restart_count()} if slurm_env.job_id() else {}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("job", "restart"))


def ended(run: RunDir) -> None:
    """Note that this start's allocation ends now: called by who outlives the ranks.

    Ranks that died before their first word leave no more than the time that they were given.
    """
    now, job = time.time(), _job()
    mine = [line for line in lines(run)[0] if "seconds" in line and _same(line, job)]
    if mine:
        line = {"start": mine[-1]["start"], "ended": now}
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
    """The lines of the ledger, and how many are damaged and left out. What a kill cut off at the end is not damage."""
    try:
        *whole, _ = read_bytes(run.ledger_file, limit=LARGEST).split(b"\n")
    except MissingFile:
        return [], 0
    found = []
    for text in whole:
        with contextlib.suppress(FileError):
            found.append(parse_json(text, LINE, what=str(run.ledger_file)))
    return found, len(whole) - len(found)


def starts(run: RunDir, *, over: bool = False) -> list[dict[str, Any]]:
    """The account of every start: began, ended (unix time), first clock, seconds by category.

    `over`: the newest one trains no more; what it did not save counts as lost.
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
    goes_on = max(0, newest(run)) if over else None  # the clock at which the start after it begins
    for account in reversed(accounts):
        trained = account["seconds"]["train"]
        kept = trained if goes_on is None else _trained_until(account, goes_on)
        account["seconds"] = {**account["seconds"], "train": kept, "redone": trained - kept}
        # After its last word a start that left in order was leaving; one that was killed lost what it did.
        silent = max(0.0, account["ended"] - account["time"])
        account["seconds"]["shutdown" if account.get("left") else "redone"] += silent
        goes_on = goes_on if account["first"] is None else account["first"]
    return accounts


def _take_end(account: dict[str, Any]) -> None:
    """Let the account of a job that is over reach to the end that SLURM knows."""
    info = slurm.job_info(account["job"]) if account.get("job") else {}
    if info.get("Restarts") == str(account.get("restart")) and info.get("JobState") not in slurm.LIVE:
        account["ended"] = max(account["ended"], slurm.started(info, "EndTime") or 0.0)


def _trained_until(account: Mapping[str, Any], clock: int) -> float:
    """Seconds of training that brought this start to `clock`, between its lines in proportion."""
    before = (account["first"] or 0, 0.0)
    for line in account["lines"]:
        here = (line["clock"], line["seconds"]["train"])
        if here[0] >= clock:
            images = here[0] - before[0]
            share = (clock - before[0]) / images if images else 0.0
            return before[1] + max(0.0, share) * (here[1] - before[1])
        before = here
    return before[1]


def summary(run: RunDir, *, over: bool = False) -> dict[str, Any]:
    """All starts together: {"starts", "allocated" (seconds), "goodput" (0..1 or None), "seconds": {category: s},
    "damaged": lines of the ledger that are left out}.

    `over`: as for `starts`.
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
