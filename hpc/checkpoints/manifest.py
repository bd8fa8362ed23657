"""The manifest of a checkpoint: written with a hash of itself, and read by one reader that trusts nothing.

Format 2 holds the hash of all its other entries (`data_shards.files.seal`), and so does format 3, which lists
pieces of sharded tensors (`hpc/checkpoints/pieces.py`) too. Format 1, of earlier versions,
has none: there the clock is compared with the folder's name, the keys of the config with their own hash, and
the files with the folder, while `updates` and `metrics` are taken as they are. The other files:
`hpc/checkpoints/store.py`.
"""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import SEAL, FileError, is_sealed, read_json, seal
from hpc.config.identity import numbers
from hpc.config.schema import Config

NAME = "manifest.json"
FORMAT = 2
RANGED = 3  # with pieces of sharded tensors, which readers of format 2 do not know
KNOWN = (1, FORMAT, RANGED)
REMEDY = "use another one"
FILE = re.compile(r"((player|optim|ema)-[^/]+|task|pieces-\d{5})\.safetensors|state\.json")
ALWAYS = ("task.safetensors", "state.json")
SCHEMA = {
    "format": int,
    "clock": int,
    "updates": int,
    "files": {str: {"bytes": int, "sha256": str}},
    "metrics?": {str: object},
    "numbers?": dict,
    "metric?": [str],
    "task?": str,
    "helpers?": {str: str},
}


class Damaged(UserError):
    """A checkpoint that is not what was saved, or that cannot be read."""


def encode(
    clock: int, updates: int, meta: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """Compose the content of a manifest. `files`: name -> bytes, sha256."""
    kind = RANGED if any(name.startswith("pieces-") for name in files) else FORMAT
    content = {"format": kind, "clock": clock, "updates": updates, **meta, "files": files}
    return json.dumps(seal(content), indent=1, sort_keys=True).encode()


def read(path: Path) -> dict[str, Any]:
    """Read the manifest of the checkpoint in the folder `path`.

    Raises Damaged where it is not what was saved, UserError for a whole one of a newer version.
    """
    try:
        manifest = read_json(path / NAME, SCHEMA, remedy=REMEDY)
    except FileError as error:
        raise Damaged(f"checkpoint {path} has no readable {NAME} ({error})") from None
    if fault := _fault(path, manifest):
        raise Damaged(f"checkpoint {path} is damaged: {NAME}: {fault}; {REMEDY}")
    if manifest["format"] not in KNOWN:
        raise UserError(
            f"checkpoint {path} has format {manifest['format']}, this version reads 1 to {RANGED}: use the "
            "code that wrote it"
        )
    return manifest


def _fault(path: Path, manifest: Mapping[str, Any]) -> str:
    """Return why the manifest is not what was saved into this folder; empty where it is."""
    sealed = SEAL in manifest
    if sealed and not is_sealed(manifest):
        return "it does not match its own hash"
    if not sealed and manifest["format"] != 1:
        return f"it is of format {manifest['format']} and lacks its own hash"
    if manifest["format"] not in KNOWN:
        return ""  # another version's is not damaged, however strange it looks
    if path.name != folder_name(manifest["clock"]):
        return f"its clock is {manifest['clock']}"
    files = set(manifest["files"])
    wrong = [name for name in files if not FILE.fullmatch(name)] + [
        name for name in ALWAYS if name not in files
    ]
    if wrong or manifest["updates"] < 0:
        return f"it lists the wrong files, see {wrong[0]!a}" if wrong else "its count of updates is negative"
    others = {file.name for file in path.iterdir() if FILE.fullmatch(file.name)} - files
    if others:
        return f"it does not list {min(others)!a}"
    return "" if sealed else _unsealed_fault(manifest)


def _unsealed_fault(manifest: Mapping[str, Any]) -> str:
    """Return the fault of a manifest of format 1, by the facts that it states twice."""
    if not isinstance(manifest.get("numbers"), dict) or not isinstance(manifest.get("identity"), str):
        return "it does not say of which config it is"
    text = json.dumps(manifest["numbers"], sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest()[:16] != manifest["identity"]:
        return "its config does not match its identity"
    if not all(type(value) in (int, float) for value in manifest.get("metrics", {}).values()):
        return "its metrics are not numbers"
    return ""


def folder_name(clock: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"{clock:012d}"


def score(manifest: Mapping[str, Any], name: str) -> float | None:
    """Return the checkpoint's metric of that name; None where it is missing or not finite."""
    return metric_of(manifest.get("metrics", {}), name)


def metric_of(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return the figure `<evaluator>/<scalar>`; earlier versions named it by its scalar alone."""
    value = metrics.get(name, metrics.get(name.rpartition("/")[2]))
    return value if type(value) in (int, float) and math.isfinite(value) else None


def check_config(run: Path, config: Config) -> None:
    """Refuse a config.yaml that contradicts the run's checkpoints in a key that changes numbers.

    Only keys that both know are compared, but all of the task: another version may have other keys.
    """
    current, stored = numbers(config), _newest_numbers(run)
    for key in sorted(current.keys() | stored.keys()) if stored else ():
        known = key in current and key in stored
        if (known or key.startswith("task.")) and current.get(key) not in (stored.get(key), "auto"):
            raise UserError(
                f"{run / 'config.yaml'} says {key}={current.get(key)}, its checkpoints were made with "
                f"{key}={stored.get(key)}: set it back"
            )


def _newest_numbers(run: Path) -> dict[str, Any]:
    """Return the keys that change numbers, by the newest whole checkpoint; {} without one."""
    for path in sorted((run / "checkpoints").glob("[0-9]*"), reverse=True):
        with contextlib.suppress(UserError):
            return dict(read(path).get("numbers", {}))
    return {}
