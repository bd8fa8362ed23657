"""How many numbers a network holds, and how many bytes wait for its backward pass."""

from collections.abc import Callable

import torch
from torch import nn


def parameters(net: nn.Module) -> int:
    """Trained numbers alone."""
    return sum(tensor.numel() for tensor in net.parameters())


def with_statistics(net: nn.Module) -> int:
    """Trained numbers and the running statistics of batch norm."""
    running = (t for name, t in net.named_buffers() if name.endswith(("running_mean", "running_var")))
    return parameters(net) + sum(tensor.numel() for tensor in running)


def kept_bytes(run: Callable[[], object], *, without: tuple[nn.Module, ...] = ()) -> int:
    """Bytes that autograd keeps of what `run` computes, each storage once, but for what `without` hold."""
    own = {t.untyped_storage().data_ptr() for net in without for t in (*net.parameters(), *net.buffers())}
    found: dict[int, tuple[int, torch.Tensor]] = {}  # held, so that no address comes twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(size for size, _ in found.values())
