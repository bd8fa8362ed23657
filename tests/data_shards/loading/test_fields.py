"""Labels, masks and further images of a packed set, through the real loaders: they follow the pixels."""

import shutil

import numpy as np
import pytest
import torch

from data_shards.errors import DecodeError, UserError
from data_shards.images.placed import PADDING
from data_shards.loading.labels import mirror_of
from data_shards.loading.loader import EvalLoader, TrainLoader
from data_shards.loading.stream import StreamLoader
from data_shards.ops.base import run_ops
from data_shards.ops.mosaic import Mosaic
from data_shards.ragged import Ragged
from data_shards.sampling.order import PlainOrder, UnpairedOrder
from data_shards.sampling.rows import Rows
from data_shards.sampling.view import FITS, View
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet
from tests.support.painted import found_box
from tests.support.samples import assert_equal
from tests.support.scenes import FIELDS, Scenes, number_of, pack_scenes

TARGET = (72, 96)
SCENES = Scenes(24)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return pack_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(params=["host", "dali"])
def backend(request):
    if request.param == "dali":
        pytest.importorskip("nvidia.dali")
    return request.param


def load(shards, view, *, order=None, backend="host", count=1, clock=0, fields=FIELDS, **keys):
    options = {"rank": 0, "world": 1, "batch": 12, "threads": 2, "ahead": 2, **keys}
    loader = TrainLoader(
        order or PlainOrder(shards, 1), shards, seed=3, view=view, backend=backend, fields=fields, **options
    )
    loader.start(clock)
    batches = [loader.next() for _ in range(count)]
    loader.close()
    return batches


VIEWS = [
    pytest.param(
        View(TARGET, fit=fit, crop_area=area, flip=0.5, halves=halves, brightness=0.1),
        id=f"{fit}-{area[0]}-{'halves' if halves else 'whole'}",
    )
    for fit in FITS
    for area in ((1.0, 1.0), (0.3, 1.0))
    for halves in (False, True)
]


def shown(image: torch.Tensor, content: np.ndarray, channel: int) -> np.ndarray:
    """float [h, w]: how bright a channel is where the image is shown."""
    x0, y0, x1, y1 = content
    light = np.zeros(image.shape[1:])
    part = image[channel, y0:y1, x0:x1].numpy()
    light[y0:y1, x0:x1] = part / max(200, part.max())
    return light


