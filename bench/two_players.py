"""A step of two players through the trainer, against the same step in a bare torch loop.

`python bench/two_players.py` trains the pair of `bench/support/tasks/dcgan.py` (batch norm in both) on one
batch of 32 pixels in memory, in interleaved rounds: a bare loop (same networks, losses, optimizers, latents;
nothing else), and `Trainer.step`. One rank, one thread, engine=flat. Bar: trainer <= 1.03 x bare loop. Prints
one table and one JSON line; exit code 1 where the bar is missed.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import hpc.tasks
from bench.support.figures import arguments, medians, ratio, show
from bench.support.steps import Action, first_batch, in_turn, make_set, make_trainer, step_on
from data_shards.batch import Batch
from hpc.config.schema import Config, Data, Ema, Engine, Optim

hpc.tasks.__path__.append(str(Path(__file__).parent / "support" / "tasks"))  # where dcgan.py is

BARS = {"trainer / bare loop": 1.03}
BATCH, SIZE, LR = 64, 32, 2e-4


def config(train: Path) -> Config:
    return Config(
        images=10**9,
        batch=BATCH,
        precision="fp32",
        data=Data(train=str(train), size=SIZE, backend="host", threads=1),
        optim=Optim(name="adam", lr=LR, betas=[0.5, 0.999], schedule="constant"),
        ema=Ema(half_life=0),
        engine=Engine(name="flat"),
        task={"name": "dcgan"},
    )


def bare_loop(batch: Batch) -> Action:
    """Run one step of the plainest loop: the discriminator's update, then the generator's."""
    from hpc.tasks import dcgan

    torch.manual_seed(0)
    layout = torch.channels_last
    made_by = dcgan.generator().to(memory_format=layout).train()
    judge = dcgan.discriminator().to(memory_format=layout).train()
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=LR, betas=(0.5, 0.999), fused=True) for net in (judge, made_by)
    ]

    def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    def step() -> None:
        real = batch.images["image"].float().div_(127.5).sub_(1).contiguous(memory_format=layout)
        with torch.no_grad():
            made = made_by(torch.randn(BATCH, dcgan.LATENT, 1, 1))
        update(dcgan.judged(judge, real, made), optimizers[0])
        judge.requires_grad_(False)  # as the trainer does: gradients pass through it, none is for it
        update(dcgan.deceived(judge, made_by(torch.randn(BATCH, dcgan.LATENT, 1, 1))), optimizers[1])
        judge.requires_grad_(True)

    return step


def main() -> int:
    options = arguments(__doc__, rounds=15, steps=6)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        trainer = make_trainer(config(make_set(Path(name))), Path(name) / "run")
        loader = trainer.loader
        fixed = first_batch(trainer)
        actions = {"bare loop": bare_loop(fixed.batch), "trainer": step_on(trainer, fixed)}
        rows = in_turn(actions, rounds=options.rounds, steps=options.steps)
        trainer.loader = loader
        trainer.close()
    seconds = medians(rows)
    ratios = {"trainer / bare loop": ratio(rows, "trainer", "bare loop")}
    passed = show(f"two players, batch {BATCH}, {SIZE} px", seconds, ratios, BARS)
    print(json.dumps({"bench": "two_players", "seconds": seconds, "ratios": ratios, "bars": BARS}))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
