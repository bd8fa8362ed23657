"""Images of unknown people that are the same file stay in one set."""

import shutil
from pathlib import Path

import pytest

from data_shards.pack.copies import with_copies_together
from data_shards.pack.layout import group, group_of
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from hpc.data.known_people import refuse_shared
from tests.support.small_set import jpeg, photo


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of two classes, each of them twice under another name."""
    folder = tmp_path_factory.mktemp("src")
    for number in range(40):
        place = folder / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.jpg").write_bytes(jpeg(photo(number, 24, 24)))
        shutil.copy(place / f"{number}.jpg", place / f"copy-{number}.jpg")
    return folder


def test_copies_are_one_group_of_the_first_path(src: Path) -> None:
    source = open_source("classes", str(src))
    alone, _ = group(source.samples())
    together = with_copies_together(source, alone)
    assert list(together) == list(alone)
    groups = {group_of(members[0]) for members in together.values()}
    assert groups == {f"class{number % 2}/{number}.jpg" for number in range(40)}


def test_a_pack_divides_no_copies(src: Path, tmp_path: Path) -> None:
    pack(open_source("classes", str(src)), tmp_path, Request(holdout=0.3, val=0.2), workers=1)
    sets = {split: ShardSet.open(tmp_path / split) for split in ("train", "val", "eval")}
    assert sum(map(len, sets.values())) == 80
    assert min(map(len, sets.values())) > 0
    refuse_shared(sets)
