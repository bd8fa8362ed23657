"""The counts in a task's yaml, which dry_run multiplies, are those of the networks that are built."""

import dataclasses

import pytest
import torch

from hpc.task import build_task
from hpc.tasks import classifier_plan, siamese, siamese_plan
from launch.options.compose import composed, task_yaml
from launch.start import table
from launch.start.plan import RunPlan


@pytest.mark.parametrize("trunk", ["googlenet", "small"])
@pytest.mark.parametrize("loss", ["contrastive", "bce"])
def test_parameters(trunk, loss):
    config = composed(["task=siamese", f"task.trunk={trunk}", f"task.loss={loss}", "task.embedding=32"])
    built = siamese.build(config).players()
    counted, _ = siamese_plan.counts(config, task_yaml("siamese")["memory"])
    assert counted == sum(p.numel() for net in built.values() for p in net.parameters())


@pytest.mark.parametrize(("trunk", "size"), [("googlenet", 64), ("small", 112)])
def test_activations(trunk, size):
    """What autograd keeps for an image, within a fifth: sizes are rounded by pools and strides."""
    config = composed(["task=siamese", f"task.trunk={trunk}", f"data.size={size}"])
    net = siamese.build(config).players()["net"].train()
    mine = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(torch.zeros(4, 3, size, size))
    _, counted = siamese_plan.counts(config, task_yaml("siamese")["memory"])
    assert output.shape == (4, 128)
    assert sum(size for size, _ in kept.values()) / 4 == pytest.approx(counted, rel=0.2)


@pytest.mark.parametrize("task", ["gender", "deepfake", "face_attributes", "attributes"])
def test_the_counts_of_a_classifier_are_those_of_its_network(task):
    config = composed([f"task={task}", "smoke=true"])
    net = build_task(config).players()["net"]
    held, image = classifier_plan.counts(config, {})
    assert held == sum(p.numel() for p in net.parameters())
    larger = dataclasses.replace(config, data=dataclasses.replace(config.data, size=2 * config.data.size))
    assert classifier_plan.counts(larger, {}) == (held, 4 * image)
    assert classifier_plan.core_rate(config, {}) == 4 * classifier_plan.core_rate(larger, {})


def test_memory_follows_the_config():
    counts = task_yaml("siamese")["memory"]
    config = composed(["task=siamese", "procs=2", "precision=fp32"])
    held = table.memory(RunPlan(config, counts=counts))
    assert held["optimizer"] == 2 * held["weights"]
    half = table.memory(RunPlan(dataclasses.replace(config, precision="bf16", micro_batch=8), counts=counts))
    assert half["activations"] == pytest.approx(held["activations"] / 8)
