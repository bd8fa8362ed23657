"""A request: what a decoder needs to know of one batch, and all that the batch states but its pixels.

`requests.py` makes requests, for streams `stream.py`; `host.py` and `dali.py` decode them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from data_shards.batch import PAIR
from data_shards.loading.twins import Served
from data_shards.ragged import Ragged
from data_shards.sampling.order import Slots
from data_shards.sampling.placed import Placed
from data_shards.sampling.view import DecodePlan


@dataclass(frozen=True)
class Piece:
    """A further image, or a mask, of each stored image of a request."""

    kind: str  # image | mask
    sizes: np.ndarray  # [N, 2] int32: width, height as stored; 0: the sample does not have it


@dataclass(frozen=True)
class DecodeRequest:
    """The images of one batch of this rank, members side by side: n slots x m members = N stored images."""

    slots: Slots
    labels: dict[str, np.ndarray | Ragged]  # named as in the batch: [n, ...], or [n, m, ...] for own members
    sizes: np.ndarray  # [N, 2] int32: width, height of the original images
    plan: DecodePlan  # of N windows, or 2 N where each image is two halves, in pixels of the originals
    pieces: dict[str, Piece] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)  # of images and labels, named as in the batch
    served: Served | None = None  # what is read for each window (None = the originals)

    def __len__(self) -> int:
        return self.slots.ids.size

    @property
    def windows(self) -> int:
        """Windows of each stored image: 2 for halves."""
        return len(self.plan) // len(self) if len(self) else 1

    @property
    def stored(self) -> Placed:
        """The windows in pixels of what is read: what decoders of the images go by."""
        return self.plan.placed if self.served is None else self.served.placed(self.plan.placed)

    @property
    def pairs(self) -> bool:
        """Whether the images are A and B, two windows a slot."""
        return PAIR[0] in self.kinds

    def known(self, piece: str, part: str) -> np.ndarray:
        """bool [n] (of own members [n, m]): which samples have a piece; part: the side of a pair, or ""."""
        has: np.ndarray = (self.pieces[piece].sizes[:, 0] > 0).reshape(self.slots.ids.shape)
        if self.slots.ids.shape[1] == 1:
            return has[:, 0]
        return np.asarray(has[:, PAIR.index(part)]) if part else has

    def __getitem__(self, rows: slice) -> "DecodeRequest":
        """The request of some consecutive slots."""
        slots, members, each = self.slots, self.slots.ids.shape[1], self.windows
        low, high, _ = rows.indices(len(slots.ids))
        images = slice(low * members, high * members)
        windows = slice(images.start * each, images.stop * each)
        return DecodeRequest(
            Slots(slots.ids[rows], slots.sets[rows], slots.positions[rows], slots.repeat[rows]),
            {name: column[rows] for name, column in self.labels.items()},
            self.sizes[images],
            self.plan[windows],
            {name: Piece(piece.kind, piece.sizes[images]) for name, piece in self.pieces.items()},
            self.kinds,
            None if self.served is None else self.served[windows],
        )
