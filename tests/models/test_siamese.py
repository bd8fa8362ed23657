"""The siamese network: unit embeddings in float32, a head that sees only |a - b|."""

import pytest
import torch

from models.backbones import build_trunk
from models.siamese import SiameseNet


def build(head: bool = False) -> SiameseNet:
    torch.manual_seed(0)
    return SiameseNet(*build_trunk("small"), embedding=32, head=head)


def test_embeddings_have_length_one_also_under_autocast():
    net = build()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = net(images)
    assert embedding.shape == (4, 32)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))


def test_every_parameter_receives_a_gradient():
    net = build(head=True)
    a, b = net(torch.rand(2, 2, 3, 32, 32).flatten(0, 1) * 2 - 1).chunk(2)
    net.same(a, b).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert net.embed.weight.grad.abs().sum() > 0


def test_the_head_is_symmetric_and_prefers_equal_images():
    net = build(head=True)
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, 32), dim=-1)
    torch.testing.assert_close(net.same(a, b), net.same(b, a))
    assert net.same(a, b).shape == (5,)
    assert net.same(a[:, None], b[None]).shape == (5, 5)
    assert (net.same(a, a) > net.same(a, b)).all()


def test_a_score_without_a_head_says_what_to_type():
    with pytest.raises(ValueError, match="head=True"):
        build().same(torch.zeros(1, 32), torch.zeros(1, 32))
