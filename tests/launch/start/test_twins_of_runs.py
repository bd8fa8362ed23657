"""The twins of a run: named by its config, part of its identity, the same bytes when it is resumed."""

import dataclasses
import json
import shutil

import pytest

from data_shards.errors import UserError
from data_shards.pack.twins import add_twins
from data_shards.shard_format.manifest import read_manifest, write_manifest
from hpc.config.check import check
from hpc.config.identity import identity
from hpc.config.schema import Config
from hpc.runs.run_dir import RunDir
from launch.options.compose import composed
from launch.start import data, set_digests, table
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = pack_set(tmp_path_factory.mktemp("set"), identities=16, each=3, holdout=0.3)
    add_twins(out / "train", [16], workers=1)
    return out


def config_of(shards, *words: str) -> Config:
    config = composed(["task=siamese", f"data.train={shards / 'train'}", "data.size=32", *words])
    check(config)
    return data.locate_data(config)


def test_a_run_without_the_key_keeps_its_identity_and_its_set(shards):
    config = config_of(shards)
    assert identity(config) == identity(dataclasses.replace(config, name="other"))
    assert config.data.twins == []
    assert identity(config) != identity(config_of(shards, "data.twins=[16]"))
    assert set_digests.digests(config)["train"] == read_manifest(shards / "train")[1]
    assert "twins" not in set_digests.digests(config)
    assert "train" in data.check_data(config)


def test_the_twins_that_a_run_began_with_are_those_it_resumes_with(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "shards")
    config = config_of(tmp_path / "shards", "data.twins=[16]")
    run = RunDir(tmp_path)
    run.data_file.write_text(json.dumps(set_digests.digests(config)))
    set_digests.check_digests(run, config)
    add_twins(tmp_path / "shards" / "train", [24], workers=1)  # another one changes nothing
    set_digests.check_digests(run, config)
    manifest, digest = read_manifest(tmp_path / "shards" / "train")
    manifest["twins"][0]["shards"][0]["sha256"] = "0" * 64
    write_manifest(tmp_path / "shards" / "train", manifest)
    assert read_manifest(tmp_path / "shards" / "train")[1] == digest
    with pytest.raises(
        UserError, match=r"data\.twins=\[16\]: those of .* are not the ones that run .* began"
    ):
        set_digests.check_digests(run, config)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["data.twins=[64]"],
            r"data\.twins=\[64\]: .* has no twin of 64 pixels \(only 16\): type rostro twins",
        ),
        (["data.twins=[64,16]"], r"data\.twins=\[64,16\] does not rise: type data\.twins=\[16,64\]"),
        (["data.twins=[4]"], r"data\.twins=\[?4\]? .*8"),
        (["data.twins=16"], r"data\.twins=16 is not a list: write data\.twins=\[64\]"),
        (["data.twins=[a]"], r"data\.twins=\[a\] is not a list of whole numbers"),
        (
            ["data.twins=[16]", "data.stream=true"],
            r"data\.twins=\[16\] needs the set's index, data\.stream=true",
        ),
    ],
)
def test_bad_input_is_one_line(shards, words, text):
    with pytest.raises(UserError, match=text) as refused:
        data.check_data(config_of(shards, *words))
    assert len(str(refused.value).splitlines()) == 1


def test_the_plan_names_them(shards):
    from launch.start.plan import RunPlan

    config = config_of(shards, "data.twins=[16]")
    said = dict(table.rows(RunPlan(config, sets=data.check_data(config))))
    assert said["images"].endswith(", twins 16")
