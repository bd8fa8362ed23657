"""A step of two players through the trainer, against the same step in a bare torch loop.

`python bench/two_players.py` trains the job `dcgan` (batch norm in generator and discriminator) on one batch
of 32 pixels in memory, in interleaved rounds: a bare loop (same networks, losses, optimizers, latents;
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
import torch.nn.functional as F

from bench.support.figures import arguments, medians, ratio, show
from bench.support.steps import Action, first_batch, in_turn, make_set, make_trainer, step_on
from data_shards.batch import Batch
from hpc.config.schema import Config
from launch.options.compose import composed
from models import dcgan

BARS = {"trainer / bare loop": 1.03}
BATCH, SIZE, WIDTH, LATENTS, LR = 64, 32, 32, 64, 2e-4


def config(train: Path) -> Config:
    """The job without what the bare loop does not do: flips, an average."""
    words = ["task=dcgan", "engine=flat", "images=1_000_000_000", f"batch={BATCH}", "precision=fp32"]
    words += [f"data.train={train}", f"data.size={SIZE}", "data.backend=host", "data.threads=1"]
    words += [f"task.width={WIDTH}", f"task.latents={LATENTS}", f"optim.lr={LR}", "ema.half_life=0"]
    return composed([*words, "data.augment.flip=0.0"])


def bare_loop(batch: Batch) -> Action:
    """Run one step of the plainest loop: the generator's update, then the discriminator's."""
    torch.manual_seed(0)
    layout = torch.channels_last
    made_by = dcgan.Generator(SIZE, latents=LATENTS, width=WIDTH).to(memory_format=layout).train()
    judge = dcgan.Discriminator(SIZE, width=WIDTH).to(memory_format=layout).train()
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=LR, betas=(0.5, 0.999), fused=True) for net in (made_by, judge)
    ]

    def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    def step() -> None:
        real = batch.images["image"].float().div_(127.5).sub_(1).contiguous(memory_format=layout)
        judge.requires_grad_(False)  # as the trainer does: gradients pass through it, none is for it
        update(F.softplus(-judge(made_by(torch.randn(BATCH, LATENTS)))).mean(), optimizers[0])
        judge.requires_grad_(True)
        with torch.no_grad():
            made = made_by(torch.randn(BATCH, LATENTS))
        update(F.softplus(-judge(real)).mean() + F.softplus(judge(made)).mean(), optimizers[1])

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
