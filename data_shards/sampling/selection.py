"""Expressions that choose rows by their labels: `set`, `race==0`, `age>=18 and (race==1 or race==2)`.

    expression  = conjunction { "or" conjunction }
    conjunction = comparison { "and" comparison }
    comparison  = FIELD ( == | != | < | <= | > | >= ) NUMBER | "(" expression ")" | "set"

Nothing is evaluated as code: a tokenizer and a descent over this grammar. Which rows result: `rows.py`.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_shards.errors import UserError

WHOLE = "set"  # the expression that every row satisfies
UNKNOWN = -1  # the label of a row of which the source does not know it
LONGEST = 200  # characters of an expression

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TOKEN = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>==|!=|<=|>=|<|>|\(|\))"
)
_EXAMPLE = "write for example `race==0`, `age>=18 and race!=2`, or `set` for every row"

Columns = Mapping[str, np.ndarray]  # {field: labels [n]}
Predicate = Callable[[Columns, int], np.ndarray]  # (columns, n) -> bool [n]


class Selection:
    """A parsed expression. An unknown label (-1) satisfies `==-1` and no other comparison."""

    def __init__(self, text: str, *, key: str) -> None:
        """Parse `text`, the value of the config key `key`; UserError names both and shows the grammar."""
        self.text, self._key = text.strip(), key
        self.fields: list[str] = []  # that the expression reads, each once
        self._tokens = self._split()
        self._next = 0
        self._holds = self._expression()
        if self._peek()[1]:
            raise self._refused(f"`{self._peek()[1]}` is one word too many")

    def matches(self, columns: Columns, count: int) -> np.ndarray:
        """Return which of `count` rows satisfy the expression, bool [count], from their labels [count]."""
        return self._holds(columns, count)

    def _split(self) -> list[tuple[str, str]]:
        """Cut the text into (kind, text) tokens."""
        if len(self.text) > LONGEST:
            raise UserError(
                f"{self._key}={self.text[:40]}... has {len(self.text)} characters: use {LONGEST} or fewer"
            )
        tokens, place = [], 0
        while place < len(self.text):
            if self.text[place] == " ":
                place += 1
                continue
            found = _TOKEN.match(self.text, place)
            if found is None or found.lastgroup is None:
                raise self._refused(f"`{self.text[place]}` is not understood")
            tokens.append((found.lastgroup, found.group()))
            place = found.end()
        return tokens

    def _refused(self, reason: str) -> UserError:
        return UserError(f"{self._key}={self.text}: {reason}: {_EXAMPLE}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("", "")

    def _take(self, kind: str, wanted: str) -> str:
        """Return the next token's text, which must be of `kind`; `wanted` names it in the error."""
        found, text = self._peek()
        if found != kind:
            raise self._refused(f"{wanted} is missing" + (f" before `{text}`" if text else " at the end"))
        self._next += 1
        return text

    def _accept(self, text: str) -> bool:
        if self._peek()[1] != text:
            return False
        self._next += 1
        return True

    def _expression(self) -> Predicate:
        parts = [self._conjunction()]
        while self._accept("or"):
            parts.append(self._conjunction())
        return _joined(parts, np.logical_or)

    def _conjunction(self) -> Predicate:
        parts = [self._comparison()]
        while self._accept("and"):
            parts.append(self._comparison())
        return _joined(parts, np.logical_and)

    def _comparison(self) -> Predicate:
        if self._accept("("):
            inner = self._expression()
            if not self._accept(")"):
                raise self._refused("`)` is missing")
            return inner
        if self._accept(WHOLE):
            return lambda columns, count: np.ones(count, bool)
        field = self._take("word", "a label field")
        if field in ("and", "or"):
            raise self._refused(f"a label field is missing before `{field}`")
        sign = self._take("sign", "a comparison")
        if sign not in COMPARISONS:
            raise self._refused(f"a comparison is missing before `{sign}`")
        value = float(self._take("number", "a number"))
        if field not in self.fields:
            self.fields.append(field)
        return _comparison(field, sign, value)


def _joined(parts: list[Predicate], join: np.ufunc) -> Predicate:
    return lambda columns, count: join.reduce([part(columns, count) for part in parts])


def _comparison(field: str, sign: str, value: float) -> Predicate:
    compare = COMPARISONS[sign]

    def holds(columns: Columns, count: int) -> np.ndarray:
        labels = columns[field]
        with np.errstate(over="ignore"):  # a number beyond float32 compares as infinity
            found = np.asarray(compare(labels, value))
        if sign == "==" and value == UNKNOWN:
            return found
        return found & (labels != UNKNOWN)

    return holds
