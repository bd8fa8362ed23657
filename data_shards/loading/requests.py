"""Makes requests, which state what a batch needs before any byte is decoded, and reads their bytes.

It connects the order (`sampling/order.py`), the view (`sampling/view.py`), the memory-mapped index
(`shard_set.ShardSet`) and the two decoding backends (`host.py`, `dali.py`), which see only requests ("jobs",
`decode_request.py`). It takes about a millisecond a batch at any size of the set. Labels: `labels.py`.
"""

import mmap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from data_shards.batch import IMAGE, PAIR
from data_shards.errors import DecodeError, UserError
from data_shards.loading.decode_request import DecodeRequest, Piece
from data_shards.loading.labels import MOVED, carry, field_of, gather, gather_ragged
from data_shards.loading.node_cache import is_copy
from data_shards.loading.reader import Reader, name_of
from data_shards.loading.twins import TwinReaders
from data_shards.ragged import Ragged
from data_shards.sampling import view as views
from data_shards.sampling.order import Slots
from data_shards.sampling.placed import Placed
from data_shards.sampling.view import DecodePlan, View
from data_shards.shard_format.schema import PIECES, Field

_TRIM = 16  # jobs between two releases of mapped index pages


class RequestBuilder:
    """Turns slots into jobs and jobs into bytes, for one set or for the several to which slots refer.

    fields: the labels and pieces that jobs carry; of pairs also {"a": fields, "b": fields}, each of its side.
    view: what happens to each image. pairs: the two members of a slot are A and B. twins: those that training
    may read. Raises UserError if a set does not have one of the fields, or of the twins.
    """

    def __init__(
        self,
        sets: Any,
        fields: Sequence[str] | Mapping[str, Sequence[str]] = (),
        *,
        view: View,
        pairs: bool = False,
        twins: Sequence[int] = (),
    ) -> None:
        self.sets: list[Any] = list(sets) if isinstance(sets, list | tuple) else [sets]
        self.view = view
        if not isinstance(fields, Mapping):
            fields = dict.fromkeys(PAIR if pairs else ("",), fields)
        self._fields = {
            part: {name: self._field(part, name) for name in names} for part, names in fields.items()
        }
        self.pieces = {
            name: each.kind
            for own in self._fields.values()
            for name, each in own.items()
            if each.kind in PIECES
        }
        self.kinds: dict[str, str] = dict.fromkeys(PAIR if pairs or view.halves else (IMAGE,), "image")
        for part, own in self._fields.items():
            for name, each in own.items():
                self.kinds |= dict.fromkeys(self._names(part, name, each), each.kind)
        self.readers = [Reader(shards) for shards in self.sets]
        self.twins = TwinReaders(self.sets, twins) if twins else None
        self._jobs = 0

    def _field(self, part: str, name: str) -> Field:
        """The field of that name, which each set that may give the part must have."""
        sets = [self.sets[0 if part == PAIR[0] else -1]] if part else self.sets
        for shards in sets:
            if field_of(shards, name) is None:
                known = ", ".join([*shards.labels, *shards.schema.ragged, *shards.schema.pieces])
                raise UserError(f"{shards.folder}: has no label `{name}`, only {known}")
        found = field_of(sets[0], name)
        assert found is not None
        return found

    def _names(self, part: str, name: str, each: Field) -> list[str]:
        """What a field is called in the batch: twice where each half of the image has its own."""
        if part:
            return [f"{part}.{name}"]
        if self.view.halves and each.kind in (*MOVED, *PIECES):
            return [f"{half}.{name}" for half in PAIR]
        return [name]

    def training(self, slots: Slots, seed: int) -> DecodeRequest:
        """The job of training slots, with their random augmentation. Raises UserError for a damaged index."""
        sizes = self._sizes(slots)
        parts = [
            views.draw(self.view, seed, slots.positions, member, sizes[:, member, 0], sizes[:, member, 1])
            for member in range(sizes.shape[1])
        ]
        job = self._job(slots, sizes, views.side_by_side(parts, 1 + self.view.halves))
        if self.twins is None:
            return job
        ids, sets = slots.ids.reshape(-1), slots.sets.reshape(-1)
        return replace(job, served=self.twins.serve(ids, sets, job.plan.placed))

    def evaluation(self, rows: range | np.ndarray) -> DecodeRequest:
        """The job of some rows of the first set: nothing random. Raises as `training`."""
        ids = np.asarray(rows, np.int64)
        slots = Slots(ids[:, None], np.zeros((len(ids), 1), np.int8), ids, np.zeros(len(ids), bool))
        sizes = self._sizes(slots)
        return self._job(slots, sizes, views.still(self.view, sizes[:, 0, 0], sizes[:, 0, 1]))

    def read(self, job: DecodeRequest, rows: slice = slice(None), piece: str = "") -> list[bytes]:
        """The stored bytes of some images of a job (all by default), or of a piece of each; b"" where absent.

        Decoders fill in what is damaged, with a warning or none, so the crc32 is compared with the index.
        Raises DecodeError for an image that was changed, UserError for a shard that cannot be read.
        """
        ids = job.slots.ids.reshape(-1)[rows]
        out: list[bytes] = [b""] * len(ids)
        for shards, reader, at in self._parts(job, rows, piece):
            column = shards.pieces[piece]["crc"] if piece else shards.crc
            crcs = np.asarray(column[ids[at]]).tolist()
            for place, data, crc in zip(at.tolist(), reader.read(ids[at], piece), crcs, strict=True):
                if zlib.crc32(data) != crc:
                    raise self.broken(job, range(len(job))[rows][place], "its bytes were changed", piece)
                out[place] = data
        return out

    def hint(self, job: DecodeRequest) -> None:
        """Ask the kernel to load the images of a job, which will be read soon."""
        ids = job.slots.ids.reshape(-1)
        for piece in ("", *self.pieces):
            for _, reader, at in self._parts(job, slice(None), piece):
                reader.hint(ids[at], piece)

    def broken(self, job: DecodeRequest, row: int, reason: str, piece: str = "") -> DecodeError:
        """The error that names image `row` of a job, or its piece."""
        shards = self.sets[int(job.slots.sets.reshape(-1)[row])]
        [(stored, _, _)] = self._parts(job, slice(row, row + 1), piece)
        name = name_of(stored, int(job.slots.ids.reshape(-1)[row]))
        remedy = f"run `rostro check {shards.folder}`"
        if is_copy(shards.folder):
            remedy = f"delete {shards.folder}, the next start copies it again"
        which = f"{piece} of {name}" if piece else name
        return DecodeError(f"{which} does not decode ({reason}): {remedy}")

    def close(self) -> None:
        """Close the files of all sets."""
        for reader in self.readers:
            reader.close()
        if self.twins is not None:
            self.twins.close()

    def _parts(
        self, job: DecodeRequest, rows: slice, piece: str = ""
    ) -> Iterator[tuple[Any, Reader, np.ndarray]]:
        """(set or twin, its reader, which of the images `rows` of a job it holds) of all that hold some."""
        sets = job.slots.sets.reshape(-1)[rows]
        for number, (shards, reader) in enumerate(zip(self.sets, self.readers, strict=True)):
            inside = sets == number
            if piece and piece not in shards.schema.pieces:  # of the other side of a pair
                continue
            if piece or job.served is None or self.twins is None:
                stored = [(shards, reader, inside)]
            else:
                which = job.served.which[:: job.windows][rows]
                stored = [(shards, reader, inside & (which == 0))]
                stored += [(*twin, inside & (which == k)) for k, twin in enumerate(self.twins.of(number), 1)]
            yield from ((each, its, np.flatnonzero(at)) for each, its, at in stored if at.any())

    def _job(self, slots: Slots, sizes: np.ndarray, plan: DecodePlan) -> DecodeRequest:
        labels: dict[str, np.ndarray | Ragged] = {}
        for part, fields in self._fields.items():
            for name, each in fields.items():
                if each.kind not in PIECES:
                    labels |= self._labels(part, name, each, slots, plan.placed)
        pieces = {name: Piece(kind, self._piece_sizes(name, slots)) for name, kind in self.pieces.items()}
        self._jobs += 1
        if self._jobs % _TRIM == 0:
            self._trim()
        return DecodeRequest(slots, labels, sizes.reshape(-1, 2), plan, pieces, self.kinds)

    def _labels(
        self, part: str, name: str, each: Field, slots: Slots, placed: Placed
    ) -> dict[str, np.ndarray | Ragged]:
        """The label of a part as the batch has it, once or for each half."""
        ids, sets = slots.ids, slots.sets
        if part:
            side = PAIR.index(part)
            ids, sets, placed = ids[:, side : side + 1], sets[:, side : side + 1], placed[side::2]
        members, names = ids.shape[1], self._names(part, name, each)
        halves = [placed[half::2] for half in (0, 1)] if len(names) == 2 else [placed]
        if each.ragged:
            lists = gather_ragged(self.sets, name, ids.reshape(-1), sets.reshape(-1))
            rows = [lists.rows] * len(names)
            if each.kind in MOVED:
                values, owners = lists.rows.numpy(), lists.owners
                rows = [torch.from_numpy(carry(each, values, owners, view)) for view in halves]
            return {
                full: Ragged(moved, lists.starts, members) for full, moved in zip(names, rows, strict=True)
            }
        column = gather(lambda number: self.sets[number].labels[name], ids, sets)
        columns = [column]
        if each.kind in MOVED:
            values, owners = column.reshape(-1, *column.shape[2:]), np.arange(ids.size)
            columns = [carry(each, values, owners, view).reshape(column.shape) for view in halves]
        return {
            full: values[:, 0] if members == 1 else values
            for full, values in zip(names, columns, strict=True)
        }

    def _sizes(self, slots: Slots) -> np.ndarray:
        """int32 [n, m, 2]: width, height. Sizes are looked up first, so this verifies the index."""
        for number, shards in enumerate(self.sets):
            shards.verify(slots.ids[slots.sets == number])
        wide = gather(lambda number: self.sets[number].width, slots.ids, slots.sets)
        high = gather(lambda number: self.sets[number].height, slots.ids, slots.sets)
        return np.stack([wide, high], axis=-1).astype(np.int32)

    def _piece_sizes(self, name: str, slots: Slots) -> np.ndarray:
        """int32 [N, 2]: width, height of a piece of each stored image; 0 where there is none."""
        out = np.zeros((slots.ids.size, 2), np.int32)
        ids, sets = slots.ids.reshape(-1), slots.sets.reshape(-1)
        for number, shards in enumerate(self.sets):
            if name in shards.schema.pieces:
                which, parts = np.flatnonzero(sets == number), shards.pieces[name]
                out[which] = np.stack([parts[side][ids[which]] for side in ("width", "height")], axis=1)
        return out

    def _trim(self) -> None:
        """Release mapped pages of the index: else a rank would come to hold all of it during an epoch."""
        for number, shards in enumerate(self.sets):
            columns = [shards.shard, shards.offset, shards.size, shards.width, shards.height, shards.crc]
            for twin, _ in self.twins.of(number) if self.twins else ():
                columns += twin.columns.values()
            columns += [
                *shards.labels.values(),
                *(parts[key] for parts in shards.pieces.values() for key in parts),
            ]
            columns += [part for ragged in shards.ragged.values() for part in (ragged.start, ragged.rows)]
            for column in columns:
                base = column
                while isinstance(base, np.ndarray):
                    base = base.base
                if isinstance(base, mmap.mmap):
                    base.madvise(mmap.MADV_DONTNEED)
