"""Training from shards that can only be read from front to back: `pipe:command`, URLs, plain paths.

The `webdataset` library reads the tars, one after the other; nothing is read at random, so the guarantees are
weaker than those of `loader.py`:
- Shards, not samples, are dealt out to the ranks: there must be at least as many shards as ranks, and how
  often their samples are seen differs by as much as the shards differ.
- Samples are shuffled in a buffer; the order is a function of (seed, world, clock of the last start) only.
- With `group` = K (`data.order=groups`) groups are shuffled: K slots in succession show one identity. They
  are cut from the samples of one label that stand together in a shard, permuted anew in each pass, and topped
  up with `repeat`s as in `order.GroupOrder`; but an identity that two shards share is cut in each of them.
- The clock counts slots, repeats too. A start above 0 goes back to the front of the shard in which that clock
  fell (known from the index) or begins a new pass (bare URLs): a resume is not bit-equal to a straight run.
- The only label is that of the member `.cls`: the identity, or the class that the set's source names. Ids are
  rows; with bare URLs, number of the shard x 2^32 + place in
  it.
"""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from data_shards import counter_rng
from data_shards.batch import IMAGE, PAIR
from data_shards.errors import DecodeError, UserError
from data_shards.loading.decode_request import DecodeRequest
from data_shards.loading.host import HostBackend
from data_shards.loading.loader import Loader
from data_shards.loading.stream_sources import Sources
from data_shards.loading.tar_stream import samples
from data_shards.ragged import Ragged
from data_shards.sampling import view as views
from data_shards.sampling.order import Slots, rank_block
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet

BUFFER = 2048  # samples of a rank's shuffle buffer
RUN = 1024  # samples of one identity that are permuted together and cut into groups, at most


@dataclass(frozen=True)
class _Sample:
    name: str
    id: int
    jpeg: bytes
    label: int
    repeat: bool = False  # it fills up its group


@dataclass(frozen=True)
class _StreamJob(DecodeRequest):
    samples: tuple[_Sample, ...] = ()


class _Bytes:
    """What the host backend asks of a source: the bytes are here already."""

    def read(self, job: Any, rows: slice = slice(None), piece: str = "") -> list[bytes]:
        return [sample.jpeg for sample in job.samples[rows]]

    def hint(self, job: Any) -> None:
        """Nothing can be hinted about a pipe."""

    def broken(self, job: Any, row: int, reason: str, piece: str = "") -> DecodeError:
        return _undecodable(job.samples[row].name, reason)


def _undecodable(name: str, reason: str) -> DecodeError:
    return DecodeError(f"{name} does not decode ({reason}): pack the set again, or check the server")


