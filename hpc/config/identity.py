"""The keys that change the numbers of a run, and their hash, equal for a resumed run. Imports no torch."""

import dataclasses
import hashlib
import json
from typing import Any

from hpc.config.schema import Config
from hpc.config.types import common, flatten

# Keys that change no number of the run, or only the order in which the same numbers are summed. Everything
# else is part of the run's identity. Folders of data may move; their content is held by the manifests'
# digests.
FREE = frozenset(
    (
        *("name", "runs", "procs", "nodes", "gpus", "hours", "after", "wait", "dry_run", "prepare"),
        *("log", "engine", "cluster", "save.mode", "data.stage", "optim.impl"),
        *("desync_every", "hang_timeout"),
        *("save.last", "save.best", "save.keep_every"),
        *(
            "data.set",
            "data.train",
            "data.train_b",
            "data.val",
            "data.eval",
            "data.allow_shared",
            "data.threads",
            "data.ahead",
        ),
    )
)

# Keys that are younger than some runs, with the value that stands for what those runs did. They are left
# out of the hash while they have it, so that an older run keeps its identity.
YOUNGER: dict[str, Any] = {
    "data.rows": "set",
    "data.weights": "",
    "data.balance": "",
    "data.mix": "",
    "data.twins": [],
    "optim.hold": 0.0,
    "optim.warmup_momentum": 0.0,
    "optim.warmup_bias": 0.0,
    "init.run": "",
    "init.checkpoint": "best",
    "init.skip": [],
    "init.freeze": [],
    "data.fit": "cover",
    "data.halves": False,
    "data.a": "",
    "data.b": "",
    "data.members": 1,
}

# Keys that change numbers and are refused by name when a run is resumed, but are in no hash, since older runs
# hold any value of them: figures depend on eval.batch in the last digits.
UNHASHED = ("eval.batch",)

# Keys that may name a list of rows in a file (data_shards/sampling/row_file.py).
LISTS = ("data.rows", "data.weights", "data.a", "data.b")


def is_free(key: str, config: Config) -> bool:
    """Return whether a dotted key may change when the run of `config` is resumed."""
    key = common(key)
    if key == "micro_batch":  # `local` and `sync` normalise over it
        return config.norm_stats == "group"
    return key in FREE or key.split(".")[0] in FREE


def numbers(config: Config) -> dict[str, Any]:
    """Return the dotted keys that change the numbers of a run, with their values."""
    values = flatten(dataclasses.asdict(config))
    return {key: _content(key, value) for key, value in values.items() if not is_free(key, config)}


def _content(key: str, value: Any) -> Any:
    """Return a list of rows in a file, `@PATH#sha256`, without its path: the file may move."""
    return f"@{value.rpartition('#')[2]}" if key in LISTS and value.startswith("@") else value


def identity(config: Config) -> str:
    """Hash the keys that change numbers, equal for a run and its resumed continuation."""
    values = numbers(config).items()
    hashed = {
        key: value
        for key, value in values
        if key not in UNHASHED and (common(key) not in YOUNGER or value != YOUNGER[common(key)])
    }
    text = json.dumps(hashed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(before: Config, after: Config) -> list[str]:
    """List the keys that change numbers and differ between two configs, as `key=new (was old)`."""
    old, new = numbers(before), numbers(after)
    keys = sorted(set(old) | set(new))
    return [f"{key}={new.get(key)} (was {old.get(key)})" for key in keys if old.get(key) != new.get(key)]
