"""YOLOv5 as a task: what it learns from, equal at any number of ranks, and boxes in pixels of the files."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from data_shards.errors import UserError
from data_shards.loading.loader import EvalLoader
from data_shards.ops.base import run_ops
from data_shards.ragged import Ragged
from data_shards.sampling.view import View
from data_shards.shard_format.shard_set import ShardSet
from hpc.config.check import check
from hpc.config.plan import plan_of
from hpc.losses.anchors import Fitted
from hpc.task import Phase, build_task
from hpc.tasks import yolov5
from hpc.tasks.yolov5_plan import counts, largest
from launch.options.compose import composed
from tests.support.host_reads import HostReads
from tests.support.object_set import pack_objects

PHASE = Phase("detect", "net")
NAMES = ("boxes", "box_class", "box_flags")


@functools.cache
def config_of(*words):
    return composed(["task=yolov5x_widerface", "smoke=true", *words])


def job_of(*words):
    config = config_of(*words)
    check(config)
    task = build_task(config)
    torch.manual_seed(0)
    return task, task.players()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects") / "shards"
    pack_objects(folder, 64, classes=("face", "sign"))
    return ShardSet.open(folder / "train")


def loaded(shards, count=16, size=64):
    """The first images of the set at the first slots of the stream, prepared."""
    view = View((size, size), fit="contain")
    loader = EvalLoader(shards, rank=0, world=1, batch=count, view=view, threads=1, fields=NAMES)
    batch = next(iter(loader))
    assert len(batch) == count
    return dataclasses.replace(batch, positions=torch.arange(count)).prepare(torch.device("cpu"))


@pytest.mark.parametrize("name", ["yolov5x_widerface", "yolov5m_persons"])
def test_the_real_job_is_the_published_recipe(name):
    config = composed([f"task={name}"])
    check(config)
    optim = config.optim
    assert (config.batch, config.data.size, config.data.fit) == (64, 640, "contain")
    assert (optim.name, optim.lr, optim.momentum, optim.nesterov) == ("sgd", 0.01, 0.937, True)
    assert (optim.weight_decay, optim.warmup_momentum, optim.warmup_bias) == (0.0005, 0.8, 0.1)
    parameters, kept = counts(config)
    assert parameters == {"x": 86_217_814, "m": 20_871_318}[config.task["model"]]
    assert 5e8 < kept < 4e9


def test_the_whole_batch_is_changed_alike_in_whole_halves_and_quarters(shards):
    """Partners, mixing, colours and size are those of the slots, whatever the ranks."""
    task, _ = job_of("task.classes=[face,sign]")
    batch = loaded(shards, 32)
    for clock in (0, 64):
        whole = run_ops(task.ops(clock), batch)
        assert whole.size == (task.side_at(clock),) * 2
        for ranks in (2, 4):
            each = 32 // ranks
            parts = [run_ops(task.ops(clock), batch[at : at + each]) for at in range(0, 32, each)]
            assert torch.equal(torch.cat([part.images["image"] for part in parts]), whole.images["image"])
            for name in NAMES:
                rows = torch.cat([part.labels[name].rows for part in parts])
                assert torch.equal(rows, whole.labels[name].rows)
                counted = np.concatenate([part.labels[name].counts for part in parts])
                assert (counted == whole.labels[name].counts).all()


def test_updates_have_sizes_of_their_own_within_the_stated_scales():
    task, _ = job_of("data.size=128", "task.scales=0.5", "micro_batch=0")
    sides = [task.side_at(clock) for clock in range(0, 3200, 16)]
    assert set(sides) == {64, 96, 128, 160, 192}
    assert sides == [task.side_at(clock) for clock in range(0, 3200, 16)]
    assert largest(128, 0.5, 32) == 192


def test_the_loss_of_a_rank_is_its_part_of_the_global_batch(shards):
    task, nets = job_of("task.classes=[face,sign]", "task.scales=0.0")
    batch = run_ops(task.ops(0), loaded(shards))
    nets["net"].eval()  # statistics that do not depend on the others
    whole = task.loss(PHASE, nets, batch, 0)
    with HostReads() as reads:
        halves = [task.loss(PHASE, nets, batch[at : at + 8], 0) for at in (0, 8)]
    assert reads.found == []
    assert sum(halves).item() / 2 == pytest.approx(whole.item(), rel=1e-5)


def test_the_loss_is_that_of_the_recipe_times_the_batch(shards):
    task, nets = job_of("task.classes=[face,sign]")
    seen = {}
    task.report = lambda name, value: seen.update({name: value.item()})
    total = task.loss(PHASE, nets, loaded(shards), 0)
    assert seen.keys() == {"box", "objectness", "classes"}
    assert total.item() == pytest.approx(16 * sum(seen.values()), rel=1e-5)
    assert all(value > 0 for value in seen.values())


def test_ignored_boxes_are_no_targets(shards):
    task, _ = job_of("task.classes=[face,sign]")
    batch = loaded(shards)
    targets = task.targets(batch)
    assert (targets.ignored == (batch.labels["box_flags"].rows[:, 0] == 1)).all()
    assert 0 < int(targets.ignored.sum()) < len(targets.ignored)
    assert (targets.owners.numpy() == batch.labels["boxes"].owners).all()


def test_anchors_are_fitted_to_the_set_and_kept_in_the_network(shards):
    task, nets = job_of("task.classes=[face,sign]")
    before = nets["net"].anchors.clone()
    task.begin({"train": shards})
    assert isinstance(task.fitted, Fitted)
    assert task.fitted.recall >= task.fitted.before
    assert np.allclose(nets["net"].anchors.numpy(), task.fitted.anchors)
    assert "anchors" in nets["net"].state_dict()
    published, others = job_of("task.anchors=published")
    published.begin({"train": shards})
    assert torch.equal(others["net"].anchors, before)


class Certain(torch.nn.Module):
    """A network whose maps hold one object each: that of the middle anchor in a cell of the finest scale."""

    def __init__(self, net, row, column):
        super().__init__()
        self.net, self.place = net, (row, column)
        self.anchors, self.strides = net.anchors, net.strides

    def forward(self, images):
        maps = [torch.full_like(each, -20.0) for each in self.net(images)]
        maps[0][:, 1, self.place[0], self.place[1]] = 0.0
        maps[0][:, 1, self.place[0], self.place[1], 4:6] = 20.0
        return maps


def test_detections_are_in_pixels_of_the_files(shards):
    task, nets = job_of("task.classes=[face,sign]")
    batch = loaded(shards, 4)
    with torch.no_grad():
        found = task.predict({"net": Certain(nets["net"].eval(), 3, 4)}, batch)["detections"]
    assert found.counts.tolist() == [1] * 4
    assert found.rows.dtype == torch.float32
    wide, high = nets["net"].anchors[0, 1].tolist()
    seen = np.array([36 - wide / 2, 28 - high / 2, 36 + wide / 2, 28 + high / 2])
    placed = batch.placed
    for row in range(4):
        scale, offset = placed.size[row] / placed.source[row], placed.offset[row]
        in_file = (seen - np.tile(offset, 2)) / np.tile(scale, 2)
        limits = np.tile(placed.source[row], 2)
        assert np.allclose(found.of(row)[0, :4].numpy(), np.clip(in_file, 0, limits), atol=1e-3)
        assert found.of(row)[0, 4:].tolist() == pytest.approx([1.0, 0.0], abs=1e-4)


def test_what_is_found_in_the_padding_is_no_detection(shards):
    batch = loaded(shards, 2)
    placed = batch.placed
    first = placed.offset[0].astype(float)
    end = first + placed.size[0]
    beyond = [end[0] + 1, end[1] + 1, end[0] + 5, end[1] + 5, 0.9, 0.0]  # behind the picture's last corner
    within = [*(first + 2), *(first + 9), 0.8, 0.0]
    found = Ragged.of_lists([torch.tensor([beyond, within], dtype=torch.float32), torch.zeros(0, 6)])
    kept = yolov5._in_files(found, batch)
    assert kept.counts.tolist() == [1, 0]
    assert kept.rows[0, 4].item() == pytest.approx(0.8)


def test_the_graph_has_all_candidates_that_predict_chooses_from(shards):
    task, nets = job_of("task.classes=[face,sign]")
    batch = loaded(shards, 2)
    with torch.no_grad():
        found = task.graph({"net": nets["net"].eval()}, batch)
    assert found["boxes"].shape == (2, 3 * (64 + 16 + 4), 4)
    assert found["scores"].shape == (2, 3 * (64 + 16 + 4), 2)


def test_the_monitor_shows_what_is_learnt(shards):
    task, nets = job_of("task.classes=[face,sign]")
    batch = run_ops(task.ops(0), loaded(shards))
    shown = task.images(nets, batch, 0)["learnt"]
    assert shown.shape[0] == 8
    assert (shown == 1.0).sum() > (batch.images["image"][:8] == 1.0).sum()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.size=100",), r"data\.size=100 is not a multiple of 32: use data\.size=96"),
        (("task.p6=true", "data.size=96"), r"data\.size=96 is not a multiple of 64: use data\.size=128"),
        (("task.unit=2",), r"task\.unit=2: task\.augment\.mosaic=1 finds partners among 4 images"),
        (("task.unit=1", "task.augment.mosaic=0.0"), r"task\.augment\.mixup=0\.5 finds partners among 2"),
        (("task.augment.mosaic_scale=[1.5,0.5]",), r"use task\.augment\.mosaic_scale=\[0\.5,1\.5\]"),
        (("task.classes=[face,face]",), r"task\.classes=\[face, ?face\]: type at least one name"),
        (("task.augment.mosaic_own=true",), r"data\.members=1: .* use data\.members=4"),
        (("task.model=xl",), r"task\.model=xl is not known"),
    ],
)
def test_refused(words, said):
    with pytest.raises(UserError, match=said):
        check(config_of(*words))


def test_a_set_of_other_classes_is_refused(shards):
    config = config_of()
    with pytest.raises(UserError, match=r"has boxes of the classes \[face, ?sign\], not \[face\]"):
        plan_of(config.task).check(config, {"train": shards})


def test_the_run_ends_when_nothing_better_was_found_for_a_while():
    task, _ = job_of("task.patience=100")
    seen = []
    for clock, value in ((50, 0.2), (100, 0.4), (150, 0.3), (199, 0.4), (200, 0.1)):
        task.judged({"boxes/ap": value}, clock)
        seen.append(task.ended())
    assert seen == [False, False, False, False, True]
    resumed, _ = job_of("task.patience=100")
    resumed.load_state(task.state())
    assert resumed.ended()
    resumed.judged({"boxes/ap": 0.5}, 250)
    assert not resumed.ended()
    never, _ = job_of("task.patience=0")
    for clock in (100, 900):
        never.judged({}, clock)
        never.judged({"boxes/ap": 0.4}, clock)
    assert not never.ended()
