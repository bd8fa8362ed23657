"""The mixed order: several orders in stated shares, each of which runs through its own epochs."""

import math
from collections.abc import Sequence

import numpy as np

from data_shards.errors import UserError
from data_shards.sampling.order import Order, Slots, Stream

PARTS = 1_000  # units in which the shares are exact


def pattern(shares: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spread parts with `shares`, which sum to PARTS, as evenly as they go over PARTS places.

    Returns (part, nth), both [PARTS] int64: the part at each place, and how many of that part are before it.
    """
    part = np.repeat(np.arange(len(shares)), shares)
    nth = np.concatenate([np.arange(share) for share in shares])
    due = (2 * nth + 1) * PARTS / np.repeat(2 * np.asarray(shares), shares)
    ranked = np.lexsort((part, due))
    return part[ranked], nth[ranked]


class MixedOrder(Stream):
    """Slots of several orders in exact shares: any 1,000 consecutive units hold `shares[i]` of part i.

    The places of the parts repeat every 1,000 units, spread evenly, so a batch comes near the shares too. A
    unit is a slot, or the slots that the parts must not split: the least common multiple of theirs. An epoch
    is the shortest prefix of whole thousands in which every part completes an epoch of its own.
    """

    def __init__(self, parts: Sequence[Order], shares: Sequence[int], *, key: str = "data.mix") -> None:
        """Mix `parts` by `shares`, in thousandths. UserError unless they are positive and sum to 1,000."""
        if not parts or min(shares) < 1 or sum(shares) != PARTS:
            given = ", ".join(f"{share / PARTS:g}" for share in shares) or "none"
            raise UserError(
                f"{key}: the shares {given} are not positive numbers that sum to 1: use for example 0.7 "
                "and 0.3"
            )
        if len({part.members for part in parts}) > 1:
            members = " and ".join(str(part.members) for part in parts)
            raise UserError(f"{key}: the parts have {members} members a slot: use parts with as many")
        self.members = parts[0].members
        self.unit = math.lcm(*(part.unit for part in parts))
        self._parts, self._shares = list(parts), np.asarray(shares, np.int64)
        self._part, self._nth = pattern(shares)
        rounds = [
            -(-part.epoch_slots // (share * self.unit)) for part, share in zip(parts, shares, strict=True)
        ]
        self.epoch_slots = max(rounds) * PARTS * self.unit

    def at(self, positions: np.ndarray) -> Slots:
        units, inside = np.divmod(positions, self.unit)
        rounds, places = np.divmod(units, PARTS)
        owner = self._part[places]
        own = (
            rounds * self._shares[owner] + self._nth[places]
        ) * self.unit + inside  # place in the part's stream
        shape = (len(positions), self.members)
        ids, sets = np.empty(shape, np.int64), np.empty(shape, np.int8)
        repeat = np.empty(len(positions), bool)
        for number, part in enumerate(self._parts):
            which = np.flatnonzero(owner == number)
            slots = part.at(own[which])
            ids[which], sets[which], repeat[which] = slots.ids, slots.sets, slots.repeat
        return Slots(ids, sets, positions, repeat)
