"""What a procedural face is made of: traits of an identity, conditions that change from image to image.

Both are drawn from counted randomness: equal (seed, identity, sample) give equal values in any process.
`features.py` and `canvas.py` turn the values into pixels; `generator.py` is what other rooms call.
"""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # the order of FER-2013
ATTRIBUTES = (
    "glasses",
    "sunglasses",
    "hat",
    "beard",
    "moustache",
    "stubble",
    "bald",
    "long_hair",
    "fringe",
    "curly_hair",
    "dark_hair",
    "blond_hair",
    "red_hair",
    "grey_hair",
    "makeup",
    "earrings",
    "freckles",
    "smiling",
    "mouth_open",
    "young",
    "male",
    "occluded",
)
TONES = 6  # groups of skin tone, from light (0) to dark (5)
HAIR_STYLES = ("bald", "short", "cap", "long", "curly", "bun")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
FRAMES = ("round", "square", "wide")

_TONE_RGB = np.array(
    [(250, 222, 202), (236, 194, 162), (217, 164, 126), (182, 124, 86), (135, 86, 56), (92, 58, 42)],
    np.float64,
)
_HAIR_RGB = np.array(
    [(26, 20, 20), (52, 34, 26), (92, 58, 36), (148, 100, 54), (210, 172, 106), (150, 62, 30)], np.float64
)
_IRIS_RGB = np.array(
    [(52, 32, 20), (96, 62, 30), (110, 120, 60), (70, 112, 150), (130, 150, 160)], np.float64
)
_GREY = np.array((186, 184, 182), np.float64)
RGB = tuple[float, float, float]


class Draws:
    """A queue of uniforms, drawn in one call for a whole face: single calls would dominate the time."""

    def __init__(self, *entropy: int, count: int = 128) -> None:
        self.generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        self.values = iter(self.generator.random(count).tolist())

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * next(self.values)

    def bell(self, spread: float) -> float:
        """A nearly normal value of standard deviation `spread`, bounded at 3 of them."""
        return spread * 2.0 * (next(self.values) + next(self.values) + next(self.values) - 1.5)

    def flag(self, chance: float) -> bool:
        return next(self.values) < chance

    def choice(self, weights: tuple[float, ...]) -> int:
        """An index drawn in proportion to the weights."""
        point, last = next(self.values) * sum(weights), len(weights) - 1
        for index, weight in enumerate(weights[:-1]):
            point -= weight
            if point < 0:
                return index
        return last


def _span(low: float, high: float) -> Any:
    return field(metadata={"span": (low, high)})


@dataclass(frozen=True)
class Traits:
    """One identity. Lengths are in half faces: x right, y down, z to the viewer; the chin is near y = 1."""

    male: bool
    tone: int
    age: int
    skin: RGB
    hair: RGB
    iris: RGB
    style: str  # of HAIR_STYLES
    fringe: bool
    beard: str  # of BEARDS
    frame: str  # of FRAMES
    glasses: float  # chance to wear them in an image
    makeup: bool
    earrings: bool
    freckles: np.ndarray  # [n, 2] places on the face
    moles: np.ndarray  # [n, 3] places and size
    face_width: float = _span(0.64, 0.84)
    temple: float = _span(0.86, 1.0)
    cheek: float = _span(0.84, 1.0)
    jaw: float = _span(0.52, 0.9)
    chin: float = _span(0.22, 0.52)
    chin_drop: float = _span(-0.08, 0.1)
    crown: float = _span(1.04, 1.26)
    face_depth: float = _span(0.68, 0.88)
    hairline: float = _span(-0.78, -0.46)
    hair_volume: float = _span(0.05, 0.17)
    hair_length: float = _span(0.5, 1.5)
    hair_part: float = _span(-0.5, 0.5)
    hair_wave: float = _span(0.0, 1.0)
    eye_x: float = _span(0.255, 0.365)
    eye_y: float = _span(-0.17, 0.03)
    eye_width: float = _span(0.115, 0.178)
    eye_round: float = _span(0.38, 0.7)
    eye_tilt: float = _span(-0.12, 0.26)
    iris_size: float = _span(0.42, 0.62)
    brow_gap: float = _span(0.11, 0.22)
    brow_thick: float = _span(0.022, 0.07)
    brow_arch: float = _span(0.0, 0.07)
    brow_tilt: float = _span(-0.16, 0.16)
    brow_length: float = _span(0.15, 0.235)
    nose_length: float = _span(0.31, 0.52)
    nose_width: float = _span(0.085, 0.19)
    nose_bridge: float = _span(0.03, 0.075)
    nose_tip: float = _span(0.1, 0.3)
    mouth_drop: float = _span(0.17, 0.31)
    mouth_width: float = _span(0.165, 0.31)
    lip_upper: float = _span(0.02, 0.075)
    lip_lower: float = _span(0.03, 0.1)
    lip_red: float = _span(0.0, 1.0)
    ear_size: float = _span(0.15, 0.28)
    ear_out: float = _span(0.03, 0.16)
    ear_y: float = _span(-0.06, 0.14)
    blush: float = _span(0.0, 1.0)