def bounding(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("view", VIEWS)
def test_boxes_points_and_masks_follow_the_pixels(shards, backend, view):
    checked = 0
    for batch in load(shards, view, backend=backend, count=2):
        for half, part in enumerate(("a", "b") if view.halves else ("",)):
            prefix = f"{part}." if part else ""
            placed = batch.placed[half :: 1 + view.halves]
            boxes, colours = batch.labels[f"{prefix}boxes"], batch.labels["colour"]
            corners = batch.labels[f"{prefix}corners"]
            for slot, content in enumerate(placed.content()):
                number = number_of(shards, int(batch.ids[slot, 0]))
                stored = SCENES.scene(number)[1]
                scale = np.tile(placed.size[slot] / placed.crop[slot, 2:], 2)
                mask = batch.images[f"{prefix}parts"][slot, 0].numpy()
                assert bool(batch.labels[f"{prefix}parts.known"][slot]) == bool(number % 3)
                for box, colour in zip(boxes.of(slot).numpy(), colours.of(slot).tolist(), strict=True):
                    if colour == 2:
                        assert not box.any()  # unknown
                    if not box.any() or (box[2:] - box[:2]).min() < 2:
                        continue
                    checked += 1
                    image = batch.images[part or "image"][slot]
                    found = found_box(shown(image, content, colour))
                    assert (np.abs(found - box) <= 0.5 * np.maximum(1, scale) + 0.01).all()
                    if number % 3:
                        assert (np.abs(bounding(mask == colour + 1) - box) <= 0.5 + 1e-4).all()
                    edges = np.array([*content[:2], *content[2:]])
                    whole = (box[:2] > edges[:2]).all() and (box[2:] < edges[2:]).all()
                    if whole:
                        back = placed.undo_boxes(box[None], np.array([slot]))[0]
                        np.testing.assert_allclose(back, stored[colour], atol=1e-4)
                        if colour == 0 and number % 5:
                            np.testing.assert_allclose(corners[slot], [box[:2], box[[2, 1]]], atol=1e-4)
                if not number % 5:
                    assert (corners[slot] == -1).all()
    assert checked > 20


@pytest.mark.parametrize("view", VIEWS)
def test_dali_delivers_what_the_host_delivers(shards, view):
    pytest.importorskip("nvidia.dali")
    (host,), (dali,) = (load(shards, view, backend=backend) for backend in ("host", "dali"))
    assert host.images.keys() == dali.images.keys()
    assert host.kinds == dali.kinds
    for name, image in host.images.items():
        if host.kinds[name] == "mask":
            assert torch.equal(image, dali.images[name])
        else:
            assert (image.float() - dali.images[name].float()).abs().mean() < 3
    host.images, dali.images = {}, {}
    assert_equal(host, dali)


def test_fields_have_the_kinds_and_shapes_of_the_schema(shards, backend):
    (batch,) = load(shards, View((40, 60)), backend=backend)
    assert batch.kinds == {"image": "image"} | {name: field.kind for name, field in Scenes.fields.items()}
    assert batch.images["image"].shape == batch.images["depth"].shape == (12, 3, 40, 60)
    assert batch.images["parts"].shape == (12, 1, 40, 60)
    assert batch.labels["boxes"].rows.dtype == batch.labels["age"].dtype == torch.float32
    assert batch.labels["colour"].rows.dtype == batch.labels["breed"].dtype == torch.int64
    numbers = np.array([number_of(shards, row) for row in batch.ids[:, 0].tolist()])
    np.testing.assert_array_equal(batch.labels["age"], numbers / 2)
    np.testing.assert_array_equal(batch.labels["boxes"].counts, 2 + numbers % 2)
    depth = batch.images["depth"].float().mean(dim=(2, 3))
    for slot, number in enumerate(numbers.tolist()):
        colour = (20 + 5 * number, 90, 200) if number % 4 else [PADDING] * 3
        np.testing.assert_allclose(depth[slot], colour, atol=3)
        if number % 3 == 0:
            assert (batch.images["parts"][slot] == 255).all()
    assert batch.labels["depth.known"].tolist() == [bool(number % 4) for number in numbers]
    part = batch[2:5]
    assert len(part.placed) == len(part.labels["boxes"]) == 3
    assert torch.equal(
        part.labels["boxes"].rows, torch.cat([batch.labels["boxes"].of(at) for at in (2, 3, 4)])
    )
    np.testing.assert_array_equal(part.placed.crop, batch.placed.crop[2:5])
    ready = batch.prepare(torch.device("cpu"))
    assert ready.images["parts"].dtype == torch.uint8
    assert ready.images["depth"].dtype == torch.float32


def test_an_evaluation_shows_whole_scenes_with_their_fields(shards, backend):
    held_out = EvalLoader(
        shards, rank=0, world=1, batch=10, view=View(TARGET, fit="contain"), backend=backend, fields=FIELDS
    )
    batches = list(held_out)
    assert [len(batch) for batch in batches] == [10, 10, 4]
    for batch in batches:
        boxes = batch.labels["boxes"]
        back = batch.placed.undo_boxes(boxes.rows.numpy(), boxes.owners)
        for slot, row in enumerate(batch.ids[:, 0].tolist()):
            stored = SCENES.scene(number_of(shards, row))[1]
            found = back[boxes.starts[slot] : boxes.starts[slot] + 2]
            np.testing.assert_allclose(found, stored, atol=1e-4)


def cat(parts: list) -> dict:
    """What ranks deliver, put together."""
    images = {name: torch.cat([part.images[name] for part in parts]) for name in parts[0].images}
    labels = {
        name: Ragged.cat([part.labels[name] for part in parts])
        if isinstance(label, Ragged)
        else torch.cat([part.labels[name] for part in parts])
        for name, label in parts[0].labels.items()
    }
    return images, labels


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("own", [False, True])
def test_ranks_deliver_what_one_rank_delivers(shards, world, own):
    """Ragged labels, masks, and mosaics of partners in a unit and of own members."""
    fields = ("boxes", "colour", "parts")
    view = View((48, 48), fit="contain", crop_area=(0.5, 1.0), flip=0.5)
    order = PlainOrder(shards, 1, 4 if own else 1)
    ops = [Mosaic(own=own, unit=4)]

    def share(rank: int, world: int):
        keys = {"rank": rank, "world": world, "unit": 1 if own else 4, "clock": 24}
        (batch,) = load(shards, view, order=order, fields=fields, batch=24, **keys)
        return batch, run_ops(ops, batch.prepare(torch.device("cpu")))

    whole, mixed = share(0, 1)
    parts = [share(rank, world) for rank in range(world)]
    if own:
        assert whole.images["image"].shape == (24, 4, 3, 48, 48)
        assert whole.labels["boxes"].members == 4
    assert mixed.images["parts"].shape == (24, 1, 48, 48)
    for expected, found in ((whole, [part for part, _ in parts]), (mixed, [after for _, after in parts])):
        images, labels = cat(found)
        for name, image in expected.images.items():
            assert torch.equal(images[name], image), name
        for name, label in expected.labels.items():
            if isinstance(label, Ragged):
                assert torch.equal(labels[name].rows, label.rows), name
                np.testing.assert_array_equal(labels[name].starts, label.starts)


def test_a_mosaic_of_own_members_takes_their_boxes_along(shards):
    view, fields = View((48, 48)), ("boxes", "colour", "parts")
    (batch,) = load(shards, view, order=PlainOrder(shards, 1, 4), fields=fields)
    op = Mosaic(own=True, share=0.5)
    before = batch.prepare(torch.device("cpu"))
    after = run_ops([op], before)
    still = [
        slot
        for slot in range(12)
        if torch.equal(after.images["image"][slot], before.images["image"][slot, 0])
    ]
    assert 0 < len(still) < 12
    flat = before.labels["boxes"].flat
    for slot in range(12):
        own = [flat.of(4 * slot + member) for member in range(4)]
        boxes = after.labels["boxes"].of(slot)
        if slot in still:
            assert torch.equal(boxes, own[0])
            continue
        assert len(boxes) == sum(map(len, own))
        mask = after.images["parts"][slot, 0]
        for box, colour in zip(boxes.tolist(), after.labels["colour"].of(slot).tolist(), strict=True):
            x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
            assert not any(box) or int(mask[y, x]) in (colour + 1, 255)
    with pytest.raises(UserError, match=r"takes 4 images a slot, the batch has 1: use data\.members=4"):
        run_ops([op], after)
    with pytest.raises(UserError, match=r"takes 1 images a slot, the batch has 4"):
        run_ops([Mosaic(unit=4)], before)


def test_the_sides_of_a_pair_have_fields_of_their_own(shards, backend):
    order = UnpairedOrder(Rows(shards, "breed==0"), Rows(shards, "breed==1"), 1)
    fields = {"a": ("age", "parts"), "b": ("boxes", "breed")}
    (batch,) = load(shards, View((32, 32)), order=order, fields=fields, backend=backend)
    assert batch.images.keys() == {"a", "b", "a.parts"}
    assert batch.kinds == {
        "a": "image",
        "b": "image",
        "a.age": "value",
        "a.parts": "mask",
        "b.boxes": "boxes",
        "b.breed": "class",
    }
    assert (batch.labels["b.breed"] == 1).all()
    for side, name in enumerate(("a", "b")):
        numbers = [number_of(shards, row) for row in batch.ids[:, side].tolist()]
        assert [number % 2 for number in numbers] == [side] * 12
        if side == 0:
            np.testing.assert_array_equal(batch.labels["a.age"], np.array(numbers) / 2)
        assert batch.images[name].permute(0, 2, 3, 1).is_contiguous()
    assert len(batch[3:7].placed) == 8
    with pytest.raises(UserError, match="mosaic has no meaning for pairs"):
        run_ops([Mosaic()], batch.prepare(torch.device("cpu"))[:8])


def test_a_damaged_piece_is_named(shards, backend, tmp_path):
    folder = shutil.copytree(shards.folder, tmp_path / "set")
    copy = ShardSet.open(folder)
    row = int(np.flatnonzero(copy.pieces["parts"]["size"])[5])
    path, offset = copy.shards[int(copy.shard[row])], int(copy.pieces["parts"]["offset"][row])
    data = bytearray(path.read_bytes())
    data[offset + 60] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        DecodeError, match=rf"parts of .*\(sample {row}\) does not decode .*changed.*rostro check"
    ):
        load(copy, View((32, 32)), backend=backend, batch=24)


