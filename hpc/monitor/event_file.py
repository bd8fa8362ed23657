"""TensorBoard event files, record by record: forced to disk before a checkpoint, cut back after a kill.

A file is a sequence of TFRecords: length (u64), its masked crc32c, the bytes of an `Event`, their crc32c.
tensorboard is imported when first needed. A damaged record costs its own points only. What is written:
`hpc/monitor/monitor.py`.
"""

import itertools
import os
import re
import shutil
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_NOT_ZERO = re.compile(rb"[^\0]")
HEADER, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
HEAD = HEADER.size + CHECKSUM.size
PREFIX = "events.out.tfevents."


def tensorboard() -> tuple[Any, Any, Any]:
    """Return tensorboard's (Event, SessionLog, masked_crc32c), without an installed TensorFlow's import."""
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return Event, SessionLog, masked_crc32c


def files(run: Path) -> list[Path]:
    """List the event files of a run, oldest first, in the order in which TensorBoard reads them."""
    return sorted(run.glob(f"{PREFIX}*"))


def records(path: Path) -> Iterator[bytes]:
    """Yield the whole records of a file, without damaged ones and without a torn end."""
    return (data for data in scan(path.read_bytes()) if data is not None)


def scan(content: bytes) -> Iterator[bytes | None]:
    """Yield the records of a file's content; None for each damaged one, or stretch without a valid header.

    A record that a kill cut off at the end does not count as damage.
    """
    crc, place = tensorboard()[2], 0
    while place + HEAD <= len(content):
        length = _length(content, place)
        if length is None:
            place = _next_header(content, place + 1)
            yield None
            continue
        end = place + HEAD + length
        if end + CHECKSUM.size > len(content):
            return
        data = content[place + HEAD : end]
        yield data if CHECKSUM.unpack_from(content, end)[0] == crc(data) else None
        place = end + CHECKSUM.size


def _length(content: bytes, place: int) -> int | None:
    """Return the length of the record whose header is at `place`; None where there is no valid header."""
    head = content[place : place + HEADER.size]
    if CHECKSUM.unpack_from(content, place + HEADER.size)[0] != tensorboard()[2](head):
        return None
    return int(HEADER.unpack(head)[0])


def _next_header(content: bytes, place: int) -> int:
    """Find where the next whole record begins; the end of the content where none does."""
    crc = tensorboard()[2]
    while (zeros := content.find(bytes(4), place + 4)) >= 0:  # the upper half of a length
        place = zeros - 4
        if place + HEAD > len(content):
            break
        if content[place : place + 8] == bytes(8):  # what a power cut leaves: no record has a length of 0
            filled = _NOT_ZERO.search(content, place + 8)
            if filled is None:
                break
            place = filled.start() - 3  # the low half of a length may begin with three zeros
            continue
        end = place + HEAD + HEADER.unpack_from(content, place)[0]
        fits = end + CHECKSUM.size <= len(content) and _length(content, place) is not None
        if fits and CHECKSUM.unpack_from(content, end)[0] == crc(content[place + HEAD : end]):
            return place
        place += 1
    return len(content)


def framed(data: bytes) -> bytes:
    """Frame `data` as one record."""
    crc = tensorboard()[2]
    head = HEADER.pack(len(data))
    return head + CHECKSUM.pack(crc(head)) + data + CHECKSUM.pack(crc(data))


def replace(path: Path, content: bytes) -> None:
    """Replace a file by `content` in one step that survives a power cut."""
    draft = path.with_name(f".trim-{os.getpid()}")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def keep_damaged(path: Path) -> Path:
    """Give a damaged file a second name, under which it stays and TensorBoard does not read it."""
    name = f"damaged-{path.name.removeprefix(PREFIX)}"
    for number in itertools.count(1):
        copy = path.with_name(name if number == 1 else f"{name}.{number}")
        try:
            os.link(path, copy)
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            shutil.copy2(path, copy)
        return copy
    raise AssertionError("unreachable")


def trim(run: Path, clock: int) -> list[str]:
    """Cut the run's event files back to what was recorded up to `clock`; drop torn and damaged records.

    The updates after `clock` will be repeated, and each of their points would otherwise appear twice. The
    newest file is rewritten in any case: a start that has lost the run, and has not noticed yet, keeps
    writing into the old file, which has no name any more. Returns a warning for each damaged file, of which a
    copy is kept.
    """
    warnings = []
    for path in (paths := files(run)):
        kept, points, damaged = _cut(path, clock)
        if damaged:
            copy = keep_damaged(path)
            warnings.append(
                f"warning: {path}: what is damaged in {damaged} places is left out, its points are missing "
                f"in TensorBoard; the file as it was: {copy.name}"
            )
        if not points:
            path.unlink()
        elif path == paths[-1] or sum(map(len, kept)) != path.stat().st_size:
            replace(path, b"".join(kept))
    return warnings


def _cut(path: Path, clock: int) -> tuple[list[bytes], int, int]:
    """Return a file's framed records up to `clock`, how many of them are points, and how many are damaged."""
    event_type = tensorboard()[0]
    kept, points, content = [], 0, path.read_bytes()
    contents = list(scan(content))
    # The first record is on disk before any other: a file without one is damaged, not torn.
    damaged = int(bool(content) and not contents)
    for data in contents:
        try:
            event = event_type.FromString(data) if data is not None else None
        except ValueError:  # protobuf's DecodeError
            event = None
        if data is None or event is None:
            damaged += 1
        elif event.HasField("file_version") or event.step <= clock:
            kept.append(framed(data))
            points += not event.HasField("file_version")
    return kept, points, damaged


def remove(run: Path) -> None:
    """Delete the event files of a start that left no checkpoint."""
    for path in files(run):
        path.unlink()


class EventFile:
    """Writes one event file. Nothing runs in the background: `flush` returns when all is on disk."""

    def __init__(self, run: Path, *, resume_clock: int | None = None) -> None:
        self._event, session, _ = tensorboard()
        # TensorBoard reads files by name: a later file must sort last even where the hosts' clocks disagree.
        stamps = [path.name[len(PREFIX) :].split(".")[0] for path in files(run)]
        last = max((int(stamp) for stamp in stamps if stamp.isascii() and stamp.isdigit()), default=0)
        stamp = max(int(time.time()), last + 1)
        self.path = run / f"{PREFIX}{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
        self._stream = self.path.open("xb")
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        if resume_clock is not None:
            # A running TensorBoard holds the points that were cut: this event makes it forget them.
            self._write(
                self._event(
                    wall_time=time.time(),
                    step=resume_clock + 1,
                    session_log=session(status=session.START),
                )
            )
        self.flush()

    def _write(self, event: Any) -> None:
        self._stream.write(framed(event.SerializeToString()))

    def add(self, summary: Any, clock: int) -> None:
        """Append a summary at `clock`."""
        self._write(self._event(wall_time=time.time(), step=clock, summary=summary))

    def show(self) -> None:
        """Hand what was added to the system, so that readers see it."""
        self._stream.flush()

    def flush(self) -> None:
        """Return when what was added is on disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        if not self._stream.closed:
            self.flush()
            self._stream.close()
