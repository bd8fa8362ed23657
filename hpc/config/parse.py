"""Reads, writes and compares the configs of runs. Imports no torch. The keys are in `hpc/config/schema.py`.

A task adds its own closed block of keys under `task`. What starts a run composes both and writes the result,
`RUN/config.yaml`; the types of the task's keys are in its yaml, in the code that the run keeps.
"""

import dataclasses
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError
from data_shards.files import read_yaml, write_bytes
from hpc.config.players import merged
from hpc.config.schema import Config
from hpc.config.types import as_type, common, flatten, near, shown


def from_dict(values: Mapping[str, Any], kind: type = Config, prefix: str = "") -> Any:
    """Build the dataclass `kind` from nested mappings; UserError for an unknown key or a wrong type."""
    fields = {item.name: item for item in dataclasses.fields(kind)}
    default = kind()
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"unknown key {prefix}{shown(key)}={shown(value)}: {near(str(key), fields)}")
        like = getattr(default, key)
        if dataclasses.is_dataclass(like):
            if not isinstance(value, Mapping):
                raise UserError(
                    f"{prefix}{key}={shown(value)} is a group of keys: write {prefix}{key}.KEY=VALUE"
                )
            built[key] = from_dict(value, type(like), f"{prefix}{key}.")
        else:
            built[key] = as_type(f"{prefix}{key}", value, like)
    return kind(**built)


def load_config(path: Path | str) -> Config:
    """Read a resolved config back, strictly.

    The task's keys get the types of the task's yaml in the run's own code, the folder `code` beside the file.
    """
    values = read_yaml(path, remedy="give a run directory")
    if not values:
        raise UserError(f"{path} holds no config: give a run directory")
    try:
        config: Config = from_dict(values)
        name = config.task.get("name")
        if not isinstance(name, str):
            raise UserError(f"task.name={shown(name)} is not the name of a task: give a run directory")
        config.players = merged(config)
        config.task = _typed_task(config.task, task_defaults(Path(path).parent / "code", name))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def _typed_task(task: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Give the block the types of the task's defaults. A key without one is other code's and stays."""

    def typed(key: str, value: Any) -> Any:
        if key in defaults:
            return as_type(key, value, defaults[key])
        if isinstance(value, Mapping):
            return {name: typed(f"{key}.{name}", item) for name, item in value.items()}
        if any(known.startswith(f"{key}.") for known in defaults):
            raise UserError(f"{key}={shown(value)} is a group of keys: give a run directory")
        return value

    return {key: typed(f"task.{key}", value) for key, value in task.items()}


def task_defaults(code: Path, task: str) -> dict[str, Any]:
    """Read the dotted keys `task.*` of a task and their defaults from a copy of the code.

    The dictionary is empty if the code does not have the task's yaml, as in a run whose code was deleted.
    """
    if not re.fullmatch(r"\w+", task):
        return {}
    path = next(code.glob(f"*/conf/task/{task}.yaml"), None)
    return {} if path is None else _task_block(path)


@cache
def _task_block(path: Path) -> dict[str, Any]:
    content = read_yaml(path, {"task?": {str: object}}, remedy="restore it")
    block = flatten(content.get("task", {}), "task.")
    return {key: float(value) if _is_exponent(value) else value for key, value in block.items()}


def _is_exponent(value: Any) -> bool:
    """Return whether PyYAML took a number for text, as it does with `1e-3` (not with `1.0e-3`)."""
    return isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value) is not None


class _Dumper(yaml.SafeDumper):
    """Writes a value that stands twice in a config twice: `read_yaml` takes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def update_config(config: Config, path: Path) -> None:
    """Write what changed into a run's config; a key at its default that the file does not have stays absent.

    The run's own code may be older than this one, and refuses keys that it does not know.
    """
    content = read_yaml(path)
    before = flatten(content)
    default = flatten(dataclasses.asdict(Config()))
    values = dataclasses.asdict(config)
    for key, value in flatten(values).items():
        if key not in before and common(key) in default and value == default[common(key)]:
            *groups, last = key.split(".")
            block = values
            for group in groups:
                block = block[group]
            del block[last]
    for group in [key for key, value in values.items() if value == {} and key not in content]:
        del values[group]
    _write_config(values, path)


def save_config(config: Config, path: Path | str) -> None:
    """Write the config whole, under a temporary name first."""
    _write_config(dataclasses.asdict(config), Path(path))


def _write_config(values: dict[str, Any], path: Path) -> None:
    write_bytes(path, yaml.dump(values, Dumper=_Dumper, sort_keys=False).encode())
