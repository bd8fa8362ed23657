"""Lists of rows: chosen and weighed as labels would be; whatever else a file holds is refused by its line."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.sampling import row_file
from data_shards.sampling.order import PlainOrder
from data_shards.sampling.rows import Rows
from data_shards.sampling.weighted import WeightedOrder
from tests.support.labelled_set import LabelledSet, assert_equal, sets, whole

DIGEST = hashlib.sha256(b"a manifest").hexdigest()


def listed(path: Path, rows: np.ndarray, weights: np.ndarray) -> str:
    notes = [[f'image {row}, of "somebody"'] for row in rows.tolist()]
    row_file.write_list(path, DIGEST, rows.tolist(), weights.tolist(), names=["member"], notes=notes)
    return f"@{path}"


@settings(max_examples=40, deadline=None)
@given(sets(), st.integers(0, 9), st.booleans())
def test_a_list_is_the_expression_that_chooses_the_same_rows(tmp_path_factory, shards, seed, located):
    shards.digest = DIGEST
    rows = np.flatnonzero(shards.labels["quality"] > 0)
    file = listed(tmp_path_factory.mktemp("list") / "rows.csv", rows[::-1], np.ones(len(rows)))
    one = Rows(shards, row_file.located(file, key="data.rows") if located else file)
    other = Rows(shards, "quality>0")
    assert len(one) == len(rows)
    assert one.ids(np.arange(len(one))).tolist() == rows.tolist()
    assert one.shard_start.tolist() == other.shard_start.tolist()
    assert_equal(whole(PlainOrder(one, seed), 0, 64, 2), whole(PlainOrder(other, seed), 0, 64, 2))


@settings(max_examples=40, deadline=None)
@given(sets(), st.integers(0, 9))
def test_a_list_of_weights_is_the_label_with_the_same_numbers(tmp_path_factory, shards, seed):
    shards.digest = DIGEST
    quality = shards.labels["quality"]
    rows = np.flatnonzero(quality > 0)
    file = listed(tmp_path_factory.mktemp("list") / "weights.csv", rows, quality[rows])
    one, other = WeightedOrder(shards, seed, file), WeightedOrder(shards, seed, "quality")
    assert_equal(whole(one, 0, 64, 2), whole(other, 0, 64, 2))
    part = WeightedOrder(Rows(shards, "race>=1 or race==-1 or race==0"), seed, file)
    assert part.epoch_slots == one.epoch_slots


@pytest.fixture
def shards() -> LabelledSet:
    return LabelledSet(
        folder="/sets/train",
        digest=DIGEST,
        labels={},
        identity_start=np.array([0, 200], np.uint64),
        shard_start=np.array([0, 100, 200], np.uint64),
    )


HEAD = f"# set {DIGEST}\nrow,weight\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is not `# set <sha256>`"),
        ("row,weight\n1,1\n", "its first line is not `# set <sha256>`"),
        (HEAD.replace(DIGEST, "0" * 64) + "1,1\n", "lists rows of another set than /sets/train"),
        (HEAD.replace("row,", "id,") + "1,1\n", "its second line does not begin with `row,weight`"),
        (HEAD, "lists no row"),
        (HEAD + "3,1\n200,1\n", "line 4 is not a row from 0 to 199 and a weight from 0"),
        (HEAD + "-1,1\n", "line 3 is not a row"),
        (HEAD + "1,-0.5\n", "line 3 is not a row"),
        (HEAD + "1,nan\n", "line 3 is not a row"),
        (HEAD + "1,inf\n", "line 3 is not a row"),
        (HEAD + "1\n", "line 3 is not a row"),
        (HEAD + "1.5,1\n", "line 3 is not a row"),
        (HEAD + "7,1\n9,1\n7,1\n", "lists row 7 twice"),
        (HEAD + "\ud8ff", "is not UTF-8 text"),
    ],
)
def test_what_is_not_a_list_of_the_set_is_refused(shards, tmp_path, text, message):
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"data\.rows=@") as refused:
        Rows(shards, f"@{path}")
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_list_is_known_by_its_content(shards, tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text(HEAD + "1,1\n")
    monkeypatch.chdir(tmp_path)
    text = row_file.located("@rows.csv", key="data.rows")
    assert text == f"@{path}#{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert row_file.located(text, key="data.rows") == text
    assert row_file.shown(text) == f"@{path}"
    assert row_file.located("race==0", key="data.rows") == "race==0"
    assert len(Rows(shards, text)) == 1
    path.write_text(HEAD + "1,1\n2,1\n")
    with pytest.raises(UserError, match="is not the list that this run began with"):
        row_file.located(text, key="data.rows")
    with pytest.raises(UserError, match="was changed: restore it"):
        Rows(shards, text)
    with pytest.raises(UserError, match=r"data\.rows=@.*no\.csv does not exist"):
        row_file.located("@no.csv", key="data.rows")
