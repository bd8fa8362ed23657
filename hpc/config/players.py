"""The settings of one player: `players.G.optim.lr=0.002`, or any other key of `optim` and `ema`.

What is typed is a sparse table. It is merged over the common keys, and a player's own value wins; the merged
blocks are what a run stores, checks and hashes. Players without settings of their own have the common ones.
Imports no torch.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from data_shards.errors import UserError
from hpc.config.rules import Rule, rules
from hpc.config.schema import Config, Ema, Optim
from hpc.config.types import as_typed_tree, shown

BLOCKS: dict[str, type] = {"optim": Optim, "ema": Ema}


def own_rules(players: Iterable[str]) -> dict[str, Rule]:
    """Map every dotted key that a player may have for itself to its rule."""
    return {
        key: rule
        for player in players
        for block, kind in BLOCKS.items()
        for key, rule in rules(kind, f"players.{player}.{block}.").items()
    }


def merged(config: Config) -> dict[str, Any]:
    """Return `config.players` with whole blocks of the types of the common ones; UserError for other keys."""
    table = {}
    for player, own in config.players.items():
        common = {block: dataclasses.asdict(getattr(config, block)) for block in BLOCKS}
        name = f"players.{shown(player)}"
        if not isinstance(own, Mapping):
            raise UserError(f"{name}={shown(own)} is a group of keys: write {name}.optim.KEY=VALUE")
        typed = as_typed_tree(f"{name}.", own, common)
        table[player] = {block: values | typed.get(block, {}) for block, values in common.items()}
    return table


def check_names(config: Config, players: Iterable[str]) -> None:
    """Raise UserError for settings of a player that the task does not have."""
    known = list(players)
    for player in config.players:
        if player not in known:
            raise UserError(
                f"players.{shown(player)}: task={config.task['name']} has no such player: use "
                + " or ".join(f"players.{name}" for name in known)
            )


def optim_of(config: Config, player: str) -> Optim:
    """Return the optimizer settings of a player."""
    return Optim(**config.players[player]["optim"]) if player in config.players else config.optim


def ema_of(config: Config, player: str) -> Ema:
    """Return the settings of a player's moving average."""
    return Ema(**config.players[player]["ema"]) if player in config.players else config.ema


def key_of(config: Config, player: str, key: str) -> str:
    """Return what to type to change `key`, as `optim.lr`, of a player."""
    return f"players.{player}.{key}" if player in config.players else key


def every_optim(config: Config) -> Iterator[tuple[str, Optim]]:
    """Yield the common optimizer settings and those of players, by the key of their block."""
    yield "optim", config.optim
    for player in config.players:
        yield f"players.{player}.optim", optim_of(config, player)


def describe(optim: Optim, ema: Ema) -> str:
    """Write the settings of a player for plan and log."""
    clip = f", clip {optim.clip:g}" if optim.clip else ""
    warmup = f", warm-up {optim.warmup:,}" if optim.warmup else ""
    average = f"average of {ema.half_life:,} images" if ema.half_life else "no average"
    return f"{optim.name}, lr {optim.lr:g}, {optim.schedule}{warmup}{clip}, {average}"
