"""Puts the published weights of MesoNet (Afchar et al. 2018) into the networks of `models/mesonet.py`.

The authors' networks see RGB in [0, 1] and answer with one number, the probability that a face is real: their
folders are `df` and `real`, numbered in that order. Ours see [-1, 1] and begin by mapping it to [0, 1], so
the weights are taken as they are: folding the scale into the first convolution would not be exact at the
borders, whose zeros are black only in [0, 1].
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.errors import UserError
from data_shards.files import write_json
from hpc.checkpoints import manager, store
from hpc.checkpoints.store import Checkpoint
from hpc.config.schema import Config
from hpc.distributed.comm import Comm
from hpc.inference.keras_weights import Layer, read_layers
from hpc.runs.run_dir import RunDir
from hpc.task import build_task
from models.backbones import build_trunk
from models.mesonet import SIDE, MesoNet

CONVOLUTIONS = {4: "meso4", 16: "mesoinception4"}  # how many of them a file has -> what it is
SIZE = 256  # pixels of the images that published weights are for
FIELD = "deepfake"  # the head of task=deepfake, whose class 1 is `real`
REFERENCE = "Afchar et al., MesoNet: a Compact Facial Video Forgery Detection Network, 2018, arXiv 1809.00888"


@dataclass(frozen=True)
class Published:
    """A published network: its trunk by name, the trunk, and its last layer, the logit of a real face."""

    backbone: str
    trunk: nn.Module
    head: nn.Linear  # 16 -> 1
    sha256: str  # of the file


def save(published: Published, run: RunDir, config: Config, *, source: str) -> None:
    """Write the weights into `run` as its checkpoint of clock 0, and what they come from.

    config: of task=deepfake with the same backbone; source: name of the file. How many images these weights
    have seen is not known: the clock is 0.
    """
    task = build_task(config)
    net = task.players()["net"]
    net.backbone.load_state_dict(published.trunk.state_dict())  # type: ignore[union-attr]
    net.heads[FIELD].load_state_dict(published.head.state_dict())  # type: ignore[union-attr, index]
    saved = Checkpoint(0, 0, players={"net": net.state_dict()}, task=task.state())
    saved.monitor = {"sums": {}, "digest": 0}
    saved.meta = manager.meta(config, task, Comm()) | {"metrics": {}, "helpers": {}}
    store.save(run.path, saved)
    facts = {
        "network": published.backbone,
        "file": source,
        "sha256": published.sha256,
        "reference": REFERENCE,
    }
    write_json(run.converted_file, facts)
    run.write_status(state="finished", clock=0, message=f"converted from {source}")


def read_mesonet(path: Path | str) -> Published:
    """Read a file of published weights. UserError where it is not one of Meso4 or MesoInception4."""
    data, layers = read_layers(path)
    kinds = {
        kind: [layer for layer in layers if layer.kind == kind]
        for kind in ("conv2d", "batch_normalization", "dense")
    }
    count = len(kinds["conv2d"])
    others = {layer.kind for layer in layers} - kinds.keys()
    if (
        count not in CONVOLUTIONS
        or len(kinds["batch_normalization"]) != 4
        or len(kinds["dense"]) != 2
        or others
    ):
        counts = ", ".join(f"{len(of)} {kind}" for kind, of in kinds.items())
        raise UserError(
            f"{path} has the layers {', '.join([counts, *sorted(others)])}: give weights of Meso4 (4 conv2d, "
            "4 batch_normalization, 2 dense) or MesoInception4 (16 conv2d)"
        )
    trunk, features = build_trunk(CONVOLUTIONS[count])
    head = nn.Linear(features, 1)
    assert isinstance(trunk, MesoNet)
    try:
        _fill(trunk, head, kinds["conv2d"], kinds["batch_normalization"], kinds["dense"])
    except UserError as error:
        raise UserError(f"{path} is not a file of {CONVOLUTIONS[count]}: {error}") from None
    return Published(CONVOLUTIONS[count], trunk.eval(), head, hashlib.sha256(data).hexdigest())


@torch.no_grad()
def _fill(
    trunk: MesoNet, head: nn.Linear, conv: Sequence[Layer], norm: Sequence[Layer], dense: Sequence[Layer]
) -> None:
    ours = [module for module in trunk.layers.modules() if isinstance(module, nn.Conv2d)]
    for layer, own in zip(conv, ours, strict=True):
        kernel, bias = layer.take("kernel", "bias")
        _copy(
            layer,
            own.weight,
            np.moveaxis(kernel, (0, 1), (-2, -1)).swapaxes(0, 1) if kernel.ndim == 4 else kernel,
        )
        _copy(layer, own.bias, bias)
    for layer, normal in zip(norm, trunk.norms, strict=True):
        arrays = layer.take("gamma", "beta", "moving_mean", "moving_variance")
        assert isinstance(normal, nn.BatchNorm2d)
        targets = (normal.weight, normal.bias, normal.running_mean, normal.running_var)
        for target, array in zip(targets, arrays, strict=True):
            _copy(layer, target, array)
    for layer, linear in zip(dense, (trunk.dense, head), strict=True):
        kernel, bias = layer.take("kernel", "bias")
        if linear is trunk.dense and kernel.shape == (linear.in_features, linear.out_features):
            # Keras flattens by row, column, channel, torch by channel, row, column.
            channels = linear.in_features // SIDE**2
            kernel = kernel.reshape(SIDE, SIDE, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        _copy(layer, linear.weight, kernel.T)
        _copy(layer, linear.bias, bias)


def _copy(layer: Layer, target: Tensor | None, array: np.ndarray) -> None:
    assert target is not None
    if tuple(target.shape) != array.shape:
        raise UserError(
            f"layer {layer.name} has an array of {list(array.shape)} where {list(target.shape)} is needed"
        )
    target.copy_(torch.from_numpy(np.ascontiguousarray(array)))
