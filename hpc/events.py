"""TensorBoard event files, record by record: forced to disk before a checkpoint, cut back after a kill.

A file is a row of TFRecords: length (u64), its masked crc32c, the bytes of an `Event`, theirs. tensorboard is
imported when first needed. What is written: `hpc/monitor.py`.
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HEADER, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
PREFIX = "events.out.tfevents."


def tensorboard() -> tuple[Any, Any, Any]:
    """(Event, SessionLog, masked_crc32c) of tensorboard, kept from importing an installed TensorFlow."""
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return Event, SessionLog, masked_crc32c


def files(run: Path) -> list[Path]:
    """The event files of a run, oldest first: the order in which TensorBoard reads them."""
    return sorted(run.glob(f"{PREFIX}*"))


def records(path: Path) -> Iterator[bytes]:
    """The whole records of a file, up to the first that is torn or does not match its checksum."""
    crc = tensorboard()[2]
    with path.open("rb") as stream:
        while True:
            head = stream.read(HEADER.size + CHECKSUM.size)
            if len(head) < HEADER.size + CHECKSUM.size:
                return
            if CHECKSUM.unpack(head[HEADER.size :])[0] != crc(head[: HEADER.size]):
                return
            length = HEADER.unpack(head[: HEADER.size])[0]
            data, tail = stream.read(length), stream.read(CHECKSUM.size)
            if len(data) < length or len(tail) < CHECKSUM.size or CHECKSUM.unpack(tail)[0] != crc(data):
                return
            yield data


def framed(data: bytes) -> bytes:
    """`data` as one record."""
    crc = tensorboard()[2]
    head = HEADER.pack(len(data))
    return head + CHECKSUM.pack(crc(head)) + data + CHECKSUM.pack(crc(data))


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file as one step that survives a power cut."""
    draft = path.with_name(f".trim-{os.getpid()}")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def trim(run: Path, clock: int) -> None:
    """Cut the run's event files back to what was recorded up to `clock`; drop torn records.

    The updates after `clock` will be made again: without this each of their points would stand there twice. The
    newest file is made anew in any case: a start that was overtaken, and does not know it yet, writes into the old
    one, which has no name any more.
    """
    event_type = tensorboard()[0]
    for path in (found := files(run)):
        kept, useful = [], False
        for data in records(path):
            event = event_type.FromString(data)
            header = event.HasField("file_version")
            if header or event.step <= clock:
                kept.append(framed(data))
                useful = useful or not header
        if not useful:
            path.unlink()
        elif path == found[-1] or sum(map(len, kept)) != path.stat().st_size:
            replace(path, b"".join(kept))


def remove(run: Path) -> None:
    """Delete the event files of a start that left no checkpoint."""
    for path in files(run):
        path.unlink()


class EventFile:
    """An event file being written. Nothing runs in the background: `flush` returns when all is on disk."""

    def __init__(self, run: Path, *, resume_clock: int | None = None) -> None:
        self._event, session, _ = tensorboard()
        # TensorBoard reads files by name: a later file must sort last even where the hosts' clocks disagree.
        last = max((int(path.name[len(PREFIX) :].split(".")[0]) for path in files(run)), default=0)
        stamp = max(int(time.time()), last + 1)
        self.path = run / f"{PREFIX}{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
        self._stream = self.path.open("xb")
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        if resume_clock is not None:
            # Tells a TensorBoard that has the cut points in memory to forget them.
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
