"""pix2pix under every engine of its plan: the same weights and averages, but for rounding."""

import pytest
import torch

from hpc.checkpoints import store
from hpc.inference.predictor import load_run
from launch.commands.audit_resume import Case
from launch.options.conf import plan_of_task
from tests.support.walk import Job, forked, walker_of

SGD = ("optim.name=sgd", "optim.lr=0.001", "optim.momentum=0", "images=96", "save.every=96", "eval.every=96")


def final(walker, engine):
    name, _, zero = engine.partition(":")
    run = walker.straight(name, Case(2, name, "host", int(zero) if zero else None))
    saved = store.read(store.listing(run)[-1])
    return {
        f"{kind}.{player}.{name}": tensor
        for kind in ("players", "ema")
        for player, tensors in getattr(saved, kind).items()
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
    }


@pytest.mark.slow
def test_its_engines_train_alike(tmp_path):
    engines = plan_of_task("pix2pix").engines
    assert engines == ("flat", "ddp", "deepspeed:1")
    with forked():
        walker = walker_of(Job("pix2pix", "", ("batch=24", *SGD)), tmp_path, None)
        flat, *others = (final(walker, engine) for engine in engines)
    fresh = load_run(tmp_path / "runs" / "flat").untrained().nets
    for player, weight in (("G", "first.weight"), ("D", "layers.0.weight")):
        moved = (flat[f"players.{player}.{weight}"] - fresh[player].state_dict()[weight]).abs().max()
        assert moved > 1e-4  # far beyond the tolerance below
    for other in others:
        assert other.keys() == flat.keys()
        for name, tensor in flat.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
