"""A task of two fixed ways between drawn domains, and its judgement on every rank."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.sampling.order import evaluation_blocks
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet, Report
from hpc.evaluation.cycles import Cycles
from hpc.evaluation.features import FeatureNetwork
from hpc.evaluation.run import evaluate
from hpc.generator import Translator
from hpc.task import Task

SAMPLES, BLOCK, SIDE = 13, 4, 6
WAYS = {"ab": ("a", "b"), "ba": ("b", "a")}


class Scaled(Translator):
    """Multiplies images by a number, and adds another one."""

    def __init__(self, factor: float, more: float) -> None:
        super().__init__()
        self.factor, self.more = factor, more

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor + self.more


class Sides(nn.Module):
    """Embeds an image by its mean colours left and right."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([half.mean((2, 3)) for half in images.chunk(2, 3)], 1).flatten(1)


class Translates(Task):
    """ab halves images, ba multiplies them by 3 and adds 0.2."""

    def __init__(self, make: Any, *, broken: bool = False) -> None:
        super().__init__(None)
        self.evaluators = {"cycles": make}
        self.factors = {"ab": (0.5, 0.0), "ba": (float("nan") if broken else 3.0, 0.2)}

    def translator(self, nets: Any, *, direction: str = "") -> Translator:
        return Scaled(*self.factors[direction])


def drawn() -> tuple[Tensor, np.ndarray]:
    """Return images uint8 [n, 3, h, w] and the breed of each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SAMPLES, 3, SIDE, SIDE), np.uint8)
    return torch.from_numpy(images), np.arange(SAMPLES) % 4


def sides_of(word: str, sha256: str) -> FeatureNetwork:
    net = Sides()
    return FeatureNetwork(word, "0", lambda images: (net(images), None), side=SIDE, nets=(net,))


def judged(comm: Comm, identity: str = "", typed: str = "", broken: bool = False) -> Report:
    """identity: the helper that embeds; typed: the run that is typed."""
    images, breeds = drawn()

    def batches(comm: Comm) -> Iterable[Batch]:
        for block in evaluation_blocks(SAMPLES, BLOCK, comm.rank, comm.world):
            rows = torch.arange(block.start, block.stop)
            yield Batch({"image": images[rows]}, {}, rows[:, None], rows)

    def make() -> Cycles:
        domains = {"a": "breed==0", "b": "breed==1"}
        evaluator = Cycles(domains=domains, ways=WAYS, identity=identity)
        evaluator.typed = {"identity_run": typed}
        evaluator._open = sides_of
        return evaluator

    shards = _Set(breeds)
    nets: dict[str, nn.Module] = {"identity": Sides()}
    task = Translates(make, broken=broken)
    reports, _ = evaluate(task, nets, JudgedSet(batches, shards), comm, channels_last=False)
    return reports["cycles"]


def scalars(comm: Comm, identity: str, typed: str) -> dict[str, float]:
    return judged(comm, identity, typed).scalars


def sheet(comm: Comm, folder: str) -> bytes | None:
    """Return the file that is drawn; None on a rank that draws none."""
    draw = judged(comm).figures.get("cycles.png")
    if draw is None:
        return None
    path = Path(folder, f"{comm.world}.png")
    draw(path)
    return path.read_bytes()


class _Set(SimpleNamespace):
    """What an expression over labels needs of a set."""

    def __init__(self, breeds: np.ndarray) -> None:
        ends = np.array([0, len(breeds)])
        super().__init__(
            labels={"breed": breeds}, folder="drawn", shard_start=ends, identity_start=ends, schema=None
        )

    def __len__(self) -> int:
        return SAMPLES
