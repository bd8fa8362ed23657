"""Paint the person part by part, from back to front: `paint` has the order, each other function one part.

Functions that place landmarks return them as pixels. Hair and what is worn are in `hair.py` and `worn.py`.
"""

import numpy as np

from data_shards.faces.canvas import DARK, WHITE, Canvas, mix
from data_shards.faces.hair import back_hair, beard, front_hair, hair_cap
from data_shards.faces.head import BOW, CIRCLE, RUN, Head
from data_shards.faces.traits import RGB, Conditions, Traits
from data_shards.faces.worn import glasses, hat


def paint(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> np.ndarray:
    """Paint the person; returns the landmarks, float64 [68, 2] in pixels, in the order of iBUG 300-W."""
    back_hair(canvas, head, traits, now)
    body(canvas, head, traits, now)
    canvas.hull(head.project(head.rings(head.top, head.bottom)), mix(traits.skin, DARK, 0.06), "skin")
    hair_cap(canvas, head, traits, now)
    ears(canvas, head, traits)
    jaw = face(canvas, head, traits)
    spots(canvas, head, traits)
    beard(canvas, head, traits)
    bridge = nose(canvas, head, traits, now)
    lips = mouth(canvas, head, traits, now)
    eyes = [eye(canvas, head, traits, now, side) for side in (-1, 1)]
    brows = [brow(canvas, head, traits, now, side) for side in (-1, 1)]
    wrinkles(canvas, head, traits, now)
    front_hair(canvas, head, traits, now)
    if now.glasses or now.shades:
        glasses(canvas, head, traits, now)
    if now.hat:
        hat(canvas, head, now)
    return np.concatenate([jaw, *brows, bridge, *eyes, lips])


def body(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    """Paint shoulders and neck; they follow the head's turn only in part, which is close enough."""
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


def ears(canvas: Canvas, head: Head, traits: Traits) -> None:
    if traits.style == "long" or (traits.style == "cap" and traits.hair_volume > 0.1):
        return
    for side in (-1, 1):
        if head.facing((side, 0, 0.55)) < 0.12:
            continue
        x = side * (head.width_at(traits.ear_y) + traits.ear_out * 0.4)
        outline = np.column_stack(
            [
                x + traits.ear_out * 1.1 * CIRCLE[:, 0],
                traits.ear_y + traits.ear_size * CIRCLE[:, 1],
                -0.1 - 0.1 * side * CIRCLE[:, 0],
            ]
        )
        middle = outline.mean(axis=0)
        canvas.fill(head.project(outline), mix(traits.skin, (190.0, 70.0, 60.0), 0.14), "ear")
        canvas.fill(head.project(middle + 0.55 * (outline - middle)), mix(traits.skin, DARK, 0.3), "ear")
        if traits.earrings:
            drop = middle + np.array((side * 0.02, traits.ear_size * 1.15, 0))
            canvas.fill(
                head.project(drop[None]) + 0.05 * head.unit * CIRCLE, (222.0, 196.0, 110.0), "earring"
            )


def face(canvas: Canvas, head: Head, traits: Traits) -> np.ndarray:
    """Paint the front of the face below the hairline; returns the 17 landmarks of the jaw."""
    top = head.top * 0.98 if traits.style == "bald" else traits.hairline
    y = np.concatenate([np.linspace(top, 0, 6), np.linspace(0.15, head.bottom, 10)])
    wide = 0.97 * head.half_width(y)
    if traits.style != "bald":
        wide[:4] *= np.linspace(0.8, 1.0, 4)
    left = head.on_face(np.stack([-wide, y], axis=1))
    right = head.on_face(np.stack([wide, y], axis=1))
    centre = head.on_face(np.stack([0 * y, y], axis=1))
    colour = traits.skin if traits.age < 60 else mix(traits.skin, (190.0, 170.0, 150.0), 0.1)
    canvas.hull(np.concatenate([left, right, centre]), colour, "skin")
    red = mix(traits.skin, (214.0, 84.0, 84.0), 0.35 * traits.blush + (0.15 if traits.makeup else 0.0))
    for side in (-1, 1):
        spot = np.array((side * 0.44, traits.eye_y + 0.36)) + CIRCLE * (0.16, 0.12)
        canvas.blend(head.on_face(spot), red, 0.5)
    edge = head.half_width(levels := np.linspace(traits.eye_y, head.bottom, 9)[:-1])
    chin = head.on_face(np.array(((0.0, head.bottom),)))
    sides = [head.on_face(np.stack([side * edge, levels], axis=1)) for side in (-1, 1)]
    return np.concatenate([sides[0], chin, sides[1][::-1]])


def spots(canvas: Canvas, head: Head, traits: Traits) -> None:
    """Paint freckles and moles, which keep their places on an identity."""
    brown = mix(traits.skin, (112.0, 62.0, 40.0), 0.5)
    for place in head.on_face(traits.freckles) if len(traits.freckles) else ():
        canvas.fill(place + 0.013 * head.unit * CIRCLE[::3], brown)
    for x, y, radius in traits.moles:
        canvas.fill(
            head.on_face(np.array(((x, y),))) + radius * 1.4 * head.unit * CIRCLE[::2],
            mix(traits.skin, DARK, 0.75),
        )


def eye(canvas: Canvas, head: Head, traits: Traits, now: Conditions, side: int) -> np.ndarray:
    """Paint one eye (side -1: left in the image); returns its 6 landmarks."""
    wide, opened = traits.eye_width, max(0.06, now.expression.eyes)
    high = wide * traits.eye_round * opened
    middle = np.array((side * traits.eye_x, traits.eye_y))
    slant = -traits.eye_tilt * RUN * side * wide
    upper = np.stack([wide * RUN, slant - high * BOW**0.8], axis=1)
    lower = np.stack([wide * RUN, slant + 0.55 * high * BOW**0.8], axis=1)
    socket = middle + np.concatenate([upper * (1.25, 1.9), lower[::-1] * (1.25, 2.2)])
    tired = 0.16 + 0.16 * (traits.age > 50)
    lid: RGB = (96.0, 60.0, 128.0) if traits.makeup and traits.lip_red > 0.5 else DARK
    canvas.blend(head.on_face(socket), mix(traits.skin, lid, 0.55), tired + 0.25 * traits.makeup)
    canvas.fill(head.on_face(middle + np.concatenate([upper, lower[::-1]]), 0.01), WHITE, "eye")
    radius = traits.iris_size * wide
    look = np.array(now.gaze) * (0.6 * wide, 0.3 * wide)
    for part, colour in ((1.0, traits.iris), (0.45, (14.0, 12.0, 12.0))):
        ring = look + part * radius * CIRCLE - (0, 0.12 * high)
        ring[:, 1] = np.clip(
            ring[:, 1],
            np.interp(ring[:, 0], upper[:, 0], upper[:, 1]),
            np.interp(ring[:, 0], lower[:, 0], lower[:, 1]),
        )
        canvas.fill(head.on_face(middle + ring, 0.015), colour)
    glint = head.on_face(middle[None] + look - (0.25 * radius, 0.35 * radius), 0.02)
    if opened > 0.4:
        canvas.fill(glint + 0.016 * head.unit * CIRCLE[::3], (250.0, 250.0, 250.0))
    lash = 0.05 if traits.makeup else 0.03
    canvas.line(head.on_face(middle + upper, 0.02), mix(traits.skin, DARK, 0.85), lash * head.unit)
    canvas.line(head.on_face(middle + lower, 0.01), mix(traits.skin, DARK, 0.4), 0.014 * head.unit)
    corners = np.concatenate([upper[[0, 2, 6, 8]], lower[[6, 2]]])
    return head.on_face(middle + corners, 0.01)


def brow(canvas: Canvas, head: Head, traits: Traits, now: Conditions, side: int) -> np.ndarray:
    """Paint one brow; returns its 5 landmarks from left to right."""
    rise = traits.brow_gap + 0.08 * now.expression.brows + traits.eye_width * traits.eye_round * 0.5
    tilt = traits.brow_tilt + 0.42 * now.expression.frown  # positive: the inner end low
    outward = RUN * side  # -1 at the inner end
    x = side * (traits.eye_x + 0.015) + traits.brow_length * RUN
    y = traits.eye_y - rise - traits.brow_arch * BOW - 0.5 * tilt * traits.brow_length * (outward + 0.4)
    thick = traits.brow_thick * (0.35 + 0.65 * (1 - np.clip(outward, 0, 1) ** 2))
    outline = np.concatenate([np.stack([x, y - thick], axis=1), np.stack([x, y + thick * 0.6], axis=1)[::-1]])
    canvas.fill(head.on_face(outline, 0.03), mix(traits.hair, DARK, 0.35), "brow")
    return head.on_face(np.stack([x, y], axis=1)[::2], 0.03)


def nose(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> np.ndarray:
    """Paint the nose; returns its 9 landmarks: 4 down the bridge, 5 under the tip."""
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
    ball = np.column_stack([wide * 0.62 * CIRCLE[:, 0], base - 0.05 + 0.075 * CIRCLE[:, 1]])
    canvas.blend(
        head.on_face(ball, traits.nose_tip * 0.95), mix(traits.skin, (220.0, 120.0, 100.0), 0.2), 0.8, "nose"
    )
    wings = np.stack([wide * RUN, base + 0.035 * BOW - 0.02 * np.abs(RUN)], axis=1)
    under = head.project(head.lift(wings[:, 0], wings[:, 1], traits.nose_tip * (0.3 + 0.6 * BOW)))
    canvas.line(under, mix(traits.skin, DARK, 0.45), 0.02 * head.unit)
    for side in (-1, 1):
        hole = np.array((side * wide * 0.5, base + 0.012)) + CIRCLE * (wide * 0.24, 0.02)
        canvas.fill(head.on_face(hole, traits.nose_tip * 0.6), mix(traits.skin, DARK, 0.7))
    return np.concatenate([ridge[[0, 1, 3, 4]], under[::2]])


def mouth(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> np.ndarray:
    """Paint the mouth; returns its 20 landmarks: 12 around the lips, 8 around the opening."""
    state = now.expression
    wide = traits.mouth_width * (1 + 0.2 * max(state.smile, 0) - 0.25 * max(state.mouth - 0.6, 0))
    level = traits.eye_y + traits.nose_length + traits.mouth_drop
    opening = 0.13 * max(state.mouth, 0)
    x = wide * RUN
    curve = level + 0.075 * state.smile * (0.5 - RUN * RUN) * 1.2
    inner_top = curve - 0.35 * opening * BOW - 0.02 * max(state.sneer, 0) * BOW
    inner_low = curve + opening * BOW
    cupid = np.array((0, 0.45, 0.85, 1.05, 0.85, 1.05, 0.85, 0.45, 0))
    outer_top = inner_top - traits.lip_upper * cupid
    outer_low = inner_low + traits.lip_lower * BOW**0.7
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
        canvas.line(teeth_top, mix(lip, DARK, 0.6), 0.018 * head.unit)
    outer = np.concatenate([top[[0, 2, 3, 4, 5, 6, 8]], low[[6, 5, 4, 3, 2]]])
    return np.concatenate([outer, teeth_top[[1, 2, 4, 6, 7]], teeth_low[[6, 4, 2]]])


def wrinkles(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    """Paint the lines that come with age and with the expression."""
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
            canvas.line(head.on_face(fold * (side, 1), 0.02), colour, 0.022 * head.unit * (0.4 + depth))
    for line in range(int(depth * 3.9)):
        y = traits.hairline + 0.14 + 0.09 * line
        canvas.line(head.on_face(np.stack([0.32 * RUN, y - 0.02 * BOW], axis=1)), colour, 0.016 * head.unit)
