"""The plan of the classifiers: the labels of their heads, their keys and refusals. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from hpc.config.heads import RULES, kind_of, names_of, outputs_of
from hpc.config.rules import Rule
from hpc.config.schema import Config
from hpc.config.types import shown
from models import names

UNIT = 8  # images among which mixup and cutmix find partners
controls = ("optim", "ema")


def KEYS(keys: Mapping[str, Any]) -> dict[str, Rule]:
    """Return the rule of each key of the yaml's block `task`, the heads' among them."""
    rules = {
        "backbone": Rule("network below the heads", one_of=names.NAMES),
        "width": Rule("channels of the backbone's first stage, where it takes one; 0: its own", least=0),
        "backbone_lr": Rule("factor of the learning rate of the backbone, beside that of heads", above=0),
        "dropout": Rule("share of the features that a step leaves out", least=0, below=1),
        "augment.mixup": Rule("alpha of mixup, which blends two images; 0: none", least=0),
        "augment.cutmix": Rule("alpha of cutmix, which pastes a rectangle; 0: none", least=0),
        "augment.erasing": Rule("share of the images of which a rectangle is greyed", least=0, most=1),
        "augment.jpeg": Rule("share of the images that are compressed again", least=0, most=1),
        "augment.randaugment": Rule("changes of colour and place an image, drawn of many; 0: none", least=0),
        "augment.magnitude": Rule("their strength", least=0, most=1),
    }
    for field, head in keys.get("heads", {}).items():
        rules |= {f"heads.{field}.{key}": rule for key, rule in RULES[kind_of(head)].items()}
    return rules


def roles(keys: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the labels that the sets must hold: those of the heads."""
    fields = tuple(f"{field}:{kind_of(head)}" for field, head in keys.get("heads", {}).items())
    return dict.fromkeys(("train", "val", "eval"), fields)


def labels(keys: Mapping[str, Any]) -> dict[str, Field]:
    """Return the labels of the heads as a set of this job states them."""
    return {field: _field(head) for field, head in keys.get("heads", {}).items()}


def _field(head: Mapping[str, Any]) -> Field:
    names_given, kind = names_of(head), kind_of(head)
    if kind == "class":
        return Field("class", "i4", names=names_given)
    if kind == "bits":
        return Field("bits", "i1", (len(names_given),), names=names_given)
    return Field("value", "i4")


def unit(config: Config) -> int:
    """Return how many images stay together: those among which partners are found."""
    augment = config.task["augment"]
    return UNIT if augment["mixup"] or augment["cutmix"] else 1


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters of all networks and the fp32 bytes that one image keeps for backward."""
    backbone = _backbone(config)
    outputs = sum(outputs_of(head) for head in config.task["heads"].values())
    return backbone.parameters + (backbone.features + 1) * outputs, backbone.activations


def core_rate(config: Config) -> float:
    """Return the images a second that one CPU core trains."""
    return _backbone(config).rate


def _backbone(config: Config) -> names.Cost:
    return names.cost(config.task["backbone"], config.task["width"], config.data.size)


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for keys that do not go together, and for sets of other classes than the heads'."""
    keys = config.task
    if fault := names.fault(keys["backbone"], keys["width"] or None, config.data.size):
        raise UserError(_in_config(fault))
    if keys["augment"]["mixup"] and keys["augment"]["cutmix"]:
        raise UserError(
            f"task.augment.mixup={keys['augment']['mixup']} and task.augment.cutmix="
            f"{keys['augment']['cutmix']} both mix labels: use one of them"
        )
    for field, head in keys["heads"].items():
        _check_head(f"task.heads.{field}", head)
        if head.get("balance") and config.data.stream:
            raise UserError(
                f"task.heads.{field}.balance={head['balance']:g} counts the labels of the set, which "
                "data.stream=true does not open: use balance=0"
            )
    for split, shards in sets.items():
        for field, head in keys["heads"].items():
            _check_names(f"data.{split}={shards.folder}", field, head, shards)
            if split == "train":
                _check_labels(f"data.{split}={shards.folder}", field, head, shards)


def _in_config(fault: str) -> str:
    """Return a fault of `models/names.py` with the keys of a run's config."""
    for key, full in (("backbone=", "task.backbone="), ("width=", "task.width="), ("size=", "data.size=")):
        fault = fault.replace(key, full)
    return fault


def _check_head(key: str, head: Mapping[str, Any]) -> None:
    kind = kind_of(head)
    if kind == "value":
        if head["high"] - head["low"] < 1:
            raise UserError(
                f"{key}.high={head['high']:g} is not above {key}.low={head['low']:g}: use low=0 high=100"
            )
        return
    given, what = names_of(head), "classes" if kind == "class" else "names"
    least = 2 if kind == "class" else 1
    if len(given) < least or len(set(given)) != len(given):
        raise UserError(
            f"{key}.{what}={shown(list(given))}: type at least {least} different names, as `rostro info` "
            "shows them"
        )
    if head["loss"] == "sigmoid" and len(given) != 2:
        raise UserError(f"{key}.loss=sigmoid takes two classes, not {len(given)}: use {key}.loss=softmax")
    if head.get("far") and len(given) != 2:
        raise UserError(
            f"{key}.far={head['far']:g} is a rate of two classes, not of {len(given)}: use {key}.far=0"
        )


def _check_names(place: str, field: str, head: Mapping[str, Any], shards: Any) -> None:
    """Refuse a set whose classes or bits are not those of the head, in their order."""
    found, given = tuple(shards.schema.fields[field].names), names_of(head)
    if not given or found == given or not found:
        return
    what = "classes" if "classes" in head else "names"
    lacking = [name for name in given if name not in found]
    why = f"lacks {', '.join(lacking[:3])}" if lacking else "has others, or another order"
    raise UserError(
        f"{place} {why}: its label {field} has {shown(list(found))}: type "
        f"task.heads.{field}.{what}={shown(list(found))}, or give a set of these classes"
    )


def _check_labels(place: str, field: str, head: Mapping[str, Any], shards: Any) -> None:
    """Refuse a training set that has nothing to learn from: one class, or no known label."""
    column, names_given = shards.labels[field], names_of(head)
    if kind_of(head) == "class":
        present = [name for number, name in enumerate(names_given) if (column == number).any()]
        if len(present) < 2:
            only = f"only {present[0]}" if present else "no known one"
            raise UserError(f"{place}: of the classes of {field} it holds {only}: pack a set that has two")
    elif not (column != -1).any():
        raise UserError(f"{place}: the label {field} is unknown in all of it: pack a set that states it")
