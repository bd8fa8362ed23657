"""The trainer against a bare torch loop, and a step with data against the slower of data and compute.

`python bench/train.py` packs small images, then times in interleaved rounds: a bare loop (same network,
loss, optimizer and batch; nothing else), `Trainer.step` on that one batch in memory, `Trainer.step` with the
real loader, and the loader alone. Two jobs: the siamese one, and a classifier (resnet18 of width 32) without
the loader. One rank, one thread. Bars: trainer <= 1.02 x bare loop, 1.03 x for the classifier; step with data
<= 1.1 x the slower of step and data. Prints a table for each job and one JSON line; exit code 1 where a bar
is missed.
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
from torch import Tensor, nn

from bench.support.figures import Rows, arguments, medians, ratio, show
from bench.support.steps import Action, first_batch, in_turn, make_set, make_trainer, step_on
from data_shards.batch import Batch
from hpc.config.schema import Config, Data, Ema, Optim
from hpc.distributed.comm import Comm
from hpc.losses.pairs import contrastive, form_pairs
from launch.options.compose import composed
from models.backbones import build_trunk
from models.classifier import Classifier
from models.siamese import SiameseNet
from tests.support.sets import pack_faces

BARS = {
    "siamese": {"trainer / bare loop": 1.02, "step with data / slower of both": 1.1},
    "classifier": {"trainer / bare loop": 1.03},
}
TASK = {"name": "siamese", "trunk": "googlenet", "embedding": 128, "loss": "contrastive"}
BATCH, SIZE, WIDTH, SMOOTHING = 32, 64, 32, 0.1


def siamese_config(train: Path) -> Config:
    return Config(
        images=10**9,
        batch=BATCH,
        precision="fp32",
        data=Data(train=str(train), size=SIZE, order="groups", backend="host", threads=1),
        optim=Optim(schedule="constant"),
        ema=Ema(half_life=0),
        task=TASK | {"margin": 1.0, "temperature": 0.1, "mirror": False},
    )


def classifier_config(train: Path) -> Config:
    """The job `gender`, without what the bare loop does not do: ops, an average, a schedule."""
    words = ["task=gender", "images=1_000_000_000", f"batch={BATCH}", "precision=fp32", f"data.size={SIZE}"]
    words += [f"data.train={train}", "data.backend=host", "data.threads=1", "optim.schedule=constant"]
    words += ["optim.warmup=0", "ema.half_life=0", f"task.width={WIDTH}", "task.augment.erasing=0.0"]
    return composed([*words, f"task.heads.gender.smoothing={SMOOTHING}"])


def siamese_loss(net: nn.Module, images: Tensor, batch: Batch, comm: Comm) -> Tensor:
    pairs = form_pairs(net(images), batch.labels["identity"], batch.ids[:, 0], comm)
    return contrastive(pairs, margin=1.0)


def classifier_loss(net: nn.Module, images: Tensor, batch: Batch, comm: Comm) -> Tensor:
    return F.cross_entropy(net(images)["gender"], batch.labels["gender"].long(), label_smoothing=SMOOTHING)


def bare_loop(job: str, batch: Batch) -> Action:
    """Run one step of the plainest loop."""
    torch.manual_seed(0)
    net: nn.Module
    if job == "siamese":
        net, loss_of = SiameseNet(*build_trunk("googlenet"), TASK["embedding"]), siamese_loss
    else:
        net, loss_of = Classifier(*build_trunk("resnet18", WIDTH), {"gender": 2}), classifier_loss
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    comm = Comm()

    def step() -> None:
        pixels = batch.images["image"].float().div_(127.5).sub_(1)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(net, pixels.contiguous(memory_format=torch.channels_last), batch, comm)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def measure(job: str, config: Config, run: Path, *, rounds: int, steps: int) -> Rows:
    """Return the seconds of a step of each variant in each round."""
    trainer = make_trainer(config, run)
    loader, fixed = trainer.loader, first_batch(trainer)
    actions = {"bare loop": bare_loop(job, fixed.batch), "trainer": step_on(trainer, fixed)}
    if job == "siamese":
        actions |= {"trainer with data": step_on(trainer, loader), "data alone": loader.next}
    # What was decoded ahead is free: the steady state is measured.
    rows = in_turn(actions, rounds=rounds, steps=steps, before={"data alone": config.data.ahead})
    trainer.loader = loader
    trainer.close()
    return rows


def main() -> int:
    options = arguments(__doc__, rounds=9, steps=4)
    torch.set_num_threads(1)
    found, passed = {}, True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        faces = pack_faces(folder / "faces", "gender", identities=40, each=8, size=112, holdout=0.2)
        configs = {
            "siamese": siamese_config(make_set(folder)),
            "classifier": classifier_config(faces / "train"),
        }
        for job, config in configs.items():
            rows = measure(job, config, folder / job, rounds=options.rounds, steps=options.steps)
            ratios = {"trainer / bare loop": ratio(rows, "trainer", "bare loop")}
            if "data alone" in rows:
                both = ratio(rows, "trainer with data", "trainer", "data alone")
                ratios["step with data / slower of both"] = both
            network = "GoogLeNet" if job == "siamese" else f"resnet18, width {WIDTH}"
            seconds = medians(rows)
            passed &= show(f"{network}, batch {BATCH}, {SIZE} px", seconds, ratios, BARS[job])
            found[job] = {"seconds": seconds, "ratios": ratios}
    print(json.dumps({"bench": "train", **found, "bars": BARS}))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