class StreamLoader(Loader):
    """`loader.TrainLoader` for a stream. Decodes on the host."""

    def __init__(
        self,
        source: str,
        *,
        seed: int,
        rank: int,
        world: int,
        batch: int,
        view: View,
        threads: int,
        ahead: int,
        fields: Sequence[str] = ("identity",),
        buffer: int = BUFFER,
        group: int = 1,
    ) -> None:
        if group < 1:
            raise UserError(f"data.group={group} is not positive: use data.group=4")
        rank_block(0, batch, rank, world, unit=group)
        self._sources = Sources.find(source)
        num = len(self._sources.urls)
        if num < world:
            raise UserError(f"data.stream=true deals {num} shards to {world} ranks: use at most {num} ranks")
        self._label = self._sources.label(fields, group)
        self._rank, self._world = rank, world
        self._batch, self._view, self._buffer, self._group = batch, view, buffer, group
        self._slots = self._sources.slots(group)
        super().__init__(HostBackend(_Bytes(), threads=threads, ahead=ahead), seed)

    def start(self, clock: int) -> None:
        """Build the sequence anew from a clock, to the precision that the module's docstring states."""
        samples = itertools.chain.from_iterable(self._shuffled(clock))

        # The backend asks for 0, 1, 2, ...: a stream has no other order.
        def jobs(number: int) -> DecodeRequest:
            first, count = rank_block(clock + number * self._batch, self._batch, self._rank, self._world)
            return self._job(first, tuple(next(samples) for _ in range(count)))

        self._backend.start(jobs)

    def _job(self, first: int, samples: tuple[_Sample, ...]) -> DecodeRequest:
        count = len(samples)
        sizes = np.array([_size(sample) for sample in samples], np.int32)
        ids = np.array([[sample.id] for sample in samples], np.int64)
        positions = np.arange(first, first + count, dtype=np.int64)
        repeat = np.array([sample.repeat for sample in samples], bool)
        slots = Slots(ids, np.zeros((count, 1), np.int8), positions, repeat)
        plan = views.draw(self._view, self._seed, positions, 0, sizes[:, 0], sizes[:, 1])
        labels: dict[str, np.ndarray | Ragged] = {}
        kinds = dict.fromkeys(PAIR if self._view.halves else (IMAGE,), "image")
        if self._label:
            labels[self._label] = np.array([sample.label for sample in samples], np.int64)
            kinds[self._label] = "class"
        return _StreamJob(slots, labels, sizes, plan, {}, kinds, samples=samples)

    def _shuffled(self, clock: int) -> Iterator[tuple[_Sample, ...]]:
        """Endless: each group that comes in takes the place of a drawn one of the buffer."""
        stream = counter_rng.key(self._seed, "buffer", self._rank, self._world, clock)
        held: list[tuple[_Sample, ...]] = []
        size, draws = max(1, self._buffer // self._group), np.empty(0, np.int64)
        if self._slots is not None:
            size = max(1, min(size, int(self._slots.sum()) // self._world // self._group))
        for number, (turn, group) in enumerate(self._groups(clock)):
            if self._slots is None and turn:
                size = min(size, len(held))  # all that a pass has: no second copy of it
            if len(held) < size:
                held.append(group)
                continue
            if number % 1024 == 0 or not len(draws):
                block = np.arange(number - number % 1024, number - number % 1024 + 1024)
                draws = (counter_rng.uniform(stream, block, 1)[:, 0] * size).astype(np.int64)
            place = draws[number % 1024]
            out, held[place] = held[place], group
            yield out

    def _groups(self, clock: int) -> Iterator[tuple[int, tuple[_Sample, ...]]]:
        """Endless: (pass, group) of this rank's shards, pass after pass, each pass dealt out anew."""
        number, skip, salt = self._place(clock)
        while True:
            is_empty = True
            for shard in self._dealt(number, salt)[skip:]:
                stream = counter_rng.key(self._seed, "runs", salt, number, int(shard))
                for group in self._cut(self._read(int(shard)), stream):
                    is_empty = False
                    yield number, group
            if is_empty and not skip:
                raise UserError(f"data.train={self._sources.urls[0]}, ...: no samples in this rank's shards")
            number, skip = number + 1, 0

    def _cut(self, samples: Iterable[_Sample], stream: np.uint64) -> Iterator[tuple[_Sample, ...]]:
        """Yield the groups of a shard, run after run; the samples of a run are permuted."""
        if self._group == 1:
            yield from ((sample,) for sample in samples)
            return
        for number, run in enumerate(_runs(samples, max(1, RUN // self._group) * self._group)):
            places = np.arange(-(-len(run) // self._group) * self._group)
            rows = counter_rng.permute(
                counter_rng.derive(stream, np.int64(number)), places % len(run), len(run)
            )
            drawn = [replace(run[row], repeat=nth >= len(run)) for nth, row in enumerate(rows.tolist())]
            for low in range(0, len(drawn), self._group):
                yield tuple(drawn[low : low + self._group])

    def _dealt(self, number: int, salt: int) -> np.ndarray:
        num = len(self._sources.urls)
        stream = counter_rng.derive(counter_rng.key(self._seed, "stream", salt), np.array([number]))
        return counter_rng.permute(stream, np.arange(num), num)[self._rank :: self._world]

    def _place(self, clock: int) -> tuple[int, int, int]:
        """(pass, shards of it to skip, salt of the passes) at a clock."""
        if self._slots is None:
            return 0, 0, clock
        left, number = clock // self._world, 0
        if not self._slots.sum():
            raise UserError(
                f"data.train={Path(self._sources.urls[0]).parent}: holds no samples; pack it again"
            )
        while True:
            ends = np.cumsum(self._slots[self._dealt(number, 0)])
            if left < ends[-1]:
                return number, int(np.searchsorted(ends, left, "right")), 0
            left, number = left - int(ends[-1]), number + 1

    def _read(self, shard: int) -> Iterator[_Sample]:
        url, counts = self._sources.urls[shard], self._sources.counts
        first = shard << 32 if counts is None else sum(counts[:shard])
        members = samples(url)
        at = 0
        while True:
            try:
                sample = next(members)
            except StopIteration:
                break
            except Exception as error:  # whatever a pipe, curl or tarfile may raise
                raise UserError(
                    f"data.train: shard {url} cannot be read to its end ({error}): check path and server"
                ) from error
            unpacked = _unpack(sample, url, first + at, has_label=bool(self._label))
            if self._sources.index is not None and (counts is None or at < counts[shard]):
                _compare(unpacked, self._sources.index, self._label)
            yield unpacked
            at += 1
        if counts is not None and at != counts[shard]:
            raise UserError(
                f"data.train: shard {url} gave {at} samples, its manifest says {counts[shard]}: copy it again"
            )


def _runs(samples: Iterable[_Sample], most: int) -> Iterator[list[_Sample]]:
    """Samples in succession that share a label; longer runs than `most` in parts."""
    run: list[_Sample] = []
    seen = set()
    for sample in samples:
        if run and (sample.label != run[0].label or len(run) == most):
            yield run
            if sample.label != run[0].label and sample.label in seen:
                raise UserError(
                    f"data.train: {sample.name} comes back to identity {sample.label}, data.order=groups "
                    "needs them together in a shard: pack the set with `rostro pack`, or use data.order=plain"
                )
            run = []
        if sample.label < 0:
            raise UserError(
                f"data.train: {sample.name} shows an unknown person, data.order=groups of a stream needs "
                "every one: use data.stream=false, which leaves such images out, or data.order=plain"
            )
        seen.add(sample.label)
        run.append(sample)
    if run:
        yield run


def _unpack(sample: dict[str, Any], url: str, number: int, *, has_label: bool) -> _Sample:
    name = f"{url}:{sample.get('__key__')}"
    for member in ("jpg", "cls") if has_label else ("jpg",):
        if member not in sample:
            raise UserError(f"data.train: {name} has no .{member} member: pack the set with `rostro pack`")
    if not has_label:
        return _Sample(name, number, sample["jpg"], -1)
    try:
        label = int(sample["cls"])
    except ValueError as error:
        shown = repr(sample["cls"][:20])
        raise UserError(f"data.train: {name}.cls is {shown}, not an integer: pack the set again") from error
    return _Sample(name, number, sample["jpg"], label)


def _compare(sample: _Sample, index: ShardSet, field: str) -> None:
    """UserError unless the sample is the one that the index of its set says."""
    index.verify(np.array([sample.id]))
    if zlib.crc32(sample.jpeg) != index.crc[sample.id]:
        raise _undecodable(sample.name, "its bytes were changed")
    if field and sample.label != (label := int(index.labels[field][sample.id])):
        raise UserError(
            f"data.train: {sample.name}.cls is {sample.label}, the index says {label}: copy it again"
        )


def _size(sample: _Sample) -> tuple[int, int]:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(sample.jpeg)
    except ValueError as error:
        raise _undecodable(sample.name, str(error)) from error
    return width, height
