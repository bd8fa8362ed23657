"""The grammar of every command but `submit`: `key=value`, typed by the defaults, strict.

`submit` has the same grammar through Hydra, with groups and sweeps on top.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from data_shards.errors import UserError
from hpc.config.types import near

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


def convert(key: str, text: str, default: Any) -> Any:
    """`text` in the type of `default`; a default of None means a string."""
    try:
        if isinstance(default, bool):
            if text.lower() in TRUE:
                return True
            if text.lower() in FALSE:
                return False
            raise ValueError
        if isinstance(default, int):
            return int(text.replace("_", ""))
        if isinstance(default, float):
            return float(text)
    except ValueError:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise UserError(f"{key}={text} is not {wanted}: type {key}={_example(default)}") from None
    return text


def _example(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def is_place(word: str) -> bool:
    """Whether a word is a path or a run's name although it may hold `=`: no key holds `/` or `-`."""
    key, equals, _ = word.partition("=")
    return not equals or key.startswith((".", "~")) or "/" in key or "-" in key.lstrip("-")


def parse(
    argv: Sequence[str],
    spec: Mapping[str, Any],
    *,
    positional: Sequence[str] = (),
    required: Sequence[str] = (),
) -> SimpleNamespace:
    """Read `argv` into a namespace with the keys of `spec` (their defaults) and `positional` (None if not given).

    Words without `=` fill `positional` in order; all of them may also be written `key=value`. While places are left,
    a word `is_place` is a positional too.
    """
    known = {**dict.fromkeys(positional), **spec}
    values = dict(known)
    given: set[str] = set()
    places = [name for name in positional if not any(word.startswith(f"{name}=") for word in argv)]
    for word in argv:
        key, equals, text = word.partition("=")
        if not equals or (places and key not in known and is_place(word)):
            if word.startswith("-"):
                raise UserError(f"{word} is not an option: options are typed key=value; {near(word, known)}")
            if not places:
                raise UserError(
                    f"{word}: one word too many: options are typed key=value; {near(word, known)}"
                )
            key, text = places.pop(0), word
        elif key not in known:
            raise UserError(f"unknown key {key} in {word}: {near(key, known)}")
        if key in given:
            raise UserError(f"{key} is given twice ({values[key]} and {text}): give it once")
        given.add(key)
        values[key] = convert(key, text, known[key])
    for name in required:
        if name not in given:
            shown = name.upper() if name in positional else f"{name}=..."
            raise UserError(f"{name} is missing: add {shown}")
    return SimpleNamespace(**values)
