"""The orders by name: what a config selects. What each does: `order.py`, `weighted.py`, `mixed.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_shards import counter_rng
from data_shards.errors import UserError
from data_shards.sampling import order
from data_shards.sampling.mixed import MixedOrder
from data_shards.sampling.rows import Rows
from data_shards.sampling.weighted import BalancedOrder, WeightedOrder


@dataclass(frozen=True)
class OrderRequest:
    """All that an order is made from; each kind reads the fields that it needs."""

    rows: Sequence[Rows]  # one; two of unpaired; one for each part of mixed
    seed: int
    members: int = 1  # plain, weighted, balanced, mixed: images of a slot, each another draw
    group: int = 4  # groups: K
    weights: str = ""  # weighted: the label that holds them
    balance: str = ""  # balanced: the label that holds the class
    shares: Sequence[int] = ()  # mixed: thousandths of the slots, one for each of `rows`
    epoch_slots: int = 0  # unpaired: 0: an epoch of the longer side


def _plain(request: OrderRequest) -> order.Order:
    return order.PlainOrder(request.rows[0], request.seed, request.members)


def _groups(request: OrderRequest) -> order.Order:
    return order.GroupOrder(request.rows[0], request.seed, request.group)


def _unpaired(request: OrderRequest) -> order.Order:
    a, b = request.rows
    return order.UnpairedOrder(a, b, request.seed, epoch_slots=request.epoch_slots)


def _weighted(request: OrderRequest) -> order.Order:
    return WeightedOrder(request.rows[0], request.seed, request.weights, request.members)


def _balanced(request: OrderRequest) -> order.Order:
    return BalancedOrder(request.rows[0], request.seed, request.balance, request.members)


def _mixed(request: OrderRequest) -> order.Order:
    parts = [
        order.PlainOrder(rows, int(counter_rng.key(request.seed, "mixed", number)), request.members)
        for number, rows in enumerate(request.rows)
    ]
    return MixedOrder(parts, request.shares)


ORDERS: dict[str, Callable[[OrderRequest], order.Order]] = {
    "plain": _plain,
    "groups": _groups,
    "unpaired": _unpaired,
    "weighted": _weighted,
    "balanced": _balanced,
    "mixed": _mixed,
}


def make(kind: str, request: OrderRequest) -> order.Order:
    """Return the order that `data.order=kind` names; UserError where there is none of that name."""
    if kind not in ORDERS:
        raise UserError(f"data.order={kind} is not known: use {' or '.join(ORDERS)}")
    return ORDERS[kind](request)
