"""Small networks of every generative family, each with inputs and a call that gives a tensor."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models import cyclegan, dcgan, pix2pix, progan, stylegan, vae

Call = Callable[[Tensor], Tensor]


def draw(*shape: int, seed: int = 1) -> Tensor:
    """Draw standard normal float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _vae() -> tuple[nn.Module, Tensor, Call]:
    net = vae.VAE(32, latents=5, filters=4)
    noise = draw(4, 5)
    return net, draw(4, 3, 32, 32), lambda x: net(x, noise.to(x))[0]


def _pix2pix() -> tuple[nn.Module, Tensor, Call]:
    net = pix2pix.UNet(32, width=4)
    noise = draw(4, net.noise_size)
    return net, draw(4, 3, 32, 32), lambda x: net(x, noise.to(x))


def _pix2pix_own() -> tuple[nn.Module, Tensor, Call]:
    net = pix2pix.UNet(32, width=4)
    return net, draw(4, 3, 32, 32), lambda x: net(x, own_statistics=True)


def _stylegan() -> tuple[nn.Module, Tensor, Call]:
    net = stylegan.Generator(16, width=6, latents=5)
    noise = draw(4, net.noise_size(2))
    return net, draw(4, 5), lambda z: net(z, 2, 0.5, noise=noise.to(z))


def _growing_judge(blur: bool) -> tuple[nn.Module, Tensor, Call]:
    net = progan.Discriminator(16, width=6, blur=blur)
    return net, draw(4, 3, 16, 16), lambda x: net(x, 2, 0.5)


def _plain(net: nn.Module, x: Tensor, *arguments: float) -> tuple[nn.Module, Tensor, Call]:
    return net, x, lambda inputs: net(inputs, *arguments)


FAMILIES: dict[str, Callable[[], tuple[nn.Module, Tensor, Call]]] = {
    "dcgan": lambda: _plain(dcgan.Generator(32, latents=5, width=4), draw(4, 5)),
    "dcgan_judge": lambda: _plain(dcgan.Discriminator(32, width=4), draw(4, 3, 32, 32)),
    "vae": _vae,
    "pix2pix": _pix2pix,
    "pix2pix_own": _pix2pix_own,
    "patches": lambda: _plain(pix2pix.PatchDiscriminator(3, width=4), draw(4, 3, 32, 32)),
    "cyclegan": lambda: _plain(cyclegan.Generator(2, width=4), draw(4, 3, 32, 32)),
    "cyclegan_judge": lambda: _plain(cyclegan.build_discriminator(4), draw(4, 3, 32, 32)),
    "progan": lambda: _plain(progan.Generator(16, width=6, latents=5), draw(4, 5), 2, 0.5),
    "progan_judge": lambda: _growing_judge(False),
    "stylegan": _stylegan,
    "stylegan_judge": lambda: _growing_judge(True),
}
