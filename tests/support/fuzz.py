"""Fuzz campaigns: seeded random damage for some seconds, every outcome counted, three kinds of it failing.

A campaign calls `one(random)` again and again. That function damages something, runs the real code on it and
returns the outcome: HARMLESS (same result as without the damage), RECOVERED (an older good state was taken,
with a warning) or REFUSED (one line that names the file or key). It raises `Silent` where the result differs
without a message. Any exception that is not a UserError counts as a traceback, LIMIT seconds without an
answer as a hang.

    ROSTRO_FUZZ_SECONDS=600 ROSTRO_FUZZ_SEED=7 pytest -k fuzz       longer, from another seed
    ROSTRO_FUZZ_OUT=DIR                                             a JSON of the counts by campaign
"""

import contextlib
import json
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from data_shards.errors import UserError

SECONDS = float(os.environ.get("ROSTRO_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("ROSTRO_FUZZ_SEED", "0"))
LIMIT = 20  # seconds after which one input counts as a hang
HARMLESS, RECOVERED, REFUSED = "harmless", "recovered", "refused"
TRACEBACK, HANG, SILENT = "traceback", "hang", "silent"


class Silent(AssertionError):
    """A result that differs from the undamaged one without a word."""


class Hang(BaseException):
    """Raised by the alarm: not an Exception, so that the code under test does not catch it."""


def check_refusal(error: UserError, *names: str) -> None:
    """AssertionError unless the refusal is one readable line that holds one of `names` and a remedy."""
    text = str(error)
    assert "\n" not in text, text
    assert text.isprintable(), text
    assert not names or any(name in text for name in names), f"{text!r} names none of {names}"
    assert ": " in text, f"no remedy: {text}"


def campaign(
    name: str, one: Callable[[random.Random], str], *, least: int = 20, names: tuple[str, ...] = ()
) -> Counter[str]:
    """Run `one` for ROSTRO_FUZZ_SECONDS and count; AssertionError for tracebacks, hangs, silent changes.

    At least `least` inputs are tried. `names`: of which a UserError that `one` lets through must hold one.
    """
    counts: Counter[str] = Counter()
    failures: list[str] = []
    end = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end or number < least:
        outcome, why = _outcome(one, random.Random(f"{name}/{SEED}/{number}"), names)
        counts[outcome] += 1
        if outcome in (TRACEBACK, HANG, SILENT) and len(failures) < 10:
            failures.append(f"input {number}: {outcome}: {why}")
        number += 1
    counts["inputs"] = number
    print(f"{name}: {dict(counts)}")
    if out := os.environ.get("ROSTRO_FUZZ_OUT"):
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / f"{name}.json").write_text(json.dumps({"name": name, "seed": SEED} | counts) + "\n")
    assert not failures, f"{name}, seed {SEED}: {dict(counts)}\n" + "\n".join(failures)
    return counts


def _outcome(
    one: Callable[[random.Random], str], rng: random.Random, names: tuple[str, ...]
) -> tuple[str, str]:
    try:
        with _limit():
            try:
                return one(rng), ""
            except UserError as error:
                check_refusal(error, *names)
                return REFUSED, ""
    except Hang:
        return HANG, f"no answer in {LIMIT} s"
    except Silent as error:
        return SILENT, str(error)
    except Exception:
        return TRACEBACK, traceback.format_exc()


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with a flipped bit, a cut, an insertion, a zeroed or repeated stretch, or replaced."""
    kind = rng.choice(("bit", "bit", "bit", "byte", "cut", "insert", "zero", "swap", "empty", "garbage"))
    if not data or kind == "garbage":
        return rng.randbytes(rng.randrange(1, 64))
    place = rng.randrange(len(data))
    if kind == "bit":
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
    if kind == "byte":
        return data[:place] + rng.randbytes(1) + data[place + 1 :]
    if kind == "cut":
        return data[:place]
    if kind == "insert":
        return data[:place] + rng.randbytes(rng.randrange(1, 9)) + data[place:]
    if kind == "zero":
        end = min(len(data), place + rng.randrange(1, 33))
        return data[:place] + bytes(end - place) + data[end:]
    if kind == "swap":
        other = rng.randrange(len(data))
        first, last = min(place, other), max(place, other)
        return data[:first] + data[last:] + data[first:last]
    return b""


JSON_VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**63,
    10**30,
    1.5,
    -1e308,
    "",
    "x",
    "0",
    "²",
    "a\nb",
    "../x",
    [],
    {},
    [[]],
)


def damage_json(value: object, rng: random.Random) -> object:
    """A copy of a JSON value with one entry replaced by another type, removed, or nested deeply."""
    copy = json.loads(json.dumps(value))
    places: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        for key, item in (
            node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        ):
            places.append((node, key))
            walk(item)

    walk(copy)
    if not places or rng.random() < 0.05:
        return rng.choice(JSON_VALUES)
    node, key = rng.choice(places)
    if rng.random() < 0.2:
        del node[key]  # type: ignore[attr-defined]
    else:
        node[key] = rng.choice(JSON_VALUES)  # type: ignore[index]
    return copy
