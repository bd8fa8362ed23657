"""Pictures side by side: halves as a batch shows them, the direction, odd widths and unequal halves."""

import cv2
import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader
from data_shards.sampling.view import View
from data_shards.sources.paired import input_and_target
from tests.support.image_folders import REAL, needs_real
from tests.support.packed import last_error, manifest_of, pack_source, packed_sets, rejected
from tests.support.small_set import jpeg, photo


@pytest.fixture
def pairs(tmp_path):
    """The left half of picture i is dark, the right one light."""
    root = tmp_path / "src"
    for part, count in (("train", 4), ("val", 2)):
        (root / part).mkdir(parents=True)
        for number in range(count):
            image = np.full((24, 48, 3), 40 + number, np.uint8)
            image[:, 24:] += 150
            (root / part / f"{number}.jpg").write_bytes(jpeg(image))
    return root


@pytest.mark.parametrize(("direction", "names"), [("AtoB", ("a", "b")), ("BtoA", ("b", "a"))])
def test_halves_and_their_direction(pairs, tmp_path, direction, names):
    assert pack_source("paired", pairs, tmp_path / "out", f"direction={direction}") == 0
    sets = packed_sets(tmp_path / "out")
    assert {part: len(shards) for part, shards in sets.items()} == {"train": 4, "val": 2}
    manifest = manifest_of(tmp_path / "out" / "train")
    assert manifest["options"] == {"direction": direction, "shape": "square", "partition": "auto"}
    assert input_and_target(manifest) == names
    batch = next(iter(EvalLoader(sets["train"], rank=0, world=1, batch=4, view=View((24, 24), halves=True))))
    assert batch.images["a"].shape == batch.images["b"].shape == (4, 3, 24, 24)
    assert batch.images["a"].float().mean() < 60
    assert batch.images["b"].float().mean() > 170


def test_the_direction_must_be_said(pairs, tmp_path, capsys):
    for words in ((), ("direction=b2a",)):
        assert pack_source("paired", pairs, tmp_path / "out", *words) == 2
        assert "type direction=AtoB (input left, target right) or direction=BtoA" in last_error(capsys)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="does not state which half is the input"):
        input_and_target({"name": "faces", "options": {}})


def test_odd_widths_and_unequal_halves_are_listed(pairs, tmp_path, capsys):
    (pairs / "train" / "odd.jpg").write_bytes(jpeg(photo(1, 49, 24)))
    (pairs / "train" / "unequal.jpg").write_bytes(jpeg(photo(2, 40, 24)))
    cv2.imwrite(str(pairs / "train" / "odd.png"), photo(3, 47, 24))
    assert pack_source("paired", pairs, tmp_path / "out", "direction=AtoB") == 0
    reasons = rejected(tmp_path / "out")
    assert reasons["train/odd.jpg"] == "is 49 x 24 pixels: an odd width has no two equal halves"
    assert reasons["train/odd.png"].startswith("is 47 x 24 pixels: an odd width")
    assert "A and B are of unequal width, or type shape=any" in reasons["train/unequal.jpg"]
    assert (
        pack_source("paired", pairs, tmp_path / "any", "direction=AtoB", "shape=any", "partition=none") == 0
    )
    assert set(rejected(tmp_path / "any")) == {"train/odd.jpg", "train/odd.png"}
    assert len(packed_sets(tmp_path / "any")["train"]) == 7


def test_bad_words_and_empty_folders(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert pack_source("paired", tmp_path / "empty", tmp_path / "out", "direction=AtoB") == 2
    assert "holds no pictures" in last_error(capsys)
    assert pack_source("paired", tmp_path / "empty", tmp_path / "out", "direction=AtoB", "shape=x") == 2
    assert "shape=x: type square or any" in last_error(capsys)
    assert pack_source("paired", tmp_path / "none", tmp_path / "out", "direction=AtoB") == 2
    assert "is not a folder" in last_error(capsys)


def test_grey_and_cmyk_pictures_are_converted(pairs, tmp_path):
    from PIL import Image

    Image.fromarray(photo(5, 48, 24)[..., 0]).save(pairs / "train" / "grey.png")
    Image.fromarray(photo(6, 48, 24)).convert("CMYK").save(pairs / "train" / "ink.jpg", quality=95)
    assert pack_source("paired", pairs, tmp_path / "out", "direction=AtoB") == 0
    assert len(packed_sets(tmp_path / "out")["train"]) == 6
    assert "CMYK" in manifest_of(tmp_path / "out" / "train")["converted"]


@needs_real
def test_the_published_pairs(tmp_path):
    assert pack_source("paired", REAL / "pix2pix" / "person_AB", tmp_path / "out", "direction=BtoA") == 0
    shards = packed_sets(tmp_path / "out")["train"]
    assert len(shards) == len(list((REAL / "pix2pix" / "person_AB" / "train").iterdir()))
