"""How many numbers a network holds."""

from torch import nn


def parameters(net: nn.Module) -> int:
    """Trained numbers alone."""
    return sum(tensor.numel() for tensor in net.parameters())


def with_statistics(net: nn.Module) -> int:
    """Trained numbers and the running statistics of batch norm."""
    running = (t for name, t in net.named_buffers() if name.endswith(("running_mean", "running_var")))
    return parameters(net) + sum(tensor.numel() for tensor in running)
