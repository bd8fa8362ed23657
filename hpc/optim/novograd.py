"""NovoGrad: gradients scaled for each tensor by their own running norm, before the momentum.

Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep
Networks" (2019), algorithm 1.
"""

from typing import Any

import torch
from torch import Tensor

from hpc.optim.layerwise import LayerWise


class NovoGrad(LayerWise):
    """NovoGrad; a tensor has one second moment, which begins with the first gradient's norm.

    The momentum is a plain sum (no factor 1 - beta1) and nothing is corrected for bias, as in algorithm 1, so
    a rate that suits Adam is about 1 / (1 - beta1) times too large here.
    """

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        beta1, beta2 = group["betas"]
        for p, norm in zip(params, torch._foreach_norm(grads), strict=True):
            state = self.state[p]
            if not state:
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), norm.square()
            else:
                state["exp_avg_sq"].mul_(beta2).addcmul_(norm, norm, value=1 - beta2)
        momenta = [self.state[p]["exp_avg"] for p in params]
        scale = torch._foreach_sqrt([self.state[p]["exp_avg_sq"] for p in params])
        torch._foreach_add_(scale, group["eps"])

        steps = torch._foreach_div(grads, scale)
        if group["weight_decay"]:
            torch._foreach_add_(steps, params, alpha=group["weight_decay"])
        torch._foreach_mul_(momenta, beta1)
        torch._foreach_add_(momenta, steps)
        torch._foreach_add_(params, momenta, alpha=-group["lr"])
