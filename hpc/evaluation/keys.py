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
MAX_GAP = "gate.max_gap"
GROUPS = Key(
    "",
    "labels of the set that split the figures: `race,gender` (default: those that are classes, and age)",
    placeholder="FIELD,FIELD",
)
SUPPORT = Key(10, "samples that a group needs to count for a gap; smaller ones are shown", least=1)
GATE = Key(
    0.0,
    "exit code 3 where the largest gap between two groups is beyond it for certain: where its lower\n"
    "bound is, corrected for all groups and labels (0 = none). Of shares such as accuracy; of other figures\n"
    "by the evaluator's name: age.gate.max_gap=3 (years)",
    least=0,
)
BASELINES = Key(True, "false: not beside the majority of the training set and a linear model of its pixels")
BY_GROUP: Mapping[str, Key] = {"groups": GROUPS, "support": SUPPORT, MAX_GAP: GATE}
CLASSES: Mapping[str, Key] = {
    **BY_GROUP,
    "baselines": BASELINES,
    "far": Key(
        0.0,
        "two classes: decide by the threshold at which val has so many false accepts, such as 0.01;\n"
        "kept for `rostro predict` (0 = the likelier class)",
        least=0,
        most=1,
    ),
    "by": Key(
        "image",
        "identity: figures of clips (or people) too, their scores averaged",
        choices=("image", "identity"),
    ),
    "recompress": Key(
        "",
        "judge the images again as JPEGs of these qualities: `90,70,50`",
        placeholder="QUALITY,...",
    ),
}
BITS: Mapping[str, Key] = {**BY_GROUP, "baselines": BASELINES, "recompress": CLASSES["recompress"]}
VALUES: Mapping[str, Key] = {**BY_GROUP, "baselines": BASELINES}

CYCLES: Mapping[str, Key] = {
    "identity_run": Key(
        "",
        "a run of task=siamese, by whose embeddings a face and its translation are one (default: the task's)",
        placeholder="RUN",
    )
}

KINDS: Mapping[str, Mapping[str, Key]] = {
    "verification": VERIFICATION,
    "classes": CLASSES,
    "values": VALUES,
}


def all_keys() -> dict[str, Key]:
    """Return the words of all evaluators."""
    return {name: key for keys in (*KINDS.values(), CYCLES) for name, key in keys.items()}
