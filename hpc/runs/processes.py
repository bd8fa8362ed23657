"""Recognises processes by host, pid and start time, since the system reuses the pid of a dead process."""

import socket
from typing import Any

import psutil

START_TOLERANCE = 2.0  # seconds: the clock that dates a process start may be set while the process runs


def mark(pid: int | None = None) -> list[Any]:
    """Return [host, pid, start time] of a process, by which it can be recognised later."""
    process = psutil.Process(pid)
    return [socket.gethostname(), process.pid, round(process.create_time(), 2)]


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
        return started is None or abs(process.create_time() - started) <= START_TOLERANCE
    except psutil.NoSuchProcess:
        return False
