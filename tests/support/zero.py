"""Runs for every rank of `test_zero.py`: the passes of `engines.py` under DeepSpeed, and engine changes."""

import contextlib
import copy
import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.checkpoints.store import Checkpoint
from hpc.config.schema import Config, DeepSpeed, Ema, Engine, Optim
from hpc.distributed import collectives
from hpc.distributed.comm import Comm
from hpc.task import Batch, Phase, Task
from hpc.training.accumulation import BackwardPass, blocks_of
from hpc.training.player import Player
from tests.support import engines

STAGES = (0, 1, 2, 3)
# Small tensors are cut too.
SPLIT = json.dumps({"zero_optimization": {"stage3_param_persistence_threshold": 0}})
Case = tuple[str, str, int, dict[str, Any]]  # job, optimizer, micro batch, keys of engine.deepspeed


def cases(world: int) -> list[Case]:
    """One process needs no more than a look; two ranks get every variant."""
    even, uneven = {1: (8, 10), 2: (4, 8), 4: (2, 4)}[world]
    found: list[Case] = []
    for stage in STAGES:
        keys = {"stage": stage}
        found += [("sample", "sgd", uneven, keys), ("contrastive", "adam", 0, keys)]
        if world == 2:
            found += [
                ("sample", "adam", even, keys),
                ("contrastive", "sgd", uneven, keys),
                ("bce", "adam", 0, keys),
            ]
            found += [("bce", "sgd", uneven, keys)] if stage < 3 else []
            found += [("sample", "adam", uneven, keys | {"offload": True})] if stage else []
    return [*found, ("sample", "adam", uneven, {"stage": 3, "config": SPLIT})]


def every_way(comm: Comm, chosen: list[Case]) -> list[dict[str, Tensor]]:
    return [
        engines.by_runtime(comm, job, rule, "deepspeed", micro, **keys) for job, rule, micro, keys in chosen
    ]


def refusal(comm: Comm) -> str:
    """What ZeRO 3 says of a loss with parameters of its own, run in two passes."""
    try:
        engines.by_runtime(comm, "bce", "sgd", "deepspeed", 4, stage=3)
    except UserError as error:
        return str(error)
    return ""


class Partly(Task):
    """One parameter takes no part, another one only after the first updates."""

    def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return F.cross_entropy(nets["net"](batch.images["image"], clock), batch.labels["identity"])


