"""Reconstructions against their originals: the same digits at any world size, intervals, groups of people."""

from collections.abc import Iterable

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.inspect.groups import Group
from data_shards.sampling.order import evaluation_blocks
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet, Report
from hpc.evaluation.reconstruction import Reconstruction
from hpc.evaluation.run import evaluate, figures, walk
from hpc.metrics import paired as metrics
from hpc.metrics.groups import Groups
from hpc.task import Task
from tests.support.ranks import launch

SAMPLES, BLOCK, SIDE = 23, 4, 16


def pictures() -> Tensor:
    drawn = np.random.default_rng(0).integers(0, 256, (SAMPLES, 3, SIDE, SIDE), np.uint8)
    return torch.from_numpy(drawn)


class Copies(Task):
    """Adds noise by id: more of it to the first ten."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__(None)
        self.evaluators = {"reconstruction": Reconstruction}
        self.broken = broken

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        image = batch.images["image"]
        noise = batch.latents("n", image[0].numel()).reshape(image.shape)
        weight = torch.where(batch.positions < 10, 0.4, 0.1)[:, None, None, None]
        return {"image": image + weight * noise + (torch.nan if self.broken else 0.0)}


def batches(comm: Comm) -> Iterable[Batch]:
    for block in evaluation_blocks(SAMPLES, BLOCK, comm.rank, comm.world):
        rows = torch.arange(block.start, block.stop)
        yield Batch({"image": pictures()[rows]}, {}, rows[:, None], rows)


def judged(comm: Comm, broken: bool = False) -> Report:
    reports, _ = evaluate(Copies(broken=broken), {}, JudgedSet(batches), comm, channels_last=False)
    return reports["reconstruction"]


def scalars(comm: Comm) -> dict[str, float]:
    return judged(comm).scalars


@pytest.fixture(scope="module")
def alone() -> Report:
    return judged(Comm())


def test_figures_are_the_same_at_any_world_size(alone):
    assert list(alone.scalars) == ["ssim", "l1"]
    for world in (2, 5):
        assert launch(scalars, world) == [alone.scalars] * world


def test_figures_are_those_of_the_images(alone, tmp_path):
    rows = torch.arange(SAMPLES)
    whole = Batch({"image": pictures().float() / 127.5 - 1}, {}, rows[:, None], rows)
    made = (Copies().predict({}, whole)["image"] + 1) * 127.5
    made, truth = (np.asarray(x).transpose(0, 2, 3, 1) for x in (made.round().clamp(0, 255), pictures()))
    np.testing.assert_allclose(alone.rows["l1"], metrics.l1(made, truth), rtol=1e-9)
    np.testing.assert_allclose(alone.rows["ssim"], metrics.ssim(made, truth), rtol=1e-9)
    assert alone.scalars["ssim"] == pytest.approx(metrics.ssim(made, truth).mean())
    alone.figures["reconstructions.png"](tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[:, :, ::-1]
    factor = 96 // SIDE
    assert sheet.shape[1] == 8 + 8 * (96 + 8)
    first = cv2.resize(truth[0], None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(sheet[32 : 32 + 96, 8 : 8 + 96], first)


def test_intervals_and_groups_tell_whose_faces_come_out_worse():
    task, comm = Copies(), Comm()
    each = Reconstruction()
    walk(task, {}, {"reconstruction": each}, JudgedSet(batches), comm, channels_last=False)
    column = Group(("many", "few"), (np.arange(SAMPLES) < 10).astype(np.int64))
    report = figures(each, comm, groups=Groups({"noise": column}), rounds=200)
    for name in ("ssim", "l1"):
        low, high = report.intervals[name]
        assert low < report.scalars[name] < high
        place = 2 + ("ssim", "l1").index(name)
        of_group = {row[0]: float(str(row[place]).split()[0]) for row in report.tables["by noise"].rows}
        values, codes = report.rows[name], column.codes
        for code, group in enumerate(column.names):
            assert of_group[group] == pytest.approx(values[codes == code].mean(), rel=1e-3)
    assert report.scalars["ssim_gap_noise"] > 0.1
    assert report.tables["bias"].rows[0][2].startswith("few")  # the worst: of the least similarity


def test_a_gate_holds_the_gap():
    task, comm = Copies(), Comm()
    each = Reconstruction()
    each.typed = {"gate.max_gap": 0.05, "support": 10}
    walk(task, {}, {"reconstruction": each}, JudgedSet(batches), comm, channels_last=False)
    column = Group(("many", "few"), (np.arange(SAMPLES) < 10).astype(np.int64))
    report = figures(each, comm, groups=Groups({"noise": column}), rounds=200)
    assert "ssim differs by" in report.gate


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match=f"image: {SAMPLES} of {SAMPLES} predictions are not finite"):
        judged(Comm(), broken=True)
