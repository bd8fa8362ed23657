"""Declares what a key of the config means and may be, once, beside its default.

The dataclasses of `hpc/config/schema.py` and the `KEYS` of a task's checks carry a `Rule` for each key. The
check of a config, `rostro submit --help` and the completion of the shell read the same rules.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from hpc.config.types import shown


@dataclass(frozen=True)
class Rule:
    """A key's sentence, and its values: one of a few, or a range, which holds for each item of a list."""

    help: str
    one_of: tuple[Any, ...] = ()
    above: float | None = None  # exclusive
    least: float | None = None  # inclusive
    below: float | None = None  # exclusive
    most: float | None = None  # inclusive
    younger: bool = False  # than some runs: these do not state the key, and the task knows what they did
    cap: int | None = None  # beyond it a value is a slip of the finger, and would exhaust memory in the plan

    def fault(self, key: str, value: Any, default: Any = None) -> str:
        """Say in one line why `value` is refused, and what is allowed; empty where it is right.

        `default` is shown as the example, if it is allowed itself.
        """
        typed = f"{key}={shown(value)}"
        if self.one_of:
            known = " or ".join(map(str, self.one_of))
            return "" if value in self.one_of else f"{typed} is not known: use {known}"
        if self.cap is not None and value > self.cap and self._holds(value):
            return f"{typed} is too large: use {self.cap} or less"
        values = value if isinstance(value, list) else [value]
        if not self.range() or all(self._holds(item) for item in values):
            return ""
        items = default if isinstance(default, list) else [default]
        shows = default not in (None, []) and all(self._holds(item) for item in items)
        example = f", for example {key}={shown(default)}" if shows else ""
        if not all(isinstance(item, int | float) and math.isfinite(item) for item in values):
            return f"{typed} is not a finite number: use {self._allowed(value)}{example}"
        if self.most is not None or self.below is not None:
            return f"{typed} is not in {self.range()}: use {self._allowed(value)}{example}"
        low = min(values) < 0 and not self.least and self.least is not None
        return f"{typed} is {'negative' if low else 'not positive'}: use {self._allowed(value)}{example}"

    def _allowed(self, value: Any) -> str:
        """Write the range as a remedy: `1 or more`, `a number above 0`, `numbers from 0 to 1`."""
        number = "numbers" if isinstance(value, list) else "a number"
        if self.most is None and self.below is None:
            return f"{number} above {self.above:g}" if self.least is None else f"{self.least:g} or more"
        low = f"above {self.above:g}" if self.least is None else f"from {self.least:g}"
        return f"{number} {low} {f'below {self.below:g}' if self.most is None else f'to {self.most:g}'}"

    def range(self) -> str:
        """Write the range: `[0, 1]`, `(0, 1]`, `0 or more`, `above 0`; empty without a limit."""
        low = self.above if self.least is None else self.least
        high = self.below if self.most is None else self.most
        if low is None:
            return ""
        if high is None:
            return f"above {low:g}" if self.least is None else f"{low:g} or more"
        return f"{'(' if self.least is None else '['}{low:g}, {high:g}{')' if self.most is None else ']'}"

    def values(self, default: Any) -> str:
        """Say in a few words what may be typed: `ddp | flat`, `true | false`, `whole number, 1 or more`."""
        if self.one_of:
            return " | ".join(map(str, self.one_of))
        limit = f", {self.range()}" if self.range() else ""
        if isinstance(default, bool):
            return "true | false"
        if isinstance(default, list):
            return f"list of numbers{limit}" if limit or default else "list"
        kinds = {int: "whole number", float: "number", str: "text", dict: "table"}
        return kinds[type(default)] + limit

    def _holds(self, value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )


# Keys of the command line that stand for others and are not part of a run.
WORDS = {
    "smoke": Rule("small sizes, the smoke block of the task's yaml: to see in a minute that a run works")
}


def key(default: Any, help: str, **limits: Any) -> Any:
    """Make a dataclass field with a default (a list or a dict is copied for each instance) and a `Rule`."""
    metadata = {"rule": Rule(help, **limits)}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def block(kind: type) -> Any:
    """Make a dataclass field that is a group of keys."""
    return field(default_factory=kind, metadata={"group": kind})


def rules(kind: type, prefix: str = "") -> dict[str, Rule]:
    """Map every dotted key of a dataclass and of its groups to its rule."""
    by_key: dict[str, Rule] = {}
    for item in fields(kind):
        name, nested = f"{prefix}{item.name}", item.metadata.get("group")
        if nested is not None:
            by_key |= rules(nested, f"{name}.")
        elif "rule" in item.metadata:
            by_key[name] = item.metadata["rule"]
    return by_key


written = shown  # as it is typed: `true`, `[0.5,1.0]`