class PartlyNet(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.all_used = whole  # DDP wants a gradient for every parameter
        self.early, self.late, self.never = nn.Linear(3 * 64, 6), nn.Linear(3 * 64, 6), nn.Linear(3, 3)

    def forward(self, images: Tensor, clock: int) -> Tensor:
        x = F.avg_pool2d(images, 4).flatten(1)
        if self.all_used:
            return self.early(x) + self.late(x) + F.pad(self.never(x[:, :3]), (0, 3))
        return self.early(x) + self.late(x) if clock >= 2 * engines.BATCH else self.early(x)


def go_on(
    comm: Comm,
    engine: str,
    keys: dict[str, Any],
    source: Checkpoint | None,
    updates: range,
    whole: bool = False,
) -> Checkpoint:
    """A run taken up from `source`, for some updates; the state that rank 0 would save."""
    config = Config(
        batch=engines.BATCH,
        optim=Optim(name="adamw", lr=1e-2, weight_decay=0.1, clip=0.5),
        ema=Ema(half_life=60),
        engine=Engine(name=engine, deepspeed=DeepSpeed(**keys)),
    )
    task = Partly(config)
    player = Player("net", PartlyNet(whole), config, comm)
    if source:
        player.load_state(copy.deepcopy(source).state_of("net"))
    share = engines.BATCH // comm.world
    for step in updates:
        batch = engines.data(step)[slice(comm.rank * share, (comm.rank + 1) * share)]
        player.optimizer.zero_grad(set_to_none=True)
        passes = BackwardPass(
            task,
            Phase("train", "net"),
            {"net": player.engine},
            clock=step * engines.BATCH,
            seed=lambda _: None,
            autocast=contextlib.nullcontext,
        )
        passes.backward(batch, blocks_of(share, 5))
        player.engine.reduce()
        player.update(1e-2, player.norm_of_gradient())
        player.average((step + 1) * engines.BATCH, engines.BATCH)
    saved = Checkpoint(updates.stop * engines.BATCH, updates.stop)
    saved.put("net", player.state())
    images = engines.data(0).images["image"]
    with torch.no_grad():  # on all ranks, from what an evaluation would see
        saved.meta["seen"] = np.array(
            collectives.gather_vector([float(player.evaluated(images, 0).sum())], comm)
        ).tolist()
    return copy.deepcopy(saved)


def go_on_each(
    comm: Comm, ways: list[dict[str, Any]], sources: list[Any], updates: range
) -> list[Checkpoint]:
    return [
        go_on(comm, "deepspeed", keys, source, updates) for keys, source in zip(ways, sources, strict=True)
    ]


def two_players(comm: Comm, engine: str, stage: int) -> dict[str, Tensor]:
    """A generator whose loss goes through the critic, and the critic: weights after three updates of each."""
    config = Config(
        optim=Optim(name="adam", lr=1e-2),
        ema=Ema(),
        engine=Engine(name=engine, deepspeed=DeepSpeed(stage=stage)),
    )
    torch.manual_seed(3)
    nets = {
        "make": nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 8)),
        "judge": nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)),
    }
    players = {name: Player(name, net, config, comm) for name, net in nets.items()}

    class Game(Task):
        def loss(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
            fake = nets["make"](batch.images["image"][:, :4])
            if phase.name == "make":
                return F.softplus(-nets["judge"](fake)).mean()
            return (
                F.softplus(nets["judge"](fake.detach())).mean()
                + F.softplus(-nets["judge"](batch.images["image"])).mean()
            )

    for step in range(3):
        drawn = torch.randn(8, 8, generator=torch.Generator().manual_seed(step))
        share = 8 // comm.world
        rows = torch.arange(comm.rank * share, (comm.rank + 1) * share)
        batch = Batch({"image": drawn[rows]}, {}, rows[:, None], rows)
        for name in ("judge", "make"):
            for other, player in players.items():
                player.module.requires_grad_(other == name)
            players[name].optimizer.zero_grad(set_to_none=True)
            passes = BackwardPass(
                Game(config),
                Phase(name, name),
                {key: player.engine for key, player in players.items()},
                clock=step,
                seed=lambda _: None,
                autocast=contextlib.nullcontext,
            )
            passes.backward(batch, blocks_of(share, 2))
            players[name].engine.reduce()
            players[name].update(1e-2, players[name].norm_of_gradient())
    return {
        f"{n}.{k}": v.clone() for n, player in players.items() for k, v in player.module.state_dict().items()
    }


def games_and_refusals(comm: Comm) -> tuple[list[dict[str, Tensor]], str, str]:
    games = [two_players(comm, *way) for way in (("flat", 0), ("deepspeed", 0), ("deepspeed", 1))]
    return games, refusal(comm), build_message(comm)


def build_message(comm: Comm) -> str:
    """What a rank says where DeepSpeed would call a compiler."""
    Player("net", nn.Linear(2, 2), Config(engine=Engine(name="deepspeed")), comm)
    from deepspeed.ops.op_builder import CPUAdamBuilder

    try:
        CPUAdamBuilder().load()
    except UserError as error:
        return str(error)
    return "built"


def frozen(comm: Comm) -> list[tuple[int, float, float]]:
    """Return stage, output of the trained network and of its whole copy after loading (one frozen weight)."""
    found = []
    for stage in STAGES:
        torch.manual_seed(4)
        net = nn.Sequential(nn.Linear(65, 63), nn.Tanh(), nn.Linear(63, 2))
        net[0].weight.requires_grad_(False)
        keys = DeepSpeed(stage=stage, config=SPLIT if stage == 3 else "")
        player = Player("net", net, Config(engine=Engine(name="deepspeed", deepspeed=keys)), comm)
        saved = Checkpoint(0, 0)
        saved.put("net", player.state())
        saved = collectives.broadcast(saved, comm)
        saved.players["net"] = {name: torch.full_like(t, 0.01) for name, t in saved.players["net"].items()}
        player.load_state(saved.state_of("net"))
        with torch.no_grad():
            outputs = [net(torch.ones(1, 65)).sum() for net in (player.engine.net, player.engine.whole())]
        found.append((stage, *map(float, outputs)))
    return found


def moved_by_nan(comm: Comm) -> list[str]:
    """Names of the tensors that an update with a NaN on rank 1 changes, with the stage before them."""
    moved = []
    for stage in STAGES:
        keys = {"stage": stage, "config": SPLIT if stage == 3 else ""}
        config = Config(
            batch=engines.BATCH,
            optim=Optim(name="adamw", lr=1e-2, clip=0.5),
            ema=Ema(half_life=60),
            engine=Engine(name="deepspeed", deepspeed=DeepSpeed(**keys)),
        )
        player, states = Player("net", PartlyNet(True), config, comm), []
        for spoilt in (False, True):
            player.optimizer.zero_grad(set_to_none=True)
            batch = engines.data(0)[slice(comm.rank, comm.rank + 4)]
            if spoilt and comm.rank == 1:
                batch.images["image"][0] = torch.nan
            with player.engine.micro(last=True):
                player.engine.backward(
                    Partly(config).loss(Phase("train", "net"), {"net": player.module}, batch, 0)
                )
            player.engine.reduce()
            player.update(1e-2, player.norm_of_gradient())
            states.append(copy.deepcopy(player.state()))
        for before, after in zip(states[0][:2], states[1][:2], strict=True):
            moved += [f"{stage} {name}" for name in before if not torch.equal(before[name], after[name])]
    return moved
