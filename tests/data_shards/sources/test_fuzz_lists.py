"""Damaged lists and tables: whatever their bytes, a source lists samples or refuses with what to do."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import UserError
from data_shards.sources.base import Sample
from data_shards.sources.registry import open_source
from tests.data_shards.sources.test_affectnet import write_tables
from tests.data_shards.sources.test_celeba import write_celeba
from tests.data_shards.sources.test_fer2013 import row, write_csv

LISTS = [
    ("celeba", "Anno/list_attr_celeba.txt"),
    ("celeba", "Anno/identity_CelebA.txt"),
    ("celeba", "Eval/list_eval_partition.txt"),
    ("affectnet", "training.csv"),
    ("fer2013", "fer2013.csv"),
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    write_celeba(root / "celeba")
    write_tables(root / "affectnet")
    write_csv(root / "fer2013" / "fer2013.csv", [row(number) for number in range(3)])
    return root


@pytest.mark.parametrize(("name", "path"), LISTS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_list_ends_in_samples_or_in_one_line(layouts, name, path, data):
    file = layouts / name / path
    whole = file.read_bytes()
    low = data.draw(st.integers(0, len(whole)))
    high = data.draw(st.integers(low, min(len(whole), low + 300)))
    damaged = whole[:low] + data.draw(st.binary(max_size=12)) + whole[high:]
    cut = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    file.write_bytes(damaged[:cut])
    try:
        with contextlib.suppress(UserError):
            source = open_source(name, str(layouts / name))
            for sample in source.samples():
                assert isinstance(sample, Sample)
                assert sample.unfit or len(sample.labels) == len(source.fields)
                if not sample.unfit:
                    with contextlib.suppress(OSError):
                        source.read(sample)
    finally:
        file.write_bytes(whole)
