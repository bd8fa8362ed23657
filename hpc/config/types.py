"""The type of a key is that of its default: `as_type` refuses every other, and shows one that is right.

Nothing is converted but a whole number where the default is a float: `1` is not true, `"5"` is not 5.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_shards.errors import UserError

WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
ITEMS: dict[str, Any] = {
    "optim.steps": 0.5,
    "data.twins": 64,
    "cluster.modules": "cuda",
    "cluster.setup": "ulimit -n 4096",
    "init.skip": "net.head.*",
    "init.freeze": "net.trunk.*",
}
TABLES = {"cluster.sbatch": "{exclusive:true}"}  # open: any option of sbatch
LARGEST = 2**53  # of whole numbers: exact as a float too


def common(key: str) -> str:
    """Return the key that all players share: `players.G.optim.lr` -> `optim.lr`; others as they are."""
    return re.sub(r"^players\.[^.]+\.", "", key)


def shown(value: object) -> str:
    """Write `value` as it would be typed, on one short line, with escapes for what cannot be printed."""
    try:
        text = _typed(value)
    except (RecursionError, ValueError):  # a whole number of 5,000 digits
        return "..."
    text = text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _typed(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_typed(item)}" for key, item in value.items()) + "}"
    return str(value)


def as_type(key: str, value: Any, like: Any) -> Any:
    """Return `value` if it has the type of the default `like` (or is whole for a float), else UserError."""
    if like is None:
        return value
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(
                f"{key}={shown(value)} is not a group of values: type for example "
                f"{key}={TABLES.get(key, '{...}')}"
            )
        return value
    if isinstance(like, list):
        return _as_list(key, value, like)
    if isinstance(like, float) and type(value) is int and abs(value) <= LARGEST:
        return float(value)
    if type(value) is not type(like):
        example = "..." if like == "" else shown(like)
        raise UserError(f"{key}={shown(value)} is not {WANTED[type(like)]}: type for example {key}={example}")
    if type(value) is int and abs(value) > LARGEST:
        raise UserError(f"{key}={shown(value)} is too large: type for example {key}={like}")
    return value


def _as_list(key: str, value: Any, like: list[Any]) -> list[Any]:
    item = like[0] if like else ITEMS.get(common(key))
    if not isinstance(value, list | tuple):
        example = like if like else [value if isinstance(value, str) and isinstance(item, str) else item]
        raise UserError(f"{key}={shown(value)} is not a list: write {key}={shown(example)}")
    try:
        return [as_type(key, entry, item) for entry in value]
    except UserError:
        what = {float: "numbers", int: "whole numbers", str: "words"}.get(type(item), "values")
        raise UserError(
            f"{key}={shown(value)} is not a list of {what}: write for example {key}={shown(like or [item])}"
        ) from None


def as_typed_tree(prefix: str, values: Mapping[str, Any], likes: Mapping[str, Any]) -> dict[str, Any]:
    """Type `values` by the tree of defaults `likes` at every depth; UserError for an unknown key."""
    typed: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in likes:
            raise UserError(
                f"unknown key {shown(name)}={shown(value)}: "
                f"{near(name, [f'{prefix}{like}' for like in likes])}"
            )
        like = likes[key]
        if not isinstance(like, Mapping):
            typed[key] = as_type(name, value, like)
        elif isinstance(value, Mapping):
            typed[key] = as_typed_tree(f"{name}.", value, like)
        else:
            raise UserError(f"{name}={shown(value)} is a group of keys: write {name}.KEY=VALUE")
    return typed


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def near(word: str, known: Iterable[str], *, what: str = "key") -> str:
    """Compose the remedy for an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    match = [key for key in known if key.endswith(f".{word}")][:1]  # crop_area without its data.augment
    match = match or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not match and "." in word:  # optim.learning: show what optim has
        group = word.rsplit(".", 1)[0] + "."
        known = [key for key in known if key.startswith(group)] or known
    if match:
        return f"did you mean {match[0]}?"
    if len(known) > 20:
        known = sorted({key.split(".")[0] + (".*" if "." in key else "") for key in known})
    return f"known {what}s: {', '.join(known)}" if known else f"there is no {what} here"
