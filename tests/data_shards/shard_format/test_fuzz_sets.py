"""Random damage of any file of a packed set: refused with the file named, or the same labels and images."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from data_shards.errors import UserError
from data_shards.files import file_entry
from data_shards.inspect.check import check_set
from data_shards.loading.loader import TrainLoader
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.sampling.order import GroupOrder
from data_shards.shard_format import columns, shard_set
from data_shards.shard_format.manifest import NAME, write_manifest
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from tests.data_shards.loading.test_loader import Augment, view_of
from tests.support.fuzz import HARMLESS, REFUSED, Silent, campaign, check_refusal, damage, damage_json
from tests.support.image_folders import identity_folders


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    src = identity_folders(tmp_path_factory.mktemp("src"), identities=4, images=3)
    (src / "person_00" / "none.jpg").write_bytes(b"")
    out = tmp_path_factory.mktemp("good")
    return pack(open_source("folder", str(src)), out, Request(name="faces", shard_mb=0.02), workers=1)[
        0
    ].folder


def trained(folder: Path) -> str:
    """Digest of all that a training and a judge see of the set: order, labels, images, names."""
    shards = ShardSet.open(folder)
    loader = TrainLoader(
        GroupOrder(shards, 3, group=2),
        shards,
        seed=1,
        rank=0,
        world=1,
        batch=16,
        backend="host",
        threads=1,
        ahead=1,
        view=view_of(Augment(), (24, 24)),
        fields=("identity",),
    )
    try:
        loader.start(0)
        batch = loader.next()
    finally:
        loader.close()
    digest = hashlib.sha256(repr(shards.identity_names()).encode())
    for part in (batch.images["image"], batch.ids, batch.labels["identity"]):
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def replace_file(path: Path, rng: random.Random) -> None:
    """Something else lies where the file was."""
    path.unlink()
    kind = rng.choice(("nothing", "fifo", "folder", "device", "loop"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)


def commit_again(folder: Path, name: str, rng: random.Random) -> None:
    """A manifest that fits the damaged file, or one whose own entries are damaged and whose hash is right."""
    manifest = json.loads((folder / NAME).read_text())
    if name == NAME:
        damaged = damage_json(manifest, rng)
        manifest = damaged if isinstance(damaged, dict) else {}
    else:
        entries = [*manifest["files"], *manifest["shards"]]
        (entry,) = [entry for entry in entries if entry["name"] == name]
        entry |= file_entry(folder / name, name=name)
    write_manifest(folder, manifest)


def told(folder: Path) -> list[str]:
    """What check says, each line of it checked."""
    lines = []
    for problem in check_set(folder, workers=1):
        line = str(problem)
        assert line.isprintable(), line
        lines.append(line)
    return lines


@pytest.mark.parametrize("large", [False, True], ids=["whole", "blocks"])
def test_damaged_sets_are_refused_or_the_same(good, tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr(shard_set, "WHOLE", 0)
    folder = shutil.copytree(good, tmp_path / "set")
    names = sorted(str(path.relative_to(good)) for path in good.rglob("*") if path.is_file())
    assert {columns.BLOCKS, NAME, "rejected.csv", "faces-000000.idx"} < set(names)
    reference = trained(folder)

    def one(rng: random.Random) -> str:
        name = rng.choice(names)
        path = folder / name
        kind = rng.choice(("bytes", "bytes", "bytes", "crafted", "replaced"))
        try:
            if kind == "replaced":
                replace_file(path, rng)
            elif kind == "bytes" or name != NAME:
                path.write_bytes(damage(path.read_bytes(), rng))
            if kind == "crafted":
                commit_again(folder, name, rng)
            return judge(name, kind)
        finally:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
            shutil.copy(good / name, path)
            shutil.copy(good / NAME, folder / NAME)

    def judge(name: str, kind: str) -> str:
        path = folder / name
        lines = told(folder)
        same = path.is_file() and path.read_bytes() == (good / name).read_bytes()
        if name == NAME and path.is_file() and kind == "bytes":
            try:
                same = json.loads(path.read_bytes()) == json.loads((good / name).read_bytes())
            except ValueError:
                same = False
        if not same and not lines and kind != "crafted":
            raise Silent(f"check finds {name} good after {kind}")
        if lines and kind != "crafted" and not any(name in line for line in lines):
            raise Silent(f"check names {lines}, not {name}")
        try:
            seen = trained(folder)
        except UserError as error:
            check_refusal(error, *((name, NAME) if kind != "crafted" else (f"{folder}/", *names)))
            if not lines:
                raise Silent(f"check finds good what is refused: {error}") from None
            return REFUSED
        if (kind, name) == ("crafted", "identities.txt"):  # a new list of names: nothing can tell
            return HARMLESS
        if seen != reference and (kind != "crafted" or not lines):
            raise Silent(f"{name} after {kind}: other labels or images; check says {lines}")
        return HARMLESS

    campaign(f"sets-{'blocks' if large else 'whole'}", one)
