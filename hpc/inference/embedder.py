"""A network of a run that embeds images, as a module through which gradients flow to the images.

It helps the losses of other runs, which never train it: `Task.frozen`. For figures, see `run_features.py`.
"""

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.errors import UserError
from hpc.inference.predictor import Predictor, load_run
from hpc.task import Batch

EMBEDDING = "embedding"


class Embedder(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], of any size -> unit embeddings [n, d], by the task of a run."""

    def __init__(self, model: Predictor) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(model.nets)
        self.task, self.side = model.task, model.config.data.size

    def forward(self, images: Tensor) -> Tensor:
        batch = Batch.of_images(resized(images, self.side))
        return self.task.predict(dict(self.nets.items()), batch)[EMBEDDING]


def embedder_of(run: str, *, key: str) -> Embedder:
    """Load the best checkpoint of a run. UserError, which names `key`, where it is gone or embeds nothing."""
    try:
        model = load_run(Path(run))
    except UserError as error:
        raise UserError(f"{key}={run}: {error}") from None
    if not embeds(model):
        raise UserError(
            f"{key}={run}: task {model.config.task['name']} gives no embedding: give a run of task=siamese"
        )
    return Embedder(model)


def embeds(model: Predictor) -> bool:
    """Return whether the task of a run gives embeddings of images."""
    device, side = next(next(iter(model.nets.values())).parameters()).device, model.config.data.size
    images = torch.zeros(1, 3, side, side, device=device)
    try:
        with torch.no_grad():
            return EMBEDDING in model.task.predict(model.nets, Batch.of_images(images))
    except KeyError:
        return False  # it wants images of other names: of two domains, of halves


def resized(images: Tensor, side: int) -> Tensor:
    """Return images [n, c, h, w] at `side` x `side` pixels, bilinear with antialiasing.

    As two products with matrices: `F.interpolate` does the same, but on a GPU its backward pass gives other
    sums each time.
    """
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    rows, columns = (_weights(length, side, images.device, images.dtype) for length in (height, width))
    return rows @ images @ columns.mT


@functools.lru_cache(maxsize=64)  # an update asks for them again and again, and a copy makes the host wait
def _weights(length: int, side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the share of each of `length` pixels in each of `side` ones: [side, length]."""
    with torch.inference_mode(False), torch.no_grad():  # a training may be the next to ask
        unit = torch.eye(length)[None, None]
        shares = F.interpolate(unit, (side, length), mode="bilinear", antialias=True)[0, 0]
        return shares.to(device, dtype)
