"""Processes, recognised by host, pid and start time: the system gives the number of a dead one to another."""

import socket
from typing import Any

import psutil

START_TOLERANCE = 2.0  # seconds: the clock that dates a process start may be set while the process runs


def mark(pid: int | None = None) -> list[Any]:
    """[host, pid, start time] of a process: enough to recognise it later."""
    process = psutil.Process(pid)
    return [socket.gethostname(), process.pid, round(process.create_time(), 2)]


def alive(host: str, pid: int, started: float | None = None) -> bool | None:
    """Whether that process still runs; None: it is on another host, nobody here can tell."""
    if not 0 < pid < 1 << 31:  # a lock that was given back, or that waits for its job
        return False
    if host != socket.gethostname():
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # ended; only its parent has not asked yet
            return False
        return started is None or abs(process.create_time() - started) <= START_TOLERANCE
    except psutil.NoSuchProcess:
        return False
