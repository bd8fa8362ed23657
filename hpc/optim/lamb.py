"""LAMB: Adam whose step is scaled for each tensor by the norm of its weights.

You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes" (2020), algorithm 2.
"""

from typing import Any

import torch
from torch import Tensor

from hpc.optim.layerwise import LayerWise


class Lamb(LayerWise):
    """phi of the paper is the identity; a tensor whose weights or step are all zero takes the step unscaled.

    The step counter of a tensor is on the CPU, as in torch's own optimizers: reading it does not stall a GPU.
    """

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in params]
        grads = [p.grad for p in params if p.grad is not None]
        first = [state["exp_avg"] for state in states]
        second = [state["exp_avg_sq"] for state in states]
        beta1, beta2 = group["betas"]
        for state in states:
            state["step"] += 1
        counts = [state["step"].item() for state in states]

        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        scale = torch._foreach_div(second, [1 - beta2**t for t in counts])
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        steps = torch._foreach_div(first, [1 - beta1**t for t in counts])
        torch._foreach_div_(steps, scale)
        if group["weight_decay"]:
            torch._foreach_add_(steps, params, alpha=group["weight_decay"])

        ratios = []
        for weight, length in zip(torch._foreach_norm(params), torch._foreach_norm(steps), strict=True):
            usable = (weight > 0) & (length > 0)
            ratios.append(torch.where(usable, weight / length, torch.ones_like(weight)))
        torch._foreach_mul_(steps, ratios)
        torch._foreach_add_(params, steps, alpha=-group["lr"])
