"""A reference of MesoNet's layers in NumPy, in Keras's layout: images [n, h, w, 3] in [0, 1].

`models/mesonet.py` must equal it. It is written from the paper (arXiv 1809.00888) and from what Keras
documents of its layers: kernels [h, w, inputs, outputs], padding "same", flattening by row, column, channel.
"""

from pathlib import Path

import h5py
import numpy as np
from torch import nn

Weights = dict[str, np.ndarray]
EPS = 1e-3
DILATIONS = (1, 2, 3)
PARTS = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "var": "moving_variance"}


def convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, dilation: int = 1) -> np.ndarray:
    """Convolve with zeros beyond the borders, then ReLU."""
    side = kernel.shape[0]
    pad = dilation * (side // 2)
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = x.shape[1:3]
    total = np.zeros((*x.shape[:3], kernel.shape[3]), x.dtype) + bias
    for row in range(side):
        for column in range(side):
            top, left = row * dilation, column * dilation
            total += padded[:, top : top + height, left : left + width] @ kernel[row, column]
    return np.maximum(total, 0)


def normalise(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray
) -> np.ndarray:
    return (x - mean) / np.sqrt(var + EPS) * gamma + beta


def max_pool(x: np.ndarray, side: int) -> np.ndarray:
    """Take the maximum of squares; the size must be a multiple of `side`."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // side, side, width // side, side, channels).max((2, 4))


def inception(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    branches = [convolve(x, weights[f"{name}.0.kernel"], weights[f"{name}.0.bias"])]
    for number, dilation in enumerate(DILATIONS, start=1):
        inner = convolve(x, weights[f"{name}.{number}a.kernel"], weights[f"{name}.{number}a.bias"])
        kernel, bias = weights[f"{name}.{number}b.kernel"], weights[f"{name}.{number}b.bias"]
        branches.append(convolve(inner, kernel, bias, dilation))
    return np.concatenate(branches, axis=3)


def features(name: str, weights: Weights, images: np.ndarray) -> np.ndarray:
    """Return the 16 features [n, 16] below the last layer, without dropout."""
    x = images
    for layer in range(4):
        if name == "mesoinception4" and layer < 2:
            x = inception(x, weights, str(layer))
        else:
            x = convolve(x, weights[f"{layer}.kernel"], weights[f"{layer}.bias"])
        x = normalise(x, *(weights[f"{layer}.{part}"] for part in ("gamma", "beta", "mean", "var")))
        x = max_pool(x, 4 if layer == 3 else 2)
    dense = x.reshape(len(x), -1) @ weights["dense"] + weights["dense.bias"]
    return np.where(dense > 0, dense, 0.1 * dense)


def weights_of(trunk: nn.Module) -> Weights:
    """Return the weights of a trunk in Keras's layout, all but `dense`, which depends on the image's size."""
    weights: Weights = {"dense.bias": trunk.dense.bias.detach().numpy()}

    def put(name: str, convolution: nn.Conv2d) -> None:
        weights[f"{name}.kernel"] = convolution.weight.detach().permute(2, 3, 1, 0).numpy()
        weights[f"{name}.bias"] = convolution.bias.detach().numpy()

    for layer, (module, norm) in enumerate(zip(trunk.layers, trunk.norms, strict=True)):
        if hasattr(module, "branches"):
            put(f"{layer}.0", module.branches[0][0])
            for number, branch in enumerate(module.branches[1:], start=1):
                put(f"{layer}.{number}a", branch[0][0])
                put(f"{layer}.{number}b", branch[1][0])
        else:
            put(f"{layer}", module[0])
        for part, tensor in (
            ("gamma", norm.weight),
            ("beta", norm.bias),
            ("mean", norm.running_mean),
            ("var", norm.running_var),
        ):
            weights[f"{layer}.{part}"] = tensor.detach().numpy()
    return weights


def layers_of(name: str) -> list[str]:
    """Return the names of the convolutions in `Weights`, in the order in which the authors make them."""
    plain = ["0", "1", "2", "3"]
    branched = [f"{layer}.{part}" for layer in (0, 1) for part in ("0", "1a", "1b", "2a", "2b", "3a", "3b")]
    return plain if name == "meso4" else [*branched, "2", "3"]


def write(path: Path, name: str, weights: Weights, first: int = 1) -> None:
    """Write weights as Keras's `save_weights` does; first: number of the first layer of each kind."""
    with h5py.File(path, "w") as file:

        def put(layer: str, **arrays: np.ndarray) -> None:
            for part, array in arrays.items():
                file[f"{layer}/{layer}/{part}:0"] = array.astype(np.float32)

        for number, key in enumerate(layers_of(name), start=first):
            put(f"conv2d_{number}", kernel=weights[f"{key}.kernel"], bias=weights[f"{key}.bias"])
        for layer in range(4):
            arrays = {part: weights[f"{layer}.{key}"] for key, part in PARTS.items()}
            put(f"batch_normalization_{layer + first}", **arrays)
        put(f"dense_{first}", kernel=weights["dense"], bias=weights["dense.bias"])
        put(f"dense_{first + 1}", kernel=weights["head"], bias=weights["head.bias"])
        file.create_group("dropout_1")


def read(path: Path, name: str) -> Weights:
    """Read a file of published weights in Keras's layout, float64."""
    weights: Weights = {}
    with h5py.File(path) as file:

        def numbered(kind: str) -> list[str]:
            layers = [layer for layer in file if layer.rpartition("_")[0] == kind]
            return sorted(layers, key=lambda layer: int(layer.rpartition("_")[2]))

        def get(layer: str, part: str) -> np.ndarray:
            return np.asarray(file[f"{layer}/{layer}/{part}:0"], np.float64)

        for key, layer in zip(layers_of(name), numbered("conv2d"), strict=True):
            weights |= {f"{key}.kernel": get(layer, "kernel"), f"{key}.bias": get(layer, "bias")}
        for number, layer in enumerate(numbered("batch_normalization")):
            for key, part in PARTS.items():
                weights[f"{number}.{key}"] = get(layer, part)
        for key, layer in zip(("dense", "head"), numbered("dense"), strict=True):
            weights |= {key: get(layer, "kernel"), f"{key}.bias": get(layer, "bias")}
    return weights


def probability(name: str, weights: Weights, images: np.ndarray) -> np.ndarray:
    """Return what the whole network says [n]: the probability that each image [n, 256, 256, 3] is real."""
    logits = features(name, weights, images) @ weights["head"] + weights["head.bias"]
    return 1 / (1 + np.exp(-logits[:, 0]))


def random_weights(name: str, seed: int = 0) -> Weights:
    """Draw weights in Keras's layout, all of a size that matters."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    widths = {"0": (3, 8, 3), "1": (8, 8, 5), "2": (8, 16, 5), "3": (16, 16, 5)}
    channels = (8, 8, 16, 16)
    if name == "mesoinception4":
        widths = {"2": (12, 16, 5), "3": (16, 16, 5)}
        channels = (11, 12, 16, 16)
        for layer, inputs, parts in ((0, 3, (1, 4, 4, 2)), (1, 11, (2, 4, 4, 2))):
            widths[f"{layer}.0"] = (inputs, parts[0], 1)
            for number, width in enumerate(parts[1:], start=1):
                widths |= {f"{layer}.{number}a": (inputs, width, 1), f"{layer}.{number}b": (width, width, 3)}
    for key, (inputs, outputs, side) in widths.items():
        spread = (2 / (inputs * side * side)) ** 0.5
        weights[f"{key}.kernel"] = rng.normal(0, spread, (side, side, inputs, outputs))
        weights[f"{key}.bias"] = rng.normal(0, 0.1, outputs)
    for layer, count in enumerate(channels):
        for part in ("gamma", "beta", "mean", "var"):
            weights[f"{layer}.{part}"] = rng.uniform(0.5, 1.5, count)
    weights |= {"dense": rng.normal(0, 0.03, (1024, 16)), "dense.bias": rng.normal(0, 0.1, 16)}
    weights |= {"head": rng.normal(0, 0.3, (16, 1)), "head.bias": rng.normal(0, 0.1, 1)}
    # What a file holds is float32.
    return {key: array.astype(np.float32).astype(np.float64) for key, array in weights.items()}
