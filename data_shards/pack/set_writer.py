"""One set that is being packed: its plan, the results of its shards, then its index and manifest.

`pack.py` decides when the set is committed, `shard_worker.py` writes its shards.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import file_entry, renamed, sync_path
from data_shards.pack.journal import PackJournal
from data_shards.pack.layout import plan_split
from data_shards.pack.request import Request, request_facts
from data_shards.pack.shard_worker import ShardResult
from data_shards.shard_format.columns import BLOCKS, block_digests
from data_shards.shard_format.keys import visible
from data_shards.shard_format.members import extensions
from data_shards.shard_format.people import GROUP, whole_hashes
from data_shards.shard_format.schema import PIECE_COLUMNS, Schema
from data_shards.shard_format.shard_set import COLUMNS, STARTS
from data_shards.sources.base import Sample, Source


class SetWriter:
    """One set that is being packed. `results`: {number: what it contains} of the finished shards."""

    def __init__(
        self,
        source: Source,
        schema: Schema,
        request: Request,
        identities: Mapping[str, list[Sample]],
        journal: PackJournal,
        *,
        name: str,
        unfit: Sequence[Sample] = (),
    ) -> None:
        """identities: the samples of this split, in packing order. unfit: files to report with reasons."""
        self.source, self.request, self.identities, self.journal = source, request, identities, journal
        self.name, self.unfit = name, unfit
        self.schema = schema
        self.plan_again()

    def plan_again(self) -> None:
        """Plan without the files that are known to be bad, and look up which shards are finished."""
        bad = {path for path, _ in self.journal.rejected}
        good = {
            name: [each for each in members if each.path not in bad]
            for name, members in self.identities.items()
        }
        self.plan = plan_split(
            {name: members for name, members in good.items() if members},
            shard_bytes=int(self.request.shard_mb * 1e6),
            size=self.request.size or None,
            extensions=extensions(self.schema),
        )
        self.results: dict[int, ShardResult] = {}
        for number in range(len(self.plan.shards)):
            if (result := self.journal.finished(self.stem(number), number)) is not None:
                self.results[number] = result

    def stem(self, number: int) -> str:
        """The file name of a shard, without suffix."""
        return f"{self.name}-{number:06d}"

    def job(self, number: int) -> tuple[Any, ...]:
        """The arguments of `pack_shard` for a shard."""
        tar, idx = (self.journal.temporary(f"{self.stem(number)}.{end}") for end in ("tar", "idx"))
        verify = self.request.verify == "decode"
        size = self.request.size or None
        return self.source, self.schema, self.plan.shards[number], tar, idx, size, verify

    def accept(self, number: int, result: ShardResult) -> None:
        """Commit a shard that a worker has written."""
        self.journal.commit(self.stem(number), number, result)
        self.results[number] = result

    def drop_empty(self) -> bool:
        """Plan again without the bad files if an identity or a shard came out empty; returns whether one did.

        An identity without images would be a gap that every user of identity numbers had to know of. Raises
        UserError if no file is usable.
        """
        counts = _images_of_people(self.column("labels.identity"), len(self.plan.identities))
        if counts.all() and all(len(result) for result in self.results.values()):
            return False
        bad = [pair for result in self.results.values() for pair in result.rejected]
        if not any(len(result) for result in self.results.values()):
            path, why = map(visible, bad[0])
            self.journal.discard()
            raise UserError(
                f"{self.journal.folder.name}: none of its {len(bad)} files is usable ({path}: {why}, ...); "
                "give src= another folder"
            )
        self.journal.drop(bad)
        self.plan_again()
        return True

    def column(self, name: str) -> np.ndarray:
        """A column of all finished shards, in their order."""
        return np.concatenate([self.results[number].table[name] for number in sorted(self.results)])

    def packed(self) -> list[Sample]:
        """The samples of all finished shards, in their order."""
        samples: list[Sample] = []
        for number in sorted(self.results):
            left_out = {path for path, _ in self.results[number].rejected}
            entries = self.plan.shards[number]
            samples += [entry.sample for entry in entries if entry.sample.path not in left_out]
        return samples

    def groups(self) -> np.ndarray | None:
        """A hash of the group of each sample [n] u8, 0 where it has none (None = no sample has one)."""
        names = [sample.group for sample in self.packed()]
        if not any(names):
            return None
        return np.where([bool(name) for name in names], whole_hashes(names), 0).astype("u8")

    def rejected(self) -> list[tuple[str, str]]:
        """(path, reason) of all files that are not in the set, sorted."""
        by_workers = [pair for result in self.results.values() for pair in result.rejected]
        by_source = [(sample.path, sample.unfit) for sample in self.unfit]
        return sorted([*by_workers, *self.journal.rejected, *by_source])

    def write_index(self) -> dict[str, Any]:
        """Write tables and lists; returns the manifest."""
        folder = self.journal.folder
        (folder / "index").mkdir(exist_ok=True)
        counts = [len(self.results[number]) for number in sorted(self.results)]
        identity = self.column("labels.identity")
        tables = {name: self.column(name).astype(kind) for name, kind in COLUMNS.items() if name != "shard"}
        tables["shard"] = np.repeat(np.arange(len(counts), dtype="u4"), counts)
        tables["identity_start"] = _starts(_images_of_people(identity, len(self.plan.identities)))
        tables["shard_start"] = _starts(np.array(counts))
        for name in self.schema.columns:
            tables[f"labels.{name}"] = self.column(f"labels.{name}")
        for name in self.schema.ragged:
            tables[f"labels.{name}.start"] = _starts(self.column(f"labels.{name}.count"))
            tables[f"labels.{name}.rows"] = self.column(f"labels.{name}.rows")
        for name in self.schema.pieces:
            for part, kind in PIECE_COLUMNS.items():
                tables[f"piece.{name}.{part}"] = self.column(f"piece.{name}.{part}").astype(kind)
        rejected = self.rejected()
        files = {f"index/{name}.npy": table for name, table in sorted(tables.items())}
        for path, table in files.items():
            with renamed(folder / path) as file:
                np.save(file, table, allow_pickle=False)
        with renamed(folder / BLOCKS) as file:
            for name in sorted(set(files) - {f"index/{start}.npy" for start in STARTS}):
                file.writelines(block_digests(folder / name))
        for path, text in (
            ("identities.txt", "".join(f"{visible(name)}\n" for name in self.plan.identities)),
            ("rejected.csv", _csv([("source", "reason"), *rejected])),
        ):
            with renamed(folder / path) as file:
                file.write(text.encode())
        groups = self.groups()
        if groups is not None:
            with renamed(folder / GROUP) as file:
                np.save(file, groups, allow_pickle=False)
        sync_path(folder / "index")
        sync_path(folder)
        stated = [] if groups is None else [GROUP]
        names = [*files, *stated, BLOCKS, "identities.txt", "rejected.csv"]
        return self.manifest(tables, names, num_rejected=len(rejected))

    def manifest(
        self, tables: Mapping[str, np.ndarray], files: list[str], *, num_rejected: int
    ) -> dict[str, Any]:
        """The manifest. tables: all columns by name; files: names of those written beside the shards."""
        journal, numbers = self.journal, sorted(self.results)
        official = sum(entry.sample.split != "" for shard in self.plan.shards for entry in shard)
        converted: Counter[str] = Counter()
        for result in self.results.values():
            converted.update(result.converted)
        mended = Counter(what for sample in self.packed() for what in sample.mended)
        fields: dict[str, Any] = {
            name: field.to_json()
            for name, field in {"identity": self.schema.identity, **self.schema.fields}.items()
        }
        for name in self.schema.ragged:
            fields[name]["rows"] = len(tables[f"labels.{name}.rows"])
        if self.schema.number == 1:
            fields = {
                name: {"dtype": field.dtype, "largest": tables[f"labels.{name}"].max().item()}
                for name, field in self.schema.columns.items()
            }
        return {
            **request_facts(self.source, self.schema, self.request, self.name),
            "split": self.journal.folder.name,
            "source_split": self.journal.folder.name if official else self.request.split,
            **({"official": official} if official else {}),
            "licence": self.source.licence,
            "request": journal.request,
            "samples": len(tables["shard"]),
            "identities": len(self.plan.identities),
            **({} if self.schema.knows_people else {"unknown": int((tables["labels.identity"] < 0).sum())}),
            "fields": fields,
            "picture_bytes": int(tables["size"].sum(dtype=np.int64)),
            "converted": dict(sorted(converted.items())),
            **({"mended": dict(sorted(mended.items()))} if mended else {}),
            "rejected": num_rejected,
            "shards": [
                {
                    "name": f"{self.stem(number)}.tar",
                    "samples": len(self.results[number]),
                    "bytes": self.results[number].num_bytes,
                    "sha256": self.results[number].sha256,
                }
                for number in numbers
            ],
            "files": [
                file_entry(journal.folder / name, name=name)
                for name in [*files, *(f"{self.stem(number)}.idx" for number in numbers)]
            ],
        }


def _images_of_people(identity: np.ndarray, people: int) -> np.ndarray:
    """[people]: the images of each known one."""
    return np.bincount(identity[identity >= 0], minlength=people)


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype("u8")


def _csv(rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([visible(path), visible(why)] for path, why in rows)
    return text.getvalue()
