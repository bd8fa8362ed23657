"""Our shards in the hands of others: webdataset, DALI's own reader, GNU tar."""

import subprocess

import numpy as np
import pytest
import simplejpeg
import webdataset as wds

from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from tests.support.image_folders import identity_folders


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    src = identity_folders(tmp_path_factory.mktemp("src"), identities=5, images=4)
    out = tmp_path_factory.mktemp("out")
    made = pack(open_source("folder", str(src)), out, Request(name="faces", shard_mb=0.02), workers=1)
    return ShardSet.open(made[0].folder)


def decoded(shards: ShardSet, row: int) -> np.ndarray:
    with open(shards.shards[int(shards.shard[row])], "rb") as file:
        file.seek(int(shards.offset[row]))
        return simplejpeg.decode_jpeg(file.read(int(shards.size[row])), fastdct=False, fastupsample=False)


def test_webdataset_streams_and_decodes_them(shards):
    urls = [str(path) for path in shards.shards]
    assert len(urls) > 1
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("__key__", "jpg", "cls"))
    assert len(samples) == len(shards) == 20
    for row, (key, image, label) in enumerate(samples):
        assert f"{key}.jpg" == shards.member(row)
        assert label == shards.labels["identity"][row]
        assert np.abs(image.astype(int) - decoded(shards, row)).mean() < 1


def test_dali_reads_them_by_our_index(shards):
    dali = pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, types

    indices = [str(path.with_suffix(".idx")) for path in shards.shards]

    @dali.pipeline_def(batch_size=4, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def reading():
        jpeg, label = fn.readers.webdataset(
            paths=[str(path) for path in shards.shards],
            index_paths=indices,
            ext=["jpg", "cls"],
            missing_component_behavior="error",
            name="reader",
        )
        return fn.decoders.image(jpeg, output_type=types.RGB), label

    pipeline = reading()
    pipeline.build()
    assert pipeline.epoch_size("reader") == len(shards)
    rows = iter(range(len(shards)))
    for _ in range(len(shards) // 4):
        images, labels = pipeline.run()
        for at in range(4):
            row = next(rows)
            assert int(bytes(labels.at(at))) == shards.labels["identity"][row]
            assert np.abs(images.at(at).astype(int) - decoded(shards, row)).mean() < 2


def test_gnu_tar_lists_them(shards):
    listed = []
    for path in shards.shards:
        done = subprocess.run(["tar", "tf", str(path)], capture_output=True, text=True, check=True)
        assert not done.stderr
        listed += done.stdout.splitlines()
    assert listed[::2] == [shards.member(row) for row in range(len(shards))]
