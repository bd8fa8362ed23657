"""Placed: where images lie in what the decoder made of them, and how labels follow and predictions come back.

Coordinates are pixel edges: the pixel in column 3 covers x from 3 to 4, its centre is 3.5. A box is x0, y0,
x1, y1 with x1 - x0 its width in pixels; the box of a whole image is 0, 0, width, height. The same holds on
both sides.
"""

from dataclasses import dataclass

import numpy as np

from data_shards.images.placed import UNKNOWN, Window, place_mask

UNKNOWN_POINT = -1.0  # both coordinates of a point that nobody marked


@dataclass(frozen=True)
class Placed:
    """For n images: `crop` is cut, resized to `size`, laid at `offset` in the target, then all is flipped.

    Integers throughout, one scale per axis. Raises ValueError where a crop leaves its source or its target.
    """

    source: np.ndarray  # [n, 2] int32: width, height of the stored image in pixels
    crop: np.ndarray  # [n, 4] int32: x, y, width, height in pixels of the stored image
    size: np.ndarray  # [n, 2] int32: width, height of the resized crop
    offset: np.ndarray  # [n, 2] int32: x, y of its upper left corner in the target, before the flip
    flip: np.ndarray  # [n] bool: left and right of the target change places
    target: tuple[int, int]  # height, width of the image that the network sees

    def __post_init__(self) -> None:
        corner, sides = self.crop[:, :2], self.crop[:, 2:]
        inside = (corner >= 0) & (sides >= 1) & (corner + sides <= self.source)
        room = np.array(self.target[::-1])
        held = (self.offset >= 0) & (self.size >= 1) & (self.offset + self.size <= room)
        wrong = np.flatnonzero(~(inside & held).all(axis=1))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"image {row} of {self.source[row]} leaves its bounds: {self.window(row)}")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: slice | np.ndarray) -> "Placed":
        """Some of the images."""
        part = object.__new__(Placed)  # what was checked once is not checked for every part of a batch
        for name in ("source", "crop", "size", "offset", "flip"):
            object.__setattr__(part, name, getattr(self, name)[rows])
        object.__setattr__(part, "target", self.target)
        return part

    def window(self, row: int) -> Window:
        """What a decoder needs to know of one image."""
        crop, size, offset = self.crop[row].tolist(), self.size[row].tolist(), self.offset[row].tolist()
        return Window(tuple(crop), tuple(size), tuple(offset), bool(self.flip[row]), self.target)

    def windows(self) -> list[Window]:
        """What a decoder needs to know of each image."""
        columns = (self.crop.tolist(), self.size.tolist(), self.offset.tolist(), self.flip.tolist())
        return [
            Window(tuple(crop), tuple(size), tuple(offset), flip, self.target)
            for crop, size, offset, flip in zip(*columns, strict=True)
        ]

    def scaled(self, stored: np.ndarray) -> "Placed":
        """The same windows of images of other sizes that show the same; crops are rounded to whole pixels.

        stored: [n, 2] int32, width and height of these images.
        """
        share = stored / self.source
        low = np.rint(self.crop[:, :2] * share).astype(np.int32)
        high = np.rint((self.crop[:, :2] + self.crop[:, 2:]) * share).astype(np.int32)
        low = np.minimum(low, stored - 1)
        crop = np.concatenate([low, np.maximum(high - low, 1)], axis=1).astype(np.int32)
        return Placed(stored, crop, self.size, self.offset, self.flip, self.target)

    def content(self) -> np.ndarray:
        """int32 [n, 4]: the box of the target that shows the image; the rest is padding."""
        left = np.where(self.flip, self.target[1] - self.offset[:, 0] - self.size[:, 0], self.offset[:, 0])
        corner = np.stack([left, self.offset[:, 1]], axis=1)
        return np.concatenate([corner, corner + self.size], axis=1).astype(np.int32)

    def points(
        self, points: np.ndarray, rows: np.ndarray | None = None, *, mirror: np.ndarray | None = None
    ) -> np.ndarray:
        """Carry points of stored images to the target: float64, of the shape given.

        points: [m, 2] or [m, k, 2]. rows: [m], the image of each entry (None: the m-th entry is of image m).
        mirror: [k], the landmark whose name each one takes in a mirror image (left eye, right eye). Points
        may end outside of the target; an unknown one, both coordinates UNKNOWN_POINT, stays as it is.
        """
        points = np.asarray(points, np.float64)
        return self._named(points, self._carry(points, rows), rows, mirror)

    def boxes(self, boxes: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Carry boxes [m, 4] of stored images to the target, not clipped: float64. rows: as of `points`."""
        return _ordered(self._carry(np.asarray(boxes, np.float64).reshape(-1, 2, 2), rows))

    def clip(self, boxes: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Clip boxes [m, 4] of the target to what is shown: (boxes, share [m] of their area that is left).

        A box of which nothing is left has a share of 0; whether it counts is for the caller to say.
        """
        boxes = np.asarray(boxes, np.float64)
        content = self.content() if rows is None else self.content()[rows]
        low, high = np.tile(content[:, :2], 2), np.tile(content[:, 2:], 2)
        clipped = np.clip(boxes, low, high)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        left = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
        return clipped, np.divide(left, area, out=np.zeros(len(boxes)), where=area > 0)

    def mask(self, mask: np.ndarray, row: int) -> np.ndarray:
        """Carry the mask [H, W] of stored image `row` to the target [h, w]: nearest pixels, padding 255.

        The mask covers the whole image and may have another size.
        """
        out = np.empty(self.target, mask.dtype)
        place_mask(out, mask, tuple(self.source[row].tolist()), self.window(row))
        return out

    def undo_points(
        self, points: np.ndarray, rows: np.ndarray | None = None, *, mirror: np.ndarray | None = None
    ) -> np.ndarray:
        """Bring points of the target back to stored images: the inverse of `points`, same arguments."""
        points = np.asarray(points, np.float64)
        return self._named(points, self._uncarry(points, rows), rows, mirror)

    def undo_boxes(self, boxes: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Bring boxes [m, 4] of the target back to stored images, not clipped: the inverse of `boxes`."""
        return _ordered(self._uncarry(np.asarray(boxes, np.float64).reshape(-1, 2, 2), rows))

    def undo_mask(self, mask: np.ndarray, row: int) -> np.ndarray:
        """Bring a mask [h, w] of the target back to stored image `row`: [H, W], 255 where it was not shown.

        Each pixel takes the target pixel that holds its centre.
        """
        (x, y, wide, high), (width, height), (left, top), flip, _ = self.window(row)
        shown = mask[:, ::-1] if flip else mask
        columns = left + (2 * np.arange(wide, dtype=np.int64) + 1) * width // (2 * wide)
        rows = top + (2 * np.arange(high, dtype=np.int64) + 1) * height // (2 * high)
        out = np.full(self.source[row, ::-1], UNKNOWN, mask.dtype)
        out[y : y + high, x : x + wide] = shown[rows[:, None], columns]
        return out

    def _carry(self, points: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        scale, shift, flip = self._affine(rows, points.ndim)
        out = points * scale + shift
        out[..., 0] = np.where(flip, self.target[1] - out[..., 0], out[..., 0])
        return out

    def _uncarry(self, points: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        scale, shift, flip = self._affine(rows, points.ndim)
        out = points.copy()
        out[..., 0] = np.where(flip, self.target[1] - points[..., 0], points[..., 0])
        return (out - shift) / scale

    def _named(
        self, before: np.ndarray, after: np.ndarray, rows: np.ndarray | None, mirror: np.ndarray | None
    ) -> np.ndarray:
        """Points that were carried: unknown ones stay, those of mirror images take each other's names."""
        after = np.where((before == UNKNOWN_POINT).all(axis=-1, keepdims=True), UNKNOWN_POINT, after)
        if mirror is None:
            return after
        flip = self.flip if rows is None else self.flip[rows]
        return np.where(flip[:, None, None], after[:, mirror], after)

    def _affine(self, rows: np.ndarray | None, ndim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(scale, shift, flip) of the images `rows`, shaped to meet points of `ndim` dimensions."""
        scale = self.size / self.crop[:, 2:]
        shift = self.offset - self.crop[:, :2] * scale
        parts = (scale, shift, self.flip) if rows is None else (scale[rows], shift[rows], self.flip[rows])
        middle = (1,) * (ndim - 2)
        scale, shift, flip = parts
        return scale.reshape(-1, *middle, 2), shift.reshape(-1, *middle, 2), flip.reshape(-1, *middle)


def _ordered(corners: np.ndarray) -> np.ndarray:
    """Two opposite corners [m, 2, 2] as boxes [m, 4]: a flip has exchanged left and right."""
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
