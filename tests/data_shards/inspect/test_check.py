"""Checks of packed sets name each damaged byte by file, member and reason; summaries and contact sheets."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.inspect import check
from data_shards.inspect.check import check_set, find_sets
from data_shards.pack import layout
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from launch.cli import main
from tests.support.image_folders import identity_folders


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    src = identity_folders(tmp_path_factory.mktemp("src"), identities=3, images=3)
    out = tmp_path_factory.mktemp("good")
    request = Request(name="faces", shard_mb=0.02)
    return pack(open_source("folder", str(src)), out, request, workers=1)[0].folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "train")


def owner(shards: ShardSet, shard: int, position: int) -> str:
    """Name of the member that the byte belongs to: from its header to the end of its padding."""
    rows = range(int(shards.shard_start[shard]), int(shards.shard_start[shard + 1]))
    for row in rows:
        begin, size = int(shards.offset[row]) - 512, int(shards.size[row])
        after = begin + 512 + size + -size % 512
        key = shards.member(row).removesuffix(".jpg")
        if begin <= position < after:
            return f"{key}.jpg"
        if after <= position < after + 1024:
            return f"{key}.cls"
    return ""


def flip(path, position: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def test_a_good_set_is_good(good, capsys):
    assert not list(check_set(good, workers=1))
    assert main(["check", str(good.parent)]) == 0
    assert "good, 9 images in " in capsys.readouterr().out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 255))
def test_any_flipped_byte_is_named(good, tmp_path_factory, which, where, mask):
    folder = shutil.copytree(good, tmp_path_factory.mktemp("flip") / "train")
    shards = ShardSet.open(folder)
    shard = which % len(shards.shards)
    path = shards.shards[shard]
    position = where % path.stat().st_size
    member = owner(shards, shard, position)
    flip(path, position, mask)
    problems = list(check_set(folder, workers=1))
    assert problems
    assert {problem.file for problem in problems} == {path.name}
    assert {problem.member for problem in problems} == {member}
    if not member:
        assert "end of the archive" in problems[0].reason


def test_two_members_of_one_name_are_found(good, tmp_path, monkeypatch):
    """As packs made them whose keys could collide."""
    src = identity_folders(tmp_path / "src", identities=2, images=2)
    monkeypatch.setattr(layout, "identity_slugs", lambda names: dict.fromkeys(names, "same"))
    folder = pack(open_source("folder", str(src)), tmp_path, Request(name="faces", shard_mb=0.02), workers=1)[
        0
    ].folder
    doubles = [(problem.member, problem.reason) for problem in check_set(folder, workers=1)]
    assert doubles == [(f"same/p_{number}.jpg", "is in the set twice") for number in range(2)]


def test_command_names_shard_member_reason(folder, capsys):
    shards = ShardSet.open(folder)
    flip(shards.shards[0], int(shards.offset[0]) + int(shards.size[0]) // 2)
    member = shards.member(0)
    assert main(["check", str(folder.parent), "workers=2"]) == 1
    printed = capsys.readouterr().out
    assert f"{folder}/{shards.shards[0].name}: {member}: image bytes were changed (crc32 differs)" in printed


@pytest.mark.parametrize(
    "name", ["index/offset.npy", "index/labels.identity.npy", "identities.txt", "faces-000000.idx"]
)
def test_flipped_byte_of_another_file_is_named(folder, name):
    flip(folder / name, (folder / name).stat().st_size - 1)
    problems = list(check_set(folder, workers=1))
    assert [(problem.file, problem.reason) for problem in problems] == [
        (name, "sha256 differs from the manifest's")
    ]


def test_flipped_byte_of_the_manifest_is_named(folder, capsys):
    size = (folder / "manifest.json").stat().st_size
    for position in range(5, size, size // 12):
        shutil.copy(folder / "manifest.json", folder / "kept")
        flip(folder / "manifest.json", position)
        assert main(["check", str(folder)]) == 1
        assert "manifest.json: " in capsys.readouterr().out
        (folder / "kept").replace(folder / "manifest.json")


def test_missing_short_and_strange_shards(folder):
    shards = ShardSet.open(folder).shards
    (folder / "extra-000000.tar").write_bytes(b"")
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:5000])
    problems = {
        problem.file: problem.reason for problem in check_set(folder, workers=1) if not problem.member
    }
    assert problems[shards[0].name] == "No such file or directory"
    assert problems["extra-000000.tar"] == "is not in the manifest"
    assert {problem.file for problem in check_set(folder, workers=1)} == {*problems, shards[1].name}


def test_unfinished_set_is_a_problem(folder, capsys):
    (folder / ".pack").mkdir()
    (folder / "manifest.json").unlink()
    assert main(["check", str(folder.parent)]) == 1
    assert "has no manifest.json" in capsys.readouterr().out


def test_find_sets(good, tmp_path):
    assert find_sets(good) == find_sets(good.parent) == [good]
    with pytest.raises(UserError, match="holds no packed set"):
        find_sets(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        find_sets(tmp_path / "absent")


@pytest.mark.parametrize(
    "words", [["check"], ["check", "a", "b"], ["check", "absent"], ["check", ".", "workers=0"]]
)
def test_bad_input(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


def test_info_shows_the_set_and_writes_a_sheet_beside_it(good, tmp_path, monkeypatch, capsys):
    before = sorted(good.rglob("*"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["info", str(good.parent)]) == 0
    printed = capsys.readouterr().out
    for part in ("9 (all 48 x 48)", "3, 3 to 3 (median 3) images each", "source", "rejected"):
        assert part in printed
    sheet = good.parent / "faces-train-contact.png"
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert sorted(good.rglob("*")) == before
    assert list((tmp_path / "here").iterdir()) == []  # no images of people where the user happens to stand
    sheet.unlink()
    assert main(["info", str(good.parent), "out=."]) == 0
    assert [path.name for path in (tmp_path / "here").iterdir()] == [sheet.name]
    assert not sheet.exists()
    assert main(["info", str(good), f"out={tmp_path / 'absent'}"]) == 2


def test_contact_sheet_shows_the_images(good):
    import cv2
    import numpy as np

    from data_shards.inspect.summary import CAPTION, CELL, GAP, contact_sheet

    shards = ShardSet.open(good)
    sheet, damaged = contact_sheet(shards, rows=2, columns=2)
    assert not damaged
    assert sheet.shape == (2 * (CELL + GAP) + GAP, CAPTION + 2 * (CELL + GAP) + GAP, 3)
    for line, row in ((0, 0), (1, 6)):  # first and last identity
        with open(shards.shards[int(shards.shard[row])], "rb") as file:
            file.seek(int(shards.offset[row]))
            image = cv2.imdecode(np.frombuffer(file.read(int(shards.size[row])), np.uint8), cv2.IMREAD_COLOR)
        top = GAP + line * (CELL + GAP)
        shown = sheet[top : top + CELL, CAPTION : CAPTION + CELL]
        expected = cv2.resize(image[..., ::-1], (CELL, CELL), interpolation=cv2.INTER_CUBIC)
        assert np.abs(shown.astype(int) - expected).mean() < 3


def test_info_shows_all_it_can(good, tmp_path, capsys):
    """An unfinished set, two of one name, a damaged image: each is told, none stops the others."""
    for name in ("a", "b", "c"):
        shutil.copytree(good, tmp_path / "sets" / name / "train")
    (tmp_path / "sets" / "a" / "train" / ".pack").mkdir()
    (tmp_path / "sets" / "a" / "train" / "manifest.json").unlink()
    shards = ShardSet.open(tmp_path / "sets" / "c" / "train")
    flip(shards.shards[0], int(shards.offset[0]), 0xFF)
    assert main(["info", str(tmp_path / "sets"), f"out={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"error: {tmp_path}/sets/a/train: has no manifest.json; give the folder of a packed set, or let "
        "`rostro pack` finish it by the same command",
        f"error: {shards.folder}: damaged images: type rostro check {shards.folder}",
    ]
    one, two = (tmp_path / f"faces-train{more}-contact.png" for more in ("", "-2"))
    assert str(one) in printed.out
    assert str(two) in printed.out
    assert one.read_bytes() != two.read_bytes()


def test_shards_are_told_in_their_order_as_they_are_done(folder, monkeypatch):
    shards = ShardSet.open(folder)
    for path, start in zip(shards.shards, shards.shard_start[:-1], strict=True):
        flip(path, int(shards.offset[int(start)]))
    files = [path.name for path in shards.shards]
    done = []

    def run(order):
        def jobs_in_order(function, jobs, *, workers):
            for number in order:
                done.append(number)
                yield number, function(*jobs[number])

        monkeypatch.setattr(check, "run_jobs", jobs_in_order)
        return check_set(folder, workers=1)

    assert list(dict.fromkeys(problem.file for problem in run([1, 0]))) == files
    done.clear()
    assert next(run([0, 1])).file == files[0]
    assert done == [0]  # the first shard is told before the second one is begun


def test_every_line_begins_with_the_set(good, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(good, "faces")  # a name that file names of the set hold too
    (tmp_path / "faces" / "index" / "size.npy").unlink()
    assert main(["check", "faces"]) == 1
    assert capsys.readouterr().out.startswith("faces/index/size.npy: No such file or directory\n")
    shutil.copytree(good, "other")
    (tmp_path / "other" / "manifest.json").write_text("{")
    monkeypatch.chdir(tmp_path / "other")
    assert main(["check", "."]) == 1
    assert capsys.readouterr().out.startswith("./manifest.json: is not JSON (Expecting property name")


def test_open_refuses_what_does_not_match(folder):
    shards = ShardSet.open(folder, fields=["identity"])
    with pytest.raises(UserError, match="has no label `age`, only identity"):
        ShardSet.open(folder, fields=["age"])
    with open(shards.shards[0], "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"faces-000000.tar: \d+ bytes, the manifest says"):
        ShardSet.open(folder)
    shards.shards[0].unlink()
    with pytest.raises(UserError, match=r"faces-000000.tar: No such file"):
        ShardSet.open(folder)
    with pytest.raises(UserError, match=r"has no manifest.json; give one of its sets: .*train"):
        ShardSet.open(folder.parent)
    (folder / "index" / "size.npy").unlink()
    with pytest.raises(UserError, match=r"size.npy: No such file|tar: No such file"):
        ShardSet.open(folder)


def test_open_refuses_an_edited_manifest_or_another_schema(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"samples": 8}))
    with pytest.raises(UserError, match="was changed after packing"):
        ShardSet.open(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(
        UserError, match="schema=99, this program reads 1 to 2; update Rostro, or pack the set"
    ):
        ShardSet.open(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema": "2"}))
    with pytest.raises(UserError, match="schema='2', this program reads 1 to 2; pack the set again"):
        ShardSet.open(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json is not JSON"):
        ShardSet.open(folder)


def test_open_refuses_rows_that_do_not_fit(folder):
    import numpy as np

    from data_shards.files import file_entry
    from data_shards.shard_format.manifest import write_manifest

    np.save(folder / "index" / "size.npy", np.zeros(3, "u4"))
    manifest = json.loads((folder / "manifest.json").read_text())
    for number, entry in enumerate(manifest["files"]):
        manifest["files"][number] = file_entry(folder / entry["name"], name=entry["name"])
    write_manifest(folder, manifest)
    with pytest.raises(UserError, match=r"size.npy: 3 rows, the manifest says 9"):
        ShardSet.open(folder)


def test_an_empty_shard_is_a_line_and_no_traceback(folder, capsys):
    """What a full disk leaves of a copy."""
    shard = min(folder.glob("*.tar"))
    shard.write_bytes(b"")
    assert main(["check", str(folder), "workers=1"]) == 1
    assert f"{shard.name}: 0 bytes, the manifest says" in "".join(capsys.readouterr())
