"""Training from shards that can only be read from front to back: `pipe:command`, URLs, plain paths.

The `webdataset` library reads the tars, one after the other; nothing is read at random, so the guarantees are
weaker than those of `loader.py`:
- Shards, not samples, are dealt out to the ranks: there must be at least as many shards as ranks, and how
  often their samples are seen differs by as much as the shards differ.
- Samples are shuffled in a buffer; the order is a function of (seed, world, clock of the last start) only.
- A start at a clock above 0 goes back to the front of the shard in which that clock fell (counts known from
  the manifest) or begins a new pass (bare URLs): a resumed run is not bit-equal to a straight one.
- `identity` is the only label (member `.cls`), and there are no identity batches (`data.order=groups`).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import webdataset
from webdataset.shardlists import expand_urls

from data_shards import augment, counted
from data_shards.augment import AugmentConfig
from data_shards.errors import DecodeError, UserError
from data_shards.host import HostBackend
from data_shards.loader import RawBatch, to_batch
from data_shards.manifest import read_manifest
from data_shards.order import Slots, rank_block
from data_shards.supply import Job

BUFFER = 2048  # samples of a rank's shuffle buffer


@dataclass(frozen=True)
class Sources:
    """The shards of a stream, and how many samples each has where a manifest says so."""

    urls: list[str]
    counts: list[int] | None

    @classmethod
    def find(cls, source: str) -> "Sources":
        """From the folder of a packed set, or from a pattern like `pipe:cat x-{000000..000009}.tar`."""
        if not source:
            raise UserError(
                "data.train is empty: give a folder or a pattern like https://host/x-{000..009}.tar"
            )
        if not source.startswith("pipe:") and "://" not in source and Path(source).is_dir():
            manifest, _ = read_manifest(Path(source))
            shards = manifest["shards"]
            urls = [str(Path(source, shard["name"]).absolute()) for shard in shards]
            return cls(urls, [shard["samples"] for shard in shards])
        return cls(expand_urls(source), None)


@dataclass(frozen=True)
class _Sample:
    name: str
    id: int
    jpeg: bytes
    label: int


@dataclass(frozen=True)
class _StreamJob(Job):
    samples: tuple[_Sample, ...]


class _Bytes:
    """What the host backend asks of a supply: the bytes are here already."""

    def read(self, job: Any, rows: slice = slice(None)) -> list[bytes]:
        return [sample.jpeg for sample in job.samples[rows]]

    def hint(self, job: Any) -> None:
        """Nothing can be hinted about a pipe."""

    def broken(self, job: Any, row: int, reason: str) -> DecodeError:
        return _undecodable(job.samples[row].name, reason)


def _undecodable(name: str, reason: str) -> DecodeError:
    return DecodeError(f"{name} does not decode ({reason}): pack the set again, or check the server")


class StreamLoader:
    """`loader.TrainLoader` for a stream: the same `start`, `next`, `waited`, `close`. Decodes on the host."""

    def __init__(
        self,
        source: str,
        *,
        seed: int,
        rank: int,
        world: int,
        batch: int,
        size: int,
        threads: int,
        ahead: int,
        augment: AugmentConfig,
        fields: Sequence[str] = ("identity",),
        buffer: int = BUFFER,
    ) -> None:
        rank_block(0, batch, rank, world)
        self._sources = Sources.find(source)
        num = len(self._sources.urls)
        if num < world:
            raise UserError(f"data.stream=true deals {num} shards to {world} ranks: use at most {num} ranks")
        if set(fields) - {"identity"}:
            raise UserError(
                f"data.stream=true reads the label identity, not {', '.join(fields)}: use data.stream=false"
            )
        self._seed, self._rank, self._world = seed, rank, world
        self._batch, self._augment, self._buffer = batch, augment, buffer
        self._backend = HostBackend(_Bytes(), size=size, threads=threads, ahead=ahead)
        self.waited = 0.0  # seconds spent in next(), all together

    def start(self, clock: int) -> None:
        """(Re)build from a clock, to the precision that the module's docstring states."""
        samples = self._shuffled(clock)

        def jobs(number: int) -> Job:  # the backend asks for 0, 1, 2, ...: a stream has no other order
            first, count = rank_block(clock + number * self._batch, self._batch, self._rank, self._world)
            return self._job(first, tuple(next(samples) for _ in range(count)))

        self._backend.start(jobs)

    def next(self) -> RawBatch:
        """This rank's share of the next global batch."""
        begin = time.perf_counter()
        batch = to_batch(*self._backend.next())
        self.waited += time.perf_counter() - begin
        return batch

    def close(self) -> None:
        self._backend.close()

    def _job(self, first: int, samples: tuple[_Sample, ...]) -> Job:
        count = len(samples)
        sizes = np.array([_size(sample) for sample in samples], np.int32)
        ids = np.array([[sample.id] for sample in samples], np.int64)
        positions = np.arange(first, first + count, dtype=np.int64)
        slots = Slots(ids, np.zeros((count, 1), np.int8), positions, np.zeros(count, bool))
        steps = augment.draw(self._augment, self._seed, positions, 0, sizes[:, 0], sizes[:, 1])
        labels = {"identity": np.array([sample.label for sample in samples], np.int64)}
        return _StreamJob(slots, labels, sizes, steps, samples)

    def _shuffled(self, clock: int) -> Iterator[_Sample]:
        """Endless: each sample that comes in takes the place of a drawn one of the buffer."""
        stream = counted.key(self._seed, "buffer", self._rank, self._world, clock)
        held: list[_Sample] = []
        size, draws = self._buffer, np.empty(0, np.int64)
        if self._sources.counts is not None:
            size = max(1, min(size, sum(self._sources.counts) // self._world))
        for number, sample in enumerate(self._samples(clock)):
            if len(held) < size:
                held.append(sample)
                continue
            if number % 1024 == 0 or not len(draws):
                block = np.arange(number - number % 1024, number - number % 1024 + 1024)
                draws = (counted.uniform(stream, block, 1)[:, 0] * size).astype(np.int64)
            place = draws[number % 1024]
            out, held[place] = held[place], sample
            yield out

    def _samples(self, clock: int) -> Iterator[_Sample]:
        """Endless: this rank's shards, pass after pass, each pass dealt out anew."""
        number, skip, salt = self._place(clock)
        while True:
            found = False
            for shard in self._dealt(number, salt)[skip:]:
                for sample in self._read(int(shard)):
                    found = True
                    yield sample
            if not found and not skip:
                raise UserError(f"data.train={self._sources.urls[0]}, ...: no samples in this rank's shards")
            number, skip = number + 1, 0

    def _dealt(self, number: int, salt: int) -> np.ndarray:
        num = len(self._sources.urls)
        stream = counted.derive(counted.key(self._seed, "stream", salt), np.array([number]))
        return counted.permute(stream, np.arange(num), num)[self._rank :: self._world]

    def _place(self, clock: int) -> tuple[int, int, int]:
        """(pass, shards of it to skip, salt of the passes) at a clock."""
        if self._sources.counts is None:
            return 0, 0, clock
        counts, left, number = np.array(self._sources.counts), clock // self._world, 0
        if not counts.sum():
            raise UserError(
                f"data.train={Path(self._sources.urls[0]).parent}: holds no samples; pack it again"
            )
        while True:
            ends = np.cumsum(counts[self._dealt(number, 0)])
            if left < ends[-1]:
                return number, int(np.searchsorted(ends, left, "right")), 0
            left, number = left - int(ends[-1]), number + 1

    def _read(self, shard: int) -> Iterator[_Sample]:
        url, counts = self._sources.urls[shard], self._sources.counts
        first = None if counts is None else sum(counts[:shard])
        reader = webdataset.WebDataset([url], shardshuffle=False, nodesplitter=None, workersplitter=None)
        samples = iter(reader)
        at = 0
        while True:
            try:
                sample = next(samples)
            except StopIteration:
                break
            except Exception as error:  # whatever a pipe, curl or tarfile may raise
                raise UserError(
                    f"data.train: shard {url} cannot be read to its end ({error}): check path and server"
                ) from error
            yield _unpack(sample, url, -1 if first is None else first + at)
            at += 1
        if counts is not None and at != counts[shard]:
            raise UserError(
                f"data.train: shard {url} gave {at} samples, its manifest says {counts[shard]}: copy it again"
            )


def _unpack(sample: dict[str, Any], url: str, number: int) -> _Sample:
    name = f"{url}:{sample.get('__key__')}"
    for member in ("jpg", "cls"):
        if member not in sample:
            raise UserError(f"data.train: {name} has no .{member} member: pack the set with `rostro pack`")
    try:
        label = int(sample["cls"])
    except ValueError as error:
        found = repr(sample["cls"][:20])
        raise UserError(f"data.train: {name}.cls is {found}, not an integer: pack the set again") from error
    return _Sample(name, number, sample["jpg"], label)


def _size(sample: _Sample) -> tuple[int, int]:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(sample.jpeg)
    except ValueError as error:
        raise _undecodable(sample.name, str(error)) from error
    return width, height
