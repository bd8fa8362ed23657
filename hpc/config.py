"""Reads, writes and compares the configs of runs. Imports no torch. The keys are in `hpc/config_schema.py`.

A task adds its own closed block of keys under `task` (`launch/conf/task/<name>.yaml`); `launch/submit.py`
composes both with Hydra and writes the result, `RUN/config.yaml`, which is all that a rank reads.
"""

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError
from hpc.config_schema import (
    Augment,
    Cluster,
    Config,
    Data,
    DeepSpeed,
    Ema,
    Engine,
    Evaluate,
    Log,
    Optim,
    Save,
)

__all__ = [
    "Augment",
    "Cluster",
    "Config",
    "Data",
    "DeepSpeed",
    "Ema",
    "Engine",
    "Evaluate",
    "Log",
    "Optim",
    "Save",
]


# Keys that change no number of the run, or only the order in which the same numbers are summed. Everything else is
# part of the run's identity. Folders of data may move; their content is held by the manifests' digests.
FREE = frozenset(
    (
        *("name", "runs", "procs", "nodes", "gpus", "hours", "after", "wait", "dry_run", "prepare"),
        *("log", "engine", "cluster", "save.mode", "data.stage", "optim.impl"),
        *("desync_every", "hang_timeout", "eval.batch"),
        *("save.last", "save.best", "save.keep_every"),
        *("data.set", "data.train", "data.val", "data.eval", "data.threads", "data.ahead"),
    )
)


CONF = Path(__file__).resolve().parents[1] / "launch" / "conf"


def smoke_overrides(task: str) -> list[str]:
    """The `smoke` block of conf/task/<task>.yaml as `key=value` words: small sizes, the same code paths."""
    path = CONF / "task" / f"{task}.yaml"
    if not path.is_file():
        known = [other.stem for other in path.parent.glob("*.yaml")]
        raise UserError(f"task={task} is not known: {near(task, known, what='task')}")
    block = (yaml.safe_load(path.read_text()) or {}).get("smoke") or {}
    return [
        f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in block.items()
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def is_free(key: str, config: Config) -> bool:
    """Whether a dotted key may change when the run of `config` is resumed."""
    if key == "micro_batch":  # `local` and `sync` normalise over it
        return config.norm_stats == "group"
    return key in FREE or key.split(".")[0] in FREE


def numbers(config: Config) -> dict[str, Any]:
    """The dotted keys that change the numbers of a run, with their values."""
    values = flatten(dataclasses.asdict(config))
    return {key: value for key, value in values.items() if not is_free(key, config)}


def identity(config: Config) -> str:
    """Hash of the keys that change numbers: equal for a run and its resumed continuation."""
    text = json.dumps(numbers(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(before: Config, after: Config) -> list[str]:
    """The keys that change numbers and differ between two configs, as `key=new (was old)`."""
    old, new = numbers(before), numbers(after)
    keys = sorted(set(old) | set(new))
    return [f"{key}={new.get(key)} (was {old.get(key)})" for key in keys if old.get(key) != new.get(key)]


def near(word: str, known: Iterable[str], *, what: str = "key") -> str:
    """The remedy of an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not match and "." in word:  # optim.learning: show what optim has
        group = word.rsplit(".", 1)[0] + "."
        known = [key for key in known if key.startswith(group)] or known
    if match:
        return f"did you mean {match[0]}?"
    if len(known) > 20:
        known = sorted({key.split(".")[0] + (".*" if "." in key else "") for key in known})
    return f"known {what}s: {', '.join(known)}" if known else f"there is no {what} here"


def from_dict(values: Mapping[str, Any], kind: type = Config, prefix: str = "") -> Any:
    """Build the dataclass `kind` from nested mappings, strictly: an unknown key or a wrong type is a UserError."""
    fields = {item.name: item for item in dataclasses.fields(kind)}
    default = kind()
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"unknown key {prefix}{key}={value}: {near(key, fields)}")
        like = getattr(default, key)
        if dataclasses.is_dataclass(like):
            if not isinstance(value, Mapping):
                raise UserError(f"{prefix}{key}={value} is a group of keys: write {prefix}{key}.KEY=VALUE")
            built[key] = from_dict(value, type(like), f"{prefix}{key}.")
        else:
            built[key] = as_type(f"{prefix}{key}", value, like)
    return kind(**built)


def as_type(key: str, value: Any, like: Any) -> Any:
    """`value` if it has the type of the default `like` (whole numbers pass as float), else UserError."""
    if like is None or isinstance(like, Mapping):
        return value
    if isinstance(like, list):
        if not isinstance(value, list | tuple):
            raise UserError(f"{key}={value} is not a list: write {key}=[{value}]")
        return [as_type(key, item, like[0]) if like else item for item in value]
    if isinstance(like, float) and type(value) is int:
        return float(value)
    if type(value) is not type(like):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[type(like)]
        example = json.dumps(like) if isinstance(like, bool) else "..." if like == "" else like
        raise UserError(f"{key}={value} is not {wanted}: type for example {key}={example}")
    return value


def load_config(path: Path | str) -> Config:
    """Read a resolved config back, strictly."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = str(error).replace(chr(10), " ")
        raise UserError(f"{path} cannot be read as a run's config ({reason}): give a run directory") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path} holds no config: give a run directory")
    config: Config = from_dict(values)
    return config


def save_config(config: Config, path: Path | str) -> None:
    """Write the config whole, under a temporary name first."""
    path = Path(path)
    draft = path.with_name(f".{path.name}")
    draft.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
    os.replace(draft, path)
