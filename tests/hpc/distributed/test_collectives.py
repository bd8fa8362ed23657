"""Gathers of several tensors in one message, and how many messages the siamese loss takes."""

import pytest
import torch

from hpc.losses.pairs import LOSSES
from tests.support import collective_ranks
from tests.support.ranks import launch


def test_one_message_carries_floats_integers_and_flags_exactly() -> None:
    for rank, (floats, integers, flags, gradient) in enumerate(launch(collective_ranks.gathered, 2)):
        assert torch.equal(floats, torch.tensor([0.1, 0.1, 1.1, 1.1])[:, None].expand(4, 3))
        assert integers.tolist() == [2**53 + 1, 0, 2**53 + 1, -1]
        assert flags.tolist() == [True, True, False, True]
        # Both ranks weigh row i by i.
        assert gradient[:, 0].tolist() == [2.0 * (2 * rank), 2.0 * (2 * rank + 1)]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_siamese_loss_meets_three_times_and_its_backward_once(loss: str) -> None:
    for calls in launch(collective_ranks.messages_of_an_update, 2, loss):
        assert calls == ["all_gather", "all_reduce", "all_reduce", "all_reduce"]
