"""Checks the strings of a config that become names, paths and words of a shell. Imports no torch.

Each string is one printable line. The exception is `cluster.setup`, which is shell text by purpose. How
values are handed to a shell: `launch/start/shell.py`.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from hpc.config.schema import Config
from hpc.config.types import shown

VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
STAGE = rf"(?:/|\$(?:{VARIABLE}|\{{{VARIABLE}\}})(?=/|$))"  # how a folder begins: absolute, or by a variable
OPTION = r"[A-Za-z][A-Za-z0-9_-]*"  # of sbatch
SPECIAL = "/:\\'\"`$;&|<>*?()[]{}!#~"  # what a shell, a path or PYTHONPATH would not take as it stands
SHELL = ("cluster.setup",)


def check_word(key: str, value: str) -> None:
    """Refuse a character that cannot be printed: a newline, an escape, an invisible mark."""
    allowed = value.replace("\n", " ").replace("\t", " ") if key in SHELL else value
    bad = next((char for char in allowed if not char.isprintable()), "")
    if bad:
        raise UserError(
            f"{key}={shown(value)} holds {bad!a}, which cannot be printed: type {key}= without it"
        )


def check_text(config: Config) -> None:
    """Raise UserError for the first value that is not the text that its key needs."""
    _walk("", dataclasses.asdict(config))
    _check_name(config.name)
    check_stage(config.data.stage)
    cluster = config.cluster
    for word in cluster.modules:
        if not word or word.startswith("-"):
            raise UserError(
                f"cluster.modules={shown(cluster.modules)}: {word or 'an empty word'} is not the name of a "
                "module: type for example cluster.modules=[cuda]"
            )
    if cluster.container.startswith("-"):
        raise UserError(
            f"cluster.container={cluster.container} is not an image: type for example "
            f"cluster.container=image.sif"
        )
    for key, value in cluster.sbatch.items():
        if not re.fullmatch(OPTION, str(key), re.ASCII) or key == "wrap":
            raise UserError(
                f"cluster.sbatch={shown(cluster.sbatch)}: {shown(key)} is not an option of a batch script: "
                "type for example cluster.sbatch={exclusive:true}"
            )
        if not isinstance(value, str | int | float):
            raise UserError(
                f"cluster.sbatch={shown(cluster.sbatch)}: {key} is neither a word, a number nor true: type "
                "for example cluster.sbatch={exclusive:true}"
            )


def _walk(key: str, value: Any) -> None:
    if isinstance(value, str):
        check_word(key, value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            check_word(key or "config", str(name))
            _walk(f"{key}.{name}" if key else str(name), item)
    elif isinstance(value, list | tuple):
        for item in value:
            _walk(key, item)


def _check_name(name: str) -> None:
    bad = next((char for char in name if char in SPECIAL), "") or (name[:1] if name[:1] in (".", "-") else "")
    if bad or name != name.strip() or len(name.encode()) > 200:
        why = f"it holds {bad}" if bad else "blanks at an end" if name != name.strip() else "it is too long"
        raise UserError(
            f"name={shown(name)} is not a folder's name ({why}): use letters, digits, - _ . = + , for "
            "example name=run-1; runs=... is the place"
        )


def check_stage(folder: str) -> None:
    """Refuse a `data.stage` that is not an absolute folder, or one below a variable, and nothing else."""
    if not folder:
        return
    plain = re.sub(rf"\$(?:{VARIABLE}|\{{{VARIABLE}\}})", "", folder, flags=re.ASCII)
    first = folder.lstrip("/").partition("/")[0]
    if not re.match(STAGE, folder, re.ASCII):
        why = "is not an absolute folder"
    elif set(plain) & set("$`\"'\\;&|<>*?(){}"):
        why = "is more than a folder"
    elif folder.startswith("/") and "$" in first:
        why = "has a variable inside its first part"
    else:
        return
    raise UserError(
        f"data.stage={shown(folder)} {why}: use data.stage=/scratch/NAME or data.stage='$TMPDIR/NAME'"
    )
