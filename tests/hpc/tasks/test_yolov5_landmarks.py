"""YOLOv5 with landmarks: what it asks of a set, learns, answers in pixels of files, writes and exports."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.ops.base import run_ops
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.boxes import FIVE_POINTS, Boxes
from data_shards.sources.yolo_labels import add_row
from hpc.config.check import check
from hpc.config.plan import plan_of
from hpc.distributed.comm import Comm
from hpc.evaluation.base import JudgedSet
from hpc.evaluation.landmarks_shown import check_names
from hpc.evaluation.run import evaluate
from hpc.inference.detector import RunDetector
from hpc.inference.drawn_boxes import rendered
from hpc.inference.export import Exported, _write_onnx
from hpc.inference.export_card import describe
from hpc.inference.names import learn_names
from hpc.inference.predictor import Predictor, load_run
from hpc.task import build_task
from hpc.tasks.yolov5_plan import counts
from launch.cli import main
from launch.options.compose import composed
from tests.support.landmark_job import (
    FACES,
    PHASE,
    SIDE,
    job_of,
    learn,
    loaded,
    nearest,
    pack_faces,
    saved_run,
)
from tests.support.object_set import pack_objects


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return pack_faces(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def learnt(shards):
    return learn(shards)


def test_landmarks_are_asked_for_where_the_job_learns_them():
    plain = composed(["task=yolov5x_widerface"])
    assert plain.task["landmarks"] == 0
    assert plan_of(plain.task).roles["train"] == ("boxes:boxes", "box_class:class", "box_flags:bits")
    config = composed(["task=yolov5x_widerface", "task.landmarks=5"])
    roles = plan_of(config.task).roles
    assert roles["train"][3:] == ("box_points:points",)
    assert roles["val"] == roles["eval"] == plan_of(plain.task).roles["train"]
    # ten further outputs of each of the three anchors of every scale
    widths = (320, 640, 1280)
    more = sum((width + 1) * 3 * 10 for width in widths)
    assert counts(config)[0] - counts(plain)[0] == more
    assert counts(plain)[0] == 86_217_814


def test_a_set_of_other_landmarks_or_none_is_refused(shards, tmp_path):
    task, _ = job_of("task.landmarks=3")
    with pytest.raises(UserError, match=r"has 5 landmarks of each box, not 3: use task\.landmarks=5"):
        task.plan.check(task.config, {"train": shards})
    named = shards.schema.fields["box_points"]
    fields = {**shards.schema.fields, "box_points": dataclasses.replace(named, names=())}
    nameless = SimpleNamespace(folder="/sets/x", schema=SimpleNamespace(fields=fields))
    config = composed(["task=yolov5x_widerface", "task.landmarks=5"])
    with pytest.raises(UserError, match=r"have no names.* use data\.augment\.flip=0\.0"):
        task.plan.check(config, {"train": nameless})
    config.data.augment.flip = 0.0
    task.plan.check(config, {"train": nameless})
    with pytest.raises(UserError, match=r"data\.val=.* has the landmarks .*left_eye.*, the training set"):
        task.plan.check(config, {"train": nameless, "val": shards})
    fields = {**shards.schema.fields, "box_points": dataclasses.replace(named, shape=(68, 2), names=())}
    many = SimpleNamespace(folder="/sets/y", schema=SimpleNamespace(fields=fields))
    with pytest.raises(UserError, match=r"data\.eval=/sets/y has 68 landmarks of each box, not 5"):
        task.plan.check(config, {"train": shards, "eval": many})
    pack_objects(tmp_path / "bare", 12)
    with pytest.raises(UserError, match="box_points"):
        ShardSet.open(tmp_path / "bare" / "train", fields=task.plan.roles["train"])
    with pytest.raises(UserError, match=r"task\.landmarks=-1"):
        job_of("task.landmarks=-1")


@pytest.mark.parametrize(
    ("job", "keys"), [("yolov5x_widerface", ("landmarks", "landmark")), ("stylegan", ("noise",))]
)
def test_a_run_of_before_a_key_is_checked_and_built(job, keys):
    config = composed([f"task={job}", "smoke=true"])
    for key in keys:
        del config.task[key]
    check(config)
    task = build_task(config)
    task.players()
    assert not getattr(task, "landmarks", 0)


def test_the_judged_landmarks_must_be_those_of_the_run(learnt, shards):
    task = learnt[0]
    check_names(shards, task)
    named = shards.schema.fields["box_points"]
    fields = {"box_points": dataclasses.replace(named, names=named.names[::-1])}
    other = SimpleNamespace(folder="/sets/x", schema=SimpleNamespace(fields=fields))
    with pytest.raises(UserError, match=r"/sets/x has the landmarks right_mouth, .* the run left_eye"):
        check_names(other, task)


def test_without_landmarks_nothing_is_asked_said_or_kept(shards):
    task, nets = job_of("task.landmarks=0")
    task.begin({"train": shards})
    batch = loaded(shards)
    del batch.labels["box_points"]
    assert task.targets(batch).points is None
    seen = {}
    task.report = lambda name, value: seen.update({name: value})
    task.loss(PHASE, nets, batch, 0)
    assert "landmarks" not in seen
    with torch.no_grad():
        assert task.graph({"net": nets["net"].eval()}, batch).keys() == {"boxes", "scores"}
    assert task.state().keys() == {"best", "best_clock", "judged_clock"}


def test_the_loss_of_two_ranks_is_that_of_one(shards):
    task, nets = job_of()
    batch = run_ops(task.ops(0), loaded(shards, 16))
    nets["net"].eval()
    seen = []
    task.report = lambda name, value: seen.append(value.item()) if name == "landmarks" else None
    whole = task.loss(PHASE, nets, batch, 0)
    halves = [task.loss(PHASE, nets, batch[at : at + 8], 0) for at in (0, 8)]
    assert sum(halves).item() / 2 == pytest.approx(whole.item(), rel=1e-5)
    assert (seen[1] + seen[2]) / 2 == pytest.approx(seen[0], rel=1e-5)
    assert seen[0] > 0


def test_a_small_network_learns_a_few_faces(learnt, shards):
    task, nets, batch, before = learnt
    after = nearest(task, nets, batch)
    assert after < 0.06
    assert after < before / 4

    def batches(comm):
        yield dataclasses.replace(batch, labels={})

    reports, _ = evaluate(task, nets, JudgedSet(batches, shards), Comm(), channels_last=False)
    figures = reports["boxes"].scalars
    assert figures["ap50"] > 0.5
    assert figures["landmark_nme"] < 0.06
    assert figures["landmark_nme"] < figures["landmark_nme_eyes"] < 0.2


def test_landmarks_stay_with_their_detections_in_pixels_of_the_files(learnt):
    task, nets, batch, _ = learnt
    with torch.no_grad():
        found, seen = task.predict(nets, batch), task.graph(nets, batch)
    boxes, marks = found["detections"], found["landmarks"]
    assert marks.rows.shape == (len(boxes.rows), 5, 2)
    np.testing.assert_array_equal(marks.starts, boxes.starts)
    compared = 0
    for slot in range(len(batch)):
        placed = batch.placed[slice(slot, slot + 1)]
        there = seen["scores"][slot, :, 0]
        for row, points in zip(boxes.of(slot)[:5], marks.of(slot), strict=False):
            (place,) = torch.nonzero(there == row[4])[:1].flatten().tolist()
            wanted = placed.undo_points(seen["landmarks"][slot, place].numpy()[None], np.zeros(1, np.int64))
            np.testing.assert_allclose(points.numpy(), wanted[0], atol=1e-3)
            compared += 1
    assert compared > FACES


def predictor(learnt, shards, tmp_path) -> Predictor:
    task, nets, _, _ = learnt
    model = Predictor(task, nets, task.config, tmp_path, 0, "raw", {})
    task.known_fields = dict(shards.schema.fields)
    return model


def test_a_mirror_image_has_the_landmarks_in_their_own_names(learnt, shards, tmp_path):
    task, _, batch, _ = learnt
    assert task.points == FIVE_POINTS
    assert task.mirror.tolist() == [1, 0, 2, 4, 3]
    model = predictor(learnt, shards, tmp_path)
    stills = batch.images["image"].add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    straight = RunDetector(model, "none")
    # a mirror image that is mirrored again is what was learnt
    turned = [np.ascontiguousarray(image[:, ::-1]) for image in stills]
    one = straight._look(turned, 1.0, True)
    other = straight._look(list(stills), 1.0, False)
    for rows, wanted in zip(one, other, strict=True):
        assert rows.shape == wanted.shape
        np.testing.assert_allclose(rows[:, [2, 0]], SIDE - wanted[:, [0, 2]], atol=1e-3)
        marks = rows[:, 6:].reshape(-1, 5, 2)
        back = wanted[:, 6:].reshape(-1, 5, 2)[:, [1, 0, 2, 4, 3]]
        np.testing.assert_allclose(marks[..., 1], back[..., 1], atol=1e-3)
        np.testing.assert_allclose(marks[..., 0], SIDE - back[..., 0], atol=1e-3)
    merged = RunDetector(model, "flip").find(list(stills))
    assert {rows.shape[1] for rows in merged} == {16}


def test_predict_writes_points_and_labels_that_the_yolo_source_reads(learnt, shards, tmp_path):
    _, _, batch, _ = learnt
    run = saved_run(tmp_path / "run", learnt, shards)
    assert load_run(run).task.points == FIVE_POINTS  # of the checkpoint alone
    folder = tmp_path / "in"
    folder.mkdir()
    stills = batch.images["image"].add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(stills[:3]):
        cv2.imwrite(str(folder / f"{number}.png"), np.ascontiguousarray(image[..., ::-1]))
    words = ["predict", str(run), str(folder), f"out={tmp_path / 'out'}", "threads=1", "score=0.1"]
    assert main([*words, "format=json", "draw=true", "crops=true", "layout=yolo"]) == 0
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert sum(each["objects"] for each in records) > 0
    for number, each in enumerate(records):
        lines = (tmp_path / "out" / "labels" / f"{number}.txt").read_text().splitlines()
        boxes = Boxes((SIDE, SIDE), flags=1, points=5)
        for line, found in zip(lines, each["found"], strict=True):
            assert np.shape(found["points"]) == (5, 2)
            words_ = line.split()
            assert len(words_) == 5 + 10 + 1
            assert float(words_[-1]) == pytest.approx(found["score"], abs=1e-5)
            assert add_row(boxes, " ".join(words_[:-1]), 1) == ""
            inside = [min(mark) >= 0 and max(mark) <= SIDE for mark in found["points"]]
            read = boxes.labels()[4][-1]
            np.testing.assert_allclose(read[inside], np.array(found["points"])[inside], atol=1e-3)
    assert list((tmp_path / "out" / "crops" / "face").glob("*.jpg"))
    assert main([*words, "format=csv"]) == 0
    with open(tmp_path / "out" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert all("points" in each for row in rows for each in json.loads(row["found"]))


def test_drawn_landmarks_and_records_of_none():
    image = np.full((60, 80, 3), 90, np.uint8)
    found = np.array([[10, 10, 60, 50, 0.5, 0]], np.float32)
    points = np.array([[[30, 30], [50, 20], [-9, 5], [200, 5], [40, 40]]], np.float32)
    bare, marked = rendered(image, found, ["face"]), rendered(image, found, ["face"], points)
    assert "points" not in bare.record["found"][0]
    assert len(bare.label.split()) == 6
    changed = (bare.image != marked.image).any(2)
    assert changed[30, 30]
    assert changed[20, 50]
    assert changed[40, 40]
    assert changed.sum() < 40
    none = rendered(image, found[:0], ["face"], points[:0])
    assert (none.record["objects"], none.label) == (0, "")


def test_the_exported_graph_has_landmarks_and_the_card_says_so(learnt, shards, tmp_path):
    task, nets, batch, _ = learnt
    model = predictor(learnt, shards, tmp_path)
    learn_names(model)
    card = describe(model)["postprocessing"]
    assert card["landmarks"] == "n, candidates, landmarks, 2: x, y in pixels of the input"
    assert card["names"] == list(FIVE_POINTS)
    images = batch.images["image"][:2]
    module = Exported(model, images).eval()
    assert module.names == ("boxes", "scores", "landmarks")
    with torch.no_grad():
        wanted = task.graph(nets, Batch.of_images(images))["landmarks"]
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    _write_onnx(module, {"images": images}, module.names, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(["landmarks"], {"images": images.numpy()})
    assert np.abs(found - wanted.numpy()).max() < 1e-3
    assert wanted.shape == (2, 3 * (144 + 36 + 9), 5, 2)


def test_a_resumed_run_knows_the_names_of_its_landmarks(shards):
    task, _ = job_of()
    assert task.mirror is None
    task.begin({"train": shards})
    other, _ = job_of()
    other.load_state(task.state())
    assert other.points == FIVE_POINTS
    assert isinstance(task.targets(loaded(shards)).points, torch.Tensor)
