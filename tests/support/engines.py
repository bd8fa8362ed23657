"""What `test_engine.py` runs on every rank: three updates of a small network, by the runtime and by plain
torch.
"""

import contextlib
import copy
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc.config.schema import Config, DeepSpeed, Engine, Optim
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.engines import batch_norm
from hpc.task import Batch, Phase, Task
from hpc.tasks.siamese import Siamese
from hpc.training.accumulation import BackwardPass, blocks_of
from hpc.training.player import Player
from models.backbones import build_trunk
from models.siamese import SiameseNet

BATCH, GROUP, CLASSES, STEPS = 24, 2, 6, 3
JOBS = ("sample", "contrastive", "triplet", "supcon", "bce")
OPTIMIZERS = {"sgd": 0.1, "adam": 1e-3}
MARGIN, TEMPERATURE = 1.0, 0.1


class Classify(Task):
    """A per-sample loss."""

    def players(self) -> dict[str, nn.Module]:
        trunk, features = build_trunk("small")
        return {"net": nn.Sequential(trunk, nn.Linear(features, CLASSES))}

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return F.cross_entropy(nets["net"](batch.images["image"]), batch.labels["identity"])


def settings(job: str, optimizer: str, engine: str, **deepspeed: Any) -> Config:
    task = {
        "name": "siamese",
        "trunk": "small",
        "embedding": 16,
        "loss": job,
        "margin": MARGIN,
        "temperature": TEMPERATURE,
        "mirror": False,
    }
    return Config(
        batch=BATCH,
        norm_stats="group",
        norm_group=GROUP,
        channels_last=False,
        optim=Optim(name=optimizer, lr=OPTIMIZERS[optimizer], momentum=0.9),
        engine=Engine(name=engine, deepspeed=DeepSpeed(**deepspeed)),
        task=task,
    )


def module(job: str) -> nn.Module:
    torch.manual_seed(1)
    if job == "sample":
        return Classify(None).players()["net"]
    trunk, features = build_trunk("small")
    return SiameseNet(trunk, features, 16, head=job == "bce")


