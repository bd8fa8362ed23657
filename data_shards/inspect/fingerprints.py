"""What an audit measures of every image: a perceptual hash, sharpness, and the spread of its greys.

The hash is pHash as the library ImageHash computes it: the signs, around their median, of the lowest 16 x 16
coefficients of a cosine transform of the image squeezed to 64 x 64 greys. 256 bits, not the usual 64: aligned
faces share their coarse shape, and 64 bits do not tell them apart. Read next: `duplicates.py`.
"""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from data_shards.loading.reader import Reader
from data_shards.shard_format.manifest import read_manifest
from data_shards.shard_format.shard_set import ShardSet
from data_shards.workers import run_jobs

COEFFICIENTS = 16  # of each axis: the hash has their square as bits
WORDS = COEFFICIENTS**2 // 64
SIDE = 4 * COEFFICIENTS  # pixels of the square that is hashed
SHARP_SIDE = 96  # pixels of the shorter side at which sharpness is measured
PART = 1024  # images that a worker takes at a time
_CHUNK = 64  # images that are read at a time

Progress = Callable[[int, int], None]  # called with (images done, images in total)


class Fingerprints:
    """Measures of the images of one set, or of a part of it, a row a sample."""

    def __init__(self, count: int) -> None:
        self.hashes = np.zeros((count, WORDS), "u8")
        self.sharpness = np.zeros(count, "f4")  # variance of the Laplacian of greys 0..255
        self.spread = np.zeros(count, "f4")  # standard deviation of greys 0..255
        self.damaged: dict[int, str] = {}  # row: why it could not be decoded; its other measures are 0


def fingerprint_sets(
    sets: Sequence[ShardSet], *, workers: int, progress: Progress | None = None
) -> list[Fingerprints]:
    """Measure every image of the sets, in worker processes; the result does not depend on their number.

    Memory: 40 bytes an image.
    """
    jobs = [
        (shards.folder, low, min(low + PART, len(shards)))
        for shards in sets
        for low in range(0, len(shards), PART)
    ]
    places = {shards.folder: number for number, shards in enumerate(sets)}
    found = [Fingerprints(len(shards)) for shards in sets]
    done, total = 0, sum(map(len, sets))
    for number, part in run_jobs(measure_part, jobs, workers=workers):
        folder, low, high = jobs[number]
        whole = found[places[folder]]
        for name in ("hashes", "sharpness", "spread"):
            getattr(whole, name)[low:high] = getattr(part, name)
        whole.damaged |= part.damaged
        done += high - low
        if progress:
            progress(done, total)
    for whole in found:
        whole.damaged = dict(sorted(whole.damaged.items()))
    return found


def measure_part(folder: Path, low: int, high: int) -> Fingerprints:
    """Measure the rows [low, high) of a set; `damaged` has row numbers of the set."""
    cv2.setNumThreads(1)
    shards = ShardSet(folder, *read_manifest(folder))
    reader = Reader(shards)
    part = Fingerprints(high - low)
    try:
        for start in range(low, high, _CHUNK):
            ids = np.arange(start, min(start + _CHUNK, high))
            for row, jpeg in zip(ids.tolist(), reader.read(ids), strict=True):
                try:
                    if zlib.crc32(jpeg) != int(shards.crc[row]):
                        raise ValueError("its bytes were changed (crc32 differs)")
                    grey = _grey(jpeg, int(shards.width[row]), int(shards.height[row]))
                except ValueError as error:
                    part.damaged[row] = " ".join(str(error).split())
                    continue
                part.hashes[row - low] = perceptual_hash(grey)
                part.sharpness[row - low], part.spread[row - low] = sharpness(grey), grey.std()
    finally:
        reader.close()
    return part


def _grey(jpeg: bytes, width: int, height: int) -> np.ndarray:
    """Decode to greys uint8 [h, w], at 1/2, 1/4 or 1/8 of the size where twice SHARP_SIDE is left."""
    shorter = min(width, height)
    factor = next((each for each in (8, 4, 2) if shorter >= 2 * each * SHARP_SIDE), 1)
    small = {"min_width": width // factor, "min_height": height // factor, "min_factor": factor}
    words = small if factor > 1 else {}
    return simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=False, fastupsample=False, **words)[..., 0]


def squeezed(grey: np.ndarray) -> np.ndarray:
    """The whole image uint8 [h, w] on a square [SIDE, SIDE], whatever its shape."""
    kernel = cv2.INTER_AREA if min(grey.shape) >= SIDE else cv2.INTER_CUBIC
    return cv2.resize(grey, (SIDE, SIDE), interpolation=kernel)


def perceptual_hash(grey: np.ndarray) -> np.ndarray:
    """The pHash of greys uint8 [h, w]: u8 [WORDS]."""
    import imagehash  # scipy: a second that only an audit should wait for
    from PIL import Image

    bits = imagehash.phash(Image.fromarray(squeezed(grey)), hash_size=COEFFICIENTS).hash
    return np.packbits(bits.ravel()).view("u8")


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of uint8 [h, w], its shorter side reduced to SHARP_SIDE if it is larger.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    shorter = min(grey.shape)
    if shorter > SHARP_SIDE:
        size = tuple(max(1, round(side * SHARP_SIDE / shorter)) for side in grey.shape[::-1])
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
