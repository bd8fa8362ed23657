"""Draws boxes with captions and landmarks on an image, and a sheet of images with boxes."""

from collections.abc import Sequence

import cv2
import numpy as np

from hpc.plots.canvas import COLOURS

RGB = tuple(tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in COLOURS)
RIGHT, WRONG, MISSED = RGB[3], RGB[6], RGB[1]  # green, vermilion, orange


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    colours: Sequence[tuple[int, ...]],
    captions: Sequence[str] = (),
) -> np.ndarray:
    """Return a copy of `image` uint8 [h, w, 3] (RGB) with boxes [k, 4], x0, y0, x1, y1 in its pixels.

    colours: RGB of each box. captions: text of each, above it or within where there is no room (none = bare).
    """
    drawn = np.ascontiguousarray(image).copy()
    thick = max(1, round(max(image.shape[:2]) / 400))
    scale = max(0.35, max(image.shape[:2]) / 1600)
    for number, box in enumerate(np.rint(boxes[:, :4]).astype(int).tolist()):
        x0, y0, x1, y1 = box
        cv2.rectangle(drawn, (x0, y0), (x1, y1), colours[number], thick)
        if captions and captions[number]:
            _write(drawn, captions[number], (x0, y0), colours[number], scale, thick)
    return drawn


def draw_points(image: np.ndarray, points: np.ndarray) -> None:
    """Draw landmarks [k, p, 2], x, y in its pixels, on `image` uint8 [h, w, 3] itself: a colour for each."""
    radius = max(1, round(max(image.shape[:2]) / 300))
    for marks in np.floor(points).astype(int).tolist():
        for number, (x, y) in enumerate(marks):
            if 0 <= x < image.shape[1] and 0 <= y < image.shape[0]:
                cv2.circle(image, (x, y), radius, RGB[number % len(RGB)], -1)


def _write(
    image: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, ...], scale: float, thick: int
) -> None:
    text = text.encode("ascii", "replace").decode()  # the fonts of OpenCV have no other letters
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    top = corner[1] - height - below - thick
    top = corner[1] + thick if top < 0 else top
    left = max(0, min(corner[0], image.shape[1] - width))
    cv2.rectangle(image, (left, top), (left + width, top + height + below), colour, -1)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(image, text, (left, top + height), font, scale, ink, 1, cv2.LINE_AA)


def fitted(image: np.ndarray, boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the image within a white square of `side` pixels, and its boxes [k, 4] there."""
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cell = np.full((side, side, 3), 255, np.uint8)
    cell[:height, :width] = cv2.resize(image, (width, height), interpolation=way)
    return cell, np.asarray(boxes, np.float64).reshape(-1, 4) * scale
