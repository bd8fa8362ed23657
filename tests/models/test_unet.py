"""U-Net: known counts, an output of the input's size, and what is seen from where."""

import pytest
import torch

from models.unet import LIGHT, UNet
from tests.support.counts import parameters
from tests.support.host_reads import HostReads


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("bilinear", "count"), [(False, 31_037_698), (True, 17_263_042)])
def test_it_has_the_known_counts(bilinear, count):
    with torch.device("meta"):
        assert parameters(UNet(2, bilinear=bilinear)) == count


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_it_keeps_the_size_and_every_weight_learns(bilinear, norm):
    torch.manual_seed(0)
    net = UNet(3, widths=(16, 32, 64), bilinear=bilinear, norm=norm)
    with HostReads() as reads:
        logits = net(draw(2, 3, 16, 24))
        logits.square().mean().backward()
    assert reads.found == []
    assert logits.shape == (2, 3, 16, 24)
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_a_pixel_is_seen_from_far_and_near():
    """The lowest level shows what is far; the way across keeps what is near as fine as it was."""
    torch.manual_seed(0)
    net = UNet(2, widths=(16, 32, 64)).eval()
    image = draw(1, 3, 64, 64).requires_grad_()
    net(image)[0, 1, 32, 32].backward()
    seen = image.grad[0].abs().sum(0) > 0
    assert seen[32, 32]
    assert seen[32, 12:52].all()
    assert not seen[32, 0]


def test_group_norm_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    net = UNet(2, widths=LIGHT, norm="group").train()
    images = draw(3, 3, 32, 32)
    torch.testing.assert_close(net(images)[:1], net(images[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"classes": 1}, "use 2 classes or more"),
        ({"widths": (64,)}, "2 widths or more"),
        ({"norm": "layer"}, "norm=layer: use batch or group"),
        ({"norm": "group", "widths": (8, 16)}, "group norm needs multiples of 16"),
    ],
)
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        UNet(**words)


def test_sides_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match="30 x 32 pixels: use sides that are multiples of 16"):
        UNet(2, widths=LIGHT)(draw(1, 3, 32, 30))
