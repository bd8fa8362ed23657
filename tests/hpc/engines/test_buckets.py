"""Buckets that leave during the backward pass: the same gradients as one all-reduce after it."""

import pytest
import torch

from hpc.distributed.comm import Comm
from hpc.engines.factory import build_engine
from hpc.engines.flat import Flat
from tests.support import buckets
from tests.support.engines import by_plain_torch
from tests.support.ranks import launch


@pytest.mark.parametrize("world", [2, 3])
def test_buckets_change_no_gradient(world):
    for with_unused, cut_with_unused, plain, cut in launch(buckets.both_ways, world):
        for (wanted, _), (found, left) in ((with_unused, cut_with_unused), (plain, cut)):
            assert found.keys() == wanted.keys()
            for name in wanted:
                # Of two numbers the sum has no order; of three it depends on how the ranks cut a bucket.
                torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=0 if world == 2 else 1e-8)
            assert left[0] == 0  # only the last micro batch's pass completes them
        assert cut_with_unused[1][1] == 1  # all after the unused layer wait for the end
        assert cut[1][1] == 2


def test_every_kind_of_loss_trains_in_buckets_as_in_one_process():
    for rank in launch(buckets.jobs, 2):
        for (job, _), found in rank.items():
            wanted = by_plain_torch(job, "sgd")
            for name in wanted:
                torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_the_cpu_sums_once_and_one_rank_does_not():
    engine = build_engine("flat", torch.nn.Linear(4, 4), Comm(world=2))
    assert isinstance(engine, Flat)
    assert engine.buckets is None
    assert Flat(torch.nn.Linear(4, 4), Comm(), bucket_mb=1.0).buckets is None
