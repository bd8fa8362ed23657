"""The order of a run's training samples, as its config states it. Imports no torch.

The orders themselves: `data_shards/sampling/orders.py`. What keys refuse together: `hpc/config/check.py`; an
order in words: `hpc/config/data_order.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.sampling.mixed import PARTS
from data_shards.sampling.order import Order
from data_shards.sampling.orders import OrderRequest, make
from data_shards.sampling.rows import Rows
from data_shards.sampling.selection import WHOLE
from hpc.config.schema import Config, Data
from hpc.config.types import shown

EXAMPLE = "use for example data.mix='race==0:0.3; race!=0:0.7'"


def training_sets(sets: Mapping[str, Any]) -> list[Any]:
    """Return the sets that slots refer to by number: that of data.train, and that of data.train_b."""
    return [sets[split] for split in ("train", "train_b") if split in sets]


def rows_of(data: Data, sets: Sequence[Any]) -> list[Rows]:
    """Return what the order draws from: one Rows, those of A and B, or one for each part of `data.mix`."""
    if data.order == "unpaired":
        b = len(sets) - 1
        return [
            Rows(sets[0], data.a or WHOLE, key="data.a"),
            Rows(sets[b], data.b or WHOLE, number=b, key="data.b"),
        ]
    if data.order != "mixed":
        return [Rows(sets[0], data.rows)]
    return [Rows(sets[0], where, key="data.mix") for where, _ in mix_parts(data.mix)]


def build(config: Config, sets: Sequence[Any], rows: Sequence[Rows] = ()) -> Order:
    """Return the order of a run on its `training_sets`; UserError for what they cannot give.

    rows: what `rows_of` returned, where the caller has it already.
    """
    data = config.data
    request = OrderRequest(
        rows or rows_of(data, sets),
        config.seed,
        members=data.members,
        group=data.group,
        weights=data.weights,
        balance=data.balance,
        shares=[share for _, share in mix_parts(data.mix)],
    )
    return make(data.order, request)


def mix_parts(mix: str) -> list[tuple[str, int]]:
    """Split `data.mix`, `EXPRESSION:SHARE; EXPRESSION:SHARE`, into (expression, thousandths)."""
    parts = []
    for item in filter(str.strip, mix.split(";")):
        where, _, text = item.rpartition(":")
        try:
            thousandths = float(text) * PARTS
            share = round(thousandths)
        except (ValueError, OverflowError):
            raise UserError(f"data.mix: {shown(item)} is not EXPRESSION:SHARE: {EXAMPLE}") from None
        if abs(thousandths - share) > 1e-6:
            raise UserError(
                f"data.mix: {shown(item)}: shares are whole thousandths: use {share / PARTS:g} or another one"
            )
        parts.append((where, share))
    return parts


def epoch_images(config: Config, sets: Sequence[Any]) -> int:
    """Return the slots of an epoch: of groups without those that fill a group up."""
    data = config.data
    if data.order not in ("plain", "groups"):
        return build(config, sets).epoch_slots
    if data.order == "groups":  # images of unknown people are in no group
        return int(Rows(sets[0], data.rows).identity_start[-1])
    return len(sets[0] if data.rows == WHOLE else Rows(sets[0], data.rows))


def check_groups(data: Data, rows: Rows) -> None:
    """Raise UserError for groups of a set that does not keep people together: none has two images."""
    if data.order != "groups" or data.group < 2:
        return
    start = rows.identity_start
    for low in range(0, len(start) - 1, 1 << 20):
        if (np.diff(np.asarray(start[low : low + (1 << 20) + 1]).astype(np.int64)) > 1).any():
            return
    raise UserError(
        f"data.order=groups: no person of {rows.shards.folder} has two images, its source "
        f"{rows.shards.manifest['source']} does not keep people together: use data.order=plain"
    )
