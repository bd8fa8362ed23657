"""The words of the evaluators on a command line, with their help. Imports no torch.

`rostro evaluate --help`, the completion of the shell and the evaluators themselves (`Evaluator.KEYS`) read
them here. `KINDS` lists the evaluators that `rostro score` knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """One word: its type is that of `default`. `placeholder`: what the help page shows for an empty one."""

    default: Any
    help: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    placeholder: str = ""


VERIFICATION: Mapping[str, Key] = {
    "pairs": Key(
        "",
        "a pair list: LFW's formats, lines `person/image person/image 0|1`, or those as CSV;\n"
        "`rostro pairs` makes one (default: all pairs of the set)",
        placeholder="FILE",
    ),
    "missing": Key(
        "error", "skip: leave out listed pairs whose images are not in the set", choices=("error", "skip")
    ),
    "overlap": Key("refuse", "allow: judge people of the training set too", choices=("refuse", "allow")),
    "keep": Key(False, "true: keep the threshold of these pairs for `rostro verify`, in place of data.val's"),
}
GROUPS = Key(
    "",
    "labels of the set that split the figures: `race,gender` (default: those that are classes, and age)",
    placeholder="FIELD,FIELD",
)
GATE = Key(
    0.0,
    "largest gap between two groups, as the figure's own unit; beyond it the exit code is 1 (0 = none)",
    least=0,
)
CLASSES: Mapping[str, Key] = {"groups": GROUPS, "gate": GATE}
VALUES: Mapping[str, Key] = {"groups": GROUPS, "gate": GATE}

KINDS: Mapping[str, Mapping[str, Key]] = {
    "verification": VERIFICATION,
    "classes": CLASSES,
    "values": VALUES,
}


def all_keys() -> dict[str, Key]:
    """Return the words of all kinds of evaluators."""
    return {name: key for keys in KINDS.values() for name, key in keys.items()}
