"""RandAugment: random changes of each image, as one affine map, one matrix and one table.

Source: Cubuk et al., "RandAugment: practical automated data augmentation", NeurIPS 2020. Of the paper's 14
changes 11 are here: auto-contrast, equalising and sharpness need a histogram or the neighbours of each pixel.
Contrast is about mid-grey, not about the mean of the image. Those drawn are composed by kind and applied in
the order affine, matrix, table, not in that of the draws.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from data_shards.batch import Batch
from data_shards.ops.affine import centred, linear, move
from data_shards.ops.base import Op, change_rows
from data_shards.ops.tone import LEVELS, apply_matrix, apply_table
from data_shards.sampling import colour

# largest strengths, as in the paper's code
_DEGREES, _SHEAR, _SHIFT, _FACTOR, _BITS = 30.0, 0.3, 0.45, 0.9, 4

_GEOMETRY = ("rotate", "shear_x", "shear_y", "shift_x", "shift_y")
_MATRICES = ("brightness", "contrast", "saturation")
_TABLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    # strength [m] in 0..1 -> tables [m, 256]
    "posterize": lambda strength: np.floor(LEVELS / _step(strength)) * _step(strength),
    "solarize": lambda strength: np.where(256 * (1 - strength[:, None]) > LEVELS, LEVELS, 255 - LEVELS),
}
CHANGES = ("identity", *_GEOMETRY, *_MATRICES, *_TABLES)


class RandAugment(Op):
    """`count` changes of each slot out of CHANGES, all of strength `magnitude` (0 to 1), with a random sign.

    Masks, boxes and points follow the geometry. share: of the slots.
    """

    def __init__(self, *, count: int = 2, magnitude: float = 0.3, share: float = 1.0) -> None:
        self.count, self.magnitude, self.share = count, magnitude, share
        self.draws = 1 + 2 * count

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        chosen = noise[:, 0] < self.share
        kinds = np.floor(noise[:, 1::2] * len(CHANGES)).astype(int)
        kinds[~chosen] = 0
        strengths = np.where(noise[:, 2::2] < 0.5, -1, 1) * self.magnitude
        batch = move(batch, _geometry(kinds, strengths, batch.size), _drawn(kinds, _GEOMETRY))
        matrices, tables = _matrices(kinds, strengths), _tables(kinds, strengths)
        recoloured, mapped = _drawn(kinds, _MATRICES), _drawn(kinds, _TABLES)
        images = {**batch.images}
        for name in batch.named("image"):
            image = images[name]
            image = change_rows(image, recoloured, lambda part, rows: apply_matrix(part, matrices[rows]))
            images[name] = change_rows(image, mapped, lambda part, rows: apply_table(part, tables[rows]))
        return replace(batch, images=images)


def _drawn(kinds: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """bool [n]: the slots that drew one of these changes."""
    return np.asarray(np.isin(kinds, [CHANGES.index(name) for name in names]).any(axis=1))


def _geometry(kinds: np.ndarray, strengths: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float64 [n, 2, 3]: the product of the geometric changes of each slot."""
    out = np.tile(np.eye(3), (len(kinds), 1, 1))
    for kind, strength in zip(kinds.T, strengths.T, strict=True):
        amount = {name: np.where(kind == CHANGES.index(name), strength, 0.0) for name in _GEOMETRY}
        maps = linear(
            angle=amount["rotate"] * _DEGREES,
            scale=np.ones(len(kind)),
            shear=np.stack([amount["shear_x"], amount["shear_y"]], axis=1) * _SHEAR,
        )
        shift = np.stack([amount["shift_x"], amount["shift_y"]], axis=1) * _SHIFT
        step = np.tile(np.eye(3), (len(kind), 1, 1))
        step[:, :2] = centred(maps, shift, size)
        out = step @ out
    return out[:, :2]


def _matrices(kinds: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """float32 [n, 3, 4]: the product of the colour maps of each slot, for images in [-1, 1]."""
    out = np.tile(np.eye(4), (len(kinds), 1, 1))
    for kind, strength in zip(kinds.T, strengths.T, strict=True):
        bright, contrast, saturation = (
            1 + np.where(kind == CHANGES.index(name), strength * _FACTOR, 0.0) for name in _MATRICES
        )
        step = np.tile(np.eye(4), (len(kind), 1, 1))
        step[:, :3] = colour.to_unit_range(colour.maps(bright, contrast, saturation, np.zeros(len(kind))))
        out = step @ out
    return out[:, :3].astype(np.float32)


def _tables(kinds: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """float64 [n, 256]: the tables of each slot, one after the other."""
    out = np.tile(LEVELS, (len(kinds), 1))
    for kind, strength in zip(kinds.T, np.abs(strengths.T), strict=True):
        for name, table in _TABLES.items():
            rows = np.flatnonzero(kind == CHANGES.index(name))
            out[rows] = np.take_along_axis(table(strength[rows]), out[rows].astype(int), axis=1)
    return out


def _step(strength: np.ndarray) -> np.ndarray:
    """[m, 1]: width of the grey levels that posterising leaves."""
    return 2.0 ** np.rint(_BITS * strength[:, None])
