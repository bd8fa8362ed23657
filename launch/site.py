"""The site file: what is true of a cluster and of no run, kept outside of the checkout.

$ROSTRO_SITE, or ~/.config/rostro/site.yaml. It gives defaults to keys of `cluster`, and to gpus, hours and runs; the
command line overrides it. An unknown key is refused.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data_shards.errors import UserError
from hpc.config import Cluster, Config, as_type, near

BESIDE = ("gpus", "hours", "procs", "runs", "hang_timeout", "data.stage")  # keys outside of `cluster`


def site_file() -> Path | None:
    """The file, or None where there is none. A file that $ROSTRO_SITE names must be there."""
    named = os.environ.get("ROSTRO_SITE")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise UserError(
                f"ROSTRO_SITE={named} is no file: write it (docs/cluster.md), or unset ROSTRO_SITE"
            )
        return path
    path = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "rostro" / "site.yaml"
    return path if path.is_file() else None


def site_values() -> dict[str, Any]:
    """Dotted keys of the site file with their values, checked for name and type."""
    path = site_file()
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): mend it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys: write for example cluster: {{partition: gpu}}")
    cluster = content.pop("cluster", None) or {}
    if not isinstance(cluster, dict):
        raise UserError(f"{path}: cluster={cluster} is a group of keys: write cluster: {{partition: gpu}}")
    content.update(_flat(content.pop("data", None), "data"))
    known = {f"cluster.{item.name}": getattr(Cluster(), item.name) for item in dataclasses.fields(Cluster)}
    plain = Config(task={})
    known |= {key: getattr(plain, key) for key in BESIDE if "." not in key} | {"data.stage": plain.data.stage}
    found = {f"cluster.{key}": value for key, value in cluster.items()} | content
    for key, value in found.items():
        if key not in known:
            raise UserError(f"{path}: unknown key {key}: {near(key, known)}")
        try:
            found[key] = as_type(key, value, known[key])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return found


def _flat(group: Any, name: str) -> dict[str, Any]:
    return {f"{name}.{key}": value for key, value in group.items()} if isinstance(group, dict) else {}


def site_words(typed: Sequence[str]) -> list[str]:
    """The site file as `key=value` words that Hydra reads; the `typed` ones come after them and win."""
    values = site_values()
    if any(word.startswith("cluster=") for word in typed):  # a group, which Hydra reads before its keys
        values.pop("cluster.name", None)
    return [f"{key}={_written(value)}" for key, value in values.items()]


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "[" + ",".join(_inner(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_inner(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _inner(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
