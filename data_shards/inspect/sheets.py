"""Contact sheets of an audit: the worst findings of a kind, one a line, with what was found and where."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_shards.inspect.findings import Finding, Sets
from data_shards.inspect.summary import CELL, GAP, INK, PAPER, folded, thumbnail

COLUMNS = 8  # images of a line
LINES = 40  # of a sheet
CAPTION = 230  # pixels of the column with the notes
_LETTERS = 14  # pixels from one line of text to the next


def finding_sheet(sets: Sets, findings: Sequence[Finding]) -> np.ndarray:
    """Draw findings of one kind, the worst first, as uint8 [h, w, 3] RGB.

    Those that find no room are left out. Findings of one image share a line.
    """
    lines = list(itertools.islice(_lines(sets, findings), LINES))
    step = CELL + GAP
    sheet = Image.new("RGB", (CAPTION + COLUMNS * step + GAP, len(lines) * step + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for line, (caption, members) in enumerate(lines):
        top = GAP + line * step
        text = [part for each in caption for part in folded(each, font, within=CAPTION - 2 * GAP)]
        draw.multiline_text((GAP, top), "\n".join(text[: CELL // _LETTERS]), fill=INK, font=font)
        for column, number in enumerate(members[:COLUMNS]):
            corner = (CAPTION + column * step, top)
            cell = thumbnail(*sets.place(number))
            if cell is None:
                draw.rectangle((*corner, corner[0] + CELL - 1, top + CELL - 1), outline=INK)
                draw.text((corner[0] + 2 * GAP, top + CELL // 3), "damaged", fill=INK, font=font)
            else:
                sheet.paste(Image.fromarray(cell), corner)
    return np.asarray(sheet)


def _lines(sets: Sets, findings: Sequence[Finding]) -> Iterator[tuple[list[str], Sequence[int]]]:
    """(caption, images) of each line."""
    single = [finding for finding in findings if len(finding.members) == 1]
    for part in (single[low : low + COLUMNS] for low in range(0, len(single), COLUMNS)):
        notes = [part[0].note] if len(part) == 1 else [f"{part[0].note} to", part[-1].note]
        yield notes, [finding.members[0] for finding in part]
    for finding in findings:
        if len(finding.members) > 1:
            yield [finding.note, sets.described(finding.members)], _spread(sets, finding.members)


def _spread(sets: Sets, members: Sequence[int]) -> list[int]:
    """The images to show: of each set in turn, so that a leak shows both of its sides."""
    parts = [list(part) for _, part in itertools.groupby(sorted(members), sets.set_of)]
    mixed = [number for turn in itertools.zip_longest(*parts) for number in turn if number is not None]
    return sorted(mixed[:COLUMNS])
