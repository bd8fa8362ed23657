"""The configuration, partitions and nodes of a SLURM as it reports them, and what a run needs of them."""

import re
from dataclasses import dataclass, field

from hpc.cluster import slurm

Fields = dict[str, str]

NONE = ("", "(null)", "none", "N/A", "NONE")


@dataclass
class Site:
    """What SLURM reports of itself."""

    config: Fields
    partitions: list[Fields] = field(default_factory=list)
    nodes: list[Fields] = field(default_factory=list)
    qos: list[Fields] = field(default_factory=list)  # only with accounting


@dataclass(frozen=True)
class Need:
    """What a run needs to end well: seconds for a step and a save, and how they are known."""

    seconds: float
    why: str  # "save_seconds=60"
    warning: int = 120  # cluster.warning: seconds before the time limit at which SLURM signals
    hours: float = 24.0  # length of an allocation
    gpus: int = 0
    partition: str = ""  # to which jobs go; empty: the default one


def look() -> Site | None:
    """Ask the controller; None if none answers."""
    if not slurm.answers():
        return None
    text = slurm.ask("scontrol", "show", "config") or ""
    config = dict(re.findall(r"^(\S+)\s+=[ \t]*(.*?)\s*$", text, re.MULTILINE))
    site = Site(config, _lines("partition"), _lines("node"))
    if config.get("AccountingStorageType", "").endswith("slurmdbd"):
        names = ("Name", "PreemptMode", "GraceTime", "Preempt")
        rows = slurm.ask("sacctmgr", "-nP", "show", "qos", f"format={','.join(names)}") or ""
        site.qos = [dict(zip(names, line.split("|"), strict=False)) for line in rows.splitlines()]
    return site


def _lines(what: str) -> list[Fields]:
    return [slurm.fields(line) for line in (slurm.ask("scontrol", "-o", "show", what) or "").splitlines()]


def seconds(text: str) -> int:
    """Return `30 sec`, `5 min`, `00:01:30`, `1-00:00:00` or a bare number in seconds; -1 = no limit."""
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return -1
    days, _, rest = text.partition(" ")[0].rpartition("-")
    parts = [int(part) for part in rest.split(":") if part.isdigit()]
    total = 0
    for part in parts:
        total = total * 60 + part
    return (int(days or 0) * 86400 + total) * (60 if text.endswith("min") else 1)
