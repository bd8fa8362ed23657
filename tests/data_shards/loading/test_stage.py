"""Staging: a copy that is whole or not there, verified, used again, refused where there is no room."""

import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_shards.errors import UserError
from data_shards.loading import node_cache
from data_shards.shard_format.shard_set import ShardSet
from tests.support.sets import pack_set


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_set(tmp_path_factory.mktemp("set"), shard_mb=0.05)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _left(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root) if name != node_cache.LOCK)


def test_the_copy_is_the_set_and_is_used_again(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [packed / "train", packed / "eval"]
    node_cache.stage(sources, tmp_path / "node")
    for source in sources:
        copy = node_cache.place(source, tmp_path / "node")
        assert copy.name == ShardSet.open(source).digest
        assert _files(copy) == _files(source)
        ShardSet.open(copy)
    assert len(_left(tmp_path / "node")) == 2
    monkeypatch.setattr(node_cache, "_copy_set", lambda *args: pytest.fail("it was there already"))
    node_cache.stage(sources, tmp_path / "node")


@pytest.mark.parametrize("damage", ["gone", "short", "manifest"])
def test_a_copy_that_lost_files_is_made_again(tmp_path: Path, packed: Path, damage: str) -> None:
    node_cache.stage([packed / "train"], tmp_path)
    copy = node_cache.place(packed / "train", tmp_path)
    (tmp_path / f"{node_cache.TEMPORARY}of-a-killed-job").mkdir()
    (tmp_path / ".tmp-of-somebody-else").mkdir()
    shard = next(copy.glob("*.tar"))
    if damage == "gone":
        shard.unlink()
    elif damage == "short":
        os.truncate(shard, 1000)
    else:
        (copy / "manifest.json").write_text("{}")
    node_cache.stage([packed / "train"], tmp_path)
    assert _files(copy) == _files(packed / "train")
    assert _left(tmp_path) == [".tmp-of-somebody-else", copy.name]


def test_a_source_that_is_damaged_is_named_and_nothing_is_left(tmp_path: Path, packed: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(packed / "train", source)
    shard = sorted(source.glob("*.tar"))[1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=f"{shard}: its bytes are not those that the manifest says"):
        node_cache.stage([source], tmp_path / "node")
    assert _left(tmp_path / "node") == []


def test_a_source_that_lost_a_shard_is_not_called_a_full_disk(tmp_path: Path, packed: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(packed / "train", source)
    shard = sorted(source.glob("*.tar"))[1]
    shard.unlink()
    with pytest.raises(
        UserError, match=f"{shard} cannot be read .No such file or directory.: copy the set again"
    ):
        node_cache.stage([source], tmp_path / "node")
    assert _left(tmp_path / "node") == []


def test_a_small_disk_is_refused_before_anything_is_copied(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(len(data) for data in _files(packed / "train").values())
    monkeypatch.setattr(node_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=size + 1000))
    with pytest.raises(UserError, match=r"the sets need .* GB are free: free space there") as caught:
        node_cache.stage([packed / "train", packed / "eval"], tmp_path)
    assert "\n" not in str(caught.value)
    assert _left(tmp_path) == []


def test_a_disk_that_fills_up_meanwhile_is_one_line(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(node_cache.os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full: free space there"):
        node_cache.stage([packed / "train"], tmp_path)
    assert _left(tmp_path) == []


def test_one_copies_the_others_wait_and_a_cancelled_copy_leaves_nothing(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, begun, go = [], threading.Event(), threading.Event()
    copy_set = node_cache._copy_set

    def slow(*args) -> None:
        copied.append(args)
        begun.set()
        assert go.wait(60)
        copy_set(*args)

    monkeypatch.setattr(node_cache, "_copy_set", slow)
    jobs = [threading.Thread(target=node_cache.stage, args=([packed / "train"], tmp_path)) for _ in range(3)]
    for job in jobs:
        job.start()
    assert begun.wait(60)
    with pytest.raises(node_cache.Cancelled):  # one that waits for the lock
        node_cache.stage([packed / "eval"], tmp_path, cancelled=lambda: True)
    go.set()
    for job in jobs:
        job.join(60)
    assert len(copied) == 1
    with pytest.raises(node_cache.Cancelled):  # one that copies
        node_cache.stage([packed / "eval"], tmp_path, cancelled=lambda: True)
    assert _left(tmp_path) == [node_cache.place(packed / "train", tmp_path).name]


def test_the_folder_is_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    monkeypatch.delenv("NO_SUCH_DIR", raising=False)
    assert node_cache.expanded("$SLURM_TMPDIR/rostro") == node_cache.expanded("${SLURM_TMPDIR}/rostro")
    assert node_cache.expanded("$SLURM_TMPDIR/rostro") == tmp_path / "rostro"
    with pytest.raises(UserError, match=r"data\.stage=\$NO_SUCH_DIR/x: NO_SUCH_DIR is not set on "):
        node_cache.expanded("$NO_SUCH_DIR/x")
    monkeypatch.setenv("SLURM_TMPDIR", "tmp")
    with pytest.raises(UserError, match=r"data\.stage=\$SLURM_TMPDIR is tmp on .*: use an absolute folder"):
        node_cache.expanded("$SLURM_TMPDIR")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, packed: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder") as caught:
        node_cache.stage([packed / "train"], tmp_path / "file" / "node")
    assert "\n" not in str(caught.value)
