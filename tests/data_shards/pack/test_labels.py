"""Labels of every kind, from the source to index, tar, `webdataset`, check and summary."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.files import file_entry
from data_shards.inspect.check import check_set
from data_shards.inspect.summary import facts
from data_shards.loading.requests import RequestBuilder
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.sampling.order import Slots
from data_shards.sampling.view import View
from data_shards.shard_format import columns, shard_set
from data_shards.shard_format.manifest import write_manifest
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.base import Sample
from tests.support.small_set import jpeg, photo

FIELDS = {
    "breed": Field("class", "i4", names=("cat", "dog", "owl")),
    "age": "i4",
    "size": Field("value", "f4", unknown=None),
    "marks": Field("bits", "i1", (3,), ("smile", "hat", "beard")),
    "face": Field("boxes", "i4", (4,)),
    "landmarks": Field("points", "f4", (5, 2)),
    "things": Field("boxes", "f4", (4,), ragged=True),
    "kinds": Field("class", "i2", names=("ball", "bone"), ragged=True, rows_of="things"),
}
COUNT = 12


def labels(number: int) -> tuple:
    return (
        number % 3 - (number == 4) * 2,  # number 4 is not stated
        20 + number,
        number / 7,
        [number % 2, 1, -1],
        (number, 2, 30, 40),
        np.arange(10).reshape(5, 2) + number / 4,
        [(number, box, 5, 6) for box in range(number % 3)],
        np.arange(number % 3) % 2,
    )


class Pets:
    """Twelve images of four animals, with labels of every kind."""

    name, licence = "pets", "none"
    fields, cls, cluster = FIELDS, "breed", True

    def __init__(self, **changed) -> None:
        self.changed = changed  # {place of a label: another value for sample 5}

    def samples(self) -> Iterator[Sample]:
        for number in range(COUNT):
            values = list(labels(number))
            if number == 5:
                for name, value in self.changed.items():
                    values[list(self.fields).index(name)] = value
            yield Sample(f"{number}.jpg", f"pet{number // 3}", f"{number:02d}", labels=tuple(values))

    def read(self, sample: Sample) -> bytes:
        return b"" if sample.stem == "07" else jpeg(photo(int(sample.stem), 40, 32))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pets")
    return pack(Pets(), out, Request(shard_mb=0.01), workers=1)[0].folder


@pytest.fixture
def folder(good, tmp_path) -> Path:
    return shutil.copytree(good, tmp_path / "train")


def numbers(shards: ShardSet) -> list[int]:
    """The numbers of the samples in the order of the set, from their keys."""
    return [int(shards.member(row).partition("/")[2].removesuffix(".jpg")) for row in range(len(shards))]


def test_columns_hold_what_the_source_states_without_the_rejected(good):
    shards = ShardSet.open(good, fields=["breed", "landmarks"])
    assert shards.manifest["schema"] == 2
    assert (shards.schema.cls, len(shards), len(shards.shards) > 1) == ("breed", COUNT - 1, True)
    rows = numbers(shards)
    assert sorted(rows) == [number for number in range(COUNT) if number != 7]
    for place, (name, field) in enumerate(shards.schema.fields.items()):
        if field.ragged:
            ragged = shards.ragged[name]
            lists = [np.reshape(labels(number)[place], (-1, *field.shape)) for number in rows]
            chosen = np.array([3, 0, 3, len(rows) - 1])
            values, counts = ragged.rows_of(chosen)
            assert len(ragged) == len(rows)
            assert np.array_equal(ragged.rows, np.concatenate(lists))
            assert np.array_equal(values, np.concatenate([lists[one] for one in chosen]))
            assert counts.tolist() == [len(lists[one]) for one in chosen]
            assert not ragged.rows.flags.writeable
            continue
        expected = np.array([labels(number)[place] for number in rows], field.dtype)
        assert shards.labels[name].dtype == field.dtype
        assert np.array_equal(shards.labels[name], expected)
        assert not shards.labels[name].flags.writeable


def test_batches_of_several_sets_hold_arrays_of_labels(good):
    shards = ShardSet.open(good)
    builder = RequestBuilder([shards, shards], ["size", "breed"], view=View((8, 8)))
    ids, sets = np.array([[0, 3], [5, 1]]), np.array([[0, 1], [1, 0]], np.int8)
    request = builder.training(Slots(ids, sets, np.arange(2), np.zeros(2, bool)), seed=1)
    builder.close()
    assert np.array_equal(request.labels["size"], shards.labels["size"][ids])
    assert np.array_equal(request.labels["breed"], shards.labels["breed"][ids])


def test_webdataset_reads_the_members(good):
    wds = pytest.importorskip("webdataset")
    shards = ShardSet.open(good)
    urls = [str(path) for path in shards.shards]
    seen = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(seen) == len(shards)
    for row, (sample, number) in enumerate(zip(seen, numbers(shards), strict=True)):
        assert sample["jpg"].shape == (32, 40, 3)
        assert sample["cls"] == labels(number)[0]
        assert sample["json"] == {name: shards.labels[name][row].tolist() for name in shards.labels}
        for name, ragged in shards.ragged.items():
            assert np.array_equal(sample[f"{name}.npy"], ragged.rows_of([row])[0])
            assert sample[f"{name}.npy"].dtype == shards.schema.fields[name].dtype
    first = next(iter(wds.WebDataset(urls, shardshuffle=False, empty_check=False)))
    assert (
        first["json"] == json.dumps(json.loads(first["json"]), sort_keys=True, separators=(",", ":")).encode()
    )


def test_check_makes_the_members_again(folder):
    assert not list(check_set(folder, workers=1))
    shards = ShardSet.open(folder)
    path = shards.shards[0]
    data = path.read_bytes()
    place = data.index(b'"age":2') + 7
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    (problem,) = check_set(folder, workers=1)
    assert (problem.file, problem.member) == (path.name, shards.member(0).replace(".jpg", ".json"))
    assert "as in the index" in problem.reason


def test_info_says_what_the_labels_are(good):
    rows = dict(facts(ShardSet.open(good)))
    assert rows["label breed"] == "cat: 4, dog: 2, owl: 4, unknown: 1"
    assert rows["label age"].startswith("20: 1, 21: 1")
    assert rows["label marks"] == "smile: 45.5%, hat: 100.0%, beard: not stated, unknown: 11"
    assert rows["label face"] == "boxes of shape (4,), 0 to 40"
    assert rows["label things"] == "0 to 2 (median 1) an image: boxes of shape (4,), 0 to 11"
    assert rows["label kinds"] == "0 to 2 (median 1) an image: ball: 7, bone: 4"
    assert rows["label landmarks"] == "points of shape (5, 2), 0 to 11.75"


def commit_again(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    manifest["files"] = [file_entry(folder / one["name"], name=one["name"]) for one in manifest["files"]]
    write_manifest(folder, manifest)


@pytest.mark.parametrize("name", ["breed", "marks", "face", "landmarks", "things.rows", "kinds.start"])
def test_a_changed_column_is_refused(folder, name):
    path = folder / "index" / f"labels.{name}.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x05")
    with pytest.raises(
        UserError, match=rf"labels.{name}: (its bytes are not|does not rise)".replace(":", ".npy:", 1)
    ):
        ShardSet.open(folder)


def test_large_sets_verify_rows_that_reach_over_blocks(good, folder, monkeypatch):
    """A row of five points takes 40 bytes: with blocks of 64 bytes, some rows are in two of them."""
    monkeypatch.setattr(columns, "BLOCK_BYTES", 64)
    monkeypatch.setattr(shard_set, "WHOLE", 0)
    with open(folder / columns.BLOCKS, "wb") as file:
        for path in sorted((folder / "index").glob("*.npy")):
            if not path.stem.endswith("_start"):
                file.writelines(columns.block_digests(path, 64))
    commit_again(folder)
    path = folder / "index" / "labels.landmarks.npy"
    data = bytearray(path.read_bytes())
    data[128 + 3 * 40 + 39] ^= 1  # the end of row 3 is in the block after that of its beginning
    path.write_bytes(data)
    shards = ShardSet.open(folder)
    shards.verify(np.array([0, 1]))
    with pytest.raises(UserError, match=r"labels.landmarks.npy: its bytes are not those"):
        shards.verify(np.array([3]))
    path.write_bytes((good / "index" / path.name).read_bytes())
    boxes = folder / "index" / "labels.things.rows.npy"
    boxes.write_bytes(boxes.read_bytes()[:-1] + b"\x07")
    owner = int(np.flatnonzero(np.diff(shards.ragged["things"].start.astype(int)))[-1])
    shards.verify(np.array([0, 1]))
    with pytest.raises(UserError, match=r"labels.things.rows.npy: its bytes are not those"):
        shards.verify(np.array([owner]))


def test_values_that_a_field_cannot_have_are_refused_though_all_hashes_fit(folder):
    table = np.load(folder / "index" / "labels.breed.npy", mmap_mode="r+")
    table[2] = 3
    table.flush()
    commit_again(folder)
    with pytest.raises(
        UserError, match=r"labels.breed.npy: a value is not 0 to 2 or -1 \(unknown\): copy it"
    ):
        ShardSet.open(folder)


@pytest.mark.parametrize(("row", "value"), [(0, 1), (4, 99), (9, 0), (COUNT - 1, 3)])
def test_starts_of_a_ragged_label_rise_though_all_hashes_fit(folder, row, value):
    table = np.load(folder / "index" / "labels.things.start.npy", mmap_mode="r+")
    table[row] = value
    table.flush()
    commit_again(folder)
    with pytest.raises(UserError, match=r"labels.things.start.npy: (row \d+ cannot be|does not rise from 0)"):
        ShardSet.open(folder)


def test_rows_go_with_their_boxes_though_all_hashes_fit(folder):
    table = np.load(folder / "index" / "labels.kinds.start.npy", mmap_mode="r+")
    row = int(np.flatnonzero(np.diff(table.astype(int)))[0])
    table[row + 1] -= 1
    table.flush()
    with open(folder / columns.BLOCKS, "wb") as file:
        for path in sorted((folder / "index").glob("*.npy")):
            if not path.stem.endswith("_start"):
                file.writelines(columns.block_digests(path))
    commit_again(folder)
    words = rf"labels.kinds.start.npy: row {row}: kinds has \d rows for \d rows of things"
    with pytest.raises(UserError, match=words):
        ShardSet.open(folder)
    assert any("rows of things" in problem.reason for problem in check_set(folder, workers=1))


def test_a_manifest_from_before_rows_went_with_boxes_is_read(folder):
    fields = json.loads((folder / "manifest.json").read_text())["fields"]
    assert fields["kinds"].pop("rows_of") == "things"
    commit_again(folder, fields=fields)
    assert ShardSet.open(folder).schema.fields["kinds"].rows_of == ""


def test_a_set_without_a_single_box_opens(tmp_path):
    source = Pets()
    places = {list(FIELDS).index(name): value for name, value in {"things": [], "kinds": ()}.items()}
    source.samples = lambda: (
        one._replace(labels=tuple(places.get(place, value) for place, value in enumerate(one.labels)))
        for one in Pets().samples()
    )
    shards = ShardSet.open(pack(source, tmp_path, Request(), workers=1)[0].folder)
    values, counts = shards.ragged["things"].rows_of(np.arange(len(shards)))
    assert (values.shape, counts.sum()) == ((0, 4), 0)
    assert not list(check_set(shards.folder, workers=1))
    assert dict(facts(shards))["label things"].endswith("boxes of shape (4,), none stated")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "class", "dtype": "i4"}, r"fields.breed: names=\(\): type the names"),
        ({"kind": "value", "dtype": "f8"}, r"fields.breed: dtype='f8'"),
        ({"kind": "value", "dtype": "i4", "shape": [2]}, r"labels.breed.npy: its rows do not have the shape"),
        ({"kind": "value", "dtype": "i4", "shape": 2}, r"fields.breed.shape: 2 is not a list"),
        ({"dtype": "i4", "largest": 2}, r"it has no fields.breed.kind"),
        ({"kind": "value", "dtype": "i4", "ragged": True}, r"it has no fields.breed.rows"),
        ({"kind": "value", "dtype": "i4", "ragged": True, "rows": 3}, r"list 'index/labels.breed.rows.npy'"),
        ({"kind": "value", "dtype": "i4"}, r"cls='breed': is not a single class of a sample: type identity"),
    ],
)
def test_a_manifest_whose_fields_cannot_be_is_refused(folder, entry, words):
    fields = json.loads((folder / "manifest.json").read_text())["fields"]
    changes = {"cls": "identity"} if "npy" in words else {}
    commit_again(folder, fields=fields | {"breed": entry}, **changes)
    with pytest.raises(UserError, match=rf"{words}.*: copy it again or pack the set again$"):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"breed": 3}, r"breed=3 of 5.jpg: is not 0 to 2 or -1 \(unknown\); correct the source"),
        ({"age": 2.5}, r"age=2.5 of 5.jpg: is not a whole number of"),
        ({"age": "old"}, r"age='old' of 5.jpg: is not an array of numbers of shape \(\)"),
        ({"marks": [0, 1]}, r"marks=\[0, 1\] of 5.jpg: does not have the shape \(3,\)"),
        ({"marks": [0, 1, 7]}, r"marks=\[0, 1, 7\] of 5.jpg: is not 0 to 1"),
        ({"size": float("nan")}, r"size=nan of 5.jpg: is not a finite number"),
        (
            {"things": [(1, 2, 3)]},
            r"things=\[\(1, 2, 3\)\] of 5.jpg: is not a list of arrays of shape \(4,\)",
        ),
        ({"things": 3}, r"things=3 of 5.jpg: is not a list of arrays of shape \(4,\)"),
        ({"kinds": [0, 2]}, r"kinds=\[0, 2\] of 5.jpg: is not 0 to 1"),
        ({"kinds": [0, 1, 0]}, r"kinds has 3 rows for 2 rows of things of 5.jpg: give one for each"),
        ({"things": []}, r"kinds has 2 rows for 0 rows of things of 5.jpg: give one for each"),
        ({"landmarks": np.zeros((4, 2))}, r"landmarks=array.* of 5.jpg: does not have the shape \(5, 2\)"),
    ],
)
def test_a_label_that_does_not_fit_names_its_sample(tmp_path, changed, words):
    with pytest.raises(UserError, match=f"^{words}") as refused:
        pack(Pets(**changed), tmp_path, Request(), workers=1)
    assert str(refused.value).isprintable()
    assert not (tmp_path / "train" / "manifest.json").exists()


def test_images_whose_labels_are_places_keep_their_pixels(tmp_path):
    with pytest.raises(UserError, match=r"^size=32: source=test_labels states places .*\(face\): leave size"):
        pack(Pets(), tmp_path, Request(size=32), workers=1)
    source = Pets()
    source.samples = lambda: (sample._replace(crop=20.0) for sample in Pets().samples())
    with pytest.raises(UserError, match=r"^crop=20.0 of \d+.jpg: source=test_labels states places in pixels"):
        pack(source, tmp_path, Request(), workers=1)


def test_labels_and_fields_are_as_many(tmp_path):
    source = Pets()
    source.fields = {"age": "i4"}
    source.cls = None
    with pytest.raises(
        UserError, match=r"labels=8 of \d+.jpg: the source declares 1 \(age\); give one for each"
    ):
        pack(source, tmp_path, Request(), workers=1)


def test_an_array_counts_in_the_fingerprint_to_its_last_number(tmp_path):
    """numpy prints long arrays without their middle."""
    requests = set()
    for number, last in enumerate((1.0, 2.0)):
        source = Pets(long=np.append(np.zeros(5000), [last, *[0.0] * 5000]))
        source.fields = {"long": Field("value", "f4", (10_001,))}
        source.cls = None
        source.samples = lambda source=source: iter(
            [Sample("0.jpg", "pet", "00", labels=(source.changed["long"],))]
        )
        (made,) = pack(source, tmp_path / str(number), Request(), workers=1)
        requests.add(made.manifest["request"])
    assert len(requests) == 2
