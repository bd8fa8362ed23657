"""Packing: the same bytes with any number of workers, after kills, and with files that cannot be packed."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_shards.errors import UserError
from data_shards.inspect.summary import facts
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from launch.cli import main
from tests.support.image_folders import identity_folders, tree
from tests.support.small_set import jpeg, photo

SMALL = Request(name="faces", holdout=0.3, shard_mb=0.01)  # many tiny shards


def packed(src: Path, out: Path, request: Request = SMALL, **options):
    return pack(open_source("folder", str(src)), out, request, **options)


@pytest.fixture(scope="module")
def src(tmp_path_factory):
    return identity_folders(tmp_path_factory.mktemp("src"))


@pytest.fixture(scope="module")
def undisturbed(src, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    packed(src, out, workers=1)
    return tree(out)


def names(shards: ShardSet) -> set[str]:
    return set(shards.identity_names())


def test_holdout_is_by_identity_and_nothing_is_lost(src, tmp_path):
    train, held = (ShardSet.open(made.folder) for made in packed(src, tmp_path, workers=1))
    assert (tmp_path / "train", tmp_path / "eval") == (train.folder, held.folder)
    assert names(train) | names(held) == {f"person_{person:02d}" for person in range(6)}
    assert not names(train) & names(held)
    assert len(names(held)) == 2
    for shards in (train, held):
        assert len(shards.shards) > 1
        people = shards.identity_names()
        assert np.array_equal(np.diff(shards.identity_start.astype(int)), np.full(len(people), 4))
        assert np.array_equal(shards.labels["identity"], np.repeat(np.arange(len(people)), 4))
        for row in range(len(shards)):
            key = shards.key(row).split(":")[1]
            person, image = key.split("/")
            assert person == people[int(shards.labels["identity"][row])]
            with open(shards.shards[int(shards.shard[row])], "rb") as file:
                file.seek(int(shards.offset[row]))
                assert file.read(int(shards.size[row])) == (src / person / image).read_bytes()
            assert (shards.width[row], shards.height[row]) == (48, 48)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_no_byte(src, undisturbed, tmp_path, workers):
    packed(src, tmp_path, workers=workers)
    assert tree(tmp_path) == undisturbed


def test_seed_and_name_change_the_set(src, tmp_path):
    sets = [
        [names(ShardSet.open(made.folder)) for made in packed(src, tmp_path / str(seed), request, workers=1)]
        for seed, request in enumerate(Request(holdout=0.5, seed=seed) for seed in range(4))
    ]
    assert len({frozenset(train) for train, _ in sets}) > 1


def test_again_is_there_already_and_another_set_is_refused(src, undisturbed, tmp_path):
    packed(src, tmp_path, workers=1)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert [made.already for made in packed(src, tmp_path, workers=2)] == [True, True]
    with pytest.raises(
        UserError,
        match=r"train holds another set \(faces, 16 samples, .*another out= or remove .*train and .*eval$",
    ):
        packed(src, tmp_path, Request(name="faces", holdout=0.3, shard_mb=0.01, seed=1), workers=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps
    assert tree(tmp_path) == undisturbed


def test_foreign_folders_are_left_alone(src, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no packed set"):
        packed(src, tmp_path, workers=1)
    assert tree(tmp_path).keys() == {"train/thesis.tex"}
    made = packed(src, tmp_path / "good", Request(), workers=1)[0]
    with pytest.raises(UserError, match="is a packed set itself"):
        packed(src, made.folder, workers=1)


# Whatever call the process dies at: before the n-th rename, with everything written so far flushed or not.
KILLER = """
import os, signal, sys
replace, calls = os.replace, 0
def dying(*paths):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = dying
from launch.cli import main
sys.exit(main(sys.argv[2:]))
"""


def command(src: Path, out: Path, *more: str) -> list[str]:
    return [
        "pack",
        "source=folder",
        f"src={src}",
        f"out={out}",
        "name=faces",
        "holdout=0.3",
        "shard_mb=0.01",
        *more,
    ]


def is_no_set_or_whole(folder: Path) -> bool:
    """True if there is a whole set. A folder without manifest must be refused as a set."""
    if (folder / "manifest.json").exists():
        assert main(["check", str(folder)]) == 0
        return True
    with pytest.raises(UserError, match=r"has no manifest.json|manifest.json: "):
        ShardSet.open(folder)
    return False


def test_killed_anywhere_then_finished(src, undisturbed, tmp_path):
    renames = len(undisturbed) + 10  # each file once, plus journal: the last points lie past the end
    survived = 0
    for point in (1, 2, 3, 4, 9, renames // 2, renames - 12, renames - 3, renames + 14):
        out = tmp_path / str(point)
        words = [str(point), *command(src, out, "workers=1")]
        ended = subprocess.run([sys.executable, "-c", KILLER, *words], cwd=Path(__file__).parents[3])
        assert ended.returncode in (-signal.SIGKILL, 0)
        survived += ended.returncode == 0
        whole = [is_no_set_or_whole(out / split) for split in ("train", "eval")]
        assert all(whole) or ended.returncode != 0
        assert main(command(src, out, "workers=1")) == 0
        assert tree(out) == undisturbed
    assert survived <= 2


def test_workers_die_with_their_parent_and_shards_are_reused(tmp_path):
    src = identity_folders(tmp_path / "src", identities=12, images=30, side=64)
    words = [sys.executable, "-m", "launch.cli", *command(src, tmp_path / "out", "workers=2")]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[3])
    journal = tmp_path / "out" / "train" / ".pack"
    while len(list(journal.glob("[0-9]*.npz"))) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    finished = {path.stem: path.stat().st_mtime_ns for path in journal.glob("[0-9]*.npz")}
    stamps = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "out" / "train").glob("*.tar")
        if path.stem.rpartition("-")[2] in finished
    }
    assert len(stamps) >= 2
    assert not is_no_set_or_whole(tmp_path / "out" / "train")
    assert main(command(src, tmp_path / "out", "workers=2")) == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert main(command(src, tmp_path / "whole", "workers=1")) == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_an_interrupted_other_pack_is_replaced(src, undisturbed, tmp_path):
    words = ["9", *command(src, tmp_path, "workers=1", "seed=5")]
    subprocess.run([sys.executable, "-c", KILLER, *words], cwd=Path(__file__).parents[3])
    assert (tmp_path / "train" / ".pack").is_dir()
    packed(src, tmp_path, workers=1)
    assert tree(tmp_path) == undisturbed


def test_two_packs_do_not_mix(src, tmp_path):
    import fcntl
    import os

    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another pack is writing there"):
        packed(src, tmp_path, workers=1)
    os.close(descriptor)
    assert packed(src, tmp_path, workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_is_one_line_and_the_rerun_finishes(src, undisturbed, tmp_path, capfd, workers):
    """A limit on the size of files stands for a full disk: writes fail with an OSError either way."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    words = [sys.executable, "-m", "launch.cli", *command(src, tmp_path, f"workers={workers}")]
    ended = subprocess.run(
        words, cwd=Path(__file__).parents[3], preexec_fn=limit, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: out={tmp_path}: File too large; ")
    assert len(ended.stderr.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".tmp")]
    assert main(command(src, tmp_path, "workers=1")) == 0
    assert tree(tmp_path) == undisturbed


