"""The registry: every name is built, what is said of it without torch is so, and mistakes name the remedy."""

import subprocess
import sys

import pytest
import torch

from models import names
from models.backbones import TRUNKS, build_trunk
from models.names import BACKBONES, NAMES


def test_the_names_are_those_of_the_registry():
    assert set(TRUNKS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_trunk_takes_its_smallest_images_and_every_parameter_learns(name):
    torch.manual_seed(0)
    width = 4 if BACKBONES[name].width else None
    trunk, features = build_trunk(name, width)
    side = BACKBONES[name].smallest
    output = trunk(torch.rand(8, 3, side, side) * 2 - 1)
    assert output.shape == (8, features)
    assert output.isfinite().all()
    (output * torch.randn_like(output)).sum().backward()
    assert [n for n, p in trunk.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


# Side of the last feature map for images of the size that the backbone is made for
MAPS = {"googlenet": 4, "small": 7, "resnet18": 7, "resnet34": 7, "resnet50": 7, "meso4": 32} | {
    "mesoinception4": 32,
    "vgg": 6,
    "vgg_deep": 6,
    "cnn": 8,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_last_map_is_a_grid_of_places(name):
    torch.manual_seed(0)
    trunk = build_trunk(name, 4 if BACKBONES[name].width else None)[0].eval()
    seen = []
    trunk.last_map.register_forward_hook(lambda _m, _i, output: seen.append(tuple(output.shape)))
    size = BACKBONES[name].size
    with torch.no_grad():
        trunk(torch.rand(1, 3, size, size) * 2 - 1)
    ((_, _, *sides),) = seen
    assert sides == [MAPS[name]] * 2


@pytest.mark.parametrize("name", [name for name in NAMES if BACKBONES[name].width])
def test_the_width_stated_is_the_default(name):
    widths = (None, BACKBONES[name].width, BACKBONES[name].width // 2)
    with torch.device("meta"):
        count = [sum(p.numel() for p in build_trunk(name, width)[0].parameters()) for width in widths]
    assert count[0] == count[1] > 2 * count[2]


def test_mistakes_say_what_to_type():
    with pytest.raises(ValueError, match=r"backbone=resnet is unknown: use googlenet or small or resnet18"):
        build_trunk("resnet")
    with pytest.raises(ValueError, match=r"width=32 does not go with backbone=googlenet.* or use resnet18"):
        build_trunk("googlenet", width=32)
    with pytest.raises(ValueError, match=r"width=0 is not positive: use 1 or more, for example width=64"):
        build_trunk("resnet18", width=0)
    assert names.fault("resnet18", 16, 8) == "size=8 is too small for backbone=resnet18: use 16 or more"
    assert names.fault("resnet18", 16, 16) == ""


def test_the_names_need_no_torch():
    code = "import sys; import models.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
