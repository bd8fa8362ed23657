"""The last lines of a rank's log, read from its end."""

from collections import deque
from typing import IO


def last_lines(file: IO[bytes], count: int) -> list[str]:
    """Return the last `count` lines (0 = all); the file is read to its end."""
    return [text_of(line.rstrip(b"\n")) for line in (deque(file, maxlen=count) if count else file)]


def text_of(line: bytes) -> str:
    """Return a line as text; bytes that are not UTF-8 are replaced."""
    return line.rstrip(b"\r").decode(errors="replace")
