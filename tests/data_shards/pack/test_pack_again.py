"""Packing beside sets that are there already: nobody is held out and trained on; older manifests are read."""

import json
import shutil

import pytest

from data_shards.errors import UserError
from data_shards.inspect.summary import facts
from data_shards.pack.request import Request
from data_shards.shard_format.manifest import write_manifest
from data_shards.shard_format.shard_set import ShardSet
from tests.data_shards.pack.test_pack import names, packed
from tests.support.image_folders import identity_folders


@pytest.fixture(scope="module")
def src(tmp_path_factory):
    return identity_folders(tmp_path_factory.mktemp("src"))


def test_nobody_who_was_held_out_is_trained_on_because_a_set_was_removed(src, tmp_path):
    packed(src, tmp_path, workers=1)
    shutil.rmtree(tmp_path / "train")
    everybody = Request(name="faces", shard_mb=0.01)
    held_out = rf"holds people of the same source set aside by holdout=0.3, .*; remove {tmp_path}/eval, or"
    with pytest.raises(UserError, match=held_out):
        packed(src, tmp_path, everybody, workers=1)
    assert not (tmp_path / "train").exists()
    packed(src, tmp_path, Request(name="others", shard_mb=0.01), workers=1)  # not the set of this name
    shutil.rmtree(tmp_path / "eval")
    shutil.rmtree(tmp_path / "train")
    packed(src, tmp_path, everybody, workers=1)
    assert len(names(ShardSet.open(tmp_path / "train"))) == 6
    # A set of this name that shares nobody by holdout=.
    other = Request(name="faces", shard_mb=0.01, split="eval")
    packed(src, tmp_path, other, workers=1)
    assert packed(src, tmp_path, everybody, workers=1)[0].already


def test_sets_packed_before_manifests_had_the_source_split_are_read(src, tmp_path):
    for made in packed(src, tmp_path, workers=1):
        manifest = json.loads((made.folder / "manifest.json").read_text())
        del manifest["source_split"]
        write_manifest(made.folder, manifest)
        assert facts(ShardSet.open(made.folder))[0] == ("source", "folder")
    assert [made.already for made in packed(src, tmp_path, workers=1)] == [True, True]
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(UserError, match="set aside by holdout"):
        packed(src, tmp_path, Request(name="faces"), workers=1)
