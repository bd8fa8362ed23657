"""Fields: what labels a data set has, as its source declares them and a packed set's manifest states them.

A set whose labels are plain numbers has schema 1, which older programs read too; every other has schema 2.
How the labels are stored: `columns.py` (the index) and `members.py` (the tars).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.errors import UserError

KINDS = {  # kind: the dtypes that a field of it may have
    "class": ("i1", "i2", "i4"),
    "value": ("i1", "u1", "i2", "u2", "i4", "f4"),
    "bits": ("i1", "u1"),
    "boxes": ("i4", "f4"),
    "points": ("i4", "f4"),
    "image": ("u1",),
    "mask": ("u1",),
}
PIECES = {"image": "jpg", "mask": "png"}  # kinds that are members of the tar, not labels: {kind: extension}
LAST_AXIS = {"boxes": (4, "x, y, width, height"), "points": (2, "x, y")}  # in pixels of the stored image
# A piece's bytes are at [offset, offset + size) of its shard; all are 0 where a sample does not have it.
PIECE_COLUMNS = {"offset": "u8", "size": "u4", "width": "u2", "height": "u2", "crc": "u4"}
LARGEST_ROW = 1 << 16  # bytes of the labels of one field and sample
PLAIN = ("i4", "f4")  # dtypes of schema 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED = ("cls", "group", "identity", "image", "images", "jpg", "json", "repeat")  # have meanings already
# A field in the JSON of a manifest, see `files.conform`.
SHAPE = {
    "kind": str,
    "dtype": str,
    "shape?": [int],
    "names?": [str],
    "ragged?": bool,
    "rows?": range(1 << 48),  # of a ragged field, in all samples
    "unknown?": (float, None),
    "rows_of?": str,
}


@dataclass(frozen=True)
class Field:
    """One label of every sample: an array of `shape` and `dtype`, or any number of them.

    Or, of kind image or mask, one file of every sample beside its image; a sample may lack it. A mask is a
    PNG of 8-bit grey whose pixels are numbers of classes, or 255 where they are unknown.
    """

    kind: str  # class | value | bits | boxes | points | image | mask
    dtype: str  # of the column in the index, such as i4
    shape: tuple[int, ...] = ()  # of a label, or of one of a ragged field; boxes end in 4, points in 2
    names: tuple[str, ...] = ()  # of the classes, of the bits, of the points, or of a mask's numbers
    ragged: bool = False  # each sample has any number of labels of this shape, such as the boxes in an image
    unknown: float | None = -1  # stands for a value that the source does not state (None = all are stated)
    rows_of: str = ""  # the ragged boxes that its rows belong to, as classes of them do ("" = none)

    def fault(self) -> str:
        """What is wrong with this field, and what to type instead ("" = nothing)."""
        if self.kind not in KINDS:
            return f"kind={self.kind!r:.40}: type one of {', '.join(KINDS)}"
        if self.dtype not in KINDS[self.kind]:
            return f"dtype={self.dtype!r:.40}: a field of kind {self.kind} has {_either(KINDS[self.kind])}"
        if self.kind in PIECES and (self.shape or self.ragged or self.unknown != -1):
            return f"shape, ragged, unknown: a field of kind {self.kind} has none of them; leave them out"
        if len(self.shape) > 3 or not all(type(side) is int and side > 0 for side in self.shape):
            return f"shape={self.shape!r:.40}: type up to three whole numbers above 0"
        if math.prod(self.shape) * np.dtype(self.dtype).itemsize > LARGEST_ROW:
            return f"shape={self.shape!r:.40}: more than {LARGEST_ROW:,} bytes a sample; make it an image"
        if self.kind in LAST_AXIS and self.shape[-1:] != LAST_AXIS[self.kind][:1]:
            length, meaning = LAST_AXIS[self.kind]
            return f"shape={self.shape!r:.40}: {self.kind} end in {length}, which are {meaning}"
        if self.rows_of and not self.ragged:
            return f"rows_of={self.rows_of!r:.40}: only a ragged field has rows; type ragged=True too"
        return self._fault_of_names() or ("" if self.kind in PIECES else self._fault_of_unknown())

    def _fault_of_names(self) -> str:
        if self.kind == "class" and not self.names:
            return "names=(): type the names of the classes, in the order of their numbers"
        if self.kind in ("value", "boxes", "image") and self.names:
            return f"names={self.names!r:.40}: a field of kind {self.kind} has none; leave them out"
        if not all(isinstance(name, str) and name and name.isprintable() for name in self.names):
            return f"names={self.names!r:.40}: type printable text"
        if len(set(self.names)) != len(self.names):
            return f"names={self.names!r:.40}: has a name twice; type each once"
        if self.kind in ("class", "mask"):  # 255 of a mask is no class
            many = len(self.names) > int(np.iinfo(self.dtype).max) + (self.kind == "class")
            return f"names: {len(self.names)} do not fit {self.dtype}; use i4" if many else ""
        count = math.prod({"bits": self.shape[-1:], "points": self.shape[-2:-1]}.get(self.kind, ()))
        if self.names and len(self.names) != count:
            return f"names: {len(self.names)} for {count} {self.kind}; type as many"
        return ""

    def _fault_of_unknown(self) -> str:
        if self.unknown is None:
            return ""
        number = type(self.unknown) in (int, float) and math.isfinite(self.unknown)
        if not number or not _exact(self.unknown, self.dtype):
            return (
                f"unknown={self.unknown!r:.40}: does not fit {self.dtype}; type a number that does, or None"
            )
        if self.kind in ("class", "bits") and 0 <= self.unknown < (
            len(self.names) if self.kind == "class" else 2
        ):
            return f"unknown={self.unknown!r:.40}: stands for a value of its own; type -1 or None"
        return ""

    def misfit(self, values: np.ndarray) -> str:
        """Why float64 `values` of any shape cannot be labels of this field ("" = they can)."""
        known = values if self.unknown is None else values[values != self.unknown]
        if not np.isfinite(known).all():
            return "is not a finite number"
        if self.dtype != "f4":
            low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
            if (known != np.rint(known)).any() or (known < low).any() or (known > high).any():
                return f"is not a whole number of {low} to {high} ({self.dtype})"
        top = {"class": len(self.names) - 1, "bits": 1}.get(self.kind)
        if top is not None and ((known < 0) | (known > top)).any():
            unknown = "" if self.unknown is None else f" or {self.unknown:g} (unknown)"
            return f"is not 0 to {top}{unknown}"
        return ""

    @property
    def is_plain(self) -> bool:
        """Whether schema 1 can state it."""
        return self == Field("value", self.dtype) and self.dtype in PLAIN

    def to_json(self) -> dict[str, Any]:
        """The field in a manifest; what has its default value is left out."""
        entry: dict[str, Any] = {"kind": self.kind, "dtype": self.dtype}
        if self.shape:
            entry["shape"] = list(self.shape)
        if self.names:
            entry["names"] = list(self.names)
        if self.ragged:
            entry["ragged"] = True
        if self.unknown != -1:
            entry["unknown"] = self.unknown
        if self.rows_of:
            entry["rows_of"] = self.rows_of
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Field":
        """The field that an entry of SHAPE states; `fault` says whether it can be."""
        return cls(
            entry["kind"],
            entry["dtype"],
            tuple(entry.get("shape", ())),
            tuple(entry.get("names", ())),
            entry.get("ragged", False),
            entry.get("unknown", -1),
            entry.get("rows_of", ""),
        )


IDENTITY = Field("class", "i4", unknown=None)  # the person; the names are in identities.txt
PERHAPS_IDENTITY = Field("class", "i4")  # of sets with images of people whom their source does not know: -1


@dataclass(frozen=True)
class Schema:
    """The labels of a set: `fields` beside the identity, and the one that the member `cls` states."""

    fields: Mapping[str, Field]
    cls: str | None = "identity"  # a field of kind class, or identity (None = samples have no such member)
    knows_people: bool = True  # whether the person of every sample is known

    @property
    def identity(self) -> Field:
        """The person of each sample."""
        return IDENTITY if self.knows_people else PERHAPS_IDENTITY

    @property
    def number(self) -> int:
        """The version of the manifest: 1 where it can state these labels."""
        plain = self.cls == "identity" and all(each.is_plain for each in self.fields.values())
        return 1 if plain and self.knows_people else 2

    @property
    def labels(self) -> dict[str, Field]:
        """The fields that a source states in `Sample.labels`, in their order."""
        return {name: field for name, field in self.fields.items() if field.kind not in PIECES}

    @property
    def pieces(self) -> dict[str, Field]:
        """The images and masks beside the image of a sample."""
        return {name: field for name, field in self.fields.items() if field.kind in PIECES}

    @property
    def columns(self) -> dict[str, Field]:
        """The labels of fixed size, which are columns with a row a sample; the identity first."""
        fixed = {name: field for name, field in self.labels.items() if not field.ragged}
        return {"identity": self.identity, **fixed}

    @property
    def ragged(self) -> dict[str, Field]:
        """The labels of which a sample has any number."""
        return {name: field for name, field in self.fields.items() if field.ragged}

    @property
    def tables(self) -> list[str]:
        """The names of all tables of labels and pieces in the index."""
        ragged = [f"labels.{name}.{part}" for name in self.ragged for part in ("rows", "start")]
        pieces = [f"piece.{name}.{part}" for name in self.pieces for part in PIECE_COLUMNS]
        return [*(f"labels.{name}" for name in self.columns), *ragged, *pieces]

    def fault(self) -> str:
        """What is wrong with the labels, beginning with the key ("" = nothing)."""
        for name, field in self.fields.items():
            if not _NAME.fullmatch(name) or name in _RESERVED:
                return f"fields: {name!r:.60} is not a name of a label: type small letters, digits and _"
            if fault := field.fault() or self._fault_of_companion(name, field):
                return f"fields.{name}: {fault}"
        if self.cls in (None, "identity"):
            return ""
        named = self.fields.get(str(self.cls))
        if named is None or named.kind != "class" or named.shape or named.ragged:
            classes = {name: each for name, each in self.fields.items() if each.kind == "class"}
            good = [name for name, each in classes.items() if not each.shape and not each.ragged]
            words = _either(["identity", *good])
            return f"cls={self.cls!r:.60}: is not a single class of a sample: type {words}"
        return ""

    def _fault_of_companion(self, name: str, field: Field) -> str:
        if not field.rows_of:
            return ""
        boxes = self.fields.get(field.rows_of)
        good = boxes is not None and boxes.kind == "boxes" and boxes.ragged and not boxes.rows_of
        if good and field.rows_of != name:
            return ""
        lists = [other for other, each in self.fields.items() if each.kind == "boxes" and each.ragged]
        words = _either([other for other in lists if other != name] or ["nothing"])
        return f"rows_of={field.rows_of!r:.40}: is not a ragged field of boxes: type {words}"

    def miscount(self, counts: Mapping[str, np.ndarray]) -> tuple[int, str]:
        """(sample, what is wrong) of the first one whose rows do not go with its boxes; (-1, "") for none.

        counts: {ragged field: [n], its rows of each sample}.
        """
        for name, field in self.ragged.items():
            if field.rows_of:
                wrong = np.flatnonzero(counts[name] != counts[field.rows_of])
                if len(wrong):
                    first = int(wrong[0])
                    rows, boxes = int(counts[name][first]), int(counts[field.rows_of][first])
                    return first, f"{name} has {rows} rows for {boxes} rows of {field.rows_of}"
        return -1, ""

    def to_json(self) -> dict[str, Any]:
        """The entries `schema`, `fields` and `cls` of a request, by which two packs are the same."""
        if self.number == 1:
            return {"schema": 1, "fields": {name: field.dtype for name, field in self.fields.items()}}
        fields = {name: field.to_json() for name, field in self.fields.items()}
        return {"schema": 2, "fields": fields, "cls": self.cls}


def declared_schema(
    fields: Mapping[str, Field | str], cls: str | None, *, knows_people: bool = True
) -> Schema:
    """The schema of a source. `{"age": "i4"}` is short for `{"age": Field("value", "i4")}`.

    Raises UserError, which names the key, its value and what to type instead.
    """
    schema = Schema(
        {name: each if isinstance(each, Field) else Field("value", each) for name, each in fields.items()},
        cls,
        knows_people,
    )
    if fault := schema.fault():
        raise UserError(fault)
    return schema


def _either(words: list[str] | tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _exact(value: float, dtype: str) -> bool:
    """Whether a column of this type can hold the value unchanged."""
    if dtype == "f4":
        return abs(value) < 1e38 and float(np.float32(value)) == value
    return value == int(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
