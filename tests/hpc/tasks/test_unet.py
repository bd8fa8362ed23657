"""The job of a U-Net: its plan, masks that stay aligned, the monitor, and an ONNX file of the same masks."""

import json

import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ops.base import run_ops
from hpc.config.plan import plan_of
from hpc.inference.predictor import load_run
from hpc.task import Phase, build_task
from launch.cli import main
from launch.options.compose import composed
from tests.support.counts import parameters
from tests.support.generating_run import generating_run

SMALL = ("task=unet_persons", "smoke=true")


def painted(count: int = 4, side: int = 32) -> Batch:
    """Pictures that are white where the mask has class 1, and black elsewhere."""
    mask = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    for row in range(count):
        mask[row, :, 6 + row : 20, 9 : 22 + row] = 1
    image = 2.0 * mask.float().expand(-1, 3, -1, -1) - 1
    rows = torch.arange(count)
    kinds = {"image": "image", "mask": "mask"}
    return Batch({"image": image, "mask": mask}, {}, rows[:, None], rows, seed=3, kinds=kinds)


@pytest.mark.parametrize("words", [(), ("task.width=16", "task.upsample=transposed"), ("task.levels=3",)])
def test_the_plan_counts_the_parameters_of_the_network(words):
    config = composed(["task=unet_persons", *words])
    with torch.device("meta"):
        net = build_task(config).players()["net"]
    assert plan_of(config.task).counts(config)[0] == parameters(net)


def test_the_op_moves_picture_and_mask_alike():
    """Masks stay whole numbers; a pixel of the mask is 1 where the picture is white."""
    task = build_task(composed([*SMALL, "task.augment.share=1.0", "task.augment.degrees=30.0"]))
    before = painted(16)
    after = run_ops(task.ops(0), before)
    mask, image = after.images["mask"], after.images["image"][:, :1]
    assert mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) == {0, 1, 255}
    assert not torch.equal(mask, before.images["mask"])
    # bilinear pictures are grey within a pixel of an edge, where a nearest mask may take either side
    assert (mask[image > 0.9] == 1).float().mean() > 0.99
    assert (mask[image < -0.9] != 1).float().mean() > 0.99


def test_without_a_share_there_is_no_op():
    assert build_task(composed([*SMALL, "task.augment.share=0.0"])).ops(0) == []


def test_the_loss_falls_to_that_of_right_masks():
    torch.manual_seed(0)
    task, batch = build_task(composed([*SMALL, "task.boundary=2.0", "task.width=8"])), painted()
    net = task.players()["net"]
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    losses = []
    for _ in range(80):
        loss = task.loss(Phase("segment", "net"), {"net": net}, batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    found = task.predict({"net": net}, batch)["mask"].argmax(1)
    assert (found == batch.images["mask"][:, 0]).float().mean() > 0.98


def test_the_monitor_shows_picture_truth_and_prediction_and_white_for_unknown():
    task, batch = build_task(composed(list(SMALL))), painted()
    batch.images["mask"][0, :, :4] = 255
    with torch.no_grad():
        shown = task.images({"net": task.players()["net"].eval()}, batch, 0)["picture_truth_prediction"]
    assert shown.shape == (4, 3, 32, 96)
    assert (shown[0, :, :4, 32:64] == 1).all()
    assert (shown[1, :, :4, 32:64] == -1).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.size=36", "task.levels=4"), "data.size=36 cannot be halved 3 times: use a multiple of 8"),
        (("task.width=24", "task.norm=group"), "task.width=24: task.norm=group needs a multiple of 16"),
        (("task.classes=[person]",), r"task.classes=\[person\]: type at least 2 different names"),
        (("task.augment.scale=[1.2,0.8]",), "is not a range: use task.augment.scale"),
        (("data.halves=true",), "data.halves=true: a mask is of one image"),
    ],
)
def test_what_cannot_be_is_refused(words, said):
    config = composed([*SMALL, *words])
    with pytest.raises(UserError, match=said):
        plan_of(config.task).check(config, {})


def test_onnx_gives_the_masks_of_torch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = generating_run(tmp_path / "run", "unet_persons")
    assert main(["export", str(run)]) == 0
    card = json.loads((run / "export" / "model.json").read_text())
    assert card["postprocessing"]["output"] == "mask"
    assert "padding is cut away" in card["postprocessing"]["shows"]
    model, rng = load_run(run), np.random.default_rng(0)
    session = onnxruntime.InferenceSession(run / "export" / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        given = images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        found = session.run(card["onnx"]["outputs"], {"images": given})[0]
        wanted = model.predict(images)["mask"]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.999
