"""The tar writer: archives and DALI indexes that Python, GNU tar and DALI read, byte for byte the same."""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.pack.tar_writer import TarWriter
from data_shards.shard_format.ustar import header, header_name

KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,40}(/[A-Za-z0-9_-]{1,40})?", fullmatch=True)
SIZES = st.sampled_from([0, 1, 511, 512, 513, 1024, 20_000, 131_072, 300_001])
SAMPLES = st.dictionaries(KEYS, st.tuples(SIZES, st.integers(0, 10**6)), min_size=1, max_size=90)


def content(size: int, label: int) -> bytes:
    return np.random.default_rng(label).bytes(size)


def write(folder: Path, samples: dict[str, tuple[int, int]], **options) -> tuple[TarWriter, list[int]]:
    writer = TarWriter(folder / "a.tar", index_path=folder / "a.idx", **options)
    offsets = [
        writer.add(key, {"jpg": content(size, label), "cls": b"%d" % label})
        for key, (size, label) in samples.items()
    ]
    writer.close()
    return writer, offsets


@settings(max_examples=25, deadline=None)
@given(SAMPLES)
def test_python_reads_what_was_written(samples):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer, offsets = write(folder, samples)
        data = (folder / "a.tar").read_bytes()
        assert hashlib.sha256(data).hexdigest() == writer.digest
        assert len(data) == writer.offset
        assert len(data) % 512 == 0
        for (size, label), offset in zip(samples.values(), offsets, strict=True):
            assert data[offset : offset + size] == content(size, label)
        with tarfile.open(folder / "a.tar") as tar:
            members = tar.getmembers()
            assert [member.name for member in members] == [
                f"{key}.{end}" for key in samples for end in ("jpg", "cls")
            ]
            for member, (size, label) in zip(members[::2], samples.values(), strict=True):
                assert tar.extractfile(member).read() == content(size, label)
            for member, (_, label) in zip(members[1::2], samples.values(), strict=True):
                assert tar.extractfile(member).read() == b"%d" % label


@settings(max_examples=5, deadline=None)
@given(SAMPLES)
def test_gnu_tar_and_dali_agree(samples):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, samples)
        shown = subprocess.run(["tar", "tf", "a.tar"], cwd=folder, capture_output=True, text=True, check=True)
        assert not shown.stderr
        assert len(shown.stdout.splitlines()) == 2 * len(samples)
        key, (size, label) = next(iter(samples.items()))
        out = subprocess.run(
            ["tar", "xOf", "a.tar", "--", f"{key}.jpg"], cwd=folder, capture_output=True, check=True
        )
        assert out.stdout == content(size, label)
        wds2idx = pytest.importorskip("wds2idx")
        with wds2idx.IndexCreator(str(folder / "a.tar"), str(folder / "b.idx"), verbose=False) as creator:
            creator.create_index()
        assert (folder / "a.idx").read_bytes() == (folder / "b.idx").read_bytes()


@given(KEYS, st.integers(0, 8**11 - 1))
def test_header_is_that_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    ours = header(name.encode(), size)
    assert ours == info.tobuf(tarfile.USTAR_FORMAT)
    assert header_name(ours) == name


@pytest.mark.parametrize("position", [0, 99, 100, 124, 130, 148, 156, 257, 300, 511])
def test_damaged_header_is_noticed(position):
    head = bytearray(header(b"a/b.jpg", 1234))
    head[position] ^= 1
    with pytest.raises(ValueError, match="tar header"):
        header_name(bytes(head))


@pytest.mark.parametrize("key", ["", "a.b", "ñ", "a\0b", "x" * 97])
def test_unfit_keys_are_refused(tmp_path, key):
    writer = TarWriter(tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"without a dot|ascii|fit"):
        writer.add(key, {"jpg": b"x"})
    writer.abandon()


def test_same_members_same_bytes_and_no_overwriting(tmp_path):
    samples = {"a/b": (700, 1), "c": (200_005, 2)}
    digests = []
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        digests.append(write(tmp_path / name, samples)[0].digest)
    assert digests[0] == digests[1]
    with pytest.raises(FileExistsError):
        TarWriter(tmp_path / "1" / "a.tar")


def test_hash_can_be_left_out(tmp_path):
    writer, _ = write(tmp_path, {"a": (10, 1)}, sha256=False)
    assert writer.digest == ""
    assert len((tmp_path / "a.tar").read_bytes()) == writer.offset


@pytest.mark.parametrize(("slow", "met"), [(1.0, True), (5.0, False)])
def test_the_bench_tells_by_its_result_whether_the_demands_are_met(slow, met, capsys):
    from bench.pack import RATIOS, report

    seconds = {name: [(1.0, 1.0)] for above, below, *_ in RATIOS.values() for name in (above, below)}
    seconds["wds.TarWriter with label"] = [(4.0, 4.0)]
    seconds["rostro pack, whole command"] = [(slow, slow)]
    assert report(seconds, files=10, size=10, clock="wall") is met
    assert (
        json.loads(capsys.readouterr().out.splitlines()[-1])["ratios"]["rostro pack / decoding"]["met"] is met
    )
