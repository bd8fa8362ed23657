"""Parses the `key=value` words of every command except `submit`; each value must have its option's type.

`submit` reads the same form through Hydra, which adds groups and sweeps: `launch/options/compose.py`.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from data_shards.errors import UserError
from hpc.config.types import near
from launch.options.option import Option

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


def convert(key: str, text: str, default: Any) -> Any:
    """Return `text` in the type of `default`; a default of None means a string."""
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
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise UserError(f"{key}={text} is not {kind}: type {key}={_example(default)}") from None
    return text


def _example(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def is_place(word: str) -> bool:
    """Return whether a word is a path or a run's name although it may hold `=`: no key holds `/` or `-`."""
    key, equals, _ = word.partition("=")
    return not equals or key.startswith((".", "~")) or "/" in key or "-" in key.lstrip("-")


def parse(
    argv: Sequence[str],
    options: Mapping[str, Option],
    *,
    positional: Sequence[str] = (),
    required: Sequence[str] = (),
) -> SimpleNamespace:
    """Read `argv` into a namespace with the keys of `options` and of `positional` (None if not given).

    Words without `=` fill `positional` in order; each of them may also be written `key=value`. While a
    position is free, a word that `is_place` fills it too. UserError names the key, the value and the remedy.
    """
    defaults = dict.fromkeys(positional) | {key: option.default for key, option in options.items()}
    values: dict[str, Any] = dict(defaults)
    given: set[str] = set()
    free = [name for name in positional if not any(word.startswith(f"{name}=") for word in argv)]
    for word in argv:
        key, equals, text = word.partition("=")
        if not equals or (free and key not in defaults and is_place(word)):
            if word.startswith("-"):
                raise UserError(
                    f"{word} is not an option: options are typed key=value; {near(word, defaults)}"
                )
            if not free:
                raise UserError(
                    f"{word}: one word too many: options are typed key=value; {near(word, defaults)}"
                )
            key, text = free.pop(0), word
        elif key not in defaults:
            raise UserError(f"unknown key {key} in {word}: {near(key, defaults)}")
        if key in given:
            raise UserError(f"{key} is given twice ({values[key]} and {text}): give it once")
        given.add(key)
        values[key] = convert(key, text, defaults[key])
        if key in options and (fault := options[key].fault(key, values[key])):
            raise UserError(fault)
    for name in required:
        if name not in given:
            addition = name.upper() if name in positional else f"{name}=..."
            raise UserError(f"{name} is missing: add {addition}")
    return SimpleNamespace(**values)


def typed(argv: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    """Return the options that are typed in `argv`, which `parse` has read, in their order."""
    return [key for key, equals, _ in (word.partition("=") for word in argv) if equals and key in options]


def refuse_unused(
    argv: Sequence[str], options: Mapping[str, Option], needs: Mapping[str, Sequence[str]], used: set[str]
) -> None:
    """Raise UserError for a typed option of which none of the options that it belongs to is used.

    needs: option -> those that it belongs to (an option that is not listed is always used)
    """
    given = typed(argv, options)
    for key in given:
        if key in needs and not used.intersection(needs[key]):
            if set(given).intersection(needs[key]):  # which is something else beside these
                others = " and ".join(f"{each}=" for each in given if each in used)
                raise UserError(f"{key}= does nothing beside {others}: leave it out")
            *first, last = (f"{need}=" for need in needs[key])
            owners = f"{', '.join(first)} or {last}" if first else last
            remedy = "one of them" if first else options[needs[key][0]].typed(needs[key][0])
            raise UserError(f"{key}= belongs to {owners}: add {remedy}, or leave it out")


def whole_numbers(key: str, text: str) -> list[int]:
    """Read `[64,256]`, or `64`, as whole numbers; [] for an empty text."""
    words = text.strip().removeprefix("[").removesuffix("]").split(",")
    try:
        return [int(word) for word in words] if words != [""] else []
    except ValueError:
        raise UserError(f"{key}={text} is not a list of whole numbers: type {key}=[64,256]") from None
