"""Keeps the features of real images, so that a set is walked once for each extractor and rule.

An entry is found by the hash of the set's manifest, the rule by which images come to their size, and the hash
of the extractor's weights; it states all three again. What does not match, or is damaged, is computed anew.
The folder is $XDG_CACHE_HOME/rostro/features, by default below ~/.cache; it may be deleted at any time.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from data_shards.errors import UserError
from data_shards.files import is_sealed, read_bytes, read_json, seal, write_bytes, write_json

LARGEST = 1 << 36  # bytes of an entry


@dataclass(frozen=True)
class Source:
    """What features are of. Any other value is another entry."""

    manifest: str  # sha256 of the set's manifest
    rule: str  # how its images were chosen, and came to the size at which they are compared
    extractor: str  # sha256 of the weights

    @property
    def name(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rostro" / "features"


def load(source: Source) -> dict[str, np.ndarray] | None:
    """Return {"ids" [n], "features" [n, d]} of a whole entry that is of `source`, else None."""
    path = folder() / source.name
    try:
        stated = read_json(path.with_suffix(".json"), {"content": str, **dict.fromkeys(asdict(source), str)})
        if not is_sealed(stated) or {name: stated[name] for name in asdict(source)} != asdict(source):
            return None
        data = read_bytes(path.with_suffix(".safetensors"), limit=LARGEST)
        if hashlib.sha256(data).hexdigest() != stated["content"]:
            return None
        found = safetensors.numpy.load(data)
    except (UserError, safetensors.SafetensorError):
        return None
    return found if found.keys() == {"ids", "features"} else None


def store(source: Source, ids: np.ndarray, features: np.ndarray) -> str:
    """Write an entry; return why it could not be written (empty = it was): figures do not depend on it."""
    content = {"ids": np.ascontiguousarray(ids), "features": np.ascontiguousarray(features)}
    data = safetensors.numpy.save(content)
    path = folder() / source.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path.with_suffix(".safetensors"), data)
        stated = asdict(source) | {"content": hashlib.sha256(data).hexdigest()}
        write_json(path.with_suffix(".json"), seal(stated))
    except OSError as error:
        return f"features were not kept in {path.parent}: {error.strerror or error}"
    return ""
