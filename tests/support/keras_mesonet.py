"""A reference of MesoNet's layers in NumPy, in Keras's layout: images [n, h, w, 3] in [0, 1].

`models/mesonet.py` must equal it. It is written from the paper (arXiv 1809.00888) and from what Keras
documents of its layers: kernels [h, w, inputs, outputs], padding "same", flattening by row, column, channel.
"""

import numpy as np
from torch import nn

Weights = dict[str, np.ndarray]
EPS = 1e-3
DILATIONS = (1, 2, 3)


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
