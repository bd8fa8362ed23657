"""The heads of a classifier's yaml, `task.heads`: their keys and kinds of labels. Imports no torch.

What a head computes: `hpc/losses/heads.py`.
"""

from collections.abc import Mapping
from typing import Any

from hpc.config.rules import Rule

# The losses of each kind of label.
LOSSES = {"class": ("softmax", "sigmoid"), "bits": ("bce",), "value": ("l1", "ordinal", "distribution")}
_WEIGHT = Rule("of this loss in the sum over the heads", least=0)
_FOCAL = Rule("focal loss: the power by which sure images count less; 0: none", least=0, most=10)
RULES: dict[str, dict[str, Rule]] = {
    "class": {
        "loss": Rule("softmax: an output a class; sigmoid: one for two classes", one_of=LOSSES["class"]),
        "classes": Rule("names of the classes in the order of their numbers, as the set states them"),
        "weight": _WEIGHT,
        "smoothing": Rule("share of the target that all classes have alike", least=0, below=1),
        "focal": _FOCAL,
        "balance": Rule("0: images count alike; 1: classes do; between: by that power", least=0, most=1),
        "far": Rule(
            "two classes: decide by the threshold of val at which so many of the first are taken for the "
            "second; 0: by the likelier one",
            least=0,
            below=1,
        ),
    },
    "bits": {
        "loss": Rule("binary cross-entropy of each bit", one_of=LOSSES["bits"]),
        "names": Rule("names of the bits in their order, as the set states them"),
        "weight": _WEIGHT,
        "focal": _FOCAL,
        "balance": Rule("power of zeros / ones by which the ones of a bit count more", least=0, most=1),
    },
    "value": {
        "loss": Rule(
            "l1: distance; ordinal: an answer a whole number; distribution: over them",
            one_of=LOSSES["value"],
        ),
        "low": Rule("the least number", least=-1e6, most=1e6),
        "high": Rule("the largest number", least=-1e6, most=1e6),
        "sigma": Rule("distribution: spread of the target around a label", above=0),
        "unit": Rule("of the number, for reports"),
        "weight": _WEIGHT,
    },
}


def kind_of(head: Mapping[str, Any]) -> str:
    """Return the kind of label that a head predicts: class, bits or value, by the keys that it has."""
    return "class" if "classes" in head else "bits" if "names" in head else "value"


def outputs_of(head: Mapping[str, Any]) -> int:
    """Return how many numbers the network gives for a head."""
    if kind_of(head) == "value":
        span = round(head["high"] - head["low"])
        return {"l1": 1, "ordinal": span, "distribution": span + 1}[head["loss"]]
    return 1 if head["loss"] == "sigmoid" else len(names_of(head))


def names_of(head: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a head's classes or bits."""
    return tuple(map(str, head.get("classes", head.get("names", ()))))
