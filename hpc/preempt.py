"""Signals set a flag; the trainer's ranks agree on it at the step boundary, save together and leave.

Nothing is saved or sent in a handler. A second Ctrl-C leaves at once.
"""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Preemption:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.asked: str = ""
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
