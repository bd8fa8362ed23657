"""The files of twins: an image made small by area averaging, as PNG or as JPEG of quality 99, and back."""

import struct

import cv2
import numpy as np
import simplejpeg

QUALITY = 99
_PNG = b"\x89PNG\r\n\x1a\n"


def encode_twin(image: np.ndarray, size: tuple[int, int], *, png: bool) -> bytes:
    """Shrink uint8 [h, w, 3] RGB or [h, w, 1] grey to `size` (width, height) and encode it.

    JPEGs have no chroma subsampling. PNGs are not compressed: they would be a quarter smaller, decode three
    times as slowly, and depend on the version of zlib. Equal pixels give equal bytes.
    """
    small = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    small = small.reshape(size[1], size[0], image.shape[2])
    grey = small.shape[2] == 1
    if not png:
        space, sampling = ("GRAY", "Gray") if grey else ("RGB", "444")
        return simplejpeg.encode_jpeg(np.ascontiguousarray(small), QUALITY, space, sampling, fastdct=False)
    bgr = small if grey else cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    if not done:
        raise RuntimeError(f"OpenCV wrote no PNG of {size[0]}x{size[1]} pixels")
    return data.tobytes()


def is_png(data: bytes) -> bool:
    """Whether these are the bytes of a PNG."""
    return data[:8] == _PNG


def decode_png(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode the PNG of a twin: uint8 [h, w, 3] RGB, grey or not.

    Raises ValueError where the bytes are not a sound PNG of 8 bits and of that `size` (width, height).
    """
    if not is_png(data) or len(data) < 33 or struct.unpack_from(">II", data, 16) != size:
        raise ValueError(f"it is not a PNG of {size[0]}x{size[1]} pixels as the index says")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None or image.shape != (size[1], size[0], 3):
        raise ValueError("it is not a sound PNG of 8 bits")
    return image
