"""A classifier whose class centres are cut over the ranks, and what the tests run on every rank with it."""

import contextlib
import copy
import os
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc import train
from hpc.checkpoints import store
from hpc.checkpoints.store import Checkpoint
from hpc.config.schema import Config, Data, Ema, Engine, Evaluate, Log, Optim, Save
from hpc.distributed.collectives import gather_grad_with, sum_grad
from hpc.distributed.comm import Comm, connect, with_own_group
from hpc.engines.sharded import ShardedRows
from hpc.runs.run_dir import RunDir
from hpc.task import Batch, Phase, Task
from hpc.training import startup
from hpc.training.player import Player
from tests.support.ranks import CONTEXT
from tests.support.runs import make_run

CLASSES, WIDTH, SCALE, BATCH = 15, 8, 16.0, 24


class Net(nn.Module):
    """Embeddings by a small network, and centres of which this rank holds some."""

    def __init__(self, comm: Comm, seed: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(24, WIDTH)
        self.centres = ShardedRows(CLASSES, WIDTH, comm, seed=seed, std=1.0)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.trunk(images)))


class Centres(Task):
    """The softmax over all classes, each rank with the logits of its own."""

    fields = ("identity",)

    def players(self) -> dict[str, nn.Module]:
        return {"net": Net(self.comm, self.config.seed)}

    def phases(self, clock: int) -> list[Phase]:
        return [Phase("class", "net", coupled=True)]

    def forward(self, phase: Phase, nets: dict[str, nn.Module], batch: Batch, clock: int) -> Tensor:
        return nets["net"](batch.images["image"])

    def couple(
        self, phase: Phase, nets: dict[str, nn.Module], outputs: Tensor, batch: Batch, clock: int
    ) -> Tensor:
        centres = nets["net"].centres
        embeddings, labels = gather_grad_with(outputs, (batch.labels["identity"] % CLASSES,), self.comm)
        logits = SCALE * embeddings @ F.normalize(centres.weight).T  # at most SCALE
        total = sum_grad((logits - SCALE).exp().sum(1), self.comm)
        here, place = centres.own(labels)
        score = torch.where(here, logits.gather(1, place[:, None])[:, 0], 0.0)
        return (total.log() + SCALE - sum_grad(score, self.comm)).mean()


def centres_run(path: Path, shards: Path, **changes: Any) -> Path:
    """A run of six updates in which nothing is due before the end."""
    data = Data(train=str(shards / "train"), eval="", size=32, order="plain", backend="host", threads=1)
    options: dict[str, Any] = {
        "images": 6 * BATCH,
        "batch": BATCH,
        "data": data,
        "engine": Engine(name="flat"),
        "ema": Ema(half_life=100),
        "optim": Optim(name="sgd", lr=0.1, momentum=0.9, clip=1.0),
        "save": Save(every=1000),
        "eval": Evaluate(every=1000),
        "log": Log(every=1000),
    }
    return make_run(path, shards, **(options | changes))


def advance(comm: Comm, run: str, clock: int) -> int:
    """Resume, train to `clock` and save; return the clock of the start."""
    with (
        mock.patch.object(train, "build_task", Centres),
        mock.patch.object(startup, "check_world"),  # what the siamese job refuses at another world size
        contextlib.closing(train.Trainer(RunDir(Path(run)), comm)) as trainer,
    ):
        start = trainer.clock
        while trainer.clock < clock:
            trainer.step()
            if trainer.clock < clock:
                trainer._exchange()
        trainer._exchange()
        trainer.save()
        trainer.checkpoints.finish()
        return start


def advance_each(comm: Comm, runs: list[str], clock: int) -> list[int]:
    return [advance(comm, run, clock) for run in runs]


