"""What a task remembers: nested, copied at every depth, and given back as it was or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.errors import UserError
from hpc.checkpoints import async_writer, store, task_state
from hpc.checkpoints.store import Checkpoint


def remembered() -> dict[str, Any]:
    return {
        "threshold": torch.tensor(0.25),
        "pool": [torch.arange(3.0), {"images": torch.ones(2, 2), "age": 4}],
        "nested": {"empty": [], "of.dots": [[torch.tensor(7)]]},
        "name": "a/b",
        "none": None,
    }


def assert_equal(found: Any, wanted: Any) -> None:
    if isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    elif isinstance(wanted, dict | list):
        assert type(found) is type(wanted)
        assert len(found) == len(wanted)
        for key in wanted if isinstance(wanted, dict) else range(len(wanted)):
            assert_equal(found[key], wanted[key])
    else:
        assert found == wanted


def change(state: dict[str, Any]) -> None:
    state["pool"][0].zero_()
    state["pool"][1]["images"].zero_()
    state["nested"]["of.dots"][0][0].zero_()
    state["pool"].append("more")


@pytest.mark.parametrize("background", [False, True])
def test_nested_state_comes_back_from_a_checkpoint(tmp_path: Path, background: bool) -> None:
    hand = async_writer.AsyncCheckpointWriter(
        lambda state: store.save(tmp_path, state) and None, background=background
    )
    state = remembered()
    assert hand.save(Checkpoint(64, 4, players={"net": nn.Linear(2, 2).state_dict()}, task=state)) == ""
    change(state)
    assert hand.wait() == ""
    assert_equal(store.read(store.listing(tmp_path)[0]).task, remembered())


def test_a_copy_shares_nothing() -> None:
    state = remembered()
    copy = task_state.copied(state)
    change(state)
    assert_equal(copy, remembered())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((1, 2), "a tuple at pool/0"),
        (np.float32(1), "a float32 at pool/0"),
        (torch.zeros(2, dtype=torch.complex64), "a tensor of torch.complex64 at pool/0"),
        ({1: "one"}, "the key 1 at pool/0: use text"),
        ({"a/b": 1}, "the key 'a/b' at pool/0: use text without a slash"),
    ],
)
def test_what_would_not_come_back_is_refused_by_its_place(value: Any, words: str) -> None:
    with pytest.raises(UserError) as refused:
        task_state.split({"pool": [value]})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
