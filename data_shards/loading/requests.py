"""What a batch needs before any byte is decoded: ids, labels, sizes, augmentation, names for messages.

It connects the order (`sampling/order.py`), the memory-mapped index (`shard_set.ShardSet`) and the two
decoding backends (`host.py`, `dali.py`), which see only these requests ("jobs"). It takes about a millisecond
a batch at any size of the set.
"""

import mmap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_shards.errors import DecodeError, UserError
from data_shards.loading.node_cache import is_copy
from data_shards.loading.reader import Reader, name_of
from data_shards.loading.twins import Served, TwinReaders
from data_shards.sampling import augment
from data_shards.sampling.augment import Augmentation, AugmentConfig
from data_shards.sampling.order import Slots

_TRIM = 16  # jobs between two releases of mapped index pages


@dataclass(frozen=True)
class DecodeRequest:
    """The images of one batch of this rank, members side by side: n slots x m members = N images."""

    slots: Slots
    labels: dict[str, np.ndarray]  # [n], or [n, m] where a slot has several members
    sizes: np.ndarray  # [N, 2] int32: width, height of the original images
    augmentation: Augmentation  # of N images, in pixels of the originals
    served: Served | None = None  # what is read of N images (None = the originals)

    def __len__(self) -> int:
        return self.slots.ids.size

    @property
    def stored(self) -> tuple[np.ndarray, np.ndarray]:
        """(sizes [N, 2], crops [N, 4]) in pixels of what is read: what decoders go by."""
        if self.served is None:
            return self.sizes, self.augmentation.crop
        return self.served.source, self.served.crop

    def __getitem__(self, rows: slice) -> "DecodeRequest":
        """The request of some consecutive slots."""
        slots, steps, members = self.slots, self.augmentation, self.slots.ids.shape[1]
        low, high, _ = rows.indices(len(slots.ids))
        images = slice(low * members, high * members)
        return DecodeRequest(
            Slots(slots.ids[rows], slots.sets[rows], slots.positions[rows], slots.repeat[rows]),
            {name: column[rows] for name, column in self.labels.items()},
            self.sizes[images],
            Augmentation(
                steps.crop[images],
                steps.flip[images],
                None if steps.colour is None else steps.colour[images],
                steps.exact,
            ),
            None if self.served is None else self.served[images],
        )


