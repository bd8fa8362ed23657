"""Fields of a set: what a source may declare, each bad one refused in a line, and the manifest's form."""

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.files import conform
from data_shards.shard_format.schema import SHAPE, Field, declared_schema
from data_shards.shard_format.shard_set import ShardSet
from tests.support.scenes import pack_scenes

GOOD = {
    "breed": Field("class", "i4", names=("cat", "dog")),
    "age": Field("value", "f4"),
    "count": Field("value", "u1", unknown=None),
    "marks": Field("bits", "i1", (3,), ("smile", "hat", "beard")),
    "face": Field("boxes", "f4", (4,), unknown=None),
    "things": Field("boxes", "f4", (4,), ragged=True),
    "kinds": Field("class", "i4", names=("ball", "bone"), ragged=True, rows_of="things"),
    "parts": Field("mask", "u1", names=("skin", "hair")),
    "b": Field("image", "u1"),
    "landmarks": Field("points", "f4", (5, 2), ("l", "r", "n", "ml", "mr")),
}


def test_the_short_form_is_a_plain_value_and_stays_schema_1():
    schema = declared_schema({"age": "i4", "weight": "f4"}, "identity")
    assert schema.fields == {"age": Field("value", "i4"), "weight": Field("value", "f4")}
    assert schema.to_json() == {"schema": 1, "fields": {"age": "i4", "weight": "f4"}}
    assert declared_schema({"age": Field("value", "i4", unknown=None)}, "identity").number == 2
    assert declared_schema({"age": "i4"}, None).number == 2


@pytest.mark.parametrize("name", GOOD)
def test_a_field_comes_back_from_the_manifest(name):
    entry = GOOD[name].to_json()
    assert not conform(entry, SHAPE)
    assert Field.from_json(entry) == GOOD[name]
    declared = {name: GOOD[name], "things": GOOD["things"]}
    assert declared_schema(declared, None).fields == declared


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (Field("label", "i4"), r"kind='label': type one of class, value, bits, boxes, points, image, mask"),
        (Field("value", "f8"), r"dtype='f8': a field of kind value has i1, u1, i2, u2, i4 or f4"),
        (Field("class", "f4", names=("a",)), r"dtype='f4': a field of kind class has i1, i2 or i4"),
        (Field("value", "i4", (0,)), r"shape=\(0,\): type up to three whole numbers above 0"),
        (Field("value", "i4", (2.5,)), r"shape=\(2.5,\): type up to three"),
        (Field("value", "i4", (1 << 20,)), r"shape=\(1048576,\): more than 65,536 bytes a sample"),
        (Field("boxes", "f4", (5,)), r"shape=\(5,\): boxes end in 4, which are x, y, width, height"),
        (Field("points", "f4"), r"shape=\(\): points end in 2, which are x, y"),
        (Field("class", "i4"), r"names=\(\): type the names of the classes"),
        (Field("class", "i4", names=("a", "a")), r"names=\('a', 'a'\): has a name twice"),
        (Field("class", "i4", names=("a\n", "b")), r"names=.*: type printable text"),
        (Field("class", "i1", names=tuple(map(str, range(129)))), r"names: 129 do not fit i1; use i4"),
        (Field("value", "i4", names=("a",)), r"names=\('a',\): a field of kind value has none"),
        (Field("bits", "i1", (3,), ("a", "b")), r"names: 2 for 3 bits; type as many"),
        (Field("points", "f4", (5, 2), ("a",)), r"names: 1 for 5 points; type as many"),
        (Field("points", "f4", (2,), ("a", "b")), r"names: 2 for 1 points; type as many"),
        (Field("mask", "u1", (2,)), r"shape, ragged, unknown: a field of kind mask has none of them"),
        (Field("image", "u1", unknown=255), r"shape, ragged, unknown: a field of kind image has none"),
        (Field("image", "u1", names=("a",)), r"names=\('a',\): a field of kind image has none"),
        (Field("mask", "u1", names=tuple(map(str, range(256)))), r"names: 256 do not fit u1"),
        (Field("value", "u1"), r"unknown=-1: does not fit u1; type a number that does, or None"),
        (Field("value", "f4", unknown=float("nan")), r"unknown=nan: does not fit f4"),
        (Field("value", "f4", unknown=0.1), r"unknown=0.1: does not fit f4"),
        (Field("value", "i4", unknown=0.5), r"unknown=0.5: does not fit i4"),
        (Field("class", "i4", names=("a",), unknown=0), r"unknown=0: stands for a value of its own"),
        (Field("bits", "u1", unknown=1), r"unknown=1: stands for a value of its own"),
    ],
)
def test_a_bad_field_is_one_line_that_says_what_to_type(field, words):
    with pytest.raises(UserError, match=f"^fields.label: {words}") as refused:
        declared_schema({"label": field}, None)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (Field("value", "f4", rows_of="things"), r"rows_of='things': only a ragged field has rows"),
        (Field("value", "f4", ragged=True, rows_of="age"), r"rows_of='age': is not .*: type things$"),
        (Field("value", "f4", ragged=True, rows_of="many"), r"rows_of='many': is not .*: type things$"),
        (
            Field("boxes", "f4", (4,), ragged=True, rows_of="label"),
            r"rows_of='label': is not .*: type things$",
        ),
    ],
)
def test_rows_go_with_ragged_boxes_only(field, words):
    with pytest.raises(UserError, match=f"^fields.label: {words}"):
        declared_schema({"things": GOOD["things"], "age": GOOD["age"], "label": field}, None)


@pytest.mark.parametrize("name", ["identity", "cls", "Age", "a.b", "", "../x", "repeat"])
def test_a_name_that_is_taken_or_strange_is_refused(name):
    with pytest.raises(UserError, match="is not a name of a label: type small letters"):
        declared_schema({name: "i4"}, None)


@pytest.mark.parametrize("cls", ["age", "none", "many"])
def test_cls_is_a_single_class(cls):
    fields = GOOD | {"many": Field("class", "i4", (2,), ("a", "b"))}
    with pytest.raises(UserError, match=f"^cls='{cls}': is not a single class .*: type identity or breed$"):
        declared_schema(fields, cls)
    assert declared_schema(fields, "breed").cls == "breed"


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("breed", [0, 1, -1], ""),
        ("breed", [2], "is not 0 to 1 or -1 (unknown)"),
        ("breed", [0.5], "is not a whole number of -2147483648 to 2147483647 (i4)"),
        ("count", [0, 255], ""),
        ("count", [-1], "is not a whole number of 0 to 255 (u1)"),
        ("marks", [[0, 1, -1]], ""),
        ("marks", [[0, 1, 3]], "is not 0 to 1 or -1 (unknown)"),
        ("age", [1.5, -1], ""),
        ("age", [float("inf")], "is not a finite number"),
    ],
)
def test_values_that_a_field_cannot_have(name, values, reason):
    assert GOOD[name].misfit(np.array(values, np.float64)) == reason


def test_a_set_is_opened_for_labels_of_stated_kinds(tmp_path):
    folder = pack_scenes(tmp_path, 4).folder
    ShardSet.open(folder, fields=("identity:class", "age:value", "boxes:boxes", "parts:mask", "breed"))
    for field, message in (
        (
            "age:bits",
            "the label `age` is of the kind value, not bits; pack a source whose `age` is of the kind",
        ),
        ("hats:bits", "has no label `hats`, only identity, age, "),
    ):
        with pytest.raises(UserError, match=message) as error:
            ShardSet.open(folder, fields=(field,))
        assert str(error.value).startswith(f"{folder}: ")