_SPANS = [(trait.name, *trait.metadata["span"]) for trait in fields(Traits) if trait.metadata]


def _rgb(values: np.ndarray) -> RGB:
    red, green, blue = np.clip(values, 0, 255).tolist()
    return red, green, blue


@lru_cache(maxsize=4096)
def identity_traits(seed: int, identity: int) -> Traits:
    """Draw the traits of one identity, with the shifts that sex and age bring."""
    draws = Draws(seed, 0, identity)
    male, tone = draws.flag(0.5), draws.choice((1,) * TONES)
    age = int(draws.uniform(8, 80))
    spans = {name: draws.uniform(low, high) for name, low, high in _SPANS}
    spans["jaw"] += 0.05 if male else -0.05
    spans["brow_thick"] += 0.012 if male else -0.006
    spans["lip_upper"] *= 1.0 if age < 50 else 0.75
    spans["hairline"] -= 0.05 if age > 55 and male else 0.0
    neighbour = min(max(tone + (1 if draws.flag(0.5) else -1), 0), TONES - 1)
    skin = _TONE_RGB[tone] + (_TONE_RGB[neighbour] - _TONE_RGB[tone]) * draws.uniform(0, 0.49)
    skin = skin + np.array((7.0, -3.0, -5.0)) * draws.uniform(-1, 1)
    hair = _HAIR_RGB[draws.choice((3, 3, 2, 1, 1.5, 1) if tone < 3 else (6, 3, 0.6, 0.1, 0.1, 0.1))]
    grey = min(max((age - 42) / 30 + draws.uniform(-0.4, 0.4), 0), 1)
    hair = (hair + (_GREY - hair) * grey) * draws.uniform(0.82, 1.18)
    iris = _IRIS_RGB[draws.choice((2, 2, 1, 1.5, 1) if tone < 3 else (5, 2, 0.2, 0.1, 0.1))]
    beards = (4, 2, 1.5, 1.5, 2) if male and age > 18 else (1, 0, 0, 0, 0)
    styles = (0.4 + 1.2 * (age > 45), 4, 2.5, 0.6, 1.5, 0.1) if male else (0.05, 1, 1.5, 4, 2, 2)
    style = HAIR_STYLES[draws.choice(styles)]
    spots, moles = int(draws.uniform(12, 30)) if draws.flag(0.25) else 0, draws.choice((3, 2, 1, 1))
    generator = draws.generator
    return Traits(
        male=male,
        tone=tone,
        age=age,
        skin=_rgb(skin),
        hair=_rgb(hair),
        iris=_rgb(iris * draws.uniform(0.85, 1.15)),
        style=style,
        fringe=draws.flag(0.3) and style != "bald",
        beard=BEARDS[draws.choice(beards)],
        frame=FRAMES[draws.choice((1, 1, 1))],
        glasses=0.85 if draws.flag(0.25) else 0.06,
        makeup=not male and age > 14 and draws.flag(0.45),
        earrings=not male and draws.flag(0.35),
        freckles=generator.uniform((-0.45, -0.02), (0.45, 0.4), (spots, 2)),
        moles=generator.uniform((-0.5, -0.3, 0.012), (0.5, 0.85, 0.024), (moles, 3)),
        **spans,
    )


