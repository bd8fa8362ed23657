"""The parts of a procedural face, painted from back to front: hair, ears, skin, eyes, brows, nose, mouth, beard, what is worn.

Every function paints one part on the canvas; those that place landmarks return them as pixels. `paint` calls them in order.
"""

import numpy as np

from data_shards.faces.canvas import DARK, Canvas, mix
from data_shards.faces.head import Head
from data_shards.faces.traits import BEARDS, FRAMES, HAIR_STYLES, RGB, Conditions, Draws, Traits

_ANGLE = np.linspace(0, 2 * np.pi, 18)
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_RUN = np.linspace(-1, 1, 9)
_BOW = 1 - _RUN * _RUN
WHITE: RGB = (238.0, 234.0, 230.0)


def paint(canvas: Canvas, head: Head, traits: Traits, now: Conditions, draws: Draws) -> np.ndarray:
    """Paints the person; returns the 68 landmarks [68, 2] in the order of iBUG 300-W."""
    style = HAIR_STYLES[traits.style]
    size = float(
        np.linalg.norm(
            head.project(np.array(((0.0, 0.0, 0.0), (0.0, 1.0, 0.0))))[1] - head.project(np.zeros((1, 3)))
        )
    )
    back_hair(canvas, head, traits, now, style)
    body(canvas, head, traits, now)
    canvas.hull(head.project(head.rings(head.top, head.bottom)), mix(traits.skin, DARK, 0.06), "skin")
    hair_cap(canvas, head, traits, now, style)
    ears(canvas, head, traits, style, size)
    jaw = face(canvas, head, traits, now, style)
    spots(canvas, head, traits, now, size)
    if BEARDS[traits.beard] != "none":
        beard(canvas, head, traits, now)
    nose = paint_nose(canvas, head, traits, now, size)
    mouth = paint_mouth(canvas, head, traits, now, size)
    eyes = [eye(canvas, head, traits, now, side, size) for side in (-1, 1)]
    brows = [brow(canvas, head, traits, now, side) for side in (-1, 1)]
    wrinkles(canvas, head, traits, now, size)
    front_hair(canvas, head, traits, now, style)
    if now.glasses or now.shades:
        glasses(canvas, head, traits, now, size)
    if now.hat:
        hat(canvas, head, now)
    return np.concatenate([jaw, *brows, nose, *eyes, mouth])


def _volume(traits: Traits, now: Conditions) -> float:
    return max(0.03, traits.hair_volume + float(now.hair_shift[1]))


def back_hair(canvas: Canvas, head: Head, traits: Traits, now: Conditions, style: str) -> None:
    """What hangs behind the face: the length of long hair, the cloud of curls, a bun."""
    colour = mix(traits.hair, DARK, 0.3)
    volume = _volume(traits, now)
    if style == "long":
        length = traits.hair_length + now.hair_shift[0]
        y = np.linspace(-0.5, length, 14)
        wave = 0.05 * traits.hair_wave * np.sin(np.linspace(0, 14, 14))
        x = 0.98 * head.half_width(np.minimum(y, 0.0)) + volume * 1.3 + wave
        side = np.stack([x, y, np.full(14, -0.15)], axis=1)
        canvas.fill(head.project(np.concatenate([side, side[::-1] * (-1, 1, 1)])), colour, "hair")
    elif style == "curly":
        for place in head.rings(head.top, 0.25, grow=2.2 * volume, count=4)[::2]:
            outline = place + 0.2 * np.column_stack([_CIRCLE[::2], np.zeros(len(_CIRCLE[::2]))])
            canvas.fill(head.project(outline), colour, "hair")
    elif style == "bun":
        ball = np.column_stack(
            [0.3 * _CIRCLE[:, 0], head.top - 0.16 + 0.26 * _CIRCLE[:, 1], np.full(18, -0.1)]
        )
        canvas.fill(head.project(ball), colour, "hair")


