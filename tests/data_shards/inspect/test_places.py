"""Boxes and masks on contact sheets, and the histograms of boxes."""

import numpy as np
import pytest

from data_shards.inspect.box_plots import box_lists, box_sides, plot_boxes
from data_shards.inspect.places import draw_places, fitted, has_places
from data_shards.inspect.summary import contact_sheet, thumbnail
from data_shards.shard_format.shard_set import ShardSet
from launch.cli import main
from tests.support.scenes import number_of, pack_scenes

SIDE = 192


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    return pack_scenes(tmp_path_factory.mktemp("scenes"), 8)


def test_boxes_are_drawn_where_they_are_and_masks_tint(shards):
    assert has_places(shards.schema)
    for row in range(len(shards)):
        plain = thumbnail(shards, row, side=SIDE)
        drawn = draw_places(plain, shards, row)
        left, top, wide, _ = fitted(int(shards.width[row]), int(shards.height[row]), SIDE)
        scale = wide / int(shards.width[row])
        for box in shards.ragged["boxes"].rows_of(np.array([row]))[0].tolist():
            if box[2] < 0:  # not known
                continue
            x, y = left + round(box[0] * scale), top + round(box[1] * scale)
            edge = drawn[y, x : x + round(box[2] * scale) - 1].astype(int)
            assert (edge.max(axis=1) == 255).all()
            assert len(np.unique(edge, axis=0)) == 1
            inside = (slice(y + 4, y + 8), slice(x + 4, x + 8))
            assert (drawn[inside] != plain[inside]).any() == bool(number_of(shards, row) % 3)
    assert contact_sheet(shards)[0].shape[1] > 8 * SIDE


def test_histograms_count_every_box(shards):
    assert box_lists(shards) == ["boxes"]
    values = box_sides(shards, "boxes")
    rows = np.asarray(shards.ragged["boxes"].rows)
    known = rows[rows[:, 2] > 0].astype(float)
    np.testing.assert_allclose(values["side"] ** 2, known[:, 2] * known[:, 3])
    np.testing.assert_allclose(values["aspect"], known[:, 2] / known[:, 3])
    assert values["count"].sum() == len(rows)
    image = plot_boxes(shards, "boxes")
    assert image.shape[2] == 3
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def test_info_writes_both(shards, tmp_path, capsys):
    assert main(["info", str(shards.folder), f"out={tmp_path}"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "scenes-train-contact.png",
        "scenes-train-boxes.png",
    }
    shown = " ".join(capsys.readouterr().out.split())
    assert "sizes of boxes" in shown
    assert "histograms of boxes" in shown
