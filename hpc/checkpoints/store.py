"""Checkpoints: one layout for all engines, committed by rename, verified by hash, never unpickled.

A checkpoint is a directory `checkpoints/<clock>` that holds safetensors by parameter name (fp32 weights,
optimizer tensors, EMA; of sharded tensors pieces, `pieces.py`), the task's state, and a manifest with the
sha256 of every file and of itself (`manifest.py`). A directory named by digits is whole; `.tmp-*` was never
finished; `.damaged-*` is not what was saved. Which states go in: `manager.py`; how it is written:
`committing.py`.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from data_shards.errors import UserError
from data_shards.files import read_json
from hpc.checkpoints import committing, manifest, pieces, safetensors_writer, task_state
from hpc.checkpoints.checkpoint import PARTS
from hpc.checkpoints.checkpoint import Checkpoint as Checkpoint
from hpc.checkpoints.manifest import REMEDY, Damaged
from hpc.distributed.comm import Comm

ALONE = Comm()
STATE = {"task": dict, "monitor": {"sums?": {str: list}, "digest?": int}}


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


def save(
    run: Path, checkpoint: Checkpoint, *, guard: Callable[[], None] = lambda: None, comm: Comm = ALONE
) -> Path:
    """Write `checkpoint` and commit it by rename; older checkpoints are not touched.

    All ranks of `comm` call it: rank 0 with everything, the others with their pieces; all return when rank 0
    has committed. `guard` is called there before the first write and before the commit; an exception from it
    ends the save. Raises UserError, on all ranks, where the disk of one is full or not writable.
    """
    target = folder_of(run) / manifest.folder_name(checkpoint.clock)
    committing.write(target, checkpoint, guard, comm)
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
    with _as_damage(path, "its pieces"):
        pieces.read_index(path, content["files"])
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


def read(
    path: Path, *, verified: bool = False, comm: Comm = ALONE, parts: Collection[str] = tuple(PARTS)
) -> Checkpoint:
    """Load a checkpoint to the CPU; of sharded tensors the rows of this rank of `comm` (alone: all rows).

    verified: its hashes were checked already
    parts: which of player, optim and ema are loaded; task and sums always are
    """
    content = manifest.read(path) if verified else verify(path)
    loaded = Checkpoint(content["clock"], content["updates"], meta=content)
    for name in content["files"]:
        owner = name.removesuffix(".safetensors")
        if owner.partition("-")[0] in parts:
            with _as_damage(path, name):
                loaded.tensors_of(owner).update(load_file(path / name))
    with _as_damage(path, "its pieces"):
        for (owner, name), ranges in pieces.read_index(path, content["files"]).items():
            if owner.partition("-")[0] in parts:
                loaded.tensors_of(owner)[name] = pieces.read(path, ranges, comm)
                loaded.of[f"{owner}/{name}"] = ranges[0].rows.of
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
