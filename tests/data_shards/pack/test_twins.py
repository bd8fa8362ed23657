"""Twins: the same ids at a lower resolution, part of the set, whole or absent, the set itself unchanged."""

import json
import shutil
import tarfile
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.images.twin import decode_png
from data_shards.inspect.check import check_set
from data_shards.loading import node_cache
from data_shards.pack import twins
from data_shards.shard_format.manifest import read_manifest
from data_shards.shard_format.shard_set import ShardSet
from data_shards.shard_format.twins import open_twin, twin_sizes, twins_of
from launch.cli import main
from tests.support.image_folders import tree
from tests.support.small_set import jpeg, photo

SIZES = [(200, 150), (90, 160), (64, 100), (40, 40), (130, 130)]  # width, height


@pytest.fixture(scope="module")
def src(tmp_path_factory):
    """Three people with images of many sizes, one of them grey."""
    src = tmp_path_factory.mktemp("src")
    for person in range(3):
        (src / f"p{person}").mkdir()
        for number, (width, height) in enumerate(SIZES):
            image = photo(10 * person + number, width, height)
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if (person, number) == (1, 0) else image
            (src / f"p{person}" / f"{number}.jpg").write_bytes(jpeg(image))
    return src


@pytest.fixture(scope="module")
def bare(src, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert main(["pack", "source=folder", f"src={src}", f"out={out}", "name=x", "shard_mb=0.03"]) == 0
    return out / "train"


@pytest.fixture
def folder(bare, tmp_path):
    return shutil.copytree(bare, tmp_path / "train")


@pytest.fixture(scope="module")
def twinned(bare, tmp_path_factory):
    folder = shutil.copytree(bare, tmp_path_factory.mktemp("twinned") / "train")
    assert twins.add_twins(folder, [96, 32, 64], workers=1) == [32, 64, 96]
    return folder


def test_rows_are_the_images_made_small_by_area(twinned):
    shards = ShardSet.open(twinned)
    assert len(shards.shards) > 2
    for side in twins_of(shards):
        twin = open_twin(shards, side)
        for row in range(len(shards)):
            width, height = int(shards.width[row]), int(shards.height[row])
            if min(width, height) <= side:
                assert not any(int(column[row]) for column in twin.columns.values())
                continue
            size = int(twin.width[row]), int(twin.height[row])
            assert min(size) == side
            assert abs(max(size) - max(width, height) * side / min(width, height)) <= 0.5
            data = read(twin.shards[int(twin.shard[row])], twin, row)
            assert zlib.crc32(data) == twin.crc[row]
            with open(shards.shards[int(shards.shard[row])], "rb") as file:
                file.seek(int(shards.offset[row]))
                original = simplejpeg.decode_jpeg(
                    file.read(int(shards.size[row])), fastdct=False, fastupsample=False
                )
            exact = cv2.resize(original, size, interpolation=cv2.INTER_AREA)
            small = decode_png(data, size) if side <= 64 else simplejpeg.decode_jpeg(data)
            worst = np.abs(small.astype(int) - exact.astype(int)).mean()
            assert worst == 0 if side <= 64 else worst < 1


def read(path, twin, row) -> bytes:
    with open(path, "rb") as file:
        file.seek(int(twin.offset[row]))
        return file.read(int(twin.size[row]))


def test_they_are_tars_of_the_same_names_for_other_readers(twinned):
    shards = ShardSet.open(twinned)
    names = [shards.member(row).removesuffix(".jpg") for row in range(len(shards))]
    for side, ending in ((32, "png"), (96, "jpg")):
        twin = open_twin(shards, side)
        present = [name for name, size in zip(names, twin.size, strict=True) if size]
        members = []
        for path in twin.shards:
            with tarfile.open(path) as tar:
                members += tar.getnames()
        assert members == [f"{name}.{ending}" for name in present]
        urls = [str(path) for path in twin.shards if path.stat().st_size > 1024]
        samples = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
        assert [(sample["__key__"], min(sample[ending].shape[:2])) for sample in samples] == [
            (name, side) for name in present
        ]


def test_the_set_stays_what_it_is(bare, twinned):
    before, after = tree(bare), tree(twinned)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: digest for name, digest in before.items() if name != "manifest.json"
    }
    (plain, digest), (with_twins, same) = read_manifest(bare), read_manifest(twinned)
    assert "twins" not in plain
    assert digest == same
    assert {key: value for key, value in with_twins.items() if key not in ("twins", "sha256")} == {
        key: value for key, value in plain.items() if key != "sha256"
    }


def test_workers_and_order_change_no_byte(folder, twinned):
    assert twins.add_twins(folder, [64], workers=1) == [64]
    assert twins.add_twins(folder, [96, 32], workers=2) == [32, 96]
    assert tree(folder) == tree(twinned)
    assert twins.add_twins(folder, [32, 64], workers=1) == []
    assert tree(folder) == tree(twinned)


def test_packing_makes_them_and_names_them(tmp_path, src, bare, capsys):
    words = ["pack", "source=folder", f"src={src}", f"out={tmp_path}", "name=x", "shard_mb=0.03", "workers=1"]
    assert main(words) == 0
    assert tree(tmp_path / "train") == tree(bare)
    assert main([*words, "twins=[32]"]) == 0
    assert "is there already" in (text := capsys.readouterr().out)
    assert "twins of 32 pixels" in text
    assert main(["twins", str(tmp_path), "sizes=[32,96]", "workers=1"]) == 0
    assert "twins of 96 pixels" in capsys.readouterr().out
    assert main(["info", str(tmp_path), f"out={tmp_path}"]) == 0
    assert "twin 32" in (text := capsys.readouterr().out)
    assert "6 of 15 images" in text
    assert main(["check", str(tmp_path), "workers=1"]) == 0


