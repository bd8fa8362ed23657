"""Small files: schemas of JSON and YAML, refusal of what is not a regular file, writes in one step."""

import json
import os
import threading
from pathlib import Path

import pytest

from data_shards import files
from data_shards.files import FileError, MissingFile

SCHEMA = {"clock": int, "rate?": float, "files": {str: {"bytes": int}}, "names": [str], "best?": (int, None)}
GOOD = {"clock": 3, "rate": 1, "files": {"a": {"bytes": 1}}, "names": ["x"], "best": None, "more": [1]}


def test_a_value_of_the_schema_comes_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", GOOD)
    assert files.read_json(tmp_path / "a.json", SCHEMA) == GOOD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clock": "3"}, "clock: '3' is not a whole number"),
        ({"clock": True}, "clock: True is not a whole number"),
        ({"rate": float("inf")}, "rate: inf is not a number"),
        ({"files": {"a": {}}}, "it has no files.a.bytes"),
        ({"files": []}, "files: [] is not a group of entries"),
        ({"names": ["x", 1]}, "names[1]: 1 is not text"),
        ({"best": "a"}, "best: 'a' is not a whole number"),
    ],
)
def test_another_shape_is_named(tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(FileError) as error:
        files.read_json(path, SCHEMA, remedy="delete it")
    assert str(error.value) == f"{path}: {words}: delete it"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"", "is not JSON"),
        (b"[]", "[] is not a group"),
        (b"{" + b" " * (17 << 20) + b"}", "has more than"),
    ],
)
def test_damaged_json_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match="delete it") as error:
        files.read_json(path, remedy="delete it")
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "[" * 5000,
        "a: [",
        "? {a: 1}\n: 2\n",
        "!!python/object/apply:os.system [ls]",
        "\x01",
    ],
)
def test_damaged_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as error:
        files.read_yaml(path)
    assert "\n" not in str(error.value)


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, words in (
        (tmp_path / "fifo", "regular"),
        (tmp_path, "directory|regular"),
        ("/dev/zero", "regular"),
    ):
        with pytest.raises(FileError, match=words):
            files.read_bytes(path)
    with pytest.raises(MissingFile, match="does not exist"):
        files.read_bytes(tmp_path / "none")
    with pytest.raises(FileError):
        files.read_bytes("a\0b")


def test_readers_see_whole_files_and_a_failed_write_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 0, "pad": "x" * 5000})
    ended = threading.Event()

    def write() -> None:
        for number in range(200):
            files.write_json(path, {"n": number, "pad": "x" * 5000})
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not ended.is_set():
        assert len(files.read_json(path, {"n": int, "pad": str})["pad"]) == 5000
    thread.join()
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"n": float("nan")})
    assert files.read_json(path)["n"] == 199
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
