"""Procedural scenes: repeatable, boxes where the faces are, masks of what is seen, and the source of them."""

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.faces.scenes import MOST_FACES, draw_scene
from data_shards.inspect.check import check_set
from data_shards.sources.registry import open_source
from tests.support.detection_sets import boxes_by_key, mask_of
from tests.support.packed import pack_source, packed_sets


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(number, size=128) for number in range(40)]


def test_the_same_number_is_the_same_scene(scenes):
    again = draw_scene(7, size=128)
    for name in ("image", "person", "boxes", "visible", "area"):
        assert getattr(again, name).tobytes() == getattr(scenes[7], name).tobytes()
    assert draw_scene(7, seed=1, size=128).image.tobytes() != again.image.tobytes()
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)


def test_boxes_are_inside_and_around_persons(scenes):
    for scene in scenes:
        height, width = scene.person.shape
        assert scene.image.shape == (height, width, 3)
        assert max(width, height) == 128
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, :2] + scene.boxes[:, 2:] <= np.array([width, height]) + 1e-3).all()
        for box, visible, area in zip(scene.boxes, scene.visible, scene.area, strict=True):
            x, y, wide, high = np.rint(box).astype(int)
            part = scene.person[y : y + high, x : x + wide]
            assert 0 < visible <= 1
            if visible > 0.9:
                assert part.mean() > 0.5
            assert area <= scene.person.sum()
        assert len(scene.boxes) <= 5


def test_there_are_crowds_negatives_and_hidden_faces(scenes):
    counts = np.array([len(scene.boxes) for scene in scenes])
    assert (counts == 0).any()
    assert (counts >= 3).any()
    assert sum(scene.is_occluded.sum() for scene in scenes) > 0
    assert not any(scene.person.any() for scene in scenes if not len(scene.boxes) and not scene.person.any())
    shares = [scene.person.mean() for scene in scenes if len(scene.boxes)]
    assert 0.05 < np.mean(shares) < 0.6


def test_a_packed_set_states_what_was_drawn(tmp_path):
    assert pack_source("scenes", "", tmp_path, "scenes=12", "size=96", "holdout=0.25", "seed=3") == 0
    sets = packed_sets(tmp_path)
    assert sum(map(len, sets.values())) == 12
    source = open_source("scenes", "", options={"scenes": 12, "faces": 5, "size": 96, "seed": 3})
    for shards in sets.values():
        assert not list(check_set(shards.folder, workers=1))
        for key, found in boxes_by_key(shards).items():
            scene = source.scene(int(key))
            np.testing.assert_allclose(np.reshape(found["boxes"], (-1, 4)), scene.boxes, atol=1e-4)
            np.testing.assert_array_equal(mask_of(shards, key), scene.person)
            assert [bits[0] for bits in found["box_flags"]] == scene.is_ignored.tolist()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"scenes": 0}, "scenes=0 is out of range"),
        ({"size": 32}, "size=32 is out of range: type 64 to"),
        ({"faces": MOST_FACES + 1}, "faces=13 is out of range"),
    ],
)
def test_numbers_out_of_range_are_refused(keys, words):
    with pytest.raises(UserError, match=words):
        open_source("scenes", "", options={"scenes": 2, "faces": 5, "size": 96, "seed": 0} | keys)
