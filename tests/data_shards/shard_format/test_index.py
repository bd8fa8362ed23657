"""The index of a packed set: verified when it is opened or when rows are needed, in new and older formats."""

import json
import os
import shutil

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.files import file_entry
from data_shards.inspect.check import check_set
from data_shards.loading.stream import Sources
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format import columns, shard_set
from data_shards.shard_format.manifest import write_manifest
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from launch.cli import main
from tests.support.image_folders import identity_folders


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    src = identity_folders(tmp_path_factory.mktemp("src"), identities=4, images=3)
    out = tmp_path_factory.mktemp("good")
    return pack(open_source("folder", str(src)), out, Request(name="faces", shard_mb=0.02), workers=1)[
        0
    ].folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "train")


@pytest.fixture
def large(monkeypatch):
    """Every set is one of those whose index is verified block by block."""
    monkeypatch.setattr(shard_set, "WHOLE", 0)


def change(folder, name: str, row: int, value: int) -> None:
    table = np.load(folder / "index" / f"{name}.npy", mmap_mode="r+")
    table[row] = value
    table.flush()


def hash_blocks(folder) -> None:
    with open(folder / columns.BLOCKS, "wb") as file:
        for path in sorted((folder / "index").glob("*.npy")):
            if not path.stem.endswith("_start"):
                file.writelines(columns.block_digests(path, columns.BLOCK_BYTES))


