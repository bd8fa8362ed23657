"""The site file: facts about a cluster that hold for every run, kept outside the checkout.

It is $ROSTRO_SITE or ~/.config/rostro/site.yaml. It sets defaults for the keys of `cluster` and for those of
`BESIDE`; the command line overrides them. An unknown key is refused.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from data_shards.files import read_yaml
from hpc.config.schema import Cluster, Config
from hpc.config.text import check_text
from hpc.config.types import as_type, near, shown

BESIDE = ("gpus", "hours", "procs", "runs", "hang_timeout", "data.stage")  # keys outside of `cluster`


def site_file() -> Path | None:
    """Return the site file (None = there is none). A file that $ROSTRO_SITE names must exist."""
    named = os.environ.get("ROSTRO_SITE")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise UserError(
                f"ROSTRO_SITE={named} is not a file: write it (docs/cluster.md), or unset ROSTRO_SITE"
            )
        return path
    path = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "rostro" / "site.yaml"
    return path if path.is_file() else None


def site_values() -> dict[str, Any]:
    """Return the dotted keys of the site file with their values, checked for name and type."""
    path = site_file()
    if path is None:
        return {}
    content = read_yaml(path, remedy="correct it, for example cluster: {partition: gpu}")
    for key in content:
        if not isinstance(key, str) or not key.isprintable():
            raise UserError(
                f"{path}: {shown(key)} is not a key: write for example cluster: {{partition: gpu}}"
            )
    cluster = content.pop("cluster", None) or {}
    if not isinstance(cluster, dict):
        raise UserError(
            f"{path}: cluster={shown(cluster)} is a group of keys: write cluster: {{partition: gpu}}"
        )
    data = content.pop("data", None) or {}
    if not isinstance(data, dict):
        raise UserError(
            f"{path}: data={shown(data)} is a group of keys: write data: {{stage: /scratch/NAME}}"
        )
    content.update({f"data.{key}": value for key, value in data.items()})
    known = {f"cluster.{item.name}": getattr(Cluster(), item.name) for item in dataclasses.fields(Cluster)}
    plain = Config(task={})
    known |= {key: getattr(plain, key) for key in BESIDE if "." not in key} | {"data.stage": plain.data.stage}
    values = {f"cluster.{key}": value for key, value in cluster.items()} | content
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{path}: unknown key {shown(key)}: {near(key, known)}")
        try:
            values[key] = as_type(key, value, known[key])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    try:
        check_text(_with(plain, values))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return values


def _with(plain: Config, values: Mapping[str, Any]) -> Config:
    """Return the config with the values of the file in it."""
    for key, value in values.items():
        group, _, last = key.rpartition(".")
        setattr(getattr(plain, group) if group else plain, last, value)
    return plain
