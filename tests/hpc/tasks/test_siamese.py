"""The siamese job's pairs and state. Its losses against pair-by-pair formulas: test_engine.py."""

import pytest
import torch

from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.losses.pairs import LOSSES, form_pairs
from hpc.tasks import siamese
from models.backbones import build_trunk
from models.siamese import SiameseNet

KEYS = {"margin": 1.0, "temperature": 0.1}


def embeddings(count: int) -> torch.Tensor:
    drawn = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
    return torch.nn.functional.normalize(drawn, dim=1).requires_grad_()


def test_repeats_of_an_image_are_no_pair() -> None:
    identity = torch.tensor([5, 5, 5, 7])
    ids = torch.tensor([10, 11, 10, 12])  # slots 0 and 2 hold the same image
    pairs = form_pairs(embeddings(4), identity, ids, Comm())
    assert pairs.genuine.mask.tolist() == [
        [False, True, False, False],
        [True, False, True, False],
        [False, True, False, False],
        [False, False, False, False],
    ]
    assert pairs.impostor.mask.sum() == pairs.impostor.count == 6


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_genuine_pairs_has_a_finite_loss_and_gradient(name: str) -> None:
    own = embeddings(6)
    identity, ids = torch.arange(6), torch.arange(6)
    pairs = form_pairs(own, identity, ids, Comm())
    net = SiameseNet(*build_trunk("small"), embedding=8, head=True)
    loss = LOSSES[name](pairs, same=net.same, **KEYS)
    loss.backward()
    assert torch.isfinite(loss)
    assert own.grad is not None
    assert torch.isfinite(own.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_embedding_costs_less_than_a_random_one(name: str) -> None:
    identity = torch.arange(12) // 3
    perfect = torch.eye(8)[identity]
    net = SiameseNet(*build_trunk("small"), embedding=8, head=True)
    found = []
    for own in (perfect, embeddings(12).detach()):
        pairs = form_pairs(own, identity, torch.arange(12), Comm())
        found.append(LOSSES[name](pairs, same=net.same, **KEYS).item())
    assert found[0] < found[1]


def test_the_running_threshold_is_state() -> None:
    keys = {"name": "siamese", "trunk": "small", "embedding": 8, "loss": "contrastive"} | KEYS
    job = siamese.build(Config(task=keys))
    reported: dict[str, float] = {}
    job.report = lambda name, value: reported.update({name: float(value)})
    pairs = form_pairs(embeddings(12), torch.arange(12) // 3, torch.arange(12), Comm())
    job._watch(pairs)
    middle = (reported["cosine_genuine"] + reported["cosine_impostor"]) / 2
    assert float(job.threshold) == pytest.approx(0.02 * middle)
    assert 0.0 <= reported["pair_accuracy"] <= 1.0
    other = siamese.build(Config(task=keys))
    other.load_state(job.state())
    assert torch.equal(other.threshold, job.threshold)
