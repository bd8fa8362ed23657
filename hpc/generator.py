"""What makes images, and is used without a trainer: `rostro generate` and an export ask a task for it."""

from torch import Tensor, nn

from data_shards.batch import Batch


class Generator(nn.Module):
    """What makes images of latents: `Task.generator` builds it for `rostro generate` and an export.

    `forward` is the whole of it, latents [n, d] -> images [n, 3, side, side], in [-1, 1] but for overshoots.
    """

    latents: int  # numbers of a latent, standard normal
    side: int  # pixels of an image
    noise_size = 0  # numbers of noise that an image takes (0 = none)
    layers = 0  # that take a style of their own, for `mixed` (0 = there are no styles)

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Make images; noise: standard normal [n, noise_size] (None = without)."""
        raise NotImplementedError

    def mixed(self, coarse: Tensor, fine: Tensor, crossover: int, noise: Tensor | None = None) -> Tensor:
        """Make images with styles of `coarse` [n, d] below the layer `crossover`, of `fine` from it on."""
        raise NotImplementedError

    def at(self, batch: Batch) -> Tensor:
        """Make the image of each position of a batch: the latents and the noise are counted by it."""
        return self(batch.latents("shown", self.latents), self.noise_at(batch))

    def noise_at(self, batch: Batch) -> Tensor | None:
        return batch.noise("shown noise", self.noise_size) if self.noise_size else None


class Autoencoder(Generator):
    """A generator that also finds the latents of an image: `rostro generate reconstruct=` and `attribute=`.

    A task whose `generator` returns one has what both need.
    """

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents [n, d] of images [n, 3, side, side] in [-1, 1]."""
        raise NotImplementedError


class Translator(nn.Module):
    """What makes an image of an image: `Task.translator` builds it for `rostro generate translate=`.

    `forward` takes images [n, 3, h, w] in [-1, 1] and returns as many of the same size and range.
    """

    multiple = 1  # pixels: both sides of an image must be multiples of it
    least = 1  # pixels of a side, rounded up to such a multiple
