"""Checkpoints: one layout for all engines, committed by rename, verified by hash, never unpickled.

A checkpoint is a directory `checkpoints/<clock>` that holds safetensors by parameter name (fp32 weights,
optimizer tensors, EMA), the task's state, and a manifest with the sha256 of every file and of itself
(`hpc/checkpoints/manifest.py`). A directory named by digits is whole; `.tmp-*` was never finished;
`.damaged-*` is not what was saved. Which states go in: `manager.py`.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from data_shards.errors import UserError
from data_shards.files import read_json, sync_path
from hpc.checkpoints import manifest, safetensors_writer, task_state
from hpc.checkpoints.manifest import REMEDY, Damaged
from hpc.training import fault_injection
from hpc.training.player import PlayerState

HASHERS = 4  # files hashed at a time, while the next ones are written
STATE = {"task": dict, "monitor": {"sums?": {str: list}, "digest?": int}}
Tensors = dict[str, Tensor]


@dataclass
class Checkpoint:
    """The state of a run at a clock. Tensors are on the CPU."""

    clock: int
    updates: int
    players: dict[str, Tensors] = field(default_factory=dict)
    optim: dict[str, Tensors] = field(default_factory=dict)
    ema: dict[str, Tensors] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)  # nested tensors and plain values
    monitor: dict[str, Any] = field(default_factory=dict)  # sums since the last log line; plain values
    meta: dict[str, Any] = field(default_factory=dict)  # task, identity, world, metrics

    def put(self, player: str, state: PlayerState) -> None:
        """Add the state of a player."""
        self.players[player], self.optim[player] = state.weights, state.optim
        if state.ema is not None:
            self.ema[player] = state.ema

    def state_of(self, player: str) -> PlayerState:
        """Return the state of a player."""
        return PlayerState(self.players[player], self.optim[player], self.ema.get(player))

    def files(self) -> Iterator[tuple[str, Tensors | dict]]:
        """Yield (file name, content) in the order of writing."""
        for kind in ("player", "optim", "ema"):
            source = self.players if kind == "player" else getattr(self, kind)
            for player, tensors in source.items():
                yield f"{kind}-{player}.safetensors", tensors
        tensors, plain = task_state.split(self.task)
        yield "task.safetensors", tensors
        yield "state.json", {"task": plain, "monitor": self.monitor}


def folder_of(run: Path) -> Path:
    return run / "checkpoints"


def listing(run: Path) -> list[Path]:
    """List the whole checkpoints, oldest first."""
    folder = folder_of(run)
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.isascii() and p.name.isdigit())


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, content: Tensors | dict, pool: Executor) -> tuple[int, Future[str]]:
    """Write one file durably; return its size and its hash, which may still be in the making."""
    if path.suffix == ".safetensors":
        return safetensors_writer.write(path, safetensors_writer.encode(content), pool)
    # Keys are not sorted: the series of the current interval are reported in this order.
    return safetensors_writer.write(path, [json.dumps(content, indent=1).encode()], pool)


def save(run: Path, checkpoint: Checkpoint, *, guard: Callable[[], None] = lambda: None) -> Path:
    """Write `checkpoint` and commit it by rename; older checkpoints are not touched.

    `guard` is called before the first write and before the commit; an exception from it ends the save. Raises
    UserError where the disk is full or not writable.
    """
    guard()
    folder = folder_of(run)
    target = folder / manifest.folder_name(checkpoint.clock)
    if target.exists():
        return target
    temporary = folder / f".tmp-{checkpoint.clock:012d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed save whose pid was the same
        temporary.mkdir()
        with ThreadPoolExecutor(HASHERS) as pool:
            written = {}
            for number, (name, content) in enumerate(checkpoint.files()):
                fault_injection.crash_point(f"save{number}", checkpoint.clock)
                written[name] = _write(temporary / name, content, pool)
            files = {
                name: {"bytes": size, "sha256": hashed.result()} for name, (size, hashed) in written.items()
            }
            head = manifest.encode(checkpoint.clock, checkpoint.updates, checkpoint.meta, files)
            safetensors_writer.write(temporary / manifest.NAME, [head], pool)
        sync_path(temporary)
        fault_injection.crash_point("savecommit", checkpoint.clock)
        guard()
        temporary.rename(target)
        sync_path(folder)
    except UserError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise UserError(
            f"checkpoint {target} was not saved, {reason}: free space there, or keep fewer with save.last=1; "
            "older checkpoints are intact, `rostro resume` continues from the newest"
        ) from None
    return target


def verify(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose files match their hashes and the types that `read` expects.

    Raises Damaged otherwise, UserError for one of a newer version.
    """
    content = manifest.read(path)
    for name, facts in content["files"].items():
        with _as_damage(path, name):
            file = path / name
            if not file.is_file() or file.stat().st_size != facts["bytes"] or _hash(file) != facts["sha256"]:
                raise Damaged(f"checkpoint {path} is damaged: {name} does not match its manifest; {REMEDY}")
            if file.suffix == ".safetensors":
                _check_tensors(file)
    _state(path, content)
    return content


