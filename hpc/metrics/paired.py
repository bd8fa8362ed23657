"""How close is an image to the one that it should be? L1, SSIM, and the overlap of labels. Numpy in float64.

Images are uint8 or float [n, h, w, c] on 0 to 255. For pictures of labels, a colour for each, pixels are read
as the nearest colour of a palette; overlaps come from counts of pixels, which add up over images and ranks.
"""

import numpy as np

WINDOW, SIGMA = 11, 1.5  # pixels of SSIM's Gaussian window, and its standard deviation
_K1, _K2 = 0.01, 0.03
TOP = 255.0


def l1(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of each pair of images, [n], as a share of the range."""
    gap = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))
    return gap.reshape(len(gap), -1).mean(1) / TOP


def ssim(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the structural similarity of each pair of images, [n], at most 1 (Wang et al. 2004).

    Equation 13 there: a Gaussian window of 11 x 11 pixels wholly within the image, K1 = 0.01, K2 = 0.03; the
    mean over windows and channels. ValueError for images of less than 11 pixels a side.
    """
    if min(one.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM looks at windows of {WINDOW} pixels, the images have {one.shape[1:3]}")
    x, y = np.asarray(one, np.float64), np.asarray(other, np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    both = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * TOP) ** 2, (_K2 * TOP) ** 2
    each = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    each /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return each.reshape(len(each), -1).mean(1)


def _blurred(images: np.ndarray) -> np.ndarray:
    """Return the Gaussian means of all whole windows: [n, h, w, c] -> [n, h - 10, w - 10, c]."""
    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    taps /= taps.sum()
    height, width = (side - WINDOW + 1 for side in images.shape[1:3])
    rows = sum(tap * images[:, at : at + height] for at, tap in enumerate(taps))
    return sum(tap * rows[:, :, at : at + width] for at, tap in enumerate(taps))


def nearest_colours(images: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Find each pixel's nearest colour in `palette` [k, 3]: [n, h, w, 3] -> its place, int64 [n, h, w]."""
    pixels = np.asarray(images, np.float64)
    found = np.zeros(pixels.shape[:3], np.int64)
    least = np.full(pixels.shape[:3], np.inf)
    for number, colour in enumerate(np.asarray(palette, np.float64)):
        far = ((pixels - colour) ** 2).sum(3)
        found[far < least] = number
        least = np.minimum(least, far)
    return found


def overlap(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return intersection over union and Dice of each class, [k], from pixels by truth and prediction [k, k].

    NaN for a class that neither has.
    """
    counts = np.asarray(counts, np.float64)
    both = np.diag(counts)
    total = counts.sum(0) + counts.sum(1)
    with np.errstate(invalid="ignore"):
        return both / (total - both), 2 * both / total