def test_a_field_that_a_set_does_not_have_is_named(shards):
    with pytest.raises(UserError, match=r"has no label `hats`, only identity, age, breed, .*boxes, .*parts"):
        load(shards, View((8, 8)), fields=("hats",))


def stream(shards, fields, **keys):
    options = {"rank": 0, "world": 1, "batch": 12, "threads": 1, "ahead": 1, **keys}
    return StreamLoader(str(shards.folder), seed=3, view=View((32, 32)), fields=fields, **options)


def test_a_stream_delivers_the_class_that_is_cls(shards):
    loader = stream(shards, ("breed",))
    loader.start(0)
    batch = loader.next()
    loader.close()
    assert batch.kinds == {"image": "image", "breed": "class"}
    np.testing.assert_array_equal(batch.labels["breed"], shards.labels["breed"][batch.ids[:, 0]])
    assert len(batch.placed) == 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            ("breed", "boxes"),
            r"the label breed of .*, not boxes, boxes of which a sample has any number",
        ),
        (("parts",), r"not parts, masks beside the images: use data\.stream=false"),
        (("identity",), r"not identity: use data\.stream=false"),
    ],
)
def test_what_a_stream_cannot_deliver_is_refused_by_name(shards, fields, message):
    with pytest.raises(UserError, match=message):
        stream(shards, fields)


def test_groups_of_a_stream_need_the_identity(shards):
    with pytest.raises(UserError, match=r"data\.order=groups needs the identity as \.cls, that of .* breed"):
        stream(shards, ("breed",), group=2)


def test_left_and_right_change_names_in_a_mirror():
    names = ("left_eye", "right_eye", "nose", "mouth left", "mouth right", "upright")
    assert mirror_of(Field("points", "f4", (6, 2), names)).tolist() == [1, 0, 2, 4, 3, 5]
    assert mirror_of(Field("points", "f4", (1, 2), ("nose",))) is None