class Expression(NamedTuple):
    """How far the mobile parts are from rest: 0 is rest, except for `eyes`, where it is 1."""

    smile: float = 0.0
    mouth: float = 0.0  # opening
    brows: float = 0.0  # raised
    frown: float = 0.0  # inner ends down; negative: up
    eyes: float = 1.0  # opening
    sneer: float = 0.0  # upper lip and nose wings up


_EXPRESSIONS = (
    Expression(smile=-0.5, mouth=0.1, brows=-0.5, frown=1.0, eyes=0.85),
    Expression(smile=-0.35, mouth=0.2, brows=-0.4, frown=0.5, eyes=0.6, sneer=1.0),
    Expression(smile=-0.25, mouth=0.5, brows=0.9, frown=-0.7, eyes=1.35),
    Expression(smile=1.0, mouth=0.35, brows=0.15, frown=0.0, eyes=0.75),
    Expression(smile=-0.9, mouth=0.0, brows=0.1, frown=-0.9, eyes=0.7),
    Expression(smile=0.0, mouth=1.0, brows=1.2, frown=0.0, eyes=1.4),
    Expression(),
)


@dataclass(frozen=True)
class Conditions:
    """One image of an identity: everything that verification must see through."""

    emotion: int
    expression: Expression
    age: int
    yaw: float
    pitch: float
    roll: float  # radians
    scale: float  # half faces per half image
    shift: tuple[float, float]  # of the face, in half images
    distance: float  # of the camera, in half faces
    gaze: tuple[float, float]
    light: np.ndarray  # [3] unit vector towards the light
    ambient: float
    gain: np.ndarray  # [3] exposure and colour temperature
    gamma: float
    slope: tuple[float, float]  # exposure gradient over the image
    hair_shift: np.ndarray  # [3] change of hair length, volume, parting
    glasses: bool
    shades: bool
    hat: int  # 0 none, 1 beanie, 2 cap
    hat_rgb: RGB
    clothes: RGB
    occluder: int  # 0 none, 1 block, 2 hand-like blob, 3 bar
    blur: float
    noise: float
    grey: bool


def sample_conditions(traits: Traits, draws: Draws) -> Conditions:
    """Draw the conditions of one image from its own stream."""
    emotion = draws.choice((1, 1, 1, 2, 1, 1, 3))
    strength = draws.uniform(0.55, 1.1)
    rest = Expression()
    moved = [
        base + (target - base) * strength for base, target in zip(rest, _EXPRESSIONS[emotion], strict=True)
    ]
    moved = [value + draws.bell(0.07) for value in moved]
    side = draws.uniform(-1.25, 1.25)
    height = draws.uniform(-0.9, 0.45)
    light = np.array((np.sin(side) * np.cos(height), np.sin(height), np.cos(side) * np.cos(height)))
    warmth, tint = draws.bell(0.1), draws.bell(0.035)
    gain = draws.uniform(0.55, 1.25) * np.array((1 + warmth, 1 + tint, 1 - warmth))
    hat = draws.choice((0.88, 0.06, 0.06))
    return Conditions(
        emotion=emotion,
        expression=Expression(*moved),
        age=max(6, traits.age + int(draws.uniform(-2, 3))),
        yaw=draws.bell(0.34),
        pitch=draws.bell(0.15),
        roll=draws.bell(0.13),
        scale=draws.uniform(0.52, 0.7),
        shift=(draws.bell(0.075), draws.bell(0.06) + 0.06),
        distance=draws.uniform(4.0, 9.0),
        gaze=(draws.bell(0.3), draws.bell(0.15)),
        light=light,
        ambient=draws.uniform(0.35, 0.8),
        gain=gain,
        gamma=draws.uniform(0.75, 1.35),
        slope=(draws.bell(0.22), draws.bell(0.18)),
        hair_shift=np.array((draws.bell(0.12), draws.bell(0.02), draws.bell(0.12))),
        glasses=draws.flag(traits.glasses),
        shades=draws.flag(0.04),
        hat=hat,
        hat_rgb=_rgb(np.array([draws.uniform(20, 230) for _ in range(3)])),
        clothes=_rgb(np.array([draws.uniform(15, 240) for _ in range(3)])),
        occluder=draws.choice((0.9, 0.035, 0.035, 0.03)),
        blur=max(0.0, draws.uniform(-0.8, 1.1)),
        noise=draws.uniform(1.0, 9.0),
        grey=draws.flag(0.04),
    )