def rejected(folder: Path) -> dict[str, str]:
    with open(folder / "rejected.csv", newline="") as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def mixed(tmp_path):
    """Good, convertible and hopeless files, an identity with nothing good among them."""
    root = identity_folders(tmp_path / "mixed", identities=4, images=3)
    good = (root / "person_00" / "p_0.jpg").read_bytes()
    (root / "person_00" / "same.jfif").write_bytes(good)
    (root / "person_00" / "half.jpg").write_bytes(good[: len(good) // 2])
    (root / "person_00" / "empty.jpg").write_bytes(b"")
    (root / "person_01" / "page.jpg").write_bytes(b"<html>404</html>")
    (root / "person_01" / "notes.txt").write_text("who is this?")
    (root / "person_01" / "grey.jpg").write_bytes(jpeg(photo(77, 48, 48)[..., 0]))
    (root / "nobody").mkdir()
    (root / "nobody" / "a.jpg").write_bytes(good[:50])
    (root / "nobody" / "b.jpg").symlink_to(root / "gone.jpg")
    (root / "list.csv").write_text("x")
    return root


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_named_and_identities_stay_dense(mixed, tmp_path, workers, capsys):
    words = [
        "pack",
        "source=folder",
        f"src={mixed}",
        f"out={tmp_path / 'out'}",
        f"workers={workers}",
        "shard_mb=0.01",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "14 images of 4 identities" in printed
    assert "rejected 7: see" in printed
    folder = tmp_path / "out" / "train"
    reasons = rejected(folder)
    assert {path: reason.split(":")[0] for path, reason in reasons.items()} == {
        "list.csv": "lies beside the identity folders",
        "nobody/a.jpg": "truncated JPEG header",
        "nobody/b.jpg": "cannot be read",
        "person_00/empty.jpg": "empty file",
        "person_00/half.jpg": "does not decode",
        "person_01/notes.txt": "not a picture (JPEG, PNG, PPM, BMP, WEBP, TIFF, GIF)",
        "person_01/page.jpg": "not a picture (JPEG, PNG, PPM, BMP, WEBP, TIFF, GIF)",
    }
    shards = ShardSet.open(folder)
    assert names(shards) == {f"person_{person:02d}" for person in range(4)}
    assert np.diff(shards.identity_start.astype(int)).min() == 3
    assert all(shard["samples"] for shard in shards.manifest["shards"])
    assert {shards.member(row) for row in range(14)} > {"person_00/same.jpg", "person_01/grey.jpg"}
    assert main(["check", str(folder)]) == 0


def test_dropping_an_identity_survives_a_kill(mixed, tmp_path):
    words = ["pack", "source=folder", f"src={mixed}", "workers=1", "shard_mb=0.01"]
    assert main([*words, f"out={tmp_path / 'whole'}"]) == 0
    for point in ("8", "25", "40"):
        out = tmp_path / point
        killed = [sys.executable, "-c", KILLER, point, *words, f"out={out}"]
        assert subprocess.run(killed, cwd=Path(__file__).parents[3]).returncode == -signal.SIGKILL
        assert main([*words, f"out={out}"]) == 0
        assert tree(out) == tree(tmp_path / "whole")


def test_any_name_is_one_row_and_one_key(tmp_path, capsys):
    """Control characters, undecodable bytes, and names made to collide."""
    root = identity_folders(tmp_path / "src", identities=5, images=1)
    strange = ["k!b", "k_b", os.fsdecode(b"\xff\r"), "new\nline", 'tab\t,"quote"']
    for folder, name in zip(sorted(root.iterdir()), strange, strict=True):
        (folder / "bad\r\nrow.jpg").write_bytes(b"no")
        folder.rename(root / name)
    assert main(["pack", "source=folder", f"src={root}", f"out={tmp_path / 'out'}", "workers=1"]) == 0
    folder = tmp_path / "out" / "train"
    assert sorted(ShardSet.open(folder).identity_names()) == sorted(
        ["k!b", "k_b", r"\udcff\r", r"new\nline", 'tab\\t,"quote"']
    )
    assert len((folder / "rejected.csv").read_bytes().splitlines()) == 6
    assert set(rejected(folder)) == {
        f"{name}/bad\\r\\nrow.jpg" for name in ShardSet.open(folder).identity_names()
    }
    assert main(["check", str(folder), "workers=1"]) == 0
    assert capsys.readouterr().out.isascii()


def test_nothing_usable_leaves_nothing(tmp_path):
    for name in "ab":
        (tmp_path / "src" / name).mkdir(parents=True)
        (tmp_path / "src" / name / "x.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match=r"none of its 2 files is usable \(./x.jpg: not a picture"):
        packed(tmp_path / "src", tmp_path / "out", Request(), workers=1)
    assert not tree(tmp_path / "out")


def test_verify_none_copies_without_decoding(mixed, tmp_path):
    made = packed(mixed, tmp_path, Request(verify="none"), workers=1)[0]
    assert "person_00/half.jpg" not in rejected(made.folder)
    assert "person_00/empty.jpg" in rejected(made.folder)
    assert main(["check", str(made.folder)]) == 1


def test_size_and_same_stems(tmp_path):
    root = identity_folders(tmp_path / "src", identities=2, images=2)
    (root / "person_00" / "p_0.png").write_bytes((root / "person_01" / "p_1.jpg").read_bytes())
    made = packed(root, tmp_path / "out", Request(size=32), workers=1)[0]
    shards = ShardSet.open(made.folder)
    assert set(shards.width) == set(shards.height) == {32}
    members = [shards.member(row) for row in range(len(shards))]
    assert len(set(members)) == 5
    assert made.manifest["converted"] == {"resized": 5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["src=x", "out=y"], "source is missing"),
        (["source=folder", "src=x"], "out is missing"),
        (["source=folder", "out=x"], "src is missing"),
        (["source=folder", "src={src}", "out=y", "holdout=2"], "holdout=2.0: type a share"),
        (["source=folder", "src={src}", "out=y", "size=3"], "size=3: type pixels"),
        (["source=folder", "src={src}", "out=y", "verify=maybe"], "verify=maybe: type decode or none"),
        (["source=folder", "src={src}", "out=y", "shard_mb=0"], "shard_mb=0.0: type megabytes"),
        (["source=folder", "src={src}", "out=y", "workers=0"], "workers=0: type the number"),
        (["source=folder", "src={src}", "out=y", "name=a/b"], "name=a/b: type a plain name"),
        (["source=folder", "src={src}", "out=y", "sise=112"], "did you mean size"),
        (["source=folder", "src={src}", "out={src}/out"], "lies in src="),
        (["source=folder", "src={src}/absent", "out=y"], "No such file or directory"),
        (["source=orl", "src={src}", "out=y"], "has no folders s1, s2"),
    ],
)
def test_bad_input_is_one_line(src, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["pack", *(word.format(src=src) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_manifest_states_what_the_set_is(src, tmp_path):
    made = packed(src, tmp_path, workers=1)[1]
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert (manifest["name"], manifest["source"], manifest["split"]) == ("faces", "folder", "eval")
    assert manifest["source_split"] == "train"
    assert facts(ShardSet.open(made.folder))[:2] == [
        ("source", "folder, its split train"),
        ("split", "eval"),
    ]
    assert (manifest["samples"], manifest["identities"], manifest["rejected"]) == (8, 2, 0)
    assert manifest["fields"]["identity"]["largest"] == 1
    assert "terms" in manifest["licence"]
    known = {entry["name"] for entry in (*manifest["shards"], *manifest["files"])}
    assert known | {"manifest.json"} == set(tree(made.folder))
