"""An overview of a packed set: its facts as rows, its images as a contact sheet."""

import io
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from data_shards.inspect.box_plots import box_lists, box_sides, facts_of
from data_shards.inspect.places import draw_places, fitted, has_places
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet

CELL = 96  # pixels of an image's side
GAP = 4  # pixels between images
CAPTION = 168  # pixels of the column with the names
PAPER, INK = (255, 255, 255), (40, 40, 40)


def facts(shards: ShardSet) -> list[tuple[str, str]]:
    """Rows (what, value) about the set, as `rostro info` prints them."""
    manifest = shards.manifest
    counts = np.diff(shards.identity_start.astype(np.int64))
    tar_bytes = sum(shard["bytes"] for shard in manifest["shards"])
    rows = [
        ("source", f"{manifest['source']}{_source_split(manifest)}"),
        ("split", manifest["split"]),
        ("licence", manifest["licence"]),
        ("images", f"{len(shards)} ({_sizes(shards)})"),
        ("identities", f"{len(counts)}, {_spread(counts)} images each" if len(counts) else "none is known"),
        ("singles", f"{int((counts == 1).sum())} identities with one image: no genuine pair"),
        ("shards", f"{len(manifest['shards'])}, {tar_bytes / 1e6:.1f} MB"),
        ("held out", _held_out(manifest)),
        ("verified", f"{manifest['verify']} while packing"),
        ("converted", _counted(manifest["converted"]) or "0"),
        ("rejected", f"{manifest['rejected']} (rejected.csv)"),
        ("sha256", shards.digest),
    ]
    if "mended" in manifest:
        rows.insert(-2, ("mended", _counted(manifest["mended"])))
    if unknown := len(shards) - int(shards.identity_start[-1]):
        rows.insert(5, ("unknown", f"{unknown} images of people whom the source does not name"))
    for twin in shards.manifest.get("twins", ()):
        size, count = sum(shard["bytes"] for shard in twin["shards"]), twin["samples"]
        rows.append((f"twin {twin['size']}", f"{count} of {len(shards)} images, {size / 1e6:.1f} MB"))
    for name, parts in shards.pieces.items():
        present = f"{np.count_nonzero(parts['size'])} of {len(shards)} images have it"
        rows.append((f"{shards.schema.pieces[name].kind} {name}", present))
    for name, field in shards.schema.labels.items():
        if field.ragged:
            counts = np.diff(shards.ragged[name].start.astype(np.int64))
            values = np.asarray(shards.ragged[name].rows)
            rows.append((f"label {name}", f"{_spread(counts)} an image: {label_facts(field, values)}"))
            if name in box_lists(shards):
                rows.append((f"sizes of {name}", facts_of(box_sides(shards, name))))
        else:
            rows.append((f"label {name}", label_facts(field, np.asarray(shards.labels[name]))))
    return rows


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _held_out(manifest: dict[str, Any]) -> str:
    val = f" for eval, {manifest['val']:g} for val" if manifest.get("val") else ""
    return f"{manifest['holdout']:g} of the identities{val} (seed {manifest['seed']})"


def _source_split(manifest: dict[str, Any]) -> str:
    """The split of the source. Manifests without `source_split` state it only where nothing was held out."""
    if "source_split" in manifest:
        return f", its split {manifest['source_split']}"
    return "" if manifest["holdout"] else f", its split {manifest['split']}"


def _sizes(shards: ShardSet) -> str:
    width, height = shards.width, shards.height
    if width.min() == width.max() and height.min() == height.max():
        return f"all {width[0]} x {height[0]}"
    return f"{width.min()} to {width.max()} wide, {height.min()} to {height.max()} high"


def _spread(counts: np.ndarray) -> str:
    return f"{counts.min()} to {counts.max()} (median {int(np.median(counts))})"


