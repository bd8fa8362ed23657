"""Signals set a flag; the ranks agree on it at the end of a step, save together and leave.

A handler neither saves nor sends anything. A second Ctrl-C ends the process at once. Imports no torch: a rank
listens before it loads its libraries (`hpc/rank.py`).
"""

import signal
from enum import IntEnum
from types import FrameType


class StopReason(IntEnum):
    """Why a run leaves before its end; the greatest of several counts. status.json holds the value."""

    NONE = 0
    REQUEST = 1
    TIME_LIMIT = 2

    @property
    def text(self) -> str:
        """The reason as the log names it."""
        return ("", "a request to stop", "the time limit")[self]


REASONS = {
    signal.SIGTERM: StopReason.REQUEST,
    signal.SIGINT: StopReason.REQUEST,
    signal.SIGUSR1: StopReason.TIME_LIMIT,
    signal.SIGUSR2: StopReason.TIME_LIMIT,
}


class SignalListener:
    """The signals that asked this process to stop, and the reason they give."""

    def __init__(self) -> None:
        self.reason = StopReason.NONE
        self._previous_handlers = {number: signal.signal(number, self._handle) for number in REASONS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.reason and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = max(self.reason, REASONS[signal.Signals(number)])

    def ignore_signals(self) -> None:
        """Ignore further signals: all is saved, and a signal must not turn the exit into a failure."""
        for number in REASONS:
            if number != signal.SIGINT:
                # Python restores its own handlers before it exits, but leaves SIG_IGN in place.
                signal.signal(number, signal.SIG_IGN)

    def close(self) -> None:
        """Restore the handlers that were in place before."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