def train_and_die(run: str, rank: int, world: int, clock: int, fault: str) -> None:
    """One of the ranks of a run that saves at half of `clock` and at `clock`; `fault` names who is killed."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ.pop("MASTER_ADDR", None)
    os.environ["ROSTRO_FAULT"] = fault
    comm = connect(Path(run), timeout=60, device="cpu")
    advance(comm, run, clock // 2)
    advance(comm, run, clock)


def codes_of_death(run: Path, world: int, clock: int, fault: str) -> list[int]:
    """Exit codes of the ranks of `train_and_die`."""
    ranks = [
        CONTEXT.Process(target=train_and_die, args=(str(run), rank, world, clock, fault))
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return [process.exitcode or 0 for process in ranks]


def fresh_player(comm: Comm, **changes: Any) -> Player:
    torch.manual_seed(0)
    options = {"engine": Engine(name="flat"), "ema": Ema(half_life=100), "optim": Optim(name="adamw")}
    return Player("net", Net(comm, seed=1), Config(**(options | changes)), comm)


def write_trained(comm: Comm, run: str) -> None:
    """Save a player, every value of whose state is a number of its own."""
    player = fresh_player(comm)
    for p in player.module.parameters():
        p.grad = p.detach().clone()
    player.update(1e-3, player.norm_of_gradient())
    player.average(BATCH, BATCH)
    _write(comm, player, run)


def recut(comm: Comm, source: str, target: str) -> None:
    """Load the checkpoint of another number of ranks, and save it again."""
    found = store.latest(Path(source))
    assert found is not None
    player = fresh_player(comm)
    for p in player.module.parameters():  # whatever is not loaded would be seen
        p.data.fill_(torch.nan)
    assert player.ema is not None
    for p in player.ema.module.parameters():
        p.data.fill_(torch.nan)
    player.load_state(store.read(found, comm=comm).state_of("net"))
    _write(comm, player, target)


def _write(comm: Comm, player: Player, run: str) -> None:
    state = Checkpoint(BATCH, 1)
    state.put("net", player.state())
    own = with_own_group(comm, timeout=60)
    store.save(Path(run), state if comm.main else state.only_pieces(), comm=own)


def loss_and_gradients(comm: Comm) -> dict[str, Tensor]:
    """Loss, norm and averaged gradients of a pass over a fixed batch; of centres this rank's rows."""
    player, task = fresh_player(comm), Centres(Config())
    task.comm = comm
    images, labels = batch_of_gradients()
    share = slice(comm.rank * BATCH // comm.world, (comm.rank + 1) * BATCH // comm.world)
    ids = torch.arange(BATCH)[share]
    batch = Batch({"image": images[share]}, {"identity": labels[share]}, ids[:, None], ids)
    phase, nets = Phase("class", "net", coupled=True), {"net": player.engine.net}
    loss = task.couple(phase, nets, task.forward(phase, nets, batch, 0), batch, 0)
    player.engine.backward(loss)
    player.engine.reduce()
    found = {name: p.grad for name, p in player.named if p.grad is not None}
    return copy.deepcopy(found | {"loss": loss.detach(), "norm": player.norm_of_gradient()})


def batch_of_gradients() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(BATCH, 3, 16, 16, generator=generator), torch.arange(BATCH) * 7 % CLASSES


def gradients_by_plain_torch() -> dict[str, Tensor]:
    """The same by one process, torch's own cross entropy, and no code of the engines."""
    torch.manual_seed(0)
    net = Net(Comm(), seed=1)
    images, labels = batch_of_gradients()
    loss = F.cross_entropy(SCALE * net(images) @ F.normalize(net.centres.weight).T, labels)
    loss.backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    norm = torch.cat([grad.reshape(-1) for grad in grads.values()]).norm()
    return grads | {"loss": loss.detach(), "norm": norm}


def compared(comm: Comm, spoilt: bool) -> str:
    """What the comparison of the ranks says; `spoilt`: a whole tensor of rank 1 differs."""
    from data_shards.errors import UserError
    from hpc.training.step_sync import compare_ranks

    player = fresh_player(comm)
    if spoilt and comm.rank == 1:
        player.module.get_parameter("head.bias").data.add_(1)
    try:
        compare_ranks({"net": player}, 0, comm)
    except UserError as error:
        return str(error)
    return ""