@pytest.mark.parametrize("stop", range(1, 5))
def test_what_stops_in_the_middle_leaves_the_set_and_resumes(folder, twinned, bare, monkeypatch, stop):
    """At the nth shard that is committed; then the same call ends with the same bytes."""
    commit, count = twins.PackJournal.commit, []

    def stopping(*arguments):
        count.append(1)
        if len(count) == stop:
            raise KeyboardInterrupt
        commit(*arguments)

    monkeypatch.setattr(twins.PackJournal, "commit", stopping)
    with pytest.raises(KeyboardInterrupt):
        twins.add_twins(folder, [32, 64, 96], workers=1)
    monkeypatch.setattr(twins.PackJournal, "commit", commit)
    assert read_manifest(folder) == read_manifest(bare)
    assert twins_of(ShardSet.open(folder)) == []
    assert [problem.file for problem in check_set(folder, workers=1)] == [
        f"twins/{side}" for side in (32, 64, 96)
    ]
    made = []
    real = twins.make_twins
    monkeypatch.setattr(twins, "make_twins", lambda *job: made.append(job) or real(*job))
    twins.add_twins(folder, [32, 64, 96], workers=1)
    assert sum(len(places) for _, _, places in made) == 3 * len(ShardSet.open(folder).shards) - stop + 1
    assert tree(folder) == tree(twinned)


def test_every_damaged_byte_is_named(twinned, tmp_path):
    for nth in range(6):
        copy = shutil.copytree(twinned, tmp_path / str(nth))
        rng = np.random.default_rng(nth)
        paths = sorted(path for path in (copy / "twins").rglob("*") if path.is_file())
        path = paths[int(rng.integers(len(paths)))]
        data = bytearray(path.read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        assert {problem.file for problem in check_set(copy, workers=1)} == {str(path.relative_to(copy))}


def test_damage_is_noticed_where_a_set_is_opened(twinned, tmp_path):
    copy = shutil.copytree(twinned, tmp_path / "a")
    path = copy / "twins/32/index/width.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"twins/32/index/width\.npy: its bytes are not"):
        open_twin(ShardSet.open(copy), 32)
    shutil.rmtree(copy / "twins" / "64")
    with pytest.raises(UserError, match=r"twins/64/.*No such file"):
        ShardSet.open(copy)


def test_a_large_index_is_verified_by_blocks(twinned, tmp_path, monkeypatch):
    monkeypatch.setattr("data_shards.shard_format.twins.WHOLE", 0)
    copy = shutil.copytree(twinned, tmp_path / "a")
    rows = np.arange(3)
    open_twin(ShardSet.open(copy), 32).verify(rows)
    path = copy / "twins/32/index/crc.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"twins/32/index/crc\.npy: its bytes are not"):
        open_twin(ShardSet.open(copy), 32).verify(rows)


def test_staging_copies_them(twinned, bare, tmp_path):
    node_cache.stage([bare, twinned], tmp_path / "node")
    for source in (bare, twinned):
        assert tree(node_cache.place(source, tmp_path / "node")) == tree(source)


def test_a_manifest_never_leads_out_of_the_folder(twinned, tmp_path):
    from data_shards.shard_format.manifest import write_manifest

    for name in ("twins/32/../x", "twins/64/x-000000.tar", "x-000000.tar", "twins/32//x"):
        copy = shutil.copytree(twinned, tmp_path / "a", dirs_exist_ok=True)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["twins"][0]["shards"][0]["name"] = name
        write_manifest(copy, manifest)
        with pytest.raises(UserError, match=r"no plain name|names a file twice"):
            read_manifest(copy)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["sizes=[4]"], "sizes=[4]: type pixels of the shorter side, from 8 to 4096"),
        (["sizes=[32,32]"], "sizes=[32,32]: has a size twice"),
        (["sizes=[a]"], "sizes=[a] is not a list of whole numbers: type sizes=[64,256]"),
        (["sizes=[]"], "sizes= is empty"),
        (["sizes=[150]"], "no image of"),
        ([], "sizes is missing"),
    ],
)
def test_bad_input_is_one_line(bare, capsys, words, text):
    assert main(["twins", str(bare), *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert len(error.splitlines()) == 1
    assert not (bare / "twins").exists()


def test_twins_as_large_as_the_images_are_refused_before_packing(tmp_path, capsys):
    words = ["pack", "source=procedural", f"out={tmp_path}", "size=64", "twins=[64]"]
    assert main(words) == 2
    assert "twins=[64]: images of size=64 are not larger; type a smaller one" in capsys.readouterr().err


@given(st.integers(1, 60_000), st.integers(1, 60_000), st.integers(8, 4096))
def test_sizes_keep_the_shape(width, height, side):
    wide, high = (int(each[0]) for each in twin_sizes(np.array([width]), np.array([height]), side))
    if min(width, height) <= side:
        assert (wide, high) == (0, 0)
    else:
        assert min(wide, high) == side
        assert wide <= width
        assert high <= height
        assert abs(wide / width - high / height) * max(width, height) <= 0.5 + 1e-6
