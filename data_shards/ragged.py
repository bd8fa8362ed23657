"""Ragged: a list of rows for each sample of a batch, such as its boxes; the counts stay on the host.

`starts` stays on the host whatever the device is: who owns which rows is then known without reading from the
device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sample i of n owns `rows[starts[i] : starts[i + 1]]`. Raises ValueError where the two do not fit.

    With `members` m above 1 a sample is m lists one after the other, one for each of its images: `len` and
    slices count samples, all else counts lists; `flat` makes a sample of each list.
    """

    rows: Tensor  # [m, ...]
    starts: np.ndarray  # [n + 1] int64, on the host, from 0 to m
    members: int = 1  # lists of a sample

    def __post_init__(self) -> None:
        starts = self.starts
        if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(self.rows) or (np.diff(starts) < 0).any():
            raise ValueError(f"starts do not rise from 0 to {len(self.rows)} rows: {starts}")
        if (len(starts) - 1) % self.members:
            raise ValueError(f"{len(starts) - 1} lists are not whole samples of {self.members}")

    def __len__(self) -> int:
        return (len(self.starts) - 1) // self.members

    def __getitem__(self, samples: slice) -> "Ragged":
        """Some consecutive samples; their rows are a view, not a copy."""
        low, high, step = samples.indices(len(self))
        if step != 1:
            raise ValueError("a Ragged is cut into consecutive samples: use `take`")
        starts = self.starts[low * self.members : max(low, high) * self.members + 1]
        return Ragged(self.rows[starts[0] : starts[-1]], starts - starts[0], self.members)

    def of(self, sample: int) -> Tensor:
        """The rows [k, ...] of one sample."""
        return self.rows[self.starts[sample] : self.starts[sample + 1]]

    @property
    def flat(self) -> "Ragged":
        """The same lists, each a sample of its own."""
        return Ragged(self.rows, self.starts)

    @property
    def counts(self) -> np.ndarray:
        """int64 [n]: rows of each sample."""
        return np.diff(self.starts)

    @property
    def owners(self) -> np.ndarray:
        """int64 [m]: the sample of each row."""
        return np.repeat(np.arange(len(self.starts) - 1), self.counts)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Ragged":
        """The same rows on `device`."""
        return Ragged(self.rows.to(device, non_blocking=non_blocking), self.starts, self.members)

    def take(self, samples: np.ndarray) -> "Ragged":
        """The samples [k] in the order given, on the host; one may come several times, -1 owns no rows."""
        samples = np.asarray(samples, np.int64)
        counts = self.counts
        counts = np.where(samples < 0, 0, counts[samples]) if len(counts) else np.zeros_like(samples)
        starts = np.concatenate([[0], np.cumsum(counts)])
        index = np.repeat(self.starts[samples] - starts[:-1], counts) + np.arange(starts[-1])
        return Ragged(self.rows[torch.from_numpy(index).to(self.rows.device, non_blocking=True)], starts)

    @staticmethod
    def of_lists(rows: Sequence[Tensor]) -> "Ragged":
        """One entry [k, ...] for each sample; at least one, if only an empty one."""
        starts = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
        return Ragged(torch.cat(list(rows)), starts)

    @staticmethod
    def cat(parts: Sequence["Ragged"]) -> "Ragged":
        """The samples of several, one after the other."""
        counts = np.concatenate([part.counts for part in parts])
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Ragged(torch.cat([part.rows for part in parts]), starts)
