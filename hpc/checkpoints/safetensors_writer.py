"""Writes tensors into a safetensors file and hashes them as it writes: no second reading, no copy.

The format: 8 bytes, the length of a JSON header; the header, name -> type, shape and byte range; the bytes.
Files are read by the safetensors library.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8  # of the first tensor's byte; wider types come first, so that every tensor is aligned


def encode(tensors: dict[str, Tensor]) -> list[bytes | memoryview]:
    """Return the file's content in pieces. Tensors on the CPU are not copied unless they are strided.

    Raises TypeError for a type that the format does not have.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in DTYPES:
            raise TypeError(
                f"tensor {name} is {tensor.dtype}: a checkpoint holds {', '.join(DTYPES.values())}"
            )
        start, end = end, end + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
        if tensor.numel():
            flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            pieces.append(memoryview(flat))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return [len(text).to_bytes(8, "little"), text, *pieces]


def digest(pieces: list[bytes | memoryview]) -> str:
    """Return the sha256 of the pieces, one after the other."""
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return sha256.hexdigest()


def write(
    path: Path,
    pieces: list[bytes | memoryview],
    pool: Executor,
    *,
    after_each: Callable[[int], None] = lambda number: None,
) -> tuple[int, Future[str]]:
    """Write `pieces` durably; return their size and their sha256, which `pool` computes at the same time.

    `after_each`: called with the number of each of them when it is written.
    """
    hashed = pool.submit(digest, pieces)
    try:
        with open(path, "wb") as file:
            for number, piece in enumerate(pieces):
                file.write(piece)
                after_each(number)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        hashed.cancel()
        raise
    return sum(len(piece) for piece in pieces), hashed
