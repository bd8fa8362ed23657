"""The last lines of a rank's log, read from its end."""

from collections import deque
from typing import IO


def last_lines(file: IO[bytes], count: int) -> list[str]:
    """The last `count` lines (0: all); the file is read to its end."""
    return [_text(line.rstrip(b"\n")) for line in (deque(file, maxlen=count) if count else file)]


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")
