"""Translated images against their partners: the same digits at any world size, labels by a palette."""

from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.sampling.order import evaluation_blocks
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet, Report
from hpc.evaluation.paired import Paired
from hpc.evaluation.run import evaluate
from hpc.metrics import paired as metrics
from hpc.metrics.groups import Groups
from hpc.task import Task
from tests.support.ranks import launch

SAMPLES, BLOCK, SIDE = 11, 3, 16
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of any colours, and targets whose quarters have colours of the palette but the last."""
    rng = np.random.default_rng(0)
    given = rng.integers(0, 256, (SAMPLES, 3, SIDE, SIDE), np.uint8)
    quarters = rng.integers(0, 3, (SAMPLES, 2, 2)).repeat(SIDE // 2, 1).repeat(SIDE // 2, 2)
    target = np.array(PALETTE, np.uint8)[quarters].transpose(0, 3, 1, 2)
    return torch.from_numpy(given), torch.from_numpy(np.ascontiguousarray(target))


class Translates(Task):
    """Adds noise by id to the target."""

    def __init__(self, *, target: str = "b", broken: bool = False) -> None:
        super().__init__(None)
        self.evaluators = {"paired": lambda: Paired(palette=PALETTE)}
        self.target, self.broken = target, broken

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        image = batch.images[self.target]
        noise = batch.latents("n", image[0].numel()).reshape(image.shape)
        return {"image": image + 0.5 * noise + (torch.nan if self.broken else 0.0)}


def judged(comm: Comm, direction: str = "AtoB", broken: bool = False) -> Report:
    given, target = pairs()
    names = ("a", "b") if direction == "AtoB" else ("b", "a")

    def batches(comm: Comm) -> Iterable[Batch]:
        for block in evaluation_blocks(SAMPLES, BLOCK, comm.rank, comm.world):
            rows = torch.arange(block.start, block.stop)
            yield Batch(dict(zip(names, (given[rows], target[rows]), strict=True)), {}, rows[:, None], rows)

    shards = SimpleNamespace(manifest={"name": "pairs", "options": {"direction": direction}})
    task = Translates(target=names[1], broken=broken)
    reports, _ = evaluate(task, {}, JudgedSet(batches, shards), comm, channels_last=False)
    return reports["paired"]


def scalars(comm: Comm) -> dict[str, float]:
    return judged(comm).scalars


@pytest.fixture(scope="module")
def alone() -> Report:
    return judged(Comm())


def test_figures_are_the_same_at_any_world_size_and_direction(alone):
    assert list(alone.scalars) == ["l1", "ssim", "iou", "dice"]
    for world in (2, 5):
        assert launch(scalars, world) == [alone.scalars] * world
    assert judged(Comm(), "BtoA").scalars == alone.scalars


def test_figures_are_those_of_the_images(alone, tmp_path):
    _, target = pairs()
    rows = torch.arange(SAMPLES)
    noise = Batch.of_positions(rows).latents("n", 3 * SIDE * SIDE).reshape(target.shape)
    made = (target.float() / 127.5 - 1 + 0.5 * noise + 1) * 127.5
    made, truth = (np.asarray(x).transpose(0, 2, 3, 1) for x in (made.round().clamp(0, 255), target))
    np.testing.assert_allclose(alone.rows["l1"], metrics.l1(made, truth), rtol=1e-6)
    np.testing.assert_allclose(alone.rows["ssim"], metrics.ssim(made, truth), rtol=1e-6)
    labels = [metrics.nearest_colours(x, np.array(PALETTE)) for x in (made, truth)]
    ious = [
        ((labels[0] == k) & (labels[1] == k)).sum() / ((labels[0] == k) | (labels[1] == k)).sum()
        for k in range(4)
    ]
    assert alone.scalars["iou"] == pytest.approx(np.mean(ious[1:]))
    assert [row[1] for row in alone.tables["overlap"].rows] == pytest.approx(ious, abs=1e-4)
    assert alone.tables["overlap"].rows[3][2] == 0  # no target has the last colour, some outputs do
    alone.figures["pairs.png"](tmp_path / "pairs.png")
    import cv2

    sheet = cv2.imread(str(tmp_path / "pairs.png"))
    assert sheet.shape[1] == 8 + 2 * (3 * 128 + 8)
    np.testing.assert_array_equal(sheet[32 + 20, 8 + 2 * 128 + 20], sheet[32 + 40, 8 + 2 * 128 + 40])


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match=f"image: {SAMPLES} of {SAMPLES} predictions are not finite"):
        judged(Comm(), broken=True)


class Copies(Task):
    """Gives the image back that it is given."""

    def predict(self, nets: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        return {"image": batch.images["image"]}


def added(evaluator: Paired, names: tuple[str, ...]) -> Report:
    given, target = (images.float() / 127.5 - 1 for images in pairs())
    rows = torch.arange(SAMPLES)
    batch = Batch(dict(zip(names, (given, target), strict=False)), {}, rows[:, None], rows)
    evaluator.add(Copies(None), {}, batch)
    return evaluator.report(evaluator.sums(), evaluator.rows(), groups=Groups(), rounds=0)


@pytest.mark.parametrize(("target", "names"), [("b", ("a", "b")), ("a", ("b", "a"))])
def test_a_task_is_given_the_other_half(target, names):
    report = added(Paired(target=target), names)
    given, wanted = (np.asarray(images).transpose(0, 2, 3, 1) for images in pairs())
    np.testing.assert_allclose(report.rows["l1"], metrics.l1(given, wanted), rtol=1e-6)


@pytest.mark.parametrize(
    ("target", "names", "said"),
    [
        ("b", ("image",), "the images of the judged set are image, not a: judge a set that was packed by"),
        ("a", ("a",), "the images of the judged set are a, not b"),
    ],
)
def test_a_set_without_the_images_is_refused(target, names, said):
    with pytest.raises(UserError, match=said):
        added(Paired(target=target), names)


def test_without_a_direction_the_target_must_be_named():
    with pytest.raises(UserError, match="does not state which half is the input"):
        Paired().begin(JudgedSet(lambda comm: (), SimpleNamespace(manifest={"name": "x"})))
    evaluator = Paired(target="a")
    evaluator.begin(JudgedSet(lambda comm: ()))
    assert evaluator.target == "a"
    assert evaluator.sums() == {}
