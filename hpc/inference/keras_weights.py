"""Reads the weights of a Keras model, an HDF5 file, as arrays by layer, in the order in which they were made.

Nothing of a file is trusted: its size and that of all arrays are bounded, and what points elsewhere (external
links and storage, virtual data sets) is refused. The file holds numbers alone, so nothing of it is executed.
"""

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.errors import UserError
from data_shards.files import read_bytes

LIMIT = 64 << 20  # bytes of a file, and of all its arrays
DEPTH = 8  # of groups
LAYER = re.compile(r"(?P<kind>[a-z][a-z_0-9]*?)(_(?P<number>\d{1,6}))?")


@dataclass(frozen=True)
class Layer:
    """The arrays of a layer by their names in Keras (kernel, bias, gamma), float32."""

    name: str  # conv2d_12
    kind: str  # conv2d
    number: int  # 12: Keras counts the layers of a kind as they are made
    arrays: dict[str, np.ndarray]

    def take(self, *names: str) -> list[np.ndarray]:
        """Return the arrays of these names, which must be all that there are. Raises UserError."""
        if set(names) != set(self.arrays):
            has = ", ".join(sorted(self.arrays))
            raise UserError(f"layer {self.name} has {has} in the place of {', '.join(sorted(names))}")
        return [self.arrays[name] for name in names]


def read_layers(path: Path | str) -> tuple[bytes, list[Layer]]:
    """Read a file of `save_weights` or `save`: its bytes, and its layers with weights by kind and number.

    Raises UserError for what is not such a file, or holds more than numbers.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: reading HDF5 needs h5py: pip install 'rostro[h5]'") from None
    remedy = "give the weights of a Keras model, as save_weights writes them"
    data = read_bytes(path, limit=LIMIT, remedy=remedy)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            arrays = dict(_arrays(h5py, file))
    except UserError as error:
        raise UserError(f"{path}: {error}: {remedy}") from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is not a readable HDF5 file ({reason}): {remedy}") from None
    if not arrays:
        raise UserError(f"{path} holds no weights: {remedy}")
    return data, _grouped(path, arrays)


def _arrays(h5py: Any, file: Any) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yield ((layer, name of the array), array) for all data sets of a file."""
    left = LIMIT
    for parts, dataset in _walk(h5py, file):
        if parts[0] in ("model_weights", "optimizer_weights"):  # a whole model, as `save` writes it
            if parts[0] == "optimizer_weights":
                continue
            parts = parts[1:]
        if len(parts) < 2:
            raise UserError(f"the array {'/'.join(parts)} belongs to no layer")
        where = "/".join(parts)
        if dataset.external or dataset.is_virtual:
            raise UserError(f"the array {where} is in another file")
        if dataset.dtype.kind != "f" or dataset.ndim > 4:
            raise UserError(f"the array {where} is {dataset.dtype} of {dataset.ndim} dimensions, not weights")
        left -= math.prod(dataset.shape) * dataset.dtype.itemsize
        if left < 0:
            raise UserError(f"its arrays have more than {LIMIT:,} bytes, the array {where} among them")
        array = np.asarray(dataset[()], np.float32)
        if not np.isfinite(array).all():
            raise UserError(f"the array {where} has numbers that are not finite")
        yield (parts[0], parts[-1].partition(":")[0]), array


def _walk(h5py: Any, group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the data sets below a group with their paths; UserError for links that lead out of the file."""
    for name in group:
        path = (*above, str(name))
        if len(path) > DEPTH or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{'/'.join(path)} is a link, or too deep")
        entry = group[name]
        if isinstance(entry, h5py.Group):
            yield from _walk(h5py, entry, path)
        else:
            yield path, entry


def _grouped(path: Path | str, arrays: dict[tuple[str, str], np.ndarray]) -> list[Layer]:
    layers: dict[str, Layer] = {}
    for (name, part), array in arrays.items():
        match = LAYER.fullmatch(name)
        if match is None:
            raise UserError(f"{path}: {name!a} is not a name that Keras gives a layer")
        number = int(match["number"] or 0)
        layers.setdefault(name, Layer(name, match["kind"], number, {})).arrays[part] = array
    return sorted(layers.values(), key=lambda layer: (layer.kind, layer.number))