class RequestBuilder:
    """Turns slots into jobs and jobs into bytes, for one set or for the several to which slots refer.

    fields: the labels that jobs carry; twins: those that training may read for squares of side `target`.
    Raises UserError if a set does not have one of them.
    """

    def __init__(
        self, sets: Any, fields: Sequence[str] = (), *, twins: Sequence[int] = (), target: int = 0
    ) -> None:
        self.sets: list[Any] = list(sets) if isinstance(sets, list | tuple) else [sets]
        self.fields = tuple(fields)
        for shards in self.sets:
            missing = [field for field in self.fields if field not in shards.labels]
            if missing:
                known = ", ".join(shards.labels)
                raise UserError(f"{shards.folder}: has no label `{missing[0]}`, only {known}")
        self.readers = [Reader(shards) for shards in self.sets]
        self.twins = TwinReaders(self.sets, twins, target) if twins else None
        self._jobs = 0

    def training(self, slots: Slots, config: AugmentConfig, seed: int) -> DecodeRequest:
        """The job of training slots, with their random augmentation. Raises UserError for a damaged index."""
        sizes = self._sizes(slots)
        parts = [
            augment.draw(config, seed, slots.positions, member, sizes[:, member, 0], sizes[:, member, 1])
            for member in range(sizes.shape[1])
        ]
        if len(parts) == 1:
            merged = parts[0]
        else:
            colours = [part.colour for part in parts if part.colour is not None]
            merged = Augmentation(
                np.stack([part.crop for part in parts], 1).reshape(-1, 4),
                np.stack([part.flip for part in parts], 1).reshape(-1),
                np.stack(colours, 1).reshape(-1, 3, 4) if colours else None,
            )
        job = self._job(slots, sizes, merged)
        if self.twins is None:
            return job
        ids, sets = slots.ids.reshape(-1), slots.sets.reshape(-1)
        return replace(job, served=self.twins.serve(ids, sets, job.sizes, merged.crop))

    def evaluation(self, rows: range) -> DecodeRequest:
        """The job of consecutive rows of the first set: centre crops. Raises as `training`."""
        ids = np.arange(rows.start, rows.stop, dtype=np.int64)
        slots = Slots(ids[:, None], np.zeros((len(ids), 1), np.int8), ids, np.zeros(len(ids), bool))
        sizes = self._sizes(slots)
        return self._job(slots, sizes, augment.centre(sizes[:, 0, 0], sizes[:, 0, 1]))

    def read(self, job: DecodeRequest, rows: slice = slice(None)) -> list[bytes]:
        """The stored bytes of some images of a job (all by default), as they were packed.

        Decoders fill in what is damaged, with a warning or none, so the crc32 is compared with the index.
        Raises DecodeError for an image that was changed, UserError for a shard that cannot be read.
        """
        ids = job.slots.ids.reshape(-1)[rows]
        out: list[bytes] = [b""] * len(ids)
        for shards, reader, at in self._parts(job, rows):
            crcs = np.asarray(shards.crc[ids[at]]).tolist()
            for place, data, crc in zip(at.tolist(), reader.read(ids[at]), crcs, strict=True):
                if zlib.crc32(data) != crc:
                    raise self.broken(job, range(len(job))[rows][place], "its bytes were changed")
                out[place] = data
        return out

    def hint(self, job: DecodeRequest) -> None:
        """Ask the kernel to load the images of a job, which will be read soon."""
        ids = job.slots.ids.reshape(-1)
        for _, reader, at in self._parts(job, slice(None)):
            reader.hint(ids[at])

    def broken(self, job: DecodeRequest, row: int, reason: str) -> DecodeError:
        """The error that names image `row` of a job."""
        shards = self.sets[int(job.slots.sets.reshape(-1)[row])]
        [(stored, _, _)] = self._parts(job, slice(row, row + 1))
        name = name_of(stored, int(job.slots.ids.reshape(-1)[row]))
        remedy = f"run `rostro check {shards.folder}`"
        if is_copy(shards.folder):
            remedy = f"delete {shards.folder}, the next start copies it again"
        return DecodeError(f"{name} does not decode ({reason}): {remedy}")

    def close(self) -> None:
        """Close the files of all sets."""
        for reader in self.readers:
            reader.close()
        if self.twins is not None:
            self.twins.close()

    def _parts(self, job: DecodeRequest, rows: slice) -> Iterator[tuple[Any, Reader, np.ndarray]]:
        """(set or twin, its reader, which of the images `rows` of a job it holds) of all that hold some."""
        sets = job.slots.sets.reshape(-1)[rows]
        for number, (shards, reader) in enumerate(zip(self.sets, self.readers, strict=True)):
            inside = sets == number
            if job.served is None or self.twins is None:
                stored = [(shards, reader, inside)]
            else:
                which = job.served.which[rows]
                stored = [(shards, reader, inside & (which == 0))]
                stored += [(*twin, inside & (which == k)) for k, twin in enumerate(self.twins.of(number), 1)]
            yield from ((each, its, np.flatnonzero(at)) for each, its, at in stored if at.any())

    def _job(self, slots: Slots, sizes: np.ndarray, augmentation: Augmentation) -> DecodeRequest:
        labels = {}
        for field in self.fields:
            column = self._gather([shards.labels[field] for shards in self.sets], slots)
            labels[field] = column[:, 0] if column.shape[1] == 1 else column
        self._jobs += 1
        if self._jobs % _TRIM == 0:
            self._trim()
        return DecodeRequest(slots, labels, sizes.reshape(-1, 2), augmentation)

    def _sizes(self, slots: Slots) -> np.ndarray:
        """int32 [n, m, 2]: width, height. Sizes are looked up first, so this verifies the index."""
        for number, shards in enumerate(self.sets):
            shards.verify(slots.ids[slots.sets == number])
        columns = ([shards.width for shards in self.sets], [shards.height for shards in self.sets])
        return np.stack([self._gather(column, slots).astype(np.int32) for column in columns], axis=-1)

    def _gather(self, columns: list[np.ndarray], slots: Slots) -> np.ndarray:
        if len(columns) == 1:
            return np.asarray(columns[0][slots.ids])
        parts = [column[np.where(slots.sets == n, slots.ids, 0)] for n, column in enumerate(columns)]
        sets = slots.sets.reshape(slots.sets.shape + (1,) * (parts[0].ndim - slots.sets.ndim))
        return np.choose(sets, parts)  # a label may be an array

    def _trim(self) -> None:
        """Release mapped pages of the index: else a rank would come to hold all of it during an epoch."""
        for shards in self.sets:
            columns = (shards.shard, shards.offset, shards.size, shards.width, shards.height, shards.crc)
            for column in (*columns, *shards.labels.values()):
                base = column
                while isinstance(base, np.ndarray):
                    base = base.base
                if isinstance(base, mmap.mmap):
                    base.madvise(mmap.MADV_DONTNEED)
