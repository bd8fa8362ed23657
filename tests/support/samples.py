"""Batches for the tests of ops: images, masks and every kind of label, made from their positions."""

import numpy as np
import torch

from data_shards.batch import Batch
from data_shards.ragged import Ragged
from data_shards.sampling.placed import Placed
from tests.support.small_set import photo

KINDS = {
    "image": "image",
    "mask": "mask",
    "boxes": "boxes",
    "species": "class",
    "eyes": "points",
    "age": "value",
}
DETECTION = ("image", "mask", "boxes", "species", "eyes")  # what a mosaic has a meaning for
CLASSES = ("image", "mask", "boxes", "species", "age")
PLAIN = ("image", "boxes", "species", "age")


def batch_of(
    images: dict, labels: dict, kinds: dict, placed: Placed | None = None, positions: np.ndarray | None = None
) -> Batch:
    """A prepared batch of images and labels that belong to no set."""
    n = len(next(iter(images.values())))
    at = torch.from_numpy(np.arange(n) if positions is None else positions)
    return Batch(images, labels, at[:, None], at, seed=5, kinds=kinds, placed=placed)


def samples(positions: np.ndarray, names: tuple[str, ...], size: tuple[int, int] = (24, 32)) -> Batch:
    """The slots at `positions`; images and masks as `names` says, labels ragged but for `age`."""
    height, width = size
    parts = [_slot(int(position), height, width) for position in positions]
    images = {name: torch.stack([part[name] for part in parts]) for name in ("image", "mask")}
    labels = {name: Ragged.of_lists([part[name] for part in parts]) for name in ("boxes", "species", "eyes")}
    labels["age"] = torch.stack([part["age"] for part in parts])
    return batch_of(
        {name: image for name, image in images.items() if name in names},
        {name: label for name, label in labels.items() if name in names},
        {name: KINDS[name] for name in names},
        _placed(positions, size),
        positions,
    )


def _slot(position: int, height: int, width: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(position)
    image = torch.from_numpy(photo(position, width, height)).permute(2, 0, 1).float() / 127.5 - 1
    count = int(rng.integers(0, 4))
    corner = rng.uniform(0, 0.6, (count, 2)) * [width, height]
    sides = rng.uniform(4, 10, (count, 2))
    boxes = np.concatenate([corner, np.minimum(corner + sides, [width, height])], axis=1)
    return {
        "image": image,
        "mask": torch.from_numpy(rng.integers(0, 6, (1, height, width), dtype=np.uint8)),
        "boxes": torch.from_numpy(boxes).float(),
        "species": torch.from_numpy(rng.integers(0, 9, count)),
        "eyes": torch.from_numpy(rng.uniform(0, height, (count, 2, 2))).float(),
        "age": torch.tensor(float(position)),
    }


def _placed(positions: np.ndarray, size: tuple[int, int]) -> Placed:
    """Letterboxes: each image shows its source with some padding."""
    (height, width), n = size, len(positions)
    margin = np.stack([positions % 3, positions % 4], axis=1).astype(np.int32)
    sides = np.broadcast_to([width, height], (n, 2)) - 2 * margin
    crop = np.concatenate([np.zeros_like(sides), sides], axis=1).astype(np.int32)
    return Placed(sides, crop, sides, margin, positions % 2 == 1, size)


def assert_equal(one: Batch, other: Batch) -> None:
    """The same images and labels, bit for bit."""
    assert one.images.keys() == other.images.keys()
    assert one.labels.keys() == other.labels.keys()
    for name, image in one.images.items():
        assert torch.equal(image, other.images[name]), name
    for name, label in one.labels.items():
        if isinstance(label, Ragged):
            assert np.array_equal(label.starts, other.labels[name].starts), name
            label, there = label.rows, other.labels[name].rows
        else:
            there = other.labels[name]
        assert torch.equal(label, there), name
