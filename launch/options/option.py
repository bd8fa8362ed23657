"""The options of a command, each declared once: its default, its help and its limits.

A command keeps a table `OPTIONS`, name -> Option. `key_value.parse` takes defaults, types and limits from it,
`option_lines` its part of the help page, and the completion of the shell its choices. The keys of `rostro
submit` are not here: they are those of a run's config (hpc/config/schema.py).
"""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpc.config.types import shown
from hpc.evaluation.keys import Key

WIDTH = 110  # columns of a help page


@dataclass(frozen=True)
class Option(Key):
    """One option. Its type is that of `default`; a default of None is a text that need not be given.

    help: meaning, as it stands on the help page; a line break in it is kept
    choices: the values that may be typed (empty = any value of the type)
    least, most: limits of a number, inclusive; most needs least (None = no limit)
    placeholder: what the page shows as the value of an option without a default, such as DIR
    """

    def fault(self, key: str, value: Any) -> str:
        """Return why the option may not have this value and what to type instead; empty if it may."""
        if self.choices and value not in (*self.choices, self.default):
            *first, last = self.choices
            return f"{key}={value} is not known: use {', '.join(first)} or {last}"
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        if (low == -math.inf and high == math.inf) or low <= value <= high:
            return ""
        limits = f"{low:_} or more" if high == math.inf else f"{low:_} to {high:_}"
        return f"{key}={shown(value)} is not {limits}: type {self.typed(key)}"

    def typed(self, key: str) -> str:
        """Return `key=default` as the page shows it."""
        if self.default in ("", None):
            return f"{key}={self.placeholder}"
        if isinstance(self.default, int) and not isinstance(self.default, bool) and self.default >= 10_000:
            return f"{key}={self.default:_}"
        if isinstance(self.default, float):
            return f"{key}={self.default:g}"
        return f"{key}={shown(self.default)}"


def of_keys(keys: Mapping[str, Any]) -> dict[str, Option]:
    """Return the words of evaluators (`hpc/evaluation/keys.py`) as options of a command."""
    return {
        name: Option(key.default, key.help, key.choices, key.least, key.most, key.placeholder)
        for name, key in keys.items()
    }


def option_lines(options: Mapping[str, Option], places: Mapping[str, str] | None = None) -> str:
    """Return lines of a help page: the words that have a place (`RUN`), then the options, aligned.

    places: word -> meaning (None = the command takes options only)
    """
    rows = dict(places or {}) | {option.typed(key): option.help for key, option in options.items()}
    column = max(map(len, rows)) + 5  # two blanks before, three behind
    return "\n".join(_row(typed, text, column) for typed, text in rows.items())


def _row(typed: str, text: str, column: int) -> str:
    wrapped = [
        line
        for paragraph in text.split("\n")
        for line in textwrap.wrap(paragraph, WIDTH - column, break_long_words=False, break_on_hyphens=False)
    ]
    return f"  {typed}".ljust(column) + f"\n{' ' * column}".join(wrapped)
