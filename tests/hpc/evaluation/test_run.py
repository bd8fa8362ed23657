"""A walk over a set: the same digits at any number of ranks, rows by id, one prediction a batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpc.distributed.comm import Comm
from hpc.evaluation.run import labels_of
from tests.support.evaluated import BLOCK, SAMPLES, Rowed, Summed, judged, refused
from tests.support.ranks import launch


class Again(Rowed):
    """Another evaluator of the same prediction."""


@pytest.fixture(scope="module")
def alone() -> dict:
    scalars, predicted, shown = judged(Comm(), Rowed, Summed, Again)
    assert predicted == -(-SAMPLES // BLOCK)  # once a batch, for two evaluators
    assert shown == BLOCK
    assert scalars["summed"]["count"] == SAMPLES
    assert scalars["rowed"] == scalars["again"]
    return scalars


@pytest.mark.parametrize("world", [2, 3, 5])
def test_figures_are_the_same_digit_by_digit_at_any_world_size(alone, world):
    found = launch(judged, world, Rowed, Summed)
    for rank, (scalars, _, shown) in enumerate(found):
        assert scalars == {name: alone[name] for name in ("rowed", "summed")}
        assert shown == (BLOCK if rank == 0 else 0)
    assert sum(predicted for _, predicted, _ in found) == -(-SAMPLES // BLOCK)


def test_all_ranks_end_with_the_message_of_rank_0():
    assert launch(refused, 2) == ["rank 0: no figure can be made of these"] * 2


def test_thumbnails_are_labelled_by_columns_alone():
    """A set of boxes and masks has no column of them, and a run is judged on it all the same."""
    shards, fields = SimpleNamespace(labels={"age": np.array([5, 6, 7])}), ("age", "boxes", "parts")
    labels = labels_of((torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([2, 0])), shards, fields)
    assert {name: values.tolist() for name, values in labels.items()} == {"age": [7, 5]}
    assert labels_of(None, shards, fields) == {}
