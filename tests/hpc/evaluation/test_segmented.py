"""Masks are judged at the pictures' own sizes, with the same digits on 1, 2 and 3 ranks."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_shards.batch import IMAGE, Batch
from data_shards.errors import UserError
from data_shards.images.masks import read_mask
from data_shards.loading.loader import EvalLoader
from data_shards.loading.reader import Reader
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet, Report
from hpc.evaluation.run import evaluate
from hpc.evaluation.segmented import Segmented
from hpc.metrics.groups import Groups
from hpc.task import Task
from tests.support.ranks import launch
from tests.support.scenes import pack_scenes

COUNT, BLOCK = 13, 3  # uneven tails for 2 and 3 ranks
NAMES = ("back", "red", "green")


class ByColour(Task):
    """Sees the red and the green channel, and noise by id."""

    def __init__(self, *, noise: float = 0.0, broken: bool = False) -> None:
        super().__init__(None)
        self.evaluators = {"parts": lambda: Segmented("parts")}
        self.noise, self.broken = noise, broken

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        image = batch.images[IMAGE]
        level = torch.cat([torch.zeros_like(image[:, :1]), image[:, :2]], 1)
        drawn = batch.latents("n", level[0].numel()).reshape(level.shape)
        chances = (8 * level + self.noise * drawn).softmax(1)
        return {"parts": chances * torch.nan if self.broken else chances}


def judged(comm: Comm, folder: Path, noise: float = 0.0, broken: bool = False) -> Report:
    shards = ShardSet.open(folder, fields=("parts",))

    def batches(comm: Comm):
        view = View((96, 96), fit="contain")
        words = {"batch": BLOCK, "view": view, "threads": 1, "fields": ("parts",)}
        return EvalLoader(shards, rank=comm.rank, world=comm.world, **words)

    task = ByColour(noise=noise, broken=broken)
    reports, _ = evaluate(task, {}, JudgedSet(batches, shards), comm, channels_last=False)
    return reports["parts"]


def scalars(comm: Comm, folder: Path) -> dict[str, float]:
    return judged(comm, folder, 9.0).scalars


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pack_scenes(tmp_path_factory.mktemp("set"), COUNT).folder


def test_figures_are_the_same_at_any_world_size(folder):
    alone = scalars(Comm(), folder)
    assert 0.2 < alone["iou"] < 0.98
    for world in (2, 3):
        assert launch(scalars, world, folder) == [alone] * world


def test_what_is_painted_is_found_at_its_own_size(folder, tmp_path):
    report = judged(Comm(), folder)
    shards = ShardSet.open(folder, fields=("parts",))
    masks = [read_mask(png) for png in Reader(shards).read(np.arange(COUNT), "parts") if png]
    pixels = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=3)
    assert [row[0] for row in report.tables["classes"].rows] == list(NAMES)
    assert [row[3] for row in report.tables["classes"].rows] == pixels.tolist()
    assert report.scalars["iou"] > 0.9
    assert report.scalars["accuracy"] > 0.97
    assert report.scalars["empty"] == 0
    assert len(report.rows["ids"]) == len(masks)
    note = report.tables["figures"].note
    assert "the picture's own size" in note
    assert f"{COUNT - len(masks)} without a mask are left out" in note
    report.figures["worst.png"](tmp_path / "worst.png")
    sheet = cv2.imread(str(tmp_path / "worst.png"))
    assert sheet.shape[1] > 2 * 3 * 176


def test_intervals_hold_the_figure(folder):
    shards = ShardSet.open(folder, fields=("parts",))
    evaluator = Segmented("parts")
    evaluator.begin(JudgedSet(lambda comm: [], shards))
    words = {"batch": BLOCK, "view": View((48, 48)), "threads": 1, "fields": ("parts",)}
    loader = EvalLoader(shards, rank=0, world=1, **words)
    for batch in loader:
        evaluator.add(ByColour(noise=9.0), {}, batch.prepare(torch.device("cpu")))
    report = evaluator.report({}, evaluator.rows(), groups=Groups(), rounds=200)
    low, high = report.intervals["iou"]
    assert low < report.scalars["iou"] < high
    assert high - low < 0.3


def test_a_network_that_has_diverged_is_refused(folder):
    with pytest.raises(UserError, match=r"parts: \d+ of 13 predictions are not finite"):
        judged(Comm(), folder, broken=True)
