"""How well do predicted masks cover the true ones? Overlap, pixels and boundaries of a class for each pixel.

Masks are uint8 [h, w]: classes, the background first, or UNKNOWN, which is not judged. Everything is counted
by picture in whole numbers, so sums are the same in any order and at any number of ranks.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from data_shards.images.masks import UNKNOWN
from data_shards.images.placed import Window, place_mask
from hpc.metrics.bootstrap import Measured, mean, share

NEAR = 0.0075  # of the diagonal: how far apart boundaries that match may be (Csurka et al., BMVC 2013)
FOUND, FOUND_NEAR, TRUE, TRUE_NEAR = range(4)  # columns of `boundaries`


def at_own_size(chances: np.ndarray, source: tuple[int, int], window: Window) -> np.ndarray:
    """Return the likeliest classes uint8 [H, W] of a stored image from what a network saw of it.

    chances: float32 [k, h, w], of the target; they are enlarged bilinearly, so that edges are smooth. source:
    width, height of the stored image; window: where it is in the target. UNKNOWN where it was not shown.
    """
    (x, y, wide, high), (width, height), (left, top), flip, _ = window
    shown = chances[:, :, ::-1] if flip else chances
    part = np.ascontiguousarray(shown[:, top : top + height, left : left + width].transpose(1, 2, 0))
    large = cv2.resize(part, (wide, high), interpolation=cv2.INTER_LINEAR)
    out = np.full(source[::-1], UNKNOWN, np.uint8)
    out[y : y + high, x : x + wide] = large.argmax(2)
    return out


def of_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask at the size (width, height) of its picture: nearest pixels, as the decoder takes them."""
    out = np.empty(size[::-1], mask.dtype)
    place_mask(out, mask, size, Window((0, 0, *size), size, (0, 0), False, size[::-1]))
    return out


def pixel_counts(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Return known pixels by true and predicted class, int64 [k, k]."""
    known = (truth != UNKNOWN) & (found != UNKNOWN)
    joint = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(joint, minlength=classes**2).reshape(classes, classes)


def boundaries(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Return int64 [k - 1, 4]: boundary pixels of each class but the background.

    Those of the prediction, those of them near a true one, the true ones, those of them near a predicted one.
    A boundary pixel has a known neighbour of another class; near is NEAR of the picture's diagonal, at least
    a pixel.
    """
    known = (truth != UNKNOWN) & (found != UNKNOWN)
    reach = max(1.0, NEAR * float(np.hypot(*truth.shape)))
    out = np.zeros((classes - 1, 4), np.int64)
    for number in range(1, classes):
        mine, true = (_boundary((each == number) & known, known) for each in (found, truth))
        out[number - 1] = (mine.sum(), _near(mine, true, reach), true.sum(), _near(true, mine, reach))
    return out


def _boundary(inside: np.ndarray, known: np.ndarray) -> np.ndarray:
    outside = (known & ~inside).astype(np.uint8)
    return inside & (cv2.dilate(outside, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0)


def _near(one: np.ndarray, other: np.ndarray, reach: float) -> int:
    if not other.any():
        return 0
    far = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int((far[one] <= reach).sum())


def overlaps(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU and Dice of the classes from counts [..., k, k]: [..., k], NaN where neither has a pixel."""
    counts = np.asarray(counts, np.float64)
    both = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(-1) + counts.sum(-2)
    return share(both, total - both), share(2 * both, total)


def boundary_f(edges: np.ndarray) -> np.ndarray:
    """Return the F measure of boundaries from counts [..., 4]: [...], NaN where neither has a boundary."""
    edges = np.asarray(edges, np.float64)
    right = np.nan_to_num(share(edges[..., FOUND_NEAR], edges[..., FOUND]))
    recalled = np.nan_to_num(share(edges[..., TRUE_NEAR], edges[..., TRUE]))
    found = share(2 * right * recalled, right + recalled)
    none = (edges[..., FOUND] == 0) & (edges[..., TRUE] == 0)
    return np.where(none, np.nan, np.nan_to_num(found))


@dataclass(frozen=True)
class SegmentFigures:
    """Figures of pictures with `counts` [n, k, k] and `edges` [n, k - 1, 4], as `bootstrap` resamples them.

    Pooled, from the pixels of all pictures: `iou`, `dice` (means over the classes but the background) and
    `accuracy`. By picture, means over the pictures that show a class: `iou_picture`, `dice_picture`,
    `boundary_f`. Pictures whose mask is empty are not in these; `empty_right` is the share of them in which
    nothing was found.
    """

    counts: np.ndarray
    edges: np.ndarray

    @property
    def empty(self) -> np.ndarray:
        """bool [n]: pictures with known pixels, all of the background."""
        return (self.counts[:, 1:].sum((1, 2)) == 0) & (self.counts.sum((1, 2)) > 0)

    def by_picture(self) -> dict[str, np.ndarray]:
        """Return the figures of each picture [n]: means over the classes of its mask, NaN for none."""
        iou, dice = overlaps(self.counts)
        shown = self.counts[:, 1:].sum(2) > 0
        parts = {"iou": iou[:, 1:], "dice": dice[:, 1:], "boundary_f": boundary_f(self.edges)}
        # A class that fills a picture has no boundary in it.
        judged = {name: shown & ~np.isnan(part) for name, part in parts.items()}
        return {
            name: share(np.where(judged[name], part, 0).sum(1), judged[name].sum(1))
            for name, part in parts.items()
        }

    def nothing_found(self) -> np.ndarray:
        """bool [n]: pictures of which every pixel is predicted as background."""
        return self.counts[:, :, 1:].sum((1, 2)) == 0

    def __call__(self, rows: np.ndarray, weight: np.ndarray) -> dict[str, Measured]:
        count, classes = len(self.counts), self.counts.shape[1]
        pixels = self.counts.reshape(count, -1)[rows].astype(np.float64)
        pooled = np.einsum("np,nr->rp", pixels, weight, dtype=np.float64).reshape(-1, classes, classes)
        iou, dice = overlaps(pooled)
        total = pooled.sum((1, 2))
        right = np.trace(pooled, axis1=1, axis2=2)
        found = {
            "iou": Measured(_over_classes(iou)[None], total[None]),
            "dice": Measured(_over_classes(dice)[None], total[None]),
            "accuracy": Measured(share(right, total)[None], total[None]),
        }
        each = self.by_picture()
        for name, key in (("iou_picture", "iou"), ("dice_picture", "dice"), ("boundary_f", "boundary_f")):
            known = np.isfinite(each[key][rows])
            found[name] = mean(each[key][rows][known], weight[known])
        empty = self.empty[rows]
        found["empty_right"] = mean(self.nothing_found()[rows][empty], weight[empty])
        return found


def _over_classes(values: np.ndarray) -> np.ndarray:
    """Return the means [r] of values [r, k] over the classes but the first that are defined."""
    known = np.isfinite(values[:, 1:])
    return share(np.where(known, values[:, 1:], 0).sum(1), known.sum(1))
