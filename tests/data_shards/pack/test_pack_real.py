"""Real samples of published sets, packed whole."""

import numpy as np

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from launch.cli import main
from tests.support.image_folders import REAL, needs_real


@needs_real
def test_real_vggface2_carries_genders(tmp_path):
    made = pack(
        open_source("vggface2", str(REAL / "vggface2"), split="test"), tmp_path, Request(split="test")
    )
    shards = ShardSet.open(made[0].folder, fields=["gender"])
    assert (len(shards), len(shards.identity_start) - 1) == (32, 3)
    assert set(np.asarray(shards.labels["gender"]).tolist()) == {0}
    assert shards.member(0).startswith("n00")


@needs_real
def test_real_orl_is_grey_and_whole(tmp_path):
    made = pack(open_source("orl", str(REAL / "orl_att")), tmp_path, Request(holdout=0.2), workers=1)
    assert [(len(ShardSet.open(one.folder)), one.manifest["identities"]) for one in made] == [
        (160, 16),
        (40, 4),
    ]
    assert main(["check", str(tmp_path)]) == 0
