"""Synthetic faces with known labels: identity, box, parts, landmarks, age, expression, attributes.

For the demo, for tests, and for measurements that real sets do not allow. `draw` is a pure function of
(seed, identity, sample): an identity fixes some 45 continuous traits, a sample draws pose, light, expression,
what is worn, background, blur and noise. The people do not exist; `gender` and `tone` are what the generator
drew, not claims about real people. Read next: `traits.py`, `features.py`, `canvas.py`.
"""

from dataclasses import dataclass

import numpy as np

from data_shards.errors import UserError
from data_shards.faces import features
from data_shards.faces.canvas import FACE_PARTS, PARTS, Canvas, background, expose, occlude
from data_shards.faces.head import Head
from data_shards.faces.traits import (
    ATTRIBUTES,
    EMOTIONS,
    TONES,
    Conditions,
    Draws,
    Traits,
    identity_traits,
    sample_conditions,
)

__all__ = ["ATTRIBUTES", "EMOTIONS", "FACE_PARTS", "FIELDS", "PARTS", "TONES", "Face", "draw"]

MIN_SIZE, MAX_SIZE = 16, 1024
FIELDS = ("age", "gender", "tone", "emotion", *ATTRIBUTES)  # the labels that are single numbers


@dataclass(frozen=True)
class Face:
    """One image and all that is known of it. Pixels: x right, y down, from the outer corner of the image."""

    image: np.ndarray  # uint8 [h, w, 3], RGB
    identity: int
    sample: int
    box: np.ndarray  # float32 [4]: x, y, width, height of the face, hairline to chin; may leave the image
    parts: np.ndarray  # uint8 [h, w]: index into PARTS of what each pixel shows
    landmarks: np.ndarray  # float32 [68, 2], order of iBUG 300-W; hidden ones are where they would be seen
    age: int  # years
    gender: int  # 0 female, 1 male
    tone: int  # group of skin tone, 0 (light) to TONES - 1 (dark)
    emotion: int  # index into EMOTIONS
    attributes: np.ndarray  # uint8 [len(ATTRIBUTES)], 0 or 1
    pose: np.ndarray  # float32 [3]: yaw, pitch, roll in degrees

    @property
    def person(self) -> np.ndarray:
        """bool [h, w]: head, hair, clothes and what is worn."""
        return self.parts > 0

    @property
    def face(self) -> np.ndarray:
        """bool [h, w]: the face without hair, ears and neck."""
        return np.isin(self.parts, FACE_PARTS)

    @property
    def five_points(self) -> np.ndarray:
        """float32 [5, 2] for alignment: eyes, nose tip, mouth corners; left in the image comes first."""
        points = self.landmarks
        eyes = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
        return np.stack([*eyes, points[30], points[48], points[54]])


def draw(identity: int, sample: int, *, seed: int = 0, size: int = 112) -> Face:
    """Draw image number `sample` of `identity`, `size` pixels square.

    Raises UserError for a size outside MIN_SIZE to MAX_SIZE and for negative numbers.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"size={size} is out of range: use {MIN_SIZE} to {MAX_SIZE}")
    traits, now, draws = _drawn(identity, sample, seed)
    canvas = Canvas(background(size, draws))
    head = Head(traits, now, size)
    landmarks = features.paint(canvas, head, traits, now)
    if now.occluder:
        occlude(canvas, head, now.occluder, draws)
    image = expose(canvas.image, canvas.parts, head, now, draws)
    outline = np.concatenate(
        [
            landmarks,
            head.on_face(np.array(((0.0, traits.hairline), (-0.3, traits.hairline), (0.3, traits.hairline)))),
        ]
    )
    low, high = outline.min(axis=0), outline.max(axis=0)
    return Face(
        image=image,
        identity=identity,
        sample=sample,
        box=np.concatenate([low, high - low]).astype(np.float32),
        parts=canvas.parts,
        landmarks=landmarks.astype(np.float32),
        age=now.age,
        gender=int(traits.male),
        tone=traits.tone,
        emotion=now.emotion,
        attributes=_attributes(traits, now),
        pose=np.degrees((now.yaw, now.pitch, now.roll)).astype(np.float32),
    )


def labels(identity: int, sample: int, *, seed: int = 0) -> tuple[int, ...]:
    """The values of FIELDS for an image, without painting it. Raises UserError for negative numbers."""
    traits, now, _ = _drawn(identity, sample, seed)
    return now.age, int(traits.male), traits.tone, now.emotion, *_attributes(traits, now).tolist()


def _drawn(identity: int, sample: int, seed: int) -> tuple[Traits, Conditions, Draws]:
    """What an image shows, and its stream of uniforms, from which the rest of it is drawn."""
    for name, value in (("identity", identity), ("sample", sample), ("seed", seed)):
        if value < 0:
            raise UserError(f"{name}={value} is negative: use 0 or more")
    traits = identity_traits(seed, identity)
    draws = Draws(seed, 1, identity, sample)
    return traits, sample_conditions(traits, draws), draws


def _attributes(traits: Traits, now: Conditions) -> np.ndarray:
    style, beard = traits.style, traits.beard
    red, green, blue = traits.hair
    spread, bright = max(traits.hair) - min(traits.hair), (red + green + blue) / 3
    grey, ginger = spread < 45 and bright > 95, red > 2 * green
    values = {
        "glasses": now.glasses or now.shades,
        "sunglasses": now.shades,
        "hat": now.hat > 0,
        "beard": beard in ("goatee", "full"),
        "moustache": beard in ("moustache", "goatee", "full"),
        "stubble": beard == "stubble",
        "bald": style == "bald",
        "long_hair": style == "long",
        "fringe": traits.fringe,
        "curly_hair": style == "curly",
        "dark_hair": bright < 65 and style != "bald",
        "blond_hair": bright > 110 and not grey and not ginger and style != "bald",
        "red_hair": ginger and style != "bald",
        "grey_hair": grey and style != "bald",
        "makeup": traits.makeup,
        "earrings": traits.earrings,
        "freckles": len(traits.freckles) > 0,
        "smiling": now.expression.smile > 0.35,
        "mouth_open": now.expression.mouth > 0.2,
        "young": now.age < 40,
        "male": traits.male,
        "occluded": now.occluder > 0,
    }
    return np.array([values[name] for name in ATTRIBUTES], np.uint8)