def commit_again(folder, **changes) -> None:
    """What an attacker, or a program gone wrong, would write: a manifest that fits the files as they are."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    manifest["files"] = [
        file_entry(folder / entry["name"], name=entry["name"]) for entry in manifest["files"]
    ]
    write_manifest(folder, manifest)


TABLES = [*shard_set.COLUMNS, *shard_set.STARTS, "labels.identity"]


@pytest.mark.parametrize("name", TABLES)
def test_a_flipped_bit_of_the_index_is_refused_at_open(folder, name):
    path = folder / "index" / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-5] + bytes([path.read_bytes()[-5] ^ 1]) + path.read_bytes()[-4:])
    for opening in (ShardSet.open, lambda folder: Sources.find(str(folder))):
        with pytest.raises(
            UserError, match=rf"index/{name}.npy: its bytes are not .*: copy it again or pack"
        ):
            opening(folder)


@pytest.mark.parametrize("name", TABLES)
def test_rows_that_fit_nothing_are_refused_though_all_hashes_fit(folder, name):
    change(folder, name, 1, 0 if name in ("size", "width", "height", "offset", *shard_set.STARTS) else 5)
    hash_blocks(folder)
    commit_again(folder)
    if name == "crc":  # only reading the image tells
        assert "crc32 differs" in "".join(map(str, check_set(folder, workers=1)))
        return
    with pytest.raises(UserError, match=rf"index/{name}.npy: (row 1 cannot be|does not rise)"):
        ShardSet.open(folder)
    assert [problem.file for problem in check_set(folder, workers=1)] == [f"index/{name}.npy"]


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<u4', 'fortran_order': False, 'shape': (12,), ",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (12,), }",
        b"{'descr': '<u4', 'fortran_order': True, 'shape': (12,), }",
        b"{'descr': '<u4', 'fortran_order': False, 'shape': (3, 4), }",
        b"{'descr': '<u4', 'fortran_order': False, 'shape': (99999999999,), }",
        b"((((((((((((",
    ],
)
def test_a_header_is_compared_and_not_evaluated(folder, header):
    path = folder / "index" / "size.npy"
    data = path.read_bytes()
    path.write_bytes(data[:10] + header.ljust(117) + b"\n" + data[128:])
    commit_again(folder)
    with pytest.raises(UserError, match=r"index/size.npy: .*: copy it again or pack the set again"):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 13}, "samples=13 is not the sum of its shards"),
        ({"samples": "12"}, "samples: '12' is not a whole number"),
        ({"identities": 5}, "fields.identity does not fit identities=5"),
        ({"identities": True}, "identities: True is not a whole number"),
        ({"fields": {"identity": {"dtype": "O", "largest": 3}}}, "the only types are i4 and f4"),
        ({"fields": {}}, "fields.identity does not fit identities=4"),
        ({"shards": []}, "it has a shard without samples"),
        ({"name": None}, "name: None is not text"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder, changes, words):
    commit_again(folder, **changes)
    with pytest.raises(UserError, match=f"manifest.json: .*{words}.*: copy it again or pack the set again"):
        ShardSet.open(folder)


@pytest.mark.parametrize("name", ["../../secret.tar", "/etc/passwd", "a\nb", ".hidden"])
def test_a_manifest_never_leads_out_of_its_folder(folder, name):
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    shards[0]["name"] = name
    commit_again(folder, shards=shards)
    with pytest.raises(UserError, match="has no plain name, size and sha256"):
        ShardSet.open(folder)


def test_names_of_people_are_those_that_were_packed(folder):
    path = folder / "identities.txt"
    names = ShardSet.open(folder).identity_names()
    assert len(names) == 4
    path.write_text(path.read_text().replace("person_01", "person_81"))
    with pytest.raises(UserError, match=r"identities.txt: its lines are not those"):
        ShardSet.open(folder).identity_names()


def test_large_sets_are_verified_when_rows_are_needed(folder, large, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_BYTES", 64)
    hash_blocks(folder)
    commit_again(folder)
    change(folder, "offset", 11, 512)
    shards = ShardSet.open(folder)
    assert not shards.unchecked
    shards.verify(np.array([0, 7]))  # 8 rows a block
    with pytest.raises(UserError, match=r"index/offset.npy: its bytes are not"):
        shards.verify(np.array([9]))
    change(folder, "identity_start", 1, 2)
    with pytest.raises(UserError, match=r"index/identity_start.npy: its bytes are not"):
        ShardSet.open(folder)


def test_the_packer_writes_the_hashes_of_blocks(good, large):
    shards = ShardSet.open(good)
    assert not shards.unchecked
    shards.verify(np.arange(12))
    assert (good / columns.BLOCKS).stat().st_size == 7 * columns.DIGEST


def test_damaged_hashes_of_blocks_are_refused(folder, large):
    path = folder / columns.BLOCKS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"blocks.sha256: its bytes are not"):
        ShardSet.open(folder)
    path.write_bytes(path.read_bytes()[:-32])
    commit_again(folder)
    with pytest.raises(UserError, match=r"blocks.sha256: is not as long as the columns need"):
        ShardSet.open(folder)


@pytest.fixture
def older(folder):
    """A set as it was packed before indexes had hashes of their blocks."""
    (folder / columns.BLOCKS).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    commit_again(folder, files=[entry for entry in manifest["files"] if entry["name"] != columns.BLOCKS])
    return folder


def test_sets_packed_before_still_open_and_are_verified(older):
    assert len(ShardSet.open(older)) == 12
    assert not list(check_set(older, workers=1))
    change(older, "labels.identity", 3, 0)
    with pytest.raises(UserError, match=r"labels.identity.npy: its bytes are not"):
        ShardSet.open(older)


def test_of_large_sets_packed_before_it_is_said_what_is_not_verified(older, large):
    change(older, "labels.identity", 3, 0)
    shards = ShardSet.open(older)
    assert "packed before indexes had block hashes" in shards.unchecked
    shards.verify(np.array([0, 1]))
    with pytest.raises(UserError, match=r"labels.identity.npy: row 3 cannot be"):
        shards.verify(np.array([1, 3]))


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
@pytest.mark.parametrize("name", ["manifest.json", "identities.txt", "index/size.npy", "faces-000000.tar"])
def test_what_is_no_regular_file_is_named_and_never_waited_for(folder, name, kind, capsys):
    (folder / name).unlink()
    if kind == "fifo":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=f"{name}.*(regular file|directory)"):
        ShardSet.open(folder)
    assert main(["check", str(folder), "workers=1"]) == 1
    assert f"{folder / name}: is not a regular file" in capsys.readouterr().out
