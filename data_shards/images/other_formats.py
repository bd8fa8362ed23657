"""Read images of other formats than JPEG, through Pillow. `normalize.normalise` calls it."""

import io
import warnings

import numpy as np
from PIL import Image

from data_shards.images.pixels import Rejected, by_strips, reason, upright

# Pixels: half of what a JPEG may have, since Pillow and its decoders hold several copies.
LARGEST = 50_000_000
LONGEST = 65_500  # pixels of a side, at most, in a JPEG

# Recognised by the first bytes of a file, whatever its name is.
FORMATS = ("PNG", "PPM", "BMP", "WEBP", "TIFF", "GIF")


def read_other(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Decode a file that is not a JPEG: (uint8 [h, w, 3 or 1] upright, what was done). Raises Rejected."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images, which the next lines measure
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            done = [str(image.format)]
            if image.width * image.height > LARGEST or max(image.size) > LONGEST:
                raise Rejected(f"{image.width} x {image.height} pixels are too many")
            image.load()
            orientation = image.getexif().get(0x0112, 1)
            pixels = _pixels(image, done)
    except Rejected:
        raise
    except Image.UnidentifiedImageError:
        raise Rejected(f"not a picture (JPEG, {', '.join(FORMATS)})") from None
    except Exception as error:  # whatever a decoder does with hostile bytes, a file must not end the packing
        raise Rejected(reason(error)) from None
    if orientation in range(2, 9):
        done.append("EXIF orientation")
        pixels = upright(pixels, orientation)
    return pixels, done


def _pixels(image: Image.Image, done: list[str]) -> np.ndarray:
    """uint8 [h, w, 3 or 1] of an image in any of Pillow's modes; transparent parts show white."""
    if image.mode.startswith("I"):
        done.append("16 bits")
        values = np.asarray(image)
        return by_strips(values.shape, 1, lambda low, high: _eight_bits(values[low:high]))
    if image.mode == "F":
        raise Rejected("floating-point pixels: their range is not stated")
    if image.has_transparency_data:
        done.append("alpha")
    grey = image.mode in ("L", "1") and not image.has_transparency_data

    def strip(low: int, high: int) -> np.ndarray:
        part = image.crop((0, low, image.width, high))
        if part.has_transparency_data:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        return np.asarray(part.convert("L" if grey else "RGB")).reshape(high - low, image.width, -1)

    return by_strips((image.height, image.width), 1 if grey else 3, strip)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise Rejected("more than 16 bits a pixel")
    return ((values * 255 + 32767) // 65535)[..., None]
