"""The counts that dry_run multiplies are those of the networks that are built."""

import dataclasses

import pytest
import torch
from torch import nn

from hpc.config.plan import plan_of
from hpc.config.schema import Config
from hpc.task import build_task
from launch.options.compose import composed
from launch.options.conf import choices, plan_of_task
from launch.start import table
from launch.start.plan import RunPlan
from models import names
from models.backbones import build_trunk
from tests.support import tiny
from tests.support.counts import kept_bytes

JOBS = [task for task in choices("task") if task != "siamese" and plan_of_task(task).counts]


def kept(net: nn.Module, size: int) -> float:
    """What autograd keeps for an image, bytes."""
    net.train()
    return kept_bytes(lambda: net(torch.zeros(2, 3, size, size)), without=(net,)) / 2


def assert_counted(config: Config) -> None:
    counts = plan_of(config.task).counts
    assert counts
    built = build_task(config).players()
    assert counts(config)[0] == sum(p.numel() for net in built.values() for p in net.parameters())


def test_jobs_that_grow_over_days_are_counted():
    assert {"dcgan", "progan", "stylegan"} <= set(JOBS)


@pytest.mark.parametrize("trunk", ["googlenet", "small"])
@pytest.mark.parametrize("loss", ["contrastive", "bce"])
def test_parameters(trunk, loss):
    assert_counted(
        composed(["task=siamese", f"task.trunk={trunk}", f"task.loss={loss}", "task.embedding=32"])
    )


@pytest.mark.parametrize("job", JOBS)
def test_parameters_of_the_heads(job):
    own = composed([f"task={job}"]).task
    small = ["task.model=n"] if "model" in own else ["task.width=8"] if own["width"] else []
    assert_counted(composed([f"task={job}", *small]))


@pytest.mark.parametrize("name", names.NAMES)
def test_a_backbone_costs_what_is_stated(name):
    """Activations within a tenth at its own size, within a fifth at another one: pools and strides round."""
    backbone = names.BACKBONES[name]
    own, size = backbone.width, min(backbone.size, 112)
    for width in [own, own // 4] if own else [None]:
        net, features = build_trunk(name, width)
        cost = names.cost(name, width, size)
        assert cost.parameters == sum(p.numel() for p in net.parameters())
        assert cost.features == features
    assert kept(net, size) == pytest.approx(cost.activations, rel=0.1)
    assert kept(net, 48) == pytest.approx(names.cost(name, width, 48).activations, rel=0.2)


def test_a_backbone_is_faster_where_images_or_channels_are_fewer():
    whole = names.cost("resnet18")
    assert whole == names.cost("resnet18", 64, 112)
    assert names.cost("resnet18", 64, 56).rate == pytest.approx(4 * whole.rate)
    assert names.cost("resnet18", 32).rate == pytest.approx(4 * whole.rate)


def test_memory_follows_the_config():
    config = composed(["task=siamese", "procs=2", "precision=fp32"])
    held = table.memory(RunPlan(config))
    assert held["optimizer"] == 2 * held["weights"]
    half = table.memory(RunPlan(dataclasses.replace(config, precision="bf16", micro_batch=8)))
    assert half["activations"] == pytest.approx(held["activations"] / 8)


def test_a_job_that_states_no_counts_has_no_estimate():
    assert "marks" in {path.stem for path in tiny.TASKS.glob("*.yaml")}
    config = dataclasses.replace(composed(["task=siamese"]), task={"name": "marks"})
    assert table.memory(RunPlan(config)) == {}
    assert "memory" not in dict(table.rows(RunPlan(config)))
    assert "unknown" in dict(table.rows(RunPlan(config)))["time"]


def test_the_keys_of_a_task_stand_in_the_plan_as_they_are_typed():
    said = dict(table.rows(RunPlan(composed(["task=gender", "task.heads.gender.balance=0.5"]))))
    words = said["task gender"].split(", ")
    assert {"heads.gender.loss=softmax", "heads.gender.balance=0.5", "augment.mixup=0.0"} <= set(words)
    assert "heads.gender.classes=[man,woman]" in said["task gender"]
    assert said["memory"].startswith("about ")
