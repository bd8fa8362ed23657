"""The orders by name: what a config selects. What each of them does: `order.py`, `weighted.py`, `mixed.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_shards import counter_rng
from data_shards.errors import UserError
from data_shards.sampling.mixed import MixedOrder
from data_shards.sampling.order import GroupOrder, Order, PlainOrder, UnpairedOrder
from data_shards.sampling.rows import Rows
from data_shards.sampling.weighted import BalancedOrder, WeightedOrder


@dataclass(frozen=True)
class OrderRequest:
    """All that an order is made from; each kind reads the fields that it needs."""

    rows: Sequence[Rows]  # one; two of unpaired; one for each part of mixed
    seed: int
    members: int = 1  # of a slot, with plain, weighted, balanced and mixed
    group: int = 4  # groups: K
    weights: str = ""  # weighted: the label that holds them
    balance: str = ""  # balanced: the label that holds the class
    shares: Sequence[int] = ()  # mixed: thousandths of the slots, one for each of `rows`
    epoch_slots: int = 0  # unpaired: 0: an epoch of the longer side


def _mixed(request: OrderRequest) -> Order:
    seeds = [int(counter_rng.key(request.seed, "mixed", number)) for number in range(len(request.rows))]
    parts = [PlainOrder(rows, seed, request.members) for rows, seed in zip(request.rows, seeds, strict=True)]
    return MixedOrder(parts, request.shares)


def _unpaired(request: OrderRequest) -> Order:
    a, b = request.rows
    return UnpairedOrder(a, b, request.seed, epoch_slots=request.epoch_slots)


ORDERS: dict[str, Callable[[OrderRequest], Order]] = {
    "plain": lambda request: PlainOrder(request.rows[0], request.seed, request.members),
    "groups": lambda request: GroupOrder(request.rows[0], request.seed, request.group),
    "unpaired": _unpaired,
    "weighted": lambda request: WeightedOrder(
        request.rows[0], request.seed, request.weights, request.members
    ),
    "balanced": lambda request: BalancedOrder(
        request.rows[0], request.seed, request.balance, request.members
    ),
    "mixed": _mixed,
}


def make(kind: str, request: OrderRequest) -> Order:
    """Return the order that `data.order=kind` names; UserError where there is none of that name."""
    if kind not in ORDERS:
        raise UserError(f"data.order={kind} is not known: use {' or '.join(ORDERS)}")
    return ORDERS[kind](request)
