"""Signals set a flag; the trainer's ranks agree on it at the step boundary, save together and leave.

Nothing is saved or sent in a handler. A second Ctrl-C leaves at once. Imports no torch: a rank listens before it
loads its libraries (`hpc/rank.py`).
"""

import signal
from types import FrameType

STOP, TIME = 1, 2  # asked to leave; the allocation is nearly over
LEVELS = {signal.SIGTERM: STOP, signal.SIGINT: STOP, signal.SIGUSR1: TIME, signal.SIGUSR2: TIME}
REASONS = {0: "", STOP: "a request to stop", TIME: "the time limit"}


class SignalListener:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.asked: str = ""
        self.level = 0  # STOP or TIME; of several signals the highest counts
        self._before = {number: signal.signal(number, self._handle) for number in LEVELS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or signal.Signals(number).name
        self.level = max(self.level, LEVELS[signal.Signals(number)])

    def ignore_signals(self) -> None:
        """Nothing is left to be saved: a signal that comes while the process ends must not make it a failure."""
        for number in LEVELS:
            if number != signal.SIGINT:
                signal.signal(
                    number, signal.SIG_IGN
                )  # Python puts its handlers away before it exits, not this

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
