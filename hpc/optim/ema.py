"""The exponential moving average of a network's weights, with its half-life in images seen."""

import copy

import torch
from torch import Tensor, nn

from hpc.optim.state import load_module


class Ema:
    """A second copy of a module in eval mode: float parameters averaged, buffers copied.

    Karras et al., StyleGAN2 (2020), appendix B; the ramp-up as in their ADA paper: the half-life is at most
    `rampup` times the images seen, so that the first weights are soon forgotten. `rampup` 0: no such bound.
    """

    def __init__(self, module: nn.Module, half_life: int, rampup: float = 0.0) -> None:
        self.half_life, self.rampup = half_life, rampup
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    def beta(self, clock_after: int, batch: int) -> float:
        """Weight of the old average in the update that ends at `clock_after`."""
        half_life = float(self.half_life)
        if self.rampup:
            half_life = min(half_life, self.rampup * clock_after)
        return 0.5 ** (batch / max(half_life, 1e-8))

    @torch.no_grad()
    def update(self, module: nn.Module, clock_after: int, batch: int) -> None:
        """Move towards `module`, whose last update took `batch` images and ended at `clock_after`."""
        averages: list[Tensor] = list(self.module.parameters())
        self.update_pieces(averages, list(module.parameters()), module, clock_after, batch)

    @torch.no_grad()
    def update_pieces(
        self, averages: list[Tensor], weights: list[Tensor], module: nn.Module, clock_after: int, batch: int
    ) -> None:
        """Move `averages`, parts of this average that share its memory, towards `weights`."""
        torch._foreach_lerp_(averages, weights, 1 - self.beta(clock_after, batch))
        for old, new in zip(self.module.buffers(), module.buffers(), strict=True):
            old.copy_(new)

    def state(self) -> dict[str, Tensor]:
        return self.module.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        load_module(self.module, state, "the moving average")
