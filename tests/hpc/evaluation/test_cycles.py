"""Images there and back: figures by hand, the same digits at any world size, identities by two networks."""

import numpy as np
import pytest
import torch

from data_shards.errors import UserError
from hpc.distributed.comm import Comm
from tests.support.ranks import launch
from tests.support.translating import Sides, drawn, judged, scalars, sheet


@pytest.mark.parametrize("words", [("", ""), ("identity", ""), ("", "faces")], ids=["none", "own", "typed"])
def test_figures_are_the_same_at_any_world_size(words):
    alone = scalars(Comm(), *words)
    assert ("identity" in alone) == any(words)
    for world in (2, 5):
        assert launch(scalars, world, *words) == [alone] * world


def test_figures_are_those_of_the_images(tmp_path):
    images, breeds = drawn()
    values = images.double().numpy() / 127.5 - 1
    a, b = (values[breeds == breed] for breed in (0, 1))
    report = judged(Comm())
    # A becomes 0.5 A and comes back as 1.5 A + 0.2, B becomes 3 B + 0.2 and 1.5 B + 0.1; the range is 2
    gaps = {"l1_a": 0.5 * a + 0.2, "l1_b": 0.5 * b + 0.1, "change_a": 0.5 * a, "change_b": 2 * b + 0.2}
    expected = {name: np.abs(gap).mean() / 2 for name, gap in gaps.items()}
    expected |= {name: np.mean([expected[f"{name}_{side}"] for side in "ab"]) for name in ("l1", "change")}
    assert report.scalars == pytest.approx(expected, rel=1e-6)
    table = report.tables["cycles"]
    assert table.columns == ("domain", "l1", "change", "images")
    assert [row[0] for row in table.rows] == ["a", "b"]
    assert [row[-1] for row in table.rows] == [4, 3]
    assert sorted(report.rows["ids"]) == [0, 1, 4, 5, 8, 9, 12]
    report.figures["cycles.png"](tmp_path / "cycles.png")
    import cv2

    sheet = cv2.imread(str(tmp_path / "cycles.png"))
    assert sheet.shape[1] == 8 + 2 * (3 * 128 + 8)


def test_what_is_drawn_is_the_same_at_any_world_size(tmp_path):
    (alone,) = launch(sheet, 1, str(tmp_path))
    assert alone is not None
    for world in (2, 5):
        assert launch(sheet, world, str(tmp_path)) == [alone] + [None] * (world - 1)


def test_an_identity_is_the_cosine_before_and_after():
    images, breeds = drawn()
    before = Sides()(images[torch.from_numpy(breeds == 1)].double() / 127.5 - 1).numpy()
    after = 3 * before + 0.2
    cosines = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    for words in (("identity", ""), ("", "faces")):
        report = judged(Comm(), *words)
        assert report.scalars["identity_a"] == pytest.approx(1, abs=1e-5)  # halves turn no embedding
        assert report.scalars["identity_b"] == pytest.approx(cosines.mean(), rel=1e-5)
        assert report.scalars["identity"] == pytest.approx((1 + cosines.mean()) / 2, rel=1e-5)
        assert report.tables["cycles"].columns[-2] == "identity"


def test_what_is_not_finite_is_refused():
    with pytest.raises(UserError, match="image: 7 of 7 predictions are not finite"):
        judged(Comm(), broken=True)
