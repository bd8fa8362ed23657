"""Masks and further images of a sample: from the source to index, tar, `webdataset`, check and summary."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.files import file_entry
from data_shards.images.masks import read_mask, store_mask
from data_shards.images.pixels import Rejected
from data_shards.inspect.check import check_set
from data_shards.inspect.summary import facts
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.manifest import write_manifest
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.base import Sample
from tests.support.small_set import jpeg, photo

COUNT = 8


def mask(number: int) -> np.ndarray:
    """uint8 [21, 30] of 0, 1, 2 and 255; not the size of the images."""
    return np.random.default_rng(number).choice(np.array([0, 1, 2, 255], np.uint8), (21, 30))


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


class Scenes:
    """Images with a mask and a second image; every third has no mask."""

    name, licence, cls, cluster = "scenes", "none", None, True
    fields = {  # noqa: RUF012
        "parts": Field("mask", "u1", names=("back", "skin", "hair")),
        "boxes": Field("boxes", "f4", (4,), ragged=True),
        "b": Field("image", "u1"),
    }

    def __init__(self, **changed) -> None:
        self.changed = changed  # pieces of sample 4

    def samples(self) -> Iterator[Sample]:
        for number in range(COUNT):
            yield Sample(f"{number}.jpg", f"s{number}", "0", labels=([(number, 1, 2, 3)],))

    def read(self, sample: Sample):
        number = int(sample.identity[1:])
        pieces = {"image": jpeg(photo(number, 40, 32)), "b": jpeg(photo(100 + number, 24, 16))}
        if number % 3:
            pieces["parts"] = png(mask(number)) if number % 2 else mask(number)
        return pieces | (self.changed if number == 4 else {})


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    return pack(Scenes(), out, Request(shard_mb=0.01), workers=1)[0].folder


@pytest.fixture
def folder(good, tmp_path) -> Path:
    return shutil.copytree(good, tmp_path / "train")


def number_of(shards: ShardSet, row: int) -> int:
    return int(shards.member(row).partition("/")[0][1:])


def stored(shards: ShardSet, piece: str, row: int) -> bytes:
    parts = shards.pieces[piece]
    data = shards.shards[int(shards.shard[row])].read_bytes()
    return data[int(parts["offset"][row]) :][: int(parts["size"][row])]


def test_the_index_says_where_pieces_are(good):
    shards = ShardSet.open(good, fields=["parts", "b"])
    assert shards.manifest["schema"] == 2
    assert len(shards) == COUNT
    for row in range(COUNT):
        number = number_of(shards, row)
        assert stored(shards, "b", row) == jpeg(photo(100 + number, 24, 16))
        assert (shards.pieces["b"]["width"][row], shards.pieces["b"]["height"][row]) == (24, 16)
        data = stored(shards, "parts", row)
        if number % 3:
            assert np.array_equal(read_mask(data), mask(number))
        else:
            assert not any(column[row] for column in shards.pieces["parts"].values())


def test_webdataset_reads_the_members(good):
    wds = pytest.importorskip("webdataset")
    shards = ShardSet.open(good)
    urls = [str(path) for path in shards.shards]
    seen = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(seen) == COUNT
    for row, sample in enumerate(seen):
        number = number_of(shards, row)
        assert "cls" not in sample
        assert (sample["jpg"].shape, sample["b.jpg"].shape) == ((32, 40, 3), (16, 24, 3))
        assert ("parts.png" in sample) == bool(number % 3)
        if number % 3:
            assert np.array_equal(sample["parts.png"], np.repeat(mask(number)[..., None], 3, axis=2))
        assert sample["boxes.npy"].tolist() == [[number, 1, 2, 3]]


def test_workers_change_no_byte_and_again_is_there_already(good, tmp_path):
    pack(Scenes(), tmp_path, Request(shard_mb=0.01), workers=2)
    names = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file())
    assert all((good / name).read_bytes() == (tmp_path / "train" / name).read_bytes() for name in names)
    assert pack(Scenes(), tmp_path, Request(shard_mb=0.01), workers=1)[0].already


@pytest.mark.parametrize(("piece", "extension"), [("parts", "png"), ("b", "jpg")])
def test_a_changed_piece_is_named(folder, piece, extension):
    assert not list(check_set(folder, workers=1))
    shards = ShardSet.open(folder)
    row = int(np.flatnonzero(shards.pieces[piece]["size"])[0])
    path = shards.shards[int(shards.shard[row])]
    data = bytearray(path.read_bytes())
    data[int(shards.pieces[piece]["offset"][row]) + 60] ^= 1
    path.write_bytes(data)
    problems = list(check_set(folder, workers=1))
    member = shards.member(row).replace(".jpg", f".{piece}.{extension}")
    assert {(problem.file, problem.member) for problem in problems} == {(path.name, member)}
    assert "bytes were changed (crc32 differs)" in problems[0].reason


@pytest.mark.parametrize("part", ["offset", "size", "width", "height", "crc"])
def test_rows_of_pieces_that_cannot_be_are_refused(folder, part):
    path = folder / "index" / f"piece.parts.{part}.npy"
    table = np.load(path, mmap_mode="r+")
    row = int(np.flatnonzero(table)[0])
    table[row] = 0
    table.flush()
    with pytest.raises(UserError, match=rf"piece.parts.{part}.npy: its bytes are not"):
        ShardSet.open(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [file_entry(folder / one["name"], name=one["name"]) for one in manifest["files"]]
    write_manifest(folder, manifest)
    if part == "crc":  # only reading the mask shows it
        ShardSet.open(folder)
        return
    with pytest.raises(UserError, match=rf"piece.parts.\w+.npy: row {row} cannot be: copy it again"):
        ShardSet.open(folder)


def test_info_says_how_many_have_a_piece(good):
    rows = dict(facts(ShardSet.open(good)))
    assert rows["mask parts"] == f"5 of {COUNT} images have it"
    assert rows["image b"] == f"{COUNT} of {COUNT} images have it"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"parts": np.full((4, 4), 3, np.uint8)}, "parts: mask has the number 3, not 0 to 2 or 255"),
        ({"parts": np.zeros((4, 4, 3), np.uint8)}, "parts: mask is uint8 (4, 4, 3), not uint8 [h, w]"),
        ({"parts": png(np.zeros((4, 4, 3), np.uint8))}, "parts: mask is not a PNG of 8-bit grey"),
        ({"parts": png(mask(1))[:-40]}, "parts: mask does not decode"),
        ({"b": b"<html>"}, "b: not a picture (JPEG, PNG, PPM, BMP, WEBP, TIFF, GIF)"),
        ({"image": b""}, "empty file"),
    ],
)
def test_a_sample_with_a_bad_piece_is_left_out_whole(tmp_path, changed, reason):
    made = pack(Scenes(**changed), tmp_path, Request(), workers=1)[0]
    with open(made.folder / "rejected.csv", newline="") as file:
        assert [(row["source"], row["reason"]) for row in csv.DictReader(file)] == [("4.jpg", reason)]
    assert len(ShardSet.open(made.folder)) == COUNT - 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"depth": b""}, r"depth: a piece of 4.jpg that its source does not declare; type image, parts, b"),
        ({"b": mask(1)}, r"b: an array of 4.jpg, not a mask; give the bytes of a file"),
    ],
)
def test_a_source_that_gives_what_it_does_not_declare_is_refused(tmp_path, changed, words):
    with pytest.raises(UserError, match=f"^{words}$"):
        pack(Scenes(**changed), tmp_path, Request(), workers=1)


def test_masks_are_neither_cut_nor_resized(tmp_path):
    with pytest.raises(UserError, match=r"^size=32: source=test_pieces .*\(parts\): leave size"):
        pack(Scenes(), tmp_path, Request(size=32), workers=1)


def test_a_mask_of_more_pixels_than_any_image_is_refused_before_it_is_decoded():
    head = bytearray(png(mask(1)))
    head[16:24] = (1 << 20).to_bytes(4) * 2
    with pytest.raises(Rejected, match="pixels, more than"):
        store_mask(bytes(head))
