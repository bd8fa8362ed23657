"""What a procedural face wears: glasses and hats."""

import numpy as np

from data_shards.faces.canvas import DARK, WHITE, Canvas, mix
from data_shards.faces.head import BOW, CIRCLE, RUN, Head
from data_shards.faces.traits import RGB, Conditions, Traits


def glasses(canvas: Canvas, head: Head, traits: Traits, now: Conditions) -> None:
    shapes = {"round": (1.0, 0.2, 0.2), "square": (0.4, 0.22, 0.16), "wide": (0.6, 0.25, 0.14)}
    power, wide, high = shapes[traits.frame]
    ring = np.sign(CIRCLE) * np.abs(CIRCLE) ** power * (wide, high)
    colour: RGB = (30.0, 26.0, 26.0) if traits.lip_red < 0.6 else (120.0, 66.0, 40.0)
    thick = (0.02 + 0.03 * traits.hair_wave) * head.unit
    inner = traits.eye_x - wide
    for side in (-1, 1):
        rim = head.project(
            np.column_stack(
                [
                    side * traits.eye_x + ring[:, 0],
                    traits.eye_y + 0.02 + ring[:, 1],
                    np.full(len(CIRCLE), head.depth + 0.08),
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
                (side * (head.width_at(0.0) + 0.03), traits.eye_y, 0.0),
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
        brim = np.column_stack([0.75 * RUN, edge + 0.02 * BOW, head.depth * 0.75 + 0.6 * BOW])
        rear = np.column_stack([0.75 * RUN, np.full(9, edge - 0.05), np.full(9, head.depth * 0.6)])
        canvas.fill(head.project(np.concatenate([brim, rear[::-1]])), mix(now.hat_rgb, DARK, 0.45), "hat")
