"""Mosaic: four images in one, around a random junction (Bochkovskiy et al., "YOLOv4", 2020).

The slots of a unit stand below one another on one canvas, and one warp takes from it what each shows of its
own image and of three partners: one decode a slot, and no image is copied more than once.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ops.base import Op, choose, join, partners, unsuited, upload
from data_shards.ops.geometry import clip_boxes, sample
from data_shards.ragged import Ragged
from data_shards.sampling.placed import UNKNOWN_POINT

_OUTSIDE = -3.0  # a place that grid_sample fills up
_RIGHT, _LOWER = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])  # the four tiles, by rows


class Mosaic(Op):
    """Four images a slot, their contents without padding, in tiles that meet at the junction.

    scale: least and most, of all four, drawn log-uniformly. junction: least and most, a share of each side.
    share: of the slots; the others stay as they are. unit: slots among which partners are found, at least 4.
    own: the four are the slot's own members (`data.members=4`), so that no slots must stay together; of a
    slot that is not chosen the first member stays.
    Masks, boxes and points follow; other ragged labels are joined. Raises UserError for labels of one value
    or one box a slot, which mean nothing for four images, and for pairs of images.
    """

    draws = 8

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.5, 1.0),
        junction: tuple[float, float] = (0.25, 0.75),
        share: float = 1.0,
        unit: int = 8,
        own: bool = False,
    ) -> None:
        if unit < 4 and not own:
            raise ValueError(f"unit={unit} is too small for a mosaic of 4: use 4 or more")
        self.scale, self.junction, self.share = scale, junction, share
        self.unit, self.members = (1, 4) if own else (unit, 1)

    def __call__(self, batch: Batch, noise: np.ndarray) -> Batch:
        self._check(batch)
        chosen = noise[:, 0] < self.share
        first = np.arange(len(noise))[:, None] * self.members  # the image that a slot shows by itself
        if self.members > 1:
            tiled = first + np.arange(4)
        else:
            tiled = np.concatenate([first, partners(noise[:, 1:4], self.unit)], axis=1)
        turn = np.floor(noise[:, 4:5] * 4).astype(int)  # the own image comes into any tile
        tiled = np.take_along_axis(tiled, (np.arange(4) + turn) % 4, axis=1)
        tiles = self._tiles(batch, noise, tiled)
        images, labels = {**batch.images}, {**batch.labels}
        for name in batch.named("image", "mask"):
            each = images[name].flatten(0, -4)
            images[name] = choose(chosen, tiles.paint(each), each[:: self.members])
        table = np.where(chosen[:, None], tiled, np.where(tiled == first, first, -1))
        for name, label in batch.labels.items():
            if isinstance(label, Ragged):
                rows, slot, tile = join(label.flat, table)
                if batch.kinds.get(name) in ("boxes", "points"):
                    rows = Ragged(tiles.move(rows.rows, slot, tile, batch.kinds[name], chosen), rows.starts)
                labels[name] = rows
        return replace(batch, images=images, labels=labels, placed=None)

    def _check(self, batch: Batch) -> None:
        if batch.placed is not None and len(batch.placed) != len(batch) * self.members:
            raise UserError("mosaic has no meaning for pairs of images: leave it out")
        for name in batch.named("class", "value", "bits", "boxes", "points"):
            if isinstance(batch.labels[name], Tensor):
                raise unsuited(batch, "mosaic", name, instead="leave it out, or the mosaic")

    def _tiles(self, batch: Batch, noise: np.ndarray, members: np.ndarray) -> "_Tiles":
        height, width = batch.size
        low, high = np.log(self.scale)
        share = self.junction[0] + (self.junction[1] - self.junction[0]) * noise[:, 6:8]
        whole = np.tile(np.array([0, 0, width, height]), (len(noise) * self.members, 1))
        content = whole if batch.placed is None else batch.placed.content()
        return _Tiles(
            members,
            max(self.unit, self.members),
            content[members].astype(np.float64),
            np.exp(low + (high - low) * noise[:, 5]),
            np.rint(share * [width, height]),
            batch.size,
        )


class _Tiles:
    """Where the four tiles of each slot lie, and what becomes of pixels, boxes and points in them."""

    def __init__(
        self,
        members: np.ndarray,
        group: int,
        content: np.ndarray,
        scale: np.ndarray,
        junction: np.ndarray,
        size: tuple[int, int],
    ) -> None:
        """members: [n, 4] images, each of the slot's aligned `group` of images.

        content: [n, 4, 4], boxes without padding. junction: [n, 2], in pixels.
        """
        self.members, self.group, self.content = members, group, content
        self.scale, self.size, self.junction = scale, size, junction
        # the corner of a content that stands at the junction: the right one of a left tile, and so on
        x = np.where(_RIGHT == 1, content[:, :, 0], content[:, :, 2])
        y = np.where(_LOWER == 1, content[:, :, 1], content[:, :, 3])
        self.shift = junction[:, None] - np.stack([x, y], axis=2) * scale[:, None, None]  # [n, 4, 2]
        low = np.stack([_RIGHT, _LOWER], axis=1) * junction[:, None]
        room = np.array([size[1], size[0]])
        high = np.where(np.stack([_RIGHT, _LOWER], axis=1) == 1, room, junction[:, None])
        shown = content.reshape(-1, 4, 2, 2) * scale[:, None, None, None] + self.shift[:, :, None]
        # [n, 4, 4]: the box of the output that shows each content
        self.shown = np.concatenate(
            [np.maximum(low, shown[:, :, 0]), np.minimum(high, shown[:, :, 1])], axis=2
        )

    def paint(self, images: Tensor) -> Tensor:
        """The mosaics [n, c, h, w] of images [k, c, h, w]."""
        channels, (height, width) = images.shape[1], self.size
        grid = self._grid(images.device)
        canvas = images.reshape(-1, self.group, channels, height, width).transpose(1, 2)
        canvas = canvas.reshape(-1, channels, self.group * height, width)
        # the slots that share a canvas are sampled below one another too
        painted = sample(canvas, grid.reshape(len(canvas), -1, width, 2))
        return painted.reshape(len(canvas), channels, -1, height, width).transpose(1, 2).flatten(0, 1)

    def move(self, rows: Tensor, slot: np.ndarray, tile: np.ndarray, kind: str, chosen: np.ndarray) -> Tensor:
        """Rows [m, ...] that came to these tiles, moved; those of slots not chosen (bool [n]) stay."""
        moved = (
            self.boxes(rows, slot, tile) if kind == "boxes" else self.points(rows, slot, tile, known=False)
        )
        still = upload(~chosen[slot], rows.device, torch.bool)
        return torch.where(still.reshape(-1, *(1,) * (rows.dim() - 1)), rows, moved)

    def boxes(self, boxes: Tensor, slot: np.ndarray, tile: np.ndarray) -> Tensor:
        """Boxes [m, 4] of the images in these tiles, moved and clipped; GONE where not visible."""
        moved = self.points(boxes.reshape(-1, 2, 2), slot, tile, known=True).reshape(-1, 4)
        return clip_boxes(moved, self.shown[slot, tile], absent=boxes)

    def points(self, points: Tensor, slot: np.ndarray, tile: np.ndarray, *, known: bool) -> Tensor:
        """Points [m, 2] or [m, k, 2] moved; known=False: those that their tile hides become unknown."""
        flat = points.reshape(len(points), -1, 2)
        scale = upload(self.scale[slot], points.device)[:, None, None]
        moved = flat * scale + upload(self.shift[slot, tile], points.device)[:, None]
        if not known:
            shown = upload(self.shown[slot, tile], points.device)[:, None]
            inside = ((moved >= shown[..., :2]) & (moved <= shown[..., 2:])).all(dim=-1, keepdim=True)
            inside &= (flat != UNKNOWN_POINT).any(dim=-1, keepdim=True)
            moved = torch.where(inside, moved, torch.full_like(moved, UNKNOWN_POINT))
        return moved.reshape(points.shape)

    def _grid(self, device: torch.device) -> Tensor:
        """[n, h, w, 2]: where each output pixel is on the canvas, in the coordinates of grid_sample.

        Along x it depends on the column and on which row of tiles it is, along y the other way round: both
        are made on the host, [n, 2, w] and [n, 2, h], and spread out on the device.
        """
        height, width = self.size
        across = self._axis(0, [[0, 1], [2, 3]])
        down = self._axis(1, [[0, 2], [1, 3]])
        lower = np.arange(height) >= self.junction[:, 1:]
        right = np.arange(width) >= self.junction[:, :1]
        below = upload(lower, device, torch.bool)[:, :, None]
        beside = upload(right, device, torch.bool)[:, None, :]
        x, y = upload(across, device), upload(down, device)
        columns = torch.where(below, x[:, 1, None, :], x[:, 0, None, :])
        rows = torch.where(beside, y[:, 1, :, None], y[:, 0, :, None])
        return torch.stack([columns, rows], dim=3)

    def _axis(self, axis: int, tiles: list[list[int]]) -> np.ndarray:
        """[n, 2, side]: canvas coordinates along an axis, in each of the two rows (or columns) of tiles.

        tiles[k]: the near and the far tile along the axis, in row (or column) k.
        """
        side = self.size[1 - axis]
        canvas = side * self.group if axis else side
        above = self.members % self.group if axis else np.zeros_like(self.members)  # images on the canvas
        centres = np.arange(side) + 0.5
        is_far = centres > self.junction[:, axis : axis + 1]
        out = np.empty((len(self.members), 2, side))
        for k, (near_tile, far_tile) in enumerate(tiles):
            tile = np.where(is_far, far_tile, near_tile)  # [n, side]
            rows = np.arange(len(tile))[:, None]
            source = (centres - self.shift[rows, tile, axis]) / self.scale[:, None]
            low, high = self.content[rows, tile, axis], self.content[rows, tile, axis + 2]
            # no bilinear weight reaches beyond the content
            place = np.clip(source, low + 0.5, high - 0.5) + side * above[rows, tile]
            out[:, k] = np.where((source >= low) & (source <= high), 2 * place / canvas - 1, _OUTSIDE)
        return out
