"""Random trees of names, links, FIFOs and damaged images: no image is lost, doubled or given to another."""

import contextlib
import csv
import hashlib
import io
import os
import random
import shutil
from pathlib import Path

from data_shards.inspect.check import check_set
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.keys import visible
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from data_shards.sources.walk import helper_of
from tests.support.fuzz import HARMLESS, Silent, campaign, damage
from tests.support.small_set import jpeg, photo

PICTURES = [jpeg(photo(number, 24, 24)) for number in range(24)]
LETTERS = ["a", "b", "_", "!", ".", " ", "\n", "\r", '"', ",", "\\", "é", "李", "\udcff", "-", "=", "x" * 60]
NAMES = ["k!b", "k_b", "k?b", "__a__", "lfw", "train", "n000001", "-rf", ".git", "@eaDir", "con", "x.jpg"]


def some_name(rng: random.Random) -> str:
    name = rng.choice(NAMES) if rng.random() < 0.5 else "".join(rng.choices(LETTERS, k=rng.randrange(1, 4)))
    return "dot" if name in (".", "..") else name


def grow(root: Path, rng: random.Random) -> None:
    """People, images of each, and things that are neither."""
    folders = [root]
    for _ in range(rng.randrange(3, 6)):
        folders.append(root / some_name(rng))
    for _ in range(rng.randrange(3)):
        folders.append(rng.choice(folders) / some_name(rng))
    images = list(PICTURES)
    rng.shuffle(images)
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            for _ in range(rng.randrange(4) if folder != root else rng.randrange(2)):
                (folder / f"{some_name(rng)}{rng.choice(('.jpg', '.png', ''))}").write_bytes(images.pop())
    for _ in range(rng.randrange(6)):
        with contextlib.suppress(OSError):
            disturb(root, rng, folders)


def disturb(root: Path, rng: random.Random, folders: list[Path]) -> None:
    found = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    path = rng.choice(folders) / some_name(rng)
    kind = rng.choice(("fifo", "device", "loop", "up", "folder", "file", "hard", "outside", "damage", "copy"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind in ("device", "loop", "up"):
        path.symlink_to({"device": "/dev/zero", "loop": path.name, "up": ".."}[kind])
    elif kind == "folder":
        path.symlink_to(rng.choice(folders))
    elif kind == "outside":
        path.symlink_to(root.parent / "disk")
    elif found and kind == "file":
        path.symlink_to(os.path.relpath(rng.choice(found), path.parent))
    elif found and kind == "hard":
        os.link(rng.choice(found), path)
    elif found and kind == "damage":
        chosen = rng.choice(found)
        chosen.write_bytes(damage(chosen.read_bytes(), rng))


def regular(root: Path) -> set[str]:
    """All regular files that lie below the root themselves."""
    return {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
        if not os.path.islink(os.path.join(folder, name)) and os.path.isfile(os.path.join(folder, name))
    }


def packed(folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """([(name of the person, sha256 of the image)], rejected paths) of a set; check finds it good."""
    assert not list(check_set(folder, workers=1))
    shards = ShardSet.open(folder)
    names, rows = shards.identity_names(), []
    for row in range(len(shards)):
        data = shards.shards[int(shards.shard[row])].read_bytes()
        start = int(shards.offset[row])
        image = data[start : start + int(shards.size[row])]
        rows.append((names[int(shards.labels["identity"][row])], hashlib.sha256(image).hexdigest()))
    with open(folder / "rejected.csv", newline="") as file:
        return rows, [row["source"] for row in csv.DictReader(file)]


def judge(root: Path, out: Path, holdout: float) -> None:
    made = pack(open_source("folder", str(root)), out, Request(name="faces", holdout=holdout), workers=1)
    rows: list[tuple[str, str]] = []
    rejected: list[str] = []
    for one in made:
        more = packed(one.folder)
        rows, rejected = rows + more[0], rejected + more[1]
    found = regular(root)
    owners: dict[str, set[str]] = {}  # of the images that were put there: no two are the same
    linked: set[str] = set()  # images in places from which nothing is packed but by a link to them
    for path in found:
        digest = hashlib.sha256((root / path).read_bytes()).hexdigest()
        owners.setdefault(digest, set()).add(path.split("/")[0])
        if helper_of(path) or "/" not in path:
            linked.add(digest)
    for person, digest in rows:
        known = owners.get(digest, set())  # empty: from the disk
        if known and digest not in linked and person not in map(visible, known):
            raise Silent(f"{person!r} has an image of {known}")
    seen = {digest for _, digest in rows}
    if len(seen) != len(rows):
        raise Silent(f"an image is there twice among {len(rows)}")
    if len(set(rejected)) != len(rejected):
        raise Silent(f"a row is there twice: {rejected}")
    whole = {hashlib.sha256(image).hexdigest() for image in PICTURES}
    for digest, names in owners.items():
        if digest in whole - seen and any(
            visible(path) not in rejected for path in found if holds(root, path, digest)
        ):
            raise Silent(f"an image of {names} is neither packed nor rejected")


def holds(root: Path, path: str, digest: str) -> bool:
    return hashlib.sha256((root / path).read_bytes()).hexdigest() == digest


def test_packing_loses_and_doubles_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    for number in range(2):
        (disk / f"far_{number}.jpg").write_bytes(jpeg(photo(100 + number, 24, 24)))

    def one(rng: random.Random) -> str:
        root, out = tmp_path / "src", tmp_path / "out"
        try:
            root.mkdir()
            grow(root, rng)
            with contextlib.redirect_stdout(io.StringIO()):
                judge(root, out, rng.choice((0.0, 0.0, 0.4)))
            return HARMLESS
        finally:
            shutil.rmtree(root, ignore_errors=True)
            shutil.rmtree(out, ignore_errors=True)

    counts = campaign("pack", one)
    assert counts[HARMLESS]
