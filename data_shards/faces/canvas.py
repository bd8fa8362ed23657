"""What a procedural face is painted on, and what happens to the image afterwards: light, lens, sensor.

Each polygon is filled twice, anti-aliased at twice the size in the image and with hard edges in the map of
parts, so that the labels cannot drift from the pixels.
"""

import cv2
import numpy as np

from data_shards.faces.head import CIRCLE, Head
from data_shards.faces.traits import RGB, Conditions, Draws

# Names of the values in the map of parts. All but 0 are the person; FACE_PARTS are the face.
PARTS = (
    *("background", "skin", "brow", "eye", "nose", "lip", "mouth", "ear", "neck", "hair", "beard", "glasses"),
    *("hat", "cloth", "earring"),
)
FACE_PARTS = tuple(
    PARTS.index(part) for part in ("skin", "brow", "eye", "nose", "lip", "mouth", "beard", "glasses")
)
_PART = {name: value for value, name in enumerate(PARTS)}
_SHIFT = 4  # fractional bits of cv2's coordinates
DARK: RGB = (28.0, 20.0, 20.0)
WHITE: RGB = (238.0, 234.0, 230.0)


def mix(colour: RGB, other: RGB, share: float) -> RGB:
    """Return `colour` moved towards `other`: share 0 is `colour`, 1 is `other`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(colour, other, strict=True))
    return red, green, blue


class Canvas:
    """The image at twice its size, and the map of parts at its size. Coordinates are pixels at its size."""

    def __init__(self, background: np.ndarray) -> None:
        self.size = background.shape[0]
        self.image = cv2.resize(background, (2 * self.size, 2 * self.size), interpolation=cv2.INTER_LINEAR)
        self.parts = np.zeros((self.size, self.size), np.uint8)

    def fill(self, pixels: np.ndarray, colour: RGB, part: str | None = None) -> None:
        points = np.rint(pixels * (2 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(self.image, [points], colour, cv2.LINE_AA, _SHIFT)
        if part is not None:
            cv2.fillPoly(self.parts, [points >> 1], _PART[part], cv2.LINE_8, _SHIFT)

    def hull(self, pixels: np.ndarray, colour: RGB, part: str | None = None) -> None:
        self.fill(cv2.convexHull(pixels.astype(np.float32))[:, 0], colour, part)

    def line(self, pixels: np.ndarray, colour: RGB, width: float, part: str | None = None) -> None:
        points = np.rint(pixels * (2 << _SHIFT)).astype(np.int32)
        thick = max(1, round(2 * width))
        cv2.polylines(self.image, [points], False, colour, thick, cv2.LINE_AA, _SHIFT)
        if part is not None:
            cv2.polylines(
                self.parts, [points >> 1], False, _PART[part], max(1, round(width)), cv2.LINE_8, _SHIFT
            )

    def blend(self, pixels: np.ndarray, colour: RGB, share: float, part: str | None = None) -> None:
        """Fill a translucent polygon with a soft edge; share: its opacity, 0 to 1."""
        x, y = np.floor(pixels.min(axis=0) * 2).astype(int) - 3
        right, below = np.ceil(pixels.max(axis=0) * 2).astype(int) + 4
        x, y = max(x, 0), max(y, 0)
        area = self.image[y : max(below, y), x : max(right, x)]
        if area.size == 0:
            return
        cover = np.zeros(area.shape[:2], np.uint8)
        points = np.rint((pixels * 2 - (x, y)) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(cover, [points], round(255 * share), cv2.LINE_AA, _SHIFT)
        soft = cv2.blur(cover, (5, 5))[..., None].astype(np.uint16)
        area[:] = ((255 - soft) * area + soft * np.array(colour, np.uint16) + 127) // 255
        if part is not None:
            points = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
            cv2.fillPoly(self.parts, [points], _PART[part], cv2.LINE_8, _SHIFT)


def background(size: int, draws: Draws) -> np.ndarray:
    """uint8 [size, size, 3] of clutter: soft noise, a gradient and a few shapes."""
    generator = draws.generator
    coarse = generator.integers(0, 256, (draws.choice((1, 1, 1)) + 2, 3, 3), np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(draws.choice((1, 1, 2, 2, 1, 1))):
        colour = generator.integers(0, 256, 3).tolist()
        points = generator.integers(
            -size // 4, size + size // 4, (2 + draws.choice((0, 2, 2, 1)), 2), np.int32
        )
        if len(points) == 3 and draws.flag(0.4):
            cv2.circle(
                image, points[0].tolist(), int(size * draws.uniform(0.05, 0.3)), colour, -1, cv2.LINE_AA
            )
        else:
            cv2.fillPoly(image, [cv2.convexHull(points)], colour, cv2.LINE_AA)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    pale = draws.uniform(0.1, 0.9)
    image = cv2.addWeighted(image, 1 - pale, grey, pale, 0)
    return cv2.blur(image, (2 * int(draws.uniform(0, 4)) + 1,) * 2)


def expose(
    image: np.ndarray, parts: np.ndarray, head: Head, conditions: Conditions, draws: Draws
) -> np.ndarray:
    """Add light, exposure, lens blur and sensor noise: uint8 [2 size, 2 size, 3] -> uint8 [size, size, 3]."""
    size = parts.shape[0]
    pixels = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    generator = draws.generator
    ends = head.project(np.array(((0, head.top, 0), (0, head.bottom, 0), (-0.85, 0, 0), (0.85, 0, 0))))
    centre, high = (ends[0] + ends[1]) / 2, np.linalg.norm(ends[1] - ends[0]) / 2 + 2
    wide = high * 0.78
    axis = np.arange(size, dtype=np.float32)
    u, v = (axis[None, :] - centre[0]) / wide, (axis[:, None] - centre[1]) / high
    depth = np.sqrt(np.maximum(0.04, 1 - u * u - v * v))
    lit = u * conditions.light[0] + v * conditions.light[1] + depth * conditions.light[2]
    shade = conditions.ambient + (1.25 - conditions.ambient) * np.maximum(lit, 0)
    person = cv2.blur((parts > 0).astype(np.float32), (5, 5))
    grain = cv2.resize(generator.standard_normal((size // 8, size // 8), np.float32), (size, size))
    streaks = cv2.resize(generator.standard_normal((size // 16, size // 3), np.float32), (size, size))
    hair = (parts == _PART["hair"]) | (parts == _PART["beard"])
    across = 2 * axis / size - 1
    slope = 1 + conditions.slope[0] * across[None, :] + conditions.slope[1] * across[:, None]
    light = (1 + person * (shade - 1) + 0.03 * grain + hair * (0.16 * streaks)) * slope
    exposed = (pixels * light[..., None] * conditions.gain).astype(np.float32)
    if conditions.grey:
        exposed[:] = exposed.mean(axis=2, keepdims=True)
    if conditions.blur > 0.2:
        cv2.GaussianBlur(exposed, (0, 0), conditions.blur * size / 112, dst=exposed)
    level = (255 * (np.arange(256) / 255) ** conditions.gamma).astype(np.float32)
    mapped = cv2.LUT(np.clip(exposed, 0, 255).astype(np.uint8), level)
    noise = generator.standard_normal((size, size), np.float32)[..., None]
    return np.clip(mapped + conditions.noise * noise + 0.5, 0, 255).astype(np.uint8)


def occlude(canvas: Canvas, head: Head, kind: int, draws: Draws) -> None:
    """Paint something in front of the face; in the map of parts it is background."""
    middle = np.array((draws.uniform(-0.6, 0.6), draws.uniform(-0.3, 1.0)))
    angle, width, length = draws.uniform(0, 3.14), draws.uniform(0.15, 0.3), draws.uniform(0.35, 0.6)
    turn = np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
    shape = CIRCLE if kind == 2 else np.array(((-1, -1), (1, -1), (1, 1), (-1, 1)))
    reach = (2.5, 0.09) if kind == 3 else (length, width)
    colour = draws.uniform(10, 240), draws.uniform(10, 240), draws.uniform(10, 240)
    outline = middle + (shape * reach) @ turn
    canvas.fill(head.project(np.column_stack([outline, np.full(len(outline), 1.0)])), colour, "background")
