"""A detector of drawn faces and their landmarks, small enough to learn a few by heart in seconds."""

import dataclasses
from pathlib import Path

import torch

from data_shards.loading.loader import EvalLoader
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.registry import open_source
from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.config.check import check
from hpc.config.parse import save_config
from hpc.distributed.comm import Comm
from hpc.metrics.boxes import iou
from hpc.task import Phase, build_task
from launch.options.compose import composed

PHASE = Phase("detect", "net")
NAMES = ("boxes", "box_class", "box_flags", "box_points")
SIDE, FACES = 96, 8
WORDS = ("data.size=96", "task.landmarks=5", "task.landmark=0.5", "task.scales=0.0")


def job_of(*words):
    config = composed(["task=yolov5x_widerface", "smoke=true", *WORDS, *words])
    check(config)
    task = build_task(config)
    torch.manual_seed(0)
    return task, task.players()


def pack_faces(folder):
    """Drawn scenes of one or two faces."""
    options = {"scenes": 24, "faces": 2, "side": SIDE, "seed": 5}
    packed = pack(open_source("scenes", "", options=options), folder, Request(options=options), workers=1)
    return ShardSet.open(packed[0].folder)


def loaded(shards, count=FACES):
    loader = EvalLoader(
        shards,
        rank=0,
        world=1,
        batch=count,
        view=View((SIDE, SIDE), fit="contain"),
        threads=1,
        fields=NAMES,
    )
    batch = next(iter(loader))
    return dataclasses.replace(batch, positions=torch.arange(count)).prepare(torch.device("cpu"))


def nearest(task, nets, batch):
    """The mean error of the landmarks of the candidates that overlap each face most, by the diagonal."""
    with torch.no_grad():
        found = task.graph(nets, batch)
    shares = []
    for slot in range(len(batch)):
        boxes, marks = batch.labels["boxes"].of(slot), batch.labels["box_points"].of(slot)
        best = iou(boxes, found["boxes"][slot]).argmax(1)
        distance = (found["landmarks"][slot, best] - marks).norm(dim=-1)
        share = distance / (boxes[:, 2:] - boxes[:, :2]).norm(dim=-1, keepdim=True)
        counted = batch.labels["box_flags"].of(slot)[:, :1] == 0
        shares.append(share[(marks >= 0).all(-1) & counted])
    return torch.cat(shares).mean().item()


def learn(shards, *, updates=130):
    """A yolov5n that learns eight scenes by heart: (task, nets, batch, its error before)."""
    task, nets = job_of()
    task.begin({"train": shards})
    batch, net = loaded(shards), nets["net"]
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.2  # few updates
    before = nearest(task, {"net": net.eval()}, batch)
    optimizer = torch.optim.Adam(net.train().parameters(), 2e-3)
    for step in range(updates):
        optimizer.param_groups[0]["lr"] = 2e-3 if step < 0.8 * updates else 4e-4
        optimizer.zero_grad()
        task.loss(PHASE, nets, batch, 0).backward()
        optimizer.step()
    net.eval()
    return task, nets, batch, before


def saved_run(path: Path, learnt, shards) -> Path:
    """A run with one checkpoint: what `learn` has learnt."""
    task, nets, _, _ = learnt
    config = composed(
        ["task=yolov5x_widerface", "smoke=true", *WORDS, f"data.train={shards.folder}", "ema.half_life=0"]
    )
    path.mkdir(parents=True)
    save_config(config, path / "config.yaml")
    saved = Checkpoint(48, 3, players={"net": nets["net"].state_dict()}, task=task.state())
    saved.monitor = {"sums": {}, "digest": 0}
    saved.meta = manager.meta(config, task, Comm(0, 1, 0, torch.device("cpu"))) | {"metrics": {}}
    store.save(path, saved)
    return path
