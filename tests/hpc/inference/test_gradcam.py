"""Grad-CAM: equal to Captum's, in [0, 1], where the answer is; of classes, bits and numbers alike."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import nn

from data_shards.errors import UserError
from hpc.evaluation.classes import Bits, Classes
from hpc.evaluation.values import Values
from hpc.evaluation.verification import Verification
from hpc.inference import gradcam
from hpc.inference.gradcam import Answer, grad_cam, heat_maps, score
from models.backbones import build_trunk
from models.names import BACKBONES, NAMES

CLASS, BITS, VALUE = (
    Answer("race", "race", "class"),
    Answer("marks", "marks", "bits"),
    Answer("age", "a", "value"),
)


class Net(nn.Module):
    """A trunk below three heads, as a classifier has them."""

    def __init__(self, name: str = "small") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone, features = build_trunk(name, 4 if BACKBONES[name].width else None)
        self.heads = nn.ModuleDict({"race": nn.Linear(features, 3), "marks": nn.Linear(features, 4)})
        self.heads["a"] = nn.Linear(features, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(images)
        return {name: head(features) for name, head in self.heads.items()}


def model_of(net: nn.Module, evaluators: dict | None = None) -> SimpleNamespace:
    """What `heat_maps` needs of a Predictor."""

    def predict(nets: dict, batch) -> dict:
        outputs = nets["net"](batch.images["image"])
        return outputs | {"a": outputs["a"][:, 0]}

    made = {
        "race": lambda: Classes("race"),
        "marks": lambda: Bits("marks"),
        "age": lambda: Values("age", output="a"),
    }
    task = SimpleNamespace(predict=predict, evaluators=evaluators or made, known_fields={})
    net = net.eval().requires_grad_(False)
    config = SimpleNamespace(task={"name": "faces"})
    return SimpleNamespace(task=task, nets={"net": net}, config=config, run=SimpleNamespace(name="faces"))


def photos(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_it_equals_captum_for_every_backbone(name: str) -> None:
    net = Net(name).eval()
    images = torch.from_numpy(photos(3, 64)).permute(0, 3, 1, 2).float() / 127.5 - 1
    oracle = LayerGradCam(lambda shown: net(shown)["race"], net.backbone.last_map)
    expected = oracle.attribute(images, target=torch.tensor([0, 1, 2]), relu_attributions=True)
    expected = F.interpolate(expected.detach(), size=(64, 64), mode="bilinear")[:, 0]
    expected = expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-30)
    found = grad_cam(
        net.backbone.last_map,
        lambda shown: score(net(shown)["race"], "class", torch.tensor([0, 1, 2])),
        images,
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert found.amax() == 1


@pytest.mark.parametrize("answer", [CLASS, BITS, VALUE], ids=lambda answer: answer.kind)
def test_any_answer_is_explained_one_image_at_a_time_or_together(answer: Answer) -> None:
    model = model_of(Net())
    images = photos(70, 32)  # more than one block
    heat, said = heat_maps(model, images, answer)
    assert heat.shape == (70, 32, 32)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert set(heat.max((1, 2))) <= {0.0, 1.0}
    alone, same = heat_maps(model, images[66:67], answer)
    np.testing.assert_allclose(alone[0], heat[66], atol=1e-3)
    assert same[0] == said[66]
    outputs = model.nets["net"](torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    if answer.kind != "value":
        np.testing.assert_array_equal(said, outputs[answer.output].argmax(1).numpy())
    assert all(p.grad is None and not p.requires_grad for p in model.nets["net"].parameters())


def test_the_map_is_where_what_was_learnt_is() -> None:
    """A network that adds up the red of an image: only the red corner speaks for its class."""
    net = Net()
    layers = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[1.0, -0.5, -0.5], [0.0, 0.0, 0.0]]).view(2, 3, 1, 1))
        net.heads["race"] = nn.Linear(2, 2)
        net.heads["race"].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    net.backbone.layers = layers
    net.heads = nn.ModuleDict({"race": net.heads["race"], "a": nn.Linear(2, 1)})
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, :8, :8, 0] = 255
    heat, _ = heat_maps(model_of(net), image, CLASS, np.array([0]))
    assert heat[0, :8, :8].min() > 0.9
    assert heat[0, 9:, 9:].max() == 0
    against, _ = heat_maps(model_of(net), image, CLASS, np.array([1]))
    assert against[0, :8, :8].max() == 0


def test_both_of_two_classes_are_explained_where_one_output_decides() -> None:
    logit = torch.tensor([[2.0], [-1.0]], requires_grad=True)
    outputs = torch.cat([torch.zeros_like(logit), logit], 1)
    found = score(outputs, "class", torch.tensor([0, 1]))
    assert found.tolist() == [-2.0, -1.0]
    (gradient,) = torch.autograd.grad(found.sum(), logit)
    assert gradient[:, 0].tolist() == [-1.0, 1.0]
    assert score(outputs, "bits", torch.tensor([0, 1])).tolist() == [0.0, -1.0]


def test_the_hook_is_gone_also_after_a_failure() -> None:
    net = Net()

    def fail(shown: torch.Tensor) -> torch.Tensor:
        net(shown)
        raise KeyError("race")

    with pytest.raises(KeyError):
        grad_cam(net.backbone.last_map, fail, torch.zeros(1, 3, 32, 32))
    assert not net.backbone.last_map._forward_hooks


def test_what_cannot_be_explained_says_why() -> None:
    assert [answer.kind for answer in gradcam.answers(model_of(Net()))] == ["class", "bits", "value"]
    gradcam.check(model_of(Net()))
    with pytest.raises(UserError, match="explain=true: task faces of faces answers by no class"):
        gradcam.check(model_of(Net(), {"verification": Verification}))
    with pytest.raises(UserError, match=r"no backbone of models/backbones\.py: leave it out"):
        gradcam.check(model_of(nn.Linear(1, 1)))
