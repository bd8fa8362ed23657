"""Batches for training and evaluation: order -> index -> bytes -> pixels, a pure function of the clock.

A loader holds no state that a checkpoint would need: `start(clock)` builds it anew, at any world size. What
a batch holds is decided in `sampling/order.py`, `requests.py` and `sampling/view.py`; the two decoders are
`host.py` and `dali.py`.
"""

import importlib.util
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from data_shards.batch import Batch
from data_shards.errors import DecodeError, UserError
from data_shards.loading.batch import join
from data_shards.loading.dali import DaliBackend
from data_shards.loading.decode_request import DecodeRequest
from data_shards.loading.feeder import DecodeRequests
from data_shards.loading.host import HostBackend, decode_square
from data_shards.loading.requests import RequestBuilder
from data_shards.sampling.order import Order, evaluation_blocks, rank_block
from data_shards.sampling.view import View

_BLOCK = 4  # batches whose order and augmentation are computed in one go: fewer, larger arrays


class Backend(Protocol):
    """Decodes jobs in order, ahead of the step."""

    def start(self, jobs: DecodeRequests) -> None: ...
    def next(self) -> tuple[DecodeRequest, dict[str, Tensor]]: ...
    def close(self) -> None: ...


def choose_backend(requested: str) -> str:
    """Return what `data.backend` means on this machine: `dali` or `host`."""
    has_dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    if requested == "auto":
        return "dali" if has_dali and torch.cuda.is_available() else "host"
    if requested == "dali" and not has_dali:
        raise UserError(
            "data.backend=dali is not installed: pip install nvidia-dali-cuda130, or data.backend=host"
        )
    if requested not in ("dali", "host"):
        raise UserError(f"data.backend={requested} is not known: use auto, dali or host")
    return requested


def _backend(
    name: str,
    requests: RequestBuilder,
    *,
    images: int,
    threads: int,
    ahead: int,
    device_id: int | None,
) -> Backend:
    if choose_backend(name) == "dali":
        windows = images * (1 + requests.view.halves)
        return DaliBackend(requests, windows=windows, threads=threads, ahead=ahead, device_id=device_id)
    return HostBackend(requests, threads=threads, ahead=ahead, pin=device_id is not None)


class Loader(ABC):
    """This rank's share of one global batch after the other, for ever."""

    def __init__(self, backend: Backend, seed: int) -> None:
        self._backend, self._seed = backend, seed
        self.waited = 0.0  # seconds spent in next(), all together

    @abstractmethod
    def start(self, clock: int) -> None:
        """Build the sequence anew from a clock; decode ahead from here on."""

    def next(self) -> Batch:
        """Return this rank's share of the next global batch.

        DecodeError names an image that does not decode.
        """
        begin = time.perf_counter()
        batch = join(*self._backend.next(), self._seed)
        self.waited += time.perf_counter() - begin
        return batch

    def close(self) -> None:
        self._backend.close()


class TrainLoader(Loader):
    """Batches of a packed set, read at random.

    The same clock gives the same images, bit for bit, whatever `threads`, `ahead` and the start were; the
    ranks' shares put together are the same at any `world`.

    shards: a set, or several to which the order refers. fields: labels and pieces, of pairs also {"a": ...,
    "b": ...}. unit: slots that must not be split between ranks, besides those of the order.
    """

    def __init__(
        self,
        order: Order,
        shards: Any,
        *,
        seed: int,
        rank: int,
        world: int,
        batch: int,
        view: View,
        backend: str,
        threads: int,
        ahead: int,
        fields: Sequence[str] | Mapping[str, Sequence[str]] = (),
        twins: Sequence[int] = (),
        unit: int = 1,
        device_id: int | None = None,
    ) -> None:
        self._unit = math.lcm(order.unit, unit)
        rank_block(0, batch, rank, world, unit=self._unit)
        self._order, self._rank, self._world, self._batch = order, rank, world, batch
        self._requests = RequestBuilder(shards, fields, view=view, pairs=order.pairs, twins=twins)
        self._check_count()
        share = batch // world * order.members
        super().__init__(
            _backend(
                backend,
                self._requests,
                images=share,
                threads=threads,
                ahead=ahead,
                device_id=device_id,
            ),
            seed,
        )

    def _check_count(self) -> None:
        samples = len(self._requests.sets[0])
        if samples < self._world:
            raise UserError(
                f"procs x nodes = {self._world} ranks, but {self._requests.sets[0].folder} holds {samples} "
                f"samples: use at most {samples} ranks"
            )

    def start(self, clock: int) -> None:
        @lru_cache(maxsize=2)
        def block(number: int) -> DecodeRequest:
            begins = clock + (number * _BLOCK + np.arange(_BLOCK)) * self._batch
            first, count = rank_block(0, self._batch, self._rank, self._world, unit=self._unit)
            positions = (begins[:, None] + first + np.arange(count)).reshape(-1)
            return self._requests.training(self._order.at(positions), self._seed)

        share = self._batch // self._world

        def jobs(number: int) -> DecodeRequest:
            nth = number % _BLOCK
            return block(number // _BLOCK)[nth * share : (nth + 1) * share]

        self._backend.start(jobs)

    def close(self) -> None:
        super().close()
        self._requests.close()


class EvalLoader:
    """This rank's blocks of a held-out set, each image once, nothing random; the last may be shorter."""

    def __init__(
        self,
        shards: Any,
        *,
        rank: int,
        world: int,
        batch: int,
        view: View,
        backend: str = "host",
        threads: int = 2,
        ahead: int = 2,
        fields: Sequence[str] = (),
        device_id: int | None = None,
        ids: np.ndarray | None = None,
    ) -> None:
        """ids: of the samples, in order (None = the whole set)."""
        if batch < 1:
            raise UserError(f"eval.batch={batch} is not positive: use eval.batch=64")
        blocks = evaluation_blocks(len(shards) if ids is None else len(ids), batch, rank, world)
        self._blocks: list[Any] = blocks if ids is None else [ids[block] for block in blocks]
        self._requests = RequestBuilder(shards, fields, view=view)
        self._options: dict[str, Any] = {
            "images": batch,
            "threads": threads,
            "ahead": ahead,
            "device_id": device_id,
        }
        self._name = backend

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._blocks)

    def __iter__(self) -> Iterator[Batch]:
        def jobs(number: int) -> DecodeRequest | None:
            return self._requests.evaluation(self._blocks[number]) if number < len(self) else None

        backend = _backend(self._name, self._requests, **self._options)
        backend.start(jobs)
        try:
            for _ in range(len(self)):
                yield join(*backend.next())
        finally:
            backend.close()
            self._requests.close()


def decode_images(blobs: Sequence[bytes], size: int) -> np.ndarray:
    """Loose JPEGs (RGB or grey) -> uint8 [n, size, size, 3]: the centre square, as evaluation sees it."""
    out = np.empty((len(blobs), size, size, 3), np.uint8)
    for row, blob in enumerate(blobs):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(blob)
            decode_square(out[row], blob, (width, height))
        except ValueError as error:
            raise DecodeError(f"image {row} does not decode ({error}): give a JPEG") from error
    return out
