"""A packed set of painted faces and a detector that knows them, for the tests of detections.

Its images are those of `wider_set.py`, so that the official protocol judges them too. What the detector says
is drawn by the image alone: faces moved a little, some twice, clutter, and wrong classes.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

import tests.support.tiny  # noqa: F401 - makes the task `blobs` known
from data_shards.batch import Batch
from data_shards.loading.loader import EvalLoader
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.ragged import Ragged
from data_shards.sampling.view import View
from data_shards.shard_format.schema import Field
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.base import Sample
from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.config.schema import Data
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet
from hpc.evaluation.detections import Detections
from hpc.evaluation.run import evaluate
from hpc.evaluation.wider import Wider
from hpc.runs.run_dir import RunDir
from hpc.task import Task, build_task
from tests.support.painted import as_jpeg
from tests.support.runs import make_run
from tests.support.wider_set import write_truth

SIDE = 500  # pixels of an image
SEEN = 250  # pixels that the detector sees
FLAGS = ("ignore", "crowd", "blur", "occluded")


class Painted:
    """The images of `write_truth`: faces are painted boxes of one of two classes."""

    name, licence, cls, cluster = "painted", "none", None, False
    fields = {  # noqa: RUF012
        "boxes": Field("boxes", "f4", (4,), ragged=True),
        "box_class": Field("class", "i2", names=("face", "mask"), ragged=True, rows_of="boxes"),
        "box_flags": Field(
            "bits", "u1", (len(FLAGS),), names=FLAGS, ragged=True, rows_of="boxes", unknown=None
        ),
        "box_area": Field("value", "f4", ragged=True, rows_of="boxes"),
    }

    def __init__(self, faces: dict[str, np.ndarray]) -> None:
        self.faces = faces

    def samples(self) -> Iterator[Sample]:
        for number, (name, boxes) in enumerate(self.faces.items()):
            rng = np.random.default_rng(number)
            flags = (rng.random((len(boxes), len(FLAGS))) < (0.1, 0.03, 0.4, 0.3)).astype(int)
            kinds, areas = rng.integers(0, 2, len(boxes)).tolist(), [-1.0] * len(boxes)
            labels = (boxes.tolist(), kinds, flags.tolist(), areas)
            yield Sample(f"{name}.jpg", "", name.split("/")[1], labels=labels, group=name)

    def read(self, sample: Sample) -> bytes:
        return as_jpeg(painted(self.faces[sample.path.removesuffix(".jpg")]))


def painted(boxes: np.ndarray) -> np.ndarray:
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for x, y, width, height in boxes.tolist():
        image[y : y + height, x : x + width] = (220, 180, 60)
    return image


def pack_painted(folder: Path) -> tuple[ShardSet, Path]:
    """Return a packed set, and the folder of the .mat files of its images."""
    truth = folder / "truth"
    packed = pack(Painted(write_truth(truth)), folder / "set", Request(shard_mb=0.05), workers=1)
    return ShardSet.open(packed[0].folder), truth


class Knowing(Task):
    """Answers what `guesses` draws for each sample, at the size of the file."""

    def __init__(self, shards: ShardSet, **evaluators: Any) -> None:
        super().__init__(None)
        self.shards, self.evaluators = shards, evaluators

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Ragged]:
        return {
            "detections": Ragged.of_lists([guesses(self.shards, row) for row in batch.ids[:, 0].tolist()])
        }


def guesses(shards: ShardSet, row: int) -> torch.Tensor:
    """Float32 [k, 6]: x0, y0, x1, y1 in pixels of the file, score, class."""
    rng = np.random.default_rng(row + 100)
    boxes = np.asarray(shards.ragged["boxes"].rows_of(np.array([row]))[0], np.float64).reshape(-1, 4)
    kinds = np.asarray(shards.ragged["box_class"].rows_of(np.array([row]))[0])
    times = rng.integers(0, 3, len(boxes))
    rows, kinds = np.repeat(boxes, times, axis=0), np.repeat(kinds, times)
    rows = rows + rng.normal(0, 0.08, rows.shape) * rows[:, [2, 3, 2, 3]]
    clutter = rng.uniform(5, 200, (int(rng.integers(0, 6)), 4))
    kinds = np.where(rng.random(len(kinds)) < 0.1, 1 - kinds, kinds)
    kinds = np.concatenate([kinds, rng.integers(0, 2, len(clutter))])
    rows = np.concatenate([rows, clutter])
    rows[:, 2:] += rows[:, :2]
    scores = rng.integers(1, 40, len(rows)) / 40
    return torch.from_numpy(np.column_stack([rows, scores, kinds]).astype(np.float32))


def judge(comm: Comm, folder: str, truth: str) -> dict[str, dict[str, float]]:
    """The scalars of both evaluators over the set in `folder`, as a run judges it."""
    shards = ShardSet.open(Path(folder))

    def wider() -> Wider:
        each = Wider()
        each.typed = {name: key.default for name, key in Wider.KEYS.items()} | {"ground_truth": truth}
        return each

    def batches(comm: Comm) -> Any:
        return EvalLoader(
            shards,
            rank=comm.rank,
            world=comm.world,
            batch=3,
            view=View((SEEN, SEEN), fit="contain"),
            threads=1,
        )

    task = Knowing(shards, objects=lambda: Detections(least=16.0, most=50), wider=wider)
    nets: dict[str, nn.Module] = {"net": nn.Linear(1, 1)}
    reports, _ = evaluate(task, nets, JudgedSet(batches, shards), comm, channels_last=False)
    return {name: report.scalars for name, report in reports.items()}


def in_memory(lists: dict[str, list[np.ndarray]], fields: dict[str, Field]) -> SimpleNamespace:
    """A set of labels alone: name -> rows of each image."""

    def ragged(rows: list[np.ndarray]) -> SimpleNamespace:
        return SimpleNamespace(
            rows_of=lambda ids: (
                np.concatenate([rows[at] for at in ids]),
                np.array([len(rows[at]) for at in ids]),
            )
        )

    return SimpleNamespace(
        folder="/sets/painted",
        schema=SimpleNamespace(fields=fields),
        ragged={name: ragged(rows) for name, rows in lists.items()},
    )


def blobs_run(path: Path, packed: Path) -> Path:
    """A run of the tiny detector `blobs` with a checkpoint; `packed` is its only set."""
    data = Data(
        train=str(packed),
        eval=str(packed),
        size=SEEN,
        fit="contain",
        order="plain",
        backend="host",
        threads=1,
    )
    run = make_run(path, packed, task={"name": "blobs"}, data=data)
    config = RunDir(run).config()
    task = build_task(config)
    saved = Checkpoint(160, 10, players={"net": task.players()["net"].state_dict()}, task=task.state())
    saved.monitor = {"sums": {}, "digest": 0}
    comm = Comm(0, 1, 0, torch.device("cpu"))
    saved.meta = manager.meta(config, task, comm) | {"metrics": {"objects/ap50": 0.5}}
    store.save(run, saved)
    return run
