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
    for name in ("image", "person", "boxes", "visible", "area", "points"):
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


def test_landmarks_are_those_of_the_faces(scenes):
    """In the box of a face that is whole, in their order; the eyes of most faces are not skin."""
    checked = 0
    for scene in scenes:
        assert scene.points.shape == (len(scene.boxes), 5, 2)
        height, width = scene.person.shape
        for box, visible, points in zip(scene.boxes, scene.visible, scene.points, strict=True):
            low, high = box[:2], box[:2] + box[2:]
            whole = (low > 0.5).all() and (high < [width - 0.5, height - 0.5]).all()
            if not whole or visible < 0.9:
                continue
            assert ((points >= low - 0.5) & (points <= high + 0.5)).all()
            left, right, nose, left_mouth, right_mouth = points
            assert left[0] < right[0]
            assert left_mouth[0] < right_mouth[0]
            assert max(left[1], right[1]) < nose[1] < max(left_mouth[1], right_mouth[1])
            checked += 1
    assert checked > 20


def test_there_are_crowds_negatives_and_hidden_faces(scenes):
    counts = np.array([len(scene.boxes) for scene in scenes])
    assert (counts == 0).any()
    assert (counts >= 3).any()
    assert sum(scene.is_occluded.sum() for scene in scenes) > 0
    shares = [scene.person.mean() for scene in scenes if len(scene.boxes)]
    assert 0.05 < np.mean(shares) < 0.6


def test_a_packed_set_states_what_was_drawn(tmp_path):
    assert pack_source("scenes", "", tmp_path, "scenes=12", "side=96", "holdout=0.25", "seed=3") == 0
    sets = packed_sets(tmp_path)
    assert sum(map(len, sets.values())) == 12
    source = open_source("scenes", "", options={"scenes": 12, "faces": 5, "side": 96, "seed": 3})
    for shards in sets.values():
        assert not list(check_set(shards.folder, workers=1))
        for key, found in boxes_by_key(shards).items():
            scene = source.scene(int(key))
            np.testing.assert_allclose(np.reshape(found["boxes"], (-1, 4)), scene.boxes, atol=1e-4)
            np.testing.assert_array_equal(mask_of(shards, key), scene.person)
            assert [bits[0] for bits in found["box_flags"]] == scene.is_ignored.tolist()
            inside = ((scene.points >= 0) & (scene.points <= scene.person.shape[::-1])).all(axis=2)
            wanted = np.where(inside[..., None], scene.points, -1)
            np.testing.assert_allclose(np.reshape(found["box_points"], (-1, 5, 2)), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"scenes": 0}, "scenes=0 is out of range"),
        ({"side": 32}, "side=32 is out of range: type 64 to"),
        ({"faces": MOST_FACES + 1}, "faces=13 is out of range"),
    ],
)
def test_numbers_out_of_range_are_refused(keys, words):
    with pytest.raises(UserError, match=words):
        open_source("scenes", "", options={"scenes": 2, "faces": 5, "side": 96, "seed": 0} | keys)