def data(step: int) -> Batch:
    """A global batch of 6 identities x 4 images; the last image of an identity repeats its first."""
    generator = torch.Generator().manual_seed(100 + step)
    ids = torch.arange(BATCH)
    ids[3::4] = ids[0::4]
    images = torch.randn(BATCH, 3, 32, 32, generator=generator)
    images[3::4] = images[0::4]
    labels = {"identity": torch.arange(BATCH) // 4}
    return Batch({"image": images}, labels, ids[:, None], torch.arange(BATCH))


def by_runtime(
    comm: Comm, job: str, optimizer: str, engine: str, micro: int, **deepspeed: Any
) -> dict[str, Tensor]:
    """Losses, first gradients and last parameters of the runtime's passes on this rank."""
    config = settings(job, optimizer, engine, **deepspeed)
    task = Classify(config) if job == "sample" else Siamese(config)
    task.comm = comm
    player = Player("net", module(job), config, comm)
    phase = Phase("train", "net", coupled=job != "sample")
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        share = BATCH // comm.world
        batch = data(step)[slice(comm.rank * share, (comm.rank + 1) * share)]
        player.optimizer.zero_grad(set_to_none=True)
        run = BackwardPass(
            task,
            phase,
            {"net": player.engine},
            clock=step * BATCH,
            seed=lambda _: None,
            autocast=contextlib.nullcontext,
        )
        loss = run.backward(batch, blocks_of(share, micro))
        player.engine.reduce()
        if step == 0:
            found |= {f"gradient of {name}": grad.clone() for name, grad in gradients(player).items()}
        player.update(config.optim.lr, player.norm_of_gradient())
        found[f"loss {step}"] = torch.tensor(np.mean(collectives.gather_vector([loss.item()], comm)))
    found |= {name: tensor.clone() for name, tensor in player.engine.whole().state_dict().items()}
    return {name: tensor.detach() for name, tensor in found.items()}


def gradients(player: Player) -> dict[str, Tensor]:
    """Whole averaged gradients by name, where there are any."""
    if player.config.engine.name != "deepspeed" or not player.engine.stage:
        return {name: p.grad for name, p in player.named if p.grad is not None}
    from deepspeed.utils import safe_get_full_grad

    return {name: safe_get_full_grad(p) for name, p in player.named}


def _pairs(embeddings: Tensor, batch: Batch) -> Iterator[tuple[int, int, bool]]:
    """Ordered pairs (i, j, same person) of different images."""
    identity = batch.labels["identity"]
    for i, j in itertools.permutations(range(len(embeddings)), 2):
        if batch.ids[i] != batch.ids[j]:
            yield i, j, bool(identity[i] == identity[j])


def pair_loss(job: str, net: nn.Module, embeddings: Tensor, batch: Batch) -> Tensor:
    """The siamese losses, written pair by pair from the papers."""
    pairs = list(_pairs(embeddings, batch))
    distance = {
        (i, j): (embeddings[i] - embeddings[j]).square().sum().clamp(min=1e-8).sqrt() for i, j, _ in pairs
    }
    genuine = [(i, j) for i, j, same in pairs if same]
    impostor = [(i, j) for i, j, same in pairs if not same]

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack(values).mean()

    if job == "contrastive":
        near = mean([distance[p].square() for p in genuine])
        far = mean([(MARGIN - distance[p]).clamp(min=0).square() for p in impostor])
        return (near + far) / 2
    if job == "bce":
        near = mean([F.softplus(-net.same(embeddings[i], embeddings[j])) for i, j in genuine])
        far = mean([F.softplus(net.same(embeddings[i], embeddings[j])) for i, j in impostor])
        return (near + far) / 2
    each = []
    for anchor in range(len(embeddings)):
        near_ones = [p for p in genuine if p[0] == anchor]
        far_ones = [p for p in impostor if p[0] == anchor]
        if job == "triplet":
            hardest = torch.stack([distance[p] for p in near_ones]).max()
            nearest = torch.stack([distance[p] for p in far_ones]).min()
            each.append((MARGIN + hardest - nearest).clamp(min=0))
        else:
            scores = {p: embeddings[p[0]] @ embeddings[p[1]] / TEMPERATURE for p in near_ones + far_ones}
            total = torch.stack(list(scores.values())).logsumexp(0)
            each.append(mean([total - scores[p] for p in near_ones]))
    return mean(each)


def by_plain_torch(job: str, optimizer: str) -> dict[str, Tensor]:
    """The same three updates by one process on the global batch, with torch's own optimizer."""
    net = batch_norm.convert(copy.deepcopy(module(job)), mode="group", group=GROUP, comm=Comm()).train()
    lr = OPTIMIZERS[optimizer]
    steps = {
        "sgd": lambda: torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9),
        "adam": lambda: torch.optim.Adam(net.parameters(), lr=lr),
    }
    rule = steps[optimizer]()
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        batch = data(step)
        with batch_norm.collecting(batch_norm.norms(net)):
            outputs = net(batch.images["image"])
        if job == "sample":
            loss = F.cross_entropy(outputs, batch.labels["identity"])
        else:
            loss = pair_loss(job, net, outputs, batch)
        rule.zero_grad()
        loss.backward()
        if step == 0:
            found |= {
                f"gradient of {n}": p.grad.clone() for n, p in net.named_parameters() if p.grad is not None
            }
        rule.step()
        batch_norm.commit(batch_norm.norms(net), Comm())
        found[f"loss {step}"] = loss.double()
    found |= {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return {name: tensor.detach() for name, tensor in found.items()}


def every_way(comm: Comm) -> dict[tuple[str, str, str, int], dict[str, Tensor]]:
    """All jobs, optimizers, engines and accumulations of this world size. (A single launch.)"""
    share = BATCH // comm.world
    micros = {1: (0, 8, 10), 2: (0, 4, 8), 4: (0, 2, 4)}[comm.world]  # whole, even, uneven
    assert share % micros[1] == 0
    assert share % micros[2] != 0
    cases = itertools.product(JOBS, OPTIMIZERS, ("flat", "ddp"), micros)
    return {case: by_runtime(comm, *case) for case in cases}