@contextlib.contextmanager
def _as_damage(path: Path, name: str) -> Iterator[None]:
    """Raise Damaged for any failure while a file of a checkpoint is read."""
    try:
        yield
    except (Damaged, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Damaged(f"checkpoint {path} is damaged: {name} ({reason}); {REMEDY}") from None


def _check_tensors(file: Path) -> None:
    """Refuse a file with a header that cannot be loaded; its tensors are not read."""
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            kind = opened.get_slice(name).get_dtype()
            if kind not in safetensors_writer.DTYPES.values():
                raise SafetensorError(f"tensor {name} is of type {kind}")


def _state(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Read state.json."""
    with _as_damage(path, "state.json"):
        limit = content["files"]["state.json"]["bytes"]
        state: dict[str, Any] = read_json(path / "state.json", STATE, limit=limit, remedy=REMEDY)
        for name, entry in state["monitor"].get("sums", {}).items():
            if len(entry) != 2 or not all(type(number) in (int, float) for number in entry):
                raise ValueError(f"the sum of {name} is not a total and a count")
    return state


def read(path: Path, *, verified: bool = False) -> Checkpoint:
    """Load a checkpoint to the CPU. `verified`: its hashes were checked already."""
    content = manifest.read(path) if verified else verify(path)
    loaded = Checkpoint(content["clock"], content["updates"], meta=content)
    for name in content["files"]:
        kind, _, player = name.removesuffix(".safetensors").partition("-")
        if kind in ("player", "optim", "ema"):
            parts = loaded.players if kind == "player" else getattr(loaded, kind)
            with _as_damage(path, name):
                parts[player] = load_file(path / name)
    state = _state(path, content)
    with _as_damage(path, "task.safetensors"):
        loaded.task = task_state.joined(load_file(path / "task.safetensors"), state["task"])
    loaded.monitor = state["monitor"]
    return loaded


def latest(run: Path, warn: Any = print) -> Path | None:
    """Find the newest checkpoint whose hashes match, or None. Damaged ones are set aside with a warning."""
    for path in reversed(listing(run)):
        try:
            verify(path)
        except Damaged as error:
            warn(f"warning: {error}; taking an older one")
            _set_aside(path)
            continue
        return path
    return None


def _set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, since the run may reach its clock again."""
    aside = path.with_name(f".damaged-{path.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time
        path.rename(aside)
    except OSError as error:
        raise UserError(
            f"the damaged checkpoint {path} cannot be renamed ({error.strerror}): give rights there, or move "
            f"it away"
        ) from None


def readable(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every checkpoint with an intact manifest, oldest first, and that manifest."""
    for path in listing(run):
        with contextlib.suppress(UserError):
            yield path, manifest.read(path)


def scored(run: Path, metric: tuple[str, str]) -> list[tuple[float, Path]]:
    """List (figure, path) of the evaluated checkpoints, best first by (scalar, min | max), then newest first.

    Those with damaged manifests are left out, and so are figures that are not finite.
    """
    name, sense = metric
    scores = [
        (value, path)
        for path, content in readable(run)
        if (value := manifest.score(content, name)) is not None
    ]
    sign = 1 if sense == "min" else -1
    return sorted(scores, key=lambda entry: (sign * entry[0], -int(entry[1].name)))


def ranked(run: Path, metric: tuple[str, str]) -> list[Path]:
    """Return the paths of `scored`."""
    return [path for _, path in scored(run, metric)]


def best(run: Path, metric: tuple[str, str]) -> Path | None:
    """Return the best evaluated checkpoint, else the newest."""
    order = ranked(run, metric) or [path for path, _ in readable(run)][::-1]
    return order[0] if order else None


def prune(run: Path, *, last: int, best: int, keep_every: int, metric: tuple[str, str]) -> None:
    """Delete what no rule keeps: the newest `last`, the `best` best, and multiples of `keep_every` images.

    A damaged one takes no place of a good one. A multiple counts for the first checkpoint at or after it.
    Unfinished directories of dead processes go too. What cannot be deleted now (a reader on NFS holds it) is
    left to the next time, and the run continues.
    """
    paths = listing(run)
    good = [path for path, _ in readable(run)]
    kept = set(paths[-max(last, 1) :]) | set(good[-max(last, 1) :]) | set(ranked(run, metric)[:best])
    if keep_every:
        seen: set[int] = set()
        for path in good:
            if (step := int(path.name) // keep_every) and step not in seen:
                seen.add(step)
                kept.add(path)
    for path in paths:
        if path not in kept:
            # Renamed first: a deletion cut short must not leave a directory that looks whole.
            with contextlib.suppress(OSError):
                path.rename(path.with_name(f".tmp-old-{path.name}"))
    for stale in folder_of(run).glob(".tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
