"""Findings on a SLURM whose runs must outlive their allocations, from its own configuration.

`judge` is pure: `scontrol show config`, partitions and nodes as dictionaries in, findings out; `look` of
`launch/doctor/site.py` asks SLURM. Signals and preemption: `launch/doctor/preemption.py`. How runs are
stopped and requeued: `hpc/runs/requeue.py`. What to ask of the admin, as a letter: docs/cluster.md.
"""

import re
import socket

from launch.doctor.finding import HARMFUL, MISSING, NOTE, OK, Finding
from launch.doctor.preemption import (
    again_after,
    kill_wait,
    left_behind,
    node_failure,
    preemption,
    requeue,
    requeued_twice,
    signals,
)
from launch.doctor.site import Need, Site, seconds


def judge(site: Site, need: Need) -> list[Finding]:
    """Return all findings, in the order of a job's life."""
    return [
        *_partitions(site, need),
        *_nodes(site),
        _gpus(site, need),
        signals(site, need),
        kill_wait(site, need),
        *preemption(site, need),
        requeue(site),
        *requeued_twice(site),
        again_after(site),
        node_failure(site),
        left_behind(site),
        *_accounting(site),
    ]


def _partitions(site: Site, need: Need) -> list[Finding]:
    names = []
    for part in site.partitions:
        star = "*" if part.get("Default") == "YES" else ""
        names.append(f"{part['PartitionName']}{star} ({part.get('TotalNodes', '?')} nodes)")
    found = [Finding(OK, "partitions", ", ".join(names))]
    if not any(part.get("Default") == "YES" for part in site.partitions):
        found.append(
            Finding(
                NOTE, "default partition", "there is none", f"cluster.partition={_first(site)} (site file)"
            )
        )
    for part in site.partitions:
        limit = seconds(part.get("MaxTime", "UNLIMITED"))
        if 0 <= limit < need.hours * 3600:
            used = part["PartitionName"] == need.partition or (
                not need.partition and part.get("Default") == "YES"
            )
            text = f"{part['PartitionName']} allows {limit / 3600:.4g} hours, a run asks for {need.hours:g}"
            where = "(or in the site file)" if used else "for runs there"
            advice = f"hours={int(limit / 3.6) / 1000:g} {where}"
            found.append(Finding(HARMFUL if used else NOTE, "MaxTime", text, advice))
    return found


def _nodes(site: Site) -> list[Finding]:
    out = [n["NodeName"] for n in site.nodes if re.search("DOWN|DRAIN|FAIL|INVAL", n.get("State", ""))]
    if not out:
        return []
    return [Finding(NOTE, "nodes", f"{', '.join(out)} take no jobs", "sinfo -R says why; ask the admin")]


def _first(site: Site) -> str:
    return site.partitions[0]["PartitionName"] if site.partitions else "NAME"


def _gpus(site: Site, need: Need) -> Finding:
    kinds = sorted(
        {word for node in site.nodes for word in re.findall(r"gpu(?::[\w.-]+)?:\d+", node.get("Gres", ""))}
    )
    if "gpu" not in site.config.get("GresTypes", "").split(","):
        return Finding(
            MISSING,
            "GPU plugin",
            "GresTypes does not name gpu: SLURM hands out no GPUs, and gpus= is refused",
            "ask the admin: GresTypes=gpu, Gres=gpu:N for the nodes and a gres.conf; until then gpus=0 and "
            "cluster.sbatch={exclusive: true}",
        )
    if not kinds:
        return Finding(
            MISSING,
            "GPU plugin",
            "GresTypes=gpu, but no node has one",
            "ask the admin: Gres=gpu:N on the nodes' line, and a gres.conf",
        )
    if site.config.get("SelectType", "") not in ("select/cons_tres", "(null)", ""):
        return Finding(
            HARMFUL,
            "GPU plugin",
            f"{', '.join(kinds)}, but SelectType={site.config['SelectType']} does not know --gpus-per-node",
            "ask the admin: SelectType=select/cons_tres",
        )
    return Finding(OK, "GPU plugin", f"{', '.join(kinds)} a node: gpus=N asks for them")


def _accounting(site: Site) -> list[Finding]:
    kind = site.config.get("AccountingStorageType", "").rpartition("/")[2]
    keep = seconds(site.config.get("MinJobAge", "300"))
    if kind in ("none", "", "(null)"):
        return [
            Finding(
                MISSING,
                "accounting",
                f"off: sacct has no records, and the controller forgets a job {keep} s after its end",
                "leave cluster.account out; `rostro status` asks scontrol, and a run keeps its own account",
            )
        ]
    found = [Finding(OK, "accounting", f"{kind}: sacct keeps the ends of jobs")]
    if "associations" in site.config.get("AccountingStorageEnforce", ""):
        found.append(
            Finding(
                NOTE,
                "account",
                "jobs must name an account",
                "cluster.account=NAME (site file); `sacctmgr show associations user=$USER` lists yours",
            )
        )
    return found


def elsewhere(site: Site) -> bool:
    """Return whether a node of SLURM is another machine than this one, so that folders must be shared."""
    here = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    return any(node.get("NodeHostName", "") not in here for node in site.nodes)
