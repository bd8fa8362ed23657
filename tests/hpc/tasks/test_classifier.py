"""The classifiers: their heads, what they learn from, and what they refuse before anything starts."""

import dataclasses

import numpy as np
import pytest
import torch

from data_shards.batch import Batch
from data_shards.errors import UserError
from data_shards.pack.pack import pack
from data_shards.pack.request import Request
from data_shards.shard_format.shard_set import ShardSet
from data_shards.sources.procedural import source
from hpc.config.check import check
from hpc.config.plan import plan_of
from hpc.task import build_task
from launch.audit.faces import LabelledFaces
from launch.options.compose import composed
from launch.options.conf import choices, plan_of_task

JOBS = [task for task in choices("task") if "heads" in composed([f"task={task}"]).task]


def labels_of(task, n=6):
    made = {}
    for name, field in plan_of_task(task).labels.items():
        rng = np.random.default_rng(len(name))
        top = len(field.names) if field.kind == "class" else 2 if field.kind == "bits" else 60
        made[name] = torch.from_numpy(rng.integers(0, top, (n, *field.shape)))
    return made


@pytest.mark.parametrize("task", JOBS)
def test_a_job_has_a_finite_loss_and_predicts_what_its_evaluators_judge(task):
    config = composed([f"task={task}", "smoke=true"])
    check(config)
    job = build_task(config)
    nets = job.players()
    size = config.data.size
    images = torch.rand(6, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = dataclasses.replace(Batch.of_images(images), labels=labels_of(task))
    loss = job.loss(job.phases(0)[0], nets, batch, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in nets["net"].parameters())
    found = job.predict(nets, batch)
    assert found.keys() == job.evaluators.keys() == config.task["heads"].keys()
    for name, field in plan_of(config.task).labels.items():
        wanted = {"class": (6, len(field.names)), "bits": (6, *field.shape), "value": (6,)}[field.kind]
        assert tuple(found[name].shape) == wanted
    assert job.metric[0].split("/")[0] == next(iter(config.task["heads"]))


def test_roles_and_rules_follow_the_heads():
    plan = plan_of_task("face_attributes")
    assert plan.roles["train"] == ("age:value", "gender:class", "race:class")
    assert {"heads.age.low", "heads.race.smoothing", "augment.mixup", "backbone"} <= set(plan.keys)
    assert plan.labels["race"].names == ("White", "Black", "Asian", "Indian", "other")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A packed set of the labels of `face_attributes`."""
    drawn = LabelledFaces(
        source("", split="train", identities=6, per_identity=4, size=24, seed=0),
        plan_of_task("face_attributes").labels,
    )
    folder = tmp_path_factory.mktemp("faces")
    pack(drawn, folder, Request(size=24), workers=1)
    return ShardSet.open(folder / "train")


def test_weights_come_from_the_labels_of_the_training_set(faces):
    job = build_task(composed(["task=face_attributes", "smoke=true", "task.heads.race.balance=1.0"]))
    job.begin({"train": faces})
    counts = np.bincount(faces.labels["race"], minlength=5)
    weights = job.weights["race"].numpy()
    mass = weights * counts
    assert mass[counts > 0] == pytest.approx(len(faces) / (counts > 0).sum())
    assert job.weights["age"] is None
    assert job.weights["gender"] is None


def test_mixed_labels_share_the_loss(faces):
    words = ["task=gender", "smoke=true", "task.heads.gender.smoothing=0.0"]
    job = build_task(composed(words))
    nets = job.players()
    nets["net"].eval()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    own, other = torch.tensor([0, 1, 0, 1]), torch.tensor([1, 1, 0, 0])
    mix = torch.tensor([1.0, 0.75, 0.5, 0.0])

    def loss(labels):
        batch = dataclasses.replace(Batch.of_images(images), labels=labels)
        return job.loss(job.phases(0)[0], nets, batch, 0)

    found = loss({"gender": own, "gender.partner": other, "mix": mix})
    head, out = job.heads["gender"], nets["net"](images)["gender"]
    each = mix * head.loss(out, own) + (1 - mix) * head.loss(out, other)
    torch.testing.assert_close(found, each.mean())
    assert found != loss({"gender": own})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task.backbone=resnet19"], "task.backbone=resnet19 is not known: use googlenet"),
        (["task.backbone=googlenet", "task.width=32"], "task.width=32 does not go with task.backbone=googl"),
        (["data.size=8"], "data.size=8 is too small for task.backbone=small: use 16 or more"),
        (["task.augment.mixup=0.2", "task.augment.cutmix=1.0"], "both mix labels: use one of them"),
        (["task.heads.gender.loss=l1"], "task.heads.gender.loss=l1 is not known: use softmax or sigmoid"),
        (["task.heads.gender.classes=[man]"], "task.heads.gender.classes=[man]: type at least 2"),
        (
            ["task.heads.gender.classes=[a,b,c]", "task.heads.gender.loss=sigmoid"],
            "task.heads.gender.loss=sigmoid takes two classes, not 3: use task.heads.gender.loss=softmax",
        ),
        (["task.augment.mixup=0.2", "batch=20"], "20"),
        (["task.heads.gender.smoothing=1.0"], "task.heads.gender.smoothing=1.0 is not in [0, 1)"),
        (["data.stream=true", "task.heads.gender.balance=1.0"], "use balance=0"),
    ],
)
def test_keys_that_cannot_work_are_refused_in_one_line(words, message):
    with pytest.raises(UserError) as error:
        check(composed(["task=gender", "smoke=true", *words]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_range_of_ages_must_rise():
    with pytest.raises(UserError, match=r"task.heads.age.high=0 is not above task.heads.age.low=0"):
        check(composed(["task=age", "smoke=true", "task.heads.age.high=0.0"]))


def test_classes_that_the_set_lacks_are_named(faces):
    config = composed(["task=race", "smoke=true", "task.heads.race.classes=[White,Black,Green]"])
    plan = plan_of(config.task)
    with pytest.raises(UserError) as error:
        plan.check(config, {"train": faces})
    assert "lacks Green" in str(error.value)
    assert "type task.heads.race.classes=[White,Black,Asian,Indian,other]" in str(error.value)
    assert "other order" not in str(error.value)


def test_a_set_of_one_class_teaches_nothing(tmp_path):
    fields = plan_of_task("gender").labels

    class OneClass(LabelledFaces):
        def samples(self):
            for sample in super().samples():
                values = dict(zip(self.fields, sample.labels, strict=True)) | {"gender": 1}
                yield sample._replace(labels=tuple(values.values()))

    drawn = OneClass(source("", split="train", identities=3, per_identity=2, size=24, seed=0), fields)
    pack(drawn, tmp_path, Request(size=24), workers=1)
    config = composed(["task=gender", "smoke=true"])
    with pytest.raises(UserError, match="of gender it holds only woman: pack a set that has two"):
        plan_of(config.task).check(config, {"train": ShardSet.open(tmp_path / "train")})
