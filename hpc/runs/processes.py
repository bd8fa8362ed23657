"""Recognises processes by host, pid and start time, since the system reuses the pid of a dead process.

On Linux the start is counted in seconds since the system booted: a clock that is set, or a machine that
slept, does not make a living process another one.
"""

import os
import socket
from pathlib import Path
from typing import Any

import psutil

TOLERANCE = 0.02  # seconds: the system counts starts in hundredths
_BY_CLOCK = 1e9  # starts beyond are dates, of earlier versions and of other systems
_CLOCK_TOLERANCE = 2.0  # seconds: the clock may be set while the process runs
_TICKS = 19  # place of the start behind the name in /proc/PID/stat, in ticks of the system


def mark(pid: int | None = None) -> list[Any]:
    """Return [host, pid, start] of a process, by which it can be recognised later.

    Raises psutil.NoSuchProcess where there is none.
    """
    process = psutil.Process(pid)
    return [socket.gethostname(), process.pid, _started(process)]


def alive(host: str, pid: int, started: float | None = None) -> bool | None:
    """Return whether the process still runs; None where it is on another host."""
    if not 0 < pid < 1 << 31:  # of a lock that was released, or that waits for its job
        return False
    if host != socket.gethostname():
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # ended, but not yet reaped by its parent
            return False
        if started is None:
            return True
        if started > _BY_CLOCK:
            return abs(process.create_time() - started) <= _CLOCK_TOLERANCE
        return abs(_started(process) - started) <= TOLERANCE
    except psutil.NoSuchProcess:
        return False


def _started(process: psutil.Process) -> float:
    """Return the start of a process in seconds since boot; its date where /proc is missing."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()  # a name may be no text
    except (FileNotFoundError, ProcessLookupError):
        if psutil.LINUX:
            raise psutil.NoSuchProcess(process.pid) from None
        return round(process.create_time(), 2)
    return round(int(stat.rpartition(b")")[2].split()[_TICKS]) / os.sysconf("SC_CLK_TCK"), 2)
