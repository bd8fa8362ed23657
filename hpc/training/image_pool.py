"""Earlier generated images, some of which a judge sees in place of new ones. One pool for all ranks.

Shrivastava et al., Learning from simulated and unsupervised images through adversarial training (2017,
section 2.3), as CycleGAN uses it (Zhu et al. 2017, section 4): half of the new images each take the place of
a kept one, which is judged instead of them. What is kept, and where, is a function of the positions alone, so
that any number of ranks and micro batches judges the same images.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards import counter_rng
from data_shards.errors import UserError
from hpc.distributed.collectives import gather
from hpc.distributed.comm import Comm


@dataclass(frozen=True)
class Places:
    """Where some images meet the pool: images [n] of this rank, or of all ranks."""

    slots: np.ndarray  # int64 [n]: the place in the pool, -1 = the image is not kept
    swapped: np.ndarray  # bool [n]: whether the image that was kept there is judged


def places(
    positions: np.ndarray, *, clock: int, batch: int, size: int, seed: int, name: str, chance: float = 0.5
) -> Places:
    """Return the places of the images at `positions` in the update of `batch` images that starts at `clock`.

    The first `size` images of a run fill the pool. Images of one update have different places, so that none
    sees another: with a batch of 1 that is the paper's rule. UserError for a batch larger than the pool.
    """
    if batch > size:
        raise UserError(
            f"batch={batch} is more than the pool's {size} images: use batch={size} or a larger pool"
        )
    if clock < size:  # an update that ends above it keeps only what still fits
        return Places(np.where(positions < size, positions, -1), np.zeros(len(positions), bool))
    stream = counter_rng.key(seed, "image pool", name)
    order = counter_rng.derive(stream, np.int64(clock))[0]
    slots = counter_rng.permute(order, positions - clock, size)
    swapped = counter_rng.uniform(stream, positions, 1)[:, 0] < chance
    return Places(np.where(swapped, slots, -1), swapped)


class ImagePool:
    """The kept images [size, ...], the same on all ranks; `state` goes into `Task.state`.

    One pool for each player that generates: `name` keeps their random numbers apart.
    """

    def __init__(self, size: int = 50, *, seed: int, name: str) -> None:
        """size: images (0 = none are kept, and all new ones are judged)."""
        self.size, self.seed, self.name = size, seed, name
        self.images: Tensor | None = None

    @torch.no_grad()
    def exchange(self, images: Tensor, positions: Tensor, *, clock: int, batch: int, comm: Comm) -> Tensor:
        """Return what is to be judged for `images` [n, ...] of this rank, and keep those that the rule keeps.

        positions: of the images, on the host: consecutive, `Batch.positions`; the ranks own equal consecutive
        shares of the `batch` images of the update that starts at `clock`; all call it, with equally many
        """
        if self.size == 0:
            return images.detach()
        images = images.detach().float()
        if self.images is None:
            self.images = images.new_zeros((self.size, *images.shape[1:]))
        elif self.images.device != images.device:  # as loaded
            self.images = self.images.to(images.device)
        if self.images.shape[1:] != images.shape[1:]:
            shapes = [tuple(tensor.shape[1:]) for tensor in (self.images, images)]
            raise UserError(
                f"the pool keeps images of shape {shapes[0]}, these have {shapes[1]}: keep data.size"
            )
        rule = partial(places, clock=clock, batch=batch, size=self.size, seed=self.seed, name=self.name)
        own = positions.numpy()
        judged = self._judged(images, rule(own))
        share = batch // comm.world
        everyone = np.concatenate([own + (rank - comm.rank) * share for rank in range(comm.world)])
        self._keep(gather(images, comm), rule(everyone).slots)
        return judged

    def _judged(self, images: Tensor, where: Places) -> Tensor:
        assert self.images is not None
        # Rows of the pool and of the new images in one tensor: the choice is known on the host.
        rows = np.where(where.swapped, where.slots, self.size + np.arange(len(images)))
        return torch.cat([self.images, images])[_index(rows, images.device)]

    def _keep(self, images: Tensor, slots: np.ndarray) -> None:
        assert self.images is not None
        (kept,) = np.nonzero(slots >= 0)
        device = images.device
        self.images.index_copy_(0, _index(slots[kept], device), images[_index(kept, device)])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; None before the first exchange."""
        return {"images": self.images}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; UserError for a pool of another size."""
        images = state["images"]
        if images is not None and len(images) != self.size:
            raise UserError(
                f"the pool of {self.name} has {self.size} images, that of the checkpoint {len(images)}: give "
                f"{len(images)}"
            )
        self.images = None if images is None else images.clone()


def _index(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64)).to(device, non_blocking=True)