def label_facts(field: Field, labels: np.ndarray) -> str:
    """What the labels [n, *shape] of one field are, on a line: counts, shares or a range, by its kind."""
    known = labels if field.unknown is None else labels[labels != field.unknown]
    unknown = f", unknown: {labels.size - known.size}" if known.size < labels.size else ""
    if field.kind == "class":
        counts = np.bincount(known.ravel(), minlength=len(field.names)).tolist()
        return (
            ", ".join(f"{name}: {count}" for name, count in zip(field.names, counts, strict=True)) + unknown
        )
    if field.kind == "bits":
        bits = labels.reshape(-1, field.shape[-1] if field.shape else 1)
        names = field.names or [str(number) for number in range(bits.shape[1])]
        stated = [column[column >= 0] for column in bits.T]
        shares = [f"{column.mean():.1%}" if column.size else "not stated" for column in stated]
        return ", ".join(f"{name}: {share}" for name, share in zip(names, shares, strict=True)) + unknown
    if field.kind == "value" and not field.shape:
        return _values(labels)
    what = f"{field.kind} of shape {field.shape}"
    return f"{what}, {known.min():g} to {known.max():g}{unknown}" if known.size else f"{what}, none stated"


def _values(labels: np.ndarray) -> str:
    values, counts = np.unique(labels, return_counts=True)
    if len(values) <= 12:
        return ", ".join(f"{value}: {count}" for value, count in zip(values, counts, strict=True))
    return f"{len(values)} values, {values[0]} to {values[-1]}"


def contact_sheet(shards: ShardSet, *, rows: int = 10, columns: int = 8) -> tuple[np.ndarray, int]:
    """(uint8 [h, w, 3] RGB, number of damaged images): a row for an identity, with its name and first images.

    The identities are spread evenly over the set; images of unknown people follow them, or are all that there
    is. The cell of a damaged image says so. Boxes and masks are drawn, in cells of twice the size.
    """
    damaged = 0
    shown = _lines(shards, rows=rows, columns=columns)
    side = CELL * (1 + has_places(shards.schema))
    step = side + GAP
    sheet = Image.new("RGB", (CAPTION + columns * step + GAP, len(shown) * step + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for line, (name, start, stop) in enumerate(shown):
        top = GAP + line * step
        caption = "\n".join(folded(name, font))
        draw.multiline_text((GAP, top), f"{caption}\n{stop - start} images", fill=INK, font=font)
        for column, row in enumerate(range(start, min(stop, start + columns))):
            corner = (CAPTION + column * step, top)
            if (cell := thumbnail(shards, row, side=side)) is None:
                damaged += 1
                draw.rectangle((*corner, corner[0] + side - 1, top + side - 1), outline=INK)
                draw.text((corner[0] + 2 * GAP, top + side // 3), "damaged", fill=INK, font=font)
            else:
                sheet.paste(Image.fromarray(draw_places(cell, shards, row)), corner)
    return np.asarray(sheet), damaged


def _lines(shards: ShardSet, *, rows: int, columns: int) -> list[tuple[str, int, int]]:
    """(caption, first row, last row + 1) of each line of the contact sheet."""
    people, known = len(shards.identity_start) - 1, int(shards.identity_start[-1])
    unknown = [("unknown", low, len(shards)) for low in range(known, len(shards), columns)]
    unknown = unknown[: 1 if people else rows]
    shown = np.unique(np.linspace(0, people - 1, min(rows, people)).round().astype(int)).tolist()
    names, start = shards.identity_names(), shards.identity_start
    return [(names[each], int(start[each]), int(start[each + 1])) for each in shown] + unknown


def folded(
    name: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", *, within: int = CAPTION - 3 * GAP
) -> list[str]:
    """The name in at most four lines that fit the column of captions, `within` pixels wide."""
    lines = [""]
    for letter in name:
        if font.getlength(lines[-1] + letter) > within:
            lines.append("")
        lines[-1] += letter
    return lines[:4]


def thumbnail(shards: ShardSet, row: int, *, side: int = CELL) -> np.ndarray | None:
    """uint8 [side, side, 3]: the whole image on a square of paper (None = it is damaged)."""
    with open(shards.shards[int(shards.shard[row])], "rb") as file:
        file.seek(int(shards.offset[row]))
        data = file.read(int(shards.size[row]))
    try:
        image = simplejpeg.decode_jpeg(data)
    except ValueError:
        return None
    if zlib.crc32(data) != shards.crc[row]:
        return None
    left, top, width, height = fitted(image.shape[1], image.shape[0], side)
    how = cv2.INTER_AREA if side < max(image.shape[:2]) else cv2.INTER_CUBIC
    cell = np.full((side, side, 3), PAPER, np.uint8)
    cell[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=how)
    return cell


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 [h, w, 3] RGB to `path`."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    path.write_bytes(data.getvalue())
