"""Streaming: `webdataset` reads our shards, from files and pipes; the weaker guarantees hold as stated."""

import numpy as np
import pytest
import torch
import webdataset

from data_shards import manifest
from data_shards.errors import DecodeError, UserError
from data_shards.loader import decode_pictures
from data_shards.stream import Sources, StreamLoader
from hpc.config import Augment
from tests.data_shards.small_set import build, jpeg, photo

PLAIN = Augment([1.0, 1.0], flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
SIZES = [9, 9, 9, 9]


@pytest.fixture(scope="module")
def blobs():
    return [jpeg(photo(number, 50 + number, 60)) for number in range(36)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, blobs):
    built = build(tmp_path_factory.mktemp("set"), blobs, SIZES, shards=6)
    entries = [{"name": path.name, "samples": 6} for path in built.shards]
    manifest.write_manifest(built.folder, {"shards": entries, "fields": ["identity"], "samples": 36})
    return built


def pattern(shards):
    return f"pipe:cat {shards.folder}/small-{{000000..000005}}.tar"


def make(source, **keys):
    options = {
        "seed": 1,
        "rank": 0,
        "world": 1,
        "batch": 12,
        "size": 32,
        "threads": 2,
        "ahead": 2,
        "augment": PLAIN,
    }
    return StreamLoader(str(source), **{**options, **keys})


def take(loader, clock, count):
    loader.start(clock)
    out = [loader.next() for _ in range(count)]
    loader.close()
    return out


def test_webdataset_itself_reads_our_shards(shards, blobs):
    urls = [str(path) for path in shards.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["jpg"] for sample in samples] == blobs
    assert [int(sample["cls"]) for sample in samples] == shards.labels["identity"].tolist()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_batches_are_what_the_shards_hold(shards, blobs, kind):
    loader = make(shards.folder if kind == "folder" else pattern(shards), buffer=8)
    found = take(loader, 24, 6)
    expected = decode_pictures(blobs, 32)
    known = {picture.tobytes(): number for number, picture in enumerate(expected)}
    for number, batch in enumerate(found):
        assert batch.images.shape == (12, 3, 32, 32)
        assert batch.positions.tolist() == list(range(24 + 12 * number, 36 + 12 * number))
        rows = [known[picture.tobytes()] for picture in batch.images.permute(0, 2, 3, 1).numpy()]
        assert batch.ids.tolist() == (rows if kind == "folder" else [-1] * 12)
        np.testing.assert_array_equal(batch.labels["identity"], shards.labels["identity"][rows])
        assert not batch.labels["repeat"].any()
    assert loader.waited > 0


def test_passes_are_complete_and_shuffled_anew(shards):
    """With a buffer of one sample a pass of one rank is a permutation of shards, samples in their order."""
    ids = torch.cat([batch.ids for batch in take(make(shards.folder, buffer=1), 0, 6)]).numpy()
    first, second = ids[:36], ids[36:]
    np.testing.assert_array_equal(np.sort(first), np.arange(36))
    np.testing.assert_array_equal(np.sort(second), np.arange(36))
    assert (first != second).any()
    shuffled = torch.cat([batch.ids for batch in take(make(shards.folder, buffer=18), 0, 3)]).numpy()
    assert (np.diff(shuffled) == 1).mean() < 0.5


def test_ranks_read_disjoint_shards(shards):
    seen = []
    for rank in range(2):
        batches = take(make(shards.folder, rank=rank, world=2, buffer=1), 0, 3)
        seen.append({int(number) for batch in batches for number in batch.ids})
    assert seen[0] | seen[1] == set(range(36))
    assert not seen[0] & seen[1]


def test_the_same_start_gives_the_same_batches(shards):
    for clock in (0, 24):
        one = take(make(shards.folder), clock, 4)
        two = take(make(shards.folder, threads=1, ahead=5), clock, 4)
        assert all(torch.equal(a.images, b.images) for a, b in zip(one, two, strict=True))


def test_a_later_start_goes_on_at_the_front_of_a_shard(shards):
    loader = make(shards.folder, buffer=1)
    straight = torch.cat([batch.ids for batch in take(loader, 0, 6)]).numpy()
    for clock in (0, 12, 36, 48):
        (batch,) = take(loader, clock, 1)
        assert batch.ids[0] == straight[clock]  # 12 is a multiple of the shards' 6 samples
    (middle,) = take(make(shards.folder, buffer=1, batch=4), 8, 1)
    assert middle.ids[0] == straight[6]


def test_bare_urls_begin_a_new_pass(shards):
    one, two = (torch.cat([b.images for b in take(make(pattern(shards)), clock, 3)]) for clock in (0, 36))
    assert not torch.equal(one, two)


def test_augmentation_is_that_of_the_positions(shards):
    augment = Augment(hue=20.0)
    one, two = (take(make(shards.folder, augment=augment, seed=seed), 0, 1)[0] for seed in (1, 1))
    assert torch.equal(one.images, two.images)
    plain = take(make(shards.folder), 0, 1)[0]
    assert torch.equal(plain.ids, one.ids)
    assert not torch.equal(plain.images, one.images)


def test_sources_are_found_by_folder_and_by_pattern(shards):
    found = Sources.find(str(shards.folder))
    assert [url.rsplit("/", 1)[1] for url in found.urls] == [path.name for path in shards.shards]
    assert found.counts == [6] * 6
    assert Sources.find("https://h/x-{08..11}.tar").urls == [f"https://h/x-{n:02d}.tar" for n in range(8, 12)]


def test_wrong_input_is_refused_by_key(shards, tmp_path):
    with pytest.raises(UserError, match=r"data\.train is empty"):
        make("")
    with pytest.raises(UserError, match="deals 6 shards to 12 ranks: use at most 6 ranks"):
        make(shards.folder, world=12)
    with pytest.raises(UserError, match=r"reads the label identity, not age: use data\.stream=false"):
        make(shards.folder, fields=("age",))
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        make(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no label", "word", "picture", "command"])
def test_damage_stops_the_run_and_is_named(shards, blobs, tmp_path, damage):
    built = build(tmp_path, blobs[:4], [4], shards=1)
    (path,) = built.shards
    data, source = path.read_bytes(), str(path)
    label = int(built.offset[2]) + int(built.size[2]) // 512 * 512 + 512  # header of 000002.cls
    edits = {
        "missing": lambda: path.unlink(),
        "truncated": lambda: path.write_bytes(data[: int(built.offset[3]) + 100]),
        "no label": lambda: path.write_bytes(_renamed(data, label)),
        "word": lambda: path.write_bytes(data[: label + 512] + b"x" + data[label + 513 :]),
        "picture": lambda: path.write_bytes(data.replace(blobs[2], bytes(len(blobs[2])))),
        "command": lambda: None,
    }
    edits[damage]()
    if damage == "command":
        source = "pipe:exit 3; cat nothing.tar"
    loader = make(source, batch=4, buffer=1)
    loader.start(0)
    expected = {
        "no label": r"000002 has no \.cls member",
        "word": r"000002\.cls is b'x', not an integer",
        "picture": r"000002 does not decode",
    }.get(damage, r"cannot be read to its end")
    kind = DecodeError if damage == "picture" else UserError
    with pytest.raises(kind, match=expected):
        loader.next()
    loader.close()


def _renamed(data: bytes, header: int) -> bytes:
    """Call the member 000002.clx, and add 5 (x - s) to the header's octal checksum."""
    block = bytearray(data[header : header + 512])
    block[9:10] = b"x"
    total = int(bytes(block[148:154]).strip(b"\0 "), 8) + ord("x") - ord("s")
    block[148:156] = b"%06o\0 " % total
    return data[:header] + bytes(block) + data[header + 512 :]
