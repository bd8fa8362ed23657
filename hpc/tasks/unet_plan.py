"""The plan of a U-Net: the mask that it learns, its keys and refusals. Imports no torch."""

import itertools
from collections.abc import Mapping
from typing import Any

from data_shards.errors import UserError
from data_shards.shard_format.schema import Field
from hpc.config.rules import Rule
from hpc.config.schema import Config
from hpc.config.types import shown

controls = ("optim", "ema")

KEYS = {
    "field": Rule("the mask of the set, a field of kind mask"),
    "classes": Rule("names of its numbers from 0, the background first"),
    "width": Rule(
        "channels at the full size, which double with each level: 64 is the paper's, 16 is light", least=2
    ),
    "levels": Rule("sizes of the maps, each half of the one above", least=2, most=8),
    "upsample": Rule(
        "how maps are enlarged; bilinear has half of the channels below", one_of=("transposed", "bilinear")
    ),
    "norm": Rule("group: of 8 groups of channels, whatever the batch is", one_of=("batch", "group")),
    "dice": Rule("weight of the Dice loss beside the cross-entropy", least=0),
    "boundary": Rule(
        "how much more a pixel near a boundary counts in the cross-entropy; 0: as others", least=0
    ),
    "reach": Rule("pixels from a boundary that are near it", least=1, most=64),
    "augment.share": Rule("share of the images that are turned, sheared and scaled", least=0, most=1),
    "augment.degrees": Rule("most by which they are turned", least=0, most=180),
    "augment.shear": Rule("most by which they are sheared, as a tangent", least=0, most=1),
    "augment.scale": Rule("least and most by which they are scaled", above=0, most=8),
}


def roles(keys: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the mask that the sets must hold."""
    return dict.fromkeys(("train", "val", "eval"), (f"{keys.get('field', 'mask')}:mask",))


def labels(keys: Mapping[str, Any]) -> dict[str, Field]:
    """Return the mask as a set of this job states it."""
    return {keys.get("field", "mask"): Field("mask", "u1", names=tuple(keys.get("classes", ())))}


def widths(keys: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the channels of each level, from the full size down."""
    return tuple(keys["width"] << level for level in range(keys["levels"]))


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for keys that do not go together, and for sets of other classes."""
    keys, size = config.task, config.data.size
    multiple = 1 << (keys["levels"] - 1)
    if size % multiple:
        near = max(multiple, round(size / multiple) * multiple)
        raise UserError(
            f"data.size={size} cannot be halved {keys['levels'] - 1} times: use a multiple of {multiple}, as "
            f"data.size={near}, or fewer task.levels"
        )
    if keys["norm"] == "group" and keys["width"] % 16:
        raise UserError(
            f"task.width={keys['width']}: task.norm=group needs a multiple of 16: use task.width=16"
        )
    names = keys["classes"]
    if len(names) < 2 or len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"task.classes={shown(names)}: type at least 2 different names, as `rostro info` shows them"
        )
    low, *rest = keys["augment"]["scale"]
    if len(rest) != 1 or rest[0] < low:
        raise UserError(
            f"task.augment.scale={shown(keys['augment']['scale'])} is not a range: use "
            "task.augment.scale=[0.8,1.2]"
        )
    if config.data.halves:
        raise UserError("data.halves=true: a mask is of one image, not of two halves: use data.halves=false")
    for split, shards in sets.items():
        found = list(shards.schema.fields[keys["field"]].names)
        if found and found != names:
            raise UserError(
                f"data.{split}={shards.folder}: its mask {keys['field']} has the classes {shown(found)}: "
                f"type task.classes={shown(found)}, or give a set of {shown(names)}"
            )


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters of the network and the fp32 bytes that one image keeps for backward."""
    keys, pixels = config.task, config.data.size**2
    bilinear, channels = keys["upsample"] == "bilinear", list(widths(keys))
    if bilinear:
        channels[-1] //= 2

    def convs(*sizes: int) -> int:
        return sum(9 * a * b + 2 * b for a, b in itertools.pairwise(sizes))

    weights = convs(3, channels[0], channels[0])
    kept = 6.0 * channels[0] * pixels
    for level, (into, out) in enumerate(itertools.pairwise(channels), start=1):
        weights += convs(into, out, out)
        kept += (6 * out + into) * pixels / 4**level
    low = channels[-1]
    for level in reversed(range(len(channels) - 1)):
        high = channels[level]
        inputs = high + (low if bilinear else low // 2)
        out = high // 2 if bilinear and level else high
        weights += convs(inputs, inputs // 2 if bilinear else out, out)
        weights += 0 if bilinear else 4 * low * (low // 2) + low // 2
        kept += (inputs + 3 * (inputs // 2 if bilinear else out) + 3 * out) * pixels / 4**level
        low = out
    classes = len(keys["classes"])
    return weights + (low + 1) * classes, 4.0 * (kept + (3 + 4 * classes) * pixels)
