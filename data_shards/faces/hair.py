"""Hair and beard of a procedural face: behind the head, on top of it, over the brow, around the mouth."""

import numpy as np

from data_shards.faces.canvas import DARK, WHITE, Canvas, mix
from data_shards.faces.head import CIRCLE, RUN, Head
from data_shards.faces.traits import Conditions, Traits


def _volume(traits: Traits, now: Conditions) -> float:
    return max(0.03, traits.hair_volume + float(now.hair_shift[1]))


def back_hair(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    """Paint what hangs behind the face: the length of long hair, the cloud of curls, a bun."""
    colour = mix(traits.hair, DARK, 0.3)
    volume = _volume(traits, now)
    if traits.style == "long":
        length = traits.hair_length + now.hair_shift[0]
        y = np.linspace(-0.5, length, 14)
        wave = 0.05 * traits.hair_wave * np.sin(np.linspace(0, 14, 14))
        x = 0.98 * head.half_width(np.minimum(y, 0.0)) + volume * 1.3 + wave
        side = np.stack([x, y, np.full(14, -0.15)], axis=1)
        canvas.fill(head.project(np.concatenate([side, side[::-1] * (-1, 1, 1)])), colour, "hair")
    elif traits.style == "curly":
        for place in head.rings(head.top, 0.25, grow=2.2 * volume, count=4)[::4]:
            outline = place + 0.2 * np.column_stack([CIRCLE[::2], np.zeros(len(CIRCLE[::2]))])
            canvas.fill(head.project(outline), colour, "hair")
    elif traits.style == "bun":
        ball = np.column_stack(
            [0.3 * CIRCLE[:, 0], head.top - 0.16 + 0.26 * CIRCLE[:, 1], np.full(len(CIRCLE), -0.1)]
        )
        canvas.fill(head.project(ball), colour, "hair")


def hair_cap(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    if traits.style == "bald":
        return
    volume = _volume(traits, now) * (2.2 if traits.style == "curly" else 1.0)
    low = {"short": 0.05, "cap": 0.5, "long": 0.4, "curly": 0.2, "bun": 0.0}[traits.style]
    canvas.hull(head.project(head.rings(head.top, low, grow=volume) - (0, 0, 0.08)), traits.hair, "hair")


def front_hair(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    """Paint fringe, parting and the strands beside the face."""
    if traits.style == "bald":
        return
    out = _volume(traits, now) * 0.7
    part = traits.hair_part + now.hair_shift[2]
    line, wide = traits.hairline, head.width_at(traits.hairline) * 1.02
    x = wide * np.linspace(-1, 1, 13)
    if traits.fringe:
        low = line + 0.2 + 0.05 * traits.hair_wave * np.cos(np.arange(13) * 2.6) + 0.06 * np.abs(x)
    else:
        low = line + 0.02 + 0.3 * np.minimum(np.abs(x - part) / wide, 1.2) ** 1.6 * 0.6
    lower = np.clip(low, head.top, traits.eye_y - 0.12)
    top = np.full(13, line - 0.22)
    outline = np.concatenate([np.stack([x, top], axis=1), np.stack([x, lower], axis=1)[::-1]])
    canvas.fill(head.on_face(outline, out), mix(traits.hair, WHITE, 0.06), "hair")
    if traits.style in ("long", "cap"):
        length = traits.hair_length + now.hair_shift[0] if traits.style == "long" else 0.45
        y = np.linspace(line - 0.1, length, 10)
        wave = 0.04 * traits.hair_wave * np.sin(np.linspace(0, 11, 10))
        inner = head.half_width(np.clip(y, line, 0.1)) * 0.9 + wave + 0.05 * np.clip(y, 0, 2)
        for side in (-1, 1):
            if head.facing((side, 0, 0.9)) > 0.3:
                near = np.stack([side * inner, y, np.full(10, 0.12)], axis=1)
                far = near + np.array((side * (0.14 + out), 0, -0.1))
                canvas.fill(head.project(np.concatenate([near, far[::-1]])), traits.hair, "hair")


def beard(canvas: Canvas, head: Head, traits: Traits) -> None:
    """Paint stubble, moustache, goatee or a full beard; the mouth is painted over it."""
    kind = traits.beard
    base = traits.eye_y + traits.nose_length
    level = base + traits.mouth_drop
    colour = mix(traits.hair, DARK, 0.25)
    if kind in ("stubble", "full"):
        y = np.linspace(base + 0.05, head.bottom, 9)
        wide = head.half_width(y) * 0.96
        upper = np.linspace(-1, 1, 9)
        edge = np.stack([wide[0] * upper, level - 0.14 - 0.3 * np.abs(upper) ** 3], axis=1)
        outline = np.concatenate([edge, np.stack([wide, y], axis=1)[2:], np.stack([-wide, y], axis=1)[:1:-1]])
        canvas.blend(head.on_face(outline), colour, 0.32 if kind == "stubble" else 0.92, "beard")
    if kind in ("moustache", "goatee", "full"):
        lip = np.stack(
            [traits.mouth_width * 0.95 * RUN, level - traits.lip_upper - 0.02 + 0.05 * RUN**2], axis=1
        )
        canvas.fill(
            head.on_face(np.concatenate([lip, (lip - (0, 0.11))[::-1] * (0.8, 1)]), 0.06), colour, "beard"
        )
    if kind == "goatee":
        tuft = np.array((0, level + traits.lip_lower + 0.17)) + CIRCLE * (traits.mouth_width * 0.6, 0.14)
        canvas.fill(head.on_face(tuft, 0.05), colour, "beard")
