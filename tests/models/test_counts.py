"""What the plan of a run says of a backbone is so: its parameters, features and activations."""

import subprocess
import sys

import pytest
import torch

from models import counts
from models.backbones import build_trunk
from models.names import BACKBONES, NAMES


def widths(name: str) -> tuple[int | None, ...]:
    own = BACKBONES[name].width
    return (None, own // 2, 3 * own) if own else (None,)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_features_are_exact_at_any_width(name):
    for width in widths(name):
        with torch.device("meta"):
            trunk, features = build_trunk(name, width)
        assert counts.parameters(name, width) == sum(p.numel() for p in trunk.parameters())
        assert counts.features(name, width) == features


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_those_that_autograd_keeps(name):
    """Within a fifth, at another width and size than those of the table."""
    width = BACKBONES[name].width // 4 or None
    size = max(BACKBONES[name].size // 2, 32)
    trunk = build_trunk(name, width)[0].train()
    own = {p.untyped_storage().data_ptr() for p in trunk.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trunk(torch.zeros(4, 3, size, size))
    held = sum(num_bytes for num_bytes, _ in kept.values()) / 4
    assert held == pytest.approx(counts.activations(name, width, size), rel=0.2)


def test_a_wider_or_larger_one_is_slower():
    assert counts.core_rate("resnet18", 64, 112) == counts.COUNTS["resnet18"].rate
    assert counts.core_rate("resnet18", 16, 112) > 8 * counts.core_rate("resnet18", None, 112)
    assert counts.core_rate("small", None, 56) == pytest.approx(4 * counts.core_rate("small", None, 112))


def test_it_needs_no_torch():
    code = "import sys; import models.counts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