def body(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    """Shoulders and neck; they follow the head's turn only in part, which is near enough."""
    wide = 1.9 if traits.male else 1.65
    x = np.array((-wide, -wide * 0.92, -0.55, 0.0, 0.55, wide * 0.92, wide))
    y = np.array((3.2, 1.75, 1.42, 1.52, 1.42, 1.75, 3.2))
    shoulders = np.column_stack([x, y, np.full(7, -0.3)])
    neck = traits.face_width * (0.78 if traits.male else 0.64)
    column = np.array(
        (
            (-neck, 0.4, -0.2),
            (neck, 0.4, -0.2),
            (neck * 1.12, 1.55, -0.2),
            (0, 1.75, 0.0),
            (-neck * 1.12, 1.55, -0.2),
        )
    )
    canvas.fill(head.project(shoulders), now.clothes, "cloth")
    canvas.fill(head.project(column), mix(traits.skin, DARK, 0.26), "neck")


def hair_cap(canvas: Canvas, head: Head, traits: Traits, now: Conditions, style: str) -> None:
    if style == "bald":
        return
    volume = _volume(traits, now) * (2.2 if style == "curly" else 1.0)
    low = {"short": 0.05, "cap": 0.5, "long": 0.4, "curly": 0.2, "bun": 0.0}[style]
    canvas.hull(head.project(head.rings(head.top, low, grow=volume) - (0, 0, 0.08)), traits.hair, "hair")


def ears(canvas: Canvas, head: Head, traits: Traits, style: str, size: float) -> None:
    if style == "long" or (style == "cap" and traits.hair_volume > 0.1):
        return
    for side in (-1, 1):
        if head.facing((side, 0, 0.55)) < 0.12:
            continue
        x = side * (head.half_width(traits.ear_y) + traits.ear_out * 0.4)
        outline = np.column_stack(
            [
                x + traits.ear_out * 1.1 * _CIRCLE[:, 0],
                traits.ear_y + traits.ear_size * _CIRCLE[:, 1],
                -0.1 - 0.1 * side * _CIRCLE[:, 0],
            ]
        )
        middle = outline.mean(axis=0)
        canvas.fill(head.project(outline), mix(traits.skin, (190.0, 70.0, 60.0), 0.14), "ear")
        canvas.fill(head.project(middle + 0.55 * (outline - middle)), mix(traits.skin, DARK, 0.3), "ear")
        if traits.earrings:
            drop = middle + (side * 0.02, traits.ear_size * 1.15, 0)
            canvas.fill(head.project(drop[None]) + 0.05 * size * _CIRCLE, (222.0, 196.0, 110.0), "earring")


def face(canvas: Canvas, head: Head, traits: Traits, now: Conditions, style: str) -> np.ndarray:
    """The front of the face below the hairline; returns the 17 landmarks of the jaw."""
    top = head.top * 0.98 if style == "bald" else traits.hairline
    y = np.concatenate([np.linspace(top, 0, 6), np.linspace(0.15, head.bottom, 10)])
    wide = 0.97 * head.half_width(y)
    if style != "bald":
        wide[:4] *= np.linspace(0.8, 1.0, 4)
    left = head.on_face(np.stack([-wide, y], axis=1))
    right = head.on_face(np.stack([wide, y], axis=1))
    centre = head.on_face(np.stack([0 * y, y], axis=1))
    colour = traits.skin if traits.age < 60 else mix(traits.skin, (190.0, 170.0, 150.0), 0.1)
    canvas.hull(np.concatenate([left, right, centre]), colour, "skin")
    red = mix(traits.skin, (214.0, 84.0, 84.0), 0.35 * traits.blush + (0.15 if traits.makeup else 0.0))
    for side in (-1, 1):
        spot = np.array((side * 0.44, traits.eye_y + 0.36)) + _CIRCLE * (0.16, 0.12)
        canvas.blend(head.on_face(spot), red, 0.5)
    edge = head.half_width(levels := np.linspace(traits.eye_y, head.bottom, 9)[:-1])
    chin = head.on_face(np.array(((0.0, head.bottom),)))
    sides = [head.on_face(np.stack([side * edge, levels], axis=1)) for side in (-1, 1)]
    return np.concatenate([sides[0], chin, sides[1][::-1]])


def spots(canvas: Canvas, head: Head, traits: Traits, now: Conditions, size: float) -> None:
    """Freckles and moles, which stay where they are on an identity."""
    brown = mix(traits.skin, (112.0, 62.0, 40.0), 0.5)
    for place in head.on_face(traits.freckles) if len(traits.freckles) else ():
        canvas.fill(place + 0.013 * size * _CIRCLE[::3], brown)
    for x, y, radius in traits.moles:
        canvas.fill(
            head.on_face(np.array(((x, y),))) + radius * 1.4 * size * _CIRCLE[::2],
            mix(traits.skin, DARK, 0.75),
        )


def eye(canvas: Canvas, head: Head, traits: Traits, now: Conditions, side: int, size: float) -> np.ndarray:
    """One eye (side -1: left in the picture); returns its 6 landmarks."""
    wide, opened = traits.eye_width, max(0.06, now.expression.eyes)
    high = wide * traits.eye_round * opened
    middle = np.array((side * traits.eye_x, traits.eye_y))
    slant = -traits.eye_tilt * _RUN * side * wide
    upper = np.stack([wide * _RUN, slant - high * _BOW**0.8], axis=1)
    lower = np.stack([wide * _RUN, slant + 0.55 * high * _BOW**0.8], axis=1)
    socket = middle + np.concatenate([upper * (1.25, 1.9), lower[::-1] * (1.25, 2.2)])
    tired = 0.16 + 0.16 * (traits.age > 50)
    lid: RGB = (96.0, 60.0, 128.0) if traits.makeup and traits.lip_red > 0.5 else DARK
    canvas.blend(head.on_face(socket), mix(traits.skin, lid, 0.55), tired + 0.25 * traits.makeup)
    canvas.fill(head.on_face(middle + np.concatenate([upper, lower[::-1]]), 0.01), WHITE, "eye")
    radius = traits.iris_size * wide
    look = np.array(now.gaze) * (0.6 * wide, 0.3 * wide)
    for part, colour in ((1.0, traits.iris), (0.45, (14.0, 12.0, 12.0))):
        ring = look + part * radius * _CIRCLE - (0, 0.12 * high)
        ring[:, 1] = np.clip(
            ring[:, 1],
            np.interp(ring[:, 0], upper[:, 0], upper[:, 1]),
            np.interp(ring[:, 0], lower[:, 0], lower[:, 1]),
        )
        canvas.fill(head.on_face(middle + ring, 0.015), colour)
    glint = head.on_face(middle[None] + look - (0.25 * radius, 0.35 * radius), 0.02)
    if opened > 0.4:
        canvas.fill(glint + 0.016 * size * _CIRCLE[::3], (250.0, 250.0, 250.0))
    lash = 0.05 if traits.makeup else 0.03
    canvas.line(head.on_face(middle + upper, 0.02), mix(traits.skin, DARK, 0.85), lash * size)
    canvas.line(head.on_face(middle + lower, 0.01), mix(traits.skin, DARK, 0.4), 0.014 * size)
    corners = np.concatenate([upper[[0, 2, 6, 8]], lower[[6, 2]]])
    return head.on_face(middle + corners, 0.01)


def brow(canvas: Canvas, head: Head, traits: Traits, now: Conditions, side: int) -> np.ndarray:
    """One brow; returns its 5 landmarks from left to right."""
    rise = traits.brow_gap + 0.08 * now.expression.brows + traits.eye_width * traits.eye_round * 0.5
    tilt = traits.brow_tilt + 0.42 * now.expression.frown  # positive: the inner end low
    outward = _RUN * side  # -1 at the inner end
    x = side * (traits.eye_x + 0.015) + traits.brow_length * _RUN
    y = traits.eye_y - rise - traits.brow_arch * _BOW - 0.5 * tilt * traits.brow_length * (outward + 0.4)
    thick = traits.brow_thick * (0.35 + 0.65 * (1 - np.clip(outward, 0, 1) ** 2))
    outline = np.concatenate([np.stack([x, y - thick], axis=1), np.stack([x, y + thick * 0.6], axis=1)[::-1]])
    canvas.fill(head.on_face(outline, 0.03), mix(traits.hair, DARK, 0.35), "brow")
    return head.on_face(np.stack([x, y], axis=1)[::2], 0.03)


def paint_nose(canvas: Canvas, head: Head, traits: Traits, now: Conditions, size: float) -> np.ndarray:
    """Returns the 9 landmarks: 4 down the bridge, 5 under the tip."""
    base = traits.eye_y + traits.nose_length - 0.03 * now.expression.sneer
    wide, bridge = traits.nose_width * (1 + 0.15 * now.expression.sneer), traits.nose_bridge
    y = np.linspace(traits.eye_y, base, 5)
    out = np.array((0.03, 0.3, 0.6, 0.9, 1.0)) * traits.nose_tip
    half = np.array((bridge, bridge, bridge * 1.2, wide * 0.75, wide))
    ridge = head.project(head.lift(0 * y, y, out))
    sides = [head.project(head.lift(side * half, y, out * (0.3, 0.25, 0.25, 0.3, 0.2))) for side in (-1, 1)]
    lit = 1 if now.light[0] > 0 else 0
    canvas.blend(np.concatenate([ridge, sides[1 - lit][::-1]]), mix(traits.skin, DARK, 0.45), 0.55, "nose")
    canvas.blend(np.concatenate([ridge, sides[lit][::-1]]), mix(traits.skin, WHITE, 0.25), 0.4, "nose")
    ball = np.column_stack([wide * 0.62 * _CIRCLE[:, 0], base - 0.05 + 0.075 * _CIRCLE[:, 1]])
    canvas.blend(
        head.on_face(ball, traits.nose_tip * 0.95), mix(traits.skin, (220.0, 120.0, 100.0), 0.2), 0.8, "nose"
    )
    wings = np.stack([wide * _RUN, base + 0.035 * _BOW - 0.02 * np.abs(_RUN)], axis=1)
    under = head.project(head.lift(wings[:, 0], wings[:, 1], traits.nose_tip * (0.3 + 0.6 * _BOW)))
    canvas.line(under, mix(traits.skin, DARK, 0.45), 0.02 * size)
    for side in (-1, 1):
        hole = np.array((side * wide * 0.5, base + 0.012)) + _CIRCLE * (wide * 0.24, 0.02)
        canvas.fill(head.on_face(hole, traits.nose_tip * 0.6), mix(traits.skin, DARK, 0.7))
    return np.concatenate([ridge[:4], under[::2]])


def paint_mouth(canvas: Canvas, head: Head, traits: Traits, now: Conditions, size: float) -> np.ndarray:
    """Returns the 20 landmarks: 12 round the lips, 8 round the opening."""
    state = now.expression
    wide = traits.mouth_width * (1 + 0.2 * max(state.smile, 0) - 0.25 * max(state.mouth - 0.6, 0))
    level = traits.eye_y + traits.nose_length + traits.mouth_drop
    opening = 0.13 * max(state.mouth, 0)
    x = wide * _RUN
    curve = level + 0.075 * state.smile * (0.5 - _RUN * _RUN) * 1.2
    inner_top = curve - 0.35 * opening * _BOW - 0.02 * max(state.sneer, 0) * _BOW
    inner_low = curve + opening * _BOW
    cupid = np.array((0, 0.45, 0.85, 1.05, 0.85, 1.05, 0.85, 0.45, 0))
    outer_top = inner_top - traits.lip_upper * cupid
    outer_low = inner_low + traits.lip_lower * _BOW**0.7
    rows = [np.stack([x, y], axis=1) for y in (outer_top, inner_top, inner_low, outer_low)]
    top, teeth_top, teeth_low, low = (head.on_face(row, 0.05 * (1 + i % 2)) for i, row in enumerate(rows))
    red = mix(
        (176.0, 84.0, 80.0), (188.0, 24.0, 52.0), traits.lip_red if traits.makeup else 0.15 * traits.lip_red
    )
    lip = mix(traits.skin, red, 0.85 if traits.makeup else 0.45)
    canvas.fill(np.concatenate([top, low[::-1]]), lip, "lip")
    canvas.fill(np.concatenate([top, teeth_top[::-1]]), mix(lip, DARK, 0.22), "lip")
    if opening > 0.02:
        canvas.fill(np.concatenate([teeth_top, teeth_low[::-1]]), (70.0, 22.0, 26.0), "mouth")
        bite = teeth_top + 0.55 * (teeth_low - teeth_top)
        if state.smile > 0.2 or opening > 0.08:
            canvas.fill(np.concatenate([teeth_top[1:-1], bite[-2:0:-1]]), WHITE, "mouth")
    else:
        canvas.line(teeth_top, mix(lip, DARK, 0.6), 0.018 * size)
    outer = np.concatenate([top[[0, 2, 3, 4, 5, 6, 8]], low[[6, 5, 4, 3, 2]]])
    return np.concatenate([outer, teeth_top[[1, 2, 4, 6, 7]], teeth_low[[6, 4, 2]]])


def beard(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    """Stubble, moustache, goatee or a full beard, painted under the mouth."""
    kind = BEARDS[traits.beard]
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
        wide = traits.mouth_width * 0.95
        lip = np.stack([wide * _RUN, level - traits.lip_upper - 0.02 + 0.05 * _RUN**2], axis=1)
        canvas.fill(
            head.on_face(np.concatenate([lip, (lip - (0, 0.11))[::-1] * (0.8, 1)]), 0.06), colour, "beard"
        )
    if kind == "goatee":
        tuft = np.array((0, level + traits.lip_lower + 0.17)) + _CIRCLE * (traits.mouth_width * 0.6, 0.14)
        canvas.fill(head.on_face(tuft, 0.05), colour, "beard")


def wrinkles(canvas: Canvas, head: Head, traits: Traits, now: Conditions, size: float) -> None:
    """Lines that come with age and with the expression."""
    depth = min(max((traits.age - 35) / 45, 0), 1)
    colour = mix(traits.skin, DARK, 0.32)
    smile = max(now.expression.smile, 0.0)
    if depth + 0.5 * smile > 0.2:
        base = traits.eye_y + traits.nose_length
        for side in (-1, 1):
            fold = np.array(
                (
                    (traits.nose_width + 0.02, base - 0.06),
                    (traits.mouth_width + 0.05, base + 0.1),
                    (traits.mouth_width + 0.08, base + 0.24),
                )
            )
            canvas.line(head.on_face(fold * (side, 1), 0.02), colour, 0.022 * size * (0.4 + depth))
    for line in range(int(depth * 3.9)):
        y = traits.hairline + 0.14 + 0.09 * line
        canvas.line(head.on_face(np.stack([0.32 * _RUN, y - 0.02 * _BOW], axis=1)), colour, 0.016 * size)


def front_hair(canvas: Canvas, head: Head, traits: Traits, now: Conditions, style: str) -> None:
    """Fringe, parting and the strands beside the face."""
    if style == "bald":
        return
    out = _volume(traits, now) * 0.7
    part = traits.hair_part + now.hair_shift[2]
    line, wide = traits.hairline, head.half_width(traits.hairline) * 1.02
    x = wide * np.linspace(-1, 1, 13)
    if traits.fringe:
        low = line + 0.2 + 0.05 * traits.hair_wave * np.cos(np.arange(13) * 2.6) + 0.06 * np.abs(x)
    else:
        low = line + 0.02 + 0.3 * np.minimum(np.abs(x - part) / wide, 1.2) ** 1.6 * 0.6
    lower = np.clip(low, head.top, traits.eye_y - 0.12)
    top = np.full(13, line - 0.22)
    outline = np.concatenate([np.stack([x, top], axis=1), np.stack([x, lower], axis=1)[::-1]])
    canvas.fill(head.on_face(outline, out), mix(traits.hair, WHITE, 0.06), "hair")
    if style in ("long", "cap"):
        length = traits.hair_length + now.hair_shift[0] if style == "long" else 0.45
        y = np.linspace(line - 0.1, length, 10)
        wave = 0.04 * traits.hair_wave * np.sin(np.linspace(0, 11, 10))
        inner = head.half_width(np.clip(y, line, 0.1)) * 0.9 + wave + 0.05 * np.clip(y, 0, 2)
        for side in (-1, 1):
            if head.facing((side, 0, 0.9)) > 0.3:
                near = np.stack([side * inner, y, np.full(10, 0.12)], axis=1)
                far = near + np.array((side * (0.14 + out), 0, -0.1))
                canvas.fill(head.project(np.concatenate([near, far[::-1]])), traits.hair, "hair")


def glasses(canvas: Canvas, head: Head, traits: Traits, now: Conditions, size: float) -> None:
    kind = FRAMES[traits.frame]
    power, wide, high = {"round": (1.0, 0.2, 0.2), "square": (0.4, 0.22, 0.16), "wide": (0.6, 0.25, 0.14)}[
        kind
    ]
    ring = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** power * (wide, high)
    colour: RGB = (30.0, 26.0, 26.0) if traits.lip_red < 0.6 else (120.0, 66.0, 40.0)
    thick = (0.02 + 0.03 * traits.hair_wave) * size
    inner = traits.eye_x - wide
    for side in (-1, 1):
        rim = head.project(
            np.column_stack(
                [
                    side * traits.eye_x + ring[:, 0],
                    traits.eye_y + 0.02 + ring[:, 1],
                    np.full(18, head.depth + 0.08),
                ]
            )
        )
        if now.shades:
            canvas.fill(rim, (24.0, 24.0, 30.0), "glasses")
        else:
            canvas.blend(rim, WHITE, 0.12)
        canvas.line(rim, colour, thick, "glasses")
        hinge = np.array(
            (
                (side * (traits.eye_x + wide), traits.eye_y, head.depth + 0.08),
                (side * (head.half_width(0.0) + 0.03), traits.eye_y, 0.0),
            )
        )
        if head.facing((side, 0, 0.7)) > 0.1:
            canvas.line(head.project(hinge), colour, thick, "glasses")
    bridge = np.array(
        (
            (-inner, traits.eye_y, head.depth + 0.08),
            (0.0, traits.eye_y - 0.03, head.depth + 0.12),
            (inner, traits.eye_y, head.depth + 0.08),
        )
    )
    canvas.line(head.project(bridge), colour, thick, "glasses")


def hat(canvas: Canvas, head: Head, now: Conditions) -> None:
    edge = -0.5 if now.hat == 1 else -0.56
    canvas.hull(head.project(head.rings(head.top * 1.06, edge, grow=0.16)), now.hat_rgb, "hat")
    band = head.rings(edge - 0.12, edge + 0.02, grow=0.18, count=2)
    canvas.hull(head.project(band), mix(now.hat_rgb, DARK, 0.25), "hat")
    if now.hat == 2:
        brim = np.column_stack([0.75 * _RUN, edge + 0.02 * _BOW, head.depth * 0.75 + 0.6 * _BOW])
        rear = np.column_stack([0.75 * _RUN, np.full(9, edge - 0.05), np.full(9, head.depth * 0.6)])
        canvas.fill(head.project(np.concatenate([brim, rear[::-1]])), mix(now.hat_rgb, DARK, 0.45), "hat")
