"""The plan of pix2pix: its keys, the palette of pictures of labels, and refusals. Imports no torch."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_shards.errors import UserError
from data_shards.sources.paired import input_and_target
from hpc.config.rules import Rule
from hpc.config.schema import Config
from models.resolution import level_of

players = ("G", "D")
roles = dict.fromkeys(("a", "b", "train", "val", "eval"), ())
engines = ("flat", "ddp", "deepspeed:1")
controls = ("optim", "ema")  # what it remembers, the direction, is in the sets too
elastic = False  # a rounding error grows: other numbers of ranks see the same samples, and end elsewhere

LEAST, MOST = 32, 512  # pixels
COLOURS = ("brightness", "contrast", "saturation", "hue")  # of data.augment
EXAMPLE = "task.palette='background:000000; person:ff0000'"

KEYS = {
    "width": Rule("channels of the first layer of both networks, 64 in the paper", least=1),
    "l1": Rule("weight of the mean absolute difference from the target, beside the judge's word", least=0),
    "dropout": Rule("whether half of the maps of three decoder blocks are dropped while training"),
    "test_dropout": Rule(
        "whether they are dropped where images are translated and judged too, always the same"
    ),
    "test_stats": Rule(
        "what batch norm normalises by where images are translated and judged; batch: each image by its own "
        "statistics, as the paper does; running: by those that the training collected",
        one_of=("batch", "running"),
    ),
    "palette": Rule(
        "targets that are pictures of labels: their colours, the background first, as "
        "'background:000000; person:ff0000'; the overlap then names the best checkpoint; empty: no labels"
    ),
}


@dataclass(frozen=True)
class Palette:
    """The colours of pictures of labels, the background first: names, and RGB on 0 to 255."""

    names: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()


def palette_of(text: str) -> Palette:
    """Read `task.palette`, `name:RRGGBB; name:RRGGBB`. UserError for anything else."""
    if not text.strip():
        return Palette()
    entries = [entry.strip() for entry in text.split(";") if entry.strip()]
    found = [re.fullmatch(r"([^:;]+):\s*([0-9a-fA-F]{6})", entry) for entry in entries]
    for entry, match in zip(entries, found, strict=True):
        if match is None:
            raise UserError(f"task.palette={text}: {entry} is not name:RRGGBB: type for example {EXAMPLE}")
    names = tuple(match[1].strip() for match in found if match)
    codes = [match[2].lower() for match in found if match]
    for what, given in (("name", names), ("colour", codes)):
        twice = next((each for each in given if list(given).count(each) > 1), None)
        if twice is not None:
            raise UserError(f"task.palette={text}: the {what} {twice} stands there twice: use another one")
    if len(names) < 2:
        raise UserError(f"task.palette={text}: one colour tells no labels apart: type for example {EXAMPLE}")
    red, green, blue = ([int(code[at : at + 2], 16) for code in codes] for at in (0, 2, 4))
    return Palette(names, tuple(zip(red, green, blue, strict=True)))


def direction_of(sets: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the names of input and target in the batches of the sets; None without sets.

    UserError where a set does not state it, or two of them differ.
    """
    found: tuple[str, tuple[str, str]] | None = None
    for split, shards in sets.items():
        stated = input_and_target(shards.manifest)
        if found and stated != found[1]:
            raise UserError(
                f"data.{found[0]} has its input in half {found[1][0]}, data.{split} in half {stated[0]}: "
                "pack them again by source=paired with the same direction="
            )
        found = found or (split, stated)
    return found[1] if found else None


def check(config: Config, sets: Mapping[str, Any]) -> None:
    """Raise UserError for keys that break pairs, and for sets that hold none, or of another direction."""
    data = config.data
    try:
        level_of(data.size, key="data.size", least=LEAST, most=MOST)
    except ValueError as error:
        raise UserError(str(error)) from None
    palette_of(config.task["palette"])
    if not data.halves:
        raise UserError(
            f"data.halves=false: task={config.task['name']} learns from two images side by side: use "
            "data.halves=true data.order=plain"
        )
    if data.stream:
        raise UserError(
            "data.stream=true: which half is the input stands in the manifest, which a stream does not read: "
            "leave it out"
        )
    for name in COLOURS:
        if value := getattr(data.augment, name):
            raise UserError(
                f"data.augment.{name}={value:g} would recolour the targets too: use data.augment.{name}=0"
            )
    direction_of(sets)
    for split, shards in sets.items():
        _check_halves(f"data.{split}={shards.folder}", data.size, shards)


def _check_halves(place: str, size: int, shards: Any) -> None:
    """Refuse images that have no two halves, or whose halves would only be enlarged."""
    if not len(shards):
        return
    odd = int((shards.width % 2 == 1).sum())
    if odd:
        raise UserError(
            f"{place}: {odd:,} of {len(shards):,} images have an odd width, and no two equal halves: pack "
            "them by source=paired, which leaves them out"
        )
    side = min(int(shards.width.min()) // 2, int(shards.height.min()))
    if 2 * side < size:
        raise UserError(
            f"data.size={size}: {place} holds halves of {side} pixels: use data.size="
            f"{max(LEAST, 1 << (side.bit_length() - 1))}"
        )


def counts(config: Config) -> tuple[int, float]:
    """Return the parameters of both networks and the fp32 bytes that one image keeps for backward."""
    width, size = config.task["width"], config.data.size
    maps = [
        width * min(2**level, 8) for level in range(size.bit_length() - 1)
    ]  # channels, as models/pix2pix.py
    inner, below = maps[1:-1], maps[-1]
    weights = 16 * 3 * width + sum(16 * a * b for a, b in itertools.pairwise(maps)) + 2 * sum(inner)
    kept = 2 * width * (size // 2) ** 2
    kept += sum(3 * channels * (size >> (level + 2)) ** 2 for level, channels in enumerate(inner))
    for level in reversed(range(len(maps) - 1)):
        weights += 16 * below * maps[level] + 2 * maps[level]
        kept += 3 * maps[level] * (size >> (level + 1)) ** 2
        below = 2 * maps[level]
    weights += 16 * 3 * below + 3
    judge = [width, 2 * width, 4 * width, 8 * width]
    weights += 16 * 6 * width + width + sum(16 * a * b + 2 * b for a, b in itertools.pairwise(judge))
    weights += 16 * judge[-1] + 1
    kept += width * (size // 2) ** 2 + 2 * sum(
        channels * (size // scale) ** 2 for channels, scale in zip(judge[1:], (4, 8, 8), strict=True)
    )
    return weights, 4.0 * (kept + 12 * size**2)
