"""Planned crashes for audits and tests, by environment variables that no real run sets.

`ROSTRO_FAULT=step@640` kills this process with SIGKILL at the first step that ends at clock 640 or later,
`save3@640` at the fourth write boundary of the first save at or after it, `piece2@640` after the third part
of a rank's file of sharded tensors, `savecommit@640` between that save's last write and its rename. `/R` at
the end names the rank that dies (default 0). A job that SLURM requeued does not die again, and
ROSTRO_FAULT_INDEX=0 spares the other jobs of an array.
`ROSTRO_FORGET=optim,ema,task` leaves parts out of a resume.
"""

import os
import re
import signal


def crash_point(place: str, clock: int, rank: int = 0) -> None:
    """Kill this process if the environment says so.

    `place`: `step`, `savecommit`, `save<n>` or `piece<n>`.
    """
    plan = os.environ.get("ROSTRO_FAULT")
    if plan is None or os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        return
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    if index is not None and index != os.environ.get("ROSTRO_FAULT_INDEX", index):
        return
    match = re.fullmatch(r"(\w+)@(\d+)(?:/(\d+))?", plan)
    if match is None:
        raise ValueError(
            f"ROSTRO_FAULT={plan} is not understood: write step@CLOCK or save3@CLOCK, then /RANK"
        )
    if match[1] == place and clock >= int(match[2]) and rank == int(match[3] or 0):
        os.kill(os.getpid(), signal.SIGKILL)


def skip_restore(part: str) -> bool:
    """Return whether a negative control leaves `part` (optim | ema | task) out of a resume."""
    return part in os.environ.get("ROSTRO_FORGET", "").split(",")
