"""Where a network looks: Grad-CAM of a class, a bit or a number that a run's task predicts.

Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization (2017,
section 3). The last feature maps are weighed by the mean gradient of the score and summed, and what is below
0 is dropped: left are the places that speak for the answer. The result is as coarse as those maps are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.batch import Batch
from data_shards.errors import UserError
from hpc.evaluation.base import Evaluator
from hpc.evaluation.classes import Bits, Classes
from hpc.evaluation.values import Values
from hpc.inference.predictor import BATCH, Predictor, device

KINDS: dict[type[Evaluator], str] = {Classes: "class", Bits: "bits", Values: "value"}


@dataclass(frozen=True)
class Answer:
    """One of the outputs of a task that can be explained."""

    field: str
    output: str  # of `Task.predict`
    kind: str  # class | bits | value
    names: tuple[str, ...] = ()  # of classes or bits, where they are known

    def named(self, number: int) -> str:
        """Return the name of a class or bit, or its number; empty for a value."""
        if self.kind == "value":
            return ""
        return self.names[number] if number < len(self.names) else str(number)


def answers(model: Predictor) -> list[Answer]:
    """Return what the run's task answers by a class, bits or a number, in the order of its evaluators."""
    found = []
    for make in model.task.evaluators.values():
        each = make()
        kind = next((name for of, name in KINDS.items() if isinstance(each, of)), "")
        if kind:
            assert isinstance(each, Classes | Bits | Values)
            known = getattr(model.task.known_fields.get(each.field), "names", ())
            names = tuple(getattr(each, "names", ())) or tuple(known)
            found.append(Answer(each.field, each.output, kind, names))
    return found


def last_map(nets: Mapping[str, nn.Module]) -> nn.Module | None:
    """Return the module of the last feature map of a backbone of `models/` among the networks, or None."""
    for net in nets.values():
        for module in net.modules():
            if isinstance(layer := getattr(module, "last_map", None), nn.Module):
                return layer
    return None


def check(model: Predictor) -> None:
    """Raise UserError for a run whose answers cannot be explained."""
    if not answers(model):
        raise UserError(
            f"explain=true: task {model.config.task['name']} of {model.run.name} answers by no class, bits "
            "or number: leave it out, or use a run of a classifier"
        )
    if last_map(model.nets) is None:
        raise UserError(
            f"explain=true: the networks of {model.run.name} have no backbone of models/backbones.py: leave "
            "it out"
        )


def heat_maps(
    model: Predictor, images: np.ndarray, answer: Answer, targets: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps float32 [n, h, w] in [0, 1] of images uint8 [n, h, w, 3], and what they speak for [n].

    targets: numbers of the classes or bits [n] (None = what the network says: its class, its likeliest bit).
    A map is 0 where nothing speaks for the answer, else its largest value is 1.
    """
    layer = last_map(model.nets)
    assert layer is not None, "check comes first"
    maps, chosen = [], []
    for start in range(0, len(images), BATCH):
        block = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).to(device())
        shown = block.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        given = None if targets is None else torch.as_tensor(targets[start : start + BATCH]).to(device())

        def scores(shown: Tensor, given: Tensor | None = given) -> Tensor:
            outputs = model.task.predict(model.nets, Batch.of_images(shown))[answer.output].float()
            target = _said(outputs, answer.kind) if given is None else given.long()
            chosen.append(target.cpu().numpy())
            return score(outputs, answer.kind, target)

        maps.append(grad_cam(layer, scores, shown).cpu().numpy())
    empty = np.zeros((0, *images.shape[1:3]), np.float32), np.zeros(0, np.int64)
    return (np.concatenate(maps), np.concatenate(chosen)) if maps else empty


def _said(outputs: Tensor, kind: str) -> Tensor:
    """Return the number of the class, or of the likeliest bit, of outputs [n, k]; 0 for values."""
    return torch.zeros(len(outputs), dtype=torch.long) if kind == "value" else outputs.detach().argmax(1)


def score(outputs: Tensor, kind: str, targets: Tensor) -> Tensor:
    """Return the score [n] that a map explains: the logit of a class or a bit, or the number itself.

    Of two classes it is the difference of their logits: where one output decides, one of them is constant.
    """
    if kind == "value":
        return outputs
    own = outputs.gather(1, targets[:, None])[:, 0]
    if kind == "class" and outputs.shape[1] == 2:
        return own - outputs.gather(1, 1 - targets[:, None])[:, 0]
    return own


def grad_cam(layer: nn.Module, scores: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the maps [n, h, w] in [0, 1] of `scores` (images [n, 3, h, w] -> [n]) at the output of `layer`.

    Each image's score must depend on that image alone: networks in eval mode. Section 3, equations 1 and 2.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # the next layer may work in place

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            total = scores(images).sum()
    finally:
        handle.remove()
    maps = seen[0]
    (gradient,) = torch.autograd.grad(total, maps)
    with torch.no_grad():
        weights = gradient.mean((2, 3), keepdim=True)
        heat = (weights * maps).sum(1, keepdim=True).relu().float()
        heat = F.interpolate(heat, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        return heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
