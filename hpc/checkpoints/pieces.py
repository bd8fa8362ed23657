"""Sharded tensors in a checkpoint: each rank writes its rows, and any number of ranks reads its own.

Rank r writes `pieces-0000r.safetensors`. A key says what it is and which rows of how many:
`player-net/centres.weight@250:500:1000`, `optim-net/centres.weight/exp_avg@250:500:1000`. A reader takes the
rows that it needs from every file that has some; rows that no file has, or that two have, are an error.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hpc.checkpoints import safetensors_writer
from hpc.distributed.comm import Comm
from hpc.engines.sharded import Rows, rows_of
from hpc.training import fault_injection

FILE = re.compile(r"pieces-\d{5}\.safetensors")
KEY = re.compile(r"((?:player|optim|ema)-[^/]+)/(.+)@(\d{1,18}):(\d{1,18}):(\d{1,18})", re.DOTALL)
BLOCK = 64 << 20  # bytes read at a time
KINDS = {name: dtype for dtype, name in safetensors_writer.DTYPES.items()}


class Piece(NamedTuple):
    """Rows of a tensor, in a file."""

    rows: Rows
    file: str
    key: str


Index = dict[tuple[str, str], list[Piece]]  # (`player-net`, tensor name) -> its pieces in the order of rows


def file_name(rank: int) -> str:
    return f"pieces-{rank:05d}.safetensors"


def key(owner: str, name: str, rows: Rows) -> str:
    """Compose the key of a piece. `owner`: `player-net`, `optim-net` or `ema-net`."""
    return f"{owner}/{name}@{rows.low}:{rows.high}:{rows.of}"


def divided(
    owner: str, tensors: Mapping[str, Tensor], rows: Mapping[str, Rows]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Divide state into whole tensors, and this rank's rows by key; rank 0 writes the former.

    A count of steps of a sharded parameter is a whole tensor.
    """
    whole, own = {}, {}
    for name, tensor in tensors.items():
        parameter = name.rpartition("/")[0] if owner.startswith("optim-") else name
        if parameter in rows and tensor.dim():
            own[key(owner, name, rows[parameter])] = tensor
        else:
            whole[name] = tensor
    return whole, own


def write(
    folder: Path, rank: int, own: dict[str, Tensor], clock: int, pool: Executor
) -> tuple[int, Future[str]]:
    """Write a rank's file durably; return its size and its hash, which may still be in the making."""
    path, parts = folder / file_name(rank), safetensors_writer.encode(own)
    return safetensors_writer.write(
        path,
        parts,
        pool,
        after_each=lambda number: fault_injection.crash_point(f"piece{number}", clock, rank),
    )


def index(keys: Iterable[tuple[str, str]]) -> Index:
    """Order pieces, given as (file, key), by tensor; ValueError where rows are missing or there twice."""
    found: Index = defaultdict(list)
    for file, text in keys:
        match = KEY.fullmatch(text)
        if match is None:
            raise ValueError(f"{file}: the key {text!a} names no rows")
        found[match[1], match[2]].append(Piece(Rows(*map(int, match.groups()[2:])), file, text))
    for (owner, name), pieces in found.items():
        pieces.sort()
        end, of = 0, pieces[0].rows.of
        for piece in pieces:
            low, high, total = piece.rows
            if not low < high <= total or total != of:
                raise ValueError(
                    f"{piece.file}: rows {low} to {high} of {total} of {owner}/{name} do not exist"
                )
            _compare(end, low, f"{owner}/{name}")
            end = high
        _compare(end, of, f"{owner}/{name}")
    return dict(found)


def _compare(end: int, low: int, what: str) -> None:
    if end != low:
        fault = f"{end} to {low} are missing" if end < low else f"{low} to {end} are there twice"
        raise ValueError(f"{what}: rows {fault}")


def files_of(names: Iterable[str]) -> list[str]:
    """Return the names that are files of pieces, by rank."""
    return sorted(name for name in names if FILE.fullmatch(name))


def read_index(folder: Path, names: Iterable[str]) -> Index:
    """Read the keys of all pieces; the tensors are not read. ValueError as from `index`."""
    keys = []
    for name in files_of(names):
        try:
            with safe_open(folder / name, framework="pt") as opened:
                keys += [(name, key) for key in opened.keys()]  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise ValueError(f"{name}: {error}") from None
    return index(keys)


def read(folder: Path, pieces: list[Piece], comm: Comm) -> Tensor:
    """Read this rank's rows of one tensor, from the files that have some of them."""
    own = rows_of(pieces[0].rows.of, comm)
    target: Tensor | None = None
    for piece in pieces:
        with safe_open(folder / piece.file, framework="pt") as opened:
            source = opened.get_slice(piece.key)
            shape, kind = source.get_shape(), KINDS[source.get_dtype()]
            if target is None:
                target = torch.empty((own.high - own.low, *shape[1:]), dtype=kind)
            if shape[0] != piece.rows.high - piece.rows.low:
                raise ValueError(f"{piece.key} has {shape[0]} rows")
            if (kind, *shape[1:]) != (target.dtype, *target.shape[1:]):
                raise ValueError(f"{piece.key} is of type {kind} and shape {shape}, others are not")
            low, high = max(own.low, piece.rows.low), min(own.high, piece.rows.high)
            step = max(1, BLOCK // max(1, target[:1].nbytes))
            for start in range(low, high, step):
                end = min(start + step, high)
                rows = source[start - piece.rows.low : end - piece.rows.low]
                target[start - own.low : end - own.low] = rows
    assert target is not None
    return target
