"""The shape of a procedural head in three dimensions, and the camera that looks at it.

A head is a stack of elliptic rings; features are on its front. Lengths are in half faces: x to the right of
the image, y down, z to the viewer, origin in the middle of the head.
"""

import numpy as np

from data_shards.faces.traits import Conditions, Traits

_RING = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_COS, _SIN = np.cos(_RING), np.sin(_RING)
_ROUND = 1.32  # the front curves to depth 0 at this height

# Outlines that the features are made of: a circle, a line from -1 to 1, an arch over that line.
CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 18)), np.sin(np.linspace(0, 2 * np.pi, 18))], axis=1)
RUN = np.linspace(-1, 1, 9)
BOW = 1 - RUN * RUN


class Head:
    """Shape and camera of one image of one identity."""

    def __init__(self, traits: Traits, conditions: Conditions, size: int) -> None:
        crown, bottom = -traits.crown, 1.0 + traits.chin_drop
        self.top, self.bottom, self.depth = crown, bottom, traits.face_depth
        heights = (1.0, 0.93, 0.72, 0.45, 0.0, -0.35, -0.62, -0.82, -0.95, -1.0)
        self._rows = np.array([bottom * h if h > 0 else -crown * h for h in heights[::-1]])
        chin, jaw = traits.chin, traits.jaw
        lower = (chin * 0.55, chin, (chin + jaw * 1.6) / 2.2, (jaw + traits.cheek) / 2 + 0.06)
        upper = (traits.cheek * 0.5 + 0.5, 1.0, traits.temple, 0.76, 0.46, 0.05)
        self._widths = np.array((lower + upper)[::-1]) * traits.face_width
        self._rotation = _rotation(conditions.yaw, conditions.pitch, conditions.roll)
        self._distance, self._scale = conditions.distance, conditions.scale * size / 2
        self._centre = (1 + np.array(conditions.shift)) * size / 2
        ends = self.project(np.array(((0.0, 0.0, 0.0), (0.0, 1.0, 0.0))))
        self.unit = float(np.linalg.norm(ends[1] - ends[0]))  # pixels of half a face

    def half_width(self, y: np.ndarray) -> np.ndarray:
        return np.interp(y, self._rows, self._widths)

    def width_at(self, y: float) -> float:
        return float(np.interp(y, self._rows, self._widths))

    def lift(self, x: np.ndarray, y: np.ndarray, out: np.ndarray | float = 0.0) -> np.ndarray:
        """Points [n, 3] on the front of the head at (x, y), `out` in front of it."""
        across = x / np.maximum(self.half_width(y), 1e-3)
        points = np.empty((len(y), 3))
        points[:, 0], points[:, 1] = x, y
        front = np.maximum(1 - across * across, 0) * np.maximum(1 - (y / _ROUND) ** 2, 0)
        points[:, 2] = self.depth * np.sqrt(front) + out
        return points

    def rings(self, low: float, high: float, *, grow: float = 0.0, count: int = 16) -> np.ndarray:
        """Points [n, 3] all around the head between two heights, moved outward by `grow`."""
        # The rings are closer together at the ends.
        y = low + (high - low) * 0.5 * (1 - np.cos(np.linspace(0, np.pi, count)))[:, None]
        width = self.half_width(y) + grow
        depth = self.depth * np.sqrt(1 - np.clip(y / _ROUND, -1, 1) ** 2) + grow
        rise = grow * np.clip(-y, 0, 1)
        return np.stack(np.broadcast_arrays(width * _COS, y - rise, depth * _SIN), axis=-1).reshape(-1, 3)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 3] of the head -> pixels [n, 2] of the image."""
        turned = points @ self._rotation
        near = self._distance / (self._distance - turned[:, 2:])
        return self._centre + self._scale * near * turned[:, :2]

    def on_face(self, points: np.ndarray, out: float = 0.0) -> np.ndarray:
        """Pixels [n, 2] of points [n, 2] on the front of the head, `out` in front of it."""
        return self.project(self.lift(points[:, 0], points[:, 1], out))

    def facing(self, normal: tuple[float, float, float]) -> float:
        """How much a direction of the head points at the camera, -1 to 1."""
        return float((np.asarray(normal) @ self._rotation)[2])


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation for row vectors: nod, then turn, then tilt."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    nod = np.array(((1, 0, 0), (0, cp, sp), (0, -sp, cp)))
    turn = np.array(((cy, 0, -sy), (0, 1, 0), (sy, 0, cy)))
    tilt = np.array(((cr, sr, 0), (-sr, cr, 0), (0, 0, 1)))
    return nod @ turn @ tilt
