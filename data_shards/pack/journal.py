"""Record on disk what an unfinished pack has done, so that the next identical run resumes from there.

`SET/.pack/plan.json` identifies the pack; `SET/.pack/<shard>.npz` says that a shard is whole under its final
name, and what it contains. Only the parent process of a pack gives final names, so a worker that outlives it
changes nothing.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import TEMPORARY, durable, sync_path
from data_shards.pack.shard_worker import ShardResult
from data_shards.shard_format.manifest import FOLDER

_OURS = re.compile(r"[A-Za-z0-9_-]+-\d{6}\.(tar|idx)|identities\.txt|rejected\.csv")


@contextmanager
def locked(out: Path, *, key: str = "out") -> Iterator[None]:
    """Keep other processes from packing into `out`. The lock ends with the process, even a killed one.

    Raises UserError, which names the folder as the value of `key`, if another process has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        other = f" or choose another {key}=" if key == "out" else ""
        raise UserError(f"{key}={out}: another pack is writing there; wait for it{other}") from None
    finally:
        os.close(descriptor)


class PackJournal:
    """The journal of one set while it is being packed. `request`: the fingerprint of the pack."""

    def __init__(self, folder: Path, request: str) -> None:
        self.folder, self.request = folder, request
        self.journal = folder / FOLDER
        self.rejected: list[tuple[str, str]] = []  # path, reason of the files that the plan leaves out
        self.journal.mkdir(parents=True, exist_ok=True)
        self.remove_unfinished()
        state = self._state()
        if state.get("request") == request:
            self.rejected = [(path, why) for path, why in state["rejected"]]
        else:
            self._restart()

    def _state(self) -> dict[str, Any]:
        try:
            return json.loads((self.journal / "plan.json").read_text())
        except (OSError, ValueError):
            return {}

    def remove_unfinished(self) -> None:
        """Remove the files that a pack has begun and not finished."""
        for folder in (self.folder, self.folder / "index", self.journal):
            for path in folder.glob(f"{TEMPORARY}*"):
                path.unlink()

    def _restart(self) -> None:
        """Forget all shards: they belong to another plan."""
        for path in (*self.journal.glob("*.npz"), *self.folder.iterdir()):
            if path.parent == self.journal or _OURS.fullmatch(path.name):
                path.unlink()
        shutil.rmtree(self.folder / "index", ignore_errors=True)
        state = {"request": self.request, "rejected": self.rejected}
        with durable(self.journal / "plan.json") as file:
            file.write(json.dumps(state).encode())

    def drop(self, rejected: list[tuple[str, str]]) -> None:
        """Start again without these files: shards and numbers of identities change."""
        self.rejected += rejected
        self._restart()

    def temporary(self, name: str) -> Path:
        """The path under which a file of this set is written before it gets its name."""
        return self.folder / f"{TEMPORARY}{os.getpid()}-{name}"

    def commit(self, stem: str, number: int, result: ShardResult) -> None:
        """Give a finished shard its name, then record what it contains."""
        for name in (f"{stem}.tar", f"{stem}.idx"):
            sync_path(self.temporary(name))  # not in the worker, which is already writing the next shard
            os.replace(self.temporary(name), self.folder / name)
        sync_path(self.folder)
        meta = {
            "num_bytes": result.num_bytes,
            "sha256": result.sha256,
            "rejected": result.rejected,
            "converted": result.converted,
        }
        text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        with durable(self.journal / f"{number:06d}.npz") as file:
            np.savez(file, allow_pickle=False, meta=text, **result.table)

    def finished(self, stem: str, number: int) -> ShardResult | None:
        """The shard as an earlier run has finished it (None = it has not, or files are missing)."""
        try:
            with np.load(self.journal / f"{number:06d}.npz", allow_pickle=False) as file:
                table = dict(file)
            meta = json.loads(bytes(table.pop("meta")))
            whole = os.path.getsize(self.folder / f"{stem}.tar") == meta["num_bytes"]
            whole = whole and (self.folder / f"{stem}.idx").exists()
        except (OSError, ValueError, KeyError):
            return None
        rejected = [(path, why) for path, why in meta["rejected"]]
        return (
            ShardResult(meta["num_bytes"], meta["sha256"], table, rejected, meta["converted"])
            if whole
            else None
        )

    def remove(self) -> None:
        """Remove the journal of a committed set."""
        shutil.rmtree(self.journal, ignore_errors=True)

    def discard(self) -> None:
        """Remove the journal and the folder of a set that will not exist."""
        self._restart()
        self.remove()
        self.folder.rmdir()


def remove_journal(folder: Path) -> None:
    """Remove the journal that a run left if it was killed right after committing the set."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
