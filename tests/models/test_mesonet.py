"""MesoNet: the published counts, a reference in NumPy, and images of another size than 256."""

import numpy as np
import pytest
import torch
from torch import nn

from models.backbones import build_trunk
from models.mesonet import MesoNet
from tests.support import keras_mesonet

WHOLE = {"meso4": 28_073, "mesoinception4": 28_725}  # as published, running statistics counted


@pytest.mark.parametrize("name", WHOLE)
def test_with_its_last_layer_it_has_the_published_count(name):
    trunk, features = build_trunk(name)
    whole = nn.ModuleDict({"backbone": trunk, "head": nn.Linear(features, 1)})
    tensors = [*whole.parameters()]
    tensors += [tensor for key, tensor in whole.named_buffers() if not key.endswith("num_batches_tracked")]
    assert features == 16
    assert sum(tensor.numel() for tensor in tensors) == WHOLE[name]


@pytest.mark.parametrize("name", WHOLE)
def test_it_equals_the_layers_of_the_paper_in_numpy(name):
    torch.manual_seed(0)
    trunk = build_trunk(name)[0].double().eval()
    for norm in trunk.norms:
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data.uniform_(0.5, 1.5)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3))
    # Keras flattens 2 x 2 x 16 of so small an image: every cell of the grid then reads one of those.
    cells = np.repeat(np.repeat(np.arange(4).reshape(2, 2), 4, 0), 4, 1)
    weights = keras_mesonet.weights_of(trunk)
    dense = trunk.dense.weight.detach().numpy().reshape(16, 16, 64)
    weights["dense"] = np.stack([dense[:, :, cells.ravel() == cell].sum(2).T for cell in range(4)])
    weights["dense"] = weights["dense"].reshape(4 * 16, 16)
    expected = keras_mesonet.features(name, weights, (images + 1) / 2)
    found = trunk(torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(("side", "last"), [(256, 8), (100, 4), (16, 1)])
def test_any_size_ends_in_the_same_grid(side, last):
    torch.manual_seed(0)
    trunk: MesoNet = build_trunk("meso4")[0].eval()
    seen = []
    trunk.norms[-1].register_forward_hook(lambda _m, _i, output: seen.append(output.shape[-1]))
    assert trunk(torch.rand(1, 3, side, side)).shape == (1, 16)
    assert -(-seen[0] // 4) == last


def test_black_borders_continue_a_black_image():
    """The range that the network works in has 0 for black, so the zeros of the borders are more of it."""
    torch.manual_seed(0)
    trunk: MesoNet = build_trunk("meso4")[0].eval()
    map_ = trunk.layers[0](torch.full((1, 3, 8, 8), -1.0) * 0.5 + 0.5)
    assert map_.flatten(2).std(2).max() == 0
    with torch.no_grad():
        trunk.layers[0][0].bias.zero_()
        trunk.layers[0][0].weight.fill_(1.0)
    seen = []
    trunk.layers[0].register_forward_hook(lambda _m, _i, output: seen.append(output))
    trunk(torch.full((1, 3, 16, 16), -1.0))
    assert seen[0].abs().max() == 0
