"""Keeps a gradient that is not finite out of weights and moments, without waiting for the device.

The ranks learn of such an update only after it (`hpc/training/step_sync.py`) and then end. Until then the
network must stay usable: the optimizer reads a flag on the device and leaves everything as it was.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


@contextlib.contextmanager
def guarded(optimizer: torch.optim.Optimizer, finite: Tensor) -> Iterator[None]:
    """Let the steps inside use no gradient unless `finite`, a bool scalar on the device.

    torch's fused kernels skip the step exactly. The others, which ignore the flag of torch's GradScaler or
    refuse it, step with gradients of zero. Nothing is multiplied by the flag: NaN times zero is NaN.
    """
    if all(group.get("fused") for group in optimizer.param_groups):
        fused: Any = optimizer
        fused.grad_scale, fused.found_inf = None, (~finite).float()
        try:
            yield
        finally:
            del fused.grad_scale, fused.found_inf
        return
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad.masked_fill_(~finite.to(p.grad.device), 0.0)
    yield
