"""Streaming: `webdataset` reads our shards, from files and pipes; the weaker guarantees hold as stated."""

from collections import Counter

import numpy as np
import pytest
import simplejpeg
import torch
import webdataset

from data_shards.errors import DecodeError, UserError
from data_shards.images.placed import decode_windows
from data_shards.loading.stream import Sources, StreamLoader
from data_shards.loading.tar_stream import samples
from data_shards.sampling import view
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from hpc.config.schema import Augment
from hpc.data.views import view_of
from tests.support.sets import pack_set
from tests.support.small_set import build, commit, jpeg, photo

PLAIN = View((32, 32))
SIZES = [9, 9, 9, 9]


@pytest.fixture(scope="module")
def blobs():
    return [jpeg(photo(number, 50 + number, 60)) for number in range(36)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, blobs):
    built = build(tmp_path_factory.mktemp("set"), blobs, SIZES, shards=6)
    commit(built)
    return built


def pattern(shards):
    return f"pipe:cat {shards.folder}/small-{{000000..000005}}.tar"


def make(source, **keys):
    options = {
        "seed": 1,
        "rank": 0,
        "world": 1,
        "batch": 12,
        "threads": 2,
        "ahead": 2,
        "view": PLAIN,
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


def decoded(blob: bytes, size: int) -> np.ndarray:
    """The whole square as training decodes it."""
    out = np.empty((size, size, 3), np.uint8)
    height, width, *_ = simplejpeg.decode_jpeg_header(blob)
    plan = view.still(View((size, size)), np.array([width]), np.array([height]))
    decode_windows([out], blob, (width, height), plan.placed.windows())
    return out


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_batches_are_what_the_shards_hold(shards, blobs, kind):
    loader = make(shards.folder if kind == "folder" else pattern(shards), buffer=8)
    found = take(loader, 24, 6)
    expected = [decoded(blob, 32) for blob in blobs]
    known = {image.tobytes(): number for number, image in enumerate(expected)}
    for number, batch in enumerate(found):
        assert batch.images["image"].shape == (12, 3, 32, 32)
        assert batch.positions.tolist() == list(range(24 + 12 * number, 36 + 12 * number))
        rows = [known[image.tobytes()] for image in batch.images["image"].permute(0, 2, 3, 1).numpy()]
        places = [(row // 6 << 32) + row % 6 for row in rows]  # shard x 2^32 + place in it
        assert batch.ids[:, 0].tolist() == (rows if kind == "folder" else places)
        np.testing.assert_array_equal(batch.labels["identity"], shards.labels["identity"][rows])
        assert not batch.labels["repeat"].any()
    assert loader.waited > 0


def test_passes_are_complete_and_shuffled_anew(shards):
    """With a buffer of one sample a pass of one rank is a permutation of shards, samples in their order."""
    ids = torch.cat([batch.ids[:, 0] for batch in take(make(shards.folder, buffer=1), 0, 6)]).numpy()
    first, second = ids[:36], ids[36:]
    np.testing.assert_array_equal(np.sort(first), np.arange(36))
    np.testing.assert_array_equal(np.sort(second), np.arange(36))
    assert (first != second).any()
    shuffled = torch.cat([batch.ids[:, 0] for batch in take(make(shards.folder, buffer=18), 0, 3)]).numpy()
    assert (np.diff(shuffled) == 1).mean() < 0.5


def test_ranks_read_disjoint_shards(shards):
    seen = []
    for rank in range(2):
        batches = take(make(shards.folder, rank=rank, world=2, buffer=1), 0, 3)
        seen.append({int(number) for batch in batches for number in batch.ids[:, 0]})
    assert seen[0] | seen[1] == set(range(36))
    assert not seen[0] & seen[1]


def test_the_same_start_gives_the_same_batches(shards):
    for clock in (0, 24):
        one = take(make(shards.folder), clock, 4)
        two = take(make(shards.folder, threads=1, ahead=5), clock, 4)
        assert all(torch.equal(a.images["image"], b.images["image"]) for a, b in zip(one, two, strict=True))


def test_a_later_start_goes_on_at_the_front_of_a_shard(shards):
    loader = make(shards.folder, buffer=1)
    straight = torch.cat([batch.ids[:, 0] for batch in take(loader, 0, 6)]).numpy()
    for clock in (0, 12, 36, 48):
        (batch,) = take(loader, clock, 1)
        assert batch.ids[0, 0] == straight[clock]  # 12 is a multiple of the shards' 6 samples
    (middle,) = take(make(shards.folder, buffer=1, batch=4), 8, 1)
    assert middle.ids[0, 0] == straight[6]


def test_bare_urls_begin_a_new_pass(shards):
    one, two = (
        torch.cat([b.images["image"] for b in take(make(pattern(shards)), clock, 3)]) for clock in (0, 36)
    )
    assert not torch.equal(one, two)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Several shards of 13 identities x 7 images; some identities lie on both sides of a border."""
    folder = tmp_path_factory.mktemp("packed")
    return ShardSet.open(pack_set(folder, identities=13, each=7, holdout=0.0, shard_mb=0.05) / "train")


def groups_of(batches, group):
    """(ids, identities, repeats) of the slots of batches, [groups, K] each."""
    columns = (
        [b.ids[:, 0] for b in batches],
        *([b.labels[n] for b in batches] for n in ("identity", "repeat")),
    )
    return tuple(torch.cat(column).numpy().reshape(-1, group) for column in columns)


def slots_of(packed, group):
    """Slots of a pass: the images of an identity in one shard, rounded up to whole groups."""
    pairs = zip(packed.labels["identity"].tolist(), packed.shard.tolist(), strict=True)
    sizes = np.array(list(Counter(pairs).values()))
    assert len(packed.shards) > 3
    assert len(sizes) > 13  # identities are split, or this set tests too little
    return int((-(-sizes // group) * group).sum())


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@pytest.mark.parametrize("group", [2, 4])
def test_batches_are_whole_groups_and_a_pass_holds_every_image(packed, kind, group):
    pattern = str(packed.shards[0]).replace("000000", f"{{000000..{len(packed.shards) - 1:06d}}}")
    slots = slots_of(packed, group)
    source = packed.folder if kind == "folder" else f"pipe:cat {pattern}"
    loader = make(source, group=group, batch=group, buffer=group)  # one group: a pass comes out as a pass
    ids, identity, repeat = groups_of(take(loader, 0, 2 * slots // group), group)
    assert (identity == identity[:, :1]).all()
    start = packed.shard_start.astype(np.int64)
    rows = ids if kind == "folder" else start[ids >> 32] + (ids & 0xFFFF_FFFF)
    np.testing.assert_array_equal(identity, packed.labels["identity"][rows])
    passes = np.split(np.arange(len(ids)), 2)
    for part in passes:
        np.testing.assert_array_equal(np.sort(rows[part][~repeat[part]]), np.arange(len(packed)))
        assert repeat[part].sum() == slots - len(packed)
    companions = [{frozenset(row) for row in rows[part].tolist()} for part in passes]
    assert companions[0] != companions[1]  # the images of an identity meet others in the next pass


def test_shuffled_groups_stay_whole_on_every_rank(packed):
    for rank in range(2):
        found = take(make(packed.folder, group=4, batch=24, rank=rank, world=2), 0, 6)
        ids, identity, repeat = groups_of(found, 4)
        assert (identity == identity[:, :1]).all()
        assert all(len(set(row[~again])) == (~again).sum() for row, again in zip(ids, repeat, strict=True))
        batches = identity[:, 0].reshape(6, 3)
        assert np.mean([len(set(batch)) for batch in batches]) > 2  # not one identity after the other


def test_a_later_start_counts_the_slots_of_groups(packed):
    slots = slots_of(packed, 4)
    options = {"group": 4, "batch": 4, "buffer": 4}
    ids, *_ = groups_of(take(make(packed.folder, **options), 0, 2 * slots // 4), 4)
    shard = np.asarray(packed.shard)[ids[:, 0]]
    for clock in (slots - 4, slots, slots + 4 * 9):
        found, *_ = groups_of(take(make(packed.folder, **options), clock, 1), 4)
        begins = clock // 4
        while begins and shard[begins - 1] == shard[clock // 4] and begins != slots // 4:
            begins -= 1
        np.testing.assert_array_equal(found[0], ids[begins])


def test_groups_need_identities_that_stand_together(tmp_path, blobs):
    built = build(tmp_path, blobs[:6], [1] * 6, shards=1)
    (path,) = built.shards
    data = bytearray(path.read_bytes())
    label = int(built.offset[4]) + -(-int(built.size[4]) // 512) * 512 + 512  # text of 000004.cls
    assert data[label : label + 1] == b"4"
    data[label : label + 1] = b"1"
    path.write_bytes(data)
    loader = make(path, group=2, batch=12, buffer=2)
    loader.start(0)
    with pytest.raises(UserError, match=r"000004 comes back to identity 1.*use data\.order=plain"):
        loader.next()
    loader.close()
    with pytest.raises(UserError, match=r"batch=6 is not divisible by 1 ranks of groups of 4: use 4 or 8"):
        make(path, group=4, batch=6)
    with pytest.raises(UserError, match=r"data\.group=0 is not positive"):
        make(path, group=0)


def test_augmentation_is_that_of_the_positions(shards):
    colours = view_of(Augment(hue=20.0), (32, 32))
    one, two = (take(make(shards.folder, view=colours, seed=seed), 0, 1)[0] for seed in (1, 1))
    assert torch.equal(one.images["image"], two.images["image"])
    plain = take(make(shards.folder), 0, 1)[0]
    assert torch.equal(plain.ids, one.ids)
    assert not torch.equal(plain.images["image"], one.images["image"])


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
    with pytest.raises(
        UserError, match=r"reads images and the label identity of .*, not age: use data\.stream=false"
    ):
        make(shards.folder, fields=("age",))
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        make(tmp_path)


DAMAGES = [
    "missing",
    "truncated",
    "cut",
    "cut header",
    "header",
    "two",
    "no label",
    "word",
    "image",
    "command",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_stops_the_run_and_is_named(shards, blobs, tmp_path, damage):
    built = build(tmp_path, blobs[:4], [4], shards=1)
    (path,) = built.shards
    data, source = path.read_bytes(), str(path)
    label = int(built.offset[2]) + int(built.size[2]) // 512 * 512 + 512  # header of 000002.cls
    edits = {
        "missing": lambda: path.unlink(),
        "truncated": lambda: path.write_bytes(data[: int(built.offset[3]) + 100]),
        "cut": lambda: path.write_bytes(data[: int(built.offset[3]) - 512]),
        "cut header": lambda: path.write_bytes(data[: int(built.offset[3]) - 100]),
        "header": lambda: path.write_bytes(data.replace(b"000003.jpg", b"00x003.jpg")),
        "two": lambda: path.write_bytes(data + data),
        "no label": lambda: path.write_bytes(_renamed(data, label)),
        "word": lambda: path.write_bytes(data[: label + 512] + b"x" + data[label + 513 :]),
        "image": lambda: path.write_bytes(data.replace(blobs[2], bytes(len(blobs[2])))),
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
        "image": r"000002 does not decode",
        "cut": r"cannot be read to its end \(it was cut: the blocks that end a tar are missing\)",
        "header": r"data follow byte \d+: it is damaged",
        "two": "or several tars in one",
    }.get(damage, r"cannot be read to its end")
    kind = DecodeError if damage == "image" else UserError
    with pytest.raises(kind, match=expected):
        loader.next()
    loader.close()


@pytest.mark.parametrize(
    "how", ["{}", "pipe:cat {}", "pipe:gzip -c {}", "pipe:cat {} /dev/zero | head -c 200k"]
)
def test_a_whole_tar_is_read_however_it_comes(shards, blobs, how):
    found = list(samples(how.format(shards.shards[1])))
    assert [sample["jpg"] for sample in found] == blobs[6:12]
    assert [sample["__key__"] for sample in found] == [f"{number:06d}" for number in range(6, 12)]


def _renamed(data: bytes, header: int) -> bytes:
    """Call the member 000002.clx, and add 5 (x - s) to the header's octal checksum."""
    block = bytearray(data[header : header + 512])
    block[9:10] = b"x"
    total = int(bytes(block[148:154]).strip(b"\0 "), 8) + ord("x") - ord("s")
    block[148:156] = b"%06o\0 " % total
    return data[:header] + bytes(block) + data[header + 512 :]
