"""The points of a sweep (`rostro submit -m key=a,b`), and the names by which their runs are told apart."""

import itertools
import re
from collections.abc import Sequence

from data_shards.errors import UserError

LONGEST = 120  # characters of a name; logs and jobs are named after it
VALUE = 32  # characters of one value in it
# What a shell, SLURM or a file system would take for more than text.
UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


def points(words: Sequence[str]) -> list[list[str]]:
    """Return the words of each point of a sweep, by Hydra's grammar: a,b  range(1,4)  choice(a,b).

    The last word varies fastest. A key that is typed twice keeps its first place and its last value.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    choices: dict[str, list[str]] = {}
    try:
        for override in OverridesParser.create().parse_overrides(list(words)):
            key = override.get_key_element()
            if not override.is_sweep_override():
                values = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                values = list(override.sweep_string_iterator())
            else:  # in the words of Hydra's own sweeper
                raise HydraException("BasicSweeper does not support sweep type : INTERVAL_SWEEP")
            choices[key] = [f"{key}={value}" for value in values]
    except HydraException as error:
        raise UserError(f"{' '.join(words)}: {' '.join(str(error).split())[:200]}") from None
    return [list(point) for point in itertools.product(*choices.values())]


def endings(points: Sequence[Sequence[str]]) -> list[str]:
    """Return an ending for the name of each point's run that tells it apart: `-loss=bce-seed=1`.

    Each is part of a folder's name and needs no quotes in a shell. A number takes its place if it would be
    too long, and is added to it if two would be equal.
    """
    values = [dict(word.split("=", 1) for word in point if "=" in word) for point in points]
    differing = [key for key in values[0] if len({point.get(key) for point in values}) > 1 and key != "name"]
    if len({point.get("name") for point in values}) == len(values) > 1:
        return [""] * len(values)
    shown = _short(differing)
    ends = ["".join(f"-{shown[key]}={_safe(point.get(key, ''))}" for key in differing) for point in values]
    if any(len(end) > LONGEST for end in ends):
        ends = [""] * len(ends)
    if len(set(ends)) < len(ends):
        ends = [f"{end}-{number}" for number, end in enumerate(ends)]
    return ends


def unnamed(task: str, ending: str) -> str:
    """Return the name of a run for which none was given: its task, then what tells it apart."""
    return task + ending.replace(f"-task={_safe(task)}", "", 1)


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each key, or the whole key if two end alike."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: end if last.count(end) == 1 else key for key, end in zip(keys, last, strict=True)}


def _safe(value: str) -> str:
    return UNSAFE.sub("_", value).strip("_")[:VALUE]
