"""The files of launch/conf without Hydra: choices, and the words of a smoke run."""

import pytest

from data_shards.errors import UserError
from launch.options.conf import choices, smoke_overrides


def test_every_group_has_choices():
    assert choices("engine") == ["ddp", "deepspeed", "flat"]
    assert choices("cluster") == ["auto", "local", "slurm"]
    assert "siamese" in choices("task")


def test_the_smoke_overrides_are_words():
    words = smoke_overrides("siamese")
    assert "task.trunk=small" in words
    assert all(word.count("=") == 1 for word in words)
    with pytest.raises(UserError, match="task=siames is not known: did you mean siamese"):
        smoke_overrides("siames")
